//! Every Secret changes at once.

use std::time::Instant;

use toolzz_simulator::Operation;

use crate::{
    ceiling::Ceiling,
    error::Result,
    figures::{Row, Unit},
    load::{IN_FLIGHT, each, limit, within},
    operator::Operator,
    run::Run,
    world::{Names, World},
};

pub async fn rotation(
    run: &mut Run<'_>,
    world: &World<'_>,
    operator: &mut Operator,
    size: usize,
    ceiling: Ceiling,
) -> Result<()> {
    run.say("every Secret changes");
    let before = world.counts().await?;
    let updated = world.simulator.counts(Operation::Update).committed + size as u64;
    let admin = world.admin.clone();
    let rotate = move |number| {
        let admin = admin.clone();
        async move { Names::of(number).rotate(&admin, 2).await }
    };
    let begun = Instant::now();
    each(0..size, IN_FLIGHT, rotate).await?;
    let all = world.simulator.until(|state| state.counts(Operation::Update).committed >= updated);
    within("every credential has its new material", limit(size), all).await?;
    operator.until_reason("Rotated", size, limit(size)).await?;
    let took = begun.elapsed().as_secs_f64();
    operator.until_quiet(0, limit(size)).await?;
    let asked = world.since(&before).await?;
    world.verify().await?;
    let row =
        Row::new(size, "rotation of all, the changes of the Secrets included", size as f64 / took, Unit::PerSecond);
    run.row(row.of(ceiling.rate, "the ceiling"));
    run.grows("rotation of all", size, took);
    let each = |what: &str, count: u64| Row::new(size, what, count as f64 / size as f64, Unit::Requests);
    run.row(each("rotation: writes to each resource", asked.requests.writes()).of(Ceiling::WRITES, "a create's"));
    run.row(each("rotation: calls of Toolzz for each", asked.calls.all).of(Ceiling::CALLS, "a create's"));
    Ok(())
}
