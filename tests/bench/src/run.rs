//! One run of the benchmark: what is wanted of it, what came of it so far, and where to tell.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    figures::{Report, Row, Target},
    operator::Programs,
    world::World,
};

/// Up to this many resources the targets hold that name a number of them.
const TARGET_SIZE: usize = 10_000;

/// One run.
pub struct Run<'a> {
    pub programs: &'a Programs,
    pub http: reqwest::Client,
    pub report: Report,
    /// The parts that are wanted; empty: all.
    pub only: Vec<Part>,
    pub begun: Instant,
    /// Where the figures are kept that there are so far.
    pub kept: PathBuf,
    /// What failed first.
    pub failed: Option<Error>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Size of the program, time from exec to ready
    Start,
    /// Everything is created, without a limit of requests per second
    Cold,
    /// The same with every flag as the chart sets it, at the smallest size
    Shipped,
    /// Memory and processor time while nothing happens
    Rest,
    /// A restart with everything settled
    Restart,
    /// One Secret changes, with everything settled
    Change,
    /// A comparison of everything with Toolzz
    Drift,
    /// Every Secret changes
    Rotation,
    /// Memory with many Secrets that nobody refers to
    Unrelated,
    /// Changes, edits and new resources while as many again are being created
    Backlog,
    /// Everything is deleted
    Deletion,
    /// Several operators: one is killed or ends
    Takeover,
    /// Three operators share the namespaces, at the smallest size
    Shards,
    /// One tenant's trouble, and another's first create
    Fairness,
    /// Time of a decision, from criterion's files
    Plan,
}

impl Part {
    /// Those that want everything created first.
    pub const SETTLED: [Self; 9] = [
        Self::Cold,
        Self::Rest,
        Self::Restart,
        Self::Change,
        Self::Drift,
        Self::Rotation,
        Self::Unrelated,
        Self::Backlog,
        Self::Deletion,
    ];
}

impl<'a> Run<'a> {
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Tells what is going on, and when.
    pub fn say(&self, text: impl AsRef<str>) {
        let seconds = self.begun.elapsed().as_secs();
        // A closed standard error leaves nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{:>3}:{:02} {}", seconds / 60, seconds % 60, text.as_ref());
    }

    /// Keeps a figure, whatever comes after.
    pub fn row(&mut self, row: Row) {
        self.say(format!("  {}", row.told()));
        self.report.rows.push(row);
        let kept = serde_json::to_string_pretty(&self.report).map_err(Error::from);
        if let Err(error) = kept.and_then(|text| fs::write(&self.kept, text).map_err(Error::file(&self.kept))) {
            self.say(format!("the figures are not kept: {error}"));
        }
    }

    /// Tells at once what failed. What one part is too much for is no reason to leave the others out.
    pub fn part(&mut self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.say(format!("FAILED: {error}"));
            self.failed.get_or_insert(error);
        }
    }

    /// Keeps a figure for the plot.
    pub fn grows(&mut self, line: &'static str, size: usize, value: f64) {
        self.report.growth.entry(line).or_default().push((size, value));
    }

    pub async fn world(&self) -> Result<World<'a>> {
        self.world_with(&[]).await
    }

    /// With these values of the chart.
    pub async fn world_with(&self, values: &[String]) -> Result<World<'a>> {
        self.say("starting a control plane");
        World::start(self.programs, &self.http, values).await
    }

    /// Makes so many resources and Secrets.
    pub async fn fill(&self, world: &mut World<'_>, more: usize) -> Result<()> {
        let took = world.fill(more).await?;
        self.say(format!("{more} more resources and Secrets, made in {:.0} s", took.as_secs_f64()));
        Ok(())
    }
}

/// With a target that holds up to 10,000 resources.
pub fn aimed(row: Row, size: usize, target: Target) -> Row {
    if size <= TARGET_SIZE { row.target(target) } else { row }
}

/// What this runs on, in a line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory: f64 = after(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    format!(
        "{cores} cores ({}), {:.0} GB of memory, Linux {}, load {} at the start",
        after(&read("/proc/cpuinfo"), "model name"),
        memory * 1024.0 / 1e9,
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let machine = machine();
        assert!(machine.contains("cores (") && machine.contains("Linux ") && !machine.contains(" 0 GB"), "{machine}");
    }
}
