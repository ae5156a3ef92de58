//! Every crash point: for each effect of each workload, SIGKILL of the real process before the effect is sent, after it
//! is committed and before its answer comes, and after the answer comes and before anything follows; then a new process,
//! and the same end as without.
//!
//! `make crashpoints` goes through all workloads; `cargo test` through the create and the rotations.

use std::{cell::RefCell, fmt, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future, stream};
use tokio::sync::Notify;

use super::{support::*, workloads::*};

/// Rooms at work at once: they mostly wait.
const AT_ONCE: usize = 12;
/// Far beyond what a workload takes with a crash in it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Nothing happens for so long: the operator is at rest. Longer than every interval the workloads set.
const QUIET: Duration = Duration::from_secs(4);

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

/// An effect among those of a workload: the nth of its kind.
#[derive(Clone, Debug)]
struct Place {
    effect: Effect,
    nth: usize,
}

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

/// Stops whatever the operator asks for next, apart from watches and events, which go on beside its work.
fn hold_everything(lab: &Lab) -> [Gate; 2] {
    let asks = |asked: &test_kubeproxy::Asked| {
        asked.operation != test_kubeproxy::Operation::Watch && asked.resource != "events"
    };
    [
        Gate::Remote(lab.simulator.hold(toolzz_simulator::Matching::default(), toolzz_simulator::Point::BeforeCommit)),
        Gate::Kubernetes(lab.proxy().hold(asks, test_kubeproxy::Point::BeforeSent)),
    ]
}

/// Waits until there was no effect for a while.
async fn until_quiet(lab: &Lab) {
    loop {
        let before = effects(lab).len();
        tokio::time::sleep(QUIET).await;
        if effects(lab).len() == before {
            return;
        }
    }
}

/// Without a crash: the effects on the way, and the end.
async fn reference(workload: Workload) -> (Vec<Place>, EndState) {
    let mut lab = workload.prepare().await;
    let before = effects(&lab).len();
    if lab.operator.is_none() {
        lab.start_operator();
    }
    workload.act(&lab).await;
    until_quiet(&lab).await;
    let mut places = Vec::<Place>::new();
    for effect in effects(&lab).into_iter().skip(before) {
        let nth = 1 + places.iter().filter(|place| place.effect == effect).count();
        places.push(Place { effect, nth });
    }
    (places, end_state(&lab).await)
}

/// What became of a run that did not end as it should.
#[derive(Debug)]
struct Failure {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// More was created, or active at once, than without the crash.
    Duplicate,
    /// Something is not as recorded, or not recorded as it is.
    Lost,
    /// It does not come to an end.
    Stuck,
}

impl Failure {
    fn stuck(text: &str) -> Self {
        Self { kind: Kind::Stuck, text: tail(text).to_owned() }
    }

    fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        Self::stuck(panic.downcast_ref::<String>().map_or("panicked", String::as_str))
    }
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
                // Where nothing follows, it is at rest.
                let [remote, kubernetes] = &next;
                tokio::select! {
                    () = remote.until_held() => {}
                    () = kubernetes.until_held() => {}
                    () = done.notified() => {}
                }
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
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    // A last status may still be on its way.
    let begun = std::time::Instant::now();
    loop {
        let end = end_state(&lab).await;
        if end.fits(expected) {
            lab.assert_no_leak().await;
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(15) {
            let more = end.creates > expected.creates
                || end.most_active > expected.most_active
                || end.active() > expected.active();
            let kind = if more { Kind::Duplicate } else { Kind::Lost };
            let journal = effects(&lab);
            let text = format!("{end:#?}\nnot as\n{expected:#?}\n{journal:?}\n{}", tail(&lab.log()));
            return Err(Failure { kind, text });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(8000);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// A workload, one of its effects, and when it crashed there.
struct Run {
    workload: Workload,
    place: Place,
    moment: Moment,
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { effect, nth } = &self.place;
        write!(formatter, "{:?}, {effect:?} no. {nth}, {:?}", self.workload, self.moment)
    }
}

async fn crash_everywhere(workloads: &[Workload]) {
    let references = stream::iter(workloads.iter().copied())
        .map(|workload| async move { (workload, reference(workload).await) })
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let ends = |workload| &references.iter().find(|(one, _)| *one == workload).unwrap().1.1;
    let mut runs = Vec::new();
    for (workload, (places, end)) in &references {
        println!("{workload:?}: {} effects, {} creates", places.len(), end.creates);
        for place in places {
            println!("    {:?} no. {}", place.effect, place.nth);
            runs.extend(MOMENTS.map(|moment| Run { workload: *workload, place: place.clone(), moment }));
        }
    }
    let count = runs.len();
    let failures: Vec<(Run, Failure)> = stream::iter(runs)
        .map(|run| async move {
            let result = crashed(run.workload, &run.place, run.moment, ends(run.workload));
            let result = AssertUnwindSafe(result).catch_unwind().await;
            let failure = result.unwrap_or_else(|panic| Err(Failure::of_panic(&*panic))).err()?;
            Some((run, failure))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(future::ready)
        .collect()
        .await;
    for (run, failure) in &failures {
        println!("--- {run}: {:?}\n{}", failure.kind, failure.text);
    }
    let of = |kind| failures.iter().filter(|(_, failure)| failure.kind == kind).count();
    println!(
        "crash points: {count} × {} workloads, duplicates {}, lost {}, stuck {}",
        references.len(),
        of(Kind::Duplicate),
        of(Kind::Lost),
        of(Kind::Stuck)
    );
    let which: Vec<String> = failures.iter().map(|(run, failure)| format!("{run}: {:?}", failure.kind)).collect();
    assert!(failures.is_empty(), "{}", which.join("\n"));
}

#[tokio::test]
async fn a_crash_at_any_point_ends_as_if_there_had_been_none() {
    use Workload::{Create, InPlace, Replace, Repoint};
    let chosen = std::env::var("TOOLZZ_CRASHPOINTS").unwrap_or_default();
    if chosen.is_empty() {
        return crash_everywhere(&[Create, Repoint, Replace, InPlace]).await;
    }
    let names: Vec<&str> = chosen.split(',').collect();
    let wanted = |workload: &Workload| chosen == "all" || names.contains(&format!("{workload:?}").as_str());
    let workloads: Vec<Workload> = Workload::ALL.into_iter().filter(wanted).collect();
    assert!(!workloads.is_empty(), "TOOLZZ_CRASHPOINTS: all, or some of {:?}", Workload::ALL);
    crash_everywhere(&workloads).await;
}
