//! Whose turn it is: a tenant in trouble holds nobody up, and what a user does goes before what was there already.

use std::time::Duration;

use serde_json::json;
use test_kubeproxy::{Asked, Operation as Verb};
use toolzz_simulator::{Fault, Gate, Operation, Point, Simulator, Times};

use super::{
    chart::start_as_chart,
    connections::{reference, service},
    support::*,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// More than there are workers, by far.
const CROWD: usize = 200;

/// An operator with four workers that sees all namespaces.
async fn four_workers() -> Lab {
    let mut lab = Lab::on(plane_of_ones_own().await, "four").await;
    let values = "concurrency=4,rateLimit=0,requestTimeout=25s,settlePeriod=30s,allowedHosts={127.0.0.1}";
    start_as_chart(&mut lab, values).await;
    lab
}

/// The credentials of a tenant with a connection of his own, in a namespace that the room goes on in.
async fn crowd(lab: &mut Lab, theirs: &Simulator) -> String {
    lab.namespace = lab.plane.unique_namespace("red").await.unwrap();
    lab.connect("own", &theirs.url(), "red").await;
    for number in 0..CROWD {
        lab.credential_with(&format!("red-{number}"), reference("ToolzzConnection", "own")).await;
    }
    lab.namespace.clone()
}

#[tokio::test]
async fn a_tenant_whose_toolzz_does_not_answer_holds_nobody_up() {
    let mut lab = four_workers().await;
    let theirs = service("red");
    let gate = theirs.hold(Operation::List, Point::BeforeCommit);
    crowd(&mut lab, &theirs).await;
    held(&gate).await;
    // All that one tenant gets.
    lab.operator.as_ref().unwrap().until_metric("toolzz_operator_reconciles_running 3").await;
    lab.namespace = lab.plane.unique_namespace("blue").await.unwrap();
    lab.credential("blue").await;
    lab.until_ready("blue").await;
    assert_eq!(
        (theirs.counts(Operation::List).received, theirs.posts()),
        (1, 0),
        "red still waits for its first answer"
    );
    gate.release();
}

#[tokio::test]
async fn a_tenant_who_is_throttled_holds_nobody_up() {
    let mut lab = four_workers().await;
    let theirs = service("red");
    theirs.fault(Operation::List, Times::Always, Fault::retry_after_seconds(429, 1));
    let red = crowd(&mut lab, &theirs).await;
    lab.until_reason("red-0", "RateLimited").await;
    lab.namespace = lab.plane.unique_namespace("blue").await.unwrap();
    lab.credential("blue").await;
    lab.until_ready("blue").await;
    assert_eq!(theirs.posts(), 0);
    // Of those that come back after a pause, few ask: the first is told to wait, and the others do not ask then.
    let (asked, paused) = (theirs.counts(Operation::List).received, CROWD as u64);
    assert!(asked < paused, "{asked} calls");
    theirs.clear_faults();
    lab.namespace = red;
    lab.until_ready(&format!("red-{}", CROWD - 1)).await;
    lab.until_ready("red-0").await;
}

/// Starts an operator with one worker, and with the time limits that users get.
fn one_worker(lab: &mut Lab) {
    lab.flags.push("--concurrency=1".to_owned());
    lab.drop_flags(&["--request-timeout", "--settle-period"]);
    lab.start_operator();
}

/// A create that is under way, forty that were there when the operator started, and a new one.
async fn backlog(prefix: &str) -> (Lab, Gate) {
    let mut lab = Lab::empty(prefix).await;
    lab.use_proxy().await;
    for number in 0..40 {
        lab.credential(&format!("old-{number}")).await;
    }
    let gate = lab.simulator.hold_next(1, Operation::Create, Point::BeforeCommit);
    one_worker(&mut lab);
    held(&gate).await;
    // The others, and once more the one at work: its Secret was listed after it began.
    let operator = lab.operator.as_ref().unwrap();
    operator.until_metric("toolzz_operator_queue_length 40").await;
    lab.credential("new").await;
    operator.until_metric("toolzz_operator_queue_length 41").await;
    (lab, gate)
}

/// How many were created before the new one.
fn place_of_new(lab: &Lab) -> Option<usize> {
    lab.simulator.read(|state| state.credentials().iter().position(|one| one.final_name() == "new"))
}

#[tokio::test]
async fn what_a_user_does_goes_before_what_was_there_already() {
    let (lab, gate) = backlog("lane").await;
    gate.release();
    lab.until_ready("new").await;
    assert_eq!(place_of_new(&lab), Some(1), "the next one after that which was being made");
}

/// It is tried again when its pause is over, and not when all that was there has been done.
#[tokio::test]
async fn a_create_that_fails_once_does_not_go_to_the_end() {
    let (lab, first) = backlog("once").await;
    let of_new = |asked: &Asked| asked.resource == "secrets" && asked.name.as_deref() == Some("new");
    let reads = move |asked: &Asked| asked.operation == Verb::Get && of_new(asked);
    let fault = test_kubeproxy::Fault::internal_error();
    let failed = lab.proxy().fault(reads, test_kubeproxy::Times::Next(1), fault);
    let second = lab.simulator.hold_next(1, Operation::Create, Point::BeforeCommit);
    first.release();
    held(&second).await;
    assert_eq!(lab.proxy().read(|state| state.hits(failed)), 1, "it was the next one's turn");
    // Longer than the first pause between two tries.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    second.release();
    lab.until_ready("new").await;
    assert_eq!(place_of_new(&lab), Some(2), "the next one after that which was being made");
}

/// Of what somebody does in one namespace.
#[tokio::test]
async fn an_edit_goes_before_what_is_being_made() {
    let mut lab = Lab::empty("edit").await;
    one_worker(&mut lab);
    lab.credential("there").await;
    lab.until_ready("there").await;
    let gate = lab.simulator.hold_next(1, Operation::Create, Point::BeforeCommit);
    let operator = lab.operator.as_ref().unwrap();
    for number in 0..20 {
        lab.credential(&format!("before-{number}")).await;
    }
    held(&gate).await;
    until_waiting(operator, 19).await;
    lab.edit("there", json!({"name": "edited"})).await;
    until_waiting(operator, 20).await;
    for number in 0..20 {
        lab.credential(&format!("after-{number}")).await;
    }
    until_waiting(operator, 40).await;
    gate.release();
    lab.until_remote(|state| state.credentials().iter().any(|one| one.row.name == "edited")).await;
    let made = lab.simulator.counts(Operation::Create).committed;
    assert!(made < 10, "{made} were made before");
}

/// Waits until at least so many passes are due.
async fn until_waiting(operator: &Operator, least: usize) {
    let waiting = || {
        let metrics = operator.get("/metrics").1;
        let line = metrics.lines().find_map(|line| line.strip_prefix("toolzz_operator_queue_length "));
        line.and_then(|count| count.parse::<usize>().ok()).unwrap_or_default()
    };
    let enough = async {
        while waiting() < least {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.unwrap_or_else(|_| panic!("{} of {least} wait", waiting()));
}
