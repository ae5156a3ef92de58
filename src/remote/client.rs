//! One account at Toolzz.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use secrecy::SecretString;
use tokio::sync::watch;
use tracing::{Instrument as _, field::Empty};
use zeroize::Zeroizing;

use super::{
    Clock, Config, ConfigError, Tenure, TokenSource,
    catalogue::{Catalogue, Kept},
    connect::ConnectFailure,
    gate::{Counted, Gate, State, retry_after},
    host_and_port,
    outcome::{Failure, Lost, NotDone, Outcome, Refusal, Unknown, Unreadable},
    probe::Prober,
    wire,
};
use crate::api::{CredentialId, Fields, ListingKey, Row, Tick};

/// The most that is read of an answer about one credential.
const OBJECT_LIMIT: usize = 1 << 20;
/// The most time for what others wait for but can do without.
const SIDE_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `POST /credential`.
    Create,
    /// `PUT /credential/{id}`.
    Update,
    /// `GET /credential/unity/{unityId}/type/{type}`.
    List,
    /// `GET /integration/status`.
    Catalogue,
    /// The same, to find out whether the token is accepted.
    Probe,
}

impl Operation {
    /// In a word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::List => "list",
            Self::Catalogue => "catalogue",
            Self::Probe => "probe",
        }
    }

    /// Whether it changes something at Toolzz.
    fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Is told of every call, for metrics.
pub trait Observer: Send + Sync {
    /// A call ended; the outcome is one of a fixed set of words.
    fn called(&self, operation: Operation, outcome: &'static str, elapsed: Duration);
    /// A listing was read.
    fn listed(&self, key: &ListingKey, rows: usize);
    /// A listing is not kept any more.
    fn dropped(&self, key: &ListingKey);
}

/// What a create sends beside the key material.
#[derive(Clone, Copy, Debug)]
pub struct NewCredential<'a> {
    /// The name with its marker.
    pub name: &'a str,
    /// UUID of the owning user.
    pub user_id: &'a str,
    /// UUID of the organisational unit.
    pub unity_id: &'a str,
    /// UUID of the integration.
    pub integration_id: &'a str,
}

/// A listing as it was answered.
#[derive(Debug)]
pub struct Listed {
    /// What could be read.
    pub rows: Vec<Row>,
    /// Every row could be read.
    pub complete: bool,
    /// The tags of the markers in the names of those that could not.
    pub unread: Vec<String>,
}

/// One account at Toolzz. Cheap to clone.
#[derive(Clone)]
pub struct Connection(pub(super) Arc<Inner>);

pub(super) struct Inner {
    http: reqwest::Client,
    base: Url,
    /// Where a call goes, for people.
    at: Arc<str>,
    pub(super) config: Config,
    pub(super) token: TokenSource,
    pub(super) clock: Clock,
    observer: Arc<dyn Observer>,
    pub(super) gate: Gate,
    pub(super) prober: Prober,
    catalogue: Kept,
}

impl Connection {
    /// A connection of this configuration. Sends nothing yet.
    ///
    /// # Errors
    /// When the URL may not be used or the TLS settings are wrong.
    pub fn new(
        config: Config,
        token: TokenSource,
        clock: Clock,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, ConfigError> {
        let mut base = config.checked_url()?;
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        Ok(Self(Arc::new(Inner {
            http: config.http_client(&base)?,
            at: match config.by_proxy() {
                Some(proxy) => format!("{} (through the proxy {proxy})", host_and_port(&base)).into(),
                None => host_and_port(&base).into(),
            },
            base,
            gate: Gate::new(clock, &config),
            prober: Prober::default(),
            catalogue: Kept::default(),
            token,
            clock,
            observer,
            config,
        })))
    }

    /// The clock its moments are told by.
    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    /// Tells the observer that a listing is not kept any more.
    pub(super) fn dropped(&self, key: &ListingKey) {
        self.0.observer.dropped(key);
    }

    /// Which service it leads to: host and port. A path can be spelt in many ways.
    pub fn service(&self) -> String {
        host_and_port(&self.0.base)
    }

    /// Whether it takes calls, and every change of that.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.gate.subscribe()
    }

    /// Whether it is of use to begin one more pass over it now.
    pub fn has_room(&self) -> bool {
        self.0.gate.has_room()
    }

    /// Does this as a pass over the connection, which takes room.
    pub async fn pass<T>(&self, work: impl Future<Output = T>) -> T {
        let _pass = self.0.gate.pass();
        work.await
    }

    /// Somebody waits for an answer to another's call: as good as one of his own under way.
    pub(super) fn waiting(&self) -> Counted<'_> {
        self.0.gate.under_way()
    }

    /// When to come back after the pause that ends then.
    pub fn turn_after(&self, until: Tick) -> Tick {
        self.0.gate.turn_after(until)
    }

    /// Why it takes no calls until somebody changes the token, if so.
    pub fn refusal(&self) -> Option<Refusal> {
        match &*self.state().borrow() {
            State::Refused { refusal } => Some(refusal.clone()),
            State::Open | State::Paused { .. } => None,
        }
    }

    /// Creates an inactive credential. `credentials` is the JSON text of the API's `credentials` array.
    pub async fn create(&self, new: &NewCredential<'_>, credentials: &SecretString) -> Outcome<Row> {
        let operation = Operation::Create;
        let Ok(body) = wire::create_body(new, credentials) else {
            return Outcome::NotDone(NotDone::Unsendable { operation, problem: "the key material is not JSON" });
        };
        let request = self
            .request(operation, Method::POST, &["credential"])
            .map(|request| request.header(header::CONTENT_TYPE, "application/json").body(self.body(body)));
        self.call(operation, request, |body| {
            let row = wire::row(body)?;
            let same = row.fields.name == new.name
                && row.fields.unity_id.eq_ignore_ascii_case(new.unity_id)
                && row.fields.integration_id.eq_ignore_ascii_case(new.integration_id);
            if same { Ok(row) } else { Err(Unreadable::AnotherCredential) }
        })
        .await
        .into()
    }

    /// Sets the whole documented body of a credential. With `credentials` (JSON text, as for [`Self::create`]) it sends
    /// key material along, which the vendor does not document.
    pub async fn update(&self, id: &CredentialId, fields: &Fields, credentials: Option<&SecretString>) -> Outcome<Row> {
        let operation = Operation::Update;
        let Ok(body) = wire::update_body(fields, credentials) else {
            return Outcome::NotDone(NotDone::Unsendable { operation, problem: "the fields are not JSON" });
        };
        let request = self
            .request(operation, Method::PUT, &["credential", id.as_str()])
            .map(|request| request.header(header::CONTENT_TYPE, "application/json").body(self.body(body)));
        self.call(operation, request, |body| {
            let row = wire::row(body)?;
            if row.id == *id { Ok(row) } else { Err(Unreadable::AnotherCredential) }
        })
        .await
        .into()
    }

    /// Lists the credentials of a unity and type.
    pub async fn list(&self, key: &ListingKey) -> Outcome<Listed> {
        let listed = self.call(Operation::List, self.list_request(Operation::List, key), wire::rows).await;
        if let Ok(listed) = &listed {
            self.0.observer.listed(key, listed.rows.len());
            self.0.prober.remember(key);
        }
        listed.into()
    }

    /// The integrations, where the API tells them. Kept for a while; a failure is kept too and troubles nobody.
    pub async fn catalogue(&self) -> Option<Arc<Catalogue>> {
        let read = || self.call(Operation::Catalogue, self.catalogue_request(Operation::Catalogue), wire::catalogue);
        self.0.catalogue.get(self.0.config.catalogue_ttl, self.0.clock, read).await
    }

    /// Asks for something harmless, the integrations or this listing, only for the sake of the status code.
    pub(super) async fn probe(&self, key: Option<&ListingKey>) -> Result<(), Failure> {
        let operation = Operation::Probe;
        let request = match key {
            Some(key) => self.list_request(operation, key),
            None => self.catalogue_request(operation),
        };
        self.call(operation, request, |_| Ok(())).await
    }

    fn list_request(&self, operation: Operation, key: &ListingKey) -> Result<RequestBuilder, Failure> {
        self.request(operation, Method::GET, &["credential", "unity", &key.unity_id, "type", key.kind.as_str()])
    }

    fn catalogue_request(&self, operation: Operation) -> Result<RequestBuilder, Failure> {
        self.request(operation, Method::GET, &["integration", "status"])
    }

    fn request(&self, operation: Operation, method: Method, path: &[&str]) -> Result<RequestBuilder, Failure> {
        // As segments of a path these would change it instead of standing in it; anything else is escaped.
        if path.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            let problem = "an identifier in the path is none";
            return Err(Failure::NotDone(NotDone::Unsendable { operation, problem }));
        }
        let mut url = self.0.base.clone();
        // Fails only for URLs that have no path, which the configuration refuses.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Ok(self.0.http.request(method, url))
    }

    /// What a write sends. The buffer is wiped when the last handle of it goes.
    fn body(&self, body: Zeroizing<Vec<u8>>) -> reqwest::Body {
        self.0.config.tenure.body(self.0.clock, Bytes::from_owner(body))
    }

    fn unknown(&self, operation: Operation, lost: Lost) -> Failure {
        Failure::Unknown(Unknown { operation, at: Arc::clone(&self.0.at), lost })
    }

    /// One call: through the gate, with the token, within the time limit, to the last byte of its answer.
    async fn call<T>(
        &self,
        operation: Operation,
        request: Result<RequestBuilder, Failure>,
        read: impl FnOnce(&[u8]) -> Result<T, Unreadable>,
    ) -> Result<T, Failure> {
        let request = request?;
        let _under_way = self.0.gate.enter(operation).await.map_err(Failure::NotDone)?;
        let token = match self.0.token.current() {
            Ok(token) => token,
            Err(error) => {
                let refusal = Refusal::NoToken(error);
                self.refuse(refusal.clone());
                return Err(Failure::NotDone(NotDone::Refused { operation, refusal }));
            }
        };
        let (begun, began) = (Instant::now(), self.0.clock.now());
        let request = request.header(header::AUTHORIZATION, token.header);
        let limit = self.time_limit(operation, began)?;
        let tenure = if operation.writes() { self.0.config.tenure.clone() } else { Tenure::unlimited() };
        let span = tracing::info_span!("call", %operation, outcome = Empty);
        let exchange = tenure.during(self.0.clock, self.exchange(operation, request, began)).instrument(span.clone());
        let result = match tokio::time::timeout(limit, exchange).await {
            Ok(Some(answer)) => answer.and_then(|(status, body)| {
                read(&body).map_err(|problem| self.unknown(operation, Lost::Unreadable { status, problem }))
            }),
            Ok(None) | Err(_) => Err(self.unknown(operation, Lost::TimedOut(limit))),
        };
        let label = result.as_ref().err().map_or("done", Failure::label);
        span.record("outcome", label);
        self.0.observer.called(operation, label, begun.elapsed());
        match (operation, result) {
            // Only these say something of the connection: who may not read the catalogue may do all else.
            (
                Operation::Create | Operation::Update | Operation::List,
                Err(Failure::NotDone(NotDone::Forbidden { status, .. })),
            ) => {
                // Boxed: the probe is a call too.
                Err(Failure::NotDone(Box::pin(self.refused(operation, status, token.generation, began)).await))
            }
            (_, result) => result,
        }
    }

    /// The time a call that begins now may take. A write must have ended when somebody else may begin to write.
    fn time_limit(&self, operation: Operation, now: Tick) -> Result<Duration, Failure> {
        let limit = self.0.config.request_timeout;
        match operation {
            Operation::Create | Operation::Update => match self.0.config.tenure.remaining(now) {
                Some(left) => Ok(limit.min(left)),
                None => Err(Failure::NotDone(NotDone::NotLeading { operation })),
            },
            Operation::List => Ok(limit),
            Operation::Catalogue | Operation::Probe => Ok(limit.min(SIDE_CALL_TIMEOUT)),
        }
    }

    /// Sends the request; the status and the body of a 2xx.
    async fn exchange(
        &self,
        operation: Operation,
        request: RequestBuilder,
        began: Tick,
    ) -> Result<(u16, Zeroizing<Vec<u8>>), Failure> {
        let mut response = request.send().await.map_err(|error| match ConnectFailure::of(&error) {
            Some(failure) => {
                let proxy = self.0.config.by_proxy().filter(|_| ConnectFailure::is_on_the_way_to_proxy(&error));
                let at = proxy.map_or_else(|| Arc::clone(&self.0.at), |proxy| format!("the proxy {proxy}").into());
                Failure::NotDone(NotDone::Unreachable { operation, at, failure })
            }
            None => self.unknown(operation, Lost::Disconnected),
        })?;
        // What a refusal says is nobody's business; the connection is closed over it.
        self.judge(operation, &Head::of(&response), began)?;
        let status = response.status().as_u16();
        let limit = match operation {
            Operation::Create | Operation::Update => OBJECT_LIMIT,
            Operation::List | Operation::Catalogue => self.0.config.listing_limit,
            // The status code was all it was about.
            Operation::Probe => return Ok((status, Zeroizing::default())),
        };
        // It may echo what was sent, and a buffer that grows leaves copies behind.
        let length = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
        let mut body = Zeroizing::new(Vec::with_capacity(length.min(OBJECT_LIMIT)));
        while let Some(chunk) = response.chunk().await.map_err(|_| self.unknown(operation, Lost::Disconnected))? {
            if body.len() + chunk.len() > limit {
                let problem = Unreadable::TooLong { limit };
                return Err(self.unknown(operation, Lost::Unreadable { status, problem }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    /// What a status code says; `Ok` for a 2xx.
    fn judge(&self, operation: Operation, head: &Head, began: Tick) -> Result<(), Failure> {
        let status = head.status.as_u16();
        if status != 429 {
            self.0.gate.answered(began);
        }
        match status {
            200..=299 => Ok(()),
            300..=399 => Err(self.unknown(operation, Lost::Redirected(status))),
            401 | 403 => Err(Failure::NotDone(NotDone::Forbidden { operation, status })),
            404 if operation == Operation::Update => Err(Failure::NotDone(NotDone::Gone { operation })),
            429 => {
                let until = self.0.gate.throttled(began, head.retry_after);
                self.announce_end_of_pause();
                Err(Failure::NotDone(NotDone::Throttled { operation, until }))
            }
            408 | 500..=599 => {
                if let (503, Some(wait)) = (status, head.retry_after) {
                    self.0.gate.unavailable(wait);
                    self.announce_end_of_pause();
                }
                Err(self.unknown(operation, Lost::ServerError(status)))
            }
            // Misdirected, locked, too early; and a path that is there as a rule, as when what
            // stands in front of the API is being replaced.
            421 | 423 | 425 => Err(Failure::NotDone(NotDone::NotNow { operation, status })),
            404 if operation == Operation::Create => Err(Failure::NotDone(NotDone::NotNow { operation, status })),
            400..=499 => Err(Failure::NotDone(NotDone::Rejected { operation, status })),
            // No such class of status: it says nothing.
            _ => Err(self.unknown(operation, Lost::ServerError(status))),
        }
    }
}

/// What is kept of an answer's head.
struct Head {
    status: StatusCode,
    retry_after: Option<Duration>,
}

impl Head {
    fn of(response: &Response) -> Self {
        let value = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Self { status: response.status(), retry_after: value.and_then(|value| retry_after(value, Timestamp::now())) }
    }
}
