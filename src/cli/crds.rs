//! `toolzz-operator crds`.

use std::{io::Write as _, path::PathBuf};

use thiserror::Error;

use crate::api::crds_yaml;

/// Print the CustomResourceDefinitions as YAML, or write them to files.
#[derive(Debug, clap::Args)]
pub(super) struct CrdsArgs {
    /// Write a file for each definition into this directory instead of printing them.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write nothing; fail if a file in --dir is not as it would be written.
    #[arg(long, requires = "dir")]
    check: bool,
}

/// Why the definitions were not written.
#[derive(Debug, Error)]
enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is out of date; run `make generate`")]
    OutOfDate { path: PathBuf },
}

pub(super) fn crds(arguments: &CrdsArgs) -> Result<(), Box<dyn std::error::Error>> {
    let files = crds_yaml()?;
    let Some(dir) = &arguments.dir else {
        let mut out = std::io::stdout().lock();
        for (_, text) in files {
            write!(out, "---\n{text}")?;
        }
        return Ok(());
    };
    if !arguments.check {
        std::fs::create_dir_all(dir).map_err(|source| Error::File { path: dir.clone(), source })?;
    }
    for (name, text) in files {
        let path = dir.join(name);
        if arguments.check {
            if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
                return Err(Error::OutOfDate { path }.into());
            }
        } else {
            std::fs::write(&path, text).map_err(|source| Error::File { path, source })?;
        }
    }
    Ok(())
}
