//! A connection as a pass uses it, and what its calls tell of its health.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::Shared;
use crate::{
    api::{ConnectionKey, ListingKey, Reason},
    controller::context::lock,
    remote::{Connection, Inventory, Observer, Operation, Reading},
    runtime::{Metrics, Share},
};

/// How often a connection that does not answer is asked, and the least time between two questions.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);

/// A connection as a pass uses it. When its URL, token or terms change, another takes its place.
pub(in crate::controller) struct Link {
    /// Which it is: part of every ledger's mac.
    pub key: String,
    /// Host and port of the service: credentials of one service have one holder each, whatever connection leads there.
    pub service: String,
    pub connection: Connection,
    /// What is known of the credentials behind this URL and this token, and behind no other.
    pub inventory: Inventory,
    /// Whether existing credentials may be taken over through it.
    pub may_adopt: bool,
    pub(super) health: Arc<Health>,
}

impl Link {
    /// A link whose listings are judged before anybody acts on them.
    pub(super) fn new(
        key: ConnectionKey,
        connection: Connection,
        may_adopt: bool,
        health: Arc<Health>,
        shared: &Shared,
    ) -> Arc<Self> {
        let (claims, metrics) = (Arc::clone(&shared.claims), Arc::clone(&shared.metrics));
        let (name, counted, service) = (key.to_string(), counted(shared.share, &key), connection.service());
        let judged = service.clone();
        let counts = Arc::clone(&health);
        let judge = move |reading: &Reading<'_>| {
            let (strays, suspect) = claims.audit(&judged, reading);
            counts.count(|| metrics.strays(&listing(&counted, reading.key), strays));
            if suspect {
                tracing::warn!(connection = %key, listing = %reading.key, "many credentials vanished from a listing at once; it is not believed");
            }
            suspect
        };
        let inventory = Inventory::new(Box::new(judge), shared.resync_interval);
        Arc::new(Self { key: name, service, connection, inventory, may_adopt, health })
    }
}

/// A connection's name in the metrics, where several shards of one process may have the same one.
pub(super) fn counted(share: Share, connection: &ConnectionKey) -> String {
    format!("{}/{connection}", share.shard())
}

/// A listing's name in the metrics, where two connections may have the same one.
fn listing(counted: &str, key: &ListingKey) -> String {
    format!("{counted} {key}")
}

/// Whether a connection answers: `Err` with a reason and a message for people, `None` while nobody knows.
pub(super) type Verdict = Option<Result<(), (Reason, String)>>;

/// What is known of a connection's health.
pub(super) struct Health {
    state: Mutex<(Verdict, Instant)>,
    /// Another link has taken the place of this one, or none has.
    retired: Mutex<bool>,
    changed: Arc<Notify>,
}

impl Health {
    pub fn new(changed: Arc<Notify>) -> Self {
        Self { state: Mutex::new((None, Instant::now())), retired: Mutex::new(false), changed }
    }

    pub fn verdict(&self) -> Verdict {
        lock(&self.state).0.clone()
    }

    /// When to ask; `None` while it is known to be good.
    pub fn due(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.0 != Some(Ok(()))).then_some(state.1)
    }

    /// The answer to a question.
    pub fn set(&self, verdict: Result<(), (Reason, String)>) {
        *lock(&self.state) = (Some(verdict), Instant::now() + CHECK_INTERVAL);
    }

    /// From now on nothing is counted that comes over the link, also of what is under way.
    pub fn retire(&self) {
        *lock(&self.retired) = true;
    }

    /// Counts what came over the link, unless that has retired.
    fn count(&self, count: impl FnOnce()) {
        let retired = lock(&self.retired);
        if !*retired {
            count();
        }
    }

    /// A call ended: one that works shows that the connection does, one that fails makes it worth asking.
    fn called(&self, outcome: &'static str) {
        let mut state = lock(&self.state);
        let good = state.0 == Some(Ok(()));
        match outcome {
            "done" if !good => state.0 = Some(Ok(())),
            "unreachable" | "timed_out" | "disconnected" | "server_error" | "redirected" if good => state.0 = None,
            _ => return,
        }
        drop(state);
        self.changed.notify_one();
    }
}

/// Counts what a connection does.
pub struct Counting {
    metrics: Arc<Metrics>,
    /// The connection's name there.
    counted: String,
    health: Arc<Health>,
}

impl Counting {
    /// For the connection that the flags make, of one shard.
    pub fn of_default(metrics: Arc<Metrics>, share: Share) -> Self {
        Self::new(metrics, share, &ConnectionKey::default_of_cluster(), Arc::new(Health::new(Arc::default())))
    }

    pub(super) fn new(metrics: Arc<Metrics>, share: Share, key: &ConnectionKey, health: Arc<Health>) -> Self {
        Self { metrics, counted: counted(share, key), health }
    }
}

impl Observer for Counting {
    fn called(&self, operation: Operation, outcome: &'static str, elapsed: Duration) {
        self.metrics.remote_call(operation.as_str(), outcome, elapsed);
        // The probe's caller judges it.
        if operation != Operation::Probe {
            self.health.called(outcome);
        }
    }

    fn listed(&self, key: &ListingKey, rows: usize) {
        self.health.count(|| self.metrics.listed(&listing(&self.counted, key), rows));
    }

    fn dropped(&self, key: &ListingKey) {
        self.metrics.listing_gone(&listing(&self.counted, key));
    }
}
