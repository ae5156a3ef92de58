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
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;

use error::{Error, Result};
use figures::Report;
use operator::Programs;
use plot::Panel;
use run::{Part, Run};

/// Up to this size there are unrelated Secrets beside the resources.
const UNRELATED_SIZE: usize = 10_000;
/// For one answer over HTTP.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures the operator, and prints a table: what was aimed at, what came of it, and how that is beside the ceiling.
///
/// The ceiling is what a bare loader gets of the same API server and the same simulated Toolzz, in the same run. A
/// target that is missed is a figure and no failure, unless --strict says so.
#[derive(Parser)]
struct Arguments {
    /// How many resources, separated by commas; 100000 takes hours
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    sizes: Vec<usize>,
    /// These parts only, separated by commas; most rest on `cold`, which is done in any case then
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// How many Secrets there are that nobody refers to, of 10 kB each
    #[arg(long, default_value_t = 50_000)]
    unrelated: usize,
    /// How many resources of one tenant are in trouble
    #[arg(long, default_value_t = 5_000)]
    crowd: usize,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table between the markers of this page, and the plot beside it; only when everything was measured
    #[arg(long, value_name = "FILE", conflicts_with = "only")]
    docs: Option<PathBuf>,
    /// Where criterion left its files
    #[arg(long, value_name = "DIR")]
    criterion: Option<PathBuf>,
    /// An image of the operator, as an archive, for its size
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// End with 1 if a target is missed
    #[arg(long)]
    strict: bool,
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
        Ok(missed) if arguments.strict && missed > 0 => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many targets were missed.
async fn bench(arguments: &Arguments) -> Result<usize> {
    let programs = Programs::find()?;
    let report = Report {
        machine: run::machine(),
        command: command(&arguments.sizes),
        began: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        rows: Vec::new(),
        growth: BTreeMap::new(),
    };
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let mut run = Run { programs: &programs, http, report, only: arguments.only.clone(), begun: Instant::now() };
    run.say(&run.report.machine);
    measure(&mut run, arguments).await?;

    let report = run.report;
    let (targets, met) = report.targets();
    writeln!(io::stdout().lock(), "{}\n{met} of {targets} targets are met", report.table())?;
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?).map_err(Error::file(path))?;
    }
    if let Some(page) = &arguments.docs {
        write_docs(page, &report)?;
    }
    Ok(targets - met)
}

async fn measure(run: &mut Run<'_>, arguments: &Arguments) -> Result<()> {
    if run.wants(Part::Start) {
        phases::start(run, arguments.image.as_deref()).await?;
    }
    if let Some(criterion) = arguments.criterion.as_deref().filter(|_| run.wants(Part::Plan)) {
        phases::plan(run, criterion)?;
    }
    let mut sizes = arguments.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    let largest = sizes.iter().copied().filter(|size| *size <= UNRELATED_SIZE).max();
    for (index, size) in sizes.into_iter().enumerate() {
        let unrelated = (Some(size) == largest).then_some(arguments.unrelated);
        phases::of_size(run, size, index == 0, unrelated).await?;
    }
    if run.wants(Part::Fairness) {
        phases::fairness(run, arguments.crowd).await?;
    }
    Ok(())
}

/// How to have the same again.
fn command(sizes: &[usize]) -> String {
    let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    format!("make bench ARGS=\"--sizes {}\"", sizes.join(","))
}

fn write_docs(page: &Path, report: &Report) -> Result<()> {
    let plot = page.with_extension("svg");
    let (memory, time): (Vec<_>, Vec<_>) = report
        .growth
        .iter()
        .map(|(line, points)| (*line, points.as_slice()))
        .partition(|(line, _)| line.starts_with("memory"));
    let panels =
        [Panel { title: "Seconds, by resources", series: time }, Panel { title: "MB, by resources", series: memory }];
    fs::write(&plot, plot::svg(&panels)).map_err(Error::file(&plot))?;
    let name = plot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = format!(
        "Measured {} on {}, by `{}`.\n\n{}\n![How cost grows with the number of resources]({name})\n",
        report.began,
        report.machine,
        report.command,
        report.table()
    );
    run::put_between(page, &text)
}
