//! Whether a connection works, said in its status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::json;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Link, Links, build::Problem, object::Object};
use crate::{
    api::{Class, Conditions, ConnectionKey, ConnectionStatus, Reason, condition},
    controller::context::lock,
    kubernetes::brief,
    plan::Happening,
    remote::Refusal,
};

/// The least time between two writes of a status.
const PAUSE: Duration = Duration::from_secs(1);
/// The same, where nothing but the number of credentials changed.
const LONG_PAUSE: Duration = Duration::from_secs(10);
/// How soon a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// The longest message.
const MESSAGE: usize = 1024;

/// How a connection is, in short.
struct Finding {
    reachable: Option<bool>,
    authorized: Option<bool>,
    reason: Reason,
    message: String,
}

impl Links {
    /// Asks a connection that fails, or that nobody has used for a while, and keeps its status. Ends with its entry.
    pub(super) async fn tend(self: Arc<Self>, key: ConnectionKey, changed: Arc<Notify>) {
        // Its status is its owner's: the shard of its namespace, or of its own name where it has none.
        if !self.shared.share.has(key.namespace.as_ref().unwrap_or(&key.name)) {
            return;
        }
        let mut written: Option<Instant> = None;
        loop {
            let Some((object, link, users)) = self.entry(&key) else { return };
            let mut next = None;
            if let Ok(link) = &link
                && link.connection.refusal().is_none()
            {
                let due = link.health.due(self.shared.resync_interval);
                if due <= Instant::now() {
                    let verdict = link.connection.check().await;
                    link.health.set(verdict);
                    continue;
                }
                next = Some(due);
            }
            if let Some(finding) = find(&key, &link) {
                let before = object.status();
                let wished = status(&finding, &before, object.meta().generation, users);
                let pause = if wished.conditions == before.conditions { LONG_PAUSE } else { PAUSE };
                let may = written.map_or_else(Instant::now, |at| at + pause);
                if wished != before {
                    if may <= Instant::now() {
                        written = Some(Instant::now());
                        if !self.write(&key, &object, &before, wished, &finding).await {
                            sleep_until(Instant::now() + RETRY).await;
                        }
                        continue;
                    }
                    next = Some(next.map_or(may, |next| may.min(next)));
                }
            }
            // The link must not outlive its place here.
            drop(link);
            let wait = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed.notified() => {}
                () = wait => {}
            }
        }
    }

    fn entry(&self, key: &ConnectionKey) -> Option<(Object, Result<Arc<Link>, Problem>, usize)> {
        let state = lock(&self.state);
        let entry = state.entries.get(key)?;
        let users = state.users.get(key).map_or(0, |users| users.len());
        Some((entry.object.clone(), entry.link.clone(), users))
    }

    async fn write(
        &self,
        key: &ConnectionKey,
        object: &Object,
        before: &ConnectionStatus,
        wished: ConnectionStatus,
        finding: &Finding,
    ) -> bool {
        let patch = json!({ "metadata": { "uid": object.meta().uid }, "status": wished });
        match object.patch_status(&self.shared.client, patch).await {
            Ok(written) => {
                let mut state = lock(&self.state);
                // What the watch showed meanwhile may be newer in its spec.
                if let Some(entry) =
                    state.entries.get_mut(key).filter(|entry| entry.object.version() == written.version())
                {
                    entry.object = written;
                }
                drop(state);
                let was = condition(&before.conditions, "Ready");
                let bad = finding.reason.class() != Class::Good;
                if bad && was.is_none_or(|was| was.reason != finding.reason.as_str()) {
                    let happening = Happening { reason: finding.reason, note: finding.message.clone() };
                    object.tell(&self.shared.events, &happening);
                }
                true
            }
            Err(error) => {
                tracing::warn!(connection = %key, error = %brief(&error), "the connection's status was not written; trying again");
                false
            }
        }
    }
}

/// How a connection is; `None` while nobody knows.
fn find(key: &ConnectionKey, link: &Result<Arc<Link>, Problem>) -> Option<Finding> {
    let link = match link {
        Err(problem) if problem.reason == Reason::Pending => return None,
        Err(problem) => {
            let Problem { reason, message } = problem.clone();
            return Some(Finding { reachable: None, authorized: None, reason, message });
        }
        Ok(link) => link,
    };
    if let Some(refusal) = link.connection.refusal() {
        let (reason, message) = (refusal.reason(), refusal.to_string());
        // Without a token nothing was sent.
        let reachable = (!matches!(refusal, Refusal::NoToken(_))).then_some(true);
        return Some(Finding { reachable, authorized: Some(false), reason, message });
    }
    Some(match link.health.verdict()? {
        Ok(()) => Finding {
            reachable: Some(true),
            authorized: Some(true),
            reason: Reason::Connected,
            message: format!("{key} works: Toolzz answers and takes the token"),
        },
        Err((reason, message)) => Finding { reachable: Some(false), authorized: None, reason, message },
    })
}

fn status(finding: &Finding, before: &ConnectionStatus, generation: Option<i64>, users: usize) -> ConnectionStatus {
    let Finding { reason, message, .. } = finding;
    let message: String = message.chars().take(MESSAGE).collect();
    let part = |known: Option<bool>, good: &'static str| match known {
        Some(true) => (Reason::Connected, good),
        Some(false) => (*reason, message.as_str()),
        None => (Reason::Pending, "not known"),
    };
    let reachable = part(finding.reachable, "Toolzz answers");
    let authorized = part(finding.authorized, "Toolzz takes the token");
    let conditions = Conditions::new()
        .with("Ready", Some(reason.class() == Class::Good), reason, message.clone())
        .with("Reachable", finding.reachable, reachable.0, reachable.1)
        .with("Authorized", finding.authorized, authorized.0, authorized.1);
    let conditions = match reason.class() {
        Class::Good | Class::Paused => conditions,
        Class::Waiting => conditions.with("Reconciling", Some(true), reason, message.clone()),
        Class::Stalled => conditions.with("Stalled", Some(true), reason, message.clone()),
    };
    ConnectionStatus {
        observed_generation: generation,
        credentials: Some(i64::try_from(users).unwrap_or(i64::MAX)),
        conditions: conditions.merge(&before.conditions, generation, Timestamp::now()),
    }
}
