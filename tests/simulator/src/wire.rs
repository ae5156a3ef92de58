//! The JSON of the vendor's answers.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::catalogue::Kind;
use crate::faults::Reply;
use crate::settings::{CredentialsInAnswers, ListingFormat, Timestamps};
use crate::state::State;
use crate::store::{Credential, Row};

/// A credential as listings show it, with fields nobody documented.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    id: Uuid,
    name: &'a str,
    user_id: Uuid,
    unity_id: Uuid,
    integration_id: Uuid,
    secret_id: Uuid,
    status: bool,
    virtual_key: &'a str,
    created_at: String,
    updated_at: String,
    deleted_at: Option<()>,
}

impl<'a> Listed<'a> {
    fn new(id: Uuid, row: &'a Row, created_at: Timestamp, updated_at: Timestamp, timestamps: Timestamps) -> Self {
        Self {
            id,
            name: &row.name,
            user_id: row.user_id,
            unity_id: row.unity_id,
            integration_id: row.integration_id,
            secret_id: row.secret_id,
            status: row.active,
            virtual_key: &row.virtual_key,
            created_at: written_time(created_at, timestamps != Timestamps::NoFraction),
            updated_at: written_time(updated_at, timestamps == Timestamps::Fraction),
            deleted_at: None,
        }
    }
}

fn written_time(at: Timestamp, fraction: bool) -> String {
    at.strftime(if fraction { "%Y-%m-%dT%H:%M:%S.%3fZ" } else { "%Y-%m-%dT%H:%M:%SZ" }).to_string()
}

/// The answer to a create or update.
pub(crate) fn written(state: &State, credential: &Credential, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Written<'a> {
        message: &'a str,
        #[serde(flatten)]
        row: Listed<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        credentials: Option<Value>,
    }
    let row = &credential.row;
    let timestamps = state.settings.timestamps;
    let object = Written {
        message,
        row: Listed::new(credential.id, row, credential.created_at(), credential.updated_at(), timestamps),
        credentials: match state.settings.credentials_in_answers {
            CredentialsInAnswers::Object => Some(json!({})),
            CredentialsInAnswers::Array => Some(json!([])),
            CredentialsInAnswers::Null => Some(Value::Null),
            CredentialsInAnswers::Absent => None,
            CredentialsInAnswers::Material => state.store.material(row.secret_id).cloned(),
        },
    };
    let integration = state.store.integration(row.integration_id).map_or("null", |known| known.with_icon.get());
    with_integration(&object, integration)
}

/// The object with one more field, `integration`: a raw value cannot stand in a flattened structure.
fn with_integration(object: &impl Serialize, integration: &str) -> Vec<u8> {
    let mut text = to_json(object);
    text.pop();
    text.extend_from_slice(b",\"integration\":");
    text.extend_from_slice(integration.as_bytes());
    text.push(b'}');
    text
}

/// Nothing this crate serialises can fail: string keys, finite numbers.
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The answer to `GET /integration/status`.
pub(crate) fn catalogue(state: &State) -> Vec<u8> {
    to_json(&state.store.integrations().iter().map(|known| known.catalogue_entry()).collect::<Vec<_>>())
}

/// The rows of a listing as they were at one moment; cheap to take, rendered later.
#[derive(Debug)]
pub(crate) struct Listing {
    rows: Vec<(Uuid, Arc<Row>, Timestamp, Timestamp)>,
    integrations: HashMap<Uuid, Arc<RawValue>>,
    format: ListingFormat,
    timestamps: Timestamps,
}

impl Listing {
    /// The credentials of a unity and kind, as `reply` distorts them.
    pub(crate) fn take(state: &State, unity_id: Uuid, kind: Kind, reply: &Reply) -> Self {
        let store = &state.store;
        let shown = |row: &Row| state.settings.listings_show_inactive || row.active;
        let entry = |credential: &Credential, row: &Arc<Row>, updated_at| {
            (credential.id, Arc::clone(row), credential.created_at(), updated_at)
        };
        let mut rows: Vec<_> = match reply {
            Reply::Empty => Vec::new(),
            Reply::Stale { as_of } => {
                let here = |row: &Row| row.unity_id == unity_id && store.kind(row) == Some(kind) && shown(row);
                let then = store.all().iter().filter_map(|credential| {
                    let (row, updated_at) = credential.as_of(*as_of)?;
                    here(row).then(|| entry(credential, row, updated_at))
                });
                then.collect()
            }
            _ => {
                let now = store.listed(unity_id, kind).filter(|credential| shown(&credential.row));
                now.map(|credential| entry(credential, &credential.row, credential.updated_at())).collect()
            }
        };
        if let Reply::Partial { every } = reply {
            let mut number = 0;
            rows.retain(|_| {
                number += 1;
                number % (*every).max(1) != 0
            });
        }
        let known = store.integrations().iter().filter(|integration| integration.kind == kind);
        let integrations = known.map(|integration| (integration.id, Arc::clone(&integration.with_icon))).collect();
        Self { rows, integrations, format: state.settings.listing_format, timestamps: state.settings.timestamps }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn render(&self) -> Vec<u8> {
        match self.format {
            ListingFormat::Documented => {
                #[derive(Serialize)]
                struct Pair<'a> {
                    credentials: Listed<'a>,
                    integration: Option<&'a RawValue>,
                }
                to_json(&self.each(|credentials, integration| Pair { credentials, integration }))
            }
            ListingFormat::Older => {
                #[derive(Serialize)]
                struct Older<'a> {
                    credentials: Vec<Listed<'a>>,
                    integration: Vec<&'a RawValue>,
                }
                let used = |id: &&Uuid| self.rows.iter().any(|(_, row, ..)| row.integration_id == **id);
                let integration = self.integrations.keys().filter(used).map(|id| &*self.integrations[id]).collect();
                to_json(&Older { credentials: self.each(|credentials, _| credentials), integration })
            }
            ListingFormat::Items => {
                let mut text = b"{\"items\":[".to_vec();
                for item in
                    self.each(|row, integration| with_integration(&row, integration.map_or("null", RawValue::get)))
                {
                    if text.last() == Some(&b'}') {
                        text.push(b',');
                    }
                    text.extend_from_slice(&item);
                }
                text.extend_from_slice(b"]}");
                text
            }
        }
    }

    fn each<'a, T>(&'a self, make: impl Fn(Listed<'a>, Option<&'a RawValue>) -> T) -> Vec<T> {
        let rows = self.rows.iter().map(|(id, row, created_at, updated_at)| {
            let integration = self.integrations.get(&row.integration_id).map(|integration| &**integration);
            make(Listed::new(*id, row, *created_at, *updated_at, self.timestamps), integration)
        });
        rows.collect()
    }
}
