//! The library's end of the pipe to the supervisor. Blocking, so that it belongs to no runtime.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{Mutex, PoisonError},
};

use crate::{
    Error, Options,
    protocol::{Command, Endpoints, Event},
};

/// Where the supervisor is, if not beside the program that runs.
const BINARY_VARIABLE: &str = "CONTROLPLANE_BIN";
const BINARY: &str = "controlplane";

/// A running supervisor. Dropping it tears the control plane down and waits for that.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pipe: Mutex<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts a supervisor and waits until its control plane is up.
    pub(crate) fn start(options: &Options) -> Result<(Self, Endpoints), Error> {
        let program = find_binary()?;
        let mut command = std::process::Command::new(&program);
        command.args(["run", "--json", "--no-build"]);
        if let Some(directory) = &options.directory {
            command.arg("--directory").arg(directory);
        }
        if options.keep_directory {
            command.arg("--keep");
        }
        if !options.controller_manager {
            command.arg("--no-controller-manager");
        }
        for argument in &options.api_server_args {
            command.arg(format!("--api-server-arg={argument}"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C goes to the whole process group: the supervisor has to outlive it to clean up.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program, source })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Ended);
        };
        let mut pipe = Pipe { child, stdin: Some(stdin), stdout: BufReader::new(stdout) };
        match pipe.read()? {
            Event::Ready(endpoints) => Ok((Self { pipe: Mutex::new(pipe) }, endpoints)),
            Event::Failed { message } => Err(Error::Failed(message)),
            Event::Done => Err(Error::Protocol("done, before it was ready".to_owned())),
        }
    }

    /// Sends the commands and waits until they are carried out. Stops at the first that fails.
    pub(crate) fn request(&self, commands: &[Command]) -> Result<(), Error> {
        // A test that panicked in here has left no half-written state of ours behind.
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        for command in commands {
            pipe.write(*command)?;
            match pipe.read()? {
                Event::Done => {}
                Event::Failed { message } => return Err(Error::Failed(message)),
                Event::Ready(_) => return Err(Error::Protocol("ready, again".to_owned())),
            }
        }
        Ok(())
    }
}

impl Pipe {
    fn write(&mut self, command: Command) -> Result<(), Error> {
        let mut line = serde_json::to_vec(&command).map_err(|error| Error::Protocol(error.to_string()))?;
        line.push(b'\n');
        let stdin = self.stdin.as_mut().ok_or(Error::Ended)?;
        stdin.write_all(&line).map_err(|_| Error::Ended)
    }

    fn read(&mut self) -> Result<Event, Error> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) | Err(_) => Err(Error::Ended),
            Ok(_) => serde_json::from_str(&line).map_err(|_| Error::Protocol(line.trim_end().to_owned())),
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.stdin = None;
        // The supervisor kills what it started, so it does not linger.
        let _ = self.child.wait();
    }
}

/// The path of a pinned tool, such as kubeconform, or of a folder of pinned files. `controlplane path` lists them.
///
/// # Errors
///
/// When `controlplane build` has not been run.
pub fn tool(name: &str) -> Result<PathBuf, Error> {
    let program = find_binary()?;
    let output = match std::process::Command::new(&program).args(["path", name]).output() {
        Ok(output) => output,
        Err(source) => return Err(Error::Spawn { program, source }),
    };
    match output.status.success() {
        true => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())),
        false => Err(Error::Tool(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())),
    }
}

fn find_binary() -> Result<PathBuf, Error> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let program = std::env::current_exe().unwrap_or_default();
    // Test binaries are in target/<profile>/deps, examples in target/<profile>/examples, the supervisor in target/<profile>.
    program
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(BINARY))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::SupervisorNotFound { beside: program.parent().unwrap_or(Path::new(".")).to_owned() })
}
