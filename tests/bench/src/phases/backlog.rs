//! A user does something while as many resources again are being created.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::json;
use toolzz_simulator::Operation;
use uuid::Uuid;

use super::settled::{PATIENCE, until_remote};
use crate::{
    ceiling::Ceiling,
    error::{Error, Result},
    figures::{Row, Target, Unit, percentile},
    load::{limit, within},
    operator::Operator,
    run::{Run, aimed},
    world::{Flags, Names, UNLIMITED, World},
};

/// Between two things of one kind that a user does.
const PAUSE: Duration = Duration::from_millis(200);
/// Under a limit of requests per second a backlog lasts long: so much of it is enough.
const ENOUGH: Duration = Duration::from_secs(90);
/// The first round of changes here: those before had others.
const ROUND: usize = 3;

/// Has no factor in common with a number of resources.
const STRIDE: usize = 7_919;
/// The longest backlog.
const MOST: usize = 10_000;

/// What a user waited for.
struct Waited {
    changed: Vec<Duration>,
    edited: Vec<Duration>,
    created: Vec<Duration>,
}

pub async fn backlog(
    run: &mut Run<'_>,
    world: &mut World<'_>,
    operator: Operator,
    size: usize,
    ids: &HashMap<String, Uuid>,
    ceiling: Ceiling,
) -> Result<Operator> {
    operator.end().await?;
    let (mut round, more) = (ROUND, size.min(MOST));
    let ways: [(&str, Flags<'_>, Duration); 2] =
        [("flags as shipped", &[], ENOUGH), ("--rate-limit=0", &[UNLIMITED], limit(more))];
    for (how, flags, enough) in ways {
        run.fill(world, more).await?;
        run.say(format!("changes, edits and new resources beside a backlog of {more}, {how}"));
        let mut operator = world.operator(flags)?;
        operator.until_working().await?;
        let waited = bother(world, more, ids, round, world.count, enough, async { Ok(()) }).await?;
        round += waited.changed.len().max(waited.edited.len());
        world.count += waited.created.len();
        told(run, size, how, &waited, ceiling);
        operator.end().await?;
        rest_of(run, world).await?.end().await?;
    }
    // The same, but they are made while it runs: nobody can tell which of them a user waits for.
    let how = "made meanwhile, flags as shipped";
    run.say(format!("changes, edits and new resources beside a backlog of {more}, {how}"));
    let mut operator = world.operator(&[])?;
    operator.until_working().await?;
    let end = world.count + more;
    let made = world.make(world.count..end);
    let waited = bother(world, more, ids, round, end, ENOUGH, made).await?;
    world.count = end + waited.created.len();
    told(run, size, how, &waited, ceiling);
    operator.end().await?;
    rest_of(run, world).await
}

/// All that waits to be created is, without a limit of requests per second.
async fn rest_of(run: &Run<'_>, world: &World<'_>) -> Result<Operator> {
    run.say("the rest of the backlog");
    let mut operator = world.operator(&[UNLIMITED])?;
    operator.until_working().await?;
    operator.until_good(world.count, limit(world.count)).await?;
    operator.until_quiet(0, limit(world.count)).await?;
    world.verify().await?;
    Ok(operator)
}

fn told(run: &mut Run<'_>, size: usize, how: &str, waited: &Waited, ceiling: Ceiling) {
    let alone = ceiling.alone.as_secs_f64();
    let kinds = [
        ("a changed Secret until it is at Toolzz", &waited.changed, None),
        ("an edited resource until Ready", &waited.edited, Some(Target::AtMost(2.0))),
        ("a new resource until Ready", &waited.created, Some(Target::AtMost(2.0))),
    ];
    for (what, times, target) in kinds {
        for (name, percent) in [("p50", 50), ("p99", 99)] {
            // There was no backlog long enough.
            let Some(time) = percentile(times, percent) else { continue };
            let what = format!("beside a backlog, {how}: {what}, {name} of {}", times.len());
            let row = Row::new(size, what, time.as_secs_f64(), Unit::Seconds).of(alone, "a create from a bare loader");
            run.row(match target {
                Some(target) if percent == 99 => aimed(row, size, target),
                _ => row,
            });
        }
    }
}

/// Does things, three of a different kind at a time, as long as there is a backlog of so many, and not for longer than is
/// enough. What is made here has numbers from `fresh` on.
async fn bother(
    world: &World<'_>,
    more: usize,
    ids: &HashMap<String, Uuid>,
    round: usize,
    fresh: usize,
    enough: Duration,
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<Waited> {
    let (begun, size) = (Instant::now(), ids.len());
    let target = world.simulator.counts(Operation::Create).committed + more as u64;
    // What is done here creates too, so it ends a little before the backlog does.
    let go_on = || {
        let created = world.simulator.counts(Operation::Create).committed;
        created < target && begun.elapsed() < enough
    };
    // Of settled resources some are changed and some are edited, in an order that is none, in all namespaces.
    let pick = |sample: usize, part: usize| Names::of((sample * STRIDE + part * size / 2) % size);
    let changes = async {
        let mut times = Vec::new();
        while go_on() {
            let names = pick(times.len(), 0);
            times.push(until_remote(world, &names, ids, round + times.len()).await?);
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<_, Error>(times)
    };
    let edits = async {
        let mut times = Vec::new();
        while go_on() {
            let names = pick(times.len(), 1);
            let patch = json!({"spec": {"name": format!("{} {}", names.name, round + times.len())}});
            let since = Instant::now();
            world.admin.patch(&names.path(), &patch).await?;
            times.push(ready(world, &names, since).await);
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<_, Error>(times)
    };
    let creates = async {
        let mut times = Vec::new();
        while go_on() {
            let names = Names::of(fresh + times.len());
            let since = Instant::now();
            names.create(&world.admin).await?;
            times.push(ready(world, &names, since).await);
            tokio::time::sleep(PAUSE).await;
        }
        Ok::<_, Error>(times)
    };
    let (changed, edited, created, ()) = tokio::try_join!(changes, edits, creates, meanwhile)?;
    Ok(Waited { changed, edited, created })
}

async fn ready(world: &World<'_>, names: &Names, since: Instant) -> Duration {
    let wait = world.admin.until_ready(&names.namespace, &names.name);
    // What takes longer than that is a figure, and no error.
    let _ = within("a resource is Ready", PATIENCE, wait).await;
    since.elapsed()
}
