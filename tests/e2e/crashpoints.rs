//! Every crash point: for each effect of each workload, SIGKILL of the real process before the effect is sent, after it
//! is committed and before its answer comes, and after the answer comes and before anything follows; then a new process,
//! and the same end as without. And for each of them a leader that is stopped there (SIGSTOP) and woken when another
//! leads.
//!
//! `make crashpoints` and `make takeovers` go through all workloads; `cargo test` through some.

use std::{cell::RefCell, time::Duration};

use jiff::Timestamp;
use toolzz_simulator::{DEFAULT_TOKEN, Operation, Token, TokenSeen};
use uuid::Uuid;

use super::{runs::*, support::*, workloads::*};

/// Far longer than it takes to read an answer that is there.
const READ: Duration = Duration::from_millis(300);
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

/// Whether it is part of the operator's work. Beside it are watches, events and the lease.
fn is_work(asked: &test_kubeproxy::Asked) -> bool {
    asked.operation != test_kubeproxy::Operation::Watch && !matches!(asked.resource.as_str(), "events" | "leases")
}

/// Stops whatever the operator asks for next.
fn hold_everything(lab: &Lab) -> [Gate; 2] {
    [
        Gate::Remote(lab.simulator.hold(toolzz_simulator::Matching::default(), toolzz_simulator::Point::BeforeCommit)),
        Gate::Kubernetes(lab.proxy().hold(is_work, test_kubeproxy::Point::BeforeSent)),
    ]
}

/// When the operator last asked for something.
fn last_asked(lab: &Lab) -> Option<Timestamp> {
    let remote = lab.simulator.read(|state| state.journal().last().map(|entry| entry.started_at));
    let kubernetes = lab.proxy().read(|state| {
        let last = state.journal().iter().rfind(|entry| is_work(&entry.asked));
        last.map(|entry| entry.started_at)
    });
    remote.max(kubernetes)
}

/// Lets the request that is held here be answered, and waits until its answer has been read and nothing more comes:
/// because what was asked for next is held, or because there is nothing more to do.
async fn answer(lab: &Lab, effect: &Effect, gate: Gate, course: &Course) -> [Gate; 2] {
    let request = Request::in_hand(lab, effect);
    let next = hold_everything(lab);
    drop(gate);
    let answered = request.until_over().await.at;
    // What was asked for before the answer says nothing about it.
    let asks_more = async {
        while !last_asked(lab)
            .is_some_and(|last| last > answered && Timestamp::now().duration_since(last).unsigned_abs() > READ)
        {
            tokio::time::sleep(READ / 10).await;
        }
    };
    tokio::select! {
        () = asks_more => {}
        () = course.until_over(lab) => {}
    }
    next
}

/// With one crash: whether the end fits.
async fn crashed(run: &Run<Moment>, expected: &EndState) -> Result<usize, Failure> {
    let Run { workload, place, what: moment } = run;
    let mut lab = workload.prepare().await;
    let gate = Gate::new(&lab, place, *moment == Moment::BeforeSent);
    let operator = RefCell::new(Some(lab.operator.take().unwrap_or_else(|| lab.another_operator())));
    let course = Course::default();
    let kill = || {
        let mut operator = operator.borrow_mut().take().expect("an operator");
        assert!(!operator.has_ended(), "it ended before it was killed");
        drop(operator);
    };
    let crash = async {
        course.until_nth(&lab, &gate, place.nth).await?;
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
                let next = answer(&lab, &place.effect, gate, &course).await;
                kill();
                next.into_iter().for_each(Gate::discard);
            }
        }
        *operator.borrow_mut() = Some(lab.another_operator());
        Ok(())
    };
    course.run(&lab, *workload, crash).await?;
    lab.operator = operator.into_inner();
    until_fits(&lab, *workload, expected, &[]).await
}

/// With a leader that is stopped, and woken when another leads: whether the end fits.
async fn stopped(run: &Run<Moment>, expected: &EndState) -> Result<usize, Failure> {
    let Run { workload, place, what: moment } = run;
    let mut lab = workload.prepare_in(Lab::empty("stopped").await, &["--leader-elect", "--lease-duration=6s"]).await;
    // By its token one can tell whose request it is. A search for the other's finds it too.
    let token = format!("{DEFAULT_TOKEN}-standby");
    lab.simulator.set_tokens(vec![Token::full("leader", DEFAULT_TOKEN), Token::full("standby", &token)]);
    let gate = Gate::new(&lab, place, *moment == Moment::BeforeSent);
    let mut leader = lab.operator.take().unwrap_or_else(|| lab.another_operator());
    leader.until_metric(LEADS).await;
    let standby = lab.operator_with(&token);
    let course = Course::default();
    let mut late = None;
    let takeover = async {
        course.until_nth(&lab, &gate, place.nth).await?;
        match moment {
            Moment::BeforeSent => {
                leader.stop();
                let request = Request::in_hand(&lab, &place.effect);
                standby.until_metric(LEADS).await;
                // It comes after the other's first write, or after it came to rest where it has nothing to write.
                let (_, before) = begun_and_ended(&lab);
                let written = async {
                    while begun_and_ended(&lab).1 == before {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    () = written => {}
                    () = until_at_rest(&lab) => {}
                }
                drop(gate);
                late = request.until_effective().await;
            }
            Moment::Unanswered => {
                leader.stop();
                drop(gate);
                // Woken when there is nothing else that could write.
                standby.until_metric(LEADS).await;
                course.until_over(&lab).await;
            }
            Moment::Unrecorded => {
                let next = answer(&lab, &place.effect, gate, &course).await;
                leader.stop();
                next.into_iter().for_each(Gate::discard);
                standby.until_metric(LEADS).await;
            }
        }
        let (sent, effects) = (sent_by_leader(&lab), begun_and_ended(&lab).0);
        let woken = Timestamp::now();
        leader.signal("CONT");
        assert_eq!(leader.until_ended().await, Some(1), "who lost the lease ends");
        let told = || format!("woken at {woken}: {:#?}\n{}", effects_since(&lab, woken), tail(&lab.log()));
        assert_eq!(sent_by_leader(&lab), sent, "who lost the lease writes nothing more to Toolzz; {}", told());
        if *moment == Moment::Unanswered {
            assert_eq!(begun_and_ended(&lab).0, effects, "who lost the lease writes nothing more at all; {}", told());
        }
        Ok(())
    };
    course.run(&lab, *workload, takeover).await?;
    lab.operator = Some(standby);
    let strays = account_for_late(&lab, run, late, expected).await;
    until_fits(&lab, *workload, expected, &strays).await
}

/// Creates and updates that came with the leader's token.
fn sent_by_leader(lab: &Lab) -> usize {
    lab.simulator.read(|state| {
        let writes = state.journal().filter(|entry| matches!(entry.operation, Operation::Create | Operation::Update));
        writes.filter(|entry| entry.token == TokenSeen::Full("leader".to_owned())).count()
    })
}

/// Every effect that was asked for since then, and by whom.
fn effects_since(lab: &Lab, then: Timestamp) -> Vec<String> {
    let remote = lab.simulator.journal().into_iter().filter(|entry| entry.started_at >= then);
    let kubernetes =
        lab.proxy().journal().into_iter().filter(|entry| entry.started_at >= then && is_work(&entry.asked));
    remote
        .map(|entry| format!("{} {} {} {:?}", entry.started_at, entry.method, entry.path, entry.token))
        .chain(kubernetes.map(|entry| format!("{} {:?}", entry.started_at, entry.asked)))
        .collect()
}

/// What a write of the former leader may leave that took effect after the takeover (docs/guarantees.md, "What can remain"):
/// a create that another did meanwhile, an inactive credential under a marked name.
async fn account_for_late(lab: &Lab, run: &Run<Moment>, late: Option<Uuid>, expected: &EndState) -> Vec<Uuid> {
    let Some(late) = late else { return Vec::new() };
    until_at_rest(lab).await;
    let creates = lab.simulator.counts(Operation::Create).committed;
    if run.place.effect != Effect::Remote(Operation::Create) || creates <= expected.creates {
        return Vec::new();
    }
    // Either may be the one that serves: who sees several takes the same one as everybody.
    let (all, serving) = (lab.simulator.credentials(), lab.simulator.active_named(NAME));
    let created = |one: &toolzz_simulator::Credential| one.history[0].row.clone().unwrap();
    let name = all.iter().find(|one| one.id == late).map(|one| created(one).name.clone());
    let serves = |one: &toolzz_simulator::Credential| {
        serving.iter().any(|other| other.id == one.id || other.row.secret_id == created(one).secret_id)
    };
    let mut strays: Vec<_> =
        all.iter().filter(|one| name.as_ref() == Some(&created(one).name) && !serves(one)).collect();
    // After a deletion none serves, but the one that did was active.
    strays.sort_by_key(|one| (one.was_ever_active(), one.id != late));
    strays.truncate(usize::try_from(creates - expected.creates).unwrap());
    for stray in &strays {
        let marked = toolzz_simulator::is_marked(&stray.row.name);
        assert!(marked && !stray.was_ever_active(), "a stray is inactive and marked: {stray:?}");
    }
    strays.iter().map(|one| one.id).collect()
}

/// What the metrics of a leader say.
const LEADS: &str = "toolzz_operator_leader 1";

/// Does this at each moment of each effect of these workloads.
async fn at_every_moment(
    what: &str,
    workloads: &[Workload],
    happens: impl AsyncFn(&Run<Moment>, &EndState) -> Result<usize, Failure>,
) {
    let references = references(workloads).await;
    let runs = everywhere(&references, |_| MOMENTS.to_vec());
    run_all(what, runs, async |run: &Run<Moment>| happens(run, end_of(&references, run.workload)).await).await;
}

#[tokio::test]
async fn a_crash_at_any_point_ends_as_if_there_had_been_none() {
    let _turn = turn().await;
    use Workload::{Create, InPlace, Replace, Repoint};
    let workloads = chosen("TOOLZZ_CRASHPOINTS", &[Create, Repoint, Replace, InPlace]);
    at_every_moment("crash points", &workloads, crashed).await;
}

#[tokio::test]
async fn a_leader_stopped_at_any_point_and_woken_after_the_takeover_changes_nothing() {
    let _turn = turn().await;
    let workloads = chosen("TOOLZZ_TAKEOVERS", &[Workload::CreateTarget]);
    at_every_moment("takeovers", &workloads, stopped).await;
}
