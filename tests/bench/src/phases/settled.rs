//! Everything is as it should be: what that costs, and how soon a change is seen.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    ceiling::Ceiling,
    error::{Error, Result},
    figures::{Row, Target, Unit, percentile},
    load::{LOOK, limit, until, within},
    operator::Operator,
    run::{Run, aimed},
    world::{LISTINGS, Names, UNLIMITED, World},
};

const A_MINUTE: Duration = Duration::from_secs(60);
/// The longest that is waited for one change.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How many Secrets are changed, one after another.
const SAMPLES: usize = 100;
/// The Secret with the installation key is read at each start.
const OWN_SECRETS: u64 = 1;

/// Memory, and processor time over a minute.
pub async fn rest(run: &mut Run<'_>, operator: &Operator, size: usize) -> Result<()> {
    run.say("at rest, for a minute");
    let before = operator.cpu()?;
    tokio::time::sleep(A_MINUTE).await;
    let used = operator.cpu()?.saturating_sub(before).as_secs_f64();
    let percent = used / A_MINUTE.as_secs_f64() * 100.0;
    let row = Row::new(size, "a core's time at rest", percent, Unit::Percent);
    run.row(aimed(row, size, Target::AtMost(1.0)));
    let memory = operator.memory()?.now;
    let row = Row::new(size, "resident memory at rest", memory, Unit::Megabytes);
    run.row(aimed(row, size, Target::AtMost(60.0)));
    run.grows("memory, at rest", size, memory);
    Ok(())
}

pub async fn restart(
    run: &mut Run<'_>,
    world: &World<'_>,
    operator: Operator,
    size: usize,
    ceiling: Ceiling,
) -> Result<Operator> {
    run.say("restart");
    operator.end().await?;
    let before = world.counts().await?;
    let mut operator = world.operator(&[UNLIMITED])?;
    let ready = operator.until_working().await?;
    let settled = operator.until_quiet(size, limit(size)).await?.saturating_duration_since(operator.began);
    let asked = world.since(&before).await?;
    let (requests, calls) = (&asked.requests, asked.calls);
    let row = Row::seconds(size, "restart: time to ready", ready);
    run.row(aimed(row, size, Target::AtMost(10.0)));
    let row = Row::seconds(size, "restart: until every resource was looked at", settled);
    run.row(row.of(ceiling.time(size), "the ceiling's time for as many creates"));
    let count = |what: &str, count: u64| Row::new(size, what, count as f64, Unit::Requests);
    run.row(count("restart: writes to resources", requests.writes()).target(Target::Exactly(0.0)));
    run.row(count("restart: events", requests.events()).target(Target::Exactly(0.0)));
    run.row(count("restart: POSTs", calls.posts).target(Target::Exactly(0.0)));
    run.row(count("restart: PUTs", calls.puts));
    let read = requests.secrets_read().saturating_sub(OWN_SECRETS);
    run.row(count("restart: Secrets read", read).target(Target::Exactly(0.0)));
    run.row(count("restart: listings", calls.lists).target(Target::Exactly(LISTINGS as f64)));
    run.row(count("restart: Kubernetes reads (pages of lists)", requests.lists()));
    run.grows("restart until settled", size, settled.as_secs_f64());
    let memory = operator.memory()?;
    run.row(Row::new(size, "restart: resident memory at its peak", memory.peak, Unit::Megabytes));
    Ok(operator)
}

/// One Secret after another, while nothing else happens.
pub async fn change(
    run: &mut Run<'_>,
    world: &World<'_>,
    operator: &mut Operator,
    size: usize,
    ids: &HashMap<String, Uuid>,
    ceiling: Ceiling,
) -> Result<()> {
    let samples = SAMPLES.min(size);
    run.say(format!("one changed Secret, {samples} times"));
    let mut took = Vec::new();
    for sample in 0..samples {
        let names = Names::of(sample * size / samples);
        took.push(until_remote(world, &names, ids, 1).await?);
    }
    for (what, percent) in [("p50", 50), ("p99", 99)] {
        let time = percentile(&took, percent).unwrap_or_default();
        let row = Row::seconds(size, format!("one changed Secret until it is at Toolzz, {what}"), time);
        run.row(row.of(ceiling.alone.as_secs_f64(), "a create from a bare loader"));
    }
    operator.until_quiet(0, limit(size)).await?;
    Ok(())
}

/// Changes the Secret of a resource; how long it takes until its credential at Toolzz uses the new material.
pub async fn until_remote(
    world: &World<'_>,
    names: &Names,
    ids: &HashMap<String, Uuid>,
    round: usize,
) -> Result<Duration> {
    let unknown = || Error::Wrong(format!("{} has no credential", names.name));
    let id = *ids.get(&names.name).ok_or_else(unknown)?;
    let secret = move |state: &toolzz_simulator::State| state.credential(id).map(|credential| credential.row.secret_id);
    let before = world.simulator.read(secret);
    let begun = Instant::now();
    names.rotate(&world.admin, round).await?;
    let changed = world.simulator.until(move |state| secret(state) != before);
    // What takes longer than that is a figure, and no error.
    let _ = within("changed key material is at Toolzz", PATIENCE, changed).await;
    Ok(begun.elapsed())
}

/// Every credential is compared with Toolzz once. The interval is shorter than by default, so as not to wait for it;
/// what a pass costs does not depend on it.
pub async fn drift(
    run: &mut Run<'_>,
    world: &World<'_>,
    operator: Operator,
    size: usize,
    ceiling: Ceiling,
) -> Result<Operator> {
    let interval = A_MINUTE.max(Duration::from_millis(2) * u32::try_from(size).unwrap_or(u32::MAX));
    run.say(format!("a drift pass, after {} s", interval.as_secs()));
    operator.end().await?;
    let seconds = format!("{}s", interval.as_secs());
    let mut operator = world.operator(&[UNLIMITED, ("--resync-interval", seconds.as_str())])?;
    operator.until_working().await?;
    operator.until_quiet(size, limit(size)).await?;
    let (before, passes) = (world.counts().await?, operator.metrics().await?.passes());
    until("a drift pass begins", interval * 2, LOOK, async || {
        Ok((world.calls().lists > before.calls.lists).then_some(()))
    })
    .await?;
    let (begun, used) = (Instant::now(), operator.cpu()?);
    until("a drift pass ends", interval * 2, LOOK, async || {
        Ok((operator.metrics().await?.passes() >= passes + size as f64).then_some(()))
    })
    .await?;
    let (took, used) = (begun.elapsed(), operator.cpu()?.saturating_sub(used));
    let asked = world.since(&before).await?;
    let count = |what: &str, count: u64| Row::new(size, what, count as f64, Unit::Requests);
    run.row(count("drift pass: listings", asked.calls.lists).target(Target::Exactly(LISTINGS as f64)));
    run.row(count("drift pass: other calls of Toolzz", asked.calls.all - asked.calls.lists));
    run.row(count("drift pass: writes to resources", asked.requests.writes()).target(Target::Exactly(0.0)));
    run.row(count("drift pass: events", asked.requests.events()).target(Target::Exactly(0.0)));
    run.row(count("drift pass: Secrets read", asked.requests.secrets_read()));
    let row = Row::seconds(size, "drift pass: a core's time", used);
    run.row(row.of(ceiling.time(size), "the ceiling's time for as many creates"));
    run.row(Row::seconds(size, "drift pass: from the first listing to the last resource (spread on purpose)", took));
    run.grows("drift pass, a core's time", size, used.as_secs_f64());
    operator.end().await?;
    let mut operator = world.operator(&[UNLIMITED])?;
    operator.until_working().await?;
    operator.until_quiet(size, limit(size)).await?;
    Ok(operator)
}
