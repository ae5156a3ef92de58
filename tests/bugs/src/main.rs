//! Plants bugs in a copy of the operator, one at a time, and shows that tests find them: the checks are checked.
//!
//! The bugs are in `bugs.txt`: a name, a file, what stands there, what is put in its place, and the tests that must go
//! red. Run by `make bugs`. Everything happens in `target/bugs`.

mod bugs;

use std::{
    fs, io,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bugs::Bug;
use clap::Parser;
use thiserror::Error;

/// Longer than any of the tests takes; a test that a bug makes hang has found it.
const LIMIT: Duration = Duration::from_secs(400);

/// Plants each bug in a copy of the operator and runs the tests that must find it. Ends with an error if one survives.
#[derive(Parser)]
struct Arguments {
    /// Only bugs whose names contain one of these.
    names: Vec<String>,
    /// Name the bugs and end.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Bugs(#[from] bugs::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cargo: {0}")]
    Cargo(io::Error),
    #[error("output: {0}")]
    Output(#[from] io::Error),
    #[error("the operator does not compile without any bug")]
    DoesNotCompile,
    #[error(
        "{survived} survived: each is a missing test. {broken} did not compile, or had tests that fail anyway, which shows nothing"
    )]
    NotAllKilled { survived: usize, broken: usize },
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let chosen =
        |bug: &Bug| arguments.names.is_empty() || arguments.names.iter().any(|name| bug.name.contains(name.as_str()));
    let bugs: Vec<Bug> = bugs::read()?.into_iter().filter(chosen).collect();
    let mut out = io::stdout().lock();
    if arguments.list {
        for bug in &bugs {
            writeln!(out, "{}", bug.name)?;
        }
        return Ok(());
    }
    let (target, copy) = (root.join("target/bugs"), root.join("target/bugs/copy"));
    writeln!(
        out,
        "copying the operator to {} and building it there; the first time takes some minutes",
        copy.display()
    )?;
    mirror(&root, &copy)?;
    if !cargo(&copy, &target, "build --workspace --bins")? {
        return Err(Error::DoesNotCompile);
    }
    let mut healthy: Vec<&str> = Vec::new();
    let (mut survived, mut broken) = (0, 0);
    for (number, bug) in bugs.iter().enumerate() {
        // A test that is red without the bug shows nothing.
        if !healthy.contains(&bug.test.as_str()) {
            if !cargo(&copy, &target, &format!("test {}", bug.test))? {
                broken += 1;
                writeln!(out, "{:>3}/{} BROKEN   {}: its tests fail without it", number + 1, bugs.len(), bug.name)?;
                continue;
            }
            healthy.push(&bug.test);
        }
        let path = copy.join(&bug.file);
        let whole = read(&path)?;
        write(&path, &bug.plant(&whole)?)?;
        let begun = Instant::now();
        let built = cargo(&copy, &target, &format!("test --no-run {}", bug.test))?;
        let found = built && !cargo(&copy, &target, &format!("test {}", bug.test))?;
        write(&path, &whole)?;
        let fate = match (built, found) {
            (false, _) => {
                broken += 1;
                "BROKEN  "
            }
            (true, true) => "killed  ",
            (true, false) => {
                survived += 1;
                "SURVIVED"
            }
        };
        writeln!(out, "{:>3}/{} {fate} {} ({} s)", number + 1, bugs.len(), bug.name, begun.elapsed().as_secs())?;
    }
    let figure = format!("{} killed of {}", bugs.len() - survived - broken, bugs.len());
    writeln!(out, "seeded bugs: {figure}")?;
    if let Some(directory) = std::env::var_os("TOOLZZ_PROOF") {
        write(&Path::new(&directory).join("seeded-bugs"), &figure)?;
    }
    if survived + broken == 0 { Ok(()) } else { Err(Error::NotAllKilled { survived, broken }) }
}

/// Whether cargo succeeds with these arguments, within the time for it.
fn cargo(copy: &Path, target: &Path, arguments: &str) -> Result<bool, Error> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split(' ')).current_dir(copy).env("CARGO_TARGET_DIR", target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(Error::Cargo)?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(Error::Cargo)? {
            return Ok(status.success());
        }
        if begun.elapsed() > LIMIT {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = child.wait();
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Makes the copy like the original. Files that are the same are left alone, so that nothing is built for nothing.
fn mirror(from: &Path, to: &Path) -> Result<(), Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    fs::create_dir_all(to).map_err(at(to))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        if entry.file_type().map_err(at(&source))?.is_dir() {
            mirror(&source, &copy)?;
        } else if fs::read(&copy).ok() != fs::read(&source).ok() {
            fs::copy(&source, &copy).map_err(at(&copy))?;
        }
        names.push(name);
    }
    for entry in fs::read_dir(to).map_err(at(to))? {
        let entry = entry.map_err(at(to))?;
        if !names.contains(&entry.file_name()) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(at(&path))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}
