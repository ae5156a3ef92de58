//! What to do next, decided as a value: [`next`] looks at the wish, the record and the remote, and names one [`Step`].
//!
//! The protocol is *stage, record, commit*. A credential is created inactive under a name that bears a marker only
//! this resource and this material can produce; the API server records it as the resource's own; then drift
//! correction puts the row right, which activates and names it. Nothing is activated that is not recorded.
//! Everything here is pure: no client, no clock, no async. The model checker runs this very code.

// An `Err` is the ordinary early way out here, made once a step.
#![allow(clippy::result_large_err)]

mod commit;
mod delete;
mod ledger;
mod memory;
mod next;
mod report;
mod stage;
mod step;
#[cfg(test)]
mod tests;
mod view;

pub use ledger::{Ledger, Mac, Place, Recorded, Retiring, tag};
pub use memory::{Answered, Gone, Memory, SentInPlace, Trouble};
pub use next::next;
use step::fingerprint;
pub use step::{Happening, Post, Publication, Put, Rejection, Step, differences};
pub use view::{Desired, Material, Settings, Sight, Target, View};

/// Whether so many credentials vanished from a listing at once that it is the listing that is to be doubted: more than
/// three, and more than a fifth of those that should be in it.
pub fn suspicious(known: usize, missing: usize) -> bool {
    missing > 3 && missing * 5 > known
}
