//! Stopping requests at an exact point, so that a test can act while they are there.

use std::sync::Arc;

use crate::state::Shared;

/// Where a gate stops requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Received, nothing done yet.
    BeforeSent,
    /// Done, not answered yet.
    Committed,
}

/// Names a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GateId(pub(crate) u64);

/// What becomes of a request that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on, also where its client is gone.
    Continue,
    /// Its connection is closed; what is not done yet is not done.
    Discard,
}

/// A gate. Dropping it releases what waits there.
///
/// A request that waits stays even where its client dies: released, it takes effect, as a real server's would.
#[derive(Debug)]
pub struct Gate {
    shared: Arc<Shared>,
    id: GateId,
}

impl Gate {
    pub(crate) fn new(shared: Arc<Shared>, id: GateId) -> Self {
        Self { shared, id }
    }

    /// Its name; for [`crate::State::waiting_at`] and [`crate::State::held_at`].
    #[must_use]
    pub fn id(&self) -> GateId {
        self.id
    }

    /// Requests it stopped since it was made.
    #[must_use]
    pub fn held(&self) -> usize {
        self.shared.read(|state| state.held_at(self.id))
    }

    /// Requests waiting now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.read(|state| state.waiting_at(self.id))
    }

    /// Waits until so many requests wait here at once.
    pub async fn until_held(&self, count: usize) {
        self.shared.until(|state| (state.waiting_at(self.id) >= count).then_some(())).await;
    }

    /// Opens the gate: all that wait go on, later ones are not stopped. Returns how many waited.
    pub fn release(self) -> usize {
        self.shared.change(|state| state.open_gate(self.id, Verdict::Continue))
    }

    /// Opens the gate; the connections of all that wait are closed, and what is not done yet is not done.
    pub fn discard(self) -> usize {
        self.shared.change(|state| state.open_gate(self.id, Verdict::Discard))
    }

    /// Lets the one that waits longest go on and stays shut; false where none waits.
    #[must_use]
    pub fn release_one(&self) -> bool {
        self.shared.change(|state| state.let_one_go(self.id, Verdict::Continue))
    }

    /// Closes the connection of the one that waits longest and stays shut; false where none waits.
    #[must_use]
    pub fn discard_one(&self) -> bool {
        self.shared.change(|state| state.let_one_go(self.id, Verdict::Discard))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.change(|state| state.open_gate(self.id, Verdict::Continue));
    }
}
