//! Several operators: how soon one's work is another's, and what three of them do together.

use std::time::{Duration, Instant};

use crate::{
    ceiling::Ceiling,
    error::Result,
    figures::{Row, Unit, percentile},
    load::{LOOK, limit, until},
    operator::Operator,
    run::Run,
    world::{SEVERAL, UNLIMITED, World},
};

const TIMES: usize = 3;
/// For shards to be shared evenly.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the chart sets.
const LEASE: f64 = 15.0;

/// How the one that leads ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// SIGKILL: the others wait for the whole lease.
    Killed,
    /// SIGTERM: it gives the lease up.
    Ended,
}

impl End {
    const ALL: [Self; 2] = [Self::Killed, Self::Ended];

    async fn of(self, operator: Operator) -> Result<()> {
        if self == Self::Ended {
            return operator.end().await;
        }
        drop(operator);
        Ok(())
    }

    fn told(self) -> &'static str {
        match self {
            Self::Killed => "is killed",
            Self::Ended => "ends",
        }
    }
}

/// One stands by, and leads when the other is gone; and one alone is killed, and another started at once.
pub async fn takeover(run: &mut Run<'_>) -> Result<()> {
    let world = run.world().await?;
    run.say("takeovers");
    let mut leader = world.operator(&[])?;
    leader.until_working().await?;
    for end in End::ALL {
        let mut took = Vec::new();
        for _ in 0..TIMES {
            let mut next = world.operator(&[])?;
            next.until_ready().await?;
            let since = Instant::now();
            end.of(std::mem::replace(&mut leader, next)).await?;
            leader.until_working().await?;
            took.push(since.elapsed());
        }
        told(run, None, &format!("the leader {}, until another leads", end.told()), &took);
    }
    let since = Instant::now();
    drop(leader);
    let mut next = world.operator(&[])?;
    next.until_working().await?;
    told(run, None, "the only one is killed and started again, until it leads", &[since.elapsed()]);
    next.end().await
}

fn told(run: &mut Run<'_>, size: Option<usize>, what: &str, took: &[Duration]) {
    let longest = percentile(took, 100).unwrap_or_default();
    let what = format!("{what}, the longest of {}", took.len());
    run.row(Row::seconds(size, what, longest).of(LEASE, "leaseDuration"));
}

/// Three share the namespaces of as many shards; then one after the other goes.
pub async fn shards(run: &mut Run<'_>, size: usize, ceiling: Ceiling) -> Result<()> {
    let mut world = run.world_with(&[format!("sharding.shards={SEVERAL}"), format!("replicas={SEVERAL}")]).await?;
    run.say(format!("{size} resources, made while {SEVERAL} operators have a shard each"));
    let mut all: Vec<Operator> = Vec::new();
    for _ in 0..SEVERAL {
        all.push(world.operator(&[UNLIMITED])?);
    }
    until_shared(&mut all).await?;
    let since = Instant::now();
    run.fill(&mut world, size).await?;
    until_good(&world, &mut all).await?;
    let rate = size as f64 / since.elapsed().as_secs_f64();
    world.verify().await?;
    let what = format!("{SEVERAL} shards: created as they are made, --rate-limit=0");
    run.row(Row::new(size, what, rate, Unit::PerSecond).of(ceiling.rate, "the ceiling"));
    let memories = all.iter().map(|one| Ok(one.memory()?.now)).collect::<Result<Vec<f64>>>()?;
    let most = memories.into_iter().fold(0.0, f64::max);
    run.row(Row::new(size, format!("{SEVERAL} shards: resident memory of the largest"), most, Unit::Megabytes));
    for end in End::ALL {
        let since = Instant::now();
        end.of(all.remove(0)).await?;
        until_good(&world, &mut all).await?;
        let what = format!("{SEVERAL} shards: one {}, until its resources are another's", end.told());
        told(run, Some(size), &what, &[since.elapsed()]);
        until_shared(&mut all).await?;
    }
    world.verify().await?;
    for one in all {
        one.end().await?;
    }
    Ok(())
}

/// Waits until every shard is worked on, by as many operators as there are.
async fn until_shared(all: &mut [Operator]) -> Result<()> {
    until("the shards are shared", PATIENCE, LOOK, async || {
        let mut shards = Vec::new();
        for one in &mut *all {
            shards.push(one.metrics().await?.shards());
        }
        let sum: f64 = shards.iter().sum();
        Ok((sum == SEVERAL as f64 && !shards.contains(&0.0)).then_some(()))
    })
    .await
}

/// Waits until every resource is as it should be, by the word of who works on it.
async fn until_good(world: &World<'_>, all: &mut [Operator]) -> Result<()> {
    until("all resources are as they should be", limit(world.count), LOOK, async || {
        let mut good = 0.0;
        for one in &mut *all {
            good += one.metrics().await?.good();
        }
        Ok((good >= world.count as f64).then_some(()))
    })
    .await
}
