//! What the shell must not lose: resources that go at bad moments, records that others take away, an end in between.

use kube::api::{Patch, PostParams};
use serde_json::{Value, json};
use test_kubeproxy::{Asked, Operation as Verb, Point as At};
use toolzz_operator::api::ToolzzCredential;
use toolzz_simulator::{Fault, Matching, Operation, Point, Times};

use super::support::*;

impl Lab {
    async fn merge(&self, name: &str, patch: Value) {
        self.api().patch(name, &Default::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// The credential of a resource that is left alone from now on, without the operator's finalizer.
    async fn stripped(&self, name: &str, finalizers: Option<&[&str]>) {
        self.credential(name).await;
        self.until_ready(name).await;
        self.edit(name, json!({"suspend": true})).await;
        self.until_reason(name, "Suspended").await;
        self.merge(name, json!({"metadata": {"finalizers": finalizers}})).await;
    }

    fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("an operator at work")
    }

    async fn nothing_is_active(&self) {
        self.until_remote(|state| state.credentials().iter().all(|one| !one.is_active())).await;
    }
}

fn lists_secrets(asked: &Asked) -> bool {
    asked.operation == Verb::List && asked.resource == "secrets"
}

#[tokio::test]
async fn a_pass_ends_with_its_resource() {
    let lab = Lab::start("gone").await;
    let gate = lab.simulator.hold_next(1, Operation::Create, Point::AfterCommit);
    lab.credential("openai").await;
    held(&gate).await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    // Its reason is counted no more: the watch has shown that it is gone.
    lab.operator().until_metric("toolzz_operator_resources{reason=\"Pending\"} 0").await;
    let looks = || lab.simulator.counts(Operation::List).received;
    let before = looks();
    gate.release();
    lab.operator().until_metric("toolzz_operator_reconciles_running 0").await;
    assert!(looks() <= before + 1, "{} looks for nobody", looks() - before);
    lab.nothing_is_active().await;
}

#[tokio::test]
async fn a_pass_that_began_before_its_resource_went_undoes_no_deactivation() {
    let mut lab = Lab::start("waits").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.kill_operator();
    // It begins, with the resource as it is, and waits for the first lists.
    let gate = lab.use_proxy().await.hold(lists_secrets, At::BeforeSent);
    lab.start_operator();
    lab.operator().until_metric("toolzz_operator_reconciles_running 1").await;
    lab.plane.delete_in_store("toolzz.com.br/toolzzcredentials", &lab.namespace, "openai").await.unwrap();
    lab.nothing_is_active().await;
    gate.release();
    lab.operator().until_metric("toolzz_operator_reconciles_running 0").await;
    // Once more when nothing that the process before it sent can come any more; and no activation.
    lab.until_remote(|state| state.counts(Operation::Update).committed == 3).await;
    assert!(lab.simulator.active_named("openai").is_empty());
}

#[tokio::test]
async fn a_pass_acts_on_nothing_older_than_what_was_seen() {
    let mut lab = Lab::empty("stale").await;
    let gate = lab.use_proxy().await.hold(lists_secrets, At::BeforeSent);
    lab.start_operator();
    lab.credential_with("openai", json!({"name": "before"})).await;
    lab.operator().until_metric("toolzz_operator_reconciles_running 1").await;
    lab.operator().until_metric("toolzz_operator_queue_length 0").await;
    lab.edit("openai", json!({"name": "after"})).await;
    lab.operator().until_metric("toolzz_operator_queue_length 1").await;
    gate.release();
    lab.until_ready("openai").await;
    let all = lab.simulator.journal();
    assert!(all.iter().all(|entry| !format!("{entry:?}").contains("before [")), "{all:#?}");
    assert_eq!((lab.simulator.posts(), lab.simulator.active_named("after").len()), (1, 1));
}

/// The API server has said that it is gone; the cache does not know for as long as it lags.
#[tokio::test]
async fn nothing_more_is_created_for_a_resource_that_is_gone_while_the_cache_shows_it() {
    let mut lab = Lab::empty("lag").await;
    lab.drop_flags(&["--settle-period"]);
    let proxy = lab.use_proxy().await;
    lab.start_operator();
    lab.create(lab.manifest("openai")).await.unwrap();
    // Its watch has shown it what it wrote itself: else it would ask for that first.
    lab.operator().until_metric("toolzz_operator_resources{reason=\"SecretNotFound\"} 1").await;
    let lag = proxy.lag(|asked| asked.is_watch_on("toolzzcredentials"), usize::MAX);
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.rotate("openai", "first").await;
    // It is told so by a write of its own, before or after the create.
    let told = |entry: &test_kubeproxy::Entry| entry.asked.resource == "toolzzcredentials" && entry.status == Some(404);
    proxy.until(|state| state.journal().iter().any(told)).await;
    lab.operator().until_metric("toolzz_operator_reconciles_running 0").await;
    let posts = lab.simulator.posts();
    assert!(posts <= 1, "{posts}");
    let asked = |state: &test_kubeproxy::State| {
        let gets = |asked: &Asked| asked.operation == Verb::Get && asked.resource == "toolzzcredentials";
        state.journal().iter().filter(|entry| gets(&entry.asked)).count()
    };
    for material in ["second", "third"] {
        let before = proxy.read(asked);
        lab.rotate("openai", material).await;
        tokio::select! {
            // It is asked for each second, and once more for the new material.
            () = proxy.until(|state| asked(state) >= before + 3) => {}
            () = lab.until_remote(|state| state.counts(Operation::Create).received > posts) => {}
        }
        assert_eq!(lab.simulator.posts(), posts, "for {material}");
    }
    drop(lag);
    lab.operator().until_metric("toolzz_operator_resources{reason=\"Pending\"} 0").await;
}

#[tokio::test]
async fn what_vanished_while_nobody_watched_is_deactivated() {
    let mut lab = Lab::empty("gap").await;
    let proxy = lab.use_proxy().await;
    lab.start_operator();
    lab.stripped("openai", None).await;
    let watches = |asked: &Asked| asked.is_watch_on("toolzzcredentials");
    let away = proxy.hold(watches, At::BeforeSent);
    proxy.cut_watches(watches);
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    proxy.fault(watches, test_kubeproxy::Times::Next(1), test_kubeproxy::Fault::expired());
    away.discard();
    lab.nothing_is_active().await;
}

#[tokio::test]
async fn what_goes_late_and_without_the_operators_finalizer_is_deactivated() {
    let lab = Lab::start("foreign").await;
    lab.stripped("openai", Some(&["example.com/foreign"])).await;
    lab.delete("openai").await;
    lab.until("openai", "marked for deletion", |object| object.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(lab.simulator.active_named("openai").len(), 1);
    lab.merge("openai", json!({"metadata": {"finalizers": null}})).await;
    lab.until_gone("openai").await;
    lab.nothing_is_active().await;
}

#[tokio::test]
async fn what_cannot_be_deactivated_before_the_operator_ends_is_named() {
    let mut lab = Lab::start("named").await;
    lab.stripped("openai", None).await;
    let id = lab.simulator.active_named("openai")[0].id.to_string();
    lab.simulator.fault(Operation::Update, Times::Always, Fault::status(503));
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.until_remote(|state| state.counts(Operation::Update).received >= 2).await;
    assert_eq!(lab.operator.take().unwrap().terminate(), Some(0));
    lab.until_event("DeletionBlocked").await;
    let told = lab.events().await.into_iter().filter_map(|event| event.note);
    assert_eq!(told.filter(|note| note.contains(&id) && note.contains("stays active")).count(), 1);
}

#[tokio::test]
async fn a_record_that_is_taken_away_before_it_was_published_is_put_back() {
    let mut lab = Lab::empty("unpublished").await;
    let proxy = lab.use_proxy().await;
    lab.start_operator();
    let active = |object: &Asked| object.subresource.as_deref() == Some("status") && object.operation == Verb::Patch;
    // The first status says what the record names.
    let gate = proxy.hold_next(1, active, At::BeforeSent);
    lab.credential_with("openai", json!({"onConflict": "CreateNew"})).await;
    tokio::time::timeout(std::time::Duration::from_secs(60), gate.until_held(1)).await.expect("a status");
    let id = lab.simulator.active_named("openai")[0].id.to_string();
    let mut manifest = lab.manifest("openai");
    manifest["spec"]["onConflict"] = json!("CreateNew");
    let now = lab.api().get("openai").await.unwrap();
    assert!(now.status.as_ref().is_none_or(|status| status.ledger.is_none()));
    manifest["metadata"]["resourceVersion"] = json!(now.metadata.resource_version);
    let manifest: ToolzzCredential = serde_json::from_value(manifest).unwrap();
    lab.api().replace("openai", &PostParams::default(), &manifest).await.unwrap();
    gate.release();
    let after = lab.until_ready("openai").await;
    assert!(after.metadata.annotations.unwrap()["toolzz.com.br/ledger"].contains(&id));
    assert_eq!((lab.simulator.posts(), lab.simulator.active_named("openai").len()), (1, 1));
}

#[tokio::test]
async fn a_create_that_is_lost_at_the_end_of_the_operator_is_waited_for_by_the_next() {
    let mut lab = Lab::start("lostend").await;
    let gate = lab.simulator.hold_next(1, Operation::Create, Point::BeforeCommit);
    lab.credential("openai").await;
    held(&gate).await;
    // It ends when the request is given up.
    assert_eq!(lab.operator.take().unwrap().terminate(), Some(0));
    let looks = lab.simulator.counts(Operation::List).received;
    lab.start_operator();
    lab.until_remote(move |state| state.counts(Operation::List).received > looks).await;
    gate.release();
    lab.until_ready("openai").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.credentials().len()), (1, 1));
}

#[tokio::test]
async fn a_refusal_that_is_about_the_moment_ends_with_it() {
    let lab = Lab::start("moment").await;
    lab.simulator.fault(Operation::Create, Times::Next(1), Fault::status(404));
    lab.simulator.fault(
        Matching { active: Some(true), ..Operation::Update.into() },
        Times::Next(1),
        Fault::status(425),
    );
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.active_named("openai").len()), (2, 1));
}
