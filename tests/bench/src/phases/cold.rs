//! Everything is there, and nothing of it at Toolzz.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    ceiling::Ceiling,
    error::Result,
    figures::{Row, Target, Unit},
    load::limit,
    operator::Operator,
    run::Run,
    world::{Counts, LISTINGS, UNLIMITED, World},
};

/// Without a limit of requests per second to Toolzz: what the operator itself can do. The credentials by the resources'
/// names.
pub async fn cold(
    run: &mut Run<'_>,
    world: &World<'_>,
    size: usize,
    ceiling: Ceiling,
) -> Result<(Operator, HashMap<String, Uuid>)> {
    run.say(format!("cold, {size} resources"));
    let before = world.counts().await?;
    let mut operator = world.operator(&[UNLIMITED])?;
    operator.until_working().await?;
    operator.until_good(size, limit(size)).await?;
    let took = operator.began.elapsed().as_secs_f64();
    operator.until_quiet(size, limit(size)).await?;
    let asked = world.since(&before).await?;
    let ids = world.verify().await?;
    let rate = size as f64 / took;
    let row = Row::new(size, "cold convergence, --rate-limit=0, from exec", rate, Unit::PerSecond);
    run.row(row.of(ceiling.rate, "the ceiling").target(Target::Ratio(0.9)));
    run.grows("cold convergence", size, took);
    asked_for_each(run, &asked, size);
    let memory = operator.memory()?;
    run.row(Row::new(size, "resident memory at the peak of it", memory.peak, Unit::Megabytes));
    run.grows("memory, peak of cold convergence", size, memory.peak);
    Ok((operator, ids))
}

fn asked_for_each(run: &mut Run<'_>, asked: &Counts, size: usize) {
    let each = |what: &str, count: u64| Row::new(size, what, count as f64 / size as f64, Unit::Requests);
    let (requests, calls) = (&asked.requests, asked.calls);
    run.row(each("writes to each created resource", requests.writes()).target(Target::Exactly(2.0)));
    run.row(each("POSTs for each", calls.posts).target(Target::Exactly(1.0)));
    run.row(each("PUTs for each", calls.puts).target(Target::Exactly(1.0)));
    run.row(each("events for each", requests.events()).target(Target::Exactly(0.0)));
    let all = each("Kubernetes requests for each, all told", requests.of_the_operator());
    run.row(all.of(Ceiling::REQUESTS, "the loader's"));
    run.row(each("calls of Toolzz for each, all told", calls.all).of(Ceiling::CALLS, "the loader's"));
    let listings = Row::new(size, "listings, all told", calls.lists as f64, Unit::Requests);
    run.row(listings.of(LISTINGS as f64, "the unities and types"));
}

/// With every flag as the chart sets it: the limit of requests per second is what counts then.
pub async fn shipped(run: &mut Run<'_>, size: usize, ceiling: Ceiling) -> Result<()> {
    let mut world = run.world().await?;
    run.fill(&mut world, size).await?;
    run.say(format!("cold with the flags as shipped, {size} resources"));
    let mut operator = world.operator(&[])?;
    operator.until_working().await?;
    operator.until_good(size, limit(size)).await?;
    let rate = size as f64 / operator.began.elapsed().as_secs_f64();
    operator.until_quiet(size, limit(size)).await?;
    world.verify().await?;
    let what = "cold convergence, flags as shipped (--rate-limit=50, two calls for each)";
    run.row(Row::new(size, what, rate, Unit::PerSecond).of(ceiling.rate, "the ceiling"));
    operator.end().await
}
