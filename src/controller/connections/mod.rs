//! The connections: which there are, who may use them, and the one that a resource uses.
//!
//! - [`watch`](self::watch): what the API server tells of connection objects, namespaces and token Secrets.
//! - [`build`](self::build): from an object and its token to a [`Link`].
//! - [`tend`](self::tend): whether each works, said in its status.
//!
//! A pass asks for its [`Link`] and gets it, or the trouble to tell instead. What a namespace may use is looked up then,
//! so that a grant that is taken back ends with the pass in hand.

mod build;
mod grant;
mod link;
mod object;
mod tend;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource, runtime::reflector::ObjectRef};
use tokio::sync::{Notify, mpsc};

use super::{context::lock, events::Events};
use crate::{
    api::{ConnectionKey, Reason, ToolzzCredential},
    plan::Trouble,
    remote::{Clock, Config, Connection, Inventory},
    runtime::Metrics,
};
use build::{Problem, Recipe};
use grant::{Denial, Grant};
pub use link::Counting;
pub(crate) use link::Link;
use object::{Object, denied};

type User = ObjectRef<ToolzzCredential>;

/// What the connection objects are made with.
pub struct Terms {
    /// What the flags say; the URL is the one of the connection they make.
    pub config: Config,
    /// Names may lead to private addresses.
    pub allow_private_addresses: bool,
    /// Only namespaces are watched: there are no objects of the cluster's then.
    pub scoped: bool,
    /// Where the token Secrets of the cluster's connections are.
    pub operator_namespace: String,
    /// For how long a resource whose connection cannot be used rests when nothing wakes it.
    pub resync_interval: Duration,
}

/// The connections.
pub(super) struct Connections {
    client: Client,
    clock: Clock,
    metrics: Arc<Metrics>,
    events: Events,
    terms: Terms,
    /// Made by the flags; gives way to an object of its name.
    default: Option<Arc<Link>>,
    state: Mutex<State>,
    wakers: Mutex<Vec<(Option<String>, mpsc::UnboundedSender<User>)>>,
    work: mpsc::UnboundedSender<watch::Work>,
    tasks: Mutex<Vec<Task>>,
}

#[derive(Default)]
struct State {
    entries: HashMap<ConnectionKey, Entry>,
    users: HashMap<ConnectionKey, HashSet<User>>,
    by_user: HashMap<User, ConnectionKey>,
    /// The connections that have their token from a Secret, by its namespace and name.
    tokens: HashMap<(String, String), BTreeSet<ConnectionKey>>,
    /// The labels of every namespace, where they are known.
    labels: Option<HashMap<String, BTreeMap<String, String>>>,
}

/// One connection object.
struct Entry {
    object: Object,
    /// `None`: for its own namespace.
    grant: Option<Grant>,
    /// What the link was made from, for telling a change from none.
    recipe: Option<Recipe>,
    link: Result<Arc<Link>, Problem>,
    /// Something that its status tells may have changed.
    changed: Arc<Notify>,
    /// Writes its status.
    _tending: Task,
}

/// A task that ends with its handle.
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connections {
    /// The connections, with the one of the flags only; [`Self::follow`] finds the others.
    pub fn new(
        client: Client,
        clock: Clock,
        metrics: Arc<Metrics>,
        events: Events,
        terms: Terms,
        default: Option<Connection>,
    ) -> (Arc<Self>, watch::Queue) {
        let (work, queue) = mpsc::unbounded_channel();
        let default = default.map(|connection| {
            Arc::new(Link {
                key: ConnectionKey::default_of_cluster(),
                connection,
                inventory: Inventory::default(),
                may_adopt: true,
                health: Arc::new(link::Health::new(Arc::default())),
            })
        });
        let connections = Arc::new(Self {
            client,
            clock,
            metrics,
            events,
            terms,
            default,
            state: Mutex::default(),
            wakers: Mutex::default(),
            work,
            tasks: Mutex::default(),
        });
        if let Some(link) = &connections.default {
            connections.watch_state(link);
        }
        (connections, queue)
    }

    /// Ends every task.
    pub fn stop(&self) {
        lock(&self.tasks).clear();
        lock(&self.state).entries.clear();
        lock(&self.wakers).clear();
    }

    /// The connection a resource uses, or what is in the way of it.
    pub fn link(&self, object: &ToolzzCredential) -> Result<Arc<Link>, Trouble> {
        let key = ConnectionKey::of(object);
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        self.admitted(&key, namespace, &object.spec.unity_id).map_err(|(reason, message)| Trouble {
            reason,
            message,
            retry_at: Some(self.clock.now() + self.terms.resync_interval),
        })
    }

    fn admitted(&self, key: &ConnectionKey, namespace: &str, unity: &str) -> Result<Arc<Link>, (Reason, String)> {
        let state = lock(&self.state);
        let Some(entry) = state.entries.get(key) else {
            return match &self.default {
                Some(link) if link.key == *key => Ok(Arc::clone(link)),
                _ => Err((Reason::ConnectionNotFound, self.missing(key))),
            };
        };
        if let Some(grant) = &entry.grant {
            let labels = state.labels.as_ref().and_then(|labels| labels.get(namespace));
            grant.admits(namespace, labels, unity).map_err(|denial| {
                let reason = match denial {
                    Denial::Namespace | Denial::Unity => Reason::Forbidden,
                    Denial::LabelsUnknown => Reason::ConnectionNotReady,
                };
                (reason, denied(denial, key, namespace, unity))
            })?;
        }
        entry.link.clone().map_err(|problem| {
            // What is wrong with the platform's own is told to the platform.
            let message = match entry.grant {
                None => format!("{key} cannot be used: {}", problem.message),
                Some(_) => format!("{key} cannot be used ({}); its own status says why", problem.reason),
            };
            (Reason::ConnectionNotReady, message)
        })
    }

    fn missing(&self, key: &ConnectionKey) -> String {
        match &key.namespace {
            Some(_) => format!("{key} does not exist; create it"),
            None if *key != ConnectionKey::default_of_cluster() && self.terms.scoped => format!(
                "{key} is out of reach: this operator works in named namespaces only and sees none of the cluster's connections; use a ToolzzConnection"
            ),
            None if *key != ConnectionKey::default_of_cluster() => format!("{key} does not exist"),
            None if self.terms.scoped => format!(
                "{key} does not exist: the operator was started without an API token; set spec.connectionRef to a ToolzzConnection"
            ),
            None => format!(
                "{key} does not exist: there is no such object, and the operator was started without an API token; set spec.connectionRef, or create it"
            ),
        }
    }

    /// The service behind the connection a resource uses, as far as it is known; empty where it is not.
    pub fn service(&self, object: &ToolzzCredential) -> String {
        let key = ConnectionKey::of(object);
        let state = lock(&self.state);
        let link = match state.entries.get(&key) {
            Some(entry) => entry.link.as_ref().ok(),
            None => self.default.as_ref().filter(|link| link.key == key),
        };
        link.map(|link| link.service().to_owned()).unwrap_or_default()
    }

    /// Takes note of who uses which connection.
    pub fn seen(&self, object: &ToolzzCredential) {
        let (user, key) = (ObjectRef::from_obj(object), ConnectionKey::of(object));
        let mut state = lock(&self.state);
        if state.by_user.get(&user) != Some(&key) {
            state.part(&user);
            state.users.entry(key.clone()).or_default().insert(user.clone());
            state.by_user.insert(user, key.clone());
            state.tell(&key);
        }
    }

    /// A resource is gone.
    pub fn gone(&self, object: &ToolzzCredential) {
        lock(&self.state).part(&ObjectRef::from_obj(object));
    }

    /// The resources of a scope to look at again because their connection changed.
    pub fn woken(&self, scope: Option<String>) -> impl Stream<Item = User> + Send + use<> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.wakers).push((scope, sender));
        futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) }).fuse()
    }

    /// A Secret came, changed or went: it may hold a token.
    pub fn secret_changed(&self, secret: &ObjectMeta) {
        let (Some(namespace), Some(name)) = (&secret.namespace, &secret.name) else { return };
        let state = lock(&self.state);
        for key in state.tokens.get(&(namespace.clone(), name.clone())).into_iter().flatten() {
            self.later(key);
        }
    }

    /// The Secrets of a scope were listed again: what happened to them meanwhile was not announced.
    pub fn secrets_listed(&self, scope: Option<&str>) {
        let state = lock(&self.state);
        for ((namespace, _), keys) in &state.tokens {
            if scope.is_none_or(|scope| scope == namespace) {
                keys.iter().for_each(|key| self.later(key));
            }
        }
    }

    fn later(&self, key: &ConnectionKey) {
        // An error means that the process is ending.
        let _ = self.work.send(watch::Work::Refresh(key.clone()));
    }

    /// Has the users of a connection looked at again.
    fn wake(&self, key: &ConnectionKey) {
        let users: Vec<User> = lock(&self.state).users.get(key).into_iter().flatten().cloned().collect();
        self.wake_all(users);
    }

    fn wake_all(&self, users: Vec<User>) {
        let wakers = lock(&self.wakers);
        for user in users {
            for (scope, sender) in wakers.iter() {
                if scope.is_none() || *scope == user.namespace {
                    // An error means that the process is ending.
                    let _ = sender.send(user.clone());
                }
            }
        }
    }

    /// Wakes the users of a link whenever it begins or ceases to take calls. Ends with the link.
    fn watch_state(self: &Arc<Self>, link: &Arc<Link>) {
        let (connections, key, mut state) = (Arc::downgrade(self), link.key.clone(), link.connection.state());
        tokio::spawn(async move {
            while state.changed().await.is_ok() {
                let Some(connections) = connections.upgrade() else { return };
                connections.wake(&key);
                lock(&connections.state).tell(&key);
            }
        });
    }
}

impl State {
    fn part(&mut self, user: &User) {
        let Some(key) = self.by_user.remove(user) else { return };
        if let Some(users) = self.users.get_mut(&key) {
            users.remove(user);
            if users.is_empty() {
                self.users.remove(&key);
            }
        }
        self.tell(&key);
    }

    /// Has the status of a connection looked at again.
    fn tell(&self, key: &ConnectionKey) {
        if let Some(entry) = self.entries.get(key) {
            entry.changed.notify_one();
        }
    }
}
