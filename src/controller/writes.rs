//! The effects on Kubernetes: one write for each step.

use std::sync::Arc;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use super::{
    context::{place, version},
    links::Link,
    pass::Pass,
};
use crate::{
    api::{CredentialId, FINALIZER, LEDGER_ANNOTATION, MANAGER, Reason, ToolzzCredential, condition},
    kubernetes::{answered, brief, timed},
    plan::{Happening, Ledger, Material, Publication, View},
};

/// Why something is left active, as a rule.
pub(super) const AFTER_THE_DEADLINE: &str = "the deletion deadline is over";

impl Pass<'_> {
    pub(super) async fn record(&mut self, link: &Link, ledger: &Ledger) {
        let take = || self.ctx.claims.take(&self.object, &link.service, ledger);
        match self.ctx.memories.while_known(&self.uid, take) {
            // It went meanwhile.
            None => return self.over = true,
            Some(Err(holder)) => {
                let message = format!("credential {} is held by {holder}", ledger.id);
                return self.trouble(Reason::NameConflict, message, None);
            }
            Some(Ok(())) => {}
        }
        let meta = self.object.meta();
        let before = self.ctx.recorded(&self.object).0;
        let sequence = before.own().map_or(0, |before| before.sequence) + 1;
        let text = Ledger { sequence, ..ledger.clone() }
            .write(place(&self.object, &link.key), &|parts| self.ctx.key.mac(parts));
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
            self.remember(|remembered| remembered.plan.recorded(&before, ledger));
        }
    }

    pub(super) async fn publish(&mut self, publication: &Publication, view: &View) {
        let status = merge_patch(&view.status, &publication.status);
        let patch = json!({ "metadata": { "resourceVersion": self.object.meta().resource_version }, "status": status });
        self.remember(|remembered| remembered.plan.publishing());
        if self.patch(patch, true).await {
            let ready = condition(&publication.status.conditions, "Ready");
            if ready.is_some_and(|ready| ready.status == "True") {
                self.remember(|remembered| remembered.plan.corrected.clear());
            }
            if let Some(happening) = &publication.event {
                tracing::info!(reason = %happening.reason, note = happening.note, "status changed");
                if happening.is_event() {
                    self.ctx.events.tell(&*self.object, happening);
                }
            }
        }
    }

    pub(super) async fn release(&mut self, left_active: &[CredentialId], nowhere: &[CredentialId]) {
        let meta = self.object.meta();
        let finalizers: Vec<&String> =
            meta.finalizers.iter().flatten().filter(|one| one.as_str() != FINALIZER).collect();
        let patch = json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": finalizers } });
        // Before it goes: if the process ends in between, nobody else would tell.
        self.tell_left_active(left_active, AFTER_THE_DEADLINE);
        self.tell_nowhere(nowhere);
        // Also before: the answer may be lost.
        self.remember(|remembered| remembered.released = true);
        if self.patch(patch, false).await {
            self.over = true;
            tracing::info!("let go: the finalizer is gone");
        }
    }

    /// Names what there was nothing to deactivate of: the connection may lead to another account than it did.
    pub(super) fn tell_nowhere(&self, nowhere: &[CredentialId]) {
        for id in nowhere {
            let note = format!(
                "Toolzz says that credential {id} does not exist, so nothing was deactivated; if the connection led to \
                 another account before, deactivate it there"
            );
            tracing::warn!(%id, "{note}");
            self.ctx.events.tell(&*self.object, &Happening { reason: Reason::RemoteMissing, note });
        }
    }

    /// Names, once each, what stays active because it could not be deactivated in time.
    pub(super) fn tell_left_active(&self, left_active: &[CredentialId], why: &str) {
        for id in left_active {
            let told = |told: &mut Vec<CredentialId>| {
                told.contains(id) || {
                    told.push(id.clone());
                    false
                }
            };
            if self.remember(|remembered| told(&mut remembered.told_left_active)) {
                continue;
            }
            let note = format!("{why}: credential {id} stays active at Toolzz; deactivate it there");
            tracing::error!(%id, "{note}");
            self.ctx.metrics.orphaned();
            self.ctx.events.tell(&*self.object, &Happening { reason: Reason::DeletionBlocked, note });
        }
    }

    /// One write to the resource, on condition that it is as this pass has it. True when it was written.
    async fn patch(&mut self, patch: Value, status: bool) -> bool {
        let (api, name) = self.api();
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        let written = if status {
            timed(api.patch_status(&name, &params, &patch)).await
        } else {
            timed(api.patch(&name, &params, &patch)).await
        };
        // What was refused has not let the resource go.
        if matches!(&written, Err(kube::Error::Api(answer)) if answer.code < 500) {
            self.remember(|remembered| remembered.released = false);
        }
        match written {
            Ok(object) => {
                self.have(object);
                true
            }
            Err(error) if answered(&error, 404) => {
                self.gone();
                false
            }
            Err(error) if answered(&error, 409) => {
                self.fetch().await;
                false
            }
            Err(error) => {
                self.kubernetes_trouble(&error);
                false
            }
        }
    }

    /// Goes on with the resource as it is now: somebody wrote meanwhile, or the cache is behind.
    pub(super) async fn fetch(&mut self) {
        let (api, name) = self.api();
        match timed(api.get_opt(&name)).await {
            Ok(Some(object)) if object.meta().uid.as_deref() == Some(&self.uid) => {
                // An edited spec may want other material; and who wrote may have read newer.
                if version(&object) != version(&self.object) {
                    self.material = Material::Unread;
                    self.values = None;
                }
                self.have(object);
            }
            Ok(_) => self.gone(),
            Err(error) => self.kubernetes_trouble(&error),
        }
    }

    /// The watch will tell so too, and end the passes. Until then each begins by asking.
    fn gone(&mut self) {
        self.over = true;
        self.remember(|remembered| remembered.gone = true);
    }

    fn api(&self) -> (Api<ToolzzCredential>, String) {
        let namespace = self.object.namespace().unwrap_or_default();
        (Api::namespaced(self.ctx.client.clone(), &namespace), self.object.name_any())
    }

    /// The resource as the API server has just shown it.
    fn have(&mut self, mut object: ToolzzCredential) {
        object.metadata.managed_fields = None;
        let shown = version(&object);
        self.remember(|remembered| {
            remembered.version = remembered.version.max(shown);
            remembered.had = remembered.had.max(shown);
            remembered.gone = false;
        });
        self.object = Arc::new(object);
        self.read_at = self.ctx.clock.now();
    }

    /// The API server did not take a write. The status cannot be written either, so the pass ends here.
    pub(super) fn kubernetes_trouble(&mut self, error: &kube::Error) {
        self.trouble(Reason::ApiUnavailable, format!("Kubernetes API: {}", brief(error)), None);
        self.over = true;
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
