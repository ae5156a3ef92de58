//! Nothing is left of a control plane, however its owner ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy does not take the helpers of tests for tests")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use test_controlplane::protocol::Event;

/// Far more than it takes: only a failing test waits as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A supervisor and what is needed to see that it has gone.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    directory: PathBuf,
    processes: Vec<PathBuf>,
}

fn start() -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_controlplane"))
        .args(["run", "--json", "--no-build"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let directory = ready(&mut stdout);
    let processes = processes_in(&directory);
    assert_eq!(processes.len(), 3, "etcd, API server and controller manager: {processes:?}");
    Running { stdin: child.stdin.take(), stdout, child, directory, processes }
}

fn ready(stdout: &mut impl BufRead) -> PathBuf {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    match serde_json::from_str(&line).unwrap() {
        Event::Ready(endpoints) => endpoints.directory,
        other => panic!("{other:?}"),
    }
}

/// The `/proc` entries of the processes that run in the directory.
fn processes_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let inside = |path: &PathBuf| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == directory);
    entries.filter(inside).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "still not: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Running {
    fn assert_nothing_is_left(&self) {
        wait_until("the directory is gone", || !self.directory.exists());
        self.assert_no_process_is_left();
    }

    fn assert_no_process_is_left(&self) {
        // A working directory that is removed reads as "… (deleted)", so look at the processes themselves.
        let alive = |path: &PathBuf| {
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            !status.is_empty() && !status.contains("State:\tZ")
        };
        wait_until("the processes are gone", || !self.processes.iter().any(alive));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn the_end_of_its_input_ends_it() {
    let mut running = start();
    running.stdin = None;
    assert!(running.child.wait().unwrap().success());
    running.assert_nothing_is_left();
}

#[test]
fn sigterm_ends_it() {
    let mut running = start();
    signal(running.child.id(), "TERM");
    assert!(running.child.wait().unwrap().success());
    running.assert_nothing_is_left();
}

/// The owner is a program that uses the library, as a test binary does, and gets no chance to clean up.
#[test]
fn nothing_is_left_of_an_owner_that_was_killed() {
    let mut owner = Command::new(example("owner"))
        .env("CONTROLPLANE_BIN", env!("CARGO_BIN_EXE_controlplane"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let directory = PathBuf::from(line.trim_end());
    let processes = processes_in(&directory);
    assert_eq!(processes.len(), 3, "{processes:?}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the directory is gone", || !directory.exists());
    wait_until("the processes are gone", || !processes.iter().any(|process| process.exists()));
}

/// Then only its directory is left, for the next one to remove.
#[test]
fn no_process_is_left_of_a_supervisor_that_was_killed() {
    let mut running = start();
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    running.assert_no_process_is_left();
}

#[test]
fn a_server_that_dies_ends_it_with_an_error() {
    let mut running = start();
    let process = running.processes[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
    signal(process, "KILL");
    assert!(!running.child.wait().unwrap().success());
    let mut rest = String::new();
    running.stdout.read_line(&mut rest).unwrap();
    assert_eq!(rest, "");
    running.assert_nothing_is_left();
}

/// Cargo builds the examples with the tests, beside the binaries.
fn example(name: &str) -> PathBuf {
    let binaries = Path::new(env!("CARGO_BIN_EXE_controlplane")).parent().unwrap();
    binaries.join("examples").join(name)
}
