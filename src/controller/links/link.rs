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

struct State {
    verdict: Verdict,
    /// When it was last asked, or a call of a user worked.
    answered: Instant,
    /// Not before it is asked again while it is not known to be good.
    next: Instant,
}

/// What is known of a connection's health.
pub(super) struct Health {
    state: Mutex<State>,
    /// Another link has taken the place of this one, or none has.
    retired: Mutex<bool>,
    changed: Arc<Notify>,
}

impl Health {
    pub fn new(changed: Arc<Notify>) -> Self {
        let now = Instant::now();
        let state = State { verdict: None, answered: now, next: now };
        Self { state: Mutex::new(state), retired: Mutex::new(false), changed }
    }

    pub fn verdict(&self) -> Verdict {
        lock(&self.state).verdict.clone()
    }

    /// When to ask. That it is good holds for so long after it was last shown: its users may all be other shards'.
    pub fn due(&self, good_for: Duration) -> Instant {
        let state = lock(&self.state);
        if state.verdict == Some(Ok(())) { state.answered + good_for.max(CHECK_INTERVAL) } else { state.next }
    }

    /// The answer to a question.
    pub fn set(&self, verdict: Result<(), (Reason, String)>) {
        let now = Instant::now();
        *lock(&self.state) = State { verdict: Some(verdict), answered: now, next: now + CHECK_INTERVAL };
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
        let good = state.verdict == Some(Ok(()));
        if outcome == "done" {
            state.answered = Instant::now();
        }
        match outcome {
            "done" if !good => state.verdict = Some(Ok(())),
            "unreachable" | "timed_out" | "disconnected" | "server_error" | "redirected" if good => {
                state.verdict = None
            }
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
