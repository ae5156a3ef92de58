//! A connection to a simulator, and what the tests send over it.

use std::{
    fmt::Debug,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::SecretString;
use toolzz_operator::{
    api::{CredentialType, Fields, ListingKey, Row, SecretId},
    remote::{
        Clock, Config, ConnectFailure, Connection, NewCredential, NotDone, Observer, Operation, Outcome, State,
        TokenSource,
    },
};
use toolzz_simulator::{DEFAULT_TOKEN, OPENAI, Simulator};

pub const UNITY: &str = "0b8e0000-0000-4000-8000-000000000001";
pub const USER: &str = "6f1c0000-0000-4000-8000-000000000001";
/// What must never be seen again.
pub const KEY_MATERIAL: &str = "sk-never-to-be-seen-6d1f";
/// Longer than any test takes.
pub const LONG: Duration = Duration::from_secs(3600);
/// Short, for what is to run out of it.
pub const SHORT: Duration = Duration::from_millis(300);

/// What the observer was told.
#[derive(Default)]
pub struct Recorder {
    pub calls: Mutex<Vec<(Operation, &'static str)>>,
    pub listings: Mutex<Vec<usize>>,
}

impl Observer for Recorder {
    fn called(&self, operation: Operation, outcome: &'static str, _: Duration) {
        self.calls.lock().unwrap().push((operation, outcome));
    }

    fn listed(&self, _: &ListingKey, rows: usize) {
        self.listings.lock().unwrap().push(rows);
    }

    fn dropped(&self, _: &ListingKey) {}
}

pub fn install_tls() {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub fn connect_with(
    simulator: &Simulator,
    token: TokenSource,
    change: impl FnOnce(&mut Config),
) -> (Connection, Arc<Recorder>) {
    install_tls();
    let mut config = Config::new(simulator.url());
    config.probe_interval = LONG;
    change(&mut config);
    let recorder = Arc::new(Recorder::default());
    let connection = Connection::new(config, token, Clock::start(), Arc::clone(&recorder) as _).unwrap();
    (connection, recorder)
}

pub fn connect(simulator: &Simulator) -> Connection {
    connect_with(simulator, TokenSource::fixed(DEFAULT_TOKEN.into()), |_| {}).0
}

/// With a time limit soon over.
pub fn connect_impatient(simulator: &Simulator) -> Connection {
    connect_with(simulator, TokenSource::fixed(DEFAULT_TOKEN.into()), |config| config.request_timeout = SHORT).0
}

pub fn key() -> ListingKey {
    ListingKey { unity_id: UNITY.to_owned(), kind: CredentialType::Llm }
}

pub fn material() -> SecretString {
    format!(r#"[{{"api_key":"{KEY_MATERIAL}"}}]"#).into()
}

pub async fn create(connection: &Connection, name: &str) -> Outcome<Row> {
    let integration_id = OPENAI.to_string();
    let new = NewCredential { name, user_id: USER, unity_id: UNITY, integration_id: &integration_id };
    connection.create(&new, &material()).await
}

pub fn fields(name: &str, secret_id: SecretId, active: bool) -> Fields {
    Fields {
        name: name.to_owned(),
        user_id: USER.to_owned(),
        unity_id: UNITY.to_owned(),
        integration_id: OPENAI.to_string(),
        secret_id,
        active,
    }
}

pub fn done<T: Debug>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Done(value) => value,
        other => panic!("not done: {other:?}"),
    }
}

/// Every call, of which none gets as far as being sent: the same way for each.
pub async fn unreachable(connection: &Connection) -> ConnectFailure {
    let wanted = fields("n", "secret".into(), true);
    let calls = [
        create(connection, "n").await.map(drop),
        connection.update(&"id".into(), &wanted, None).await.map(drop),
        connection.list(&key()).await.map(drop),
    ];
    let failures = calls.map(|outcome| match outcome {
        Outcome::NotDone(NotDone::Unreachable { failure, .. }) => failure,
        other => panic!("{other:?}"),
    });
    assert!(failures.iter().all(|failure| *failure == failures[0]), "{failures:?}");
    // Nobody waits for a catalogue, and nobody is told why there is none.
    assert!(connection.catalogue().await.is_none());
    failures[0]
}

pub async fn until(connection: &Connection, wanted: impl FnMut(&State) -> bool) {
    connection.state().wait_for(wanted).await.unwrap();
}

/// A token file of its own, gone with this value.
pub struct TokenFile(pub PathBuf);

impl TokenFile {
    pub fn new(token: &str) -> Self {
        let path = std::env::temp_dir().join(format!("toolzz-token-{}", uuid::Uuid::new_v4()));
        let file = Self(path);
        file.write(token);
        file
    }

    pub fn write(&self, token: &str) {
        std::fs::write(&self.0, token).unwrap();
    }

    pub fn source(&self) -> TokenSource {
        TokenSource::file(&self.0)
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // A test may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}
