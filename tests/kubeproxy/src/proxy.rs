//! The handle tests hold.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc as blocking},
    thread::JoinHandle,
};

use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    asked::Asked,
    faults::{Fault, RuleId, Times},
    gate::{Gate, Point},
    journal::Entry,
    server::{self, Command},
    state::{Shared, State},
};

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No port, or no thread.
    #[error("the proxy cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// No way to the API server.
    #[error("the proxy cannot use what it was given for the API server: {0}")]
    Upstream(#[from] kube::Error),
}

/// A running proxy. Clones are handles on the same one; it stops when the last is dropped.
///
/// It runs on threads of its own: no method needs a runtime, and the awaiting ones work in any.
#[derive(Clone, Debug)]
pub struct Proxy {
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

/// Watch events that are held back. Dropping it lets them go.
#[derive(Debug)]
pub struct Lag {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.shared.change(|state| state.remove_lag(self.id));
    }
}

impl Proxy {
    /// Starts one on a free loopback port, in front of the API server and with the credentials of this configuration.
    ///
    /// # Errors
    /// No port, no thread, or a configuration that cannot be used.
    pub fn start(mut config: kube::Config) -> Result<Self, Error> {
        // What comes back is what the client shall see: trying again is its own affair.
        config.default_retry = false;
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new());
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("test-kubeproxy")
            .enable_all()
            .build()?;
        let upstream = {
            let _within = runtime.enter();
            kube::Client::try_from(config)?
        };
        let for_server = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async move {
                // Only a runtime without I/O refuses it, and this one has it.
                if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
                    server::serve(listener, for_server, upstream, receiver).await;
                }
            });
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("test-kubeproxy".to_owned()).spawn(serve)?;
        let running = Running { address, shared, commands: Some(commands), thread: Some(thread) };
        Ok(Self { running: Arc::new(running) })
    }

    /// Where it listens, in plain HTTP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.running.address)
    }

    /// A kubeconfig for the client under test, as text: this proxy, no credentials, this namespace.
    #[must_use]
    pub fn kubeconfig(&self, namespace: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url()}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody", "namespace": namespace}}],
            "current-context": "proxy",
        })
        .to_string()
    }

    /// Adds a fault. Of several that meet a request, the one added first happens.
    pub fn fault(&self, on: impl Fn(&Asked) -> bool + Send + Sync + 'static, times: Times, fault: Fault) -> RuleId {
        self.change(|state| state.add_rule(Box::new(on), times, fault))
    }

    /// Removes a fault.
    pub fn remove_fault(&self, id: RuleId) {
        self.change(|state| state.remove_rules(|rule| rule == id));
    }

    /// Removes every fault.
    pub fn clear_faults(&self) {
        self.change(|state| state.remove_rules(|_| true));
    }

    /// How often a fault happened.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.read(|state| state.hits(id))
    }

    /// Makes a gate that stops every matching request at this point.
    #[must_use]
    pub fn hold(&self, on: impl Fn(&Asked) -> bool + Send + Sync + 'static, point: Point) -> Gate {
        self.gate(on, point, None)
    }

    /// Makes a gate that stops the next so many matching requests at this point.
    #[must_use]
    pub fn hold_next(&self, count: u64, on: impl Fn(&Asked) -> bool + Send + Sync + 'static, point: Point) -> Gate {
        self.gate(on, point, Some(count))
    }

    fn gate(&self, on: impl Fn(&Asked) -> bool + Send + Sync + 'static, point: Point, limit: Option<u64>) -> Gate {
        let id = self.change(|state| state.add_gate(Box::new(on), point, limit));
        Gate::new(Arc::clone(&self.running.shared), id)
    }

    /// Holds back the newest so many events of matching watches; `usize::MAX`: all of them.
    #[must_use]
    pub fn lag(&self, on: impl Fn(&Asked) -> bool + Send + Sync + 'static, events: usize) -> Lag {
        let id = self.change(|state| state.add_lag(Box::new(on), events));
        Lag { shared: Arc::clone(&self.running.shared), id }
    }

    /// Ends matching watches; events that were held back are not sent. How many those were. To keep a client from
    /// watching again at once, make a gate for watches before.
    pub fn cut_watches(&self, on: impl Fn(&Asked) -> bool) -> usize {
        self.change(|state| state.cut_watches(on))
    }

    /// Closes every connection, and every new one at once: clients are cut off. Requests in hand are still carried out.
    /// The port stays bound, so that nobody else gets it meanwhile; a server that is away refuses the connection, which a
    /// client tells from this only by the error's name.
    pub fn go_down(&self) {
        self.command(Command::Down);
    }

    /// Serves again.
    pub fn come_up(&self) {
        self.command(Command::Up);
    }

    /// Closes every connection; new ones are served.
    pub fn disconnect(&self) {
        self.command(Command::Disconnect);
    }

    fn command(&self, make: impl FnOnce(blocking::Sender<()>) -> Command) {
        let (sender, done) = blocking::channel();
        // The server listens to commands as long as there is a handle.
        if let Some(commands) = &self.running.commands
            && commands.send(make(sender)).is_ok()
        {
            let _ = done.recv();
        }
    }

    /// Every request, the oldest first.
    #[must_use]
    pub fn journal(&self) -> Vec<Entry> {
        self.read(|state| state.journal().to_vec())
    }

    /// Looks at the state at one moment. Call nothing else of the proxy within: it would wait for ever.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.running.shared.read(look)
    }

    /// Waits until this is so. Has no time limit of its own.
    pub async fn until(&self, mut wanted: impl FnMut(&State) -> bool) {
        self.running.shared.until(|state| wanted(state).then_some(())).await;
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.running.shared.change(change)
    }
}
