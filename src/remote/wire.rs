//! The JSON of the API: written as documented, read tolerantly.
//! Source: the vendor's pages "Create Credential", "Update Credential" and "Get Credentials by Type".
//!
//! What stands under `credentials` in an answer to a write has no field here: it is never read.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    client::{Listed, NewCredential},
    outcome::Unreadable,
};
use crate::api::{CredentialId, CredentialType, Fields, FormField, Integration, Row, SecretId, marker_tag};

/// As the custom resource's status has it.
const MAX_ID: usize = 253;
/// The longest virtual key a status can hold.
const MAX_VIRTUAL_KEY: usize = 1024;
/// The most elements of a listing. What is read is bounded in bytes, but an element can be a byte: each takes some more here.
const MAX_ELEMENTS: usize = 1 << 18;
/// The most fields of a form, and the longest name of one: a spec can have no longer.
const MAX_FORM: (usize, usize) = (256, 128);
/// How much of an integration's name or slug is kept, in characters: what a status can hold.
const MAX_SHOWN: usize = 1024;

/// The documented body of a create. Never active: that is what the update is for.
///
/// # Errors
/// The key material is not JSON.
pub(super) fn create_body(
    new: &NewCredential<'_>,
    credentials: &SecretString,
) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        name: &'a str,
        user_id: &'a str,
        unity_id: &'a str,
        integration_id: &'a str,
        status: bool,
        credentials: &'a RawValue,
    }
    let text = credentials.expose_secret();
    let body = Body {
        name: new.name,
        user_id: new.user_id,
        unity_id: new.unity_id,
        integration_id: new.integration_id,
        status: false,
        credentials: serde_json::from_str(text)?,
    };
    write(&body, text.len(), &[new.name, new.user_id, new.unity_id, new.integration_id])
}

/// The whole documented body of an update; with `credentials`, which the vendor does not document, key material too.
/// The buffer is wiped when dropped.
///
/// # Errors
/// The key material is not JSON.
pub(super) fn update_body(
    fields: &Fields,
    credentials: Option<&SecretString>,
) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        name: &'a str,
        user_id: &'a str,
        unity_id: &'a str,
        integration_id: &'a str,
        secret_id: &'a str,
        status: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        credentials: Option<&'a RawValue>,
    }
    let text = credentials.map(|credentials| credentials.expose_secret());
    let body = Body {
        name: &fields.name,
        user_id: &fields.user_id,
        unity_id: &fields.unity_id,
        integration_id: &fields.integration_id,
        secret_id: fields.secret_id.as_str(),
        status: fields.active,
        credentials: text.map(serde_json::from_str).transpose()?,
    };
    let names = [&fields.name, &fields.user_id, &fields.unity_id, &fields.integration_id, &fields.secret_id.0];
    write(&body, text.map_or(0, str::len), &names.map(String::as_str))
}

/// Writes a body into a buffer that is large enough from the start: one that grows leaves copies behind. JSON writes
/// at most six bytes for one.
fn write(body: &impl Serialize, text: usize, names: &[&str]) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let room = text + 6 * names.iter().map(|name| name.len()).sum::<usize>() + 256;
    let mut buffer = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *buffer, body)?;
    Ok(buffer)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRow<'a> {
    id: String,
    name: String,
    user_id: String,
    unity_id: String,
    integration_id: String,
    secret_id: String,
    status: bool,
    virtual_key: Option<String>,
    #[serde(borrow)]
    integration: Option<&'a RawValue>,
}

impl WireRow<'_> {
    fn into_row(self, integration: Option<Arc<Integration>>) -> Option<Row> {
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let usable = |id: &str| !id.is_empty() && id.len() <= MAX_ID && printable(id);
        let fits = self.virtual_key.as_ref().is_none_or(|key| key.len() <= MAX_VIRTUAL_KEY && printable(key));
        (usable(&self.id) && usable(&self.secret_id) && fits).then(|| Row {
            id: CredentialId(self.id),
            fields: Fields {
                name: self.name,
                user_id: self.user_id,
                unity_id: self.unity_id,
                integration_id: self.integration_id,
                secret_id: SecretId(self.secret_id),
                active: self.status,
            },
            virtual_key: self.virtual_key.filter(|key| !key.is_empty()),
            integration,
        })
    }
}

/// The answer to a create or an update.
pub(super) fn row(body: &[u8]) -> Result<Row, Unreadable> {
    let wire: WireRow<'_> = serde_json::from_slice(body).map_err(|error| problem(&error))?;
    let integration = wire.integration.and_then(|raw| integration(raw.get())).map(Arc::new);
    wire.into_row(integration).ok_or(Unreadable::WrongShape)
}

fn problem(error: &serde_json::Error) -> Unreadable {
    if error.is_data() { Unreadable::WrongShape } else { Unreadable::NotJson }
}

/// A listing in any of the shapes seen: `[{credentials: {…}, integration: {…}}]`, the older
/// `{credentials: […], integration: […]}`, and `{items: [{…, integration: {…}}]}`.
pub(super) fn rows(body: &[u8]) -> Result<Listed, Unreadable> {
    let mut rows = Vec::new();
    let (mut complete, mut unread) = (true, Vec::new());
    let mut integrations = Interned::default();
    let mut keep = |raw: &RawValue, integration: Option<Arc<Integration>>, own: &mut Interned<'_>| {
        let wire: Option<WireRow<'_>> = serde_json::from_str(raw.get()).ok();
        let row = wire.and_then(|wire| {
            let id = wire.integration_id.clone();
            wire.into_row(integration.or_else(|| own.by_id(&id)))
        });
        if row.is_none() {
            complete = false;
            unread.extend(tag(raw));
        }
        rows.extend(row);
    };
    match Listing::of(body)? {
        Listing::Elements(elements) => {
            for raw in elements {
                let element = serde_json::from_str(raw.get()).unwrap_or(Element::UNREADABLE);
                let integration = element.integration.and_then(|raw| integrations.of(raw));
                keep(element.row().unwrap_or(raw), integration, &mut integrations);
            }
        }
        Listing::Older { credentials, integration } => {
            for raw in integration {
                integrations.of(raw);
            }
            for raw in credentials {
                keep(raw, None, &mut integrations);
            }
        }
    }
    Ok(Listed { rows, complete, unread })
}

/// The tag of the marker in the name of a credential, of which nothing else needs to be readable.
fn tag(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let named: Named = serde_json::from_str(raw.get()).ok()?;
    marker_tag(&named.name).map(str::to_owned)
}

/// One element of a listing: a credential beside its integration, or with it inside.
#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    credentials: Option<&'a RawValue>,
    #[serde(borrow)]
    integration: Option<&'a RawValue>,
}

impl<'a> Element<'a> {
    const UNREADABLE: Self = Self { id: None, credentials: None, integration: None };

    /// The credential beside the integration. What has an id is one itself, and its `credentials` is not read.
    fn row(&self) -> Option<&'a RawValue> {
        self.credentials.filter(|_| self.id.is_none())
    }
}

/// The outer shape of a listing; the elements are still text, so that one bad row is one bad row.
enum Listing<'a> {
    Elements(Elements<'a>),
    Older { credentials: Elements<'a>, integration: Elements<'a> },
}

impl<'a> Listing<'a> {
    fn of(body: &'a [u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            items: Option<Elements<'a>>,
            #[serde(borrow)]
            credentials: Option<Elements<'a>>,
            #[serde(borrow)]
            integration: Option<Elements<'a>>,
        }
        if body.trim_ascii_start().first() == Some(&b'[') {
            return serde_json::from_slice(body).map(Self::Elements).map_err(|error| problem(&error));
        }
        let object: Object<'_> = serde_json::from_slice(body).map_err(|error| problem(&error))?;
        match (object.items, object.credentials) {
            (Some(items), None) => Ok(Self::Elements(items)),
            (None, Some(credentials)) => {
                Ok(Self::Older { credentials, integration: object.integration.unwrap_or_default() })
            }
            _ => Err(Unreadable::WrongShape),
        }
    }
}

/// The elements of an array, not more than [`MAX_ELEMENTS`].
#[derive(Default)]
struct Elements<'a>(Vec<&'a RawValue>);

impl<'a> IntoIterator for Elements<'a> {
    type Item = &'a RawValue;
    type IntoIter = std::vec::IntoIter<&'a RawValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Bounded)
    }
}

struct Bounded;

impl<'de> Visitor<'de> for Bounded {
    type Value = Elements<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX_ELEMENTS} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            if elements.len() == MAX_ELEMENTS {
                return Err(A::Error::invalid_length(MAX_ELEMENTS + 1, &self));
            }
            elements.push(element);
        }
        Ok(Elements(elements))
    }
}

/// Each integration once, however often a listing repeats it.
#[derive(Default)]
struct Interned<'a> {
    by_text: HashMap<&'a str, Option<Arc<Integration>>>,
    by_id: HashMap<String, Arc<Integration>>,
}

impl<'a> Interned<'a> {
    /// The same text is read once; the same integration, written differently, is kept once.
    fn of(&mut self, raw: &'a RawValue) -> Option<Arc<Integration>> {
        if let Some(known) = self.by_text.get(raw.get()) {
            return known.clone();
        }
        let shared = integration(raw.get()).map(|read| match self.by_id.get(&read.id) {
            Some(known) if **known == read => Arc::clone(known),
            _ => {
                let shared = Arc::new(read);
                self.by_id.insert(shared.id.clone(), Arc::clone(&shared));
                shared
            }
        });
        self.by_text.insert(raw.get(), shared.clone());
        shared
    }

    fn by_id(&self, id: &str) -> Option<Arc<Integration>> {
        self.by_id.get(id).cloned()
    }
}

/// `[{"integrations": {…}}]`, and the same without the wrapper or within `items`.
pub(super) fn catalogue(body: &[u8]) -> Result<Vec<Integration>, Unreadable> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        integrations: &'a RawValue,
    }
    let elements = match Listing::of(body)? {
        Listing::Elements(elements) => elements,
        Listing::Older { .. } => return Err(Unreadable::WrongShape),
    };
    let read = |raw: &RawValue| match serde_json::from_str::<Entry<'_>>(raw.get()) {
        Ok(entry) => integration(entry.integrations.get()),
        Err(_) => integration(raw.get()),
    };
    Ok(elements.into_iter().filter_map(read).collect())
}

fn integration(text: &str) -> Option<Integration> {
    #[derive(Deserialize)]
    struct WireIntegration<'a> {
        id: String,
        name: Option<String>,
        slug: Option<String>,
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
        #[serde(borrow)]
        form: Option<&'a RawValue>,
    }
    let wire: WireIntegration<'_> = serde_json::from_str(text).ok()?;
    Some(Integration {
        id: wire.id,
        name: shown(wire.name),
        slug: shown(wire.slug),
        kind: wire.kind.and_then(|kind| CredentialType::from_name(&kind.to_ascii_lowercase())),
        // A form that is only half understood would have good fields refused as unknown: none then.
        form: wire.form.and_then(|raw| serde_json::from_str(raw.get()).ok()).map(form).unwrap_or_default(),
    })
}

/// What is shown to people: as much of it as is kept, on one line.
fn shown(text: Option<String>) -> String {
    text.unwrap_or_default().chars().filter(|letter| !letter.is_control()).take(MAX_SHOWN).collect()
}

#[derive(Deserialize)]
struct WireField {
    name: String,
    // The vendor writes the first; both may stand there.
    #[serde(default, rename = "maxLenght", deserialize_with = "tolerant_length")]
    max_lenght: Option<usize>,
    #[serde(default, rename = "maxLength", deserialize_with = "tolerant_length")]
    max_length: Option<usize>,
    #[serde(default, deserialize_with = "tolerant_bool")]
    required: bool,
}

/// One that is larger than any form would make messages as large: none then, too.
fn form(wire: Vec<WireField>) -> Vec<FormField> {
    let (most, longest) = MAX_FORM;
    if wire.len() > most || wire.iter().any(|field| field.name.chars().count() > longest) {
        return Vec::new();
    }
    let field = |field: WireField| FormField {
        name: field.name,
        max_length: field.max_lenght.or(field.max_length),
        required: field.required,
    };
    wire.into_iter().map(field).collect()
}

/// A number, or text that is one; zero, empty and anything else is no limit.
fn tolerant_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let length = match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Number(number) => number.as_u64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    Ok(length.filter(|length| *length > 0).and_then(|length| usize::try_from(length).ok()))
}

/// Only what clearly says so is required: what is not is found out by the API's answer.
fn tolerant_bool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::Bool(value) => value,
        serde_json::Value::String(text) => text.trim().eq_ignore_ascii_case("true"),
        _ => false,
    })
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "wire_properties.rs"]
mod properties;
