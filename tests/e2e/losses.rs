//! Credentials that vanish, one or many, and deletions when things are bad.

use serde_json::json;
use toolzz_simulator::{Commit, Fault, Operation, Point, Reply, Times};

use super::support::*;

async fn lab(prefix: &str) -> Lab {
    let mut lab = Lab::empty(prefix).await;
    lab.flags.retain(|flag| flag != "--resync-interval=10m");
    lab.flags.push("--resync-interval=2s".into());
    lab.start_operator();
    lab
}

#[tokio::test]
async fn a_loss_is_told_after_a_second_look_and_made_good_when_the_user_says_so() {
    let lab = lab("loss").await;
    lab.credential("openai").await;
    let id = lab.until_ready("openai").await.status.unwrap().id.unwrap();
    // Listings show inactive ones: so what is not listed is not there.
    lab.credential_with("inactive", json!({"active": false})).await;
    lab.until_ready("inactive").await;
    lab.simulator.remove(id.as_str().parse().unwrap());
    let object = lab.until_reason("openai", "RemoteMissing").await;
    assert!(ready(&object).unwrap().2.contains(id.as_str()) && has_condition(&object, "Stalled"));
    lab.until_event("VerifyingLoss").await;
    assert_eq!(lab.simulator.posts(), 2, "nothing is made that nobody asked for");
    lab.annotate("openai", "toolzz.com.br/recreate", id.as_str()).await;
    let after = lab.until_ready("openai").await.status.unwrap();
    assert_ne!(after.id.as_ref(), Some(&id));
    assert_eq!(lab.simulator.active_named("openai").len(), 1);
    // The annotation names the old one, so it does no harm if it stays.
    lab.simulator.remove(after.id.unwrap().as_str().parse().unwrap());
    lab.until_reason("openai", "RemoteMissing").await;
}

#[tokio::test]
async fn what_vanishes_where_listings_hide_inactive_credentials_is_found_out_by_an_update() {
    let lab = Lab::empty("hidden").await;
    lab.simulator.configure(|settings| settings.listings_show_inactive = false);
    let mut lab = lab;
    lab.flags.push("--resync-interval=2s".into());
    lab.flags.retain(|flag| flag != "--resync-interval=10m");
    lab.start_operator();
    for name in ["removed", "switched-off"] {
        lab.credential(name).await;
    }
    let mut ids = Vec::new();
    for name in ["removed", "switched-off"] {
        ids.push(lab.until_ready(name).await.status.unwrap().id.unwrap());
    }
    lab.simulator.edit(ids[1].as_str().parse().unwrap(), |row| row.active = false);
    lab.until_reason("switched-off", "Updated").await;
    assert_eq!(lab.simulator.active_named("switched-off").len(), 1);
    lab.simulator.remove(ids[0].as_str().parse().unwrap());
    lab.until_reason("removed", "RemoteMissing").await;
    assert_eq!(lab.simulator.posts(), 2);
}

#[tokio::test]
async fn one_answer_that_it_does_not_exist_is_not_believed_where_listings_hide_it() {
    let mut lab = Lab::empty("lagging").await;
    lab.simulator.configure(|settings| settings.listings_show_inactive = false);
    lab.simulator.fault(Operation::Update, Times::Next(1), Fault::status(404));
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.until_event("VerifyingLoss").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.active_named("openai").len()), (1, 1));
}

#[tokio::test]
async fn a_listing_that_lost_many_at_once_is_not_believed() {
    let lab = lab("suspect").await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        lab.credential(name).await;
    }
    for name in names {
        lab.until_ready(name).await;
    }
    let empty = Fault::new(Commit::Now, Reply::Empty);
    let fault = lab.simulator.fault(Operation::List, Times::Always, empty);
    for name in names {
        let object = lab.until_reason(name, "InventorySuspect").await;
        assert!(ready(&object).unwrap().2.contains("toolzz.com.br/recreate"));
    }
    // Nothing is done on its word, also not for a new one.
    let sent = (lab.simulator.posts(), lab.simulator.puts());
    lab.credential("new").await;
    lab.until_reason("new", "InventorySuspect").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), sent);
    lab.simulator.remove_fault(fault);
    for name in names.into_iter().chain(["new"]) {
        lab.until_ready(name).await;
        assert_eq!(lab.simulator.active_named(name).len(), 1);
    }
    assert_eq!(lab.simulator.posts(), 6);
}

#[tokio::test]
async fn many_that_are_really_gone_are_made_again_when_the_user_says_so() {
    let lab = lab("really").await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        lab.credential(name).await;
    }
    // So that listings are known to show inactive ones.
    lab.credential_with("off", json!({"active": false})).await;
    lab.until_ready("off").await;
    for name in names {
        let id = lab.until_ready(name).await.status.unwrap().id.unwrap();
        lab.simulator.remove(id.as_str().parse().unwrap());
    }
    for name in names {
        let object = lab.until_reason(name, "InventorySuspect").await;
        let id = object.status.unwrap().id.unwrap();
        lab.annotate(name, "toolzz.com.br/recreate", id.as_str()).await;
    }
    for name in names {
        lab.until_ready(name).await;
        assert_eq!(lab.simulator.active_named(name).len(), 1);
    }
    assert_eq!(lab.simulator.posts(), 11);
}

#[tokio::test]
async fn a_deletion_during_an_unknown_outcome_leaves_nothing_active() {
    for (operation, fault) in [
        (Operation::Create, Fault::reset_after_commit()),
        (Operation::Update, Fault::reset_after_commit()),
        (Operation::Update, Fault::late_commit()),
    ] {
        let lab = Lab::start("unknown").await;
        lab.simulator.fault(operation, Times::Next(1), fault);
        lab.credential("openai").await;
        lab.until_remote(move |state| state.counts(operation).received >= 1).await;
        lab.delete("openai").await;
        if operation == Operation::Update {
            // The worst moment for an update to come late: after the deactivation was answered.
            lab.until_remote(move |state| state.counts(operation).answered_2xx >= 1).await;
            lab.simulator.release_late();
        }
        lab.until_gone("openai").await;
        // What went in the moment before its finalizer came is deactivated after it.
        lab.until_remote(|state| state.credentials().iter().all(|one| !one.is_active())).await;
    }
}

#[tokio::test]
async fn a_manifest_that_replaces_the_resource_takes_neither_finalizer_nor_record_for_long() {
    let lab = Lab::start("replace").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await;
    let id = before.status.unwrap().id;
    // As `kubectl replace` does it: what is not in the manifest goes.
    let mut manifest = lab.manifest("openai");
    manifest["metadata"]["resourceVersion"] = json!(before.metadata.resource_version);
    let manifest = serde_json::from_value(manifest).unwrap();
    lab.api().replace("openai", &Default::default(), &manifest).await.unwrap();
    let whole = |object: &toolzz_operator::api::ToolzzCredential| {
        let meta = &object.metadata;
        meta.finalizers.iter().flatten().any(|one| one == toolzz_operator::api::FINALIZER)
            && meta.annotations.iter().any(|all| all.contains_key("toolzz.com.br/ledger"))
    };
    let after = lab.until("openai", "whole again", whole).await;
    assert_eq!(after.status.unwrap().id, id);
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 1));
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    assert!(lab.simulator.active_named("openai").is_empty());
}

#[tokio::test]
async fn a_resource_that_goes_without_its_finalizer_is_deactivated_all_the_same() {
    let lab = Lab::start("bare").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    // Paused, so that the finalizer is not put back before the deletion.
    lab.edit("openai", json!({"suspend": true})).await;
    lab.until_reason("openai", "Suspended").await;
    let bare = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    lab.api().patch("openai", &Default::default(), &bare).await.unwrap();
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.until_remote(|state| state.counts(Operation::Update).committed >= 2).await;
    assert!(lab.simulator.active_named("openai").is_empty());
}

#[tokio::test]
async fn what_takes_the_place_of_a_resource_that_is_still_being_deactivated_is_watched() {
    let lab = Lab::start("heir").await;
    lab.credential_with("openai", json!({"suspend": false})).await;
    lab.until_ready("openai").await;
    lab.edit("openai", json!({"suspend": true})).await;
    lab.until_reason("openai", "Suspended").await;
    let gate = lab.simulator.hold_next(1, Operation::Update, Point::BeforeCommit);
    let bare = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    lab.api().patch("openai", &Default::default(), &bare).await.unwrap();
    lab.delete("openai").await;
    held(&gate).await;
    lab.create(lab.manifest("openai")).await.unwrap();
    lab.until_ready("openai").await;
    gate.release();
    lab.until_remote(|state| state.active_named("openai").len() == 1).await;
    lab.rotate("openai", "new").await;
    lab.until_reason("openai", "Rotated").await;
    assert_eq!(lab.materials("openai"), ["new"]);
}

#[tokio::test]
async fn what_is_superseded_is_deactivated_when_the_credential_is_retained() {
    let lab = Lab::start("retain").await;
    lab.credential_with("openai", json!({"deletionPolicy": "Retain", "rotation": {"strategy": "Replace"}})).await;
    lab.until_ready("openai").await;
    lab.rotate("openai", "new").await;
    lab.until_reason("openai", "Rotated").await;
    assert_eq!(lab.simulator.active_named("openai").len(), 2, "within the grace period");
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    assert_eq!(lab.materials("openai"), ["new"]);
}

#[tokio::test]
async fn a_deletion_while_the_operator_was_away_for_longer_than_the_deadline_deactivates_all_the_same() {
    let mut lab = Lab::empty("away").await;
    lab.flags.push("--deletion-deadline=1s".into());
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.kill_operator();
    lab.delete("openai").await;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    lab.start_operator();
    lab.until_gone("openai").await;
    assert!(lab.simulator.active_named("openai").is_empty());
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() {
    let mut lab = Lab::empty("nsgone").await;
    let tenant = lab.plane.unique_namespace("tenant").await.unwrap();
    lab.flags.push(format!("--namespaces={tenant}"));
    lab.start_operator();
    lab.namespace = tenant.clone();
    for name in ["a", "b"] {
        lab.credential_with(name, json!({"target": {"kind": "ConfigMap", "name": format!("{name}-out")}})).await;
        lab.until_ready(name).await;
    }
    let output = lab.plane.kubectl(["delete", "namespace", &tenant, "--timeout=180s"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(lab.simulator.credentials().iter().all(|one| !one.is_active()));
}

#[tokio::test]
async fn what_goes_without_its_finalizer_is_deactivated_all_the_same() {
    let lab = Lab::start("ghost").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    // So it looks when the API server decided on the deletion before the finalizer was there.
    lab.plane.delete_in_store("toolzz.com.br/toolzzcredentials", &lab.namespace, "openai").await.unwrap();
    lab.until_gone("openai").await;
    lab.until_remote(|state| state.credentials().iter().all(|one| !one.is_active())).await;
    lab.assert_no_leak().await;
}
