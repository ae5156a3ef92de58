//! How the simulated vendor behaves while no fault is at work.

use serde::{Deserialize, Serialize};

/// The switches of the simulated vendor. The default is the documented behaviour.
///
/// As JSON the names are in camel case (`latencyMs`, `listingFormat`, …); a change may name only some of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Milliseconds every request waits before anything is done with it.
    pub latency_ms: u64,
    /// The shape of `GET /credential/unity/{unityId}/type/{type}`.
    pub listing_format: ListingFormat,
    /// Whether listings show inactive credentials. Not documented by the vendor; default yes.
    pub listings_show_inactive: bool,
    /// Whether `GET /integration/status` exists; otherwise it is a 404.
    pub catalogue: bool,
    /// What stands under `credentials` in the answers to create and update.
    pub credentials_in_answers: CredentialsInAnswers,
    /// How times are written.
    pub timestamps: Timestamps,
    /// A PUT's `secretId` is accepted and ignored: a vendor that cannot repoint.
    pub ignore_secret_id: bool,
    /// A PUT makes a new `virtualKey`.
    pub regenerate_virtual_key: bool,
    /// A PUT's `credentials` replaces the material in the vault under the same `secretId`; otherwise it is ignored.
    pub replace_material_in_place: bool,
    /// A second credential of the same name in the same unity is refused with 409.
    pub unique_names: bool,
    /// Names longer than this many characters are refused with 400.
    pub max_name_length: Option<usize>,
    /// Request bodies of more bytes are refused with 413.
    pub max_request_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            listing_format: ListingFormat::Documented,
            listings_show_inactive: true,
            catalogue: true,
            credentials_in_answers: CredentialsInAnswers::Object,
            timestamps: Timestamps::Varied,
            ignore_secret_id: false,
            regenerate_virtual_key: false,
            replace_material_in_place: false,
            unique_names: false,
            max_name_length: None,
            max_request_bytes: 1 << 20,
        }
    }
}

/// The shapes a listing was seen to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ListingFormat {
    /// `[{"credentials": {…}, "integration": {…}}]`, the documented one.
    Documented,
    /// `{"credentials": [{…}], "integration": [{…}]}`; each integration once, found by `integrationId`.
    Older,
    /// `{"items": [{…credential, "integration": {…}}]}`.
    Items,
}

/// What an answer says under `credentials`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CredentialsInAnswers {
    /// `{}`, the documented one.
    Object,
    /// `[]`.
    Array,
    /// `null`.
    Null,
    /// No such field.
    Absent,
    /// The key material itself: what must never be read, logged or kept.
    Material,
}

/// How times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Timestamps {
    /// `2024-09-03T18:52:29.443Z`.
    Fraction,
    /// `2024-09-03T18:52:29Z`.
    NoFraction,
    /// `createdAt` with a fraction, `updatedAt` without.
    Varied,
}

/// A bearer token the simulator knows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    /// What the journal calls it.
    pub id: String,
    /// The token itself.
    pub value: String,
    /// What it may do.
    #[serde(default)]
    pub access: Access,
}

impl Token {
    /// A token that may do everything.
    #[must_use]
    pub fn full(id: &str, value: &str) -> Self {
        Self { id: id.to_owned(), value: value.to_owned(), access: Access::Full }
    }

    /// A known token that is answered 403.
    #[must_use]
    pub fn forbidden(id: &str, value: &str) -> Self {
        Self { id: id.to_owned(), value: value.to_owned(), access: Access::Forbidden }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Token").field("id", &self.id).field("access", &self.access).finish_non_exhaustive()
    }
}

/// What a known token may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Everything.
    #[default]
    Full,
    /// Nothing: every request is answered 403.
    Forbidden,
}
