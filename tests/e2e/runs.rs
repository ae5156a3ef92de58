//! Many runs of the workloads, each with something in the way, all held against one run in which nothing was.

use std::{fmt, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future, stream};

use super::{support::*, workloads::*};

/// Rooms at work at once: they mostly wait.
pub const AT_ONCE: usize = 12;
/// Far beyond what a workload takes with a crash in it.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Nothing happens for so long: the operator is at rest. Longer than every interval the workloads set.
const QUIET: Duration = Duration::from_secs(4);

/// An effect among those of a workload: the nth of its kind.
#[derive(Clone, Debug)]
pub struct Place {
    pub effect: Effect,
    pub nth: usize,
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
    let end = end_state(&lab).await;
    if let Some(wrong) = end.wrong(workload) {
        panic!("{workload:?} by itself: {wrong}: {end:#?}");
    }
    let mut places = Vec::<Place>::new();
    for effect in effects(&lab).into_iter().skip(before) {
        let nth = 1 + places.iter().filter(|place| place.effect == effect).count();
        places.push(Place { effect, nth });
    }
    (places, end)
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

/// What the workloads do and come to by themselves.
pub async fn references(workloads: &[Workload]) -> Vec<(Workload, Vec<Place>, EndState)> {
    let all: Vec<_> = stream::iter(workloads.iter().copied())
        .map(|workload| async move {
            let (places, end) = reference(workload).await;
            (workload, places, end)
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    for (workload, places, end) in &all {
        println!("{workload:?}: {} effects, {} creates", places.len(), end.creates);
        for place in places {
            println!("    {place}");
        }
    }
    all
}

pub fn end_of(references: &[(Workload, Vec<Place>, EndState)], workload: Workload) -> &EndState {
    &references.iter().find(|(one, _, _)| *one == workload).unwrap().2
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
}

impl Failure {
    pub fn stuck(text: &str) -> Self {
        Self { kind: Kind::Stuck, text: tail(text).to_owned() }
    }

    pub fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        Self::stuck(panic.downcast_ref::<String>().map_or("panicked", String::as_str))
    }
}

/// Whether it ends, in time, as well as where nothing was in the way.
pub async fn until_fits(lab: &Lab, expected: &EndState) -> Result<(), Failure> {
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    // A last status may still be on its way.
    let begun = std::time::Instant::now();
    loop {
        let end = end_state(lab).await;
        if end.fits(expected) {
            lab.assert_no_leak().await;
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(15) {
            let more = end.creates > expected.creates
                || end.most_active > expected.most_active
                || end.active() > expected.active();
            let kind = if more { Kind::Duplicate } else { Kind::Lost };
            let text = format!("{end:#?}\nnot as\n{expected:#?}\n{:?}\n{}", effects(lab), tail(&lab.log()));
            return Err(Failure { kind, text });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Does all the runs, many at once, and prints how many went wrong and how. `TOOLZZ_ONLY` is part of the name, as
/// printed, of those to do again.
pub async fn run_all<R: fmt::Display>(
    what: &str,
    workloads: usize,
    runs: Vec<R>,
    work: impl AsyncFn(&R) -> Result<(), Failure>,
) {
    let only = std::env::var("TOOLZZ_ONLY").unwrap_or_default();
    let runs: Vec<R> = runs.into_iter().filter(|run| run.to_string().contains(&only)).collect();
    let (count, work) = (runs.len(), &work);
    let failures: Vec<(R, Failure)> = stream::iter(runs)
        .map(|run| async move {
            let result = AssertUnwindSafe(work(&run)).catch_unwind().await;
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
        "{what}: {count} × {workloads} workloads, duplicates {}, lost {}, stuck {}",
        of(Kind::Duplicate),
        of(Kind::Lost),
        of(Kind::Stuck)
    );
    proof(
        &what.replace(' ', "-"),
        &format!(
            "{count} runs of {workloads} workloads: {} duplicates, {} lost, {} stuck",
            of(Kind::Duplicate),
            of(Kind::Lost),
            of(Kind::Stuck)
        ),
    );
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

pub fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(8000);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
