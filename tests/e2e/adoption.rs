//! Taking over what exists, and coming back from a backup.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use test_kubeproxy::{Asked, Operation, Point};
use toolzz_simulator::{NewCredential, OPENAI};
use uuid::Uuid;

use super::support::*;

pub fn made_by_hand(lab: &Lab, name: &str) -> Uuid {
    lab.simulator.insert(NewCredential {
        name: name.into(),
        user_id: USER.parse().unwrap(),
        unity_id: UNITY.parse().unwrap(),
        integration_id: OPENAI,
        active: true,
        material: json!([{"api_key": format!("{CANARY}-unknown")}]),
    })
}

#[tokio::test]
async fn a_credential_is_taken_over_by_its_id_or_by_its_name() {
    let lab = Lab::start("adopt").await;
    for (name, remote, spec) in [
        ("by-id", "Some other name", json!({"externalId": ""})),
        ("by-name", "by-name", json!({"onConflict": "Adopt"})),
    ] {
        let id = made_by_hand(&lab, remote);
        let mut spec: Value = spec;
        if spec.get("externalId").is_some() {
            spec["externalId"] = json!(id.to_string());
        }
        lab.credential_with(name, spec).await;
        let object = lab.until_reason(name, "Adopted").await;
        assert_eq!(object.status.unwrap().id.unwrap().as_str(), id.to_string());
        // Its material is unknown, so the resource's own is in it now.
        assert_eq!(lab.materials(name), [name]);
        lab.assert_none_doubled(name);
    }
}

#[tokio::test]
async fn one_remote_has_one_owner_and_the_second_claimant_learns_no_more_than_that() {
    let mut lab = Lab::empty("claim").await;
    let other = lab.plane.unique_namespace("rival").await.unwrap();
    lab.flags.push(format!("--namespaces={other}"));
    lab.start_operator();
    let id = made_by_hand(&lab, "shared").to_string();
    lab.credential_with("first", json!({"externalId": id})).await;
    lab.until_reason("first", "Adopted").await;
    lab.credential_with("second", json!({"externalId": id})).await;
    let object = lab.until_reason("second", "NameConflict").await;
    assert!(ready(&object).unwrap().2.contains("\"first\""), "{:?}", ready(&object));
    let home = std::mem::replace(&mut lab.namespace, other);
    lab.credential_with("third", json!({"externalId": id})).await;
    let object = lab.until_reason("third", "NameConflict").await;
    let message = ready(&object).unwrap().2.to_owned();
    assert!(
        message.contains("another namespace") && !message.contains("first") && !message.contains(&home),
        "{message}"
    );
    assert_eq!(lab.simulator.posts(), 1);
    // The holder goes and retains it: now it may be taken.
    lab.namespace = home;
    lab.edit("first", json!({"deletionPolicy": "Retain"})).await;
    lab.until_ready("first").await;
    lab.delete("first").await;
    lab.until_gone("first").await;
    lab.annotate("second", "toolzz.com.br/reconcile-requested-at", "now").await;
    lab.until_reason("second", "Adopted").await;
    assert_eq!(lab.simulator.active_named("second").len(), 1);
}

#[tokio::test]
async fn what_is_not_there_or_of_another_integration_is_not_taken_over() {
    let lab = Lab::start("noadopt").await;
    lab.credential_with("absent", json!({"externalId": Uuid::nil().to_string()})).await;
    let object = lab.until_reason("absent", "RemoteMissing").await;
    assert!(ready(&object).unwrap().2.contains("spec.externalId"));
    let id = made_by_hand(&lab, "twin");
    made_by_hand(&lab, "twin");
    lab.credential_with("twin", json!({"onConflict": "Adopt"})).await;
    let object = lab.until_reason("twin", "NameConflict").await;
    assert!(ready(&object).unwrap().2.contains(&id.to_string()));
    assert_eq!(lab.simulator.posts(), 0);
}

#[tokio::test]
async fn by_the_flags_connection_nothing_is_taken_over_unless_they_say_so() {
    let mut lab = Lab::empty("denied").await;
    lab.flags.retain(|flag| flag != "--allow-adoption");
    lab.start_operator();
    let id = made_by_hand(&lab, "by-name").to_string();
    for (name, spec, field) in [
        ("by-id", json!({"externalId": id}), "spec.externalId"),
        ("by-name", json!({"onConflict": "Adopt"}), "spec.onConflict"),
    ] {
        lab.credential_with(name, spec).await;
        let object = lab.until_reason(name, "Forbidden").await;
        assert!(ready(&object).unwrap().2.contains(field), "{:?}", ready(&object));
    }
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (0, 0));
}

/// What a backup holds: annotations, no status, and no uid that means anything.
pub fn as_in_a_backup(object: &toolzz_operator::api::ToolzzCredential) -> Value {
    let mut manifest = serde_json::to_value(object).unwrap();
    manifest.as_object_mut().unwrap().remove("status");
    let meta = manifest["metadata"].as_object_mut().unwrap();
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
        meta.remove(field);
    }
    manifest
}

/// A resource goes without its operator, as with the cluster it was in.
pub async fn lose(lab: &Lab, name: &str) {
    let free = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    lab.api().patch(name, &Default::default(), &free).await.unwrap();
    lab.delete(name).await;
    lab.until_gone(name).await;
}

#[tokio::test]
async fn a_restored_backup_ends_with_the_same_credentials() {
    let mut lab = Lab::start("backup").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await;
    lab.kill_operator();
    // The namespace was lost: the resource went without the operator, and comes back from the backup.
    lose(&lab, "openai").await;
    lab.create(as_in_a_backup(&before)).await.unwrap();
    lab.start_operator();
    let after = lab.until_ready("openai").await;
    assert_ne!(before.metadata.uid, after.metadata.uid);
    let (before, after) = (before.status.unwrap(), after.status.unwrap());
    assert_eq!((before.id, before.virtual_key, before.secret_id), (after.id, after.virtual_key, after.secret_id));
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 1));
}

#[tokio::test]
async fn every_manifest_applied_to_a_new_cluster_ends_with_the_same_credentials() {
    let mut lab = Lab::start("newcluster").await;
    lab.credential_with("openai", json!({"onConflict": "Adopt"})).await;
    let before = lab.until_ready("openai").await;
    lab.kill_operator();
    // Another cluster: another installation key, other uids, nothing but the manifests.
    lose(&lab, "openai").await;
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &lab.namespace);
    secrets.delete("toolzz-operator-installation-key", &Default::default()).await.unwrap();
    let mut manifest = lab.manifest("openai");
    manifest["spec"]["onConflict"] = json!("Adopt");
    lab.create(manifest).await.unwrap();
    lab.start_operator();
    let after = lab.until_reason("openai", "Adopted").await.status.unwrap();
    let before = before.status.unwrap();
    assert_eq!((before.id, before.virtual_key), (after.id, after.virtual_key));
    lab.assert_none_doubled("openai");
    assert_eq!(lab.materials("openai"), ["openai"]);
}

#[tokio::test]
async fn a_forged_or_copied_ledger_gives_nobody_a_credential() {
    let lab = Lab::start("forge").await;
    lab.credential("victim").await;
    let victim = lab.until_ready("victim").await;
    let ledger = victim.metadata.annotations.unwrap()["toolzz.com.br/ledger"].clone();
    let mut manifest = lab.manifest("thief");
    manifest["metadata"]["annotations"] = json!({"toolzz.com.br/ledger": ledger});
    lab.rotate("thief", "thief").await;
    lab.create(manifest).await.unwrap();
    let thief = lab.until_ready("thief").await.status.unwrap();
    assert_ne!(thief.id, victim.status.as_ref().unwrap().id);
    lab.until_event("LedgerInvalid").await;
    assert_eq!(lab.materials("victim"), ["victim"]);
}

fn ledger_of(object: &toolzz_operator::api::ToolzzCredential) -> String {
    object.metadata.annotations.as_ref().unwrap()["toolzz.com.br/ledger"].clone()
}

#[tokio::test]
async fn an_earlier_ledger_of_ones_own_brings_nothing_back() {
    let lab = Lab::start("replay").await;
    lab.credential_with("old", json!({"rotation": {"strategy": "Replace", "gracePeriod": "0s"}})).await;
    let first = lab.until_ready("old").await;
    let id = first.status.as_ref().unwrap().id.clone().unwrap();
    lab.rotate("old", "new").await;
    lab.until("old", "rid of the first", |object| {
        ready(object).is_some_and(|(_, why, _)| why == "Rotated") && !ledger_of(object).contains(id.as_str())
    })
    .await;
    // Somebody else takes over what was given up, and the former holder puts the record back.
    lab.credential_with("heir", json!({"externalId": id.as_str()})).await;
    lab.until_reason("heir", "Adopted").await;
    lab.annotate("old", "toolzz.com.br/ledger", &ledger_of(&first)).await;
    lab.annotate("old", "toolzz.com.br/reconcile-requested-at", "now").await;
    let after = lab
        .until("old", "asked", |object| object.status.as_ref().unwrap().last_handled_reconcile_at.is_some())
        .await
        .status
        .unwrap();
    assert_ne!(after.id.as_ref(), Some(&id));
    assert_eq!((lab.materials("old"), lab.materials("heir")), (vec!["new".to_owned()], vec!["heir".to_owned()]));
}

#[tokio::test]
async fn a_ledger_is_for_its_unity_and_integration() {
    const ELSEWHERE: &str = "0b8e2d34-0000-4000-8000-000000000009";
    let lab = Lab::start("moved").await;
    lab.credential_with("openai", json!({"deletionPolicy": "Retain"})).await;
    let before = lab.until_ready("openai").await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    // `kubectl replace --force` with another unity: the record must not move the credential there.
    let mut manifest = as_in_a_backup(&before);
    manifest["spec"]["unityId"] = json!(ELSEWHERE);
    manifest["metadata"].as_object_mut().unwrap().remove("finalizers");
    lab.create(manifest).await.unwrap();
    let after = lab.until_ready("openai").await;
    assert_ne!(after.status.unwrap().id, before.status.unwrap().id);
    lab.until_event("LedgerInvalid").await;
    let of = |unity: &str| {
        let all = lab.simulator.active_named("openai");
        all.iter().filter(|one| one.row.unity_id.to_string() == unity).count()
    };
    assert_eq!((of(UNITY), of(ELSEWHERE)), (1, 1));
}

#[tokio::test]
async fn without_a_valid_record_another_one_is_made_only_by_removing_it() {
    let lab = Lab::start("void").await;
    lab.rotate("openai", "openai").await;
    let mut manifest = lab.manifest("openai");
    manifest["spec"]["onConflict"] = json!("CreateNew");
    manifest["metadata"]["annotations"] = json!({"toolzz.com.br/ledger": "of an installation key that is lost"});
    lab.create(manifest).await.unwrap();
    lab.until_reason("openai", "LedgerInvalid").await;
    assert_eq!(lab.simulator.posts(), 0);
    let removed = kube::api::Patch::Merge(json!({"metadata": {"annotations": {"toolzz.com.br/ledger": null}}}));
    lab.api().patch("openai", &Default::default(), &removed).await.unwrap();
    lab.until_ready("openai").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn what_another_resource_has_staged_cannot_be_taken_over() {
    let lab = Lab::start("staged").await;
    lab.credential("victim").await;
    lab.until_ready("victim").await;
    lab.rotate("victim", "new").await;
    lab.until_reason("victim", "Rotated").await;
    let staged = lab.simulator.credentials().into_iter().find(|one| !one.is_active()).unwrap();
    let spec = json!({"externalId": staged.id.to_string(), "rotation": {"strategy": "InPlace"}});
    lab.credential_with("thief", spec).await;
    lab.until_reason("thief", "NameConflict").await;
    assert!(lab.simulator.active_named("thief").is_empty());
}

#[tokio::test]
async fn nothing_is_taken_over_before_every_namespace_was_listed() {
    let mut lab = Lab::empty("unlisted").await;
    let other = lab.plane.unique_namespace("holder").await.unwrap();
    lab.flags.push(format!("--namespaces={other}"));
    let proxy = lab.use_proxy().await;
    lab.start_operator();
    let id = made_by_hand(&lab, "shared").to_string();
    let home = std::mem::replace(&mut lab.namespace, other.clone());
    lab.credential_with("holder", json!({"externalId": id})).await;
    lab.until_reason("holder", "Adopted").await;
    lab.namespace = home;
    lab.kill_operator();
    // After the restart the holder's namespace does not answer.
    let lists = move |asked: &Asked| {
        asked.operation == Operation::List
            && asked.resource == "toolzzcredentials"
            && asked.namespace.as_ref() == Some(&other)
    };
    let gate = proxy.hold(lists, Point::BeforeSent);
    lab.start_operator();
    lab.credential_with("second", json!({"externalId": id})).await;
    lab.credential("plain").await;
    lab.until_ready("plain").await;
    let object = lab.until_reason("second", "Pending").await;
    assert!(ready(&object).unwrap().2.contains("could be listed"), "{:?}", ready(&object));
    gate.release();
    lab.until_reason("second", "NameConflict").await;
    assert_eq!((lab.simulator.posts(), lab.materials("holder")), (2, vec!["holder".to_owned()]));
}
