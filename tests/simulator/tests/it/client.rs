//! A client that never follows a redirect and never sends anything twice.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use toolzz_simulator::{DEFAULT_TOKEN, NewCredential, OPENAI, Operation, Simulator};
use uuid::Uuid;

pub(crate) const UNITY: Uuid = Uuid::from_u128(1);
pub(crate) const USER: Uuid = Uuid::from_u128(2);

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    pub(crate) token: String,
}

impl Client {
    pub(crate) fn new(simulator: &Simulator) -> Self {
        // An error: another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let http = builder.build().expect("a client");
        Self { http, url: simulator.url(), token: DEFAULT_TOKEN.to_owned() }
    }

    pub(crate) fn request(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token));
        match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            None => request,
        }
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> reqwest::Result<Response> {
        self.request(method, path, body).send().await
    }

    /// Status and JSON body; panics where the answer is neither complete nor JSON.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let answer = self.send(method, path, body).await.expect("an answer");
        let status = answer.status();
        (status, parse(answer).await)
    }

    pub(crate) async fn post(&self, body: &Value) -> reqwest::Result<Response> {
        self.send(Method::POST, "/credential", Some(body)).await
    }

    pub(crate) async fn create(&self, body: &Value) -> (StatusCode, Value) {
        self.json(Method::POST, "/credential", Some(body)).await
    }

    pub(crate) async fn put(&self, id: &Value, body: &Value) -> (StatusCode, Value) {
        let id = id.as_str().expect("an id");
        self.json(Method::PUT, &format!("/credential/{id}"), Some(body)).await
    }

    pub(crate) async fn list(&self) -> (StatusCode, Value) {
        self.json(Method::GET, &list_path("llm"), None).await
    }

    /// Sends a create and dies as soon as the simulator has it.
    pub(crate) async fn post_and_die(&self, simulator: &Simulator, body: &Value) {
        let before = simulator.posts();
        let request = self.request(Method::POST, "/credential", Some(body)).send();
        tokio::select! {
            answer = request => panic!("an answer: {answer:?}"),
            () = simulator.until(|state| state.counts(Operation::Create).received > before) => {}
        }
    }
}

pub(crate) async fn parse(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a whole body")).expect("JSON")
}

pub(crate) fn list_path(kind: &str) -> String {
    format!("/credential/unity/{UNITY}/type/{kind}")
}

/// An inactive OpenAI credential.
pub(crate) fn staged(name: &str) -> Value {
    json!({
        "name": name, "userId": USER, "unityId": UNITY, "integrationId": OPENAI, "status": false,
        "credentials": [{"api_key": "sk-very-secret"}],
    })
}

/// The same, as it is updated: without material.
pub(crate) fn row(name: &str, active: bool) -> Value {
    json!({"name": name, "userId": USER, "unityId": UNITY, "integrationId": OPENAI, "status": active})
}

pub(crate) fn elsewhere(name: &str, active: bool) -> NewCredential {
    NewCredential {
        name: name.to_owned(),
        user_id: USER,
        unity_id: UNITY,
        integration_id: OPENAI,
        active,
        material: json!([{"api_key": "sk-elsewhere"}]),
    }
}
