//! What is counted, in OpenMetrics text.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU64},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::api::Reason;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Shard {
    shard: u16,
}

/// The operator's metrics. Every name begins with `toolzz_operator_`.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<Outcome, Counter>,
    reconcile_duration: Histogram,
    active: Gauge,
    calls: Family<Call, Counter>,
    call_duration: Family<Operation, Histogram, fn() -> Histogram>,
    resources: Family<ByReason, Gauge>,
    strays: Gauge,
    queue_length: Gauge,
    queue_age: Gauge<f64, AtomicU64>,
    orphaned: Counter,
    events: Counter,
    listing_age: Gauge<f64, AtomicU64>,
    listing_rows: Gauge,
    leading: Gauge,
    shards: Family<Shard, Gauge>,
    ready: Gauge,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The reason each resource is counted under, by uid.
    reasons: HashMap<String, Reason>,
    strays: HashMap<String, usize>,
    /// What waits, as long as it is there.
    queues: Vec<Weak<dyn Due>>,
    /// When each listing was last read, and its rows.
    listings: HashMap<String, (Instant, usize)>,
    /// What this process works on.
    shards: BTreeSet<u16>,
}

/// Something in which passes wait.
pub trait Due: Send + Sync {
    /// How many have not begun that are no routine, and for how long the first of them has waited.
    fn due(&self) -> (usize, Duration);
}

fn seconds() -> Histogram {
    Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("toolzz_operator");
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_duration: seconds(),
            active: Gauge::default(),
            calls: Family::default(),
            call_duration: Family::new_with_constructor(seconds),
            resources: Family::default(),
            strays: Gauge::default(),
            queue_length: Gauge::default(),
            queue_age: Gauge::default(),
            orphaned: Counter::default(),
            events: Counter::default(),
            listing_age: Gauge::default(),
            listing_rows: Gauge::default(),
            leading: Gauge::default(),
            shards: Family::default(),
            ready: Gauge::default(),
            state: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("build", "The running version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        // Nothing but a new process changes it.
        let start_time = Gauge::<f64, AtomicU64>::default();
        start_time.set(Timestamp::now().as_duration().as_secs_f64());
        registry.register_with_unit("start_time", "When the process began, since 1970", Unit::Seconds, start_time);
        registry.register("reconciles", "Reconciles by how they ended", metrics.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of a reconcile",
            Unit::Seconds,
            metrics.reconcile_duration.clone(),
        );
        registry.register("reconciles_running", "Reconciles under way", metrics.active.clone());
        registry.register(
            "queue_length",
            "New and edited resources that wait for their reconcile",
            metrics.queue_length.clone(),
        );
        registry.register_with_unit(
            "queue_age",
            "For how long the oldest of them waits",
            Unit::Seconds,
            metrics.queue_age.clone(),
        );
        registry.register("remote_calls", "Calls of the Toolzz API by operation and outcome", metrics.calls.clone());
        registry.register_with_unit(
            "remote_call_duration",
            "Time of a call of the Toolzz API",
            Unit::Seconds,
            metrics.call_duration.clone(),
        );
        registry.register("resources", "Resources by the reason of their Ready condition", metrics.resources.clone());
        registry.register("stray_credentials", "Inactive, marked credentials at Toolzz that no resource's ledger names: left by lost answers or superseded material", metrics.strays.clone());
        registry.register(
            "orphaned_active_credentials",
            "Credentials left active when a deletion passed its deadline",
            metrics.orphaned.clone(),
        );
        registry.register(
            "leader",
            "1 while this process works: it holds the lease (of several shards, one of them), or there is none",
            metrics.leading.clone(),
        );
        registry.register("shard", "1 while this process works on the shard", metrics.shards.clone());
        registry.register("ready", "1 while /readyz says so, also of a process that stands by", metrics.ready.clone());
        registry.register("events", "Events written", metrics.events.clone());
        registry.register_with_unit(
            "listing_age",
            "Age of the oldest listing in use",
            Unit::Seconds,
            metrics.listing_age.clone(),
        );
        registry.register("listing_rows", "Credentials seen in the last listings", metrics.listing_rows.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reconcile begins; it is counted when the guard goes, also when it is cancelled.
    pub fn reconcile_started(&self) -> Running<'_> {
        self.active.inc();
        Running(self)
    }

    /// A reconcile ended.
    pub fn reconciled(&self, outcome: &'static str, elapsed: Duration) {
        self.reconciles.get_or_create(&Outcome { outcome }).inc();
        self.reconcile_duration.observe(elapsed.as_secs_f64());
    }

    /// A call of the remote API ended.
    pub fn remote_call(&self, operation: &'static str, outcome: &'static str, elapsed: Duration) {
        self.calls.get_or_create(&Call { operation, outcome }).inc();
        self.call_duration.get_or_create(&Operation { operation }).observe(elapsed.as_secs_f64());
    }

    /// A listing was read.
    pub fn listed(&self, listing: &str, rows: usize) {
        self.state().listings.insert(listing.to_owned(), (Instant::now(), rows));
    }

    /// From now on it is told what waits in there.
    pub fn watch(&self, queue: &Arc<impl Due + 'static>) {
        let queue = Arc::downgrade(queue);
        self.state().queues.push(queue);
    }

    /// The reason of a resource's Ready condition.
    pub fn resource(&self, uid: &str, reason: Reason) {
        let before = self.state().reasons.insert(uid.to_owned(), reason);
        if before != Some(reason) {
            self.count(before, -1);
            self.count(Some(reason), 1);
        }
    }

    /// A resource is gone.
    pub fn gone(&self, uid: &str) {
        let mut state = self.state();
        self.count(state.reasons.remove(uid), -1);
    }

    fn count(&self, reason: Option<Reason>, by: i64) {
        if let Some(reason) = reason {
            self.resources.get_or_create_owned(&ByReason { reason: reason.as_str() }).inc_by(by);
        }
    }

    /// What `/readyz` says.
    pub fn ready(&self, so: bool) {
        self.ready.set(so.into());
    }

    /// Whether this process works.
    pub fn leading(&self, so: bool) {
        self.leading.set(so.into());
    }

    /// Whether this process works on a shard, of several.
    pub fn shard(&self, shard: u16, so: bool) {
        self.shards.get_or_create_owned(&Shard { shard }).set(so.into());
        let mut state = self.state();
        if so {
            state.shards.insert(shard)
        } else {
            state.shards.remove(&shard)
        };
        self.leading(!state.shards.is_empty());
    }

    /// How many strays a listing shows.
    pub fn strays(&self, listing: &str, count: usize) {
        let mut state = self.state();
        state.strays.insert(listing.to_owned(), count);
        self.strays.set(i64::try_from(state.strays.values().sum::<usize>()).unwrap_or(i64::MAX));
    }

    /// A connection is gone, or is made anew: what its listings showed is forgotten.
    pub fn connection_gone(&self, connection: &str) {
        self.keep_listings(|listing| listing.split_once(' ').is_none_or(|(of, _)| of != connection));
    }

    /// A listing is not in use any more.
    pub fn listing_gone(&self, listing: &str) {
        self.keep_listings(|other| other != listing);
    }

    fn keep_listings(&self, other: impl Fn(&str) -> bool) {
        let mut state = self.state();
        state.listings.retain(|listing, _| other(listing));
        state.strays.retain(|listing, _| other(listing));
        self.strays.set(i64::try_from(state.strays.values().sum::<usize>()).unwrap_or(i64::MAX));
    }

    /// A credential was left active by a deletion.
    pub fn orphaned(&self) {
        self.orphaned.inc();
    }

    /// An event was written.
    pub fn event_written(&self) {
        self.events.inc();
    }

    /// Everything, as text.
    pub fn text(&self) -> String {
        let (listing_age, rows, queues) = {
            let mut state = self.state();
            state.queues.retain(|queue| queue.strong_count() > 0);
            let age = state.listings.values().map(|(read, _)| read.elapsed()).max().unwrap_or_default();
            let rows: usize = state.listings.values().map(|(_, rows)| rows).sum();
            let queues: Vec<_> = state.queues.iter().filter_map(Weak::upgrade).collect();
            (age, rows, queues)
        };
        // Not under the lock: a queue has one of its own, and who holds that may wait for somebody who is counting.
        let due = queues.iter().map(|queue| queue.due());
        let (length, age) = due.fold((0, Duration::ZERO), |all, one| (all.0 + one.0, all.1.max(one.1)));
        self.listing_age.set(listing_age.as_secs_f64());
        self.listing_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
        self.queue_age.set(age.as_secs_f64());
        self.queue_length.set(i64::try_from(length).unwrap_or(i64::MAX));
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A reconcile under way.
pub struct Running<'a>(&'a Metrics);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.active.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_counted_under_one_reason() {
        let metrics = Metrics::default();
        let line = |reason: &str| {
            let text = metrics.text();
            let start = format!("toolzz_operator_resources{{reason=\"{reason}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
        };
        metrics.resource("a", Reason::Created);
        metrics.resource("b", Reason::Created);
        metrics.resource("a", Reason::SecretNotFound);
        metrics.resource("a", Reason::SecretNotFound);
        assert_eq!(line("Created").as_deref(), Some("1"));
        assert_eq!(line("SecretNotFound").as_deref(), Some("1"));
        metrics.gone("a");
        assert_eq!(line("SecretNotFound").as_deref(), Some("0"));
    }

    #[test]
    fn the_queue_has_a_length_and_an_age() {
        struct Queue(usize, u64);
        impl Due for Queue {
            fn due(&self) -> (usize, Duration) {
                (self.0, Duration::from_secs(self.1))
            }
        }
        let metrics = Metrics::default();
        let says = |length: usize, age: u64| {
            let text = metrics.text();
            let lines = [
                format!("toolzz_operator_queue_length {length}\n"),
                format!("toolzz_operator_queue_age_seconds {age}.0\n"),
            ];
            assert!(lines.iter().all(|line| text.contains(line)), "{text}");
        };
        says(0, 0);
        let (one, two) = (Arc::new(Queue(2, 3)), Arc::new(Queue(1, 7)));
        metrics.watch(&one);
        metrics.watch(&two);
        says(3, 7);
        drop(two);
        says(2, 3);
    }

    #[test]
    fn a_queue_is_asked_under_no_lock() {
        struct Queue(Arc<Metrics>);
        impl Due for Queue {
            fn due(&self) -> (usize, Duration) {
                (usize::from(self.0.state.try_lock().is_ok()), Duration::ZERO)
            }
        }
        let metrics = Arc::new(Metrics::default());
        let queue = Arc::new(Queue(Arc::clone(&metrics)));
        metrics.watch(&queue);
        assert!(metrics.text().contains("toolzz_operator_queue_length 1\n"), "who is counted may hold the queue");
    }

    #[test]
    fn who_works_on_any_shard_works() {
        let metrics = Metrics::default();
        let has = |line: &str| metrics.text().lines().any(|one| one == line);
        assert!(!metrics.text().contains("shard="));
        for (shard, so, leader) in [(0, false, 0), (1, true, 1), (2, true, 1), (1, false, 1), (2, false, 0)] {
            metrics.shard(shard, so);
            assert!(has(&format!("toolzz_operator_shard{{shard=\"{shard}\"}} {}", u8::from(so))));
            assert!(has(&format!("toolzz_operator_leader {leader}")), "{shard} {so}");
        }
    }

    #[test]
    fn strays_are_the_sum_over_listings() {
        let metrics = Metrics::default();
        metrics.strays("x", 2);
        metrics.strays("y", 1);
        metrics.strays("x", 0);
        assert!(metrics.text().contains("toolzz_operator_stray_credentials 1\n"), "{}", metrics.text());
        metrics.listed("y", 3);
        metrics.listing_gone("y");
        let text = metrics.text();
        assert!(
            text.contains("toolzz_operator_stray_credentials 0\n") && text.contains("toolzz_operator_listing_rows 0\n"),
            "{text}"
        );
    }
}
