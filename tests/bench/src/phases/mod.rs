//! What is measured, part by part.

mod backlog;
mod cold;
mod deletion;
mod fairness;
mod rotation;
mod settled;
mod start;
mod unrelated;

use crate::{
    ceiling::{self, Ceiling},
    error::Result,
    figures::{Row, Unit},
    load::{limit, within},
    run::{Part, Run},
};

pub use fairness::fairness;
pub use start::{plan, start};

/// The parts that go on from where everything is settled.
const AFTER_COLD: [Part; 8] = [
    Part::Rest,
    Part::Restart,
    Part::Change,
    Part::Drift,
    Part::Rotation,
    Part::Unrelated,
    Part::Backlog,
    Part::Deletion,
];

/// Everything that is measured with so many resources.
pub async fn of_size(run: &mut Run<'_>, size: usize, smallest: bool, unrelated: Option<usize>) -> Result<()> {
    let ceiling = ceiling_of(run, size).await?;
    if smallest && run.wants(Part::Shipped) {
        cold::shipped(run, size, ceiling).await?;
    }
    if !run.wants(Part::Cold) && !AFTER_COLD.iter().any(|part| run.wants(*part)) {
        return Ok(());
    }
    let mut world = run.world().await?;
    run.fill(&mut world, size).await?;
    let (mut operator, ids) = cold::cold(run, &world, size, ceiling).await?;
    if run.wants(Part::Rest) {
        settled::rest(run, &operator, size).await?;
    }
    if run.wants(Part::Restart) {
        operator = settled::restart(run, &world, operator, size).await?;
    }
    if run.wants(Part::Change) {
        settled::change(run, &world, &mut operator, size, &ids, ceiling).await?;
    }
    if run.wants(Part::Drift) {
        operator = settled::drift(run, &world, operator, size).await?;
    }
    if run.wants(Part::Rotation) {
        rotation::rotation(run, &world, &mut operator, size, ceiling).await?;
    }
    if let Some(unrelated) = unrelated.filter(|_| run.wants(Part::Unrelated)) {
        operator = unrelated::unrelated(run, &world, operator, size, unrelated).await?;
    }
    if run.wants(Part::Backlog) {
        operator = backlog::backlog(run, &mut world, operator, size, &ids, ceiling).await?;
    }
    if run.wants(Part::Deletion) {
        deletion::deletion(run, &world, &mut operator, size).await?;
    }
    operator.end().await
}

async fn ceiling_of(run: &mut Run<'_>, size: usize) -> Result<Option<Ceiling>> {
    if !run.wants(Part::Ceiling) {
        return Ok(None);
    }
    // Of its own: its resources are none of the operator's.
    let mut world = run.world().await?;
    run.say(format!("ceiling, {size} resources"));
    let ceiling = within("the ceiling", limit(size) * 3, ceiling::measure(&mut world, size)).await??;
    let rate = |what: &str, rate| Row::new(size, what, rate, Unit::PerSecond);
    run.row(
        rate("ceiling: the calls of a create, from a bare loader", ceiling.rate).of(Some(ceiling.rate), "the ceiling"),
    );
    run.row(rate("ceiling, with an event for each", ceiling.rate_with_events).of(Some(ceiling.rate), "the ceiling"));
    run.row(Row::seconds(size, "the calls of a create, one after another", ceiling.alone));
    Ok(Some(ceiling))
}
