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

use super::{
    Clock, Config, ConfigError, TokenSource,
    catalogue::{Catalogue, Kept},
    connect::ConnectFailure,
    gate::{Gate, State, retry_after},
    host_and_port,
    outcome::{Failure, Lost, NotDone, Outcome, Refusal, Unknown, Unreadable},
    probe::Prober,
    wire,
};
use crate::api::{CredentialId, Fields, ListingKey, Row};

/// The most that is read of an answer about one credential.
const OBJECT_LIMIT: usize = 1 << 20;
/// The most that is read of a listing: some 50,000 rows.
const LISTING_LIMIT: usize = 64 << 20;

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
}

/// One account at Toolzz. Cheap to clone.
#[derive(Clone)]
pub struct Connection(pub(super) Arc<Inner>);

pub(super) struct Inner {
    http: reqwest::Client,
    base: Url,
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
            at: host_and_port(&base).into(),
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

    /// Whether it takes calls, and every change of that.
    pub fn state(&self) -> watch::Receiver<State> {
        self.0.gate.subscribe()
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
        // The buffer is wiped when the last handle of it goes.
        let request = self.request(Method::POST, &["credential"]).body(Bytes::from_owner(body));
        let result = self.call(operation, request, OBJECT_LIMIT).await.and_then(|(status, body)| {
            let row = wire::row(&body).map_err(|problem| self.unreadable(operation, status, problem))?;
            let same = row.fields.name == new.name && row.fields.unity_id.eq_ignore_ascii_case(new.unity_id);
            if same { Ok(row) } else { Err(self.unreadable(operation, status, Unreadable::AnotherCredential)) }
        });
        result.into()
    }

    /// Sets the whole documented body of a credential.
    pub async fn update(&self, id: &CredentialId, fields: &Fields) -> Outcome<Row> {
        let operation = Operation::Update;
        let unsendable = |problem| Outcome::NotDone(NotDone::Unsendable { operation, problem });
        // As path segments these would change the path instead of standing in it.
        if matches!(id.as_str(), "" | "." | "..") {
            return unsendable("the credential's id is none");
        }
        let Ok(body) = wire::update_body(fields) else { return unsendable("the body is not JSON") };
        let request = self.request(Method::PUT, &["credential", id.as_str()]).body(body);
        let result = self.call(operation, request, OBJECT_LIMIT).await.and_then(|(status, body)| {
            let row = wire::row(&body).map_err(|problem| self.unreadable(operation, status, problem))?;
            if row.id == *id { Ok(row) } else { Err(self.unreadable(operation, status, Unreadable::AnotherCredential)) }
        });
        result.into()
    }

    /// Lists the credentials of a unity and type.
    pub async fn list(&self, key: &ListingKey) -> Outcome<Listed> {
        let operation = Operation::List;
        let path = ["credential", "unity", &key.unity_id, "type", key.kind.as_str()];
        let request = self.request(Method::GET, &path);
        let result = self.call(operation, request, LISTING_LIMIT).await.and_then(|(status, body)| {
            let rows = wire::rows(&body).map_err(|problem| self.unreadable(operation, status, problem))?;
            self.0.observer.listed(key, rows.rows.len());
            Ok(Listed { rows: rows.rows, complete: rows.complete })
        });
        result.into()
    }

    /// The integrations, where the API tells them. Kept for a while; a failure is kept too and troubles nobody.
    pub async fn catalogue(&self) -> Option<Arc<Catalogue>> {
        let ttl = self.0.config.catalogue_ttl;
        self.0
            .catalogue
            .get(ttl, self.0.clock, || async {
                let operation = Operation::Catalogue;
                let (status, body) =
                    self.call(operation, self.request(Method::GET, &["integration", "status"]), LISTING_LIMIT).await?;
                wire::catalogue(&body).map_err(|problem| self.unreadable(operation, status, problem))
            })
            .await
    }

    /// Asks for something harmless, only for the sake of the status code.
    pub(super) async fn probe(&self) -> Result<(), Failure> {
        let request = self.request(Method::GET, &["integration", "status"]);
        match self.call(Operation::Probe, request, LISTING_LIMIT).await {
            // Without that endpoint it is the token that was accepted.
            Ok(_) | Err(Failure::NotDone(NotDone::Rejected { .. } | NotDone::Gone { .. })) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.0.base.clone();
        // Fails only for URLs that have no path, which the configuration refuses.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.0.http.request(method, url).header(header::CONTENT_TYPE, "application/json")
    }

    fn unreadable(&self, operation: Operation, status: StatusCode, problem: Unreadable) -> Failure {
        self.unknown(operation, Lost::Unreadable { status: status.as_u16(), problem })
    }

    fn unknown(&self, operation: Operation, lost: Lost) -> Failure {
        Failure::Unknown(Unknown { operation, at: Arc::clone(&self.0.at), lost })
    }

    /// One call: through the gate, with the token, within the time limit, to the last byte of its answer.
    async fn call(
        &self,
        operation: Operation,
        request: RequestBuilder,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>), Failure> {
        self.0.gate.enter(operation).await.map_err(Failure::NotDone)?;
        let token = match self.0.token.current() {
            Ok(token) => token,
            Err(error) => {
                let refusal = Refusal::NoToken(error);
                self.refuse(refusal.clone());
                return Err(Failure::NotDone(NotDone::Refused { operation, refusal }));
            }
        };
        let begun = Instant::now();
        let began = self.0.clock.now();
        let request = request.header(header::AUTHORIZATION, token.header);
        let sent = tokio::time::timeout(self.0.config.request_timeout, self.exchange(operation, request, limit)).await;
        let result =
            sent.unwrap_or_else(|_| Err(self.unknown(operation, Lost::TimedOut(self.0.config.request_timeout))));
        let answer = result.and_then(|(response, body)| Ok((self.judge(operation, &response, began)?, body)));
        let outcome: Outcome<()> = answer.as_ref().map(|_| ()).map_err(Clone::clone).into();
        self.0.observer.called(operation, outcome.label(), begun.elapsed());
        match answer {
            Err(Failure::NotDone(NotDone::Forbidden { status, .. })) if operation != Operation::Probe => {
                // Boxed: the probe is a call too.
                Err(Failure::NotDone(Box::pin(self.refused(operation, status, token.generation)).await))
            }
            answer => answer,
        }
    }

    async fn exchange(
        &self,
        operation: Operation,
        request: RequestBuilder,
        limit: usize,
    ) -> Result<(Head, Vec<u8>), Failure> {
        let mut response = request.send().await.map_err(|error| match ConnectFailure::of(&error) {
            Some(failure) => Failure::NotDone(NotDone::Unreachable { operation, at: Arc::clone(&self.0.at), failure }),
            None => self.unknown(operation, Lost::Disconnected),
        })?;
        let head = Head::of(&response);
        // What a refusal says is nobody's business; the connection is closed over it.
        if !head.status.is_success() {
            return Ok((head, Vec::new()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| self.unknown(operation, Lost::Disconnected))? {
            if body.len() + chunk.len() > limit {
                return Err(self.unreadable(operation, head.status, Unreadable::TooLong { limit }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((head, body))
    }

    /// What a status code says.
    fn judge(&self, operation: Operation, head: &Head, began: crate::api::Tick) -> Result<StatusCode, Failure> {
        let status = head.status.as_u16();
        if status != 429 {
            self.0.gate.answered(began);
        }
        match status {
            200..=299 => Ok(head.status),
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
            _ => Err(Failure::NotDone(NotDone::Rejected { operation, status })),
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
