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
/// A user's "now, please": any new value. Answered in `status.lastHandledReconcileAt`.
pub const REQUEST_ANNOTATION: &str = "toolzz.com.br/reconcile-requested-at";
/// A user's "yes, it is really gone: make a new one". Its value is the id of the credential that is gone.
pub const RECREATE_ANNOTATION: &str = "toolzz.com.br/recreate";
/// On every object a resource writes its virtual key to: the operator watches no others.
pub const TARGET_LABEL: &str = "toolzz.com.br/target";
/// The name the operator writes under (`metadata.managedFields`) and reports events as.
pub const MANAGER: &str = "toolzz-operator";

/// Lowercase hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
