//! What every call passes: the token bucket, the pauses the API asks for, and a refused connection.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use tokio::sync::watch;

use super::{
    Clock,
    client::Operation,
    config::Config,
    outcome::{NotDone, Refusal},
};
use crate::api::{Reason, Tick};

/// No pause is longer, whatever the API says: somebody's typing error must not stop us for a year.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Where a 429 does not say how long: from the first to the second of these, doubling.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Where there is no token bucket: how many that waited for the end of a pause come back in a second.
const BACK_IN_A_SECOND: u32 = 50;

/// Whether a connection takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Open,
    /// The API asked for a pause: calls are not done until then.
    Paused {
        /// When it is over.
        until: Tick,
        /// `RateLimited` or `ApiUnavailable`.
        reason: Reason,
    },
    /// The token is refused: calls are not done until a probe, made by itself, says otherwise.
    Refused {
        /// Why.
        refusal: Refusal,
    },
}

pub(super) struct Gate {
    clock: Clock,
    bucket: Option<DefaultDirectRateLimiter>,
    /// What the bucket lets through in a second.
    limit: Option<u32>,
    /// The passes under way that use this connection, and the calls that passed the gate and have no answer yet.
    passes: AtomicUsize,
    calls: AtomicUsize,
    /// Whoever waits for the bucket: in order, and with one timer.
    queue: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    state: watch::Sender<State>,
}

#[derive(Default)]
struct Inner {
    pause: Option<Pause>,
    refusal: Option<Refusal>,
    /// 429s in a row that did not say how long.
    strikes: u32,
    /// How many were told when to come back after the pause that ends then.
    told: (Tick, u32),
}

#[derive(Clone, Copy)]
struct Pause {
    since: Tick,
    until: Tick,
    reason: Reason,
}

impl Gate {
    pub(super) fn new(clock: Clock, config: &Config) -> Self {
        // Rounded up: none for one would be none at all.
        let share = |limit: std::num::NonZeroU32| {
            let share = limit.get().div_ceil(config.shares.get().into());
            std::num::NonZeroU32::new(share).unwrap_or(limit)
        };
        let limit = config.rate_limit.map(share);
        Self {
            clock,
            bucket: limit.map(|limit| RateLimiter::direct(Quota::per_second(limit))),
            limit: limit.map(std::num::NonZeroU32::get),
            passes: AtomicUsize::default(),
            calls: AtomicUsize::default(),
            queue: tokio::sync::Mutex::default(),
            inner: Mutex::default(),
            state: watch::Sender::new(State::Open),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// A pass begins that uses the connection; it is over when the guard goes.
    pub(super) fn pass(&self) -> Counted<'_> {
        Counted::new(&self.passes)
    }

    /// Whether one more pass has something to gain. Those that have no call under way wait for the bucket, or will: more
    /// of them than get through in a quarter of a second would only keep whoever is more urgent waiting longer.
    pub(super) fn has_room(&self) -> bool {
        let Some(limit) = self.limit else { return true };
        let waiting = self.passes.load(Relaxed).saturating_sub(self.calls.load(Relaxed));
        waiting < usize::try_from(limit / 4).unwrap_or(usize::MAX).max(2)
    }

    /// When to come back after the pause that ends then: one after another, as fast as the bucket lets them through, so
    /// that the API is not met by everybody at once.
    pub(super) fn turn_after(&self, until: Tick) -> Tick {
        let mut inner = self.lock();
        if inner.told.0 != until {
            inner.told = (until, 0);
        }
        inner.told.1 += 1;
        until + Duration::from_secs(1) * inner.told.1 / self.limit.unwrap_or(BACK_IN_A_SECOND)
    }

    /// Waits for the token bucket; then the call may be sent, and is under way until the guard goes.
    pub(super) async fn enter(&self, operation: Operation) -> Result<Counted<'_>, NotDone> {
        self.check(operation)?;
        if let Some(bucket) = &self.bucket {
            let _turn = self.queue.lock().await;
            while let Err(not_yet) = bucket.check() {
                self.check(operation)?;
                let wait = not_yet.wait_time_from(DefaultClock::default().now());
                tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
            }
        }
        self.check(operation).map(|()| self.under_way())
    }

    pub(super) fn under_way(&self) -> Counted<'_> {
        Counted::new(&self.calls)
    }

    fn check(&self, operation: Operation) -> Result<(), NotDone> {
        let mut inner = self.lock();
        self.end_pause(&mut inner);
        // The probe is how a refusal ends.
        if operation != Operation::Probe
            && let Some(refusal) = inner.refusal.clone()
        {
            return Err(NotDone::Refused { operation, refusal });
        }
        match inner.pause {
            Some(Pause { until, reason, .. }) => Err(NotDone::Paused { operation, until, reason }),
            None => Ok(()),
        }
    }

    /// A call that began then was answered 429. Returns when calls may go on.
    pub(super) fn throttled(&self, began: Tick, retry_after: Option<Duration>) -> Tick {
        let mut inner = self.lock();
        let wait = retry_after.unwrap_or_else(|| {
            // Answers to calls sent before the pause began belong to the same burst.
            let known = inner.pause.is_some_and(|pause| began <= pause.since);
            if !known {
                inner.strikes += 1;
            }
            let doubled = 1_u32.checked_shl(inner.strikes.saturating_sub(1)).unwrap_or(u32::MAX);
            BACKOFF.0.saturating_mul(doubled).min(BACKOFF.1)
        });
        self.pause(&mut inner, wait, Reason::RateLimited)
    }

    /// A call was answered 503 with the time to wait.
    pub(super) fn unavailable(&self, retry_after: Duration) -> Tick {
        self.pause(&mut self.lock(), retry_after, Reason::ApiUnavailable)
    }

    fn pause(&self, inner: &mut Inner, wait: Duration, reason: Reason) -> Tick {
        let now = self.clock.now();
        let until = now + wait.min(LONGEST_PAUSE);
        let pause = match inner.pause {
            Some(pause) if pause.until >= until => pause,
            Some(pause) => Pause { until, reason, ..pause },
            None => Pause { since: now, until, reason },
        };
        inner.pause = Some(pause);
        self.publish(inner);
        pause.until
    }

    /// A call was answered with anything but 429.
    pub(super) fn answered(&self, began: Tick) {
        let mut inner = self.lock();
        if inner.pause.is_none_or(|pause| began > pause.until) {
            inner.strikes = 0;
        }
    }

    /// Publishes the end of a pause that is over, and says until when one still lasts.
    pub(super) fn paused_until(&self) -> Option<Tick> {
        let mut inner = self.lock();
        self.end_pause(&mut inner);
        inner.pause.map(|pause| pause.until)
    }

    fn end_pause(&self, inner: &mut Inner) {
        if inner.pause.is_some_and(|pause| pause.until <= self.clock.now()) {
            inner.pause = None;
            self.publish(inner);
        }
    }

    /// The connection is refused; true where it was not before.
    pub(super) fn refuse(&self, refusal: Refusal) -> bool {
        let mut inner = self.lock();
        let before = inner.refusal.replace(refusal);
        self.publish(&inner);
        before.is_none()
    }

    /// The token is accepted.
    pub(super) fn admit(&self) {
        let mut inner = self.lock();
        inner.refusal = None;
        self.publish(&inner);
    }

    pub(super) fn is_refused(&self) -> bool {
        self.lock().refusal.is_some()
    }

    fn publish(&self, inner: &Inner) {
        let new = match (&inner.refusal, inner.pause) {
            (Some(refusal), _) => State::Refused { refusal: refusal.clone() },
            (None, Some(Pause { until, reason, .. })) => State::Paused { until, reason },
            (None, None) => State::Open,
        };
        self.state.send_if_modified(|state| {
            let changed = *state != new;
            *state = new;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of those that are counted.
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a `Retry-After` says: seconds or an HTTP date. `None` where it cannot be read or lies in the past.
/// Source: RFC 9110, 10.2.3.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are very long.
        value.parse().map_or(LONGEST_PAUSE, Duration::from_secs)
    } else {
        // RFC 9110 dates are written as RFC 2822 has them; a wrong day of the week is none of our business.
        let then = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(value).ok()?;
        then.duration_since(now).try_into().ok()?
    };
    (!wait.is_zero()).then(|| wait.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let now: Timestamp = "2024-09-03T18:52:29Z".parse().unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("1", seconds(1)),
            (" 120 ", seconds(120)),
            ("0", None),
            ("7200", seconds(3600)),
            ("99999999999999999999999", seconds(3600)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Tue, 03 Sep 2024 18:52:59 GMT", seconds(30)),
            ("Tue, 03 Sep 2024 18:52:29 GMT", None),
            ("Tue, 03 Sep 2024 18:00:00 GMT", None),
            ("Tue, 03 Sep 2034 18:00:00 GMT", seconds(3600)),
        ] {
            assert_eq!(retry_after(value, now), expected, "{value:?}");
        }
    }

    fn gate() -> Gate {
        Gate::new(Clock::start(), &Config::new("http://127.0.0.1"))
    }

    /// Of one that shares a rate limit with others.
    fn limited(rate_limit: u32, shares: u16) -> Gate {
        let mut config = Config::new("http://127.0.0.1");
        config.rate_limit = std::num::NonZeroU32::new(rate_limit);
        config.shares = std::num::NonZeroU16::new(shares).unwrap();
        Gate::new(Clock::start(), &config)
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_429_is_one_strike_and_the_next_one_doubles() {
        let gate = gate();
        let began = gate.clock.now();
        tokio::time::advance(Duration::from_millis(5)).await;
        let until = gate.throttled(began, None);
        for _ in 0..5 {
            assert_eq!(gate.throttled(began, None), until);
        }
        assert_eq!(until - gate.clock.now(), Duration::from_secs(1));
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            tokio::time::advance(Duration::from_secs(100)).await;
            assert!(gate.check(Operation::List).is_ok());
            assert_eq!(gate.throttled(gate.clock.now(), None) - gate.clock.now(), Duration::from_secs(seconds));
        }
        tokio::time::advance(Duration::from_secs(100)).await;
        gate.answered(gate.clock.now());
        assert_eq!(gate.throttled(gate.clock.now(), None) - gate.clock.now(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_outlasts_a_pause_and_a_probe_passes_only_the_refusal() {
        let gate = gate();
        let state = gate.subscribe();
        gate.unavailable(Duration::from_secs(10));
        assert!(gate.refuse(Refusal::Unauthorized));
        assert!(!gate.refuse(Refusal::Forbidden));
        assert_eq!(*state.borrow(), State::Refused { refusal: Refusal::Forbidden });
        assert!(matches!(gate.check(Operation::List), Err(NotDone::Refused { .. })));
        assert!(matches!(gate.check(Operation::Probe), Err(NotDone::Paused { .. })));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(gate.check(Operation::Probe).is_ok());
        assert!(matches!(gate.check(Operation::List), Err(NotDone::Refused { .. })));
        gate.admit();
        assert_eq!(*state.borrow(), State::Open);
        assert!(gate.check(Operation::List).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_as_many_as_get_through_soon_beside_those_whose_calls_are_under_way() {
        let gate = limited(36, 3);
        let mut passes = vec![gate.pass(), gate.pass()];
        assert!(gate.has_room());
        passes.push(gate.pass());
        assert!(!gate.has_room());
        let call = gate.enter(Operation::List).await;
        assert!(call.is_ok() && gate.has_room());
        drop(call);
        assert!(!gate.has_room());
        passes.pop();
        assert!(gate.has_room());
        let unlimited = self::gate();
        let passes: Vec<_> = (0..100).map(|_| unlimited.pass()).collect();
        assert!(unlimited.has_room() && passes.len() == 100);
    }

    #[test]
    fn after_a_pause_they_come_one_after_another() {
        let gate = limited(8, 2);
        let turns: Vec<u64> = (0..5).map(|_| gate.turn_after(Tick(1000)).0).collect();
        assert_eq!(turns, [1250, 1500, 1750, 2000, 2250]);
        assert_eq!(gate.turn_after(Tick(9000)), Tick(9250), "another pause begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn the_bucket_holds_calls_back_and_a_pause_ends_their_waiting() {
        let gate = limited(5, 3);
        assert!(gate.enter(Operation::List).await.is_ok());
        assert!(gate.enter(Operation::List).await.is_ok());
        let waiting = gate.enter(Operation::List);
        tokio::pin!(waiting);
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        gate.unavailable(Duration::from_secs(10));
        assert!(matches!(waiting.await, Err(NotDone::Paused { .. })));
    }
}
