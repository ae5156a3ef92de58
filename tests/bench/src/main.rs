//! `bench`: measures the operator against what the API server and Toolzz give a bare loader.
//!
//! Everything is started here and on loopback: a control plane for each measurement, a simulated Toolzz, and the
//! release build of the operator, started as the chart's pod would start it. Run by `make bench`.

mod ceiling;
mod error;
mod figures;
mod kubernetes;
mod load;
mod operator;
mod phases;
mod plot;
mod requests;
mod run;
mod world;

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, builder::RangedU64ValueParser};

use error::{Error, Result};
use figures::{Growth, Report};
use operator::Programs;
use plot::Panel;
use run::{Part, Run};

/// Up to this size there are unrelated Secrets beside the resources.
const UNRELATED_SIZE: usize = 10_000;
const UNRELATED: usize = 50_000;
const CROWD: usize = 5_000;
/// For one answer over HTTP.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the operator, and prints a table: what was aimed at, what came of it, and how that is beside the ceiling.
///
/// The ceiling is what a bare loader gets of the same API server and the same simulated Toolzz, in the same run. A
/// target that is missed is a figure and no failure.
#[derive(Parser)]
struct Arguments {
    /// How many resources, separated by commas; 100000 takes hours
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    sizes: Vec<usize>,
    /// These parts only, separated by commas; those that need them are preceded by the ceiling and `cold`
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// How many Secrets there are that nobody refers to, of 10 kB each
    #[arg(long, default_value_t = UNRELATED)]
    unrelated: usize,
    /// How many resources of one tenant are in trouble
    #[arg(long, default_value_t = CROWD)]
    crowd: usize,
    /// Where the figures go, as report.json; when everything was measured, also what is to be put into the documentation
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Where criterion left its files
    #[arg(long, value_name = "DIR", default_value = "target/criterion")]
    criterion: PathBuf,
    /// An image of the operator, as an archive, for its size
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(bench(&arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench(arguments: &Arguments) -> Result<()> {
    let out = &arguments.out;
    fs::create_dir_all(out).map_err(Error::file(out))?;
    let programs = Programs::find(out.clone())?;
    let report = Report {
        machine: run::machine(),
        command: command(arguments),
        began: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        rows: Vec::new(),
        growth: Growth::new(),
    };
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let (only, begun) = (arguments.only.clone(), Instant::now());
    let mut run = Run { programs: &programs, http, report, only, begun, kept: out.join("report.json"), failed: None };
    run.say(&run.report.machine);
    measure(&mut run, arguments).await;

    for row in figures::growth(&run.report.growth) {
        run.row(row);
    }
    let Run { report, failed, .. } = run;
    let (targets, met) = report.targets();
    writeln!(io::stdout().lock(), "{}\n{met} of {targets} targets are met", report.table())?;
    if let Some(error) = failed {
        return Err(error);
    }
    if arguments.only.is_empty() {
        let write = |name: &str, text: String| {
            let path = out.join(name);
            fs::write(&path, text).map_err(Error::file(path))
        };
        write("performance.md", report.page())?;
        write("performance.svg", plot::svg(&panels(&report)))?;
    }
    Ok(())
}

async fn measure(run: &mut Run<'_>, arguments: &Arguments) {
    if run.wants(Part::Start) {
        let outcome = phases::start(run, arguments.image.as_deref()).await;
        run.part(outcome);
    }
    if run.wants(Part::Plan) {
        let outcome = phases::plan(run, &arguments.criterion);
        run.part(outcome);
    }
    let mut sizes = arguments.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let beside = sizes.iter().copied().filter(|size| *size <= UNRELATED_SIZE).max().or(sizes.first().copied());
    for (index, size) in sizes.into_iter().enumerate() {
        let unrelated = (Some(size) == beside).then_some(arguments.unrelated);
        let outcome = phases::of_size(run, size, index == 0, unrelated).await;
        run.part(outcome);
    }
    if run.wants(Part::Takeover) {
        let outcome = phases::takeover(run).await;
        run.part(outcome);
    }
    if run.wants(Part::Fairness) {
        phases::fairness(run, arguments.crowd).await;
    }
}

/// How to have the same again.
fn command(arguments: &Arguments) -> String {
    let sizes: Vec<String> = arguments.sizes.iter().map(ToString::to_string).collect();
    let mut command = format!("make bench SIZES={}", sizes.join(","));
    for (name, value, default) in [("unrelated", arguments.unrelated, UNRELATED), ("crowd", arguments.crowd, CROWD)] {
        if value != default {
            command += &format!(" with --{name}={value}");
        }
    }
    command
}

/// Time and memory, each on a scale of its own.
fn panels(report: &Report) -> [Panel<'_>; 2] {
    let (memory, time) = report
        .growth
        .iter()
        .map(|(line, points)| (*line, points.as_slice()))
        .partition(|(line, _)| line.starts_with("memory"));
    [Panel { title: "Seconds, by resources", series: time }, Panel { title: "MB, by resources", series: memory }]
}
