//! The effects on the remote side: one call for each step, and what is learnt from it.

use super::{links::Link, pass::Pass, queue::Lane};
use crate::{
    api::{ListingKey, Reason, Row, Tick, marker_tag},
    plan::{Answered, Desired, Material, Post, Put, Rejection, Step, View},
    remote::{NewCredential, NotDone, Outcome, Unknown},
    secrets,
};

/// Over how many milliseconds news that were held up by a pause are spread.
const NEWS_SPREAD: u64 = 100;

impl Pass<'_> {
    /// Does one step and remembers what came of it.
    pub async fn perform(&mut self, step: Step, desired: &Desired, view: &View) {
        // At the point of effect: the process may have been stopped since the last step.
        if self.ctx.tenure.remaining(self.ctx.clock.now()).is_none() {
            return self.over = true;
        }
        tracing::debug!(step = step.name());
        // Nothing is asked of a connection that is not there: the planner was told.
        let link = self.link.clone();
        match (step, link) {
            (Step::Rest(_), _) => {}
            (Step::ReadMaterial, link) => self.read_material(desired, link.as_deref()).await,
            (Step::Look { keys, began_after }, Some(link)) => self.look(&link, &keys, began_after).await,
            (Step::Post(post), Some(link)) => self.post(&link, &post, desired).await,
            (Step::Put(put), Some(link)) => self.put(&link, &put, desired, view).await,
            (Step::Record(ledger), Some(link)) => self.record(&link, &ledger).await,
            (Step::WriteTarget { target, content }, _) => self.write_target(&target, &content).await,
            (Step::DropTarget(target), _) => self.drop_target(&target).await,
            (Step::Publish(publication), _) => self.publish(&publication, view).await,
            (Step::Release { left_active, nowhere }, _) => self.release(&left_active, &nowhere).await,
            (Step::Look { .. } | Step::Post(_) | Step::Put(_) | Step::Record(_), None) => {
                self.trouble(Reason::ApiUnavailable, "there is no connection to Toolzz", None);
            }
        }
    }

    async fn read_material(&mut self, desired: &Desired, link: Option<&Link>) {
        let namespace = self.object.metadata.namespace.clone().unwrap_or_default();
        match secrets::read(&self.ctx.client, &self.ctx.reach, &namespace, &self.object.spec.credentials).await {
            Err(error) if error.is_transient() => self.trouble(error.reason(), error.to_string(), None),
            Err(error) => {
                self.material = Material::Unusable { reason: error.reason(), message: error.to_string() };
            }
            Ok((values, sources)) => {
                sources.iter().for_each(|source| self.ctx.secrets.read(&namespace, source));
                let catalogue = match link {
                    Some(link) => link.connection.catalogue().await,
                    None => None,
                };
                let integration = catalogue.and_then(|catalogue| catalogue.get(&desired.integration_id));
                let unfit = integration.and_then(|integration| secrets::validate(&integration, &values).err());
                self.material = match unfit {
                    Some(error) => Material::Unusable { reason: Reason::InvalidSpec, message: error.to_string() },
                    None => Material::Read { digest: values.digest(&self.ctx.key, &desired.integration_id), sources },
                };
                self.values = Some(values);
            }
        }
    }

    async fn look(&self, link: &Link, keys: &[ListingKey], began_after: Tick) {
        for key in keys {
            match link.inventory.look(&link.connection, key, began_after).await {
                Outcome::Done(()) => {}
                Outcome::NotDone(why) => return self.not_done(&why, None),
                Outcome::Unknown(why) => return self.trouble(Reason::ApiUnavailable, why.to_string(), None),
            }
        }
    }

    async fn post(&self, link: &Link, post: &Post, desired: &Desired) {
        let Some(values) = &self.values else { return };
        self.remember(|remembered| remembered.plan.posting());
        let credentials = values.to_json();
        let new = NewCredential {
            name: &post.name,
            user_id: &post.user_id,
            unity_id: &post.unity_id,
            integration_id: &post.integration_id,
        };
        match link.connection.create(&new, &credentials).await {
            Outcome::Done(row) => {
                tracing::info!(id = %row.id, tag = marker_tag(&post.name), "staged");
                let now = self.ctx.clock.now();
                self.remember(|remembered| remembered.plan.posted(now));
                self.learn(link, desired, row);
            }
            Outcome::NotDone(why) => self.not_done(&why, Some(post.fingerprint())),
            Outcome::Unknown(why) => {
                tracing::warn!(%why, "outcome of a create is unknown; looking for it before anything is sent again");
                let now = self.ctx.clock.now();
                self.remember(|remembered| remembered.plan.post_lost(now));
            }
        }
    }

    /// Takes note of a row that the answer to an own write showed.
    fn learn(&self, link: &Link, desired: &Desired, row: Row) {
        let now = self.ctx.clock.now();
        let kind = desired.kind.or(row.integration.as_ref().and_then(|integration| integration.kind));
        // Where nobody says which listing it stands in, it may be in any: the next reading of each tells.
        for key in desired.listings() {
            if kind.is_none_or(|kind| key.kind == kind) {
                link.inventory.learn(&key, row.clone(), now);
            }
        }
    }

    async fn put(&self, link: &Link, put: &Put, desired: &Desired, view: &View) {
        let credentials = match (&put.material, &self.values) {
            (Some(_), Some(values)) => Some(values.to_json()),
            (Some(_), None) => return,
            (None, _) => None,
        };
        let before = desired.listings().iter().find_map(|key| link.inventory.row(key, &put.id));
        let sent = self.ctx.clock.now();
        match link.connection.update(&put.id, &put.fields, credentials.as_ref()).await {
            Outcome::Done(row) => {
                tracing::info!(id = %put.id, changes = put.changes.join(","), "put right");
                let answered = Answered {
                    own: put.id_is_own(view),
                    deleting: desired.deleting_for.is_some(),
                    sent,
                    now: self.ctx.clock.now(),
                    before: before.as_ref().map(|seen| &seen.row.fields),
                };
                let settle_period = self.ctx.settings.settle_period;
                self.remember(|remembered| remembered.plan.put_answered(put, &row, &answered, settle_period));
                self.learn(link, desired, row);
            }
            Outcome::NotDone(why @ NotDone::Gone { .. }) => {
                let now = self.ctx.clock.now();
                for key in desired.listings() {
                    link.inventory.forget(&key, &put.id);
                }
                let retired = desired.deleting_for.is_some() || !put.id_is_own(view);
                self.remember(|remembered| {
                    if retired {
                        remembered.plan.missing.push((put.id.clone(), now));
                    } else {
                        remembered.plan.told_gone(&put.id, now);
                    }
                });
                tracing::warn!(id = %put.id, %why, "an update met no credential; looking again");
            }
            Outcome::NotDone(why) => self.not_done(&why, Some(put.fingerprint())),
            Outcome::Unknown(Unknown { .. }) => {
                let now = self.ctx.clock.now();
                self.remember(|remembered| remembered.plan.put_lost(now, self.ctx.settings.settle_period));
                self.trouble(
                    Reason::ApiUnavailable,
                    "the answer to an update was lost; looking before it is sent again",
                    None,
                );
            }
        }
    }

    /// A call that had no effect: what is final for this request is kept as such, the rest is tried again.
    fn not_done(&self, why: &NotDone, request: Option<String>) {
        let now = self.ctx.clock.now();
        match (why, request) {
            (NotDone::Rejected { .. } | NotDone::Unsendable { .. }, Some(request)) => {
                let message = format!("{why}; sent again when the spec or the key material changes, or after a while");
                let rejection = Rejection { request, reason: why.reason(), message, at: now };
                self.remember(|remembered| remembered.plan.refused(rejection));
            }
            // The next step finds that it is over.
            (NotDone::NotLeading { .. }, _) => {}
            // Rights are given without a word to us.
            (NotDone::Forbidden { .. }, _) => {
                self.trouble(why.reason(), why.to_string(), Some(now + self.ctx.settings.resync_interval));
            }
            (NotDone::Paused { until, .. } | NotDone::Throttled { until, .. }, _) => {
                // Not everybody at once: what is news comes soon after the pause, the others after one another.
                let again = match &self.link {
                    Some(link) if self.lane != Lane::News => link.connection.turn_after(*until),
                    _ => *until + std::time::Duration::from_millis(rand::random_range(0..NEWS_SPREAD)),
                };
                self.trouble(why.reason(), why.to_string(), Some(again));
            }
            _ => self.trouble(why.reason(), why.to_string(), None),
        }
    }
}
