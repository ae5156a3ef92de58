//! What every reconcile shares, and what the process remembers of each resource.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Client, Resource, runtime::reflector::ObjectRef};

use crate::{
    api::{ConnectionKey, CredentialId, LEDGER_ANNOTATION, Reason, ToolzzCredential, condition},
    plan::{Ledger, Memory, Recorded, Settings},
    remote::Clock,
    runtime::Metrics,
    secrets::{InstallationKey, SecretIndex},
};

use super::{connections::Connections, events::Events};

/// What every reconcile shares.
pub(super) struct Context {
    pub client: Client,
    pub connections: Arc<Connections>,
    pub key: InstallationKey,
    pub secrets: SecretIndex,
    pub claims: Claims,
    pub memories: Memories,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub settings: Settings,
    pub shutdown: crate::runtime::Shutdown,
}

impl Context {
    /// The authentication code of a resource's ledger. It covers the connection: what was recorded at one service is
    /// no claim to the credential of the same id at another.
    pub fn ledger_mac(&self, object: &ToolzzCredential) -> impl Fn(&[&[u8]]) -> String {
        let connection = ConnectionKey::of(object);
        // The default's goes without, as it does in ledgers from before there were others.
        let connection = (connection != ConnectionKey::default_of_cluster()).then(|| connection.to_string());
        move |parts| {
            let parts: Vec<&[u8]> = parts.iter().copied().chain(connection.as_ref().map(String::as_bytes)).collect();
            self.key.mac(&parts)
        }
    }

    /// The ledger on a resource: the annotation, or else its copy in the status, and its text.
    pub fn recorded(&self, object: &ToolzzCredential) -> (Recorded, Option<String>) {
        let meta = object.meta();
        let (Some(namespace), Some(name), Some(uid)) = (&meta.namespace, &meta.name, &meta.uid) else {
            return (Recorded::Nothing, None);
        };
        let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(LEDGER_ANNOTATION));
        let copy = object.status.as_ref().and_then(|status| status.ledger.as_ref());
        let mut texts = annotation.into_iter().chain(copy).peekable();
        if texts.peek().is_none() {
            return (Recorded::Nothing, None);
        }
        let mac = self.ledger_mac(object);
        let found = texts.find_map(|text| Some((Ledger::read(text, namespace, name, &mac)?, text)));
        match found {
            None => (Recorded::Forged, None),
            Some((ledger, text)) if ledger.uid == *uid => (Recorded::Own(ledger), Some(text.clone())),
            Some((ledger, _)) => {
                let held = self.claims.held_by_another(&self.connections.service(object), &ledger.id, uid);
                (Recorded::Former { ledger, held }, None)
            }
        }
    }

    /// Takes note of an object of the watch, before it is reconciled.
    pub fn seen(&self, object: &ToolzzCredential) {
        let Some(uid) = object.meta().uid.as_deref() else { return };
        if self.memories.first_seen(uid, self.clock.now(), object.meta().generation) {
            self.metrics.queued(uid);
        }
        let ready = object.status.as_ref().and_then(|status| condition(&status.conditions, "Ready"));
        if let Some(reason) = ready.and_then(|ready| Reason::from_name(&ready.reason)) {
            self.metrics.resource(uid, reason);
        }
        self.secrets.set(ObjectRef::from_obj(object), secret_names(object));
        self.connections.seen(object);
        if let (Recorded::Own(ledger), _) = self.recorded(object) {
            self.claims.set(uid, &self.connections.service(object), &ledger);
        }
    }

    /// Forgets a resource that is gone.
    pub fn gone(&self, object: &ToolzzCredential) {
        self.secrets.remove(&ObjectRef::from_obj(object));
        self.connections.gone(object);
        if let Some(uid) = object.meta().uid.as_deref() {
            self.memories.remove(uid);
            self.claims.remove(uid);
            self.metrics.gone(uid);
        }
    }
}

/// The Secrets a resource refers to, each once.
pub(super) fn secret_names(object: &ToolzzCredential) -> std::collections::BTreeSet<String> {
    let fields = object.spec.credentials.iter().flat_map(|item| item.values());
    fields.map(|source| source.secret_key_ref.name.clone()).collect()
}

/// Which resource holds which credential, by the ledgers that verify, and at which service.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<String, (String, Ledger)>>);

impl Claims {
    /// `service` is empty while the resource's connection cannot be used: what is known of it is kept.
    pub fn set(&self, uid: &str, service: &str, ledger: &Ledger) {
        let mut claims = lock(&self.0);
        let known = claims.remove(uid).filter(|_| service.is_empty());
        let service = known.map_or_else(|| service.to_owned(), |(at, _)| at);
        claims.insert(uid.to_owned(), (service, ledger.clone()));
    }

    fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Whether a resource other than `uid` holds the credential. Asked only where a name or a restored ledger
    /// raises the question, so a walk through all is good enough.
    pub fn held_by_another(&self, service: &str, id: &CredentialId, uid: &str) -> bool {
        lock(&self.0).iter().any(|(holder, (at, ledger))| holder != uid && at == service && ledger.id == *id)
    }

    /// Whether any ledger names the credential, as its own or as where its material came from.
    pub fn names(&self, service: &str, ids: &[CredentialId]) -> usize {
        let claims = lock(&self.0);
        let named: std::collections::HashSet<_> = claims
            .values()
            .filter(|(at, _)| at == service)
            .flat_map(|(_, ledger)| [&ledger.id, &ledger.staged_as])
            .collect();
        ids.iter().filter(|id| named.contains(id)).count()
    }
}

/// What the process remembers of one resource.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    pub plan: Memory,
    /// Failed passes since the last good one.
    pub failures: u32,
    /// The generation the failures belong to: an edited spec starts afresh.
    pub generation: Option<i64>,
    /// The newest generation the watch has shown.
    seen_generation: Option<i64>,
    /// The resource as the API server returned it from the operator's last write to it.
    pub written: Option<Arc<ToolzzCredential>>,
}

impl Remembered {
    fn since(now: crate::api::Tick) -> Self {
        Self { plan: Memory { first_seen: now, ..Memory::default() }, ..Self::default() }
    }
}

/// What the process remembers, by uid.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<String, Remembered>>);

impl Memories {
    /// Begins to remember a resource, if it is new. Whether it is, or has a generation that was not seen before.
    fn first_seen(&self, uid: &str, now: crate::api::Tick, generation: Option<i64>) -> bool {
        let mut memories = lock(&self.0);
        let new = !memories.contains_key(uid);
        let remembered = memories.entry(uid.to_owned()).or_insert_with(|| Remembered::since(now));
        let edited = remembered.seen_generation != generation;
        remembered.seen_generation = generation;
        new || edited
    }

    /// Changes what is remembered of a resource, and returns the change's result. Of one that is gone nothing is kept:
    /// a pass may outlive its resource.
    pub fn update<T>(&self, uid: &str, now: crate::api::Tick, change: impl FnOnce(&mut Remembered) -> T) -> T {
        match lock(&self.0).get_mut(uid) {
            Some(remembered) => change(remembered),
            None => change(&mut Remembered::since(now)),
        }
    }

    /// Does this unless the resource is gone.
    pub fn while_known(&self, uid: &str, act: impl FnOnce()) {
        let memories = lock(&self.0);
        if memories.contains_key(uid) {
            act();
        }
    }

    fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these; if it did, the map would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
