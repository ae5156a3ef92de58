//! Until when this process may write.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::api::Tick;

/// Too short to begin anything in.
const MARGIN: Duration = Duration::from_secs(1);

/// Until when this process may write. Copies share it. It is asked at the point of effect: a process that was stopped
/// and wakes after its time finds that it is over, however far it was.
#[derive(Clone, Debug)]
pub struct Tenure(Arc<AtomicU64>);

impl Tenure {
    /// For a process that is alone by other means.
    pub fn unlimited() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// Not yet.
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Until then.
    pub fn extend(&self, until: Tick) {
        self.0.store(until.0, Ordering::SeqCst);
    }

    /// No longer.
    pub fn end(&self) {
        self.extend(Tick(0));
    }

    /// The time that is left: no write may take longer. `None`: it is over, or as good as over.
    pub fn remaining(&self, now: Tick) -> Option<Duration> {
        Some(Tick(self.0.load(Ordering::SeqCst)) - now).filter(|left| *left >= MARGIN)
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
}
