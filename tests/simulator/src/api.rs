//! The vendor's API: what a request means, whether it is allowed, and its effect.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::catalogue::Kind;
use crate::faults::{Reply, Seen};
use crate::journal::{Operation, TokenSeen};
use crate::state::State;
use crate::store::{Cause, Credential, NewCredential, new_virtual_key};
use crate::wire::{self, Listing};

/// Where the API begins.
pub(crate) const BASE: &str = "/api/v1";

/// A request, completely received.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) seq: u64,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) operation: Operation,
    pub(crate) authorization: Option<String>,
    pub(crate) token: TokenSeen,
    pub(crate) raw: Bytes,
    pub(crate) body: Option<Value>,
}

impl Call {
    pub(crate) fn new(method: Method, path: String, authorization: Option<String>, raw: Bytes) -> Self {
        let operation = operation(&method, &path);
        let body = serde_json::from_slice(&raw).ok();
        Self { seq: 0, method, path, operation, authorization, token: TokenSeen::Missing, raw, body }
    }

    pub(crate) fn bearer(&self) -> Option<&str> {
        self.authorization.as_deref()?.strip_prefix("Bearer ")
    }

    pub(crate) fn seen(&self) -> Seen<'_> {
        let field = |name| self.body.as_ref().and_then(|body| body.get(name));
        Seen {
            operation: self.operation,
            method: &self.method,
            path: &self.path,
            name: field("name").and_then(Value::as_str),
            active: field("status").and_then(Value::as_bool),
        }
    }
}

fn segments(path: &str) -> Vec<&str> {
    path.strip_prefix(BASE).unwrap_or_default().split('/').skip(1).collect()
}

fn operation(method: &Method, path: &str) -> Operation {
    match (method.as_str(), segments(path).as_slice()) {
        ("POST", ["credential"]) => Operation::Create,
        ("PUT", ["credential", _]) => Operation::Update,
        ("GET", ["credential", "unity", _, "type", _]) => Operation::List,
        ("GET", ["integration", "status"]) => Operation::Catalogue,
        _ => Operation::Other,
    }
}

/// What the API answers to a call.
#[derive(Debug)]
pub(crate) struct Performed {
    /// The credential created or updated.
    pub(crate) committed: Option<Uuid>,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Json(u16, Vec<u8>),
    /// Rows as they were; rendered outside the lock.
    Listing(Listing),
}

impl Performed {
    pub(crate) fn status(&self) -> u16 {
        match &self.answer {
            Answer::Json(status, _) => *status,
            Answer::Listing(_) => 200,
        }
    }

    pub(crate) fn rows(&self) -> Option<usize> {
        match &self.answer {
            Answer::Json(..) => None,
            Answer::Listing(listing) => Some(listing.len()),
        }
    }

    /// Status and body.
    pub(crate) fn render(self) -> (u16, Vec<u8>) {
        match self.answer {
            Answer::Json(status, body) => (status, body),
            Answer::Listing(listing) => (200, listing.render()),
        }
    }
}

/// A request that is not allowed: status and body.
struct Refusal(u16, Value);

/// Has the effect of a call take place and makes its answer. `reply` matters to listings only.
pub(crate) fn perform(state: &mut State, call: &Call, reply: &Reply) -> Performed {
    let result = authorize(call).and_then(|()| match call.operation {
        Operation::Create => create(state, call),
        Operation::Update => update(state, call),
        Operation::List => list(state, call, reply),
        Operation::Catalogue => catalogue(state),
        Operation::Other => Err(refusal(404, "Not Found", &format!("Cannot {} {}", call.method, call.path))),
    });
    result.unwrap_or_else(|Refusal(status, body)| Performed {
        committed: None,
        answer: Answer::Json(status, body.to_string().into_bytes()),
    })
}

fn refusal(status: u16, error: &str, message: &str) -> Refusal {
    Refusal(status, json!({"statusCode": status, "error": error, "message": message}))
}

/// A refusal that repeats the whole request, as careless servers do: whoever logs it leaks.
fn echoing(status: u16, error: &str, message: impl Into<Value>, call: &Call) -> Refusal {
    let request = call.body.clone().unwrap_or_else(|| String::from_utf8_lossy(&call.raw).into());
    Refusal(status, json!({"statusCode": status, "error": error, "message": message.into(), "request": request}))
}

fn authorize(call: &Call) -> Result<(), Refusal> {
    match &call.token {
        TokenSeen::Full(_) => Ok(()),
        TokenSeen::Forbidden(_) => Err(refusal(403, "Forbidden", "Forbidden resource")),
        // Repeats the token: whoever logs it leaks.
        TokenSeen::Missing | TokenSeen::Unknown => Err(Refusal(
            401,
            json!({"statusCode": 401, "message": "Unauthorized", "authorization": call.authorization}),
        )),
    }
}

/// Reads the fields of a body and keeps what is wrong with them.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    wrong: Vec<String>,
}

impl<'a> Fields<'a> {
    fn of(call: &'a Call) -> Result<Self, Refusal> {
        match &call.body {
            Some(Value::Object(object)) => Ok(Self { object, wrong: Vec::new() }),
            _ => Err(echoing(400, "Bad Request", "the body is not a JSON object", call)),
        }
    }

    fn text(&mut self, name: &str) -> String {
        match self.object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => text.to_owned(),
            None => self.wrong(format!("{name} should not be empty")),
        }
    }

    fn uuid(&mut self, name: &str) -> Uuid {
        match self.object.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok()) {
            Some(id) => id,
            None => self.wrong(format!("{name} must be a UUID")),
        }
    }

    fn optional_uuid(&mut self, name: &str) -> Option<Uuid> {
        self.present(name).map(|_| self.uuid(name))
    }

    fn bool(&mut self, name: &str) -> bool {
        match self.object.get(name).and_then(Value::as_bool) {
            Some(value) => value,
            None => self.wrong(format!("{name} must be a boolean value")),
        }
    }

    fn material(&mut self, name: &str) -> Value {
        match self.object.get(name) {
            Some(Value::Array(groups)) if !groups.is_empty() && groups.iter().all(Value::is_object) => {
                json!(groups)
            }
            _ => self.wrong(format!("{name} must be a non-empty array of objects")),
        }
    }

    /// The field, unless it is absent or null.
    fn present(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn wrong<T: Default>(&mut self, message: String) -> T {
        self.wrong.push(message);
        T::default()
    }

    fn finish(self, call: &Call) -> Result<(), Refusal> {
        if self.wrong.is_empty() { Ok(()) } else { Err(echoing(400, "Bad Request", self.wrong, call)) }
    }
}

/// What create and update check alike.
fn check_row(
    state: &State,
    call: &Call,
    name: &str,
    unity: Uuid,
    integration: Uuid,
    own: Option<Uuid>,
) -> Result<(), Refusal> {
    if state.settings.max_name_length.is_some_and(|most| name.chars().count() > most) {
        return Err(echoing(400, "Bad Request", "name is too long", call));
    }
    if state.store.integration(integration).is_none() {
        return Err(echoing(422, "Unprocessable Entity", "integration not found", call));
    }
    let is_namesake = |other: &Credential| {
        !other.removed && other.row.name == name && other.row.unity_id == unity && Some(other.id) != own
    };
    if state.settings.unique_names && state.store.all().iter().any(is_namesake) {
        return Err(echoing(409, "Conflict", "name is taken", call));
    }
    Ok(())
}

fn create(state: &mut State, call: &Call) -> Result<Performed, Refusal> {
    let mut fields = Fields::of(call)?;
    let new = NewCredential {
        name: fields.text("name"),
        user_id: fields.uuid("userId"),
        unity_id: fields.uuid("unityId"),
        integration_id: fields.uuid("integrationId"),
        active: if fields.present("status").is_some() { fields.bool("status") } else { true },
        material: fields.material("credentials"),
    };
    fields.finish(call)?;
    check_row(state, call, &new.name, new.unity_id, new.integration_id, None)?;
    let id = state.store.insert(new, Cause::Request(call.seq));
    written(state, id, 201, "Credential created successfully")
}

fn update(state: &mut State, call: &Call) -> Result<Performed, Refusal> {
    let last = call.path.rsplit('/').next().unwrap_or_default();
    let Ok(id) = last.parse::<Uuid>() else {
        return Err(echoing(400, "Bad Request", "id must be a UUID", call));
    };
    let mut fields = Fields::of(call)?;
    let (name, user_id) = (fields.text("name"), fields.uuid("userId"));
    let (unity_id, integration_id) = (fields.uuid("unityId"), fields.uuid("integrationId"));
    let (active, secret_id) = (fields.bool("status"), fields.optional_uuid("secretId"));
    let replace = state.settings.replace_material_in_place && fields.present("credentials").is_some();
    let material = replace.then(|| fields.material("credentials"));
    fields.finish(call)?;
    if state.store.present(id).is_none() {
        return Err(echoing(404, "Not Found", "credential not found", call));
    }
    check_row(state, call, &name, unity_id, integration_id, Some(id))?;
    let secret_id = secret_id.filter(|_| !state.settings.ignore_secret_id);
    if secret_id.is_some_and(|secret_id| state.store.material(secret_id).is_none()) {
        return Err(echoing(422, "Unprocessable Entity", "secret not found", call));
    }
    let virtual_key = state.settings.regenerate_virtual_key.then(new_virtual_key);
    state.store.update(id, Cause::Request(call.seq), |row| {
        (row.name, row.user_id, row.unity_id, row.integration_id) = (name, user_id, unity_id, integration_id);
        row.active = active;
        row.secret_id = secret_id.unwrap_or(row.secret_id);
        row.virtual_key = virtual_key.unwrap_or_else(|| std::mem::take(&mut row.virtual_key));
    });
    if let (Some(material), Some(credential)) = (material, state.store.get(id)) {
        let secret_id = credential.row.secret_id;
        state.store.set_material(secret_id, material);
    }
    written(state, id, 200, "Credential updated successfully")
}

/// The answer to a create or update.
fn written(state: &State, id: Uuid, status: u16, message: &str) -> Result<Performed, Refusal> {
    let body = state.store.get(id).map(|credential| wire::written(state, credential, message)).unwrap_or_default();
    Ok(Performed { committed: Some(id), answer: Answer::Json(status, body) })
}

fn list(state: &State, call: &Call, reply: &Reply) -> Result<Performed, Refusal> {
    let segments = segments(&call.path);
    let [.., unity, _, kind] = segments.as_slice() else {
        return Err(refusal(404, "Not Found", "no such page"));
    };
    let Ok(unity) = unity.parse::<Uuid>() else {
        return Err(refusal(400, "Bad Request", "unityId must be a UUID"));
    };
    let Some(kind) = Kind::parse(kind) else {
        return Err(refusal(400, "Bad Request", "type is not known"));
    };
    Ok(Performed { committed: None, answer: Answer::Listing(Listing::take(state, unity, kind, reply)) })
}

fn catalogue(state: &State) -> Result<Performed, Refusal> {
    if !state.settings.catalogue {
        return Err(refusal(404, "Not Found", "Cannot GET /integration/status"));
    }
    Ok(Performed { committed: None, answer: Answer::Json(200, wire::catalogue(state)) })
}
