//! One tenant has thousands of resources in trouble; another creates its first.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolzz_simulator::{Fault, Operation, Simulator, Times};

use crate::{
    error::Result,
    figures::{Row, Target, Unit, grouped, percentile},
    kubernetes::{connections, credentials, secrets},
    load::{IN_FLIGHT, each, within},
    run::Run,
    world::{Names, World},
};

const CROWD: &str = "crowd";
const OTHER: &str = "other";
/// How many the other tenant creates, one after another.
const SAMPLES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// For one of them; the figure then says that it was as long as that.
const PATIENCE: Duration = Duration::from_secs(60);
const AIM: f64 = 2.0;

/// What is the matter with the resources of the crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Their Secrets do not exist.
    Broken,
    /// Their own Toolzz answers 429.
    Throttled,
    /// Their own Toolzz takes long for every answer.
    Slow,
    /// None: they are created through the same connection, within its limit of requests per second.
    Busy,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Broken, Self::Throttled, Self::Slow, Self::Busy];

    fn told(self) -> &'static str {
        match self {
            Self::Broken => "lack their Secrets",
            Self::Throttled => "are throttled (429) by their own Toolzz",
            Self::Slow => "have a Toolzz that takes 20 s to answer",
            Self::Busy => "are being created through the same connection",
        }
    }

    fn fault(self) -> Option<Fault> {
        match self {
            Self::Throttled => Some(Fault::retry_after_seconds(429, 1)),
            Self::Slow => Some(Fault::slow(20_000)),
            Self::Broken | Self::Busy => None,
        }
    }
}

pub async fn fairness(run: &mut Run<'_>, size: usize) {
    for trouble in Trouble::ALL {
        let outcome = beside(run, trouble, size).await.map(|waited| told(run, trouble, size, &waited));
        run.part(outcome);
    }
}

fn told(run: &mut Run<'_>, trouble: Trouble, size: usize, waited: &[Duration]) {
    let what = format!("another tenant's create, while {} of one tenant {}", grouped(size), trouble.told());
    for (name, percent) in [("p50", 50), ("the longest", 100)] {
        let time = percentile(waited, percent).unwrap_or_default();
        let row = Row::new(size, format!("{what}: {name}"), time.as_secs_f64(), Unit::Seconds);
        run.row(if percent == 100 { row.target(Target::AtMost(AIM)) } else { row });
    }
}

async fn beside(run: &Run<'_>, trouble: Trouble, size: usize) -> Result<Vec<Duration>> {
    let world = run.world().await?;
    run.say(format!("{size} resources that {}", trouble.told()));
    for namespace in [CROWD, OTHER] {
        world.admin.create_namespace(namespace).await?;
    }
    // Of their own, and gone when this is over.
    let mut theirs = None;
    let mut connection = Value::Null;
    if let Some(fault) = trouble.fault() {
        let simulator = Simulator::builder().journal_limit(1000).start()?;
        for operation in [Operation::Create, Operation::Update, Operation::List, Operation::Catalogue] {
            simulator.fault(operation, Times::Always, fault.clone());
        }
        connect(&world, &simulator.url()).await?;
        connection = json!({"kind": "ToolzzConnection", "name": "own"});
        theirs = Some(simulator);
    }
    let admin = world.admin.clone();
    let create = move |number| {
        let (admin, connection) = (admin.clone(), connection.clone());
        async move {
            let names = Names { namespace: CROWD.to_owned(), ..Names::of(number) };
            let mut manifest = names.manifest();
            if !connection.is_null() {
                manifest["spec"]["connectionRef"] = connection;
            }
            if trouble != Trouble::Broken {
                admin.create(&secrets(CROWD), &names.secret()).await?;
            }
            admin.create(&credentials(CROWD), &manifest).await
        }
    };
    each(0..size, IN_FLIGHT, create).await?;
    let mut operator = world.operator(&[("--allowed-hosts", "127.0.0.1")])?;
    operator.until_working().await?;
    // The crowd is in trouble: what it is asked is another simulator's to count, or nobody's.
    match &theirs {
        Some(theirs) => {
            let asked = theirs.until(|state| state.counts(Operation::List).received > 0);
            within("the crowd's Toolzz is asked", PATIENCE, asked).await?;
        }
        None if trouble == Trouble::Broken => operator.until_reason("SecretNotFound", 1, PATIENCE).await?,
        None => {
            let created = world.simulator.until(|state| state.counts(Operation::Create).committed > 0);
            within("the crowd's first create", PATIENCE, created).await?;
        }
    }
    let mut waited = Vec::new();
    for number in 0..SAMPLES {
        let name = format!("other-{number}");
        let names = Names { namespace: OTHER.to_owned(), name: name.clone(), ..Names::of(number) };
        let begun = Instant::now();
        names.create(&world.admin).await?;
        let there = world.simulator.until(|state| state.max_simultaneously_active(&name) > 0);
        // What does not come in time is a figure, and no error.
        let _ = within("another tenant's create", PATIENCE, there).await;
        waited.push(begun.elapsed());
        // Twice is enough to know: the rest would take as long.
        if waited.iter().filter(|waited| **waited >= PATIENCE).count() == 2 {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    // Who waits for its answer is not waited for.
    drop(theirs);
    operator.end().await?;
    Ok(waited)
}

/// Gives the crowd a connection of its own.
async fn connect(world: &World<'_>, url: &str) -> Result<()> {
    let token = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"},
        "stringData": {"token": toolzz_simulator::DEFAULT_TOKEN},
    });
    world.admin.create(&secrets(CROWD), &token).await?;
    let connection = json!({
        "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzConnection", "metadata": {"name": "own"},
        "spec": {"url": url, "tokenSecretRef": {"name": "token", "key": "token"}},
    });
    world.admin.create(&connections(CROWD), &connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_at_a_toolzz_of_their_own() {
        for trouble in Trouble::ALL {
            assert_eq!(trouble.fault().is_some(), trouble.told().contains("Toolzz"), "{trouble:?}");
        }
    }
}
