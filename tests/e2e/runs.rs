//! Many runs of the workloads, each with something in the way, all held against one run in which nothing was.

use std::{
    any::Any,
    cell::Cell,
    fmt,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, future, stream};
use jiff::Timestamp;
use uuid::Uuid;

use super::{support::*, workloads::*};

/// Rooms at work at once: they mostly wait.
const AT_ONCE: usize = 16;
/// Far beyond what a workload takes with a crash in it.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// An effect among those of a workload: the nth of its kind.
#[derive(Clone, Debug)]
pub struct Place {
    pub effect: Effect,
    pub nth: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.effect {
            Effect::Remote(operation) => write!(formatter, "Toolzz {operation:?}")?,
            Effect::Kubernetes { operation, resource, subresource } => {
                write!(formatter, "Kubernetes {operation:?} {resource}")?;
                subresource.iter().try_for_each(|part| write!(formatter, "/{part}"))?;
            }
        }
        write!(formatter, " no. {}", self.nth)
    }
}

/// What a workload does and comes to by itself.
pub struct Reference {
    pub workload: Workload,
    /// Its effects, in order.
    pub places: Vec<Place>,
    pub end: EndState,
}

/// Without a crash: the effects on the way, and the end.
async fn reference(workload: Workload) -> Reference {
    let mut lab = workload.prepare().await;
    let before = effects(&lab).len();
    if lab.operator.is_none() {
        lab.start_operator();
    }
    let all = async {
        workload.act(&lab).await;
        until_at_rest(&lab).await;
    };
    let ended = tokio::time::timeout(PATIENCE, all).await;
    assert!(ended.is_ok(), "{workload:?} by itself does not come to rest: {:?}\n{}", effects(&lab), tail(&lab.log()));
    let end = end_state(&lab, &[]).await;
    let wrong = end.wrong(workload).or_else(|| end.less_than(workload));
    assert!(wrong.is_none(), "{workload:?} by itself: {}: {end:#?}", wrong.unwrap());
    let mut places = Vec::<Place>::new();
    for effect in effects(&lab).into_iter().skip(before) {
        let nth = 1 + places.iter().filter(|place| place.effect == effect).count();
        places.push(Place { effect, nth });
    }
    assert!(!places.is_empty(), "{workload:?} has no effect");
    Reference { workload, places, end }
}

/// What the workloads do and come to by themselves.
pub async fn references(workloads: &[Workload]) -> Vec<Reference> {
    let all: Vec<Reference> = stream::iter(workloads.iter().copied()).map(reference).buffered(AT_ONCE).collect().await;
    for Reference { workload, places, end } in &all {
        println!("{workload:?}: {} effects, {} creates", places.len(), end.creates);
        for place in places {
            println!("    {place}");
        }
    }
    all
}

pub fn end_of(references: &[Reference], workload: Workload) -> &EndState {
    &references.iter().find(|one| one.workload == workload).unwrap().end
}

/// A workload, one of its effects, and what happens there.
pub struct Run<T> {
    pub workload: Workload,
    pub place: Place,
    pub what: T,
}

impl<T: fmt::Debug> fmt::Display for Run<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}, {}, {:?}", self.workload, self.place, self.what)
    }
}

/// Every effect of the references with everything that may happen there.
pub fn everywhere<T>(references: &[Reference], what: impl Fn(&Effect) -> Vec<T>) -> Vec<Run<T>> {
    let mut runs = Vec::new();
    for Reference { workload, places, .. } in references {
        for place in places {
            let of = |what| Run { workload: *workload, place: place.clone(), what };
            runs.extend(what(&place.effect).into_iter().map(of));
        }
    }
    runs
}

/// What became of a run that did not end as it should.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// More was created, or active at once, than without the crash.
    Duplicate,
    /// Something is not as recorded, or not recorded as it is.
    Lost,
    /// It does not come to an end.
    Stuck,
    /// What was to be met never came, so nothing was shown.
    Missed,
}

impl Failure {
    pub fn stuck(text: &str) -> Self {
        Self { kind: Kind::Stuck, text: tail(text) }
    }

    pub fn missed(what: &str, lab: &Lab) -> Self {
        Self { kind: Kind::Missed, text: format!("{what}: {:?}\n{}", effects(lab), tail(&lab.log())) }
    }

    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Self::stuck(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked"))
    }
}

/// A gate on either side.
pub enum Gate {
    Remote(toolzz_simulator::Gate),
    Kubernetes(test_kubeproxy::Gate),
}

impl Gate {
    /// Stops the effect: before anything is done, or when it is done and not answered yet. What others ask for after it passes.
    pub fn new(lab: &Lab, place: &Place, before: bool) -> Self {
        let count = place.nth as u64;
        match place.effect.clone() {
            Effect::Remote(operation) => {
                let point =
                    if before { toolzz_simulator::Point::BeforeCommit } else { toolzz_simulator::Point::AfterCommit };
                Self::Remote(lab.simulator.hold_next(count, operation, point))
            }
            effect => {
                let point = if before { test_kubeproxy::Point::BeforeSent } else { test_kubeproxy::Point::Committed };
                let on = move |asked: &test_kubeproxy::Asked| Effect::of_kubernetes(asked).as_ref() == Some(&effect);
                Self::Kubernetes(lab.proxy().hold_next(count, on, point))
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
    pub async fn until_nth(&self, nth: usize) {
        for _ in 1..nth {
            self.until_held().await;
            assert!(match self {
                Self::Remote(gate) => gate.release_one(),
                Self::Kubernetes(gate) => gate.release_one(),
            });
        }
        self.until_held().await;
    }

    pub fn discard(self) {
        match self {
            Self::Remote(gate) => gate.discard(),
            Self::Kubernetes(gate) => gate.discard(),
        };
    }
}

/// A request for an effect, as one of the journals has it.
pub struct Request<'a> {
    lab: &'a Lab,
    remote: bool,
    seq: u64,
}

/// What is known of a request that is over.
pub struct Over {
    pub at: Timestamp,
    /// The status that was answered, if one was.
    pub status: Option<u16>,
}

impl<'a> Request<'a> {
    /// The one for this effect that is in hand now.
    pub fn in_hand(lab: &'a Lab, effect: &Effect) -> Self {
        let seq = match effect {
            Effect::Remote(operation) => lab.simulator.read(|state| {
                let is =
                    |entry: &&toolzz_simulator::Entry| entry.operation == *operation && entry.finished_at.is_none();
                state.journal().filter(is).last().map(|entry| entry.seq)
            }),
            Effect::Kubernetes { .. } => lab.proxy().read(|state| {
                let is = |entry: &&test_kubeproxy::Entry| {
                    Effect::of_kubernetes(&entry.asked).as_ref() == Some(effect) && entry.finished_at.is_none()
                };
                state.journal().iter().rfind(is).map(|entry| entry.seq)
            }),
        };
        Self { lab, remote: matches!(effect, Effect::Remote(_)), seq: seq.expect("what is held is in hand") }
    }

    fn over(&self) -> Option<Over> {
        if self.remote {
            self.lab.simulator.read(|state| {
                let entry = state.journal().find(|entry| entry.seq == self.seq)?;
                Some(Over { at: entry.finished_at?, status: entry.status })
            })
        } else {
            self.lab.proxy().read(|state| {
                let entry = state.journal().iter().find(|entry| entry.seq == self.seq)?;
                Some(Over { at: entry.finished_at?, status: entry.status })
            })
        }
    }

    /// Waits until it took effect, or is over without. A process that is stopped gives up no answer that does not come.
    pub async fn until_effective(&self) -> Option<Uuid> {
        loop {
            let over = self.over().is_some();
            let committed = self.committed();
            if over || committed.is_some() {
                return committed;
            }
            tokio::time::sleep(LOOK / 5).await;
        }
    }

    /// What it made or changed at Toolzz.
    fn committed(&self) -> Option<Uuid> {
        if !self.remote {
            return None;
        }
        self.lab.simulator.read(|state| {
            let entry = state.journal().find(|entry| entry.seq == self.seq)?;
            match entry.effect {
                toolzz_simulator::Effect::Committed { credential, .. } => Some(credential),
                _ => None,
            }
        })
    }

    /// Waits until it is over: answered, or given up.
    pub async fn until_over(&self) -> Over {
        loop {
            match self.over() {
                Some(over) => return over,
                None => tokio::time::sleep(LOOK / 5).await,
            }
        }
    }
}

/// A user at work, and something that gets in the way.
#[derive(Default)]
pub struct Course {
    /// The user has what he wanted.
    done: Cell<bool>,
    /// What was to be met has come.
    met: Cell<bool>,
}

impl Course {
    /// Both side by side, within a time.
    pub async fn run(
        &self,
        lab: &Lab,
        workload: Workload,
        trouble: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        let user = async {
            workload.act(lab).await;
            self.done.set(true);
        };
        let user =
            AssertUnwindSafe(user).catch_unwind().map(|outcome| outcome.map_err(|panic| Failure::of_panic(&*panic)));
        let outcome = tokio::time::timeout(PATIENCE, future::try_join(user, trouble)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(Failure::stuck(&lab.log())));
        match outcome {
            Err(failure) if !self.met.get() => Err(Failure { kind: Kind::Missed, ..failure }),
            outcome => outcome.map(|_| ()),
        }
    }

    /// Waits until the nth request for an effect is at its gate. It fails where the user is done and everything at rest
    /// before.
    pub async fn until_nth(&self, lab: &Lab, gate: &Gate, nth: usize) -> Result<(), Failure> {
        self.until_met(lab, gate.until_nth(nth)).await
    }

    /// The same for whatever it is that has to come.
    pub async fn until_met(&self, lab: &Lab, comes: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::select! {
            biased;
            () = comes => {
                self.met.set(true);
                Ok(())
            }
            () = self.until_over(lab) => Err(Failure::missed("it never came", lab)),
        }
    }

    /// Waits until the user is done and the operator at rest.
    pub async fn until_over(&self, lab: &Lab) {
        while !self.done.get() {
            tokio::time::sleep(LOOK).await;
        }
        until_at_rest(lab).await;
    }
}

/// Whether it ends, in time, as well as where nothing was in the way, and stays so. What these strays are is known; they
/// do not count; how many they are.
pub async fn until_fits(lab: &Lab, run: Workload, expected: &EndState, strays: &[Uuid]) -> Result<usize, Failure> {
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    // A last status may still be on its way.
    let begun = Instant::now();
    while !end_state(lab, strays).await.fits(expected) && begun.elapsed() < Duration::from_secs(15) {
        tokio::time::sleep(4 * LOOK).await;
    }
    // What comes late comes within the settle period, and what was lost is done again after it.
    if tokio::time::timeout(PATIENCE, until_at_rest(lab)).await.is_err() {
        return Err(Failure::stuck(&format!("it does not come to rest\n{}", lab.log())));
    }
    let end = end_state(lab, strays).await;
    let log = lab.log();
    let wrong = end.wrong(run).or_else(|| log.contains("panicked at").then_some("a task of the operator panicked"));
    if let (true, None) = (end.fits(expected), wrong) {
        lab.assert_no_leak().await;
        lab.searched.set(true);
        return Ok(strays.len());
    }
    let more =
        end.creates > expected.creates || end.most_active > expected.most_active || end.active() > expected.active();
    let kind = if more { Kind::Duplicate } else { Kind::Lost };
    let wrong = wrong.unwrap_or("it is not as without");
    Err(Failure { kind, text: format!("{wrong}: {end:#?}\nnot as\n{expected:#?}\n{:?}\n{}", effects(lab), tail(&log)) })
}

/// Does all the runs, many at once, and prints how many went wrong and how, and how many strays were left that the design allows. `TOOLZZ_ONLY` is part of the name, as
/// printed, of those to do again.
pub async fn run_all<T: fmt::Debug>(
    what: &str,
    runs: Vec<Run<T>>,
    work: impl AsyncFn(&Run<T>) -> Result<usize, Failure>,
) {
    let only = std::env::var("TOOLZZ_ONLY").unwrap_or_default();
    let runs: Vec<Run<T>> = runs.into_iter().filter(|run| run.to_string().contains(&only)).collect();
    assert!(!runs.is_empty(), "there is nothing to run: TOOLZZ_ONLY={only}");
    let workloads = Workload::ALL.iter().filter(|one| runs.iter().any(|run| run.workload == **one)).count();
    let (count, work) = (runs.len(), &work);
    let mut strays = 0;
    let mut failures: Vec<(Run<T>, Failure)> = Vec::new();
    let mut ends = std::pin::pin!(
        stream::iter(runs)
            .map(|run| async move {
                let end = AssertUnwindSafe(work(&run)).catch_unwind().await;
                (run, end.unwrap_or_else(|panic| Err(Failure::of_panic(&*panic))))
            })
            .buffer_unordered(AT_ONCE)
    );
    while let Some((run, end)) = ends.next().await {
        match end {
            Ok(left) => strays += left,
            Err(failure) => failures.push((run, failure)),
        }
    }
    for (run, failure) in &failures {
        println!("--- {run}: {:?}\n{}", failure.kind, failure.text);
    }
    let of = |kind| failures.iter().filter(|(_, failure)| failure.kind == kind).count();
    let [duplicates, lost, stuck, missed] = [Kind::Duplicate, Kind::Lost, Kind::Stuck, Kind::Missed].map(of);
    let figure = format!(
        "{count} runs of {workloads} workloads: {duplicates} duplicates, {lost} lost, {stuck} stuck, {missed} missed; {strays} \
         strays, each of them explained"
    );
    println!("{what}: {figure}");
    // Some runs that were picked prove nothing of the rest.
    if only.is_empty() {
        proof(&what.replace(' ', "-"), &figure);
    }
    let which: Vec<String> = failures.iter().map(|(run, failure)| format!("{run}: {:?}", failure.kind)).collect();
    assert!(failures.is_empty(), "{}", which.join("\n"));
}

/// The workloads that a variable names, or says `all` of; otherwise these.
pub fn chosen(variable: &str, otherwise: &[Workload]) -> Vec<Workload> {
    let text = std::env::var(variable).unwrap_or_default();
    if text.is_empty() {
        return otherwise.to_vec();
    }
    let names: Vec<&str> = text.split(',').collect();
    let wanted = |workload: &Workload| text == "all" || names.contains(&format!("{workload:?}").as_str());
    let workloads: Vec<Workload> = Workload::ALL.into_iter().filter(wanted).collect();
    assert!(!workloads.is_empty(), "{variable}: all, or some of {:?}", Workload::ALL);
    workloads
}

/// The last of a text with a log in it, without what the operator's libraries have logged.
pub fn tail(log: &str) -> String {
    let of_library = |line: &&str| line.starts_with('{') && !line.contains(r#""target":"toolzz_operator"#);
    let own = log.lines().filter(|line| !of_library(line));
    let mut last: Vec<&str> = own.rev().take(60).map(|line| line.split(r#","span":"#).next().unwrap_or(line)).collect();
    last.reverse();
    last.join("\n")
}
