//! What the API server tells of connection objects and of namespaces.

use std::{collections::HashSet, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::sync::{Notify, mpsc, watch};

use super::{
    Entry, Links, Task,
    build::Problem,
    grant::Grant,
    object::{Kind, Object},
};
use crate::{
    api::{ClusterToolzzConnection, ConnectionKey, Reason, ToolzzConnection},
    controller::{PAGE, context::lock, watches::watch_error},
};

/// What there is to do, in order.
pub(in crate::controller) enum Work {
    /// A connection, its token or its terms may have changed.
    Refresh(ConnectionKey),
    /// A watch has shown all there is.
    Listed(usize),
}

/// Where the work comes from.
pub(in crate::controller) type Queue = mpsc::UnboundedReceiver<Work>;

impl Links {
    /// Follows the connection objects of these scopes (a namespace, or all). What is returned turns true when every
    /// one that was there at the start is made, or known not to work.
    pub fn follow(self: &Arc<Self>, scopes: &[Option<String>], mut queue: Queue) -> watch::Receiver<bool> {
        let mut awaited: HashSet<usize> = HashSet::new();
        let mut tasks = Vec::new();
        let mut number = || {
            let next = awaited.len();
            awaited.insert(next);
            next
        };
        lock(&self.state).unlisted = scopes.iter().cloned().collect();
        for scope in scopes {
            tasks.push(tokio::spawn(Arc::clone(self).objects::<ToolzzConnection>(scope.clone(), number())));
        }
        if !self.terms.scoped {
            tasks.push(tokio::spawn(Arc::clone(self).objects::<ClusterToolzzConnection>(None, number())));
            tasks.push(tokio::spawn(Arc::clone(self).namespaces(number())));
        }
        let (tell, told) = watch::channel(false);
        let links = Arc::clone(self);
        tasks.push(tokio::spawn(async move {
            while let Some(work) = queue.recv().await {
                match work {
                    Work::Refresh(key) => {
                        // Before: what changes from now on has another turn.
                        lock(&links.waiting).remove(&key);
                        links.refresh(&key).await;
                    }
                    Work::Listed(number) => {
                        awaited.remove(&number);
                        if awaited.is_empty() {
                            tell.send_replace(true);
                        }
                    }
                }
            }
        }));
        lock(&self.tasks).extend(tasks.into_iter().map(Task));
        told
    }

    async fn objects<K: Kind>(self: Arc<Self>, scope: Option<String>, number: usize) {
        let api = K::api(&self.shared.client, scope.as_deref());
        let stream = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff();
        let mut stream = stream.modify(|object| object.meta_mut().managed_fields = None).boxed();
        let mut listed = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    let object = object.object();
                    listed.insert(object.key());
                    self.put(object);
                }
                Ok(watcher::Event::InitDone) => {
                    let of_this_watch = |key: &ConnectionKey| match &scope {
                        Some(_) => key.namespace == scope,
                        None => key.namespace.is_some() == K::NAMESPACED,
                    };
                    let known: Vec<ConnectionKey> = lock(&self.state).entries.keys().cloned().collect();
                    for key in known.iter().filter(|key| of_this_watch(key) && !listed.contains(key)) {
                        self.remove(key);
                    }
                    listed = HashSet::new();
                    if K::NAMESPACED {
                        self.listed(&scope);
                    }
                    let _ = self.work.send(Work::Listed(number));
                }
                Ok(watcher::Event::Apply(object)) => self.put(object.object()),
                Ok(watcher::Event::Delete(object)) => self.remove(&object.object().key()),
                Err(error) if not_there(&error) => {
                    tracing::error!(
                        "the CustomResourceDefinition {}.{} is not installed; apply the files in crds/",
                        K::plural(&()),
                        K::group(&())
                    );
                    // So there is none.
                    if K::NAMESPACED {
                        self.listed(&scope);
                    }
                    let _ = self.work.send(Work::Listed(number));
                }
                Err(error) => {
                    tracing::warn!(scope, error = %watch_error(&error), "the watch on {} failed; trying again", K::plural(&()));
                    // Nothing begins without those of the cluster: the one named `default` may limit who may do what.
                    // Of those of a namespace only its own resources know nothing.
                    if K::NAMESPACED {
                        let _ = self.work.send(Work::Listed(number));
                    }
                }
            }
        }
    }

    /// The ToolzzConnections of a scope are known: who asked for one before is told whether it exists.
    fn listed(&self, scope: &Option<String>) {
        let mut state = lock(&self.state);
        if !state.unlisted.remove(scope) {
            return;
        }
        let here = |key: &ConnectionKey| key.namespace.is_some() && (scope.is_none() || key.namespace == *scope);
        let users = state.users.iter().filter(|(key, _)| here(key)).flat_map(|(_, users)| users.iter().cloned());
        let users = users.collect();
        drop(state);
        self.wake_all(users);
    }

    /// A connection came or changed.
    pub(super) fn put(self: &Arc<Self>, object: Object) {
        let key = object.key();
        let grant = object.grant().map(|grant| grant.unwrap_or_else(|_| Grant::nothing()));
        let pending = || Problem { reason: Reason::Pending, message: Reason::Pending.meaning().to_owned() };
        let mut state = lock(&self.state);
        state.default_seen |= key == ConnectionKey::default_of_cluster();
        match state.entries.get_mut(&key) {
            Some(entry) if entry.object.version() == object.version() => {
                // Only its status; somebody else may have written it.
                entry.object = object;
                entry.changed.notify_one();
                return;
            }
            Some(entry) => {
                // Whoever is admitted from now on is admitted to what the object says now, not to what it led to before.
                if entry.object.account() != object.account() {
                    entry.set(Err(pending()), None);
                }
                (entry.object, entry.grant) = (object.clone(), grant);
            }
            None => {
                let changed = Arc::new(Notify::new());
                let tending = tokio::spawn(Arc::clone(self).tend(key.clone(), Arc::clone(&changed)));
                let entry = Entry {
                    object: object.clone(),
                    grant,
                    recipe: None,
                    link: Err(pending()),
                    changed,
                    _tending: Task(tending),
                };
                state.entries.insert(key.clone(), entry);
            }
        }
        state.forget_token(&key);
        let namespace = key.namespace.as_ref().unwrap_or(&self.terms.operator_namespace).clone();
        let secret = (namespace, object.account().token_secret_ref.name.clone());
        state.tokens.entry(secret).or_default().insert(key.clone());
        drop(state);
        self.later(&key);
        // Who may use it may have changed, whatever becomes of the link.
        self.wake(&key);
    }

    /// A connection is gone.
    pub(super) fn remove(&self, key: &ConnectionKey) {
        {
            let mut state = lock(&self.state);
            state.entries.remove(key);
            state.forget_token(key);
            let of_flags = ConnectionKey::default_of_cluster();
            self.shared.claims.keep_services(|key| *key == of_flags || state.entries.contains_key(key));
        }
        self.uncount(key);
        self.wake(key);
    }

    async fn namespaces(self: Arc<Self>, number: usize) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.shared.client.clone());
        let mut stream = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff().boxed();
        let mut listed = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(namespace)) => {
                    listed.extend(namespace.metadata.name.clone());
                    self.label(namespace);
                }
                Ok(watcher::Event::InitDone) => {
                    let mut state = lock(&self.state);
                    state.labels.get_or_insert_default().retain(|name, _| listed.contains(name));
                    drop(state);
                    listed = HashSet::new();
                    let _ = self.work.send(Work::Listed(number));
                }
                Ok(watcher::Event::Apply(namespace)) => self.label(namespace),
                Ok(watcher::Event::Delete(namespace)) => {
                    if let (Some(name), Some(labels)) = (&namespace.metadata.name, &mut lock(&self.state).labels) {
                        labels.remove(name);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %watch_error(&error), "the watch on Namespaces failed; trying again. Until it works, nobody gets a connection by label");
                    let _ = self.work.send(Work::Listed(number));
                }
            }
        }
    }

    /// A namespace has these labels: a connection given by label may be given to it, or no longer.
    fn label(&self, namespace: PartialObjectMeta<Namespace>) {
        let Some(name) = namespace.metadata.name else { return };
        let labels = namespace.metadata.labels.unwrap_or_default();
        let mut state = lock(&self.state);
        let known = state.labels.get_or_insert_default();
        if known.insert(name.clone(), labels.clone()) == Some(labels) {
            return;
        }
        let given_by_label = |key: &&ConnectionKey| {
            state.entries.get(key).is_some_and(|entry| entry.grant.as_ref().is_some_and(Grant::is_by_label))
        };
        let here = |user: &&super::User| user.namespace.as_deref() == Some(&name);
        let users = state.users.iter().filter(|(key, _)| given_by_label(key));
        let users: Vec<_> = users.flat_map(|(_, users)| users.iter().filter(here).cloned()).collect();
        drop(state);
        self.wake_all(users);
    }
}

impl super::Known {
    fn forget_token(&mut self, key: &ConnectionKey) {
        self.tokens.retain(|_, keys| {
            keys.remove(key);
            !keys.is_empty()
        });
    }
}

/// The API server does not know the kind.
fn not_there(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(answer)) if answer.code == 404)
}
