//! Processes that die with this one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// How much of a log is shown when a process has failed.
const TAIL_LINES: usize = 15;

/// A command whose process gets SIGKILL when the thread that spawns it ends, also when that is by SIGKILL.
///
/// The parent-death signal survives an exec but is not set by one, and setting it between fork and exec would need
/// unsafe code. So this program is executed again, sets it on itself and becomes the other ([`become_tied`]).
pub(crate) fn tied(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tied").arg(std::process::id().to_string()).arg(program);
    Ok(command)
}

/// Replaces this process by the command, tied to its parent. Returns only when that fails.
pub(crate) fn become_tied(parent: i32, command: &[OsString]) -> io::Error {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)) {
        return error.into();
    }
    // A parent that died before the line above sends no signal any more.
    if rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) != Some(parent) {
        return io::Error::other("the parent is gone");
    }
    let Some((program, arguments)) = command.split_first() else {
        return io::Error::other("no program");
    };
    Command::new(program).args(arguments).exec()
}

/// A server that runs in a directory and writes a log. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    child: Child,
    log: PathBuf,
    /// Length of the log when the process started: what is before is of an earlier run.
    log_start: u64,
}

impl Server {
    /// Starts the program. Its log is `logs/<name>.log` in the directory.
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        directory: &Path,
    ) -> io::Result<Self> {
        let log = directory.join("logs").join(format!("{name}.log"));
        let output: File = OpenOptions::new().create(true).append(true).open(&log)?;
        let log_start = output.metadata()?.len();
        let child = tied(program)?
            .args(arguments)
            .current_dir(directory)
            // Whoever supervises us does not supervise them.
            .env_remove("NOTIFY_SOCKET")
            // Ctrl-C at the terminal is for us: we stop them in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self { name, child, log, log_start })
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// What this run has logged.
    pub(crate) fn output(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or_default().min(log.len());
        String::from_utf8_lossy(&log[start..]).into_owned()
    }

    /// The end of what this run has logged.
    pub(crate) fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // There is nothing to save: the data goes with the directory, and etcd survives a killed client.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
