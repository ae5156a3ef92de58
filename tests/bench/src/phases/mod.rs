//! What is measured, part by part.

mod backlog;
mod cold;
mod deletion;
mod fairness;
mod rotation;
mod settled;
mod several;
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
pub use several::takeover;
pub use start::{plan, start};

/// Everything that is measured with so many resources.
pub async fn of_size(run: &mut Run<'_>, size: usize, smallest: bool, unrelated: Option<usize>) -> Result<()> {
    let shipped = smallest && run.wants(Part::Shipped);
    let shards = smallest && run.wants(Part::Shards);
    let settled = Part::SETTLED.into_iter().any(|part| run.wants(part));
    if !shipped && !shards && !settled {
        return Ok(());
    }
    let ceiling = ceiling_of(run, size).await?;
    if shipped {
        let outcome = cold::shipped(run, size, ceiling).await;
        run.part(outcome);
    }
    if settled {
        let outcome = settled_of(run, size, ceiling, unrelated).await;
        run.part(outcome);
    }
    if shards {
        let outcome = several::shards(run, size, ceiling).await;
        run.part(outcome);
    }
    Ok(())
}

/// What is measured of one set of resources, from their creation to their deletion.
async fn settled_of(run: &mut Run<'_>, size: usize, ceiling: Ceiling, unrelated: Option<usize>) -> Result<()> {
    let mut world = run.world().await?;
    run.fill(&mut world, size).await?;
    let (mut operator, ids) = cold::cold(run, &world, size, ceiling).await?;
    if run.wants(Part::Rest) {
        settled::rest(run, &operator, size).await?;
    }
    if run.wants(Part::Restart) {
        operator = settled::restart(run, &world, operator, size, ceiling).await?;
    }
    if run.wants(Part::Change) {
        settled::change(run, &world, &mut operator, size, &ids, ceiling).await?;
    }
    if run.wants(Part::Drift) {
        operator = settled::drift(run, &world, operator, size, ceiling).await?;
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
        deletion::deletion(run, &world, &mut operator, ceiling).await?;
    }
    operator.end().await
}

async fn ceiling_of(run: &mut Run<'_>, size: usize) -> Result<Ceiling> {
    // Of its own: its resources are none of the operator's.
    let mut world = run.world().await?;
    run.say(format!("ceiling, {size} resources"));
    let ceiling = within("the ceiling", limit(size) * 3, ceiling::measure(&mut world, size)).await??;
    let rate = Row::new(size, "ceiling: the calls of a create, from a bare loader", ceiling.rate, Unit::PerSecond);
    run.row(rate.of(ceiling.rate, "the ceiling"));
    let alone = Row::seconds(size, "the calls of a create, one after another", ceiling.alone);
    run.row(alone.of(ceiling.time(1), "the ceiling's time for one"));
    Ok(ceiling)
}
