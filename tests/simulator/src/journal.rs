//! What was asked of the simulator and what became of it.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::faults::{Fault, RuleId};
use crate::store::fingerprint;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    /// `POST /credential`.
    Create,
    /// `PUT /credential/{id}`.
    Update,
    /// `GET /credential/unity/{unityId}/type/{type}`.
    List,
    /// `GET /integration/status`.
    Catalogue,
    /// Anything else: answered 404.
    Other,
}

/// What the request's `Authorization` was worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TokenSeen {
    /// No bearer token.
    Missing,
    /// A token the simulator does not know.
    Unknown,
    /// The token of this id, which may do everything.
    Full(String),
    /// The token of this id, which may do nothing.
    Forbidden(String),
}

/// Whether the request changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// It did not.
    None,
    /// It will, later, unless it is discarded.
    Pending,
    /// It did.
    Committed {
        /// The credential created or updated.
        credential: Uuid,
        /// Number of the change.
        change: u64,
        /// When.
        at: Timestamp,
    },
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Sequence number, from 1, in the order requests were completely received.
    pub seq: u64,
    /// When it was completely received.
    pub started_at: Timestamp,
    /// When its reply began, or its connection was closed; `None`: still in hand.
    pub finished_at: Option<Timestamp>,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Operation.
    pub operation: Operation,
    /// The JSON body; under `credentials` every value is replaced by its fingerprint.
    pub body: Option<Value>,
    /// The bearer token's worth.
    pub token: TokenSeen,
    /// The rule that met it.
    pub rule: Option<RuleId>,
    /// The fault of that rule.
    pub fault: Option<Fault>,
    /// Whether it changed anything.
    pub effect: Effect,
    /// The status the API decided on, whatever the client got; `None`: the effect did not take place (yet).
    pub decided: Option<u16>,
    /// The status sent; `None`: no answer (yet).
    pub status: Option<u16>,
    /// The client closed the connection before a reply began.
    pub client_gone: bool,
    /// Rows sent, for a listing.
    pub rows: Option<usize>,
}

/// Replaces key material by fingerprints: the journal can be shown to anybody.
pub(crate) fn without_material(mut body: Value) -> Value {
    if let Some(Value::Array(groups)) = body.get_mut("credentials") {
        for group in groups {
            match group {
                Value::Object(fields) => fields.values_mut().for_each(|value| *value = json!(fingerprint(value))),
                other => *other = json!(fingerprint(other)),
            }
        }
    } else if let Some(odd) = body.get_mut("credentials") {
        *odd = json!(fingerprint(odd));
    }
    body
}

/// How often an operation was asked for, and how that went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests completely received.
    pub received: u64,
    /// Effects that took place.
    pub committed: u64,
    /// Replies with a 2xx status.
    pub answered_2xx: u64,
}

/// The latest requests, and counts of all.
#[derive(Debug)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    limit: usize,
    last: u64,
    counts: [Counts; 5],
    in_flight: usize,
    max_in_flight: usize,
}

impl Journal {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            limit,
            last: 0,
            counts: [Counts::default(); 5],
            in_flight: 0,
            max_in_flight: 0,
        }
    }

    /// Gives the entry its sequence number.
    pub(crate) fn open(&mut self, mut entry: Entry) -> u64 {
        self.last += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        self.count(entry.operation).received += 1;
        entry.seq = self.last;
        self.entries.push_back(entry);
        while self.entries.len() > self.limit {
            self.entries.pop_front();
        }
        self.last
    }

    /// Notes what the API decided.
    pub(crate) fn decide(&mut self, seq: u64, operation: Operation, status: u16, effect: Effect, rows: Option<usize>) {
        if matches!(effect, Effect::Committed { .. }) {
            self.count(operation).committed += 1;
        }
        if let Some(entry) = self.entry(seq) {
            entry.decided = Some(status);
            entry.effect = effect;
            entry.rows = rows;
        }
    }

    pub(crate) fn set_effect(&mut self, seq: u64, effect: Effect) {
        if let Some(entry) = self.entry(seq) {
            entry.effect = effect;
        }
    }

    pub(crate) fn client_gone(&mut self, seq: u64) {
        if let Some(entry) = self.entry(seq) {
            entry.client_gone = true;
        }
    }

    pub(crate) fn close(&mut self, seq: u64, operation: Operation, status: Option<u16>, client_gone: bool) {
        self.in_flight -= 1;
        if !client_gone && status.is_some_and(|status| (200..300).contains(&status)) {
            self.count(operation).answered_2xx += 1;
        }
        if let Some(entry) = self.entry(seq) {
            entry.finished_at = Some(Timestamp::now());
            entry.status = status.filter(|_| !client_gone);
            entry.client_gone = client_gone;
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(crate) fn counts(&self, operation: Operation) -> Counts {
        self.counts[operation as usize]
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    fn count(&mut self, operation: Operation) -> &mut Counts {
        &mut self.counts[operation as usize]
    }

    fn entry(&mut self, seq: u64) -> Option<&mut Entry> {
        let first = self.entries.front()?.seq;
        self.entries.get_mut(usize::try_from(seq.checked_sub(first)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_credential_is_kept() {
        for material in [json!([{"api_key": "sk-1"}, "sk-1"]), json!({"api_key": "sk-1"}), json!("sk-1")] {
            let kept = without_material(json!({"name": "a", "credentials": material})).to_string();
            assert!(!kept.contains("sk-1") && kept.contains("\"a\""), "{kept}");
        }
    }
}
