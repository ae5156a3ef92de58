//! `ToolzzConnection` and `ClusterToolzzConnection`: how to reach an account at Toolzz, and who may use it.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema, Resource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConnectionKind, SecretKeyRef, ToolzzCredential};

/// The name of the connection that is used where a resource names none.
const DEFAULT: &str = "default";

/// A connection to Toolzz of a namespace's own.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "toolzz.com.br",
    version = "v1alpha1",
    kind = "ToolzzConnection",
    plural = "toolzzconnections",
    shortname = "tzconn",
    category = "toolzz",
    namespaced,
    status = "ConnectionStatus",
    derive = "PartialEq",
    doc = "A connection to Toolzz of a namespace's own: its URL gets the token of a Secret of the same namespace, and no other. Only the ToolzzCredentials of the namespace can use it.",
    validation = Rule::new("has(self.spec)").message("spec: required: say where Toolzz is and which Secret holds the token"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "CREDENTIALS", type_ = "integer", json_path = ".status.credentials"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "MESSAGE", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ToolzzConnectionSpec {
    /// The account.
    #[serde(flatten)]
    pub account: Account,
}

/// A connection to Toolzz that the platform shares out.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "toolzz.com.br",
    version = "v1alpha1",
    kind = "ClusterToolzzConnection",
    plural = "clustertoolzzconnections",
    shortname = "ctzconn",
    category = "toolzz",
    status = "ConnectionStatus",
    derive = "PartialEq",
    doc = "A connection to Toolzz that the platform shares out: which namespaces may use it, and for which unities. The token's Secret is in the operator's namespace. The one named `default` is used by every ToolzzCredential that names no connection.",
    validation = Rule::new("has(self.spec)").message("spec: required: say where Toolzz is, which Secret holds the token, and who may use it"),
    printcolumn(name = "READY", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "REASON", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "CREDENTIALS", type_ = "integer", json_path = ".status.credentials"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "MESSAGE", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterToolzzConnectionSpec {
    /// The account.
    #[serde(flatten)]
    pub account: Account,

    /// The namespaces whose resources may use the connection: those named and those selected.
    pub namespaces: NamespaceGrant,

    /// The unities the connection may be used for. A token reaches every unity of its account; this says which of
    /// them its users get.
    #[schemars(length(min = 1, max = 512))]
    pub unities: Vec<UnityGrant>,

    /// Whether resources may take over credentials that exist already (externalId, onConflict: Adopt). Absent: Denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adoption: Option<Adoption>,
}

/// An account at Toolzz: where it is and what opens it.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Base URL of the Toolzz API, such as https://chat.api.toolzz.com.br/api/v1. Its host must be one that the
    /// operator's flags allow.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/]')").message("must be an absolute URL that begins with https://"))]
    #[x_kube(validation = Rule::new("!self.contains('@')").message("must not contain a user name or password: the token goes into its Secret"))]
    #[x_kube(validation = Rule::new("!self.contains('?') && !self.contains('#')").message("must not have a query or fragment"))]
    pub url: String,

    /// The key of a Secret that holds the API token and nothing else. The Secret is in the connection's own namespace;
    /// that of a ClusterToolzzConnection is in the operator's namespace.
    pub token_secret_ref: SecretKeyRef,

    /// PEM certificates to trust beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,

    /// Requests per second. Absent: as the operator's --rate-limit says. That is also the most a ToolzzConnection gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub rate_limit: Option<i32>,
}

/// Namespaces by name, by label, or both.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.names) || has(self.selector)").message("name at least one namespace in names, or set selector; selector: {} selects every namespace"))]
pub struct NamespaceGrant {
    /// These namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), inner(length(min = 1, max = 63)))]
    pub names: Option<Vec<String>>,
    /// The namespaces whose labels match. An empty selector matches every namespace. Whoever may label a namespace
    /// may then give it the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// A unity, and who gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnityGrant {
    /// UUID of the unity, or `*` for every one.
    #[schemars(length(max = 36), regex(pattern = r"^(\*|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$"))]
    pub id: String,
    /// The namespaces that get it. Absent: every namespace that may use the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), inner(length(min = 1, max = 63)))]
    pub namespaces: Option<Vec<String>>,
}

/// Whether credentials that exist already may be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Adoption {
    Allowed,
    Denied,
}

/// How a connection is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionStatus {
    /// The generation of the spec that the operator last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many ToolzzCredentials refer to the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<i64>,
    /// Ready, Reachable and Authorized; Reconciling and Stalled only while they are True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A connection by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// The namespace of a ToolzzConnection; `None`: a ClusterToolzzConnection.
    pub namespace: Option<String>,
    /// The connection's name.
    pub name: String,
}

impl ConnectionKey {
    /// The ClusterToolzzConnection that is used where a resource names no connection.
    pub fn default_of_cluster() -> Self {
        Self { namespace: None, name: DEFAULT.to_owned() }
    }

    /// The connection a resource uses: of its own namespace, or of the cluster.
    pub fn of(object: &ToolzzCredential) -> Self {
        match &object.spec.connection_ref {
            None => Self::default_of_cluster(),
            Some(reference) => Self {
                namespace: match reference.kind {
                    ConnectionKind::ToolzzConnection => Some(object.meta().namespace.clone().unwrap_or_default()),
                    ConnectionKind::ClusterToolzzConnection => None,
                },
                name: reference.name.clone(),
            },
        }
    }
}

impl fmt::Display for ConnectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => write!(f, "ClusterToolzzConnection/{}", self.name),
            Some(namespace) => write!(f, "ToolzzConnection/{namespace}/{}", self.name),
        }
    }
}
