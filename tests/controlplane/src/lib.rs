//! A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager on loopback.
//!
//! ```no_run
//! # async fn example() -> Result<(), test_controlplane::Error> {
//! use test_controlplane::ControlPlane;
//!
//! let plane = ControlPlane::shared().await?; // one for all tests of a test binary
//! let namespace = plane.unique_namespace("orders").await?; // its own room for each test
//! let output = plane.kubectl(["get", "pods", "--namespace", &namespace]).output();
//! # Ok(()) }
//! ```
//!
//! The processes belong to a supervisor, the binary `controlplane` of this crate, which is tied to this process by a
//! pipe. When this process ends, in whatever way (also by a panic, Ctrl-C or SIGKILL), the pipe closes and the
//! supervisor stops everything and removes the directory. So a control plane in a `static`, which is never dropped, is
//! cleaned up too.
//!
//! Nothing in a [`ControlPlane`] belongs to the runtime it was started on: tests with a runtime each can share it.

mod control_plane;
mod kubeconfig;
pub mod protocol;
pub mod schemas;
mod store;
mod supervisor;

pub use control_plane::{ControlPlane, Error, Options, connect};
pub use supervisor::tool;
