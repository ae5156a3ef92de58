//! `ToolzzCredential`: which credential should exist at Toolzz, and which Secrets hold its key material.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CredentialId, CredentialType, SecretId};

/// A credential at Toolzz whose key material lives in Secrets of the resource's own namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "toolzz.com.br",
    version = "v1alpha1",
    kind = "ToolzzCredential",
    plural = "toolzzcredentials",
    shortname = "tzc",
    category = "toolzz",
    namespaced,
    status = "ToolzzCredentialStatus",
    derive = "PartialEq",
    doc = "A credential at Toolzz whose key material lives in Secrets of the resource's own namespace. The operator creates and updates it, and writes its id and virtual key to the status.",
    validation = Rule::new("has(self.spec)").message("spec: required: say which credential should exist"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "TYPE", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "VIRTUAL-KEY", type_ = "string", json_path = ".status.virtualKey"),
    printcolumn(name = "LAST-SYNC", type_ = "date", json_path = ".status.lastSyncTime"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ID", type_ = "string", json_path = ".status.id", priority = 1),
    printcolumn(name = "SECRET-ID", type_ = "string", json_path = ".status.secretId", priority = 1),
    printcolumn(name = "MESSAGE", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.type) == has(oldSelf.type) && (!has(self.type) || self.type == oldSelf.type)")
        .message("cannot be changed in place; create a new resource and delete this one").field_path(".type"),
    validation = Rule::new("has(self.connectionRef) == has(oldSelf.connectionRef) && (!has(self.connectionRef) || self.connectionRef == oldSelf.connectionRef)")
        .message("cannot be changed in place; create a new resource and delete this one").field_path(".connectionRef"),
    validation = Rule::new("has(self.integrationId) != has(self.integrationRef)")
        .message("exactly one of integrationId and integrationRef must be set").field_path(".integrationId"),
    validation = Rule::new("has(self.integrationId) == has(oldSelf.integrationId)")
        .message("integrationId and integrationRef cannot take each other's place; create a new resource and delete this one").field_path(".integrationId"),
    validation = Rule::new("!has(oldSelf.externalId) || !has(self.externalId) || self.externalId == oldSelf.externalId")
        .message("cannot be changed in place; create a new resource and delete this one").field_path(".externalId"),
    validation = Rule::new("!has(self.target) || self.target.kind != 'Secret' || !self.credentials.exists(item, item.exists(field, item[field].secretKeyRef.name == self.target.name))")
        .message("must not be a Secret that the key material comes from").field_path(".target.name"),
)]
pub struct ToolzzCredentialSpec {
    /// The credential's name at Toolzz. Absent: the resource's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^\\\\S(.*\\\\S)?$')").message("must be one line without spaces at its ends"))]
    #[x_kube(validation = Rule::new("!self.contains('[toolzz-operator ')").message("must not contain '[toolzz-operator ', which marks unfinished credentials"))]
    pub name: Option<String>,

    /// UUID of the Toolzz user who owns the credential.
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')").message("must be a UUID, such as 6f1c2d34-0000-4000-8000-0123456789ab"))]
    pub user_id: String,

    /// UUID of the organisational unit the credential belongs to. It cannot be changed later.
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')").message("must be a UUID, such as 6f1c2d34-0000-4000-8000-0123456789ab"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed in place; create a new resource and delete this one"))]
    pub unity_id: String,

    /// UUID of the integration (the provider: OpenAI, Gemini, ...). It cannot be changed later. Instead of it,
    /// integrationRef can name the integration.
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$')").message("must be a UUID, such as 6f1c2d34-0000-4000-8000-0123456789ab"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed in place; create a new resource and delete this one"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_id: Option<String>,

    /// The integration by its slug, found in Toolzz's list of integrations. Instead of integrationId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cannot be changed in place; create a new resource and delete this one"))]
    pub integration_ref: Option<IntegrationRef>,

    /// Which of Toolzz's listings the credential stands in. Absent: taken from the integration.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CredentialType>,

    /// Whether agents may use the credential (the API's `status`). Absent: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,

    /// The key material, as the API's `credentials` array: each item maps field names of the integration's form to
    /// the place in a Secret where the value is.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(item, item.all(field, size(field) >= 1 && size(field) <= 128))").message("field names must have 1 to 128 characters"))]
    pub credentials: Vec<BTreeMap<String, CredentialSource>>,

    /// The connection to Toolzz to use. Absent: the cluster's `default`. It cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_ref: Option<ConnectionRef>,

    /// How new key material reaches Toolzz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,

    /// What happens to the credential when the resource is deleted. Absent: Deactivate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// What to do when Toolzz already has a credential of this name for the same user, unity and integration that no
    /// resource holds. Absent: Fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,

    /// Take over exactly this credential of Toolzz. Its key material is unknown: the resource's own is rotated in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<CredentialId>,

    /// Where to write the virtual key for workloads. The object is made and owned by the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,

    /// Leave the credential alone until this is false again. Deletion works all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// An integration by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IntegrationRef {
    /// The slug, such as `openai`.
    #[schemars(length(min = 1, max = 128))]
    pub slug: String,
}

/// Where the value of one field comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialSource {
    /// A key of a Secret in the resource's own namespace.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret in the resource's own namespace. There is no way to name another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key in the Secret's data. Its value must be UTF-8 text; it is sent as it is.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A connection to Toolzz.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRef {
    /// ToolzzConnection (of the resource's own namespace) or ClusterToolzzConnection.
    pub kind: ConnectionKind,
    /// The connection's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// The kinds of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ConnectionKind {
    ToolzzConnection,
    ClusterToolzzConnection,
}

/// How new key material reaches Toolzz.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.gracePeriod) || (has(self.strategy) && self.strategy == 'Replace')")
        .message("is for the Replace strategy only; set strategy: Replace or remove the field").field_path(".gracePeriod"),
)]
pub struct Rotation {
    /// Repoint: the credential keeps its id and virtual key and gets new material. Replace: a new credential takes
    /// over and the old one is retired. InPlace: the material is sent with an update, which the vendor does not
    /// document. Absent: Repoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<RotationStrategy>,
    /// Replace: how long the old credential stays active beside the new one, such as `10m`. Absent: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) <= duration('8760h')").message("must be a duration of at most 8760h, such as 10m or 1h30m"))]
    pub grace_period: Option<String>,
}

/// How new key material reaches Toolzz.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // explained at the field
pub enum RotationStrategy {
    #[default]
    Repoint,
    Replace,
    InPlace,
}

/// What happens to the credential when the resource is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    // Plain comments: documentation on variants would make the schema a `oneOf`, which is not structural.
    // The credential is made inactive at Toolzz (which has no delete).
    #[default]
    #[allow(missing_docs)]
    Deactivate,
    // The credential is left as it is.
    #[allow(missing_docs)]
    Retain,
}

/// What to do about a credential of the same name that no resource holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // explained at the field
pub enum OnConflict {
    #[default]
    Fail,
    Adopt,
    CreateNew,
}

/// Where to write the virtual key for workloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Secret or ConfigMap.
    pub kind: TargetKind,
    /// The object's name, in the resource's own namespace. It must not exist yet, or be this resource's already.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Which value goes under which key: of `virtualKey`, `id`, `secretId`. Absent: all three under these names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<TargetKeys>,
}

/// What a target can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum TargetKind {
    Secret,
    ConfigMap,
}

/// Which value goes under which key of the target.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.virtualKey) || has(self.id) || has(self.secretId)")
        .message("at least one of virtualKey, id and secretId must be set"),
    validation = Rule::new("(!has(self.virtualKey) || !has(self.id) || self.virtualKey != self.id) && (!has(self.virtualKey) || !has(self.secretId) || self.virtualKey != self.secretId) && (!has(self.id) || !has(self.secretId) || self.id != self.secretId)")
        .message("must all be different"),
)]
pub struct TargetKeys {
    /// The key for the virtual key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub virtual_key: Option<String>,
    /// The key for the credential's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub id: Option<String>,
    /// The key for the secretId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub secret_id: Option<String>,
}

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolzzCredentialStatus {
    /// The generation of the spec this status speaks of; -1 before the operator has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The credential's id at Toolzz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CredentialId>,
    /// Which material in Toolzz's vault the credential uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_id: Option<SecretId>,
    /// The virtual key agents use the credential through. Not secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub virtual_key: Option<String>,
    /// Whether agents may use the credential, as Toolzz said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
    /// Which of Toolzz's listings the credential stands in.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<CredentialType>,
    /// The integration (the provider), as Toolzz names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<IntegrationStatus>,
    /// Which key material Toolzz holds, without revealing it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub material: Option<MaterialStatus>,
    /// Superseded credentials that are not deactivated yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub retiring: Vec<RetiringStatus>,
    /// The object the virtual key was written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// The last value of the annotation toolzz.com.br/reconcile-requested-at after which Toolzz was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub last_handled_reconcile_at: Option<String>,
    /// A request that Toolzz rejected; the same one is not sent again for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Rejected>,
    /// Since when it is not known what came of a create, until that is settled. While it is there, none is sent before
    /// Toolzz was looked at twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_unknown_since: Option<Time>,
    /// A copy of the operator's record (the annotation toolzz.com.br/ledger): either of the two is enough to recover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192))]
    pub ledger: Option<String>,
    /// When the operator last wrote to Toolzz for this resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// Ready, Synced, SecretsResolved; Reconciling and Stalled only while they are True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// The integration (the provider), as Toolzz names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IntegrationStatus {
    /// UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub id: Option<String>,
    /// For people.
    #[schemars(length(max = 1024))]
    pub name: String,
    /// For machines.
    #[schemars(length(max = 1024))]
    pub slug: String,
}

/// A superseded credential.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RetiringStatus {
    /// Its id.
    pub id: CredentialId,
    /// When it is deactivated. Absent: when the one in its place is active and published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Time>,
}

/// The object the virtual key was written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Secret or ConfigMap.
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(max = 253))]
    pub uid: String,
    /// Its resourceVersion after the write.
    #[schemars(length(max = 253))]
    pub resource_version: String,
    /// A fingerprint of what was written.
    #[schemars(length(max = 64))]
    pub content: String,
}

/// Which key material Toolzz holds, without revealing it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaterialStatus {
    /// `<key id>:<HMAC-SHA-256>` over the integration and the whole credentials array.
    #[schemars(length(max = 128))]
    pub digest: String,
    /// The generation of the spec the digest was made for.
    pub observed_generation: i64,
    /// The Secrets as they were read.
    #[schemars(length(max = 512))]
    pub sources: Vec<SecretVersion>,
}

/// A Secret at one moment of its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersion {
    /// The Secret's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The Secret's uid.
    #[schemars(length(max = 253))]
    pub uid: String,
    /// The Secret's resourceVersion.
    #[schemars(length(max = 253))]
    pub resource_version: String,
}

/// A request that Toolzz rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Tells this request from any other; reveals nothing of it.
    #[schemars(length(max = 64))]
    pub request: String,
    /// Why: a reason as in the conditions.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What the operator says about it.
    #[schemars(length(max = 1024))]
    pub message: String,
}

impl ToolzzCredential {
    /// The name the credential shall have at Toolzz.
    pub fn remote_name(&self) -> String {
        self.spec.name.clone().or_else(|| self.metadata.name.clone()).unwrap_or_default()
    }
}
