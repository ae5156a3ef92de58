//! Builds the tools that are missing.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, IsTerminal as _, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cache, process,
    tools::{self, MODULES, Module, Origin, Tool},
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
    Go { tool: &'static str, status: ExitStatus, output: String },
    #[error("cannot build in the cache folder")]
    Folder(#[from] io::Error),
    #[error("`go mod download` did not say where the source of {tool} is")]
    Download { tool: &'static str, source: serde_json::Error },
}

/// Builds what is neither in `KUBEBUILDER_ASSETS` nor in the cache, one tool after the other: of these tools, or of all if
/// none is named.
pub(crate) fn build_missing(names: &[impl AsRef<str>]) -> Result<(), Error> {
    if missing(names)?.is_empty() {
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
    let missing = missing(names)?;
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

fn missing(names: &[impl AsRef<str>]) -> Result<Vec<(&'static Module, &'static Tool)>, Error> {
    let wanted: Vec<_> = if names.is_empty() {
        MODULES.iter().flat_map(|module| module.tools.iter().map(move |tool| (module, tool))).collect()
    } else {
        names.iter().map(|name| cache::find(name.as_ref())).collect::<Result<_, _>>()?
    };
    let mut missing = Vec::new();
    for (module, tool) in wanted {
        if !cache::path(module, tool)?.exists() {
            missing.push((module, tool));
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
    for (name, text) in [("go.mod", module.go_mod), ("go.sum", module.go_sum)].iter().chain(module.files) {
        fs::write(folder.join(name), text)?;
    }
    let unfinished = folder.join(format!("{}.unfinished", tool.name));

    let mut progress = Progress::start(label)?;
    let result = match tool.origin {
        Origin::Package(package) => compile(module, tool, package, &unfinished, &mut progress),
        Origin::Folder(path) => copy(module, tool, path, &unfinished, &mut progress),
    };
    if let Err(error) = result {
        progress.end("failed")?;
        return Err(error);
    }
    // Only a whole tool ever has the name that is looked for.
    fs::rename(&unfinished, binaries.join(tool.name))?;
    progress.end("done")?;
    Ok(())
}

fn compile(module: &Module, tool: &Tool, package: &str, to: &Path, progress: &mut Progress) -> Result<(), Error> {
    let flags = module.linker_flags();
    let mut arguments = vec!["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &flags];
    if !module.tags.is_empty() {
        arguments.extend(["-tags", module.tags]);
    }
    arguments.push("-o");
    go(module, tool, arguments.iter().map(OsStr::new).chain([to.as_os_str(), OsStr::new(package)]), progress)?;
    Ok(())
}

/// What `go mod download` says of a module.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    /// Where its source is.
    dir: PathBuf,
}

fn copy(module: &Module, tool: &Tool, path: &str, to: &Path, progress: &mut Progress) -> Result<(), Error> {
    let answer = go(module, tool, ["mod", "download", "-json", module.source].map(OsStr::new), progress)?;
    let download: Download =
        serde_json::from_str(&answer).map_err(|source| Error::Download { tool: tool.name, source })?;
    // Of a build that was killed.
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(download.dir.join(path))? {
        let entry = entry?;
        // Not `fs::copy`: the source is write-protected, the cache need not be.
        fs::write(to.join(entry.file_name()), fs::read(entry.path())?)?;
    }
    Ok(())
}

/// Runs Go in the module's folder and returns what it prints.
fn go<'a>(
    module: &Module,
    tool: &Tool,
    arguments: impl IntoIterator<Item = &'a OsStr>,
    progress: &mut Progress,
) -> Result<String, Error> {
    let mut output = tempfile::tempfile()?;
    let mut messages = tempfile::tempfile()?;
    let mut command = process::tied(Path::new("go"))?
        .args(arguments)
        .current_dir(cache::module_folder(module)?)
        // Static programs, and no C compiler needed.
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(messages.try_clone()?)
        .spawn()?;
    let status = loop {
        match command.try_wait()? {
            Some(status) => break status,
            None => {
                thread::sleep(TICK);
                progress.tick()?;
            }
        }
    };
    let mut text = String::new();
    output.rewind()?;
    output.read_to_string(&mut text)?;
    if !status.success() {
        messages.rewind()?;
        messages.read_to_string(&mut text)?;
        return Err(Error::Go { tool: tool.name, status, output: text });
    }
    Ok(text)
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
