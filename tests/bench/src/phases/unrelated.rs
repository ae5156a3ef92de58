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
            let secret = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": named(number)},
                "stringData": {"value": value},
            });
            admin.create(&secrets(NAMESPACE), &secret).await
        }
    };
    each(0..count, IN_FLIGHT, create).await?;
    tokio::time::sleep(PAUSE).await;
    let came = operator.memory()?;
    let (operator, ready) = anew(world, operator, size).await?;
    let there = operator.memory()?;
    let them = format!("{} unrelated Secrets", grouped(count));
    let row =
        |what: String, with, without| Row::new(size, what, with, Unit::Megabytes).of(without, "that without them");
    let at_rest = [
        (format!("resident memory at rest, while {them} came"), came.now),
        (format!("resident memory at rest, restarted with {them}"), there.now),
    ];
    for (what, with) in at_rest {
        run.row(aimed(row(what, with, without.now), size, Target::AtMost(without.now * MOST)));
    }
    let what = format!("resident memory at the peak of that start, with {them}");
    run.row(row(what, there.peak, without.peak));
    run.row(Row::seconds(size, format!("restart with {them}: time to ready"), ready));
    // What is measured after that is measured without them at the other sizes, too.
    run.say("the unrelated Secrets go");
    let admin = world.admin.clone();
    let delete = move |number| {
        let admin = admin.clone();
        async move { admin.delete(&path(number)).await }
    };
    each(0..count, IN_FLIGHT, delete).await?;
    Ok(operator)
}

fn named(number: usize) -> String {
    format!("unrelated-{number:06}")
}

fn path(number: usize) -> String {
    format!("{}/{}", secrets(NAMESPACE), named(number))
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
