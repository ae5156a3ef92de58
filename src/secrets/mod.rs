//! From references to key material. Nothing here can be printed, serialised by accident or cached.

mod index;
mod key;
mod material;
mod reach;
mod read;
mod token;
mod validate;

use thiserror::Error;

use crate::api::Reason;

pub use index::SecretIndex;
pub use key::InstallationKey;
pub(crate) use key::SECRET as KEY_SECRET;
pub use material::Material;
pub use reach::{Part, Reach};
pub use read::read;
pub use token::read_token;
pub use validate::{Unfit, validate};

/// Why there is no key material. Names of fields, Secrets and keys; never a value.
#[derive(Debug, Error)]
pub enum Error {
    /// The Secret does not exist.
    #[error("{field}: Secret {secret:?} does not exist in this namespace")]
    SecretNotFound {
        /// Where in the spec it is referred to.
        field: String,
        /// The Secret's name.
        secret: String,
    },
    /// The Secret has no such key.
    #[error("{field}: Secret {secret:?} has no key {key:?}")]
    KeyMissing {
        /// Where in the spec it is referred to.
        field: String,
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
    },
    /// The value cannot be sent.
    #[error("{field}: key {key:?} of Secret {secret:?} {problem}")]
    BadValue {
        /// Where in the spec it is referred to.
        field: String,
        /// The Secret's name.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The API server does not let the operator read or keep the Secret.
    #[error(
        "the operator may not {verb} Secret {secret:?} in namespace {namespace:?}: its role, --secret-namespaces or --secret-names lacks it"
    )]
    NotAllowed {
        /// What it tried.
        verb: &'static str,
        /// The namespace.
        namespace: String,
        /// The Secret's name.
        secret: String,
    },
    /// The installation key's Secret does not hold a key.
    #[error(
        "Secret {secret:?} holds no installation key of 32 bytes under \"key\"; restore it from a backup, or delete it to have a new one made (every ledger made with the old one is void then)"
    )]
    BadInstallationKey {
        /// The Secret's name.
        secret: String,
    },
    /// The API server cannot be reached or answers with an error.
    #[error("Kubernetes API, Secret {secret:?}: {problem}")]
    Kubernetes {
        /// The Secret's name.
        secret: String,
        /// Status code and reason; never the answer's text.
        problem: String,
    },
}

impl Error {
    /// The reason to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::SecretNotFound { .. } => Reason::SecretNotFound,
            Self::KeyMissing { .. } => Reason::SecretKeyMissing,
            Self::BadValue { .. } | Self::BadInstallationKey { .. } => Reason::InvalidSpec,
            Self::NotAllowed { .. } | Self::Kubernetes { .. } => Reason::ApiUnavailable,
        }
    }

    /// Whether it may pass by itself, without an event on the Secret or the resource.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotAllowed { .. } | Self::Kubernetes { .. })
    }

    fn out_of_reach(verb: &'static str, namespace: &str, secret: &str) -> Self {
        Self::NotAllowed { verb, namespace: namespace.to_owned(), secret: secret.to_owned() }
    }

    fn kubernetes(error: &kube::Error, verb: &'static str, namespace: &str, secret: &str) -> Self {
        match error {
            kube::Error::Api(answer) if answer.code == 403 => Self::out_of_reach(verb, namespace, secret),
            kube::Error::Api(answer) => {
                Self::Kubernetes { secret: secret.to_owned(), problem: format!("{} {}", answer.code, answer.reason) }
            }
            _ => Self::Kubernetes { secret: secret.to_owned(), problem: "no answer".to_owned() },
        }
    }
}
