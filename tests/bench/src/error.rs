//! Why the benchmark cannot go on.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Why the benchmark cannot go on. A missed target is none: it is a figure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("control plane: {0}")]
    ControlPlane(#[from] test_controlplane::Error),
    #[error("Kubernetes API: {0}")]
    Kubernetes(#[source] Box<kube::Error>),
    #[error("waiting for a resource: {0}")]
    Watch(#[source] Box<kube::runtime::wait::Error>),
    #[error("request: {0}")]
    Request(#[from] http::Error),
    #[error("HTTP: {0}")]
    Http(#[from] reqwest::Error),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0}")]
    System(#[from] io::Error),
    #[error("{command} failed: {output}")]
    Command { command: String, output: String },
    #[error("not within {limit:?}: {what}")]
    TooLate { what: String, limit: Duration },
    #[error("the operator ended ({status}):\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("{0}")]
    Wrong(String),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kubernetes(Box::new(error))
    }
}

impl From<kube::runtime::wait::Error> for Error {
    fn from(error: kube::runtime::wait::Error) -> Self {
        Self::Watch(Box::new(error))
    }
}

impl Error {
    /// The outcome of work on a file, with its name.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
