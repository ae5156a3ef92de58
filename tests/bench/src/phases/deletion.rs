//! Everything is deleted.

use std::time::{Duration, Instant};

use crate::{
    ceiling::Ceiling,
    error::{Error, Result},
    figures::{Row, Unit},
    kubernetes::all_credentials,
    load::{IN_FLIGHT, LOOK, each, limit, until},
    operator::Operator,
    run::Run,
    world::{Names, World},
};

/// For one settle period after it has started, an operator waits for what the one before it may have sent.
const SETTLED: Duration = Duration::from_secs(50);

pub async fn deletion(run: &mut Run<'_>, world: &World<'_>, operator: &mut Operator, ceiling: Ceiling) -> Result<()> {
    let count = world.count;
    tokio::time::sleep(SETTLED.saturating_sub(operator.began.elapsed())).await;
    run.say(format!("{count} resources are deleted"));
    let before = world.counts().await?;
    let admin = world.admin.clone();
    // One by one: a collection of so many is not deleted within the time for one request.
    let delete = move |number| {
        let admin = admin.clone();
        async move { admin.delete(&Names::of(number).path()).await }
    };
    let begun = Instant::now();
    each(0..count, IN_FLIGHT, delete).await?;
    until("every resource is gone", limit(count), LOOK, async || {
        Ok((operator.metrics().await?.resources() == Some(0.0)).then_some(()))
    })
    .await?;
    let took = begun.elapsed().as_secs_f64();
    let asked = world.since(&before).await?;
    let left = world.admin.list(&all_credentials()).await?.len();
    let active = world.simulator.read(|state| state.credentials().iter().filter(|one| one.is_active()).count());
    if left + active > 0 {
        return Err(Error::Wrong(format!("{left} resources and {active} active credentials are left")));
    }
    run.row(Row::new(count, "deletion of all", count as f64 / took, Unit::PerSecond).of(ceiling.rate, "the ceiling"));
    run.grows("deletion of all", count, took);
    let each = |what: &str, many: u64| Row::new(count, what, many as f64 / count as f64, Unit::Requests);
    run.row(each("deletion: writes to each resource", asked.requests.writes()).of(Ceiling::WRITES, "a create's"));
    run.row(each("deletion: calls of Toolzz for each", asked.calls.all).of(Ceiling::CALLS, "a create's"));
    Ok(())
}
