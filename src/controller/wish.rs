//! What a resource asks for, with what its connection knows of the integration.

use std::time::Duration;

use jiff::Timestamp;

use super::pass::Pass;
use crate::{
    api::{
        CredentialId, CredentialType, DeletionPolicy, OnConflict, RECREATE_ANNOTATION, REQUEST_ANNOTATION, Reason,
        RotationStrategy, Target, TargetKeys,
    },
    plan::{self, Desired},
};

/// How long a replaced credential stays active unless the spec says otherwise.
const GRACE: Duration = Duration::from_secs(600);

impl Pass<'_> {
    pub(super) async fn desired(&self) -> Desired {
        let (spec, meta) = (&self.object.spec, &self.object.metadata);
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).cloned();
        let strategy = spec.rotation.as_ref().and_then(|rotation| rotation.strategy).unwrap_or_default();
        let grace = spec.rotation.as_ref().and_then(|rotation| duration(rotation.grace_period.as_ref()?));
        let requested = annotation(REQUEST_ANNOTATION);
        if let Some(request) = &requested {
            self.note_request(request);
        }
        let (integration_id, kind) = self.integration().await;
        let wall = Timestamp::now();
        Desired {
            uid: self.uid.clone(),
            generation: meta.generation,
            name: self.object.remote_name(),
            user_id: spec.user_id.clone(),
            unity_id: spec.unity_id.clone(),
            integration_id,
            kind,
            active: spec.active.unwrap_or(true),
            deletion_policy: spec.deletion_policy.unwrap_or(DeletionPolicy::Deactivate),
            on_conflict: spec.on_conflict.unwrap_or(OnConflict::Fail),
            external_id: spec.external_id.clone(),
            may_adopt: self.link.as_ref().is_some_and(|link| link.may_adopt),
            strategy,
            // Where nothing is replaced in turn, only what is gone anyway is superseded.
            grace: if strategy == RotationStrategy::Replace { grace.unwrap_or(GRACE) } else { Duration::ZERO },
            target: spec.target.clone().map(target),
            suspended: spec.suspend.unwrap_or(false),
            requested,
            recreate: annotation(RECREATE_ANNOTATION).map(CredentialId),
            deleting_for: meta
                .deletion_timestamp
                .as_ref()
                .map(|since| Duration::try_from(wall.duration_since(since.0)).unwrap_or_default()),
        }
    }

    fn note_request(&self, request: &str) {
        let handled = self.object.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_deref());
        if handled != Some(request) {
            let now = self.ctx.clock.now();
            self.remember(|remembered| remembered.plan.note_request(request, now));
        }
    }

    /// The integration's id, and the type of credential it has, if that is known: from the spec, from what was found
    /// out before, or from Toolzz's list of integrations.
    async fn integration(&self) -> (String, Option<CredentialType>) {
        let (spec, status) = (&self.object.spec, self.object.status.as_ref());
        let kind = spec.kind.or(status.and_then(|status| status.kind));
        let known = status.and_then(|status| status.integration.as_ref()?.id.clone());
        if let (Some(id), Some(kind)) = (spec.integration_id.clone().or(known.clone()), kind) {
            return (id, Some(kind));
        }
        let catalogue = match &self.link {
            Some(link) => link.connection.catalogue().await,
            None => None,
        };
        if let Some(id) = spec.integration_id.clone().or(known) {
            let integration = catalogue.and_then(|catalogue| catalogue.get(&id));
            return (id, integration.and_then(|integration| integration.kind));
        }
        let slug = spec.integration_ref.as_ref().map(|reference| reference.slug.as_str()).unwrap_or_default();
        match catalogue.map(|catalogue| catalogue.by_slug(slug)) {
            Some(Some(integration)) => return (integration.id.clone(), kind.or(integration.kind)),
            Some(None) => {
                let message = format!(
                    "spec.integrationRef.slug: Toolzz has no integration {slug:?}; name one that it has, or set \
                     spec.integrationId in a new resource"
                );
                let retry_at = self.ctx.clock.now() + self.ctx.settings.resync_interval;
                self.in_the_way(Reason::InvalidSpec, message, Some(retry_at));
            }
            None => {
                let message = "spec.integrationRef: Toolzz's list of integrations cannot be read now".to_owned();
                self.in_the_way(Reason::ApiUnavailable, message, None);
            }
        }
        (String::new(), kind)
    }
}

fn target(target: Target) -> plan::Target {
    let all = || TargetKeys {
        virtual_key: Some("virtualKey".to_owned()),
        id: Some("id".to_owned()),
        secret_id: Some("secretId".to_owned()),
    };
    plan::Target { kind: target.kind, name: target.name, keys: target.keys.unwrap_or_else(all) }
}

fn duration(text: &str) -> Option<Duration> {
    let parsed: kube::core::Duration = text.parse().ok()?;
    (!parsed.is_negative()).then(|| parsed.into())
}
