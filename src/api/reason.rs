//! Why a resource is in the state it is in: the `reason` of its conditions, metrics and events.
//!
//! One enum, and every list of reasons (conditions, metrics, documentation) is made from it.

use std::fmt;

/// What a reason means for the one who waits: kstatus knows the first three.
/// Source: <https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The credential exists as asked for.
    Good,
    /// Retried by itself, with backoff or when the missing thing comes: `Reconciling` is True.
    Waiting,
    /// Nothing is tried until something changes: `Stalled` is True.
    Stalled,
    /// Nothing is tried because somebody asked for that: `Ready` stays what it was.
    Paused,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident: $class:ident,)+) => {
        /// The reason of a condition. See [`Reason::meaning`] for each in a sentence.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason there is, in the order of the documentation.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)+];

            /// The reason as it stands in a condition: CamelCase, one word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)+ }
            }

            /// What it means and what to do, for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii_start(),)+ }
            }

            /// What it means for the one who waits.
            pub const fn class(self) -> Class {
                match self { $(Reason::$name => Class::$class,)+ }
            }
        }
    };
}

reasons! {
    /// Created at Toolzz, active and recorded.
    Created: Good,
    /// The credential at Toolzz differed from the spec and was put right.
    Updated: Good,
    /// New key material is in use; id and virtual key are unchanged.
    Rotated: Good,
    /// An existing credential was taken over and holds the resource's key material.
    Adopted: Good,
    /// The credential at Toolzz is as the spec says.
    InSync: Good,
    /// The connection works: Toolzz answers and takes the token.
    Connected: Good,
    /// Not looked at yet by the operator.
    Pending: Waiting,
    /// A Secret that the spec refers to does not exist. Create it; the resource goes on by itself.
    SecretNotFound: Waiting,
    /// A Secret that the spec refers to has no such key. Add it; the resource goes on by itself.
    SecretKeyMissing: Waiting,
    /// The Toolzz API cannot be reached or answers with errors. Retried with backoff.
    ApiUnavailable: Waiting,
    /// The connection that the resource uses does not exist. Create it; the resource goes on by itself.
    ConnectionNotFound: Waiting,
    /// The connection that the resource uses exists but cannot be used. Its own status says why; the resource goes on by itself.
    ConnectionNotReady: Waiting,
    /// The Toolzz API asked for a pause. Continued when the pause it asked for is over.
    RateLimited: Waiting,
    /// The answer to a create, or to an update that carries key material, was lost. The operator makes sure of what became of it before it goes on.
    OutcomeUnknown: Waiting,
    /// A recorded credential is no longer listed. A second look, a settle period later, decides.
    VerifyingLoss: Waiting,
    /// The operator's record on the resource does not verify: it was edited, or made by another installation or for another connection. It counts as none.
    LedgerInvalid: Waiting,
    /// The credential of a deleted resource cannot be deactivated yet. Retried until the deletion deadline.
    DeletionBlocked: Waiting,
    /// Left alone because `spec.suspend` is true. Whether it is Ready stays as it was.
    Suspended: Paused,
    /// The Toolzz API refuses the connection's token (401). Replace the token.
    Unauthorized: Stalled,
    /// The Toolzz API forbids this to the token (403): give the token's user the right. Or the connection is not given to this namespace or for this unity: ask whoever runs the platform.
    Forbidden: Stalled,
    /// The spec or the Secret's content cannot be sent. The message names the field.
    InvalidSpec: Stalled,
    /// The Toolzz API rejected the request. It is sent again when the spec or the key material changes, or after a while (six times `--resync-interval`).
    RejectedByApi: Stalled,
    /// Toolzz already has a credential of this name for this user, unity and integration that no resource holds. Rename one, or set `spec.onConflict`.
    NameConflict: Stalled,
    /// The credential is gone from Toolzz. Annotate the resource with `toolzz.com.br/recreate: <its id>` to make a new one.
    RemoteMissing: Stalled,
    /// Many credentials vanished from a listing at once, so the listing is not believed. If they are really gone, annotate the resource with `toolzz.com.br/recreate: <its id>`.
    InventorySuspect: Stalled,
    /// The object of `spec.target` exists and is not this resource's. Rename one of them, or delete the object.
    TargetConflict: Stalled,
    /// Toolzz did not take over the new key material, or changed the virtual key while doing so.
    RotationUnsupported: Stalled,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Reason {
    /// The reason with this name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name_and_says_what_it_means() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
            assert!(reason.meaning().ends_with('.'), "{reason}");
            assert!(!reason.meaning().starts_with(' '), "{reason}");
        }
    }
}
