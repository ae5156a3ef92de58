//! What to do next, decided as a value: [`next`] looks at the wish, the record and the remote, and names one [`Step`].
//!
//! The protocol is *stage, record, commit*. A credential is created inactive under a name that bears a marker only
//! this resource and this material can produce; the API server records it as the resource's own; then drift
//! correction puts the row right, which activates and names it. Nothing is activated that is not recorded.
//! Everything here is pure: no client, no clock, no async. The model checker runs this very code.

mod ledger;
mod next;
mod report;
mod step;
#[cfg(test)]
mod tests;
mod view;

pub use ledger::{Ledger, Mac, Recorded, tag};
pub use next::next;
pub use step::{Happening, Post, Publication, Put, Rejection, Step, differences};
pub use view::{Desired, Material, Memory, Settings, Sight, Trouble, View};
