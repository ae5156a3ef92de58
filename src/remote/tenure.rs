//! Until when this process may write.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use super::Clock;
use crate::api::Tick;

/// Too short to begin anything in.
pub const LEAST_TENURE: Duration = Duration::from_secs(1);

/// Until when this process may write. Copies share it. It is asked at the point of effect: a process that was stopped
/// and wakes after its time finds that it is over, however far it was.
#[derive(Clone, Debug)]
pub struct Tenure {
    own: Arc<AtomicU64>,
    /// Of another one, that this one ends with.
    within: Option<Arc<AtomicU64>>,
}

impl Tenure {
    /// For a process that is alone by other means.
    pub fn unlimited() -> Self {
        Self { own: Arc::new(AtomicU64::new(u64::MAX)), within: None }
    }

    /// Not yet.
    pub fn none() -> Self {
        Self { own: Arc::default(), within: None }
    }

    /// Not yet, and never for longer than this one.
    pub fn within(&self) -> Self {
        Self { own: Arc::default(), within: Some(Arc::clone(&self.own)) }
    }

    /// Until then.
    pub fn extend(&self, until: Tick) {
        self.own.store(until.0, Ordering::SeqCst);
    }

    /// No longer.
    pub fn end(&self) {
        self.extend(Tick(0));
    }

    /// The time that is left: no write may take longer. `None`: it is over, or as good as over.
    pub fn remaining(&self, now: Tick) -> Option<Duration> {
        Some(self.until() - now).filter(|left| *left >= LEAST_TENURE)
    }

    /// Does this as long as there is time left; `None`: it was left undone.
    ///
    /// Time limits look at the clock after a step, and a process that was stopped takes one more step when it wakes:
    /// here the clock is asked before each.
    pub async fn during<T>(&self, clock: Clock, effect: impl Future<Output = T>) -> Option<T> {
        let mut effect = pin!(effect);
        poll_fn(|context| {
            if clock.now() >= self.until() {
                return Poll::Ready(None);
            }
            effect.as_mut().poll(context).map(Some)
        })
        .await
    }

    fn until(&self) -> Tick {
        let until = |one: &AtomicU64| one.load(Ordering::SeqCst);
        Tick(until(&self.own).min(self.within.as_deref().map_or(u64::MAX, until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_a_second_before_its_time() {
        let tenure = Tenure::none();
        assert_eq!(tenure.remaining(Tick(0)), None);
        tenure.extend(Tick(5000));
        for (now, left) in [(0, Some(5000)), (4000, Some(1000)), (4001, None), (5000, None), (9000, None)] {
            assert_eq!(tenure.remaining(Tick(now)), left.map(Duration::from_millis), "{now}");
        }
        tenure.end();
        assert_eq!(tenure.remaining(Tick(0)), None);
        assert!(Tenure::unlimited().remaining(Tick(1 << 40)).is_some());
    }

    #[test]
    fn ends_with_the_one_it_is_within() {
        let outer = Tenure::none();
        let (inner, sibling) = (outer.within(), outer.within());
        let left = || [&outer, &inner, &sibling].map(|one| one.remaining(Tick(0)).map(|left| left.as_millis()));
        inner.extend(Tick(9000));
        assert_eq!(left(), [None; 3]);
        outer.extend(Tick(5000));
        assert_eq!(left(), [Some(5000), Some(5000), None]);
        inner.extend(Tick(3000));
        assert_eq!(left(), [Some(5000), Some(3000), None]);
        inner.end();
        assert_eq!(left(), [Some(5000), None, None], "the outer one goes on");
        inner.extend(Tick(9000));
        outer.end();
        assert_eq!(left(), [None; 3]);
    }

    /// A process that is stopped and wakes late, seen from within: time passes, and no timer is looked at in between.
    #[tokio::test(start_paused = true)]
    async fn takes_no_further_step_when_it_wakes_too_late() {
        let (clock, tenure) = (Clock::start(), Tenure::none());
        tenure.extend(Tick(5000));
        for (slept, steps) in [(4999, 2), (5000, 1), (9000, 1)] {
            let mut taken = 0;
            let clock = Clock::start();
            let effect = poll_fn(|context| {
                taken += 1;
                context.waker().wake_by_ref();
                if taken == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let asleep = tokio::time::advance(Duration::from_millis(slept));
            let (done, ()) = tokio::join!(tenure.during(clock, effect), asleep);
            assert_eq!((taken, done.is_some()), (steps, steps == 2), "{slept}");
        }
        assert_eq!(Tenure::unlimited().during(clock, async { 1 }).await, Some(1));
        assert_eq!(Tenure::none().during(clock, async { 1 }).await, None);
    }
}
