//! Of several operators one works: a Lease decides, and whoever lost it writes nothing more.

use std::{process::Command, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use toolzz_simulator::{Gate, Operation, Point, Simulator};

use super::support::*;

pub const LEASE: Duration = Duration::from_secs(6);

pub async fn lab(prefix: &str) -> Lab {
    on(plane().await, prefix).await
}

pub async fn on(plane: Plane, prefix: &str) -> Lab {
    let mut lab = Lab::on(plane, prefix).await;
    lab.flags.extend(["--leader-elect".to_owned(), format!("--lease-duration={}s", LEASE.as_secs())]);
    lab
}

impl Operator {
    /// Is stopped in the middle of a write that the gate holds.
    pub async fn sleeps_in_a_write(&self, gate: Gate, point: Point) {
        held(&gate).await;
        self.stop();
        match point {
            // The request it had sent is lost, or answered while it sleeps.
            Point::BeforeCommit => drop(gate.discard()),
            Point::AfterCommit => drop(gate.release()),
        };
    }

    /// Wakes after another has taken over.
    pub async fn wakes_and_writes_nothing(&mut self, simulator: &Simulator, label: &str) {
        let sent = (simulator.posts(), simulator.puts());
        self.signal("CONT");
        assert_eq!(self.until_ended().await, Some(1), "{label}");
        assert_eq!((simulator.posts(), simulator.puts()), sent, "{label}: it wrote");
    }
}

impl Lab {
    pub fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One that leads and one that stands by.
    pub async fn pair(&self) -> (Operator, Operator) {
        let leader = self.another_operator();
        leader.until_metric("toolzz_operator_leader 1").await;
        let standby = self.another_operator();
        assert_eq!(standby.until_readyz(200).await, "[+]standby ok\n");
        (leader, standby)
    }

    /// Somebody else writes himself into the Lease.
    pub async fn rob(&self) {
        let somebody = kube::api::Patch::Merge(json!({"spec": {"holderIdentity": "somebody"}}));
        self.leases().patch("toolzz-operator", &Default::default(), &somebody).await.unwrap();
    }

    pub async fn holder(&self) -> Option<String> {
        self.leases().get("toolzz-operator").await.unwrap().spec.unwrap().holder_identity
    }

    pub fn assert_one_active(&self, name: &str) {
        assert_eq!(self.simulator.active_named(name).len(), 1);
        self.assert_none_doubled(name);
    }
}

#[tokio::test]
async fn one_works_and_the_other_takes_over_at_once_when_that_ends() {
    let lab = lab("leader").await;
    let (leader, standby) = lab.pair().await;
    lab.credential("first").await;
    lab.until_ready("first").await;
    assert!(!standby.get("/metrics").1.contains("remote_calls_total{"), "a standby calls nobody");
    let first = lab.holder().await.unwrap();
    assert_eq!(leader.terminate(), Some(0));
    standby.until_metric("toolzz_operator_leader 1").await;
    assert_ne!(lab.holder().await.unwrap(), first);
    lab.credential("second").await;
    lab.until_ready("second").await;
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (2, 2));
    // The last one gives the lease up as well.
    assert_eq!(standby.terminate(), Some(0));
    assert_eq!(lab.holder().await, None);
}

#[tokio::test]
async fn a_leader_that_is_killed_is_replaced_and_its_work_finished() {
    let lab = lab("killed").await;
    let (leader, standby) = lab.pair().await;
    let gate = lab.simulator.hold(Operation::Create, Point::AfterCommit);
    lab.credential("openai").await;
    held(&gate).await;
    drop(leader);
    drop(gate);
    standby.until_metric("toolzz_operator_leader 1").await;
    lab.until_ready("openai").await;
    assert_eq!(lab.simulator.posts(), 1);
    lab.assert_one_active("openai");
}

#[tokio::test]
async fn a_leader_that_sleeps_through_its_lease_writes_nothing_when_it_wakes() {
    // Stopped before a write of its own: it decided, and wakes after the takeover.
    let all = [
        (Operation::List, Point::AfterCommit),
        (Operation::Create, Point::BeforeCommit),
        (Operation::Create, Point::AfterCommit),
        (Operation::Update, Point::BeforeCommit),
        (Operation::Update, Point::AfterCommit),
    ];
    join_all(all.map(async |(operation, point)| {
        let lab = lab("asleep").await;
        let label = format!("{operation:?} {point:?}");
        let (mut leader, standby) = lab.pair().await;
        let gate = lab.simulator.hold_next(1, operation, point);
        lab.credential("openai").await;
        leader.sleeps_in_a_write(gate, point).await;
        standby.until_metric("toolzz_operator_leader 1").await;
        lab.until_ready("openai").await;
        leader.wakes_and_writes_nothing(&lab.simulator, &label).await;
        lab.assert_one_active("openai");
        assert_eq!(lab.simulator.credentials().len(), 1, "{label}");
        drop(standby);
    }))
    .await;
}

#[tokio::test]
async fn a_lease_that_is_taken_away_or_out_of_reach_ends_the_leader() {
    let lab = lab("taken").await;
    let mut leader = lab.another_operator();
    leader.until_metric("toolzz_operator_leader 1").await;
    lab.rob().await;
    assert_eq!(leader.until_ended().await, Some(1));
    assert!(lab.log().contains("no longer holds the lease"), "{}", lab.log());
    // Nobody renews it, so the next one waits for its end and goes on.
    let next = lab.another_operator();
    next.until_metric("toolzz_operator_leader 1").await;
    // Deleted: it is made again.
    lab.leases().delete("toolzz-operator", &Default::default()).await.unwrap();
    let made = kube::runtime::wait::await_condition(lab.leases(), "toolzz-operator", |lease: Option<&Lease>| {
        lease.is_some_and(|lease| lease.metadata.deletion_timestamp.is_none())
    });
    tokio::time::timeout(Duration::from_secs(30), made).await.unwrap().unwrap();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    assert_eq!(next.terminate(), Some(0));
}

#[tokio::test]
async fn a_lease_that_is_too_short_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"))
        .args(["run", "--leader-elect", "--lease-duration=2s"])
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("--lease-duration") && told.contains("3s"), "{told}");
}
