//! Many Secrets in the cluster that no resource refers to.

use std::time::Duration;

use serde_json::json;

use crate::{
    error::Result,
    figures::{Row, Target, Unit, grouped},
    kubernetes::secrets,
    load::{IN_FLIGHT, each, limit},
    operator::Operator,
    run::{Run, aimed},
    world::{UNLIMITED, World},
};

const NAMESPACE: &str = "unrelated";
/// Of the value of each.
const BYTES: usize = 10_000;
/// For what was allocated to be given back.
const PAUSE: Duration = Duration::from_secs(10);
/// How much more memory may be used for them.
const MOST: f64 = 1.1;

pub async fn unrelated(
    run: &mut Run<'_>,
    world: &World<'_>,
    operator: Operator,
    size: usize,
    count: usize,
) -> Result<Operator> {
    run.say(format!("{} unrelated Secrets of {} kB", grouped(count), BYTES / 1000));
    let (operator, _) = anew(world, operator, size).await?;
    let without = operator.memory()?;
    world.admin.create_namespace(NAMESPACE).await?;
    let (admin, value) = (world.admin.clone(), "x".repeat(BYTES));
    let create = move |number| {
        let (admin, value) = (admin.clone(), value.clone());
        async move {
            let name = format!("unrelated-{number:06}");
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"value": value},
            });
            admin.create(&secrets(NAMESPACE), &secret).await
        }
    };
    each(0..count, IN_FLIGHT, create).await?;
    tokio::time::sleep(PAUSE).await;
    let came = operator.memory()?;
    let (operator, ready) = anew(world, operator, size).await?;
    let there = operator.memory()?;
    let secrets = grouped(count);
    let rows = [
        (format!("resident memory at rest, while {secrets} unrelated Secrets came"), came.now, without.now),
        (format!("resident memory at rest, restarted with {secrets} unrelated Secrets"), there.now, without.now),
        (
            format!("resident memory at the peak of that start, with {secrets} unrelated Secrets"),
            there.peak,
            without.peak,
        ),
    ];
    for (what, with, without) in rows {
        let row = Row::new(size, what, with, Unit::Megabytes).of(without, "that without them");
        run.row(aimed(row, size, Target::AtMost(without * MOST)));
    }
    run.row(Row::seconds(size, format!("restart with {secrets} unrelated Secrets: time to ready"), ready));
    Ok(operator)
}

/// Restarts the operator, and lets it come to rest; how long it took to be ready.
async fn anew(world: &World<'_>, operator: Operator, size: usize) -> Result<(Operator, Duration)> {
    operator.end().await?;
    let mut operator = world.operator(&[UNLIMITED])?;
    let ready = operator.until_working().await?;
    operator.until_quiet(size, limit(size)).await?;
    tokio::time::sleep(PAUSE).await;
    Ok((operator, ready))
}
