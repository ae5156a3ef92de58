//! Every crash point: for each effect of each workload, SIGKILL of the real process before the effect is sent, after it
//! is committed and before its answer comes, and after the answer comes and before anything follows; then a new process,
//! and the same end as without. And for each of them a leader that is stopped there (SIGSTOP) and woken when another
//! leads.
//!
//! `make crashpoints` and `make takeovers` go through all workloads; `cargo test` through some.

use std::{cell::RefCell, fmt, panic::AssertUnwindSafe};

use futures::{FutureExt as _, future};
use tokio::sync::Notify;

use super::{runs::*, support::*, workloads::*};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The request has left the process; it never arrives.
    BeforeSent,
    /// It took effect; the process dies before the answer.
    Unanswered,
    /// The answer came; the process dies before it asks for anything else.
    Unrecorded,
}

const MOMENTS: [Moment; 3] = [Moment::BeforeSent, Moment::Unanswered, Moment::Unrecorded];

/// A gate on either side.
enum Gate {
    Remote(toolzz_simulator::Gate),
    Kubernetes(test_kubeproxy::Gate),
}

impl Gate {
    fn new(lab: &Lab, effect: &Effect, moment: Moment) -> Self {
        let before = moment == Moment::BeforeSent;
        match effect.clone() {
            Effect::Remote(operation) => {
                let point =
                    if before { toolzz_simulator::Point::BeforeCommit } else { toolzz_simulator::Point::AfterCommit };
                Self::Remote(lab.simulator.hold(operation, point))
            }
            effect => {
                let point = if before { test_kubeproxy::Point::BeforeSent } else { test_kubeproxy::Point::Committed };
                let on = move |asked: &test_kubeproxy::Asked| Effect::of_kubernetes(asked).as_ref() == Some(&effect);
                Self::Kubernetes(lab.proxy().hold(on, point))
            }
        }
    }

    async fn until_held(&self) {
        match self {
            Self::Remote(gate) => gate.until_held(1).await,
            Self::Kubernetes(gate) => gate.until_held(1).await,
        }
    }

    /// Waits until the nth request is here; those before pass.
    async fn until_nth(&self, nth: usize) {
        for _ in 1..nth {
            self.until_held().await;
            assert!(match self {
                Self::Remote(gate) => gate.release_one(),
                Self::Kubernetes(gate) => gate.release_one(),
            });
        }
        self.until_held().await;
    }

    fn discard(self) {
        match self {
            Self::Remote(gate) => gate.discard(),
            Self::Kubernetes(gate) => gate.discard(),
        };
    }
}

/// Stops whatever the operator asks for next, apart from what goes on beside its work: watches, events, the lease.
fn hold_everything(lab: &Lab) -> [Gate; 2] {
    let asks = |asked: &test_kubeproxy::Asked| {
        asked.operation != test_kubeproxy::Operation::Watch && !matches!(asked.resource.as_str(), "events" | "leases")
    };
    [
        Gate::Remote(lab.simulator.hold(toolzz_simulator::Matching::default(), toolzz_simulator::Point::BeforeCommit)),
        Gate::Kubernetes(lab.proxy().hold(asks, test_kubeproxy::Point::BeforeSent)),
    ]
}

/// With one crash: whether the end fits.
async fn crashed(workload: Workload, place: &Place, moment: Moment, expected: &EndState) -> Result<(), Failure> {
    let mut lab = workload.prepare().await;
    let gate = Gate::new(&lab, &place.effect, moment);
    let operator = RefCell::new(Some(lab.operator.take().unwrap_or_else(|| lab.another_operator())));
    let done = Notify::new();
    let user = async {
        workload.act(&lab).await;
        done.notify_one();
    };
    let kill = || drop(operator.borrow_mut().take());
    let crash = async {
        gate.until_nth(place.nth).await;
        match moment {
            Moment::BeforeSent => {
                kill();
                gate.discard();
            }
            Moment::Unanswered => {
                kill();
                drop(gate);
            }
            Moment::Unrecorded => {
                let next = hold_everything(&lab);
                drop(gate);
                until_next(&next, &done).await;
                kill();
                next.into_iter().for_each(Gate::discard);
            }
        }
        *operator.borrow_mut() = Some(lab.another_operator());
    };
    let both = future::join(AssertUnwindSafe(user).catch_unwind(), crash);
    match tokio::time::timeout(PATIENCE, both).await {
        Err(_) => return Err(Failure::stuck(&lab.log())),
        Ok((Err(panic), ())) => return Err(Failure::of_panic(&*panic)),
        Ok((Ok(()), ())) => {}
    }
    lab.operator = operator.into_inner();
    until_fits(&lab, expected).await
}

/// With a leader that is stopped, and woken when another leads: whether the end fits.
async fn stopped(workload: Workload, place: &Place, moment: Moment, expected: &EndState) -> Result<(), Failure> {
    let mut lab = workload.prepare_in(Lab::empty("stopped").await, &["--leader-elect", "--lease-duration=6s"]).await;
    let gate = Gate::new(&lab, &place.effect, moment);
    let mut leader = lab.operator.take().unwrap_or_else(|| lab.another_operator());
    leader.until_metric(LEADS).await;
    let standby = lab.another_operator();
    let done = Notify::new();
    let user = async {
        workload.act(&lab).await;
        done.notify_one();
    };
    let takeover = async {
        gate.until_nth(place.nth).await;
        match (moment, &place.effect) {
            // It comes after another's first writes, and is refused for what it was decided on.
            (Moment::BeforeSent, Effect::Kubernetes { .. }) => {
                leader.signal("STOP");
                standby.until_metric(LEADS).await;
                drop(gate);
            }
            (Moment::BeforeSent, Effect::Remote(_)) => {
                leader.signal("STOP");
                gate.discard();
            }
            (Moment::Unanswered, _) => {
                leader.signal("STOP");
                drop(gate);
            }
            (Moment::Unrecorded, _) => {
                let next = hold_everything(&lab);
                drop(gate);
                until_next(&next, &done).await;
                leader.signal("STOP");
                next.into_iter().for_each(Gate::discard);
            }
        }
        standby.until_metric(LEADS).await;
        leader.signal("CONT");
        assert_eq!(leader.until_ended().await, Some(1), "who lost the lease ends");
    };
    let both = future::join(AssertUnwindSafe(user).catch_unwind(), takeover);
    match tokio::time::timeout(PATIENCE, both).await {
        Err(_) => return Err(Failure::stuck(&lab.log())),
        Ok((Err(panic), ())) => return Err(Failure::of_panic(&*panic)),
        Ok((Ok(()), ())) => {}
    }
    lab.operator = Some(standby);
    until_fits(&lab, expected).await
}

/// Waits until something is asked for; where nothing follows, it is at rest.
async fn until_next([remote, kubernetes]: &[Gate; 2], done: &Notify) {
    tokio::select! {
        () = remote.until_held() => {}
        () = kubernetes.until_held() => {}
        () = done.notified() => {}
    }
}

/// What the metrics of a leader say.
const LEADS: &str = "toolzz_operator_leader 1";

/// A workload, one of its effects, and when something happened there.
struct Run {
    workload: Workload,
    place: Place,
    moment: Moment,
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}, {}, {:?}", self.workload, self.place, self.moment)
    }
}

/// Does this at each moment of each effect of these workloads.
async fn everywhere(
    what: &str,
    workloads: &[Workload],
    happens: impl AsyncFn(Workload, &Place, Moment, &EndState) -> Result<(), Failure>,
) {
    let references = references(workloads).await;
    let mut runs = Vec::new();
    for (workload, places, _) in &references {
        for place in places {
            runs.extend(MOMENTS.map(|moment| Run { workload: *workload, place: place.clone(), moment }));
        }
    }
    let work = async |run: &Run| happens(run.workload, &run.place, run.moment, end_of(&references, run.workload)).await;
    run_all(what, workloads.len(), runs, work).await;
}

#[tokio::test]
async fn a_crash_at_any_point_ends_as_if_there_had_been_none() {
    use Workload::{Create, InPlace, Replace, Repoint};
    let workloads = chosen("TOOLZZ_CRASHPOINTS", &[Create, Repoint, Replace, InPlace]);
    everywhere("crash points", &workloads, crashed).await;
}

#[tokio::test]
async fn a_leader_stopped_at_any_point_and_woken_after_the_takeover_changes_nothing() {
    let workloads = chosen("TOOLZZ_TAKEOVERS", &[Workload::CreateTarget]);
    everywhere("takeovers", &workloads, stopped).await;
}
