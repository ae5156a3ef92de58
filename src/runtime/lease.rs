//! Leader election by a Lease: of several processes one works.
//!
//! The libraries for this tell whether one leads. What is needed here is until when: a write to Toolzz must have ended
//! when somebody else may begin, and Toolzz takes no fencing token. So the holder counts its time from before the renewal
//! that succeeded was sent, and gives itself nine tenths of the lease; the others wait for the whole lease from when they
//! first saw the last renewal. Both use their own monotonic clocks, which go on while a process is stopped: only clocks
//! whose rates differ by more than a tenth could make the two overlap.
//!
//! A Lease that is deleted does not free those who have seen it: they go on waiting for the holder they last saw, who
//! writes it anew. A process that first looks after the deletion knows of no holder and takes the lease at once: one that
//! is cut off from the API server then may write until its tenure ends.
//!
//! `kube-lease-manager`, the library for this, compares the wall clocks of two machines (`renewTime` with its own now) and tells a
//! boolean.
//!
//! Source: `k8s.io/client-go/tools/leaderelection`, whose fields and rules these are.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use thiserror::Error;
use tokio::{sync::watch, time::error::Elapsed};

use super::Shutdown;
use crate::{
    api::{MANAGER, Tick},
    kubernetes::{answered, brief},
    remote::{Clock, LEAST_TENURE, Tenure},
};

/// The least duration of a lease, so that there is time to do something in.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);

/// How long things take in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long the others wait for a holder that is not heard of.
    duration: Duration,
    /// After how long the holder gives up that cannot renew the lease.
    renew_deadline: Duration,
    /// Between two tries to take or renew the lease.
    retry_period: Duration,
}

/// Why an election cannot have this timing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimingError {
    /// There would be no time to do something in.
    #[error("--lease-duration ({0:?}) must be at least {SHORTEST_LEASE:?}")]
    DurationTooShort(Duration),
    /// The holder would not notice in time.
    #[error(
        "--lease-renew-deadline ({deadline:?}) must be at most {most:?} with --lease-duration {duration:?}: a leader ends \
         a second before nine tenths of its lease are over"
    )]
    DeadlineTooLong {
        /// As given.
        deadline: Duration,
        /// What is possible.
        most: Duration,
        /// As given.
        duration: Duration,
    },
    /// One failed try would be the end.
    #[error("--lease-retry-period ({retry:?}) must be at most half of --lease-renew-deadline ({deadline:?})")]
    RetryTooLong {
        /// As given.
        retry: Duration,
        /// As given.
        deadline: Duration,
    },
}

impl Timing {
    /// Of these, the renew deadline is two thirds of the duration where it is not given, and the retry period a fifth of
    /// that, as everywhere: 15 s, 10 s, 2 s.
    ///
    /// # Errors
    /// When they do not fit each other.
    pub fn new(
        duration: Duration,
        renew_deadline: Option<Duration>,
        retry_period: Option<Duration>,
    ) -> Result<Self, TimingError> {
        if duration < SHORTEST_LEASE {
            return Err(TimingError::DurationTooShort(duration));
        }
        let most = tenure(duration) - LEAST_TENURE;
        let renew_deadline = renew_deadline.unwrap_or_else(|| (duration * 2 / 3).min(most));
        if renew_deadline > most {
            return Err(TimingError::DeadlineTooLong { deadline: renew_deadline, most, duration });
        }
        let retry_period = retry_period.unwrap_or(renew_deadline / 5);
        if retry_period > renew_deadline / 2 {
            return Err(TimingError::RetryTooLong { retry: retry_period, deadline: renew_deadline });
        }
        Ok(Self { duration, renew_deadline, retry_period })
    }

    /// Between two tries to take or renew the lease.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// The most time for one try, so that there is another.
    fn patience(&self) -> Duration {
        self.renew_deadline / 2
    }
}

/// How long a holder counts a lease as its own: clocks do not go equally fast.
fn tenure(duration: Duration) -> Duration {
    duration * 9 / 10
}

/// What an election is about.
pub struct Terms {
    /// Access to Kubernetes.
    pub client: Client,
    /// Where the Lease is.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// This process, unlike any other.
    pub identity: String,
    /// How long things take.
    pub timing: Timing,
}

/// What an election has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits for the lease, and can read it or not.
    Waiting {
        /// The last try had an answer.
        reads: bool,
    },
    /// It holds the lease.
    Leading,
    /// It does so no longer.
    Ended,
}

/// The lease is somebody else's, or could not be renewed in time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("this process no longer holds the lease: {0}. It ends, so that nothing is done twice")]
pub struct Lost(String);

/// One process's part in an election.
pub struct Election {
    terms: Terms,
    leases: Api<Lease>,
    tenure: Tenure,
    clock: Clock,
    tell: Box<dyn Fn(Standing) + Send + Sync>,
    /// The Lease as it was seen last.
    seen: Option<Seen>,
    leader: watch::Sender<Option<String>>,
    /// When the renewal that succeeded last was begun.
    renewed: Option<Tick>,
}

/// A Lease, and since when it is known to be as it is.
struct Seen {
    version: Option<String>,
    spec: Option<LeaseSpec>,
    since: Tick,
}

impl Election {
    /// Tells by this tenure whether and how long this process leads.
    pub fn new(terms: Terms, tenure: Tenure, clock: Clock, tell: impl Fn(Standing) + Send + Sync + 'static) -> Self {
        let leases = Api::namespaced(terms.client.clone(), &terms.namespace);
        tell(Standing::Waiting { reads: false });
        let leader = watch::Sender::new(None);
        Self { terms, leases, tenure, clock, tell: Box::new(tell), seen: None, leader, renewed: None }
    }

    /// Whether the last try had it.
    pub fn holds(&self) -> bool {
        self.renewed.is_some() && self.tenure.remaining(self.clock.now()).is_some()
    }

    /// Who holds the lease, as it was seen last.
    pub fn leader(&self) -> watch::Receiver<Option<String>> {
        self.leader.subscribe()
    }

    /// Waits until this process leads; false when the end was asked for before.
    pub async fn won(&mut self, shutdown: Shutdown) -> bool {
        let ended = shutdown.requested();
        tokio::pin!(ended);
        loop {
            let held = self.attempt(Duration::MAX).await;
            (self.tell)(Standing::Waiting { reads: held.is_ok() });
            match held {
                // It may have been stopped meanwhile.
                Ok(true) if self.tenure.remaining(self.clock.now()).is_some() => break,
                Ok(_) => self.renewed = None,
                Err(why) => tracing::warn!(why, "the lease cannot be read or taken; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.terms.timing.retry_period) => {}
                () = &mut ended => return false,
            }
        }
        tracing::info!(lease = self.terms.name, identity = self.terms.identity, "leading");
        (self.tell)(Standing::Leading);
        true
    }

    /// Renews the lease until it is lost; nothing may be written from then on.
    pub async fn lost(&mut self) -> Lost {
        let mut pause = self.terms.timing.retry_period;
        loop {
            tokio::time::sleep(pause).await;
            let held = match self.time_to_renew() {
                Some(left) => self.attempt(left).await,
                None => Err("it could not be renewed in time".to_owned()),
            };
            if self.time_to_renew().is_none() {
                self.tenure.end();
                (self.tell)(Standing::Ended);
                let leader = self.leader.borrow().clone().unwrap_or_default();
                return Lost(held.err().unwrap_or_else(|| format!("it is held by {leader:?}")));
            }
            // Somebody wrote it at the same moment. Who share a lease must not meet again and again.
            pause = if held == Ok(false) {
                pause.mul_f64(rand::random_range(0.1..0.5))
            } else {
                self.terms.timing.retry_period
            };
            if let Err(why) = held {
                tracing::warn!(why, "the lease cannot be renewed; trying again");
            }
        }
    }

    /// The time to the renew deadline. `None`: it is over, or the lease is another's. What lapsed does not come back:
    /// steps may have been left out meanwhile.
    fn time_to_renew(&self) -> Option<Duration> {
        let now = self.clock.now();
        self.tenure.remaining(now)?;
        let left = (self.renewed? + self.terms.timing.renew_deadline) - now;
        (!left.is_zero()).then_some(left)
    }

    /// Gives the lease up, so that nobody has to wait for its end; or to this one, and nobody else takes it meanwhile.
    pub async fn release(&mut self, to: Option<String>) {
        (self.tell)(Standing::Ended);
        self.tenure.end();
        self.renewed = None;
        let released = tokio::time::timeout(self.terms.timing.patience(), async {
            let mut lease = self.leases.get(&self.terms.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.terms.identity) {
                (spec.holder_identity, spec.renew_time) = (to, Some(MicroTime(Timestamp::now())));
                self.leases.replace(&self.terms.name, &params(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        });
        let (lease, released) = (&self.terms.name, within(released.await));
        match released {
            Ok(()) => tracing::info!(lease, "the lease is given up"),
            Err(why) => tracing::warn!(lease, why, "the lease could not be given up; it ends by itself"),
        }
    }

    /// One try to take or renew the lease, within this time; whether this process holds it.
    pub async fn attempt(&mut self, limit: Duration) -> Result<bool, String> {
        let asked = self.clock.now();
        let limit = limit.min(self.terms.timing.patience());
        match tokio::time::timeout(limit, self.try_to_hold()).await {
            Ok(Ok(true)) if self.renewed.is_some() && self.time_to_renew().is_none() => {
                Err("it was renewed too late".to_owned())
            }
            Ok(Ok(true)) => {
                self.renewed = Some(asked);
                self.tenure.extend(asked + tenure(self.terms.timing.duration));
                Ok(true)
            }
            Ok(Ok(false)) => {
                self.tenure.end();
                Ok(false)
            }
            // Somebody else wrote it just now: who holds it, the next try tells.
            Ok(Err(error)) if answered(&error, 409) => Ok(false),
            failed => within(failed),
        }
    }

    /// Who holds the lease and has written it since the last look; without trying to take it.
    pub async fn look(&mut self) -> Result<Option<String>, String> {
        let found = tokio::time::timeout(self.terms.timing.patience(), self.leases.get_opt(&self.terms.name)).await;
        let found = within(found)?;
        let before = self.seen.as_ref().map(|seen| seen.version.clone());
        let seen = Seen::next(self.seen.take(), found.as_ref(), self.clock.now());
        let is_alive = before.is_some_and(|before| before != seen.version);
        let holder = seen.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).filter(|_| is_alive);
        self.seen = Some(seen);
        Ok(holder)
    }

    async fn try_to_hold(&mut self) -> kube::Result<bool> {
        let found = self.leases.get_opt(&self.terms.name).await?;
        let now = self.clock.now();
        let seen = Seen::next(self.seen.take(), found.as_ref(), now);
        let next = claim(&seen, now, &self.terms.identity, self.terms.timing.duration, Timestamp::now());
        let holder = match &next {
            Some(_) => Some(self.terms.identity.clone()),
            None => seen.spec.as_ref().and_then(|spec| spec.holder_identity.clone()),
        };
        self.seen = Some(seen);
        if holder != *self.leader.borrow() {
            tracing::info!(lease = self.terms.name, leader = holder, "the lease has another holder");
            self.leader.send_replace(holder);
        }
        let Some(spec) = next else { return Ok(false) };
        let lease = Lease {
            metadata: found.map_or_else(
                || ObjectMeta { name: Some(self.terms.name.clone()), ..ObjectMeta::default() },
                |found| found.metadata,
            ),
            spec: Some(spec),
        };
        let written = match &lease.metadata.resource_version {
            None => self.leases.create(&params(), &lease).await?,
            Some(_) => self.leases.replace(&self.terms.name, &params(), &lease).await?,
        };
        self.seen = Some(Seen::first(Some(&written), self.clock.now()));
        Ok(true)
    }
}

/// What was answered within the time for it, or why nothing was.
fn within<T>(answer: Result<kube::Result<T>, Elapsed>) -> Result<T, String> {
    let answer = answer.map_err(|_| "the API server does not answer".to_owned())?;
    answer.map_err(|error| format!("the API server: {}", brief(&error)))
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

impl Seen {
    fn first(found: Option<&Lease>, now: Tick) -> Self {
        Self {
            version: found.and_then(|lease| lease.metadata.resource_version.clone()),
            spec: found.and_then(|lease| lease.spec.clone()),
            since: now,
        }
    }

    fn next(known: Option<Self>, found: Option<&Lease>, now: Tick) -> Self {
        known.map_or_else(|| Self::first(found, now), |seen| seen.then(found, now))
    }

    /// What is known after another look.
    fn then(self, found: Option<&Lease>, now: Tick) -> Self {
        let next = Self::first(found, now);
        // Whoever deletes a Lease does not stop its holder.
        if found.is_none() || next.version == self.version { self } else { next }
    }
}

/// What to write to take the lease or to renew it; `None` where it is somebody else's. `wall` is for readers only.
fn claim(seen: &Seen, now: Tick, identity: &str, duration: Duration, wall: Timestamp) -> Option<LeaseSpec> {
    let seconds = i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    let (wall, me) = (Some(MicroTime(wall)), Some(identity.to_owned()));
    let new = LeaseSpec {
        holder_identity: me.clone(),
        lease_duration_seconds: Some(seconds),
        acquire_time: wall.clone(),
        renew_time: wall.clone(),
        lease_transitions: Some(0),
        ..LeaseSpec::default()
    };
    let Some(spec) = &seen.spec else { return Some(new) };
    if spec.holder_identity == me {
        return Some(LeaseSpec { lease_duration_seconds: Some(seconds), renew_time: wall, ..spec.clone() });
    }
    let theirs = Duration::from_secs(spec.lease_duration_seconds.unwrap_or_default().try_into().unwrap_or_default());
    let free = spec.holder_identity.as_ref().is_none_or(String::is_empty);
    let transitions = spec.lease_transitions.unwrap_or_default().saturating_add(1);
    (free || now - seen.since >= theirs.max(duration))
        .then_some(LeaseSpec { lease_transitions: Some(transitions), ..new })
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
