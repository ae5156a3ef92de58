//! Explores every order of events of operators that decide by the operator's own planner
//! ([`toolzz_operator::plan::next`]), within bounds: crashes, lost and late requests, stale caches, stale listings.

pub mod bounds;
pub mod bugs;
mod fingerprint;
pub mod model;
pub mod shell;
pub mod world;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bounds::Bounds;
use model::{Event, Protocol};
use stateright::{Checker as _, HasDiscoveries, Model as _};

/// What a run came to.
pub struct Report {
    /// Different states.
    pub states: usize,
    /// States with those that were met again.
    pub generated: usize,
    /// The most events on the way to one.
    pub depth: usize,
    /// There was nothing more to explore.
    pub exhausted: bool,
    /// How long it took.
    pub took: Duration,
    /// What is wrong, and the events that lead there, in words.
    pub wrong: Option<(String, Vec<String>)>,
    /// In how many states an update of another operator left something active that no record names any more: the
    /// exception that the guarantees name.
    pub outlived: usize,
}

/// Explores everything within these bounds, or up to the first thing that is wrong.
pub fn explore(bounds: &Bounds) -> Report {
    let begun = Instant::now();
    let model = Protocol::new(bounds);
    let wrong = ["safe", "settles"];
    let checker = model
        .clone()
        .checker()
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .target_state_count(bounds.states)
        .finish_when(HasDiscoveries::AnyOf(wrong.into()))
        .spawn_bfs()
        .join();
    let mut found = checker.discoveries();
    let path = wrong.iter().find_map(|name| found.remove(*name));
    Report {
        states: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        exhausted: checker.state_count() < bounds.states && model.beyond.load(Ordering::Relaxed) == 0,
        took: begun.elapsed(),
        outlived: model.outlived.load(Ordering::Relaxed),
        wrong: path.map(|path| {
            let steps = path.into_vec();
            let told = steps.iter().filter_map(|(world, event)| Some(tell(&model, world, (*event)?))).collect();
            let what = steps.last().and_then(|(world, _)| model.wrong(world).or_else(|| model.unsettled(world)));
            (what.unwrap_or_default(), told)
        }),
    }
}

/// An event, with the step that an operator takes.
fn tell(model: &Protocol, world: &world::World, event: Event) -> String {
    let step = match event {
        Event::Step(operator, resource) | Event::Lose(operator, resource) | Event::Kill(operator, resource) => {
            world.decide(&model.bounds, operator, resource).map(|decision| format!("{:?}", decision.step))
        }
        _ => None,
    };
    format!("at {}: {event:?} {}", world.now, step.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::Bug;

    #[test]
    fn nothing_is_wrong_within_small_bounds() {
        for bounds in Bounds::quick() {
            let report = explore(&bounds);
            println!("{}: {} states in {:?}", bounds.name, report.states, report.took);
            assert!(report.wrong.is_none(), "{}: {:#?}", bounds.name, report.wrong);
            assert!(report.exhausted, "{}: not exhausted", bounds.name);
        }
    }

    #[test]
    fn every_planted_bug_is_found() {
        for bug in Bug::ALL {
            let report = explore(&Bounds::of_bug(bug));
            println!(
                "{}: {} states in {:?}: {:?}",
                bug.name(),
                report.states,
                report.took,
                report.wrong.as_ref().map(|wrong| &wrong.0)
            );
            assert!(report.wrong.is_some(), "{} is not found", bug.name());
        }
    }
}
