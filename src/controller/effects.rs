//! The effects: one write to Kubernetes or one call to the remote API for each step, and what is learnt from it.

use std::sync::Arc;

use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{connections::Link, pass::Pass};
use crate::{
    api::{
        CredentialId, FINALIZER, LEDGER_ANNOTATION, ListingKey, MANAGER, Reason, Tick, ToolzzCredential, marker_tag,
    },
    plan::{Desired, Happening, Ledger, Material, Post, Publication, Put, Rejection, Step, View},
    remote::{NewCredential, NotDone, Outcome, Unknown},
    secrets,
};

impl Pass<'_> {
    /// Does one step and remembers what came of it.
    pub async fn perform(&mut self, step: Step, desired: &Desired, view: &View) {
        let key = desired.listing();
        match step {
            Step::Rest(_) => {}
            Step::ReadMaterial => self.read_material(desired).await,
            Step::Look { key, began_after } => self.look(&key, began_after).await,
            Step::Post(post) => self.post(&post, key.as_ref()).await,
            Step::Record(ledger) => self.record(&ledger).await,
            Step::Put(put) => self.put(&put, key.as_ref(), view).await,
            Step::Publish(publication) => self.publish(&publication, view).await,
            Step::Release { left_active } => self.release(left_active).await,
        }
    }

    async fn read_material(&mut self, desired: &Desired) {
        let namespace = self.object.meta().namespace.clone().unwrap_or_default();
        match secrets::read(&self.ctx.client, &namespace, &self.object.spec.credentials).await {
            Err(error) if error.is_transient() => self.trouble(error.reason(), error.to_string(), None),
            Err(error) => {
                self.material = Material::Unusable { reason: error.reason(), message: error.to_string() };
            }
            Ok((values, sources)) => {
                let catalogue = self.catalogue().await;
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

    async fn look(&self, key: &ListingKey, began_after: Tick) {
        let Ok(link) = &self.link else { return };
        match link.inventory.look(&link.connection, key, began_after).await {
            Outcome::Done(()) => self.count_strays(link, key),
            Outcome::NotDone(why) => self.not_done(&why, None),
            Outcome::Unknown(why) => self.trouble(Reason::ApiUnavailable, why.to_string(), None),
        }
    }

    /// Marked credentials that no ledger names: inactive leftovers of lost answers and of superseded material.
    fn count_strays(&self, link: &Link, key: &ListingKey) {
        let marked: Vec<CredentialId> = link.inventory.marked(key).into_iter().map(|seen| seen.row.id).collect();
        let named = self.ctx.claims.names(link.service(), &marked);
        self.ctx.metrics.strays(&link.listing(key), marked.len().saturating_sub(named));
    }

    async fn post(&self, post: &Post, key: Option<&ListingKey>) {
        let (Some(values), Some(key), Ok(link)) = (&self.values, key, &self.link) else { return };
        // Whatever becomes of it: what was known of an earlier one is settled by now.
        self.remember(|remembered| remembered.plan.given_up = None);
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
                link.inventory.learn(key, row, self.ctx.clock.now());
            }
            Outcome::NotDone(why) => self.not_done(&why, Some(post.fingerprint())),
            Outcome::Unknown(why) => {
                tracing::warn!(%why, "outcome of a create is unknown; looking for it before anything is sent again");
                let now = self.ctx.clock.now();
                self.remember(|remembered| remembered.plan.given_up = Some(now));
            }
        }
    }

    async fn put(&self, put: &Put, key: Option<&ListingKey>, view: &View) {
        let Ok(link) = &self.link else { return };
        match link.connection.update(&put.id, &put.fields).await {
            Outcome::Done(row) => {
                tracing::info!(id = %put.id, changes = put.changes.join(","), "put right");
                let rejected = put.verify(&row, view.status.virtual_key.as_deref());
                let inactive = !row.fields.active;
                if let Some(key) = key {
                    link.inventory.learn(key, row, self.ctx.clock.now());
                }
                self.remember(|remembered| {
                    let memory = &mut remembered.plan;
                    memory.doubt = None;
                    memory.rejected = rejected;
                    memory.corrected.clone_from(&put.changes);
                    memory.deactivated = inactive.then(|| put.id.clone());
                });
            }
            Outcome::NotDone(NotDone::Gone { .. })
                if view.finalizer && self.object.meta().deletion_timestamp.is_some() =>
            {
                self.remember(|remembered| remembered.plan.deactivated = Some(put.id.clone()));
            }
            Outcome::NotDone(why) => {
                if let (NotDone::Gone { .. }, Some(key)) = (&why, key) {
                    link.inventory.forget(key, &put.id);
                }
                self.not_done(&why, Some(put.fingerprint()));
            }
            Outcome::Unknown(Unknown { .. }) => {
                let now = self.ctx.clock.now();
                self.remember(|remembered| remembered.plan.doubt = Some(now));
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
        match (why, request) {
            (NotDone::Rejected { .. } | NotDone::Forbidden { .. } | NotDone::Unsendable { .. }, Some(request)) => {
                let message = format!("{why}; not sent again until the spec or the key material changes");
                let rejection = Rejection { request, reason: why.reason(), message };
                self.remember(|remembered| remembered.plan.rejected = Some(rejection));
            }
            (NotDone::Paused { until, .. } | NotDone::Throttled { until, .. }, _) => {
                // Spread over a second, so that not everybody comes back at once.
                let later = std::time::Duration::from_millis(rand::random_range(0..1000));
                self.trouble(why.reason(), why.to_string(), Some(*until + later));
            }
            _ => self.trouble(why.reason(), why.to_string(), None),
        }
    }

    async fn record(&mut self, ledger: &Ledger) {
        let meta = self.object.meta();
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let text = ledger.write(&namespace, &name, &self.ctx.ledger_mac(&self.object));
        let mut finalizers = meta.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|one| one == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        let patch = json!({
            "metadata": {
                "resourceVersion": meta.resource_version,
                "finalizers": finalizers,
                "annotations": { LEDGER_ANNOTATION: text },
            },
        });
        if self.patch(patch, false).await {
            let service = self.ctx.connections.service(&self.object);
            self.ctx.memories.while_known(&self.uid, || self.ctx.claims.set(&self.uid, &service, ledger));
        }
    }

    async fn publish(&mut self, publication: &Publication, view: &View) {
        let status = merge_patch(&view.status, &publication.status);
        let patch = json!({ "metadata": { "resourceVersion": self.object.meta().resource_version }, "status": status });
        if self.patch(patch, true).await {
            self.remember(|remembered| remembered.plan.corrected.clear());
            if let Some(happening) = &publication.event {
                tracing::info!(reason = %happening.reason, note = happening.note, "status changed");
                self.ctx.events.tell(&*self.object, happening);
            }
        }
    }

    async fn release(&mut self, left_active: Option<CredentialId>) {
        let meta = self.object.meta();
        let finalizers: Vec<&String> =
            meta.finalizers.iter().flatten().filter(|one| one.as_str() != FINALIZER).collect();
        let patch = json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": finalizers } });
        let object = Arc::clone(&self.object);
        if !self.patch(patch, false).await {
            return;
        }
        self.over = true;
        if let Some(id) = left_active {
            let note =
                format!("the deletion deadline is over: credential {id} stays active at Toolzz; deactivate it there");
            tracing::error!(%id, "{note}");
            self.ctx.metrics.orphaned();
            self.ctx.events.tell(&*object, &Happening { reason: Reason::DeletionBlocked, note });
        }
    }

    /// One write to the resource, on condition that it is as this pass has it. True when it was written.
    async fn patch(&mut self, patch: Value, status: bool) -> bool {
        let meta = self.object.meta();
        let (Some(namespace), Some(name)) = (meta.namespace.clone(), meta.name.clone()) else { return false };
        let api: Api<ToolzzCredential> = Api::namespaced(self.ctx.client.clone(), &namespace);
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        let written = if status {
            api.patch_status(&name, &params, &patch).await
        } else {
            api.patch(&name, &params, &patch).await
        };
        match written {
            Ok(object) => {
                self.object = Arc::new(object);
                let object = Arc::clone(&self.object);
                self.remember(|remembered| remembered.written = Some(object));
                true
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                self.over = true;
                false
            }
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                self.fetch(&api, &name).await;
                false
            }
            Err(error) => {
                self.kubernetes_trouble(&error);
                false
            }
        }
    }

    /// Somebody else wrote meanwhile: goes on with the resource as it is now.
    async fn fetch(&mut self, api: &Api<ToolzzCredential>, name: &str) {
        match api.get_opt(name).await {
            Ok(Some(object)) if object.meta().uid.as_deref() == Some(&self.uid) => {
                // An edited spec may want other material.
                if object.meta().generation != self.object.meta().generation {
                    self.material = Material::Unread;
                    self.values = None;
                }
                self.object = Arc::new(object);
                let object = Arc::clone(&self.object);
                self.remember(|remembered| remembered.written = Some(object));
            }
            Ok(_) => self.over = true,
            Err(error) => self.kubernetes_trouble(&error),
        }
    }

    /// The API server did not take a write. The status cannot be written either, so the pass ends here.
    fn kubernetes_trouble(&mut self, error: &kube::Error) {
        self.trouble(Reason::ApiUnavailable, format!("Kubernetes API: {}", brief(error)), None);
        self.over = true;
    }
}

/// An error of the Kubernetes API without its text, which may quote what was sent.
pub(super) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => format!("{} {}", answer.code, answer.reason),
        kube::Error::HyperError(_) | kube::Error::Service(_) => "no connection".to_owned(),
        _ => "request failed".to_owned(),
    }
}

/// A merge patch that makes `before` into `after`: what is no longer there is removed.
/// Source: RFC 7396.
fn merge_patch(before: &impl serde::Serialize, after: &impl serde::Serialize) -> Value {
    let object = |value: Result<Value, _>| match value {
        Ok(Value::Object(map)) => map,
        Ok(_) | Err::<_, serde_json::Error>(_) => Map::new(),
    };
    let before = object(serde_json::to_value(before));
    let mut after = object(serde_json::to_value(after));
    for key in before.keys() {
        if !after.contains_key(key) {
            after.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(after)
}
