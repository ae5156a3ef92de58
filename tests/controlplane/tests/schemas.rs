//! kubeconform accepts and refuses what the API server would, by schemas that are made here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy does not take the helpers of tests for tests")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use test_controlplane::{ControlPlane, schemas, tool};

/// What kubeconform has against the manifest.
fn refusal(folder: &Path, manifest: &str) -> Option<String> {
    let mut child = Command::new(tool("kubeconform").unwrap())
        .args(["-strict", "-output", "json", "-schema-location", &schemas::location(folder)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn deployment() -> Value {
    let container = json!({"name": "main", "image": "example", "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}, "livenessProbe": {"httpGet": {"path": "/", "port": "http"}}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}}}})
}

fn service_monitor() -> Value {
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "endpoints": [{"port": "http", "interval": "30s"}]}})
}

fn rule() -> Value {
    let alert = json!({"alert": "Down", "expr": "up == 0", "for": "5m", "labels": {"severity": "critical"}});
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "web"},
        "spec": {"groups": [{"name": "web", "rules": [alert]}]}})
}

/// The manifest with one value in it set.
fn with(mut manifest: Value, pointer: &str, field: &str, value: Value) -> String {
    manifest.pointer_mut(pointer).unwrap()[field] = value;
    manifest.to_string()
}

#[tokio::test]
async fn kubeconform_refuses_what_the_schemas_do_not_know() {
    let plane = ControlPlane::shared().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let crds = tool("prometheus-operator-crds").unwrap();
    let crds: Vec<PathBuf> = ["servicemonitors", "podmonitors", "prometheusrules"]
        .map(|plural| crds.join(format!("monitoring.coreos.com_{plural}.yaml")))
        .into();
    schemas::write(&plane.client().await.unwrap(), &crds, folder).await.unwrap();

    let config_map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"any": "value"}});
    for good in [deployment(), service_monitor(), rule(), config_map.clone()] {
        assert_eq!(refusal(folder, &good.to_string()), None, "{good}");
    }
    // Its schema refers to itself, and it has a field called $ref.
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(refusal(folder, &fs::read_to_string(&path).unwrap()), None, "{}", path.display());
    }

    let container = "/spec/template/spec/containers/0";
    for (bad, word) in [
        (with(deployment(), "/spec", "replica", json!(2)), "replica"),
        (with(deployment(), container, "enviroment", json!([])), "enviroment"),
        (with(deployment(), "/metadata", "label", json!({})), "label"),
        (with(deployment(), "/spec", "replicas", json!("two")), "replicas"),
        (with(deployment(), "/spec/template/spec/volumes/0/emptyDir", "size", json!(1)), "size"),
        (with(config_map, "", "datum", json!({})), "datum"),
        (with(service_monitor(), "/spec/endpoints/0", "intervall", json!("30s")), "intervall"),
        (with(service_monitor(), "/spec", "endpoint", json!([])), "endpoint"),
        (with(service_monitor(), "/metadata", "label", json!({})), "label"),
        (with(rule(), "/spec/groups/0/rules/0", "severity", json!("critical")), "severity"),
        (json!({"apiVersion": "example.com/v1", "kind": "Unheard", "metadata": {"name": "of"}}).to_string(), "Unheard"),
    ] {
        let refusal = refusal(folder, &bad).unwrap_or_else(|| panic!("accepted: {bad}"));
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
}

#[tokio::test]
async fn the_command_says_where_kubeconform_finds_the_schemas() {
    let plane = ControlPlane::shared().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let command = |file: &str| {
        Command::new(env!("CARGO_BIN_EXE_controlplane"))
            .arg("schemas")
            .args([Path::new("--kubeconfig"), plane.kubeconfig(), Path::new("--directory"), folder.path()])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
            .output()
            .unwrap()
    };
    let output = command("../../crds/toolzzcredentials.yaml");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), schemas::location(folder.path()));
    assert!(folder.path().join("toolzzcredential-toolzz.com.br-v1alpha1.json").exists());
    assert!(folder.path().join("secret-v1-v1.json").exists());

    let output = command("../../Cargo.toml");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("Cargo.toml"), "{message}");
}
