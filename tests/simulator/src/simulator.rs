//! The handle tests hold.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc as blocking};
use std::thread::JoinHandle;

use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::api::BASE;
use crate::catalogue::Integration;
use crate::faults::{Fault, Matching, Rule, RuleId, Times};
use crate::gate::{Gate, Point};
use crate::journal::{Counts, Entry, Operation};
use crate::server::{self, Command};
use crate::settings::{Settings, Token};
use crate::state::{Shared, State};
use crate::store::{Cause, Credential, NewCredential, Row};

/// The token [`Simulator::start`] accepts.
pub const DEFAULT_TOKEN: &str = "simulator7c1f9e-token5b1f0c";

/// A running simulator. Clones are handles on the same one; it stops when the last is dropped.
///
/// It runs on threads of its own: no method needs a runtime, and the awaiting ones work in any.
#[derive(Clone, Debug)]
pub struct Simulator {
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Taken when it stops.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It ended already where this is an error.
            let _ = thread.join();
        }
    }
}

/// What can be chosen before a simulator starts.
#[derive(Clone, Debug)]
pub struct Builder {
    listen: SocketAddr,
    settings: Settings,
    tokens: Vec<Token>,
    journal_limit: usize,
}

impl Builder {
    /// Where to listen; port 0: any free one. Default `127.0.0.1:0`.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The settings to start with.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The tokens to start with, instead of [`DEFAULT_TOKEN`].
    #[must_use]
    pub fn tokens(mut self, tokens: Vec<Token>) -> Self {
        self.tokens = tokens;
        self
    }

    /// How many requests the journal keeps, the latest ones; counts are of all. Default 100,000.
    #[must_use]
    pub fn journal_limit(mut self, limit: usize) -> Self {
        self.journal_limit = limit;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The address cannot be listened on, or no thread can be started.
    pub fn start(self) -> io::Result<Simulator> {
        let listener = TcpListener::bind(self.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(State::new(self.settings, self.tokens, self.journal_limit)));
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("toolzz-simulator")
            .enable_all()
            .build()?;
        let for_server = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async move {
                // Only a runtime without I/O refuses it, and this one has it.
                if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                    server::serve(listener, address, for_server, receiver).await;
                }
            });
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("toolzz-simulator".to_owned()).spawn(serve)?;
        let running = Running { address, shared, commands: Some(commands), thread: Some(thread) };
        Ok(Simulator { running: Arc::new(running) })
    }
}

impl Simulator {
    /// What can be chosen before it starts.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            settings: Settings::default(),
            tokens: vec![Token::full("default", DEFAULT_TOKEN)],
            journal_limit: 100_000,
        }
    }

    /// Starts one on a free loopback port with the documented behaviour and [`DEFAULT_TOKEN`].
    ///
    /// # Panics
    /// Loopback cannot be listened on: no test can go on without. [`Builder::start`] gives the error instead.
    #[must_use]
    pub fn start() -> Self {
        #[expect(clippy::panic, reason = "a short form for tests, documented as such")]
        Self::builder().start().unwrap_or_else(|error| panic!("the simulator cannot start: {error}"))
    }

    /// Base URL of the API, with `/api/v1` and no slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{BASE}", self.running.address)
    }

    /// URL of the control interface, with `/_sim` and no slash at the end.
    #[must_use]
    pub fn control_url(&self) -> String {
        format!("http://{}{}", self.running.address, crate::control::BASE)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    // How it behaves.

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.read(|state| state.settings.clone())
    }

    /// Changes the settings.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        self.change(|state| change(&mut state.settings));
    }

    /// Replaces the known tokens.
    pub fn set_tokens(&self, tokens: Vec<Token>) {
        self.change(|state| state.tokens = tokens);
    }

    /// Adds an integration, or replaces the one of the same id, given as the documented JSON object.
    ///
    /// # Errors
    /// It has no `id` that is a UUID, or no `type` that is one of the six.
    pub fn put_integration(&self, integration: Value) -> Result<(), serde_json::Error> {
        let integration = Integration::from_json(integration)?;
        self.change(|state| state.store.put_integration(integration));
        Ok(())
    }

    /// Adds a fault. Of several that meet a request, the one added first happens.
    pub fn fault(&self, on: impl Into<Matching>, times: Times, fault: impl Into<Fault>) -> RuleId {
        self.add_rule(Rule { on: on.into(), times, skip: 0, fault: fault.into() })
    }

    /// Adds a fault with everything that can be said about it.
    pub fn add_rule(&self, rule: Rule) -> RuleId {
        self.change(|state| state.add_rule(rule))
    }

    /// Removes a fault.
    pub fn remove_fault(&self, id: RuleId) {
        self.change(|state| state.rules.retain(|rule| rule.id != id));
    }

    /// Removes every fault. Postponed effects are still to come.
    pub fn clear_faults(&self) {
        self.change(|state| state.rules.clear());
    }

    /// How often a fault happened.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.read(|state| state.hits(id))
    }

    /// Makes a gate that stops every matching request at this point.
    #[must_use]
    pub fn hold(&self, on: impl Into<Matching>, point: Point) -> Gate {
        self.gate(on.into(), point, None)
    }

    /// Makes a gate that stops the next so many matching requests at this point.
    #[must_use]
    pub fn hold_next(&self, count: u64, on: impl Into<Matching>, point: Point) -> Gate {
        self.gate(on.into(), point, Some(count))
    }

    fn gate(&self, on: Matching, point: Point, limit: Option<u64>) -> Gate {
        let id = self.change(|state| state.add_gate(on, point, limit));
        Gate::new(Arc::clone(&self.running.shared), id)
    }

    /// Has every postponed effect take place now, in the order the requests came; how many those were.
    pub fn release_late(&self) -> usize {
        self.change(State::perform_all_late)
    }

    /// Forgets every postponed effect; how many those were.
    pub fn discard_late(&self) -> usize {
        self.change(State::discard_late)
    }

    /// Effects that are still to come.
    #[must_use]
    pub fn pending_commits(&self) -> usize {
        self.read(State::pending_commits)
    }

    /// Closes the port and every connection: clients are refused. Requests in hand are still carried out.
    ///
    /// A client with an open connection may still try that one first, and see it closed.
    pub fn go_down(&self) {
        // Closing cannot fail.
        let _ = self.command(Command::Down);
    }

    /// Closes the port: whoever connects is refused. Answers that are due still go out, and end their connections: so the
    /// next call of a client that is waiting for one is refused.
    pub fn stop_listening(&self) {
        // Closing cannot fail.
        let _ = self.command(Command::Leave);
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// Somebody took the port meanwhile.
    pub fn come_up(&self) -> io::Result<()> {
        self.command(Command::Up)
    }

    /// Closes every connection; the port stays open.
    pub fn disconnect(&self) {
        // Closing cannot fail.
        let _ = self.command(Command::Disconnect);
    }

    fn command(&self, make: impl FnOnce(blocking::Sender<io::Result<()>>) -> Command) -> io::Result<()> {
        let (sender, done) = blocking::channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.running.commands.as_ref().ok_or_else(gone)?.send(make(sender)).map_err(|_| gone())?;
        done.recv().map_err(|_| gone())?
    }

    // What others do, behind the operator's back.

    /// Makes a credential, as somebody does in the product's own pages.
    pub fn insert(&self, new: NewCredential) -> Uuid {
        self.change(|state| state.store.insert(new, Cause::Elsewhere))
    }

    /// Edits a credential; false where there is none of this id.
    pub fn edit(&self, id: Uuid, edit: impl FnOnce(&mut Row)) -> bool {
        self.change(|state| state.store.update(id, Cause::Elsewhere, edit))
    }

    /// Removes a credential; false where there is none of this id.
    pub fn remove(&self, id: Uuid) -> bool {
        self.change(|state| state.store.remove(id, Cause::Elsewhere))
    }

    /// Replaces the material a secretId holds.
    pub fn set_material(&self, secret_id: Uuid, material: Value) {
        self.change(|state| state.store.set_material(secret_id, material));
    }

    // What there is and was.

    /// Looks at the state at one moment. Call nothing else of the simulator within: it would wait for ever.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.running.shared.read(look)
    }

    /// Waits until this is so. Has no time limit of its own.
    pub async fn until(&self, mut wanted: impl FnMut(&State) -> bool) {
        self.running.shared.until(|state| wanted(state).then_some(())).await;
    }

    /// Waits until there is something to return. Has no time limit of its own.
    pub async fn until_some<T>(&self, wanted: impl FnMut(&State) -> Option<T>) -> T {
        self.running.shared.until(wanted).await
    }

    /// Every credential that ever was, in the order they were created.
    #[must_use]
    pub fn credentials(&self) -> Vec<Credential> {
        self.read(|state| state.credentials().to_vec())
    }

    /// The credential of this id, also where it was removed.
    #[must_use]
    pub fn credential(&self, id: Uuid) -> Option<Credential> {
        self.read(|state| state.credential(id).cloned())
    }

    /// The credentials active now under this final name (the operator's marker does not count).
    #[must_use]
    pub fn active_named(&self, name: &str) -> Vec<Credential> {
        self.read(|state| state.active_named(name).into_iter().cloned().collect())
    }

    /// The credentials not removed that have this final name, active or not.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Credential> {
        self.read(|state| state.named(name).into_iter().cloned().collect())
    }

    /// The credentials not removed that are inactive and carry the operator's marker.
    #[must_use]
    pub fn staged(&self) -> Vec<Credential> {
        self.read(|state| state.staged().into_iter().cloned().collect())
    }

    /// The most credentials of this final name that were active at one moment, over the whole history.
    #[must_use]
    pub fn max_simultaneously_active(&self, name: &str) -> usize {
        self.read(|state| state.max_simultaneously_active(name))
    }

    /// The `credentials` array this secretId holds now.
    #[must_use]
    pub fn material_of(&self, secret_id: Uuid) -> Option<Value> {
        self.read(|state| state.material_of(secret_id).cloned())
    }

    /// Number of the last change; for [`crate::Reply::Stale`].
    #[must_use]
    pub fn point(&self) -> u64 {
        self.read(State::point)
    }

    /// The latest requests, the oldest first.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.read(|state| state.journal().cloned().collect())
    }

    /// How often an operation was asked for, and how that went.
    #[must_use]
    pub fn counts(&self, operation: Operation) -> Counts {
        self.read(|state| state.counts(operation))
    }

    /// Creates received.
    #[must_use]
    pub fn posts(&self) -> u64 {
        self.counts(Operation::Create).received
    }

    /// Updates received.
    #[must_use]
    pub fn puts(&self) -> u64 {
        self.counts(Operation::Update).received
    }

    /// Listings received.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.counts(Operation::List).received
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.running.shared.change(change)
    }
}
