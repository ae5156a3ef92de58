//! Generated files: written, or checked to be as they would be written.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where generated files go.
#[derive(Debug, clap::Args)]
pub(super) struct Destination {
    /// Write the files into this directory instead of printing them.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write nothing; fail if a file in --dir is not as it would be written.
    #[arg(long, requires = "dir")]
    check: bool,
}

/// Why a file was not written.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is out of date; run `make generate`")]
    OutOfDate { path: PathBuf },
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
}

impl Destination {
    /// Writes, prints or checks these files, by name; printed, each begins with `separator`.
    pub fn put(&self, files: Vec<(String, String)>, separator: &str) -> Result<(), Error> {
        let Some(dir) = &self.dir else {
            use std::io::Write as _;
            let mut out = std::io::stdout().lock();
            for (_, text) in files {
                write!(out, "{separator}{text}")?;
            }
            return Ok(());
        };
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        if !self.check {
            std::fs::create_dir_all(dir).map_err(at(dir))?;
        }
        for (name, text) in files {
            let path = dir.join(name);
            if !self.check {
                std::fs::write(&path, text).map_err(at(&path))?;
            } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
                return Err(Error::OutOfDate { path });
            }
        }
        Ok(())
    }
}
