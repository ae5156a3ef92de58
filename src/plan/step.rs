//! What to do next, as a value.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Ledger, Target};
use crate::api::{
    CredentialId, Fields, ListingKey, Reason, Row, TargetStatus, Tick, ToolzzCredentialStatus, hex, marked_name,
};

/// One thing to do. Each has at most one effect: one write to Kubernetes or one call to the remote API.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Read the Secrets.
    ReadMaterial,
    /// Make sure of listings that began after a moment.
    Look {
        /// Which listings.
        keys: Vec<ListingKey>,
        /// The moment.
        began_after: Tick,
    },
    /// Stage: create an inactive credential under the marker.
    Post(Post),
    /// Record: finalizer and ledger, under the precondition that the resource is unchanged.
    Record(Ledger),
    /// Commit, correct or deactivate: one idempotent PUT of the whole documented body.
    Put(Put),
    /// Write the virtual key where workloads find it.
    WriteTarget {
        /// Where.
        target: Target,
        /// What the object shall hold.
        content: BTreeMap<String, String>,
    },
    /// Remove a target that is no longer asked for.
    DropTarget(TargetStatus),
    /// Write the status.
    Publish(Box<Publication>),
    /// Drop the finalizer.
    Release {
        /// The credentials that stay active because the deadline has passed.
        left_active: Vec<CredentialId>,
        /// Those that were to be deactivated and do not exist.
        nowhere: Vec<CredentialId>,
    },
    /// Nothing to do before this moment, or before something changes.
    Rest(Option<Tick>),
}

impl Step {
    /// What is done, in a word, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ReadMaterial => "read material",
            Self::Look { .. } => "look",
            Self::Post(_) => "stage",
            Self::Record(_) => "record",
            Self::Put(_) => "commit",
            Self::WriteTarget { .. } => "write target",
            Self::DropTarget(_) => "drop target",
            Self::Publish(_) => "publish",
            Self::Release { .. } => "release",
            Self::Rest(_) => "rest",
        }
    }
}

/// The creation of an inactive, marked credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The name with its marker.
    pub name: String,
    /// UUID of the owning user.
    pub user_id: String,
    /// UUID of the organisational unit.
    pub unity_id: String,
    /// UUID of the integration.
    pub integration_id: String,
    /// The digest of the material that is sent.
    pub digest: String,
}

/// An update of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Which credential.
    pub id: CredentialId,
    /// The whole body.
    pub fields: Fields,
    /// The fields that differ from what was seen; all when nothing was seen.
    pub changes: Vec<&'static str>,
    /// The digest of the key material to send along: the `InPlace` rotation.
    pub material: Option<String>,
}

/// A status to write, and the event that tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// The whole status.
    pub status: ToolzzCredentialStatus,
    /// What happened, if anything did.
    pub event: Option<Happening>,
}

/// Something that happened to a resource, for its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub note: String,
}

impl Happening {
    /// Whether there is an event. That a new resource became what it was made for is said by its status, for as long as it
    /// is so: a thousand of them are a thousand writes less.
    pub fn is_event(&self) -> bool {
        self.reason != Reason::Created
    }
}

/// A request that the API refused, so that it is not sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// See [`Post::fingerprint`] and [`Put::fingerprint`].
    pub request: String,
    /// Why, as a reason.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// When; where an earlier process told, when the resource was first seen.
    pub at: Tick,
}

impl Post {
    /// A POST of this material for this wish.
    pub(super) fn new(desired: &super::Desired, digest: &str) -> Self {
        Self {
            name: marked_name(&desired.name, &super::tag(&desired.uid, digest)),
            user_id: desired.user_id.clone(),
            unity_id: desired.unity_id.clone(),
            integration_id: desired.integration_id.clone(),
            digest: digest.to_owned(),
        }
    }

    /// Tells this request from any other. The material is in it only as its keyed digest.
    pub fn fingerprint(&self) -> String {
        fingerprint(&["POST", &self.name, &self.user_id, &self.unity_id, &self.integration_id, &self.digest])
    }
}

impl Put {
    /// Whether it is for the resource's own credential, not a superseded one.
    pub fn id_is_own(&self, view: &super::View) -> bool {
        view.recorded.own().is_none_or(|ledger| ledger.id == self.id)
    }

    /// Tells this request from any other.
    pub fn fingerprint(&self) -> String {
        let f = &self.fields;
        let active = if f.active { "active" } else { "inactive" };
        fingerprint(&[
            "PUT",
            self.id.as_str(),
            &f.name,
            &f.user_id,
            &f.unity_id,
            &f.integration_id,
            f.secret_id.as_str(),
            active,
            self.material.as_deref().unwrap_or_default(),
        ])
    }

    /// Whether the answer shows what was asked for.
    ///
    /// A 2xx whose row is another than the one sent is not believed: the request would be sent for ever.
    pub fn verify(&self, answer: &Row, at: Tick) -> Option<Rejection> {
        let mut left = differences(&self.fields, &answer.fields);
        // Material sent in place may get a new place in the vault: the answer says which.
        left.retain(|field| self.material.is_none() || *field != SECRET_ID);
        let (reason, message) = if left.contains(&SECRET_ID) {
            (
                Reason::RotationUnsupported,
                "Toolzz accepted the update but did not take over the new key material (secretId is unchanged); \
                 agents go on with the old key. Set spec.rotation.strategy: Replace to go on with a new credential"
                    .to_owned(),
            )
        } else if !left.is_empty() {
            (
                Reason::RejectedByApi,
                format!(
                    "Toolzz accepted the update but did not apply: {}. Change the spec to what it applies",
                    left.join(", ")
                ),
            )
        } else {
            return None;
        };
        Some(Rejection { request: self.fingerprint(), reason, message, at })
    }
}

pub(super) fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..16])
}

const SECRET_ID: &str = "secretId";

/// The fields in which a row is not as wished, by their names in the API. UUIDs are compared without case.
pub fn differences(wish: &Fields, seen: &Fields) -> Vec<&'static str> {
    [
        ("name", wish.name == seen.name),
        ("userId", wish.user_id.eq_ignore_ascii_case(&seen.user_id)),
        ("unityId", wish.unity_id.eq_ignore_ascii_case(&seen.unity_id)),
        ("integrationId", wish.integration_id.eq_ignore_ascii_case(&seen.integration_id)),
        (SECRET_ID, wish.secret_id == seen.secret_id),
        ("status", wish.active == seen.active),
    ]
    .into_iter()
    .filter_map(|(name, same)| (!same).then_some(name))
    .collect()
}
