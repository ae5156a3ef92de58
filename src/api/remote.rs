//! What the rooms say to each other about the Toolzz side: identifiers and rows, without key material.
//! Source: the vendor's pages "Create Credential", "Update Credential" and "Get Credentials by Type".

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Tick;

macro_rules! id {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(#[schemars(length(max = 253))] pub String);

        impl $name {
            /// The identifier as Toolzz wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

id! {
    /// The id of a credential at Toolzz: what agents refer to.
    CredentialId
}
id! {
    /// The id of the key material in Toolzz's vault.
    SecretId
}

/// The types of credential that Toolzz lists by.
/// Source: "Get Credentials by Type": `llm, voice, monetization, dataset, analytics, phone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the names are the vendor's and say all there is
pub enum CredentialType {
    Llm,
    Voice,
    Monetization,
    Dataset,
    Analytics,
    Phone,
}

impl CredentialType {
    /// Every type, in the vendor's order.
    pub const ALL: [Self; 6] =
        [Self::Llm, Self::Voice, Self::Monetization, Self::Dataset, Self::Analytics, Self::Phone];

    /// The type as it stands in a path of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Voice => "voice",
            Self::Monetization => "monetization",
            Self::Dataset => "dataset",
            Self::Analytics => "analytics",
            Self::Phone => "phone",
        }
    }

    /// The type of this name, as the API writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for CredentialType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fields of a credential that a PUT sets: what can be desired, and what can drift.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    /// The credential's name, final or with a marker.
    pub name: String,
    /// UUID of the owning user.
    pub user_id: String,
    /// UUID of the organisational unit.
    pub unity_id: String,
    /// UUID of the integration (the provider).
    pub integration_id: String,
    /// Which material in the vault it uses.
    pub secret_id: SecretId,
    /// The API's `status`: may agents use it.
    pub active: bool,
}

/// A credential as Toolzz shows it, in a listing or in an answer. Never key material.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The credential's id.
    pub id: CredentialId,
    /// What a PUT can set.
    pub fields: Fields,
    /// The virtual key; documented in every answer, but optional on one page.
    pub virtual_key: Option<String>,
    /// The integration, where the answer carried it. Shared: a listing repeats it in each row.
    pub integration: Option<Arc<Integration>>,
}

/// A row and when it was so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The credential.
    pub row: Row,
    /// When the listing that showed it began, or when the answer of an own write came.
    pub at: Tick,
}

impl Seen {
    /// Whether a listing may have missed it, so that it stands: it came after the listing began, or it is inactive, not
    /// shown, and it is not known that listings show such.
    pub fn outlasts(&self, began_at: Tick, shown: bool, shows_inactive: bool) -> bool {
        let newer = self.at >= began_at;
        let hidden = !shows_inactive && !self.row.fields.active && !shown;
        newer || hidden
    }
}

/// What is known of a listing as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListingFacts {
    /// When its request began: everything committed before is in it.
    pub began_at: Tick,
    /// Every row of it could be read. Otherwise the absence of a row says nothing.
    pub complete: bool,
    /// So many credentials vanished from it at once that the listing is not believed.
    pub suspect: bool,
}

/// An integration (a provider): enough of it to validate against and to show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Integration {
    /// UUID.
    pub id: String,
    /// For people: `OpenAI`.
    pub name: String,
    /// For machines: `openai`.
    pub slug: String,
    /// Where its credentials are listed; `None` when the API names a type nobody documented.
    pub kind: Option<CredentialType>,
    /// The fields its credentials have; empty when the API gave none.
    pub form: Vec<FormField>,
}

/// One field of an integration's form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FormField {
    /// The key in the `credentials` array.
    pub name: String,
    /// The vendor's `maxLenght`, in characters; `None` when absent, empty or unreadable.
    pub max_length: Option<usize>,
    /// Whether it must be there.
    pub required: bool,
}

/// Which listing a credential stands in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListingKey {
    /// UUID of the organisational unit.
    pub unity_id: String,
    /// The type.
    pub kind: CredentialType,
}

impl fmt::Display for ListingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unity {} type {}", self.unity_id, self.kind)
    }
}

const MARKER: &str = " [toolzz-operator ";

/// The name of a staged credential: its final name and the tag of its marker.
pub fn marked_name(name: &str, tag: &str) -> String {
    format!("{name}{MARKER}{tag}]")
}

/// The tag of the marker that a name ends with, if it does.
pub fn marker_tag(name: &str) -> Option<&str> {
    let tag = name.rsplit_once(MARKER)?.1.strip_suffix(']')?;
    let (uid, digest) = tag.split_once('-')?;
    let eight = |part: &str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (eight(uid) && eight(digest)).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_found_at_the_end_of_a_name_only() {
        let tag = "0f8fad5b-12345678";
        assert_eq!(marker_tag(&marked_name("OpenAI [EU]", tag)), Some(tag));
        for name in [
            "OpenAI",
            "",
            "x [toolzz-operator ]",
            "x [toolzz-operator 0f8fad5b-1234567]",
            "x [toolzz-operator 0f8fad5b-12345678] y",
            "[toolzz-operator 0f8fad5b-12345678]",
        ] {
            assert_eq!(marker_tag(name), None, "{name}");
        }
    }
}
