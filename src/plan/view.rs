//! What the planner is given: the wish, the record, the remote as seen, and what this process remembers.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{Ledger, Recorded, Rejection, fingerprint};
use crate::api::{
    CredentialId, CredentialType, DeletionPolicy, Fields, ListingFacts, ListingKey, OnConflict, Reason,
    RotationStrategy, Row, SecretId, SecretVersion, Seen, TargetKeys, TargetKind, TargetStatus, Tick,
    ToolzzCredentialStatus,
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

/// Key material that Toolzz took with an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentInPlace {
    /// Its digest.
    pub digest: String,
    /// The secretId of the answer.
    pub secret_id: SecretId,
    /// When the answer came.
    pub at: Tick,
}

/// What this process remembers of a resource. Losing it costs a look, never a credential.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When the resource was first seen: a look for a marker begins after it.
    pub first_seen: Tick,
    /// When a POST was given up with its outcome unknown.
    pub given_up: Option<Tick>,
    /// How many POSTs were given up since one was answered.
    pub lost_posts: u32,
    /// When a PUT was given up with its outcome unknown: what was seen before is in doubt.
    pub doubt: Option<Tick>,
    /// Until when a PUT whose answer was lost may still take effect.
    pub late_until: Option<Tick>,
    /// When the first listing began that lacked the recorded credential.
    pub absent_since: Option<Tick>,
    /// The credential that a PUT was told does not exist, and when.
    pub gone: Option<(CredentialId, Tick)>,
    /// The fields the last PUT set, until the status says so.
    pub corrected: Vec<&'static str>,
    /// Credentials that were deactivated for good, or are gone, and when that was seen.
    pub inactive: Vec<(CredentialId, Tick)>,
    /// Credentials that a deactivation was told do not exist, and when. One answer is not believed.
    pub missing: Vec<(CredentialId, Tick)>,
    /// The material that was sent in place and is not recorded yet.
    pub in_place: Option<SentInPlace>,
    /// This process recorded that the material is unknown: none before it has an update on its way that carries any.
    pub marked_unknown: bool,
    /// The last value of the user's request, and when it was seen.
    pub requested: Option<(String, Tick)>,
    /// The target as this process wrote it.
    pub target: Option<TargetStatus>,
    /// The uid of a former target that is gone.
    pub target_dropped: Option<String>,
    /// Why the target cannot be written, and when that was found.
    pub target_conflict: Option<(String, Tick)>,
    /// The requests the API refused in this process, since one for the resource's own credential was taken.
    pub rejected: Vec<Rejection>,
    /// What keeps the operator from going on.
    pub trouble: Option<Trouble>,
}

impl Memory {
    /// Takes note of whether a fresh listing shows the recorded credential, and the superseded ones inactive.
    pub fn observe(&mut self, sight: &Sight) {
        self.absent_since = match (&sight.recorded, sight.listing) {
            (None, Some(listing)) if listing.complete => self.absent_since.or(Some(listing.began_at)),
            (None, _) => self.absent_since,
            (Some(_), _) => None,
        };
        if sight.recorded.as_ref().is_some_and(|seen| self.gone.as_ref().is_some_and(|(_, since)| seen.at > *since)) {
            self.gone = None;
        }
        if let Some(listing) = sight.listing.filter(|listing| listing.complete && !listing.suspect) {
            // What is active is in every listing.
            let active = |id: &CredentialId| {
                let mut shown = sight.recorded.iter().chain(&sight.retiring);
                shown.any(|seen| seen.row.id == *id && seen.row.fields.active)
            };
            let (told, open) =
                std::mem::take(&mut self.missing).into_iter().partition(|(_, at)| listing.began_at > *at);
            self.missing = open;
            for (id, _) in Vec::into_iter(told).filter(|(id, _)| !active(id)) {
                self.deactivated(&id, listing.began_at);
            }
        }
        for seen in &sight.retiring {
            match self.inactive_since(&seen.row.id) {
                Some(since) if seen.row.fields.active && seen.at > since => {
                    self.inactive.retain(|(id, _)| *id != seen.row.id);
                }
                None if !seen.row.fields.active => self.inactive.push((seen.row.id.clone(), seen.at)),
                _ => {}
            }
        }
    }

    /// Takes note of a user's request, once.
    pub fn note_request(&mut self, request: &str, now: Tick) {
        if self.requested.as_ref().is_none_or(|(noted, _)| noted != request) {
            self.requested = Some((request.to_owned(), now));
            // "Now" means whatever stood in the way before.
            (self.trouble, self.target_conflict) = (None, None);
            self.rejected.clear();
        }
    }

    /// Takes note that a credential was deactivated, or is gone.
    pub fn deactivated(&mut self, id: &CredentialId, at: Tick) {
        self.inactive.retain(|(other, _)| other != id);
        self.inactive.push((id.clone(), at));
    }

    /// When a deactivation was told that a credential does not exist, if no listing has settled that yet.
    pub fn missing_since(&self, id: &CredentialId) -> Option<Tick> {
        self.missing.iter().find_map(|(other, at)| (other == id).then_some(*at))
    }

    /// Takes note that the API refused a request.
    pub fn refused(&mut self, rejection: Rejection) {
        self.rejected.retain(|other| other.request != rejection.request);
        self.rejected.push(rejection);
    }

    /// Whether the API refused this request in this process.
    pub fn rejection(&self, request: &str) -> Option<&Rejection> {
        self.rejected.iter().find(|rejection| rejection.request == request)
    }

    /// Since when a credential is known to be inactive.
    pub fn inactive_since(&self, id: &CredentialId) -> Option<Tick> {
        self.inactive.iter().find_map(|(other, since)| (other == id).then_some(*since))
    }
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
