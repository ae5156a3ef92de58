//! Is it this request that is forbidden, or the token? And when is a refused token good again?

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{
    client::{Connection, Operation},
    outcome::{Failure, NotDone, Refusal},
};

/// The longest pause between two probes of a refused connection.
const LONGEST: Duration = Duration::from_secs(300);
/// How often a refused connection looks whether its token was replaced.
const TOKEN_CHECK: Duration = Duration::from_secs(1);

/// What the last probe found, so that a burst of refused calls asks once.
#[derive(Default)]
pub(super) struct Prober(Mutex<Option<Finding>>);

struct Finding {
    /// When the probe began.
    at: crate::api::Tick,
    generation: u64,
    refusal: Option<Refusal>,
}

impl Connection {
    /// A call with this token was answered 401 or 403: finds out what that means for the connection.
    pub(super) async fn refused(&self, operation: Operation, status: u16, generation: u64) -> NotDone {
        let asked = self.0.clock.now();
        let mut last = self.0.prober.0.lock().await;
        if self.0.token.generation() != generation {
            return NotDone::TokenReplaced { operation, status };
        }
        let known = last.as_ref().filter(|finding| finding.generation == generation && finding.at >= asked);
        let refusal = match known {
            Some(finding) => finding.refusal.clone(),
            None => {
                let at = self.0.clock.now();
                let refusal = match self.probe().await {
                    Ok(()) => None,
                    Err(failure) => match refusal_of(&failure) {
                        Some(refusal) => Some(refusal),
                        None => return NotDone::Unconfirmed { operation, status },
                    },
                };
                *last = Some(Finding { at, generation, refusal: refusal.clone() });
                refusal
            }
        };
        drop(last);
        match refusal {
            None => NotDone::Forbidden { operation, status },
            Some(refusal) => {
                self.refuse(refusal.clone());
                NotDone::Refused { operation, refusal }
            }
        }
    }

    /// Refuses every call until a probe in the background says otherwise.
    pub(super) fn refuse(&self, refusal: Refusal) {
        if self.0.gate.refuse(refusal.clone()) {
            tracing::error!(%refusal, "the connection to Toolzz is refused; probing until it is accepted again");
            let inner = Arc::downgrade(&self.0);
            let mut generation = self.0.token.generation();
            let (clock, mut wait) = (self.0.clock, self.0.config.probe_interval);
            tokio::spawn(async move {
                let mut next = clock.now() + wait;
                loop {
                    tokio::time::sleep(TOKEN_CHECK.min(wait)).await;
                    let Some(connection) = inner.upgrade().map(Connection) else { return };
                    let current = connection.0.token.generation();
                    if current == generation && clock.now() < next {
                        continue;
                    }
                    wait = if current == generation {
                        (wait * 2).min(LONGEST)
                    } else {
                        connection.0.config.probe_interval
                    };
                    generation = current;
                    next = clock.now() + wait;
                    match connection.probe().await {
                        Ok(()) => {
                            tracing::info!("the connection to Toolzz is accepted again");
                            connection.0.gate.admit();
                            return;
                        }
                        Err(failure) => {
                            if let Some(refusal) = refusal_of(&failure) {
                                connection.0.gate.refuse(refusal);
                            }
                        }
                    }
                }
            });
        }
    }

    /// Has the end of a pause published, also when nobody calls just then.
    pub(super) fn announce_end_of_pause(&self) {
        let inner = Arc::downgrade(&self.0);
        let clock = self.0.clock;
        let Some(mut until) = self.0.gate.paused_until() else { return };
        tokio::spawn(async move {
            loop {
                clock.until_after(until).await;
                let Some(inner) = inner.upgrade() else { return };
                match inner.gate.paused_until() {
                    Some(later) => until = later,
                    None => return,
                }
            }
        });
    }
}

/// What a probe's failure says of the token, if it says anything.
fn refusal_of(failure: &Failure) -> Option<Refusal> {
    match failure {
        Failure::NotDone(NotDone::Forbidden { status: 401, .. }) => Some(Refusal::Unauthorized),
        Failure::NotDone(NotDone::Forbidden { .. }) => Some(Refusal::Forbidden),
        Failure::NotDone(NotDone::Refused { refusal, .. }) => Some(refusal.clone()),
        _ => None,
    }
}
