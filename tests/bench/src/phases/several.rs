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
    let mut world = run.world().await?;
    run.fill(&mut world, size).await?;
    run.say(format!("cold with {SEVERAL} shards, {size} resources"));
    let count = SEVERAL.to_string();
    let mut all: Vec<Operator> = Vec::new();
    for _ in 0..SEVERAL {
        all.push(world.operator(&[UNLIMITED, ("--shards", count.as_str())])?);
    }
    until_all(&world, &mut all, limit(size)).await?;
    let rate = size as f64 / all[0].began.elapsed().as_secs_f64();
    world.verify().await?;
    let row = Row::new(size, format!("cold convergence, {SEVERAL} shards, --rate-limit=0"), rate, Unit::PerSecond);
    run.row(row.of(ceiling.rate, "the ceiling"));
    let memories = all.iter().map(|one| Ok(one.memory()?.now)).collect::<Result<Vec<f64>>>()?;
    let most = memories.into_iter().fold(0.0, f64::max);
    run.row(Row::new(size, format!("{SEVERAL} shards: resident memory of the largest"), most, Unit::Megabytes));
    for end in End::ALL {
        let since = Instant::now();
        end.of(all.remove(0)).await?;
        until_all(&world, &mut all, limit(size)).await?;
        told(
            run,
            Some(size),
            &format!("{SEVERAL} shards: one {}, until all are worked on", end.told()),
            &[since.elapsed()],
        );
    }
    world.verify().await?;
    for one in all {
        one.end().await?;
    }
    Ok(())
}

/// Waits until every shard is worked on, and every resource is as it should be.
async fn until_all(world: &World<'_>, all: &mut [Operator], limit: Duration) -> Result<()> {
    until("all shards are worked on", limit, LOOK, async || {
        let (mut shards, mut good) = (0.0, 0.0);
        for one in &mut *all {
            let metrics = one.metrics().await?;
            shards += metrics.shards();
            good += metrics.good();
        }
        Ok((shards >= SEVERAL as f64 && good >= world.count as f64).then_some(()))
    })
    .await
}
