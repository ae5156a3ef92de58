//! SIGKILL of the real process where it hurts, and answers that get lost.

use std::collections::HashSet;

use serde_json::json;
use toolzz_simulator::{Fault, Operation, Point, Times};

use super::support::*;

/// One active credential, recorded by the resource; strays are inactive.
async fn assert_exactly_one(lab: &Lab, name: &str) {
    let object = lab.until_ready(name).await;
    let active = lab.simulator.active_named(name);
    assert_eq!(active.len(), 1, "{name}");
    assert_eq!(object.status.unwrap().id.unwrap().as_str(), active[0].id.to_string());
    lab.assert_none_doubled(name);
}

#[tokio::test]
async fn killed_between_post_and_record() {
    let mut lab = Lab::start("crashpost").await;
    let gate = lab.simulator.hold(Operation::Create, Point::AfterCommit);
    lab.credential("openai").await;
    held(&gate).await;
    lab.kill_operator();
    drop(gate);
    assert_eq!(lab.simulator.credentials().len(), 1);
    lab.start_operator();
    assert_exactly_one(&lab, "openai").await;
    assert_eq!(lab.simulator.posts(), 1, "the staged one was found by its marker");
}

#[tokio::test]
async fn killed_between_record_and_commit() {
    let mut lab = Lab::start("crashput").await;
    let gate = lab.simulator.hold(Operation::Update, Point::BeforeCommit);
    lab.credential("openai").await;
    held(&gate).await;
    lab.kill_operator();
    gate.discard();
    assert!(lab.simulator.active_named("openai").is_empty());
    lab.start_operator();
    assert_exactly_one(&lab, "openai").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn killed_between_commit_and_publish() {
    let mut lab = Lab::start("crashpublish").await;
    let gate = lab.simulator.hold(Operation::Update, Point::AfterCommit);
    lab.credential("openai").await;
    held(&gate).await;
    lab.kill_operator();
    drop(gate);
    lab.start_operator();
    assert_exactly_one(&lab, "openai").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 1), "what was committed is not sent again");
}

#[tokio::test]
async fn killed_during_a_rotation() {
    for (operation, point) in [(Operation::Create, Point::AfterCommit), (Operation::Update, Point::BeforeCommit)] {
        let mut lab = Lab::start("crashrotate").await;
        lab.credential("openai").await;
        let before = lab.until_ready("openai").await.status.unwrap();
        let gate = lab.simulator.hold(operation, point);
        lab.secret("openai", &[("key", &format!("{CANARY}-new"))]).await;
        held(&gate).await;
        lab.kill_operator();
        gate.discard();
        lab.start_operator();
        let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
        assert_eq!((&before.id, &before.virtual_key), (&after.id, &after.virtual_key));
        assert_ne!(before.secret_id, after.secret_id);
        assert_exactly_one(&lab, "openai").await;
        assert_eq!(lab.simulator.posts(), 2, "{operation:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_looked_for_and_found() {
    let lab = Lab::start("lost").await;
    lab.simulator.fault(Operation::Create, Times::Next(1), Fault::reset_after_commit());
    lab.credential("openai").await;
    assert_exactly_one(&lab, "openai").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn a_post_that_never_arrived_is_sent_again_only_after_the_settle_period() {
    let lab = Lab::start("neversent").await;
    lab.simulator.fault(Operation::Create, Times::Next(1), Fault::reset_before_commit());
    lab.credential("openai").await;
    lab.until_reason("openai", "OutcomeUnknown").await;
    assert_exactly_one(&lab, "openai").await;
    let lists_between = lab.simulator.journal().into_iter().map(|entry| entry.operation).collect::<Vec<_>>();
    let posts: Vec<usize> =
        lists_between.iter().enumerate().filter(|(_, one)| **one == Operation::Create).map(|(at, _)| at).collect();
    assert_eq!(posts.len(), 2);
    let looks = lists_between[posts[0]..posts[1]].iter().filter(|one| **one == Operation::List).count();
    assert!(looks >= 2, "one look at once and one after the settle period: {lists_between:?}");
}

/// Whatever else the status has to say by then, and however the process ends.
#[tokio::test]
async fn a_create_that_comes_late_is_found_by_the_next_process_in_an_outage_too() {
    futures::join!(a_create_comes_late_in_an_outage(true), a_create_comes_late_in_an_outage(false));
}

async fn a_create_comes_late_in_an_outage(killed: bool) {
    let mut lab = Lab::start("outage").await;
    lab.simulator.fault(Operation::Create, Times::Next(1), Fault::late_commit());
    let create = lab.simulator.hold(Operation::Create, Point::BeforeCommit);
    lab.credential("openai").await;
    create.until_held(1).await;
    let away = lab.simulator.fault(Operation::List, Times::Always, Fault::status(503));
    create.release();
    lab.until("openai", "in an outage", |object| {
        let told = object.status.as_ref().is_some_and(|status| status.create_unknown_since.is_some());
        told && ready(object).is_some_and(|(_, reason, _)| reason == "ApiUnavailable")
    })
    .await;
    lab.edit("openai", json!({"suspend": true})).await;
    lab.until_reason("openai", "Suspended").await;
    if killed {
        lab.kill_operator();
    } else {
        assert_eq!(lab.operator.take().unwrap().terminate(), Some(0));
    }
    lab.edit("openai", json!({"suspend": false})).await;
    lab.simulator.remove_fault(away);
    let looks = lab.simulator.counts(Operation::List).answered_2xx;
    lab.start_operator();
    // It takes effect when the next process has looked once.
    lab.until_remote(|state| state.counts(Operation::List).answered_2xx > looks).await;
    assert_eq!(lab.simulator.release_late(), 1);
    assert_exactly_one(&lab, "openai").await;
    assert_eq!(lab.simulator.posts(), 1, "killed: {killed}");
    let object = lab.until_ready("openai").await;
    assert_eq!(object.status.unwrap().create_unknown_since, None);
}

/// The one stray that the design allows: a create that takes effect after every look of the process that sent it, or of
/// the one after a kill. It is inactive, counted, and used again when its material comes back.
#[tokio::test]
async fn a_create_that_comes_after_every_look_leaves_one_inactive_stray_which_is_used_again() {
    futures::join!(a_create_comes_after_every_look(true), a_create_comes_after_every_look(false));
}

async fn a_create_comes_after_every_look(killed: bool) {
    let mut lab = Lab::start("stray").await;
    lab.simulator.fault(Operation::Create, Times::Next(1), Fault::late_commit());
    lab.credential("openai").await;
    lab.until_remote(|state| state.pending_commits() == 1).await;
    if killed {
        lab.kill_operator();
        lab.start_operator();
    }
    assert_exactly_one(&lab, "openai").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.credentials().len()), (2, 1));
    assert_eq!(lab.simulator.release_late(), 1);

    let all = lab.simulator.credentials();
    let [_, stray] = all.as_slice() else { panic!("{all:#?}") };
    assert!(toolzz_simulator::is_marked(&stray.row.name) && !stray.was_ever_active(), "{stray:?}");
    // A look, and it is counted.
    lab.annotate("openai", "toolzz.com.br/reconcile-requested-at", "now").await;
    let metrics = lab.operator.as_ref().unwrap();
    metrics.until_metric("toolzz_operator_stray_credentials 1").await;
    assert_exactly_one(&lab, "openai").await;

    for material in ["b", "openai"] {
        lab.rotate("openai", material).await;
        let rotated = lab.simulator.until(|state| {
            let active = state.active_named("openai");
            let held = active.first().and_then(|one| state.material_of(one.row.secret_id));
            held.is_some_and(|held| held[0]["api_key"] == key_material(material))
        });
        tokio::time::timeout(std::time::Duration::from_secs(60), rotated).await.expect("it is rotated");
        assert_exactly_one(&lab, "openai").await;
    }
    // Nothing was made for the way back: what serves now is what was astray.
    assert_eq!((lab.simulator.posts(), lab.simulator.credentials().len()), (3, 3));
    assert_eq!(lab.simulator.active_named("openai")[0].row.secret_id, stray.row.secret_id);
    lab.assert_no_leak().await;
}

/// "Done means" of the first issue: 50 resources, a third of the answers lost, SIGKILL again and again.
#[tokio::test]
async fn fifty_resources_survive_kills_and_lost_answers() {
    let mut lab = Lab::start("fifty").await;
    let lost = Fault::reset_after_commit();
    for (operation, seed) in [(Operation::Create, 11), (Operation::Update, 12), (Operation::List, 13)] {
        lab.simulator.fault(operation, Times::Chance { probability: 1.0 / 3.0, seed }, lost.clone());
    }
    let names: Vec<String> = (0..50).map(|number| format!("c{number:02}")).collect();
    for name in &names {
        lab.credential(name).await;
    }
    for kills in 1..=6 {
        // Over the whole of the work, of a hundred calls at least.
        let calls = 15 * kills;
        let enough = lab.simulator.until(move |state| state.journal().count() >= calls);
        tokio::time::timeout(std::time::Duration::from_secs(60), enough).await.expect("it goes on working");
        lab.kill_operator();
        lab.start_operator();
    }
    let mut recorded = HashSet::new();
    for name in &names {
        assert_exactly_one(&lab, name).await;
        let status = lab.api().get(name).await.unwrap().status.unwrap();
        recorded.insert(status.id.unwrap().to_string());
    }
    assert_eq!(recorded.len(), names.len());
    let all = lab.simulator.credentials();
    let strays: Vec<_> = all.into_iter().filter(|one| !recorded.contains(&one.id.to_string())).collect();
    for stray in &strays {
        assert!(toolzz_simulator::is_marked(&stray.row.name) && !stray.was_ever_active(), "{}", stray.row.name);
    }
    // A look, and they are counted.
    lab.simulator.clear_faults();
    lab.annotate("c00", "toolzz.com.br/reconcile-requested-at", "now").await;
    lab.until("c00", "looked at", |object| object.status.as_ref().unwrap().last_handled_reconcile_at.is_some()).await;
    let (_, metrics) = lab.operator.as_ref().unwrap().get("/metrics");
    assert!(metrics.contains(&format!("toolzz_operator_stray_credentials {}\n", strays.len())), "{metrics}");
    lab.assert_no_leak().await;
}
