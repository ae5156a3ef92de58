//! Leader election by a Lease: of several processes one works.
//!
//! The libraries for this tell whether one leads. What is needed here is until when: a write to Toolzz must have ended
//! when somebody else may begin, and Toolzz takes no fencing token. So the holder counts its time from before the renewal
//! that succeeded was sent, and gives itself nine tenths of the lease; the others wait for the whole lease from when they
//! first saw the last renewal. Both use their own monotonic clocks, which go on while a process is stopped: only clocks
//! whose rates differ by more than a tenth could make the two overlap.
//!
//! Source: `k8s.io/client-go/tools/leaderelection`, whose fields and rules these are.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::PostParams};
use thiserror::Error;

use super::{Metrics, Readiness, Shutdown};
use crate::{
    api::{MANAGER, Tick},
    kubernetes::{answered, brief},
    remote::{Clock, Tenure},
};

/// A lease is renewed so many times within its duration.
const RENEWALS: u32 = 6;
/// The least duration, so that a tenure is longer than its margin.
pub const SHORTEST_LEASE: Duration = Duration::from_secs(3);

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
    /// How long the others wait for a holder that is not heard of.
    pub duration: Duration,
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
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    /// The version of the Lease that was seen last, and when it was first seen.
    seen: Option<(String, Tick)>,
    leader: Option<String>,
    leading: bool,
}

impl Election {
    /// Tells by this tenure whether and how long this process leads.
    pub fn new(terms: Terms, tenure: Tenure, clock: Clock, metrics: Arc<Metrics>, readiness: Arc<Readiness>) -> Self {
        let leases = Api::namespaced(terms.client.clone(), &terms.namespace);
        readiness.stand_by(Some(false));
        Self { terms, leases, tenure, clock, metrics, readiness, seen: None, leader: None, leading: false }
    }

    /// Waits until this process leads; false when the end was asked for before.
    pub async fn won(&mut self, shutdown: Shutdown) -> bool {
        let ended = shutdown.requested();
        tokio::pin!(ended);
        loop {
            let held = self.attempt().await;
            self.readiness.stand_by(Some(held.is_ok()));
            match held {
                Ok(true) => break,
                Ok(false) => {}
                Err(why) => tracing::warn!(why, "the lease cannot be read or taken; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.terms.duration / RENEWALS) => {}
                () = &mut ended => return false,
            }
        }
        tracing::info!(lease = self.terms.name, identity = self.terms.identity, "leading");
        self.metrics.leading(true);
        self.readiness.stand_by(None);
        true
    }

    /// Renews the lease until it is lost.
    pub async fn lost(&mut self) -> Lost {
        loop {
            tokio::time::sleep(self.terms.duration / RENEWALS).await;
            let held = match self.tenure.remaining(self.clock.now()) {
                Some(_) => self.attempt().await,
                None => Err("it could not be renewed in time".to_owned()),
            };
            if self.tenure.remaining(self.clock.now()).is_none() {
                self.metrics.leading(false);
                let leader = self.leader.as_deref().unwrap_or_default();
                return Lost(held.err().unwrap_or_else(|| format!("it is held by {leader:?}")));
            }
            if let Err(why) = held {
                tracing::warn!(why, "the lease cannot be renewed; trying again");
            }
        }
    }

    /// Gives the lease up, so that nobody has to wait for its end.
    pub async fn release(&mut self) {
        self.metrics.leading(false);
        if self.tenure.remaining(self.clock.now()).is_none() {
            return;
        }
        self.tenure.end();
        let limit = self.terms.duration / RENEWALS;
        let released = tokio::time::timeout(limit, async {
            let mut lease = self.leases.get(&self.terms.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.terms.identity) {
                spec.holder_identity = None;
                self.leases.replace(&self.terms.name, &params(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        });
        match released.await {
            Ok(Ok(())) => tracing::info!("the lease is given up"),
            _ => tracing::warn!("the lease could not be given up; it ends by itself"),
        }
    }

    /// One try to take or renew the lease; whether this process holds it.
    async fn attempt(&mut self) -> Result<bool, String> {
        let asked = self.clock.now();
        match tokio::time::timeout(self.terms.duration / 3, self.try_to_hold()).await {
            // What lapsed does not come back: steps have been left out meanwhile.
            Ok(Ok(true)) if self.leading && self.tenure.remaining(self.clock.now()).is_none() => {
                Err("it was renewed too late".to_owned())
            }
            Ok(Ok(true)) => {
                self.leading = true;
                self.tenure.extend(asked + self.terms.duration * 9 / 10);
                Ok(true)
            }
            Ok(Ok(false)) => {
                self.tenure.end();
                Ok(false)
            }
            // Somebody else wrote it just now: who holds it, the next try tells.
            Ok(Err(error)) if answered(&error, 409) => Ok(false),
            Ok(Err(error)) => Err(format!("the API server: {}", brief(&error))),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }

    async fn try_to_hold(&mut self) -> kube::Result<bool> {
        let found = self.leases.get_opt(&self.terms.name).await?;
        let version = found.as_ref().and_then(|lease| lease.metadata.resource_version.clone()).unwrap_or_default();
        let now = self.clock.now();
        let since = match &self.seen {
            Some((known, since)) if *known == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let mut lease = found.unwrap_or_else(|| {
            let mut new = Lease::default();
            new.metadata.name = Some(self.terms.name.clone());
            new
        });
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let next = claim(lease.spec.as_ref(), now - since, &self.terms, Timestamp::now());
        let leader = if next.is_some() { Some(self.terms.identity.clone()) } else { holder };
        if leader != self.leader {
            tracing::info!(leader, "the lease has another holder");
            self.leader = leader;
        }
        let Some(spec) = next else { return Ok(false) };
        lease.spec = Some(spec);
        let written = match &lease.metadata.resource_version {
            None => self.leases.create(&params(), &lease).await?,
            Some(_) => self.leases.replace(&self.terms.name, &params(), &lease).await?,
        };
        self.seen = Some((written.metadata.resource_version.unwrap_or_default(), self.clock.now()));
        Ok(true)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// What to write to take the lease or to renew it; `None` where it is somebody else's.
fn claim(found: Option<&LeaseSpec>, unchanged_for: Duration, terms: &Terms, now: Timestamp) -> Option<LeaseSpec> {
    let seconds = i32::try_from(terms.duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    let (now, me) = (Some(MicroTime(now)), Some(terms.identity.clone()));
    let new = LeaseSpec {
        holder_identity: me.clone(),
        lease_duration_seconds: Some(seconds),
        acquire_time: now.clone(),
        renew_time: now.clone(),
        lease_transitions: Some(0),
        ..LeaseSpec::default()
    };
    let Some(found) = found else { return Some(new) };
    if found.holder_identity == me {
        return Some(LeaseSpec { lease_duration_seconds: Some(seconds), renew_time: now, ..found.clone() });
    }
    let theirs = Duration::from_secs(found.lease_duration_seconds.unwrap_or_default().try_into().unwrap_or_default());
    let free = found.holder_identity.as_ref().is_none_or(String::is_empty);
    let transitions = found.lease_transitions.unwrap_or_default().saturating_add(1);
    (free || unchanged_for >= theirs.max(terms.duration))
        .then_some(LeaseSpec { lease_transitions: Some(transitions), ..new })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        }
    }

    #[tokio::test]
    async fn a_lease_is_taken_when_it_is_free_or_its_holder_was_not_heard_of_for_all_of_it() {
        let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        let terms = Terms {
            client: Client::try_from(config).unwrap(),
            namespace: "ns".to_owned(),
            name: "n".to_owned(),
            identity: "me".to_owned(),
            duration: Duration::from_secs(30),
        };
        let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(100);
        // (what is there, for how many seconds unchanged, the transitions written)
        for (found, unchanged, transitions) in [
            (None, 0, Some(0)),
            (Some(lease("me", 30)), 0, Some(4)),
            (Some(lease("", 30)), 0, Some(5)),
            (Some(LeaseSpec { holder_identity: None, ..lease("", 30) }), 0, Some(5)),
            (Some(lease("other", 30)), 0, None),
            (Some(lease("other", 30)), 29, None),
            (Some(lease("other", 30)), 30, Some(5)),
            // Whose lease is longer is waited for longer; whose is shorter, as long as ours is.
            (Some(lease("other", 60)), 59, None),
            (Some(lease("other", 60)), 60, Some(5)),
            (Some(lease("other", 5)), 29, None),
        ] {
            let next = claim(found.as_ref(), Duration::from_secs(unchanged), &terms, now);
            assert_eq!(next.as_ref().and_then(|spec| spec.lease_transitions), transitions, "{found:?} {unchanged}");
            let Some(next) = next else { continue };
            assert_eq!((next.holder_identity.as_deref(), &next.renew_time), (Some("me"), &Some(MicroTime(now))));
            let renewed = transitions == Some(4);
            assert_eq!(next.acquire_time == Some(MicroTime(now)), !renewed, "{found:?}");
        }
    }
}
