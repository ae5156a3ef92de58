//! The operator's clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::Tick;

/// A clock that never goes back. Copies tell the same time; make one and hand it on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The moment it is.
    pub fn now(&self) -> Tick {
        Tick::default() + self.started.elapsed()
    }

    /// Waits until it is later than this: what begins then began strictly after it.
    pub async fn until_after(&self, tick: Tick) {
        while self.now() <= tick {
            tokio::time::sleep(tick - self.now() + Duration::from_millis(1)).await;
        }
    }
}
