//! The object that a resource writes its virtual key to.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::pass::Pass;
use crate::{
    api::{MANAGER, Reason, TARGET_LABEL, TargetKind, TargetStatus},
    kubernetes::{answered, brief, timed},
    plan::Target,
};

/// What a target can be: its name in messages and in RBAC, and how it holds text.
trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + std::fmt::Debug
    + Default
{
    const NAME: &'static str;
    const RESOURCE: &'static str;

    fn value(text: &str) -> Value;
}

impl Kind for Secret {
    const NAME: &'static str = "Secret";
    const RESOURCE: &'static str = "secrets";

    fn value(text: &str) -> Value {
        json!(ByteString(text.as_bytes().to_vec()))
    }
}

impl Kind for ConfigMap {
    const NAME: &'static str = "ConfigMap";
    const RESOURCE: &'static str = "configmaps";

    fn value(text: &str) -> Value {
        json!(text)
    }
}

/// Why a target was not written.
enum Problem {
    /// It is somebody else's, or the operator may not write it: said so, and tried again later.
    Conflict(String),
    /// It was made or changed just now: looked at again.
    Again,
    /// The API server did not answer, or answered with an error.
    Kubernetes(kube::Error),
}

impl Pass<'_> {
    pub(super) async fn write_target(&mut self, target: &Target, content: &BTreeMap<String, String>) {
        let namespace = self.object.metadata.namespace.as_deref().unwrap_or_default();
        let written = match target.kind {
            TargetKind::Secret if !self.ctx.reach.covers(namespace, &target.name) => Err(Problem::Conflict(format!(
                "spec.target: Secret {:?} is not among those of --secret-namespaces or --secret-names",
                target.name
            ))),
            TargetKind::Secret => self.write::<Secret>(target, content).await,
            TargetKind::ConfigMap => self.write::<ConfigMap>(target, content).await,
        };
        let now = self.ctx.clock.now();
        match written {
            Ok(written) => {
                tracing::info!(target = written.name, "the virtual key was written to the target");
                // The watch on objects with the label may come later than the next step.
                let version = crate::api::SecretVersion {
                    name: written.name.clone(),
                    uid: written.uid.clone(),
                    resource_version: written.resource_version.clone(),
                };
                let index = match target.kind {
                    TargetKind::Secret => &self.ctx.secrets,
                    TargetKind::ConfigMap => &self.ctx.config_maps,
                };
                index.wrote(self.object.metadata.namespace.as_deref().unwrap_or_default(), version);
                self.remember(|remembered| {
                    remembered.plan.target = Some(written);
                    remembered.plan.target_conflict = None;
                });
            }
            Err(Problem::Again) => {}
            Err(Problem::Conflict(message)) => {
                self.remember(|remembered| remembered.plan.target_conflict = Some((message, now)));
            }
            Err(Problem::Kubernetes(error)) => {
                self.trouble(Reason::ApiUnavailable, format!("spec.target: Kubernetes API: {}", brief(&error)), None);
            }
        }
    }

    /// One write: an empty object of the resource's own where there is none, otherwise what it shall hold.
    async fn write<K: Kind>(
        &self,
        target: &Target,
        content: &BTreeMap<String, String>,
    ) -> Result<TargetStatus, Problem> {
        let (api, name) = (self.objects::<K>(), target.name.as_str());
        let found = timed(api.get_metadata_opt(name)).await.map_err(|error| failed::<K>(error, "get", name))?;
        let Some(found) = found else {
            let mut empty = K::default();
            *empty.meta_mut() = ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([(TARGET_LABEL.to_owned(), "true".to_owned())].into()),
                owner_references: self.owner().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            };
            let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            return match timed(api.create(&params, &empty)).await {
                Err(error) if !answered(&error, 409) => Err(failed::<K>(error, "create", name)),
                _ => Err(Problem::Again),
            };
        };
        if !self.owns(&found.metadata) {
            return Err(Problem::Conflict(format!(
                "spec.target: {} {name:?} exists and is not this resource's; choose another name, or delete it",
                K::NAME
            )));
        }
        let data: serde_json::Map<String, Value> =
            content.iter().map(|(key, text)| (key.clone(), K::value(text))).collect();
        let apply = json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {
                "name": name,
                // Not another one that has taken its place since.
                "uid": found.metadata.uid,
                "labels": { TARGET_LABEL: "true" },
                "ownerReferences": self.owner().map(|owner| vec![owner]),
            },
            "data": data,
        });
        let params = PatchParams::apply(MANAGER).force();
        let written = match timed(api.patch_metadata(name, &params, &Patch::Apply(apply))).await {
            Ok(written) => written.metadata,
            Err(error) if answered(&error, 409) || answered(&error, 404) => return Err(Problem::Again),
            Err(error) => return Err(failed::<K>(error, "patch", name)),
        };
        Ok(TargetStatus {
            kind: target.kind,
            name: name.to_owned(),
            uid: written.uid.unwrap_or_default(),
            resource_version: written.resource_version.unwrap_or_default(),
            content: Target::fingerprint(content),
        })
    }

    /// Removes a target that is no longer asked for, if it is this resource's.
    pub(super) async fn drop_target(&mut self, target: &TargetStatus) {
        let dropped = match target.kind {
            TargetKind::Secret => self.delete::<Secret>(target).await,
            TargetKind::ConfigMap => self.delete::<ConfigMap>(target).await,
        };
        match dropped {
            Ok(()) => self.remember(|remembered| {
                remembered.plan.target = None;
                remembered.plan.target_dropped = Some(target.uid.clone());
            }),
            Err(error) => {
                let message = format!("spec.target: {} cannot be removed: {}", target.name, brief(&error));
                self.trouble(Reason::ApiUnavailable, message, None);
            }
        }
    }

    async fn delete<K: Kind>(&self, target: &TargetStatus) -> kube::Result<()> {
        let api = self.objects::<K>();
        // What the status says is no proof: whoever writes there could name anybody's object.
        let found = timed(api.get_metadata_opt(&target.name)).await?;
        let Some(found) = found.filter(|found| self.owns(&found.metadata)) else { return Ok(()) };
        let preconditions =
            Preconditions { uid: found.metadata.uid, resource_version: found.metadata.resource_version };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match timed(api.delete(&target.name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if answered(&error, 404) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn objects<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.ctx.client.clone(), self.object.metadata.namespace.as_deref().unwrap_or_default())
    }

    fn owner(&self) -> Option<OwnerReference> {
        // Nobody waits for a target to go before the resource may: that would take a right of its own.
        let owner = self.object.controller_owner_ref(&())?;
        Some(OwnerReference { block_owner_deletion: None, ..owner })
    }

    fn owns(&self, meta: &ObjectMeta) -> bool {
        let owners = meta.owner_references.iter().flatten();
        owners.into_iter().any(|owner| owner.uid == self.uid && owner.controller == Some(true))
    }
}

fn failed<K: Kind>(error: kube::Error, verb: &str, name: &str) -> Problem {
    if answered(&error, 403) {
        return Problem::Conflict(format!(
            "spec.target: the operator may not {verb} {} {name:?}; whoever installed it can give it that right (chart \
             value targets: [{}])",
            K::NAME,
            K::RESOURCE
        ));
    }
    match &error {
        kube::Error::Api(answer) if refused(answer.code) => Problem::Conflict(format!(
            "spec.target: the API server does not take {} {name:?} ({} {}); choose another name or other keys, or ask \
             whoever runs the cluster's policies",
            K::NAME,
            answer.code,
            answer.reason
        )),
        _ => Problem::Kubernetes(error),
    }
}

/// A refusal that stays one until something changes.
fn refused(code: u16) -> bool {
    (400..500).contains(&code) && !matches!(code, 401 | 408 | 429)
}
