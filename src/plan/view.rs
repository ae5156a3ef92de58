//! What the planner is given: the wish, the record, the remote as seen, and what this process remembers.

use std::time::Duration;

use jiff::Timestamp;

use super::{Recorded, Rejection};
use crate::api::{
    CredentialId, CredentialType, DeletionPolicy, Fields, ListingFacts, ListingKey, OnConflict, Reason, SecretVersion,
    Seen, Tick, ToolzzCredentialStatus,
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
    /// The listing the credential stands in; `None` when the spec does not say and the integration list does not either.
    pub kind: Option<CredentialType>,
    /// Whether agents may use it.
    pub active: bool,
    /// What deletion does to it.
    pub deletion_policy: DeletionPolicy,
    /// What to do about a namesake.
    pub on_conflict: OnConflict,
    /// For how long the resource has been marked for deletion; `None` while it is not.
    pub deleting_for: Option<Duration>,
}

impl Desired {
    /// The remote row that follows from the spec and a record.
    pub fn fields(&self, ledger: &super::Ledger) -> Fields {
        Fields {
            name: self.name.clone(),
            user_id: self.user_id.clone(),
            unity_id: self.unity_id.clone(),
            integration_id: self.integration_id.clone(),
            secret_id: ledger.secret_id.clone(),
            active: self.active,
        }
    }

    /// The listing the credential stands in.
    pub fn listing(&self) -> Option<ListingKey> {
        Some(ListingKey { unity_id: self.unity_id.clone(), kind: self.kind? })
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
    /// The last listing; `None` before the first.
    pub listing: Option<ListingFacts>,
    /// Whether listings of this connection are known to show inactive credentials.
    pub shows_inactive: bool,
    /// The recorded credential.
    pub recorded: Option<Seen>,
    /// Credentials that bear the marker of this resource and this material.
    pub marked: Vec<Seen>,
    /// Other credentials of the final name that no resource holds.
    pub namesakes: Vec<Seen>,
}

/// Why nothing can be done for the moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// As a reason.
    pub reason: Reason,
    /// For people; nothing of a remote body.
    pub message: String,
    /// When to try again; `None`: when something changes.
    pub retry_at: Option<Tick>,
}

/// What this process remembers of a resource. Losing it costs a look, never a credential.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When the resource was first seen: a look for a marker begins after it.
    pub first_seen: Tick,
    /// When a POST was given up with its outcome unknown.
    pub given_up: Option<Tick>,
    /// When a PUT was given up with its outcome unknown: what was seen before is in doubt.
    pub doubt: Option<Tick>,
    /// When the first listing began that lacked the recorded credential.
    pub absent_since: Option<Tick>,
    /// The fields the last PUT set, until the status says so.
    pub corrected: Vec<&'static str>,
    /// The credential that an answer since the deletion showed inactive, or that is gone.
    pub deactivated: Option<CredentialId>,
    /// A request the API refused in this process.
    pub rejected: Option<Rejection>,
    /// What keeps the operator from going on.
    pub trouble: Option<Trouble>,
}

impl Memory {
    /// Takes note of whether a fresh listing shows the recorded credential.
    pub fn observe(&mut self, sight: &Sight) {
        self.absent_since = match (&sight.recorded, sight.listing) {
            (None, Some(listing)) if listing.complete => self.absent_since.or(Some(listing.began_at)),
            (None, _) => self.absent_since,
            (Some(_), _) => None,
        };
    }
}

/// Everything [`super::next`] looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The finalizer is on the resource.
    pub finalizer: bool,
    /// The ledger on the resource, or else its copy in the status.
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
    /// The wall clock, for times in the status; no decision rests on it.
    pub wall: Timestamp,
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
