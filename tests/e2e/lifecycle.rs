//! The main job: create, update, rotate, delete.

use serde_json::json;
use toolzz_operator::api::FINALIZER;
use toolzz_simulator::Operation;
use uuid::Uuid;

use super::support::*;

fn id(text: &str) -> Uuid {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_credential_is_created_with_one_post_one_put_and_two_writes() {
    let lab = Lab::start("create").await;
    lab.credential("openai").await;
    let object = lab.until_ready("openai").await;
    let status = object.status.as_ref().unwrap();
    let remote = &lab.simulator.active_named("openai")[0];
    assert_eq!(status.id.as_ref().unwrap().as_str(), remote.id.to_string());
    assert_eq!(status.secret_id.as_ref().unwrap().as_str(), remote.row.secret_id.to_string());
    assert_eq!(status.virtual_key.as_deref(), Some(remote.row.virtual_key.as_str()));
    assert_eq!(status.integration.as_ref().unwrap().slug, "openai");
    assert_eq!(ready(&object).unwrap().1, "Created");
    assert!(!has_condition(&object, "Reconciling") && !has_condition(&object, "Stalled"));
    assert_eq!(lab.simulator.material_of(remote.row.secret_id), Some(json!([{"api_key": key_material("openai")}])));
    assert_eq!((lab.simulator.posts(), lab.simulator.puts(), lab.simulator.lists()), (1, 1, 1));
    assert!(lab.simulator.read(|state| state.ever_active_while_marked().is_empty()));
    assert_eq!(lab.simulator.credentials().len(), 1);

    // Two writes of the operator's: the record and the status.
    let written = object.metadata.managed_fields.as_ref().unwrap().iter();
    let own: Vec<_> = written.filter(|field| field.manager.as_deref() == Some("toolzz-operator")).collect();
    assert_eq!(own.len(), 2, "metadata and status");
    assert!(own.iter().all(|field| !serde_json::to_string(&field.fields_v1).unwrap().contains("f:spec")));
    // And no third for an event: what is told after it is written, and it was not.
    lab.edit("openai", json!({"name": "renamed"})).await;
    lab.until_event("Updated").await;
    assert!(!lab.events().await.iter().any(|event| event.reason.as_deref() == Some("Created")));
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn a_settled_resource_causes_no_writes_also_over_a_restart() {
    let mut lab = Lab::start("settled").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await;
    lab.kill_operator();
    lab.start_operator();
    let lists = lab.simulator.lists();
    lab.until_remote(|state| state.counts(Operation::List).received > lists).await;
    // What comes after is settled after it: one more resource, made by the same operator.
    lab.credential("later").await;
    lab.until_ready("later").await;
    let after = lab.api().get("openai").await.unwrap();
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version);
    assert_eq!(lab.simulator.posts(), 2);
}

#[tokio::test]
async fn a_rename_and_a_switch_are_one_put_each() {
    let lab = Lab::start("update").await;
    lab.credential("openai").await;
    let created = lab.until_ready("openai").await;
    lab.edit("openai", json!({"name": "OpenAI Marketing"})).await;
    let renamed = lab.until_reason("openai", "Updated").await;
    assert!(ready(&renamed).unwrap().2.contains("name"));
    assert_eq!(lab.simulator.active_named("OpenAI Marketing").len(), 1);
    lab.edit("openai", json!({"active": false})).await;
    let off = lab.until("openai", "inactive", |object| object.status.as_ref().unwrap().active == Some(false)).await;
    assert_eq!(off.status.as_ref().unwrap().id, created.status.unwrap().id);
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 3));
}

#[tokio::test]
async fn a_changed_secret_is_repointed_and_the_virtual_key_stays() {
    let lab = Lab::start("rotate").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await.status.unwrap();
    lab.secret("openai", &[("key", &format!("{CANARY}-new"))]).await;
    let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
    assert_eq!((&before.id, &before.virtual_key), (&after.id, &after.virtual_key));
    assert_ne!(before.secret_id, after.secret_id);
    let secret_id = id(after.secret_id.unwrap().as_str());
    assert_eq!(lab.simulator.material_of(secret_id), Some(json!([{"api_key": format!("{CANARY}-new")}])));
    lab.assert_none_doubled("openai");
    assert_eq!(lab.simulator.posts(), 2);
    lab.until_event("Rotated").await;

    // A Secret whose metadata changes is no rotation.
    let label = ["label", "secret", "openai", "touched=yes", "-n", &lab.namespace];
    assert!(lab.plane.kubectl(label).status().unwrap().success());
    let version = |object: &toolzz_operator::api::ToolzzCredential| {
        object.status.as_ref()?.material.as_ref().map(|material| material.sources.clone())
    };
    let sources = after.material.unwrap().sources;
    lab.until("openai", "aware of the label", |object| version(object).is_some_and(|now| now != sources)).await;
    assert_eq!(lab.simulator.posts(), 2);
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn a_rotation_that_toolzz_does_not_take_over_stalls_and_says_so() {
    let lab = Lab::start("norotate").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.simulator.configure(|settings| settings.ignore_secret_id = true);
    lab.secret("openai", &[("key", &format!("{CANARY}-new"))]).await;
    let object = lab.until_reason("openai", "RotationUnsupported").await;
    assert!(has_condition(&object, "Stalled"));
    assert_eq!(lab.simulator.active_named("openai").len(), 1);
    // Put back the old material: it goes on.
    lab.simulator.configure(|settings| settings.ignore_secret_id = false);
    lab.secret("openai", &[("key", &format!("{CANARY}-third"))]).await;
    lab.until_ready("openai").await;
}

#[tokio::test]
async fn deletion_deactivates_or_retains() {
    let lab = Lab::start("delete").await;
    lab.credential("gone").await;
    lab.secret("kept", &[("key", CANARY)]).await;
    let mut kept = lab.manifest("kept");
    kept["spec"]["deletionPolicy"] = json!("Retain");
    lab.create(kept).await.unwrap();
    for name in ["gone", "kept"] {
        let object = lab.until_ready(name).await;
        assert!(object.metadata.finalizers.unwrap().iter().any(|one| one == FINALIZER));
        lab.delete(name).await;
        lab.until_gone(name).await;
    }
    assert!(lab.simulator.active_named("gone").is_empty());
    assert_eq!(lab.simulator.active_named("kept").len(), 1);
    // The same manifest again is a new credential; what was left behind is in nobody's way.
    lab.credential("gone").await;
    lab.until_ready("gone").await;
    lab.assert_none_doubled("gone");
}

#[tokio::test]
async fn health_metrics_and_an_orderly_end() {
    let mut lab = Lab::start("health").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    let operator = lab.operator.take().unwrap();
    assert_eq!(operator.get("/healthz").0, 200);
    let (code, text) = operator.get("/readyz");
    assert_eq!((code, text.as_str()), (200, "[+]api-server ok\n[+]caches ok\n[+]crd ok\n"));
    for line in [
        "toolzz_operator_remote_calls_total{operation=\"create\",outcome=\"done\"} 1",
        "toolzz_operator_remote_calls_total{operation=\"update\",outcome=\"done\"} 1",
        "toolzz_operator_resources{reason=\"Created\"} 1",
        "toolzz_operator_stray_credentials 0",
    ] {
        // Some follow the operator's own watch, which may come after the test's.
        operator.until_metric(line).await;
    }
    assert_eq!(operator.terminate(), Some(0));
    let log = lab.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let staged = lines.iter().find(|line| line["message"] == "staged").expect("a line for the create");
    assert_eq!(
        (&staged["span"]["namespace"], &staged["span"]["credential"]),
        (&json!(lab.namespace), &json!("openai"))
    );
}

#[tokio::test]
async fn is_unready_while_the_api_server_is_away_and_ready_again_by_itself() {
    let mut lab = Lab::on(plane_of_ones_own().await, "restart").await;
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.plane.stop_api_server().await.unwrap();
    let text = lab.operator.as_ref().unwrap().until_readyz(503).await;
    assert!(text.contains("[-]api-server"), "{text}");
    lab.plane.start_api_server().await.unwrap();
    // Nothing happens in the cluster that a watch would tell of.
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    lab.edit("openai", json!({"name": "Renamed"})).await;
    lab.until_reason("openai", "Updated").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn one_operator_works_in_several_namespaces_and_in_no_other() {
    let mut lab = Lab::empty("several").await;
    let [second, other] = [lab.plane.unique_namespace("second").await, lab.plane.unique_namespace("other").await];
    let (second, other) = (second.unwrap(), other.unwrap());
    // A namespace named twice is watched once: two watches would make two credentials.
    lab.flags.push(format!("--namespaces={},{second},{}", lab.namespace, lab.namespace));
    lab.start_operator();
    let first = std::mem::replace(&mut lab.namespace, other.clone());
    lab.credential("unseen").await;
    for namespace in [&first, &second] {
        lab.namespace.clone_from(namespace);
        lab.credential("openai").await;
        lab.until_ready("openai").await;
    }
    assert_eq!(lab.simulator.posts(), 2);
    lab.namespace = other;
    assert_eq!(ready(&lab.api().get("unseen").await.unwrap()).unwrap().1, "Pending");
}

#[tokio::test]
async fn an_edit_made_elsewhere_is_put_right() {
    let mut lab = Lab::empty("drift").await;
    lab.flags.push("--resync-interval=2s".into());
    lab.flags.retain(|flag| flag != "--resync-interval=10m");
    lab.start_operator();
    lab.credential("openai").await;
    let object = lab.until_ready("openai").await;
    let id = id(object.status.unwrap().id.unwrap().as_str());
    lab.simulator.edit(id, |row| row.name = "changed by hand".into());
    lab.until_remote(|state| state.active_named("openai").len() == 1).await;
    lab.until_reason("openai", "Updated").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn an_end_that_is_asked_for_before_anything_is_listed_comes_all_the_same() {
    let mut lab = Lab::empty("early").await;
    lab.use_proxy().await;
    let lists = |asked: &test_kubeproxy::Asked| {
        asked.resource == "toolzzcredentials" && asked.operation == test_kubeproxy::Operation::List
    };
    let gate = lab.proxy().hold(lists, test_kubeproxy::Point::BeforeSent);
    let mut operator = lab.another_operator();
    tokio::time::timeout(std::time::Duration::from_secs(30), gate.until_held(1)).await.unwrap();
    operator.signal("TERM");
    assert_eq!(operator.until_ended().await, Some(0));
}
