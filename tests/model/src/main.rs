//! Explores the model and tells what came of it.

use std::{io::Write as _, process::ExitCode};

use clap::Parser;
use model_check::{bounds::Bounds, bugs::Bug, explore};

/// Explores every order of events of operators that decide by the operator's own planner.
///
/// Each configuration is explored exhaustively within its bounds: crashes, lost and late requests, stale caches and
/// listings, rotations, a deletion; where that is more than so many states, it says so and fails. In every state, nothing may be active
/// that is not recorded; from every state, the world must settle when nothing more goes wrong. Then bugs are planted into the
/// model, and each must be found. Ends with 1 if something is wrong.
#[derive(Parser)]
struct Arguments {
    /// The small configurations only: seconds instead of minutes.
    #[arg(long)]
    quick: bool,
    /// Only tells the configurations and their bounds.
    #[arg(long)]
    list: bool,
    /// Only configurations whose names contain this.
    only: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<bool> {
    let mut out = std::io::stdout().lock();
    let chosen = |bounds: &Bounds| arguments.only.as_ref().is_none_or(|only| bounds.name.contains(only.as_str()));
    let mut all = Bounds::quick();
    if !arguments.quick {
        all.extend(Bounds::large());
    }
    let all: Vec<Bounds> = all.into_iter().filter(chosen).collect();
    let (mut states, mut violations, mut outlived, mut cut) = (0, 0, 0, 0);
    let begun = std::time::Instant::now();
    if arguments.list {
        all.iter().try_for_each(|bounds| writeln!(out, "{}: {bounds}", bounds.name))?;
        return Ok(true);
    }
    for bounds in &all {
        let report = explore(bounds);
        states += report.states;
        outlived += report.outlived;
        cut += usize::from(!report.exhausted);
        let seconds = report.took.as_secs_f64();
        writeln!(out, "{}: {bounds}", bounds.name)?;
        writeln!(
            out,
            "  {} states ({} generated), depth {}, {seconds:.1} s, {}; in {} of them something outlived its record",
            report.states,
            report.generated,
            report.depth,
            if report.exhausted { "exhausted" } else { "NOT EXHAUSTED" },
            report.outlived,
        )?;
        if let Some((what, trace)) = report.wrong {
            violations += 1;
            writeln!(out, "  WRONG: {what}\n    {}", trace.join("\n    "))?;
        }
        out.flush()?;
    }
    let mut found = 0;
    for bug in Bug::ALL {
        let report = explore(&Bounds::of_bug(bug));
        found += usize::from(report.wrong.is_some());
        let fate = report.wrong.map_or_else(
            || "NOT FOUND".to_owned(),
            |(what, trace)| format!("found after {} events: {what}", trace.len()),
        );
        writeln!(out, "bug: {}: {fate}", bug.name())?;
    }
    let figure = format!(
        "{states} states of {} configurations in {} s, {} explored exhaustively: {violations} violations; {outlived} states in which something outlived its record; {found} of {} bugs planted in the model found",
        all.len(),
        begun.elapsed().as_secs(),
        all.len() - cut,
        Bug::ALL.len()
    );
    writeln!(out, "{figure}")?;
    if let Some(directory) = std::env::var_os("TOOLZZ_PROOF") {
        std::fs::write(std::path::Path::new(&directory).join("model"), &figure)?;
    }
    Ok(violations + cut == 0 && found == Bug::ALL.len())
}
