//! What the API server and the simulated Toolzz give a bare loader: for each resource the calls of a create, without
//! any controller. In the same run and on the same machine, or the ratio would mean nothing.

use std::time::{Duration, Instant};

use http::{Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    figures::percentile,
    kubernetes::Kubernetes,
    load::{IN_FLIGHT, each},
    world::{Names, USER, World},
};

/// So many resources show what there is to be had.
const MOST: usize = 10_000;
/// So many one after another show what one takes.
const ALONE: usize = 100;

/// What there is to be had.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    /// Resources per second.
    pub rate: f64,
    /// One resource, while nothing else happens.
    pub alone: Duration,
}

impl Ceiling {
    /// What one resource takes: Secret, record and status of Kubernetes, POST and PUT of Toolzz.
    pub const REQUESTS: f64 = 3.0;
    pub const WRITES: f64 = 2.0;
    pub const CALLS: f64 = 2.0;

    /// How many seconds so many resources take.
    pub fn time(&self, count: usize) -> f64 {
        count as f64 / self.rate
    }
}

/// The loader.
#[derive(Clone)]
struct Loader {
    kubernetes: Kubernetes,
    http: reqwest::Client,
    url: String,
}

/// What is needed of Toolzz's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    secret_id: String,
    virtual_key: String,
}

/// Loads so many resources, after some one by one.
pub async fn measure(world: &mut World<'_>, size: usize) -> Result<Ceiling> {
    let loader = Loader { kubernetes: world.account.clone(), http: world.http.clone(), url: world.simulator.url() };
    world.fill(ALONE).await?;
    let mut alone = Vec::new();
    for number in 0..ALONE {
        let begun = Instant::now();
        loader.load(number).await?;
        alone.push(begun.elapsed());
    }
    let rate = rate(world, loader, size.min(MOST)).await?;
    Ok(Ceiling { rate, alone: percentile(&alone, 50).unwrap_or_default() })
}

async fn rate(world: &mut World<'_>, loader: Loader, size: usize) -> Result<f64> {
    let first = world.count;
    world.fill(size).await?;
    let load = move |number| {
        let loader = loader.clone();
        async move { loader.load(number).await }
    };
    let begun = Instant::now();
    each(first..first + size, IN_FLIGHT, load).await?;
    Ok(size as f64 / begun.elapsed().as_secs_f64())
}

impl Loader {
    /// Secret, POST, record, PUT, status: with bodies as large as the operator's.
    async fn load(&self, number: usize) -> Result<()> {
        let names = Names::of(number);
        self.kubernetes.get(&names.secret_path()).await?;
        let mut body = json!({
            "name": format!("{} [toolzz-operator 01234567-89abcdef]", names.name),
            "userId": USER,
            "unityId": names.unity,
            "integrationId": names.integration,
            "status": false,
            "credentials": [{"api_key": names.secret()["stringData"]["key"]}],
        });
        let row = self.toolzz(Method::POST, "credential", &body).await?;
        let ledger = json!({
            "v": 1, "sequence": 1, "uid": "01234567-89ab-cdef-0123-456789abcdef", "id": row.id,
            "secretId": row.secret_id, "digest": digest(), "stagedAs": row.id, "mac": "0123456789abcdef".repeat(4),
        })
        .to_string();
        let record = json!({"metadata": {
            "finalizers": ["toolzz.com.br/credential"],
            "annotations": {"toolzz.com.br/ledger": ledger},
        }});
        let object = self.kubernetes.patch(&names.path(), &record).await?;
        body["name"] = json!(names.name);
        body["status"] = json!(true);
        body["secretId"] = json!(row.secret_id);
        if let Some(fields) = body.as_object_mut() {
            fields.remove("credentials");
        }
        self.toolzz(Method::PUT, &format!("credential/{}", row.id), &body).await?;
        let status = json!({
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "status": status(&names, &row, &ledger, object.metadata.generation),
        });
        self.kubernetes.patch(&format!("{}/status", names.path()), &status).await?;
        Ok(())
    }

    async fn toolzz(&self, method: Method, path: &str, body: &Value) -> Result<Row> {
        let request = self.http.request(method, format!("{}/{path}", self.url));
        let answer = request
            .bearer_auth(toolzz_simulator::DEFAULT_TOKEN)
            .header(header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(body)?)
            .send()
            .await?;
        if !answer.status().is_success() {
            return Err(Error::Wrong(format!("the simulated Toolzz answered {}", answer.status())));
        }
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}

fn digest() -> String {
    format!("01234567:{}", "0123456789abcdef".repeat(4))
}

fn status(names: &Names, row: &Row, ledger: &str, generation: i64) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let message = format!("credential {} is at Toolzz as the spec says", row.id);
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": now, "observedGeneration": generation,
        })
    };
    json!({
        "observedGeneration": generation,
        "id": row.id,
        "secretId": row.secret_id,
        "virtualKey": row.virtual_key,
        "active": true,
        "type": "llm",
        "integration": {"id": names.integration, "name": "OpenAI", "slug": "openai"},
        "material": {"digest": digest(), "observedGeneration": generation, "sources": [
            {"name": names.name, "uid": "01234567-89ab-cdef-0123-456789abcdef", "resourceVersion": "123456"},
        ]},
        "ledger": ledger,
        "lastSyncTime": now,
        "conditions": [
            condition("Ready", "Created", &message),
            condition("Synced", "Created", &message),
            condition("SecretsResolved", "Resolved", "every Secret and key is there"),
        ],
    })
}
