//! Where the tools are: in `KUBEBUILDER_ASSETS`, or in the cache folder of the user.

use std::{fmt::Write as _, path::PathBuf, process::Command, sync::OnceLock};

use sha2::{Digest as _, Sha256};

use crate::tools::{self, Module, Tool};

/// Why a tool cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{name} is not built: run `controlplane build`, which takes some minutes for most tools")]
    NotBuilt { name: String },
    #[error("there is no tool {name:?}, only {known}")]
    Unknown { name: String, known: String },
    #[error("no cache folder: set XDG_CACHE_HOME or HOME")]
    NoFolder,
    #[error(
        "Go is needed to build the tools and does not run: install Go 1.26 or later, or set KUBEBUILDER_ASSETS to a directory that has them"
    )]
    Go(#[source] std::io::Error),
    #[error("cannot resolve KUBEBUILDER_ASSETS")]
    Assets(#[source] std::io::Error),
    #[error("`go env` failed: {0}")]
    GoEnvironment(String),
}

/// The path of a tool that is there to be run.
pub(crate) fn locate(name: &str) -> Result<PathBuf, Error> {
    let (module, tool) = find(name)?;
    let path = path(module, tool)?;
    match path.exists() {
        true => Ok(path),
        false => Err(Error::NotBuilt { name: name.to_owned() }),
    }
}

/// A tool and the module that has it.
pub(crate) fn find(name: &str) -> Result<(&'static Module, &'static Tool), Error> {
    tools::find(name).ok_or_else(|| Error::Unknown {
        name: name.to_owned(),
        known: tools::all().map(|tool| tool.name).collect::<Vec<_>>().join(", "),
    })
}

/// Where the tool is, or will be once it is built.
pub(crate) fn path(module: &Module, tool: &Tool) -> Result<PathBuf, Error> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|assets| !assets.is_empty());
    if let Some(assets) = assets {
        // The servers run in another directory than this.
        let asset = std::path::absolute(assets).map_err(Error::Assets)?.join(tool.name);
        if asset.exists() {
            return Ok(asset);
        }
    }
    Ok(module_folder(module)?.join("bin").join(tool.name))
}

/// The folder of all modules.
pub(crate) fn folder() -> Result<PathBuf, Error> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    Ok(base.ok_or(Error::NoFolder)?.join("toolzz-operator").join("tools"))
}

/// The folder of what is built from this module by this Go for this platform. Another version is another folder, so
/// checkouts of different age do not disturb each other.
pub(crate) fn module_folder(module: &Module) -> Result<PathBuf, Error> {
    let mut digest = Sha256::new();
    let flags = module.linker_flags();
    let tags = Some(module.tags).filter(|tags| !tags.is_empty());
    let files = module.files.iter().flat_map(|(name, text)| [*name, *text]);
    for part in [go_environment()?, module.go_mod, module.go_sum, &flags].into_iter().chain(tags).chain(files) {
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    }
    let mut name = format!("{}-{}-", module.name, module.version());
    for byte in &digest.finalize()[..6] {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    Ok(folder()?.join(name))
}

/// Version and platform of the Go that would build.
fn go_environment() -> Result<&'static str, Error> {
    static ENVIRONMENT: OnceLock<String> = OnceLock::new();
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let output = Command::new("go")
        .args(["env", "GOVERSION", "GOOS", "GOARCH"])
        // Not where a go.mod of somebody else could choose another toolchain.
        .current_dir(std::env::temp_dir())
        .output()
        .map_err(Error::Go)?;
    if !output.status.success() {
        return Err(Error::GoEnvironment(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(ENVIRONMENT.get_or_init(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
