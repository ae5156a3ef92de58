//! The connections that resources use.

use std::sync::Arc;

use futures::{Stream, stream};
use tokio::sync::watch;

use crate::{
    api::{Reason, ToolzzCredential},
    remote::{Connection, Inventory, State},
};

/// The connection that every resource uses which names none.
pub(super) const DEFAULT: &str = "ClusterToolzzConnection/default";

/// A connection and what is known of the credentials behind it.
pub(super) struct Link {
    /// Which it is: part of every ledger's mac.
    pub key: String,
    /// Base URL of the service: credentials of one service have one holder each, whatever connection leads there.
    pub service: String,
    pub connection: Connection,
    pub inventory: Inventory,
    /// Whether existing credentials may be taken over through it.
    pub may_adopt: bool,
}

/// The connections there are.
pub(super) struct Links {
    default: Arc<Link>,
}

impl Links {
    pub fn new(default: Link) -> Self {
        Self { default: Arc::new(default) }
    }

    /// The connection a resource uses; or why it has none.
    pub fn of(&self, _object: &ToolzzCredential) -> Result<Arc<Link>, (Reason, String)> {
        Ok(Arc::clone(&self.default))
    }

    /// The name of the connection a resource asks for, whether or not it exists.
    pub fn key_of(_object: &ToolzzCredential) -> String {
        DEFAULT.to_owned()
    }

    /// Every time a connection is refused, or accepted again: that concerns everybody who uses it. A pause does not;
    /// who is held up by one knows when it is over.
    pub fn refused(&self) -> impl Stream<Item = ()> + Send + 'static {
        let state = self.default.connection.state();
        let refused = |state: &watch::Receiver<State>| matches!(&*state.borrow(), State::Refused { .. });
        let before = refused(&state);
        stream::unfold((state, before), move |(mut state, before)| async move {
            loop {
                state.changed().await.ok()?;
                let now = refused(&state);
                if now != before {
                    return Some(((), (state, now)));
                }
            }
        })
    }
}
