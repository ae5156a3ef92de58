//! Builds the tools that are missing.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Read as _, Seek as _, Write as _},
    path::Path,
    process::{ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cache, process,
    tools::{self, MODULES, Module, Tool},
};

/// Between two looks at the compiler.
const TICK: Duration = Duration::from_millis(200);
/// Between two lines of progress where standard error is no terminal.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Why a tool could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error("building {tool} failed ({status}):\n{output}")]
    Compiler { tool: &'static str, status: ExitStatus, output: String },
    #[error("cannot build in the cache folder")]
    Folder(#[from] io::Error),
}

/// Builds what is neither in `KUBEBUILDER_ASSETS` nor in the cache, one tool after the other.
pub(crate) fn build_missing() -> Result<(), Error> {
    if missing()?.is_empty() {
        return Ok(());
    }
    let folder = cache::folder()?;
    fs::create_dir_all(&folder)?;
    // The lock goes with the process, however that ends.
    let lock = File::create(folder.join("lock"))?;
    if lock.try_lock().is_err() {
        say("waiting for another build to end")?;
        lock.lock()?;
    }
    // The other build may have left nothing to do.
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    say(&estimate(&missing))?;
    for (index, (module, tool)) in missing.iter().enumerate() {
        let label = format!("[{}/{}] {} {}", index + 1, missing.len(), tool.name, module.version());
        build(module, tool, &label)?;
    }
    Ok(())
}

fn missing() -> Result<Vec<(&'static Module, &'static Tool)>, Error> {
    let mut missing = Vec::new();
    for module in &MODULES {
        for tool in module.tools {
            if !cache::path(module, tool)?.is_file() {
                missing.push((module, tool));
            }
        }
    }
    Ok(missing)
}

fn estimate(missing: &[(&Module, &Tool)]) -> String {
    let seconds: u64 = missing.iter().map(|(_, tool)| tool.cold_seconds).sum();
    format!(
        "building {} of {} tools, once: about {} minutes on two cores when nothing of Go is cached yet",
        missing.len(),
        tools::all().count(),
        seconds.div_ceil(60)
    )
}

fn build(module: &Module, tool: &Tool, label: &str) -> Result<(), Error> {
    let folder = cache::module_folder(module)?;
    let binaries = folder.join("bin");
    fs::create_dir_all(&binaries)?;
    fs::write(folder.join("go.mod"), module.go_mod)?;
    fs::write(folder.join("go.sum"), module.go_sum)?;
    let unfinished = folder.join(format!("{}.unfinished", tool.name));

    let mut output = tempfile::tempfile()?;
    let mut compiler = process::tied(Path::new("go"))?
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags"])
        .arg(module.linker_flags())
        .arg("-o")
        .arg(&unfinished)
        .arg(tool.package)
        .current_dir(&folder)
        // Static programs, and no C compiler needed.
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;

    let mut progress = Progress::start(label)?;
    let status = loop {
        match compiler.try_wait()? {
            Some(status) => break status,
            None => {
                thread::sleep(TICK);
                progress.tick()?;
            }
        }
    };
    if !status.success() {
        progress.end("failed")?;
        let mut text = String::new();
        output.rewind()?;
        output.read_to_string(&mut text)?;
        return Err(Error::Compiler { tool: tool.name, status, output: text });
    }
    // Only a whole program ever has the name that is looked for.
    fs::rename(&unfinished, binaries.join(tool.name))?;
    progress.end("done")?;
    Ok(())
}

/// One line that is rewritten on a terminal, some lines elsewhere.
struct Progress<'a> {
    label: &'a str,
    terminal: bool,
    started: Instant,
    next: Duration,
}

impl<'a> Progress<'a> {
    fn start(label: &'a str) -> io::Result<Self> {
        let terminal = io::stderr().is_terminal();
        if !terminal {
            say(label)?;
        }
        Ok(Self { label, terminal, started: Instant::now(), next: HEARTBEAT })
    }

    fn tick(&mut self) -> io::Result<()> {
        let elapsed = self.started.elapsed();
        if self.terminal {
            write!(io::stderr().lock(), "\r{} … {} s", self.label, elapsed.as_secs())?;
        } else if elapsed >= self.next {
            self.next += HEARTBEAT;
            say(&format!("{} … {} s", self.label, elapsed.as_secs()))?;
        }
        Ok(())
    }

    fn end(&self, outcome: &str) -> io::Result<()> {
        let rewrite = if self.terminal { "\r" } else { "" };
        let seconds = self.started.elapsed().as_secs();
        say(&format!("{rewrite}{} {outcome} after {seconds} s", self.label))
    }
}

/// Progress goes to standard error, so that standard output stays what a script asked for.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{line}")
}
