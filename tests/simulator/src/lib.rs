//! A Toolzz-compatible HTTP server, faults included, that remembers everything: the oracle of the operator's tests.
//!
//! ```
//! use toolzz_simulator::{Fault, Operation, Simulator, Times};
//!
//! let simulator = Simulator::start();
//! simulator.fault(Operation::Create, Times::Next(1), Fault::reset_after_commit());
//! // … point a client at simulator.url(), let it work …
//! assert_eq!(simulator.posts(), 0);
//! assert!(simulator.max_simultaneously_active("OpenAI Marketing") <= 1);
//! ```
//!
//! # The API it offers
//! Under `/api/v1`, every call with `Authorization: Bearer <token>`:
//! - `POST /credential` → 201. Makes an id, a secretId and a virtualKey; `credentials` goes to the vault. `status` absent: active.
//! - `PUT /credential/{id}` → 200. A `secretId` the vault knows repoints; `virtualKey` stays; `credentials` is ignored.
//! - `GET /credential/unity/{unityId}/type/{type}` → 200 with the rows in the order they were created.
//! - `GET /integration/status` → 200 with the catalogue: [`OPENAI`], [`GEMINI`], [`ELEVENLABS`], [`TWILIO`].
//!
//! Refusals: 401 (repeats the token), 403, 400 for a missing or malformed field, 404 for an unknown id, 422 for an
//! unknown integration or secret, 409 and 413 where [`Settings`] say so. Those about a body repeat the whole body, key
//! material included, as careless servers do: whoever logs a remote body leaks, and a test can see it.
//!
//! # How a request goes
//! Received and entered in the journal → the first [`Rule`] that meets it decides its [`Fault`] → latency → gates
//! [`Point::BeforeCommit`] → effect → gates [`Point::AfterCommit`] → reply. A fault says two independent things: whether
//! and when the effect takes place ([`Commit`]) and what the client gets to see ([`Reply`]). A request once received is
//! carried out even where its client is gone.
//!
//! # Control over HTTP
//! Under `/_sim/`, JSON unless noted, without any token: keep it on loopback.
//!
//! | request | body → answer |
//! | --- | --- |
//! | `GET /_sim/` | → text: this list |
//! | `GET /_sim/table` | → text: id, name, active, virtual key, secretId, fingerprint of the material |
//! | `GET /_sim/credentials` | → `[{id, name, finalName, active, removed, everActive, userId, unityId, integrationId, secretId, virtualKey, material, createdAt, updatedAt, history: [{number, at, by, row}]}]`; `material` is its [`fingerprint`] |
//! | `POST /_sim/credentials` | `{name, userId, unityId, integrationId, active, material: [{…}]}` → `{id}` |
//! | `PATCH /_sim/credentials/{id}` | any of `{name, userId, unityId, integrationId, secretId, active, virtualKey}` → `{}` |
//! | `DELETE /_sim/credentials/{id}` | → `{}` |
//! | `GET /_sim/counts` | → `{create: {received, committed, answered2xx}, update, list, catalogue, other, inFlight, maxInFlight, pendingCommits, point, active, staged, everActiveWhileMarked, overlaps: [{name, unityId, integrationId, mostActiveAtOnce}]}` |
//! | `GET /_sim/journal?after=SEQ` | → `[`[`Entry`]`]`, the oldest first |
//! | `GET`, `PUT /_sim/settings` | any of [`Settings`] → all of them |
//! | `PUT /_sim/tokens` | `[{id, value, access: "full" or "forbidden"}]` → `{}` |
//! | `GET /_sim/faults` | → `[{id, hits, rule}]` |
//! | `POST /_sim/faults` | [`Rule`], see below → `{id}` |
//! | `DELETE /_sim/faults`, `DELETE /_sim/faults/{id}` | → `{}` |
//! | `GET /_sim/gates` | → `[{id, waiting, held}]` |
//! | `POST /_sim/gates` | `{on, point: "beforeCommit" or "afterCommit", limit}` → `{id}` |
//! | `POST /_sim/release` | `{gate, discard}`, both optional → `{released, late}`; without `gate` also the postponed effects |
//!
//! Errors are `{error}` with 400 or 404. A rule that loses a third of the answers to creates:
//! ```json
//! {"on": {"operation": "create"},
//!  "times": {"chance": {"probability": 0.33, "seed": 7}},
//!  "fault": {"commit": "now", "reply": {"hang": {"atMostMs": 60000}}}}
//! ```
//! `on`: any of `operation` (`create|update|list|catalogue|other`), `method`, `path` (with `*`), `name`, `active`.
//! `times`: `"always"`, `{"next": n}` or `{"chance": {probability, seed}}`. `skip`: so many pass first.
//! `fault`: `commit` (`"now"|"never"|{"after": {"ms": n}}|"onRelease"`), `reply` (`"normal"|"reset"|"garbled"|"truncated"|`
//! `"html"|"wrongShape"|"empty"|{"status": {status, headers: [[name, value]], body}}|{"hang": {atMostMs}}|`
//! `{"drip": {bytes, everyMs}}|{"huge": {bytes}}|{"redirect": {status, location}}|{"stale": {asOf}}|{"partial": {every}}`),
//! `delayBeforeMs`, `delayAfterMs`; all optional.

mod api;
mod body;
mod catalogue;
mod control;
mod exchange;
mod faults;
mod gate;
mod journal;
mod marker;
mod server;
mod settings;
mod simulator;
mod state;
mod store;
mod table;
mod wire;

pub use catalogue::{ELEVENLABS, GEMINI, Kind, OPENAI, TWILIO};
pub use faults::{Commit, Fault, Matching, Reply, Rule, RuleId, Times};
pub use gate::{Gate, GateId, Point};
pub use journal::{Counts, Effect, Entry, Operation, TokenSeen};
pub use marker::{final_name, is_marked};
pub use settings::{Access, CredentialsInAnswers, ListingFormat, Settings, Timestamps, Token};
pub use simulator::{Builder, DEFAULT_TOKEN, Simulator};
pub use state::State;
pub use store::{Cause, Change, Credential, NewCredential, Row, fingerprint};
