//! The API server, asked by hand: what it answers is mostly not looked at.

use std::path::Path;

use http::{Method, Request};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::wait::await_condition,
};
use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};
use serde_json::{Value, json};

use crate::{error::Result, load::LOOK};

const CREDENTIALS: &str = "/apis/toolzz.com.br/v1alpha1";
/// Of a list.
const PAGE: usize = 500;

/// A client with somebody's rights. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes(pub kube::Client);

/// What is looked at of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    pub metadata: Metadata,
    pub status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    pub name: String,
    pub generation: i64,
    pub resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    pub id: Option<String>,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

impl Object {
    /// Ready, of the spec as it is now.
    pub fn is_ready(&self) -> bool {
        let ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        self.status.observed_generation == self.metadata.generation && self.status.conditions.iter().any(ready)
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<Object>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: String,
}

impl Kubernetes {
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        Ok(Self(test_controlplane::connect(kubeconfig).await?))
    }

    /// What is there, as text.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(self.0.request_text(Request::get(path).body(Vec::new())?).await?)
    }

    /// One call; what it answered, as far as somebody wants it.
    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<T> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let request =
            Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, kind).body(body)?;
        Ok(self.0.request(request).await?)
    }

    /// Makes an object in this collection.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<()> {
        self.call::<IgnoredAny>(Method::POST, collection, "application/json", object).await.map(drop)
    }

    /// A merge patch; the object as it is then.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<Object> {
        self.call(Method::PATCH, path, "application/merge-patch+json", patch).await
    }

    pub async fn get(&self, path: &str) -> Result<Object> {
        self.call(Method::GET, path, "application/json", &Value::Null).await
    }

    pub async fn delete(&self, path: &str) -> Result<()> {
        self.call::<IgnoredAny>(Method::DELETE, path, "application/json", &Value::Null).await.map(drop)
    }

    /// Whatever is in this collection.
    pub async fn list(&self, collection: &str) -> Result<Vec<Object>> {
        let (mut all, mut next) = (Vec::new(), String::new());
        loop {
            let path = format!("{collection}?limit={PAGE}&continue={next}");
            let list: List = self.call(Method::GET, &path, "application/json", &Value::Null).await?;
            all.extend(list.items);
            if list.metadata.next.is_empty() {
                return Ok(all);
            }
            next = list.metadata.next;
        }
    }

    /// Waits, by a watch, until the resource is Ready as its spec is now.
    pub async fn until_ready(&self, namespace: &str, name: &str) {
        let kind = GroupVersionKind::gvk("toolzz.com.br", "v1alpha1", "ToolzzCredential");
        let resource = ApiResource::from_gvk_with_plural(&kind, "toolzzcredentials");
        let api: Api<DynamicObject> = Api::namespaced_with(self.0.clone(), namespace, &resource);
        let ready = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| {
                let status = object.data.get("status").and_then(|status| Status::deserialize(status).ok());
                let metadata =
                    Metadata { generation: object.metadata.generation.unwrap_or_default(), ..Metadata::default() };
                Object { metadata, status: status.unwrap_or_default() }.is_ready()
            })
        };
        // A watch that fails is begun anew; how long it may take is the caller's to say.
        while await_condition(api.clone(), name, ready).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }

    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.create("/api/v1/namespaces", &object).await
    }
}

pub fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

pub fn credentials(namespace: &str) -> String {
    format!("{CREDENTIALS}/namespaces/{namespace}/toolzzcredentials")
}

/// The resources of every namespace.
pub fn all_credentials() -> String {
    format!("{CREDENTIALS}/toolzzcredentials")
}

pub fn connections(namespace: &str) -> String {
    format!("{CREDENTIALS}/namespaces/{namespace}/toolzzconnections")
}
