//! What the API server refuses, and that its message names the field.

use serde_json::{Value, json};
use toolzz_operator::api::ToolzzCredential;

use super::support::*;

#[tokio::test]
async fn a_wrong_manifest_is_refused_with_the_field_named() {
    let lab = Lab::empty("admission").await;
    let long = "x".repeat(201);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("userId", json!("me"), "must be a UUID"),
        ("unityId", json!("me"), "must be a UUID"),
        ("integrationId", json!("me"), "must be a UUID"),
        ("type", json!("video"), "Unsupported value"),
        ("name", json!(long), "200"),
        ("name", json!(" openai"), "without spaces"),
        ("name", json!("x [toolzz-operator 0f8fad5b-12345678]"), "marks unfinished"),
        ("credentials", json!([]), "at least 1"),
        ("credentials", json!([{"api_key": {}}]), "secretKeyRef"),
        ("credentials", json!([{"api_key": {"secretKeyRef": {"name": "Not A Name", "key": "key"}}}]), "should match"),
        ("deletionPolicy", json!("Delete"), "Unsupported value"),
        ("onConflict", json!("Take"), "Unsupported value"),
        ("rotation", json!({"strategy": "Copy"}), "Unsupported value"),
        ("rotation", json!({"gracePeriod": "10m"}), "Replace strategy"),
        ("rotation", json!({"strategy": "Replace", "gracePeriod": "soon"}), "should match"),
        ("rotation", json!({"strategy": "Replace", "gracePeriod": "9000h"}), "at most 8760h"),
        ("target", json!({"kind": "Deployment", "name": "x"}), "Unsupported value"),
        ("target", json!({"kind": "Secret", "name": "Not A Name"}), "should match"),
        ("target", json!({"kind": "Secret", "name": "wrong"}), "must not be a Secret that the key material comes from"),
        ("target", json!({"kind": "Secret", "name": "x", "keys": {}}), "at least one"),
        ("target", json!({"kind": "Secret", "name": "x", "keys": {"id": "a", "virtualKey": "a"}}), "all be different"),
        ("integrationId", Value::Null, "exactly one of"),
    ];
    for (field, value, says) in cases {
        let mut manifest = lab.manifest("wrong");
        manifest["spec"][field] = value.clone();
        if value.is_null() {
            manifest["spec"].as_object_mut().unwrap().remove(field);
        }
        let api: kube::Api<kube::core::DynamicObject> = kube::Api::namespaced_with(
            lab.client.clone(),
            &lab.namespace,
            &kube::core::ApiResource::erase::<ToolzzCredential>(&()),
        );
        let object = serde_json::from_value(manifest).unwrap();
        let error = api.create(&Default::default(), &object).await.expect_err(field).to_string();
        assert!(error.contains(&format!("spec.{field}")) && error.contains(says), "{field}: {value}: {error}");
    }
}

#[tokio::test]
async fn what_cannot_move_yet_is_refused() {
    let lab = Lab::empty("immutable").await;
    lab.create(lab.manifest("openai")).await.unwrap();
    let other = "0b8e2d34-0000-4000-8000-000000000009";
    for (field, value) in [("unityId", json!(other)), ("integrationId", json!(other)), ("type", json!("llm"))] {
        let patch = kube::api::Patch::Merge(json!({"spec": {field: value}}));
        let error = lab.api().patch("openai", &Default::default(), &patch).await.expect_err(field).to_string();
        assert!(error.contains(&format!("spec.{field}")) && error.contains("cannot be changed"), "{error}");
    }
}

#[tokio::test]
async fn a_fresh_resource_does_not_look_healthy() {
    let lab = Lab::empty("fresh").await;
    let object = lab.create(lab.manifest("openai")).await.unwrap();
    let status = object.status.as_ref().unwrap();
    assert_eq!(status.observed_generation, Some(-1));
    assert_eq!(ready(&object).map(|(status, reason, _)| (status, reason)), Some(("Unknown", "Pending")));
}

#[tokio::test]
async fn every_field_is_explained_and_the_table_has_its_columns() {
    let lab = Lab::empty("explain").await;
    let kubectl = |args: &[&str]| {
        let output = lab.plane.kubectl(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The server publishes the schema of a definition some moments after it is established.
    let explained = async {
        let explain = ["explain", "toolzzcredentials.spec", "--recursive"];
        while !lab.plane.kubectl(explain).output().unwrap().status.success() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        kubectl(&explain)
    };
    let text = tokio::time::timeout(std::time::Duration::from_secs(60), explained).await.expect("no explanation");
    assert!(text.contains("secretKeyRef"), "{text}");
    lab.create(lab.manifest("openai")).await.unwrap();
    let table = kubectl(&["get", "tzc", "-n", &lab.namespace, "-o", "wide"]);
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        ["NAME", "READY", "REASON", "TYPE", "VIRTUAL-KEY", "LAST-SYNC", "AGE", "ID", "SECRET-ID", "MESSAGE"]
    );
    kubectl(&["get", "toolzz", "-n", &lab.namespace]);
}

#[test]
fn every_field_has_a_description() {
    fn walk(path: &str, schema: &Value, missing: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property["description"].as_str().unwrap_or_default().is_empty() {
                missing.push(path.clone());
            }
            walk(&path, property, missing);
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                walk(path, &schema[part], missing);
            }
        }
    }
    let mut missing = Vec::new();
    for crd in toolzz_operator::api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            walk(part, &schema[part], &mut missing);
        }
    }
    assert!(missing.is_empty(), "without description: {missing:?}");
}
