//! What the library and the supervisor say to each other: JSON, one value per line.
//!
//! The supervisor writes one [`Event`] when it is up (or cannot come up), and then one per [`Command`], in order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where etcd listens, in the control plane's directory. A socket and not a port: nobody else can answer in the place of
/// our etcd, and the name is relative, so short.
pub const ETCD_SOCKET: &str = "etcd.sock";

/// An order to the supervisor, on its standard input. End of input means: tear everything down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Kill the API server; etcd keeps its data.
    StopApiServer,
    /// Start the API server on its former port and wait until it is ready.
    StartApiServer,
}

/// An answer of the supervisor, on its standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The control plane is up.
    Ready(Endpoints),
    /// The last command was carried out.
    Done,
    /// The control plane could not come up, or the last command failed.
    Failed {
        /// What went wrong and what to do about it.
        message: String,
    },
}

/// Where a running control plane is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The directory that holds all of its files.
    pub directory: PathBuf,
    /// Kubeconfig of an administrator (`system:masters`).
    pub kubeconfig: PathBuf,
    /// Certificate of the authority that signed the API server's own, PEM.
    pub certificate_authority: PathBuf,
    /// URL of the API server.
    pub server: String,
    /// The kubectl of the same version.
    pub kubectl: PathBuf,
    /// The pinned helm.
    pub helm: PathBuf,
}
