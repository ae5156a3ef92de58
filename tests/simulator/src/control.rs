//! The control interface over HTTP, under `/_sim/`; the crate's front page lists it.

use hyper::{Method, Response};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::body::{self, Body};
use crate::exchange::{answer, json as json_answer};
use crate::faults::{Matching, Rule};
use crate::gate::{GateId, Point, Verdict};
use crate::journal::Operation;
use crate::settings::{Settings, Token};
use crate::state::{Shared, State};
use crate::store::{Cause, Change, Credential, NewCredential, Row, fingerprint};
use crate::table;
use crate::wire::to_json;

/// Where the control interface begins.
pub(crate) const BASE: &str = "/_sim";
/// The same with what follows it.
pub(crate) const BASE_SLASH: &str = "/_sim/";

/// The endpoints, as `GET /_sim/` shows them.
pub(crate) const HELP: &str = "\
GET    /_sim/table              what there is, for people
GET    /_sim/credentials        what there is and was, with fingerprints of the material
POST   /_sim/credentials        make one elsewhere: {name, userId, unityId, integrationId, active, material}
PATCH  /_sim/credentials/{id}   edit one elsewhere: {name?, userId?, unityId?, integrationId?, secretId?, active?, virtualKey?}
DELETE /_sim/credentials/{id}   remove one elsewhere
GET    /_sim/counts             requests by operation, overlaps, strays
GET    /_sim/journal            every request; ?after=SEQ
GET    /_sim/settings           PUT: change the ones given
PUT    /_sim/tokens             [{id, value, access: full|forbidden}]
GET    /_sim/faults             POST: add one {on, times, skip, fault}; DELETE: remove all, /_sim/faults/{id}: one
POST   /_sim/gates              stop requests {on, point: beforeCommit|afterCommit, limit}; GET: how many wait
POST   /_sim/release            open every gate, have postponed effects take place; {discard: true}: neither
";

/// Status and JSON, or status and message.
type Outcome = Result<Value, (u16, String)>;

/// Answers a request to the control interface.
pub(crate) fn handle(shared: &Shared, method: &Method, path: &str, query: Option<&str>, raw: &[u8]) -> Response<Body> {
    let rest = path.strip_prefix(BASE).unwrap_or_default().trim_matches('/');
    let segments: Vec<&str> = rest.split('/').collect();
    let text = |text: String| answer(200, "text/plain; charset=utf-8", body::full(text));
    let outcome = match (method.as_str(), segments.as_slice()) {
        ("GET", [""]) => return text(HELP.to_owned()),
        ("GET", ["table"]) => return text(shared.read(table::render)),
        ("GET", ["credentials"]) => {
            Ok(shared.read(|state| state.credentials().iter().map(|one| shown(state, one)).collect()))
        }
        ("POST", ["credentials"]) => parse(raw).map(|new: New| {
            let id = shared.change(|state| state.store.insert(new.into(), Cause::Elsewhere));
            json!({"id": id})
        }),
        ("PATCH", ["credentials", id]) => edit(shared, id, raw),
        ("DELETE", ["credentials", id]) => {
            parse_id(id).and_then(|id| found(shared.change(|state| state.store.remove(id, Cause::Elsewhere))))
        }
        ("GET", ["counts"]) => Ok(shared.read(counts)),
        ("GET", ["journal"]) => journal(shared, query),
        ("GET", ["settings"]) => Ok(shared.read(|state| json!(state.settings))),
        ("PUT", ["settings"]) => configure(shared, raw),
        ("PUT", ["tokens"]) => parse(raw).map(|tokens: Vec<Token>| {
            shared.change(|state| state.tokens = tokens);
            json!({})
        }),
        ("GET", ["faults"]) => Ok(shared.read(faults)),
        ("POST", ["faults"]) => parse(raw).map(|rule: Rule| json!({"id": shared.change(|state| state.add_rule(rule))})),
        ("DELETE", ["faults"]) => {
            shared.change(|state| state.rules.clear());
            Ok(json!({}))
        }
        ("DELETE", ["faults", id]) => remove_fault(shared, id),
        ("GET", ["gates"]) => Ok(shared.read(gates)),
        ("POST", ["gates"]) => parse(raw)
            .map(|gate: NewGate| json!({"id": shared.change(|state| state.add_gate(gate.on, gate.point, gate.limit))})),
        ("POST", ["release"]) => release(shared, raw),
        _ => Err((404, format!("no such page; there are:\n{HELP}"))),
    };
    match outcome {
        Ok(value) => json_answer(200, body::full(to_json(&value))),
        Err((status, message)) => json_answer(status, body::full(to_json(&json!({"error": message})))),
    }
}

/// An empty body counts as `{}`.
fn parse<T: DeserializeOwned>(raw: &[u8]) -> Result<T, (u16, String)> {
    let raw = if raw.is_empty() { b"{}" } else { raw };
    serde_json::from_slice(raw).map_err(|error| (400, error.to_string()))
}

fn parse_id(text: &str) -> Result<Uuid, (u16, String)> {
    text.parse().map_err(|_| (400, "the id must be a UUID".to_owned()))
}

fn found(found: bool) -> Outcome {
    if found { Ok(json!({})) } else { Err((404, "there is nothing of this id".to_owned())) }
}

/// A credential made elsewhere.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct New {
    name: String,
    user_id: Uuid,
    unity_id: Uuid,
    integration_id: Uuid,
    active: bool,
    material: Value,
}

impl From<New> for NewCredential {
    fn from(New { name, user_id, unity_id, integration_id, active, material }: New) -> Self {
        Self { name, user_id, unity_id, integration_id, active, material }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewGate {
    #[serde(default)]
    on: Matching,
    point: Point,
    limit: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Patch {
    name: Option<String>,
    user_id: Option<Uuid>,
    unity_id: Option<Uuid>,
    integration_id: Option<Uuid>,
    secret_id: Option<Uuid>,
    active: Option<bool>,
    virtual_key: Option<String>,
}

impl Patch {
    fn apply(self, row: &mut Row) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut row.name, self.name);
        set(&mut row.user_id, self.user_id);
        set(&mut row.unity_id, self.unity_id);
        set(&mut row.integration_id, self.integration_id);
        set(&mut row.secret_id, self.secret_id);
        set(&mut row.active, self.active);
        set(&mut row.virtual_key, self.virtual_key);
    }
}

fn edit(shared: &Shared, id: &str, raw: &[u8]) -> Outcome {
    let (id, patch) = (parse_id(id)?, parse::<Patch>(raw)?);
    found(shared.change(|state| state.store.update(id, Cause::Elsewhere, |row| patch.apply(row))))
}

fn shown(state: &State, credential: &Credential) -> Value {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Shown<'a> {
        id: Uuid,
        #[serde(flatten)]
        row: &'a Row,
        final_name: &'a str,
        removed: bool,
        ever_active: bool,
        material: Option<String>,
        created_at: Timestamp,
        updated_at: Timestamp,
        history: &'a [Change],
    }
    json!(Shown {
        id: credential.id,
        row: &credential.row,
        final_name: credential.final_name(),
        removed: credential.removed,
        ever_active: credential.was_ever_active(),
        material: state.material_of(credential.row.secret_id).map(fingerprint),
        created_at: credential.created_at(),
        updated_at: credential.updated_at(),
        history: &credential.history,
    })
}

fn counts(state: &State) -> Value {
    let overlaps: Vec<Value> = state
        .overlaps()
        .into_iter()
        .map(|((name, unity_id, integration_id), most)| {
            json!({"name": name, "unityId": unity_id, "integrationId": integration_id, "mostActiveAtOnce": most})
        })
        .collect();
    json!({
        "create": state.counts(Operation::Create),
        "update": state.counts(Operation::Update),
        "list": state.counts(Operation::List),
        "catalogue": state.counts(Operation::Catalogue),
        "other": state.counts(Operation::Other),
        "inFlight": state.in_flight(),
        "maxInFlight": state.max_in_flight(),
        "pendingCommits": state.pending_commits(),
        "point": state.point(),
        "active": state.credentials().iter().filter(|credential| credential.is_active()).count(),
        "staged": state.staged().len(),
        "everActiveWhileMarked": state.ever_active_while_marked().len(),
        "overlaps": overlaps,
    })
}

fn journal(shared: &Shared, query: Option<&str>) -> Outcome {
    let after = match query.map(|query| query.strip_prefix("after=").and_then(|seq| seq.parse::<u64>().ok())) {
        None => 0,
        Some(Some(seq)) => seq,
        Some(None) => return Err((400, "the query must be ?after=<sequence number>".to_owned())),
    };
    Ok(shared.read(|state| json!(state.journal().filter(|entry| entry.seq > after).collect::<Vec<_>>())))
}

/// Changes only what the body names.
fn configure(shared: &Shared, raw: &[u8]) -> Outcome {
    let changes: serde_json::Map<String, Value> = parse(raw)?;
    shared.change(|state| {
        let mut merged = json!(state.settings);
        if let Some(fields) = merged.as_object_mut() {
            fields.extend(changes);
        }
        state.settings = serde_json::from_value::<Settings>(merged).map_err(|error| (400, error.to_string()))?;
        Ok(json!(state.settings))
    })
}

fn faults(state: &State) -> Value {
    state.rules.iter().map(|active| json!({"id": active.id, "hits": active.hits, "rule": active.rule})).collect()
}

fn remove_fault(shared: &Shared, id: &str) -> Outcome {
    let id: u64 = id.parse().map_err(|_| (400, "the id must be a number".to_owned()))?;
    found(shared.change(|state| {
        let before = state.rules.len();
        state.rules.retain(|active| active.id.0 != id);
        state.rules.len() < before
    }))
}

fn gates(state: &State) -> Value {
    let ids = state.gates.iter().map(|gate| gate.id);
    ids.map(|id| json!({"id": id, "waiting": state.waiting_at(id), "held": state.held_at(id)})).collect()
}

fn release(shared: &Shared, raw: &[u8]) -> Outcome {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Release {
        gate: Option<GateId>,
        discard: bool,
    }
    let Release { gate, discard } = parse(raw)?;
    let verdict = if discard { Verdict::Discard } else { Verdict::Continue };
    Ok(shared.change(|state| {
        let ids: Vec<GateId> = match gate {
            Some(id) => vec![id],
            None => state.gates.iter().map(|gate| gate.id).collect(),
        };
        let released: usize = ids.into_iter().map(|id| state.open_gate(id, verdict)).sum();
        let late = match (gate, discard) {
            (Some(_), _) => 0,
            (None, false) => state.perform_all_late(),
            (None, true) => state.discard_late(),
        };
        json!({"released": released, "late": late})
    }))
}
