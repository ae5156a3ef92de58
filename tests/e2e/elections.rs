//! What happens to the Lease: many ask for it, somebody deletes it, nobody can reach it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::wait::await_condition;
use toolzz_simulator::{Fault, Operation, Point, Times};

use super::{
    leader::{lab, on},
    support::*,
};

/// Far beyond what writing a Lease takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn leads(operator: &Operator) -> bool {
    operator.get("/metrics").1.lines().any(|line| line == "toolzz_operator_leader 1")
}

#[tokio::test]
async fn of_many_that_start_at_once_one_works() {
    let lab = lab("many").await;
    let operators = [lab.another_operator(), lab.another_operator(), lab.another_operator()];
    let names = ["first", "second", "third", "fourth"];
    for name in names {
        lab.credential(name).await;
    }
    for name in names {
        lab.until_ready(name).await;
        lab.assert_one_active(name);
    }
    assert_eq!(operators.iter().filter(|operator| leads(operator)).count(), 1);
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (4, 4));
    let lease = lab.leases().get("toolzz-operator").await.unwrap().spec.unwrap();
    assert_eq!((lease.lease_transitions, lease.lease_duration_seconds), (Some(0), Some(6)));
}

#[tokio::test]
async fn a_lease_that_is_deleted_stays_its_holders() {
    let lab = lab("deleted").await;
    let (leader, standby) = lab.pair().await;
    let first = lab.holder().await;
    for _ in 0..3 {
        lab.leases().delete("toolzz-operator", &Default::default()).await.unwrap();
        let made = await_condition(lab.leases(), "toolzz-operator", |lease: Option<&Lease>| lease.is_some());
        tokio::time::timeout(PATIENCE, made).await.unwrap().unwrap();
        assert_eq!(lab.holder().await, first);
    }
    assert!(leads(&leader) && !leads(&standby));
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    // Its holder gone as well: it is free when it would have been.
    drop(leader);
    lab.leases().delete("toolzz-operator", &Default::default()).await.unwrap();
    standby.until_metric("toolzz_operator_leader 1").await;
    assert_ne!(lab.holder().await, first);
}

#[tokio::test]
async fn a_lease_that_is_emptied_by_hand_doubles_nothing() {
    let lab = lab("emptied").await;
    let _both = lab.pair().await;
    let gate = lab.simulator.hold_next(1, Operation::Create, Point::AfterCommit);
    lab.credential("openai").await;
    held(&gate).await;
    let free = kube::api::Patch::Merge(serde_json::json!({"spec": {"holderIdentity": ""}}));
    lab.leases().patch("toolzz-operator", &Default::default(), &free).await.unwrap();
    // Either may be the first to take it: the leader, or the standby while the leader still counts on it.
    let taken = await_condition(lab.leases(), "toolzz-operator", |lease: Option<&Lease>| {
        let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.clone());
        holder.is_some_and(|holder| !holder.is_empty())
    });
    tokio::time::timeout(PATIENCE, taken).await.unwrap().unwrap();
    gate.release();
    lab.until_ready("openai").await;
    lab.assert_one_active("openai");
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn a_leader_that_cannot_reach_its_lease_stops_writing_to_toolzz() {
    let lab = on(plane_of_ones_own().await, "away").await;
    let (mut leader, standby) = lab.pair().await;
    // It has something to do at Toolzz for which it needs no API server, again and again.
    lab.simulator.fault(Operation::Update, Times::Always, Fault::reset_before_commit());
    lab.credential("openai").await;
    lab.until_remote(|state| state.journal().filter(|entry| entry.operation == Operation::Update).count() >= 2).await;
    lab.plane.stop_api_server().await.unwrap();
    assert_eq!(leader.until_ended().await, Some(1));
    assert!(lab.log().contains("no longer holds the lease"), "{}", lab.log());
    let sent = (lab.simulator.posts(), lab.simulator.puts());
    standby.until_readyz(503).await;
    lab.simulator.clear_faults();
    lab.plane.start_api_server().await.unwrap();
    standby.until_metric("toolzz_operator_leader 1").await;
    lab.until_ready("openai").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (sent.0, sent.1 + 1), "one update was missing");
    lab.assert_one_active("openai");
}

/// Stopped when all of them were just about to be created: on waking it has as much to send as it ever could.
#[tokio::test]
async fn a_leader_that_wakes_with_much_to_do_sends_none_of_it() {
    let mut lab = lab("much").await;
    // Longer than it sleeps: the listing it waits for is not given up.
    lab.drop_flags(&["--request-timeout", "--settle-period"]);
    lab.flags.extend(["--request-timeout=60s", "--settle-period=70s"].map(str::to_owned));
    let names: Vec<String> = (0..40).map(|number| format!("c{number:02}")).collect();
    for name in &names {
        lab.credential(name).await;
    }
    // One listing for all, as all were there before.
    let gate = lab.simulator.hold_next(1, Operation::List, Point::AfterCommit);
    let mut leader = lab.another_operator();
    held(&gate).await;
    leader.stop();
    gate.release();
    let standby = lab.another_operator();
    standby.until_metric("toolzz_operator_leader 1").await;
    for name in &names {
        lab.until_ready(name).await;
    }
    leader.signal("CONT");
    assert_eq!(leader.until_ended().await, Some(1));
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (40, 40));
    for name in &names {
        lab.assert_one_active(name);
    }
}
