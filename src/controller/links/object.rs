//! What the two kinds of connection have in common.

use std::sync::Arc;

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource, api::PatchParams};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::grant::{Denial, Grant};
use crate::{
    api::{Account, ClusterToolzzConnection, ConnectionKey, ConnectionStatus, MANAGER, ToolzzConnection},
    controller::{events::Events, watches},
    kubernetes::timed,
    plan::Happening,
};

/// A connection object of either kind.
#[derive(Clone)]
pub(super) enum Object {
    Own(Arc<ToolzzConnection>),
    Cluster(Arc<ClusterToolzzConnection>),
}

impl Object {
    pub fn key(&self) -> ConnectionKey {
        let meta = self.meta();
        ConnectionKey { namespace: meta.namespace.clone(), name: meta.name.clone().unwrap_or_default() }
    }

    pub fn meta(&self) -> &kube::core::ObjectMeta {
        match self {
            Self::Own(object) => &object.metadata,
            Self::Cluster(object) => &object.metadata,
        }
    }

    /// Tells this spec of this object from every other.
    pub fn version(&self) -> (Option<&str>, Option<i64>) {
        (self.meta().uid.as_deref(), self.meta().generation)
    }

    pub fn account(&self) -> &Account {
        match self {
            Self::Own(object) => &object.spec.account,
            Self::Cluster(object) => &object.spec.account,
        }
    }

    pub fn status(&self) -> ConnectionStatus {
        match self {
            Self::Own(object) => object.status.clone(),
            Self::Cluster(object) => object.status.clone(),
        }
        .unwrap_or_default()
    }

    /// Who may use it; `None`: its own namespace, for anything.
    pub fn grant(&self) -> Option<Result<Grant, String>> {
        match self {
            Self::Own(_) => None,
            Self::Cluster(object) => {
                Some(Grant::of(&object.spec).map_err(|error| format!("spec.namespaces.selector: {}", error.0)))
            }
        }
    }

    /// Writes the status; the object as it is then.
    pub async fn patch_status(&self, client: &Client, patch: Value) -> kube::Result<Self> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = kube::api::Patch::Merge(patch);
        let name = self.meta().name.clone().unwrap_or_default();
        match self {
            Self::Own(object) => {
                let namespace = object.metadata.namespace.clone().unwrap_or_default();
                let api: Api<ToolzzConnection> = Api::namespaced(client.clone(), &namespace);
                timed(api.patch_status(&name, &params, &patch)).await.map(|object| Self::Own(Arc::new(object)))
            }
            Self::Cluster(_) => {
                let api: Api<ClusterToolzzConnection> = Api::all(client.clone());
                timed(api.patch_status(&name, &params, &patch)).await.map(|object| Self::Cluster(Arc::new(object)))
            }
        }
    }

    pub fn tell(&self, events: &Events, happening: &Happening) {
        match self {
            Self::Own(object) => events.tell(&**object, happening),
            Self::Cluster(object) => events.tell(&**object, happening),
        }
    }
}

/// A kind of connection, for the watches.
pub(super) trait Kind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
    const NAMESPACED: bool;
    /// The objects of a scope.
    fn api(client: &Client, scope: Option<&str>) -> Api<Self>;
    fn object(self) -> Object;
}

impl Kind for ToolzzConnection
where
    Self: Resource<Scope = NamespaceResourceScope>,
{
    const NAMESPACED: bool = true;

    fn api(client: &Client, scope: Option<&str>) -> Api<Self> {
        watches::api(client, scope)
    }

    fn object(self) -> Object {
        Object::Own(Arc::new(self))
    }
}

impl Kind for ClusterToolzzConnection
where
    Self: Resource<Scope = ClusterResourceScope>,
{
    const NAMESPACED: bool = false;

    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }

    fn object(self) -> Object {
        Object::Cluster(Arc::new(self))
    }
}

/// Why somebody may not use a connection of the platform, told to him and without the rest of the grant.
pub(super) fn denied(denial: Denial, key: &ConnectionKey, namespace: &str, unity: &str) -> String {
    match denial {
        Denial::Namespace => format!("{key} is not given to the namespace {namespace}; ask whoever runs the platform"),
        Denial::Unity => format!(
            "{key} is not given to the namespace {namespace} for the unity {unity}; ask whoever runs the platform"
        ),
        Denial::LabelsUnknown => format!(
            "{key} is given to namespaces by label, and the operator does not know the labels of {namespace}; it needs the right to watch namespaces"
        ),
    }
}
