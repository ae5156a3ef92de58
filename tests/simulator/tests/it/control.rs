//! The control interface over HTTP.

use reqwest::Method;
use serde_json::{Value, json};
use toolzz_simulator::{OPENAI, Simulator, fingerprint};
use uuid::Uuid;

use crate::client::{Client, UNITY, USER, parse, staged};

struct Control {
    http: reqwest::Client,
    url: String,
}

impl Control {
    async fn text(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        let answer = self
            .http
            .request(method, format!("{}{path}", self.url))
            .body(body.to_owned())
            .send()
            .await
            .expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, text) = self.text(method, path, &body.to_string()).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn get(&self, path: &str) -> Value {
        let (status, text) = self.text(Method::GET, path, "").await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }
}

fn start() -> (Simulator, Client, Control) {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let control = Control {
        http: reqwest::Client::builder().no_proxy().build().expect("a client"),
        url: simulator.control_url(),
    };
    (simulator, client, control)
}

#[tokio::test]
async fn what_there_is_can_be_seen_but_never_the_material() {
    let (simulator, client, control) = start();
    let (_, created) = client.create(&staged("a\u{1b}[31m")).await;
    let digest = fingerprint(&json!([{"api_key": "sk-very-secret"}]));
    let credentials = control.get("/credentials").await;
    assert_eq!((&credentials[0]["id"], &credentials[0]["material"]), (&created["id"], &json!(digest)));
    assert_eq!(credentials[0]["history"][0]["by"], json!({"request": 1}));
    let table = control.text(Method::GET, "/table", "").await.1;
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "NAME", "ACTIVE", "VIRTUAL-KEY", "SECRET-ID", "MATERIAL"]);
    let text = |field: &str| created[field].as_str().expect("text");
    assert_eq!(lines[1], [text("id"), "a\u{fffd}[31m", "no", text("virtualKey"), text("secretId"), &digest]);
    let journal = control.get("/journal").await;
    assert_eq!((&journal[0]["operation"], &journal[0]["token"]), (&json!("create"), &json!({"full": "default"})));
    assert_eq!(control.get("/journal?after=1").await, json!([]));
    assert_eq!(control.text(Method::GET, "/journal?x=1", "").await.0, 400);
    assert_eq!(control.get("/counts").await["create"], json!({"received": 1, "committed": 1, "answered2xx": 1}));
    assert!(!format!("{credentials}{table}{journal}").contains("sk-very-secret"));
    assert_eq!(simulator.journal().len(), 1, "control is not in the journal");
    assert!(control.text(Method::GET, "/", "").await.1.contains("/_sim/release"));
    assert_eq!(control.text(Method::GET, "/nothing", "").await.0, 404);
}

#[tokio::test]
async fn faults_can_be_set_and_removed() {
    let (simulator, client, control) = start();
    let rule = json!({
        "on": {"operation": "create"}, "times": {"chance": {"probability": 1.0, "seed": 7}}, "skip": 0,
        "fault": {"commit": "now", "reply": {"status": {"status": 500, "headers": [["x-a", "b"]], "body": "{}"}}},
    });
    let id = control.json(Method::POST, "/faults", rule).await["id"].clone();
    let answer = client.post(&staged("a")).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.headers()["x-a"].to_str().ok()), (500, Some("b")));
    assert_eq!(parse(answer).await, json!({}));
    assert_eq!(control.get("/faults").await[0]["hits"], 1);
    control.json(Method::DELETE, &format!("/faults/{id}"), json!({})).await;
    assert_eq!(control.text(Method::DELETE, &format!("/faults/{id}"), "").await.0, 404);
    for reply in [
        json!("normal"),
        json!("reset"),
        json!("garbled"),
        json!("truncated"),
        json!("html"),
        json!("wrongShape"),
        json!("empty"),
        json!({"hang": {"atMostMs": 1}}),
        json!({"drip": {"bytes": 1, "everyMs": 1}}),
        json!({"huge": {"bytes": 1}}),
        json!({"redirect": {"status": 302, "location": "x"}}),
        json!({"stale": {"asOf": 1}}),
        json!({"partial": {"every": 2}}),
    ] {
        for commit in [json!("now"), json!("never"), json!("onRelease"), json!({"after": {"ms": 1}})] {
            let fault = json!({"commit": commit, "reply": reply, "delayBeforeMs": 1, "delayAfterMs": 1});
            control.json(Method::POST, "/faults", json!({"times": {"next": 1}, "fault": fault})).await;
        }
    }
    let (status, error) =
        control.text(Method::POST, "/faults", r#"{"times": "always", "fault": {"replies": 1}}"#).await;
    assert_eq!(status, 400);
    assert!(error.contains("replies"), "{error}");
    control.json(Method::DELETE, "/faults", json!({})).await;
    assert_eq!(control.get("/faults").await, json!([]));
    assert_eq!(simulator.credentials().len(), 1);
}

#[tokio::test]
async fn settings_and_tokens_can_be_changed() {
    let (simulator, client, control) = start();
    control.json(Method::PUT, "/settings", json!({"catalogue": false})).await;
    let settings = control.json(Method::PUT, "/settings", json!({"listingFormat": "items"})).await;
    assert_eq!((&settings["catalogue"], &settings["listingFormat"]), (&json!(false), &json!("items")));
    assert_eq!(control.text(Method::PUT, "/settings", r#"{"catalog": true}"#).await.0, 400);
    assert_eq!(control.get("/settings").await, settings);
    assert!(!simulator.settings().catalogue);
    control.json(Method::PUT, "/tokens", json!([{"id": "x", "value": "t"}])).await;
    assert_eq!(client.create(&staged("a")).await.0.as_u16(), 401);
}

#[tokio::test]
async fn others_can_make_edit_and_remove() {
    let (simulator, _client, control) = start();
    let new = json!({"name": "a", "userId": USER, "unityId": UNITY, "integrationId": OPENAI, "active": true, "material": [{}]});
    let id = control.json(Method::POST, "/credentials", new).await["id"].as_str().expect("an id").to_owned();
    control.json(Method::PATCH, &format!("/credentials/{id}"), json!({"name": "b", "active": false})).await;
    assert_eq!(control.text(Method::PATCH, &format!("/credentials/{id}"), r#"{"nam": 1}"#).await.0, 400);
    let credential = simulator.credential(id.parse().expect("a UUID")).expect("known");
    assert_eq!(
        (credential.row.name.as_str(), credential.is_active(), credential.was_ever_active()),
        ("b", false, true)
    );
    control.json(Method::DELETE, &format!("/credentials/{id}"), json!({})).await;
    assert_eq!(control.text(Method::DELETE, &format!("/credentials/{}", Uuid::new_v4()), "").await.0, 404);
    assert!(control.text(Method::GET, "/table", "").await.1.contains("removed"));
}

#[tokio::test]
async fn gates_and_late_effects_can_be_released() {
    let (simulator, client, control) = start();
    let gate = control
        .json(Method::POST, "/gates", json!({"on": {"operation": "create"}, "point": "beforeCommit"}))
        .await["id"]
        .clone();
    let held = tokio::spawn({
        let client = client.clone();
        async move { client.create(&staged("a")).await.0.as_u16() }
    });
    simulator.until(|state| state.in_flight() == 1).await;
    while control.get("/gates").await[0]["waiting"] != 1 {}
    assert_eq!(control.json(Method::POST, "/release", json!({"gate": gate})).await, json!({"released": 1, "late": 0}));
    assert_eq!(held.await.expect("no panic"), 201);
    let late = json!({"times": {"next": 2}, "fault": {"commit": "onRelease", "reply": "reset"}});
    control.json(Method::POST, "/faults", late).await;
    client.post(&staged("b")).await.expect_err("no answer");
    assert_eq!(control.text(Method::POST, "/release", "").await, (200, r#"{"late":1,"released":0}"#.to_owned()));
    client.post(&staged("c")).await.expect_err("no answer");
    assert_eq!(control.json(Method::POST, "/release", json!({"discard": true})).await["late"], 1);
    assert_eq!((simulator.named("b").len(), simulator.named("c").len()), (1, 0));
}
