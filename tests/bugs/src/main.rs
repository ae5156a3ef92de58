//! Plants bugs in a copy of the operator, one at a time, and shows that tests find them: the checks are checked.
//!
//! The bugs are in `bugs.txt`: a name, a file, what stands there, what is put in its place, and the tests that must go
//! red. Run by `make bugs`. Everything happens in `target/bugs`.
//!
//! A bug is killed by a test that fails, and fails again when it alone is run. Whatever else goes wrong, such as a bug that
//! does not compile or tests that do not end, shows nothing.
//!
//! With `TOOLZZ_PROOF`, a directory, each kill is kept there and not shown again while nothing changes that it rests on.

mod bugs;
mod kept;

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
use kept::Kept;
use thiserror::Error;

/// Longer than any of the tests takes.
const LIMIT: Duration = Duration::from_secs(400);
/// Longer than it takes to build everything.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

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
        "{survived} survived: each is a missing test. {broken} showed nothing: they did not compile, or had tests that fail anyway, do not end or fail once"
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
    if !matches!(cargo(&copy, &target, "build --workspace --bins", BUILD_LIMIT)?, Ended::Well) {
        return Err(Error::DoesNotCompile);
    }
    let proof = std::env::var_os("TOOLZZ_PROOF").map(PathBuf::from);
    let mut kept = Kept::read(proof.as_deref(), &copy)?;
    let mut healthy: Vec<&str> = Vec::new();
    let (mut survived, mut broken) = (0, 0);
    for (number, bug) in bugs.iter().enumerate() {
        let begun = Instant::now();
        let fate = match kept.killer(bug)? {
            Some(by) => Fate::Kept(by),
            None => fate(bug, &copy, &target, &mut healthy)?,
        };
        let (word, why) = match &fate {
            Fate::Killed(by) => {
                kept.keep(bug, by)?;
                ("killed  ", format!("by {by}"))
            }
            Fate::Kept(by) => ("killed  ", format!("by {by}, as is kept")),
            Fate::Survived => {
                survived += 1;
                ("SURVIVED", "no test fails".to_owned())
            }
            Fate::ShowsNothing(why) => {
                broken += 1;
                ("BROKEN  ", (*why).to_owned())
            }
        };
        let seconds = begun.elapsed().as_secs();
        writeln!(out, "{:>3}/{} {word} {}: {why} ({seconds} s)", number + 1, bugs.len(), bug.name)?;
    }
    let figure = format!("{} killed of {}", bugs.len() - survived - broken, bugs.len());
    writeln!(out, "seeded bugs: {figure}")?;
    if let Some(directory) = proof {
        write(&directory.join("seeded-bugs"), &figure)?;
    }
    if survived + broken == 0 { Ok(()) } else { Err(Error::NotAllKilled { survived, broken }) }
}

/// What became of a bug.
enum Fate {
    /// By this test.
    Killed(String),
    /// By this test, earlier.
    Kept(String),
    Survived,
    /// For this reason.
    ShowsNothing(&'static str),
}

fn fate<'a>(bug: &'a Bug, copy: &Path, target: &Path, healthy: &mut Vec<&'a str>) -> Result<Fate, Error> {
    let arguments = test(&bug.test, "");
    if healthy.is_empty() && !matches!(cargo(copy, target, "test --workspace --no-run", BUILD_LIMIT)?, Ended::Well) {
        return Err(Error::DoesNotCompile);
    }
    // A test that is red without the bug shows nothing.
    if !healthy.contains(&bug.test.as_str()) {
        if !matches!(cargo(copy, target, &arguments, LIMIT)?, Ended::Well) {
            return Ok(Fate::ShowsNothing("its tests fail without it"));
        }
        healthy.push(&bug.test);
    }
    let path = copy.join(&bug.file);
    let whole = read(&path)?;
    write(&path, &bug.plant(&whole)?)?;
    let fate = with_bug(bug, copy, target, &arguments);
    write(&path, &whole)?;
    fate
}

fn with_bug(bug: &Bug, copy: &Path, target: &Path, arguments: &str) -> Result<Fate, Error> {
    if !matches!(cargo(copy, target, &test(&bug.test, "--no-run"), LIMIT)?, Ended::Well) {
        return Ok(Fate::ShowsNothing("it does not compile"));
    }
    let by = match cargo(copy, target, arguments, LIMIT)? {
        Ended::Well => return Ok(Fate::Survived),
        Ended::TooLate if bug.hangs => return Ok(Fate::Killed("a test that does not end".to_owned())),
        Ended::TooLate => return Ok(Fate::ShowsNothing("its tests do not end")),
        Ended::Badly(output) => match failed(&output) {
            Some(name) => name.to_owned(),
            None => return Ok(Fate::ShowsNothing("its tests end before any fails")),
        },
    };
    // Once may be by chance.
    let binary: Vec<&str> = bug.test.split(' ').collect();
    let words = binary.iter().position(|word| word.starts_with("--")).unwrap_or_default();
    let alone = match binary[words..] {
        ["--test", name, ..] => [&binary[..words], &["--test", name]].concat().join(" "),
        _ => [&binary[..words], &["--lib"]].concat().join(" "),
    };
    match cargo(copy, target, &test(&alone, &format!("-- --exact {by}")), LIMIT)? {
        Ended::Badly(output) if failed(&output) == Some(&by) => Ok(Fate::Killed(by)),
        _ => Ok(Fate::ShowsNothing("a test fails once and then not")),
    }
}

/// The first test that libtest says has failed.
fn failed(output: &str) -> Option<&str> {
    output.lines().find_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.split(' ').next())
}

/// Arguments of cargo for these tests: variables of the environment stay in front.
fn test(tests: &str, more: &str) -> String {
    let words: Vec<&str> = tests.split(' ').collect();
    let variables = words.iter().take_while(|word| word.contains('=') && !word.starts_with('-')).count();
    let (variables, tests) = words.split_at(variables);
    [variables, &["test"], tests, &more.split(' ').collect::<Vec<_>>()].concat().join(" ").trim().to_owned()
}

/// How cargo ended.
enum Ended {
    Well,
    /// With this output.
    Badly(String),
    TooLate,
}

/// Runs cargo with these arguments, after variables of its environment, within the limit.
fn cargo(copy: &Path, target: &Path, arguments: &str, limit: Duration) -> Result<Ended, Error> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the copy does is no part of what is kept for `make proof`.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOOLZZ_")) {
        command.env_remove(name);
    }
    let mut words = arguments.split(' ').peekable();
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        command.env(name, value);
        words.next();
    }
    let path = target.join("output");
    let output = fs::File::create(&path).map_err(|source| Error::File { path: path.clone(), source })?;
    command.args(words).current_dir(copy).env("CARGO_TARGET_DIR", target);
    // Nobody debugs a bug that was planted, and half the time of each goes into building.
    command.env("CARGO_PROFILE_DEV_DEBUG", "none");
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(Error::Cargo)?;
    let begun = Instant::now();
    loop {
        let status = child.try_wait().map_err(Error::Cargo)?;
        let output = fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let output = String::from_utf8_lossy(&output).into_owned();
        let end = match status {
            Some(status) if status.success() => return Ok(Ended::Well),
            Some(_) => return Ok(Ended::Badly(output)),
            // What the other tests say does not matter any more.
            None if failed(&output).is_some() => Ended::Badly(output),
            None if begun.elapsed() > limit => Ended::TooLate,
            None => {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let group = format!("-{}", child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = child.wait();
        return Ok(end);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_test_that_failed_kills() {
        assert_eq!(failed("running 2 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\nfailures:\n"), Some("a::c"));
        assert_eq!(failed("error: could not compile\ntest result: ok. 1 passed\n"), None);
    }

    #[test]
    fn variables_stay_in_front() {
        assert_eq!(test("A=1 --test e2e x", "--no-run"), "A=1 test --test e2e x --no-run");
        assert_eq!(test("--lib plan::", ""), "test --lib plan::");
    }
}
