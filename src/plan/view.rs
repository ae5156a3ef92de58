//! What the planner is given: the wish, the record, the remote as seen, and what this process remembers.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Ledger, Memory, Recorded, fingerprint};
use crate::api::{
    CredentialId, CredentialType, DeletionPolicy, Fields, ListingFacts, ListingKey, OnConflict, Reason,
    RotationStrategy, Row, SecretVersion, Seen, TargetKeys, TargetKind, TargetStatus, ToolzzCredentialStatus,
};

/// What the resource asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The resource's uid.
    pub uid: String,
    /// The generation of the spec.
    pub generation: Option<i64>,
    /// The credential's final name.
    pub name: String,
    /// UUID of the owning user.
    pub user_id: String,
    /// UUID of the organisational unit.
    pub unity_id: String,
    /// UUID of the integration.
    pub integration_id: String,
    /// The type, if it is known by now: it says which listing the credential stands in.
    pub kind: Option<CredentialType>,
    /// Whether agents may use it.
    pub active: bool,
    /// What deletion does to it.
    pub deletion_policy: DeletionPolicy,
    /// What to do about a namesake.
    pub on_conflict: OnConflict,
    /// The credential to take over.
    pub external_id: Option<CredentialId>,
    /// Whether the connection lets existing credentials be taken over.
    pub may_adopt: bool,
    /// How new material reaches the credential.
    pub strategy: RotationStrategy,
    /// How long a replaced credential stays active.
    pub grace: Duration,
    /// Where to write the virtual key.
    pub target: Option<Target>,
    /// Leave everything alone.
    pub suspended: bool,
    /// The user's last "now, please".
    pub requested: Option<String>,
    /// The credential the user says is really gone.
    pub recreate: Option<CredentialId>,
    /// For how long the resource has been marked for deletion; `None` while it is not.
    pub deleting_for: Option<Duration>,
}

impl Desired {
    /// The remote row that follows from the spec and a record.
    pub fn fields(&self, ledger: &Ledger) -> Fields {
        Fields {
            name: self.name.clone(),
            user_id: self.user_id.clone(),
            unity_id: self.unity_id.clone(),
            integration_id: self.integration_id.clone(),
            secret_id: ledger.secret_id.clone(),
            active: self.active,
        }
    }

    /// The listings the credential may stand in: one, or those of every type while the type is not known.
    pub fn listings(&self) -> Vec<ListingKey> {
        let key = |kind| ListingKey { unity_id: self.unity_id.clone(), kind };
        self.kind.map_or_else(|| CredentialType::ALL.map(key).to_vec(), |kind| vec![key(kind)])
    }
}

/// Where to write the virtual key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Secret or ConfigMap.
    pub kind: TargetKind,
    /// The object's name.
    pub name: String,
    /// Which value goes under which key.
    pub keys: TargetKeys,
}

impl Target {
    /// What the object shall hold.
    pub fn content(&self, row: &Row, virtual_key: Option<&str>) -> BTreeMap<String, String> {
        let keys = &self.keys;
        [
            (&keys.virtual_key, virtual_key),
            (&keys.id, Some(row.id.as_str())),
            (&keys.secret_id, Some(row.fields.secret_id.as_str())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.clone()?, value?.to_owned())))
        .collect()
    }

    /// Tells this content from any other.
    pub fn fingerprint(content: &BTreeMap<String, String>) -> String {
        let parts: Vec<&str> = content.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]).collect();
        fingerprint(&parts)
    }
}

/// What is known of the key material in this pass.
#[derive(Clone, Debug, PartialEq)]
pub enum Material {
    /// Not read yet.
    Unread,
    /// The Secrets are the very versions the status says were sent: not read, not needed.
    Unchanged,
    /// Read and fit to be sent.
    Read {
        /// `<key id>:<hmac>`.
        digest: String,
        /// The Secrets it came from.
        sources: Vec<SecretVersion>,
    },
    /// It cannot be sent: a Secret or key is missing, or the integration's form refuses it.
    Unusable {
        /// Why, as a reason.
        reason: Reason,
        /// Why, for people. Names and lengths only.
        message: String,
    },
}

/// The remote as far as this resource is concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    /// The last listing (of several, the oldest); `None` before the first.
    pub listing: Option<ListingFacts>,
    /// Whether listings of this connection are known to show inactive credentials.
    pub shows_inactive: bool,
    /// The recorded credential.
    pub recorded: Option<Seen>,
    /// Those of the recorded superseded credentials that are shown.
    pub retiring: Vec<Seen>,
    /// Credentials that bear the marker of this resource and this material.
    pub marked: Vec<Seen>,
    /// A row that could not be read bears it.
    pub marked_unread: bool,
    /// Other credentials of the final name that no resource holds.
    pub namesakes: Vec<Seen>,
    /// The credential that the spec asks to take over.
    pub external: Option<Seen>,
    /// Who holds the credential that the spec asks to take over.
    pub external_holder: Option<String>,
    /// Every resource is known, so it is known who holds what.
    pub claims_complete: bool,
    /// Who else holds the recorded credential, and goes first.
    pub contested: Option<String>,
}

/// Everything [`super::next`] looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The finalizer is on the resource; while that is not being deleted, also its latest record, in the annotation.
    pub finalizer: bool,
    /// The latest ledger of the resource: the annotation, its copy in the status, or what this process had seen before.
    pub recorded: Recorded,
    /// The ledger's text, for the copy in the status.
    pub ledger_text: Option<String>,
    /// The status as it stands.
    pub status: ToolzzCredentialStatus,
    /// The key material.
    pub material: Material,
    /// The remote.
    pub sight: Sight,
    /// What this process remembers.
    pub memory: Memory,
    /// The target as it stands, unless it was changed or is gone.
    pub target: Option<TargetStatus>,
    /// The wall clock, for times in the status and the end of a grace period; nothing else rests on it.
    pub wall: Timestamp,
}

impl View {
    /// What came of a create is not known, or not recorded yet: one of this process, or of an earlier one, which told so.
    pub fn create_unknown(&self) -> bool {
        let told = self.status.create_unknown_since.is_some() && !self.memory.told_create_settled;
        self.memory.given_up.is_some() || told
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How old the sight of a settled credential may be.
    pub resync_interval: Duration,
    /// How long a commit may come after its request was given up. Longer than any request may take.
    pub settle_period: Duration,
    /// How long a deletion waits for the remote.
    pub deletion_deadline: Duration,
}
