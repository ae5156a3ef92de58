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
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource, runtime::reflector::ObjectRef};
use tokio::sync::{Notify, mpsc};

use super::{claims::Claims, context::lock, events::Events};
use crate::{
    api::{ConnectionKey, Reason, ToolzzCredential},
    remote::{Clock, Config, Connection, State},
    runtime::{Metrics, Share},
    secrets::{Part, Reach},
};
use build::{Problem, Recipe};
use grant::{Denial, Grant};
pub use link::Counting;
pub(super) use link::Link;
use object::{Object, denied};

type User = ObjectRef<ToolzzCredential>;

/// What the connection objects are made with.
pub struct Terms {
    /// What the flags say; the URL is the one of the connection they make.
    pub config: Config,
    /// Through the connection of the flags, existing credentials may be taken over.
    pub allow_adoption: bool,
    /// Names may lead to private addresses.
    pub allow_private_addresses: bool,
    /// Only namespaces are watched: there are no objects of the cluster's then.
    pub scoped: bool,
    /// Where the token Secrets of the cluster's connections are.
    pub operator_namespace: String,
}

/// What the connections share with everybody else.
pub(super) struct Shared {
    pub client: Client,
    pub reach: Reach,
    pub clock: Clock,
    pub share: Share,
    pub resync_interval: std::time::Duration,
    pub claims: Arc<Claims>,
    pub metrics: Arc<Metrics>,
    pub events: Events,
}

/// The connections there are.
pub(super) struct Links {
    shared: Shared,
    terms: Terms,
    /// Made by the flags; gives way to an object of its name until the process starts anew: who takes away the object
    /// that limits everybody does not mean that nobody is limited.
    default: Option<Arc<Link>>,
    state: Mutex<Known>,
    wakers: Mutex<Vec<(Option<String>, mpsc::UnboundedSender<User>)>>,
    work: mpsc::UnboundedSender<watch::Work>,
    /// The connections that wait to be refreshed: each once, however often its Secret or its object is written.
    waiting: Mutex<HashSet<ConnectionKey>>,
    tasks: Mutex<Vec<Task>>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<ConnectionKey, Entry>,
    users: HashMap<ConnectionKey, HashSet<User>>,
    by_user: HashMap<User, ConnectionKey>,
    /// The connections that have their token from a Secret, by its namespace and name.
    tokens: HashMap<(String, String), BTreeSet<ConnectionKey>>,
    /// The scopes whose ToolzzConnections could not be listed yet.
    unlisted: HashSet<Option<String>>,
    /// The connections whose tokens could not be read and are tried again soon.
    retrying: HashSet<ConnectionKey>,
    /// An object of the name of the flags' connection was there.
    default_seen: bool,
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

impl Entry {
    fn set(&mut self, link: Result<Arc<Link>, Problem>, recipe: Option<Recipe>) {
        self.retire();
        (self.link, self.recipe) = (link, recipe);
    }

    /// What is under way over the link counts for nothing any more.
    fn retire(&self) {
        if let Ok(link) = &self.link {
            link.health.retire();
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.retire();
    }
}

/// A task that ends with its handle.
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Links {
    /// The connections, with the one of the flags only; [`Self::follow`] finds the others.
    pub fn new(shared: Shared, terms: Terms, default: Option<Connection>) -> (Arc<Self>, watch::Queue) {
        let (work, queue) = mpsc::unbounded_channel();
        let health = || Arc::new(link::Health::new(Arc::default()));
        let default = default.map(|connection| {
            let key = ConnectionKey::default_of_cluster();
            shared.claims.leads(&key, &connection.service());
            Link::new(key, connection, terms.allow_adoption, health(), &shared)
        });
        let links = Arc::new(Self {
            shared,
            terms,
            default,
            state: Mutex::default(),
            wakers: Mutex::default(),
            work,
            waiting: Mutex::default(),
            tasks: Mutex::default(),
        });
        if let Some(link) = &links.default {
            // The connection itself may be used again when these have ended.
            let task = links.watch_state(&ConnectionKey::default_of_cluster(), link);
            lock(&links.tasks).push(Task(task));
        }
        (links, queue)
    }

    /// Ends every task.
    pub fn stop(&self) {
        lock(&self.tasks).clear();
        let keys: Vec<ConnectionKey> = lock(&self.state).entries.drain().map(|(key, _)| key).collect();
        for key in keys.into_iter().chain([ConnectionKey::default_of_cluster()]) {
            self.uncount(&key);
        }
        lock(&self.wakers).clear();
    }

    /// What this shard's listings over a connection showed is not counted any more.
    fn uncount(&self, key: &ConnectionKey) {
        self.shared.metrics.connection_gone(&link::counted(self.shared.share, key));
    }

    /// The connection a resource uses; or why it has none.
    pub fn of(&self, object: &ToolzzCredential) -> Result<Arc<Link>, (Reason, String)> {
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        self.admitted(&ConnectionKey::of(object), namespace, &object.spec.unity_id)
    }

    /// The name of the connection a resource asks for, whether or not it exists.
    pub fn key_of(object: &ToolzzCredential) -> String {
        ConnectionKey::of(object).to_string()
    }

    fn admitted(&self, key: &ConnectionKey, namespace: &str, unity: &str) -> Result<Arc<Link>, (Reason, String)> {
        let state = lock(&self.state);
        let Some(entry) = state.entries.get(key) else {
            let unlisted = |namespace: &String| {
                state.unlisted.contains(&None) || state.unlisted.contains(&Some(namespace.clone()))
            };
            if key.namespace.as_ref().is_some_and(unlisted) {
                let message = format!("{key}: the ToolzzConnections of this namespace cannot be listed yet");
                return Err((Reason::ConnectionNotReady, message));
            }
            return match &self.default {
                Some(link) if *key == ConnectionKey::default_of_cluster() && !state.default_seen => {
                    Ok(Arc::clone(link))
                }
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
        // The right to take over ends with the grant, not with the link that was made from it.
        let taken_back =
            |link: &Arc<Link>| link.may_adopt && entry.grant.as_ref().is_some_and(|grant| !grant.may_adopt);
        if entry.link.as_ref().is_ok_and(taken_back) {
            return Err((Reason::ConnectionNotReady, format!("{key} was changed and is being made anew")));
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
            None if self.default.is_some() => {
                format!("{key} is gone, and nothing takes its place; whoever runs the platform can make it again")
            }
            None if self.terms.scoped => format!(
                "{key} does not exist: the operator was started without an API token; set spec.connectionRef to a ToolzzConnection"
            ),
            None => format!(
                "{key} does not exist: there is no such object, and the operator was started without an API token; set spec.connectionRef, or create it"
            ),
        }
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

    /// The connection that a resource asked for when it was last seen.
    pub fn used_by(&self, user: &User) -> Option<ConnectionKey> {
        lock(&self.state).by_user.get(user).cloned()
    }

    /// Whether it is of use to begin one more pass over a connection now. Over one that cannot be used, a pass only tells so.
    pub fn have_room(&self, key: &ConnectionKey) -> bool {
        let state = lock(&self.state);
        let link = match state.entries.get(key) {
            Some(entry) => entry.link.as_ref().ok(),
            None => self.default.as_ref().filter(|_| *key == ConnectionKey::default_of_cluster()),
        };
        link.is_none_or(|link| link.connection.has_room())
    }

    /// A resource is gone.
    pub fn gone(&self, user: &User) {
        lock(&self.state).part(user);
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

    /// The Secrets of a part were listed again: what happened to them meanwhile was not announced.
    pub fn secrets_listed(&self, part: &Part) {
        let state = lock(&self.state);
        for ((namespace, name), keys) in &state.tokens {
            if part.has(namespace, name) {
                keys.iter().for_each(|key| self.later(key));
            }
        }
    }

    fn later(&self, key: &ConnectionKey) {
        if lock(&self.waiting).insert(key.clone()) {
            // An error means that the process is ending.
            let _ = self.work.send(watch::Work::Refresh(key.clone()));
        }
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

    /// Wakes the users of a link when it is refused, or accepted again: that concerns all of them. A pause does not;
    /// who is held up by one knows when it is over. Ends with the link.
    fn watch_state(self: &Arc<Self>, key: &ConnectionKey, link: &Arc<Link>) -> tokio::task::JoinHandle<()> {
        let (links, key, mut state) = (Arc::downgrade(self), key.clone(), link.connection.state());
        let refused = |state: &State| matches!(state, State::Refused { .. });
        let mut before = refused(&state.borrow());
        tokio::spawn(async move {
            while state.changed().await.is_ok() {
                let now = refused(&state.borrow_and_update());
                if now != std::mem::replace(&mut before, now) {
                    let Some(links) = links.upgrade() else { return };
                    links.wake(&key);
                    lock(&links.state).tell(&key);
                }
            }
        })
    }
}

impl Known {
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
