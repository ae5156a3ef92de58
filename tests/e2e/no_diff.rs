//! The examples, applied by what users apply with: they become what they say, and applied again nothing changes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use toolzz_operator::api::MANAGER;

use super::{connections::service, docs::files, support::*};

const REQUESTED: &str = "toolzz.com.br/reconcile-requested-at";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ClientSide,
    ServerSide,
    /// As Helm does it from its version 4 on: server-side.
    Helm,
    /// As Helm did it before.
    HelmClientSide,
}

impl Way {
    /// Applies a file once more or for the first time.
    fn apply(self, lab: &Lab, file: &Path) {
        let path = file.to_str().unwrap();
        match self {
            Self::ClientSide => drop(lab.kubectl(&["apply", "-f", path])),
            Self::ServerSide => drop(lab.kubectl(&["apply", "--server-side", "-f", path])),
            Self::Helm => helm(lab, file, "--server-side=true"),
            Self::HelmClientSide => helm(lab, file, "--server-side=false"),
        }
    }

    /// Applies a file again: everything is as it was, to the last field and its time.
    fn apply_again(self, lab: &Lab, file: &Path) {
        let before = objects(lab, file);
        if self == Self::ClientSide {
            let said = lab.kubectl(&["apply", "-f", file.to_str().unwrap()]);
            assert!(said.lines().all(|line| line.ends_with(" unchanged")), "{said}");
        } else {
            self.apply(lab, file);
        }
        assert_eq!(objects(lab, file), before, "{self:?}: {}", file.display());
    }
}

/// Installs a chart of this one file, or upgrades to it.
fn helm(lab: &Lab, file: &Path, how: &str) {
    let release = file.file_stem().unwrap().to_str().unwrap();
    let chart = lab.directory.join("charts").join(release);
    fs::create_dir_all(chart.join("templates")).unwrap();
    fs::write(chart.join("Chart.yaml"), format!("apiVersion: v2\nname: {release}\nversion: 0.1.0\n")).unwrap();
    fs::copy(file, chart.join("templates/example.yaml")).unwrap();
    let chart = chart.to_str().unwrap();
    let args = ["upgrade", "--install", release, chart, how, "-n", &lab.namespace];
    let output = lab.plane.helm(args).output().unwrap();
    assert!(output.status.success(), "{release}: {}", String::from_utf8_lossy(&output.stderr));
}

/// All that there is of the objects in a file.
fn objects(lab: &Lab, file: &Path) -> Vec<Value> {
    let list = lab.kubectl(&["get", "-f", file.to_str().unwrap(), "-o", "json", "--show-managed-fields"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    match list["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![list],
    }
}

/// An operator has written to this object, and nothing of what a user writes is its own.
fn assert_owns_no_wish(object: &Value) {
    let managed = object["metadata"]["managedFields"].as_array().unwrap();
    let own: Vec<_> = managed.iter().filter(|entry| entry["manager"] == MANAGER).collect();
    assert!(own.iter().any(|entry| entry["subresource"] == "status"), "{managed:#?}");
    for entry in own {
        let fields = entry["fieldsV1"].as_object().unwrap();
        assert!(fields.keys().all(|field| field == "f:metadata" || field == "f:status"), "{entry:#}");
        let metadata = fields.get("f:metadata").and_then(Value::as_object);
        for field in metadata.into_iter().flat_map(|metadata| metadata.keys()) {
            assert!(["f:annotations", "f:finalizers"].contains(&field.as_str()), "{entry:#}");
        }
    }
}

fn examples() -> Vec<PathBuf> {
    let mut all = files("examples", "yaml");
    all.extend(files("examples/features", "yaml"));
    all
}

/// Those lead to the real Toolzz.
fn is_about_connections(file: &Path) -> bool {
    file.file_name().unwrap().to_string_lossy().starts_with("connection-")
}

/// The credential of a file, and the reason its header promises.
fn promised(text: &str) -> (String, &str) {
    let name = text.split("kind: ToolzzCredential").nth(1).unwrap().split("name: ").nth(1).unwrap();
    let name = name.split_whitespace().next().unwrap().to_owned();
    let becomes = text.lines().find_map(|line| line.strip_prefix("# Becomes: ")).unwrap_or("Created");
    (name, becomes)
}

/// Writes to the status of the objects in a file, as an operator does first of all. Until then the API server shows a status
/// that it has not stored, the default of the schema: it stores it with the next write, and so even one that changes nothing
/// makes another version.
fn mark_as_seen(lab: &Lab, file: &Path) {
    for object in objects(lab, file) {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let status = r#"{"status":{"observedGeneration":1}}"#;
        lab.kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "-p", status]);
    }
}

async fn every_example_stays_as_it_was_applied(way: Way) {
    let lab = Lab::start("examples").await;
    let files: Vec<_> = examples().into_iter().filter(|file| !is_about_connections(file)).collect();
    assert!(files.len() >= 16, "{files:?}");
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let (name, becomes) = promised(&text);
        way.apply(&lab, file);
        lab.until_reason(&name, becomes).await;
        way.apply_again(&lab, file);
        // Nobody looks at what is suspended.
        if becomes != "Suspended" {
            lab.annotate(&name, REQUESTED, "now").await;
            lab.until(&name, "looked at", |object| {
                object.status.as_ref().unwrap().last_handled_reconcile_at.as_deref() == Some("now")
            })
            .await;
            way.apply_again(&lab, file);
        }
        let all = objects(&lab, file);
        let credential = all.iter().find(|object| object["kind"] == "ToolzzCredential").unwrap();
        assert_owns_no_wish(credential);
    }
}

#[tokio::test]
async fn applied_by_kubectl() {
    every_example_stays_as_it_was_applied(Way::ClientSide).await;
}

#[tokio::test]
async fn applied_by_kubectl_on_the_server() {
    every_example_stays_as_it_was_applied(Way::ServerSide).await;
}

#[tokio::test]
async fn applied_by_helm() {
    every_example_stays_as_it_was_applied(Way::Helm).await;
}

#[tokio::test]
async fn applied_by_helm_on_the_client() {
    every_example_stays_as_it_was_applied(Way::HelmClientSide).await;
}

#[tokio::test]
async fn connections_stay_as_they_were_applied() {
    // One of the examples is for the whole cluster: nobody else must be there, nor an operator that follows it.
    let mut lab = Lab::on(plane_of_ones_own().await, "connections").await;
    for way in [Way::ClientSide, Way::ServerSide, Way::Helm, Way::HelmClientSide] {
        for file in examples().iter().filter(|file| is_about_connections(file)) {
            way.apply(&lab, file);
            mark_as_seen(&lab, file);
            way.apply_again(&lab, file);
            lab.kubectl(&["delete", "-f", file.to_str().unwrap()]);
        }
        // Helm wants nobody else's objects, and no release of its own that lost them.
        lab.namespace = lab.plane.unique_namespace("connections").await.unwrap();
    }
}

#[tokio::test]
async fn an_operator_owns_no_wish_of_a_connection() {
    // Who follows the connections of the cluster follows all of it.
    let mut lab = Lab::on(plane_of_ones_own().await, "wishes").await;
    lab.scope = Some(Vec::new());
    lab.flags.push("--allowed-hosts=127.0.0.1".to_owned());
    lab.start_operator();
    let own = service("own");
    lab.connect("own", &own.url(), "own").await;
    lab.until_connection("own", "Connected").await;
    let spec = json!({
        "url": own.url(), "tokenSecretRef": {"name": "token-own", "key": "token"},
        "namespaces": {"names": [lab.namespace]}, "unities": [{"id": "*"}],
    });
    lab.shared_connection("own", spec).await;
    lab.until_shared_connection("own", "Connected").await;
    for kind in ["ToolzzConnection", "ClusterToolzzConnection"] {
        let object = lab.kubectl(&["get", kind, "own", "-o", "json", "--show-managed-fields"]);
        assert_owns_no_wish(&serde_json::from_str(&object).unwrap());
    }
}
