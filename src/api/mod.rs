//! The custom resources: types, validation, columns, conditions and reasons. No I/O.

mod conditions;
mod connection;
mod crd;
mod credential;
mod reason;
mod remote;
mod tick;

pub use conditions::{Conditions, condition};
pub use connection::*;
pub use crd::{crds, crds_yaml};
pub use credential::*;
pub use reason::{Class, Reason};
pub use remote::*;
pub use tick::Tick;

/// Holds a resource until its credential is deactivated.
pub const FINALIZER: &str = "toolzz.com.br/credential";
/// The operator's record of what is this resource's: see [`crate::plan::Ledger`].
pub const LEDGER_ANNOTATION: &str = "toolzz.com.br/ledger";
/// The name the operator writes under (`metadata.managedFields`) and reports events as.
pub const MANAGER: &str = "toolzz-operator";
