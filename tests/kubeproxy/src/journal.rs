//! What was asked of the proxy and what became of it. Never a body.

use jiff::Timestamp;

use crate::{
    asked::Asked,
    faults::{Fault, RuleId},
};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Sequence number, from 1, in the order requests were completely received.
    pub seq: u64,
    /// When it was completely received.
    pub started_at: Timestamp,
    /// When its reply began, or its connection was closed; `None`: still in hand.
    pub finished_at: Option<Timestamp>,
    /// What it asked for.
    pub asked: Asked,
    /// The rule that met it.
    pub rule: Option<RuleId>,
    /// The fault of that rule.
    pub fault: Option<Fault>,
    /// The status the API server answered; `None`: it did not get it, or did not answer (yet).
    pub decided: Option<u16>,
    /// The status sent; `None`: no answer (yet).
    pub status: Option<u16>,
    /// The client closed the connection before a reply began.
    pub client_gone: bool,
}

impl Entry {
    /// Whether it changed something, or may have.
    #[must_use]
    pub fn committed(&self) -> bool {
        self.asked.is_write() && self.decided.is_some_and(|status| (200..300).contains(&status))
    }
}
