//! What every reconcile shares, and what the process remembers of each resource.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Client, Resource, runtime::reflector::ObjectRef};

use crate::{
    api::{CredentialId, LEDGER_ANNOTATION, ToolzzCredential},
    plan::{Ledger, Memory, Recorded, Settings},
    remote::{Clock, Connection, Inventory},
    runtime::Metrics,
    secrets::{InstallationKey, SecretIndex},
};

use super::events::Events;

/// What every reconcile shares.
pub(super) struct Context {
    pub client: Client,
    pub connection: Connection,
    pub inventory: Inventory,
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
        let mac = |parts: &[&[u8]]| self.key.mac(parts);
        let found = texts.find_map(|text| Some((Ledger::read(text, namespace, name, &mac)?, text)));
        match found {
            None => (Recorded::Forged, None),
            Some((ledger, text)) if ledger.uid == *uid => (Recorded::Own(ledger), Some(text.clone())),
            Some((ledger, _)) => {
                let held = self.claims.held_by_another(&ledger.id, uid);
                (Recorded::Former { ledger, held }, None)
            }
        }
    }

    /// Takes note of an object of the watch, before it is reconciled.
    pub fn seen(&self, object: &ToolzzCredential) {
        let Some(uid) = object.meta().uid.as_deref() else { return };
        self.memories.update(uid, self.clock.now(), |_| ());
        self.secrets.set(ObjectRef::from_obj(object), secret_names(object));
        if let (Recorded::Own(ledger), _) = self.recorded(object) {
            self.claims.set(uid, &ledger);
        }
    }

    /// Forgets a resource that is gone.
    pub fn gone(&self, object: &ToolzzCredential) {
        self.secrets.remove(&ObjectRef::from_obj(object));
        if let Some(uid) = object.meta().uid.as_deref() {
            self.forget(uid);
        }
    }

    fn forget(&self, uid: &str) {
        self.memories.remove(uid);
        self.claims.remove(uid);
        self.metrics.resource(uid, None);
    }
}

/// The Secrets a resource refers to, each once.
pub(super) fn secret_names(object: &ToolzzCredential) -> std::collections::BTreeSet<String> {
    let fields = object.spec.credentials.iter().flat_map(|item| item.values());
    fields.map(|source| source.secret_key_ref.name.clone()).collect()
}

/// Which resource holds which credential, by the ledgers that verify.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<String, Ledger>>);

impl Claims {
    pub fn set(&self, uid: &str, ledger: &Ledger) {
        lock(&self.0).insert(uid.to_owned(), ledger.clone());
    }

    fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Whether a resource other than `uid` holds the credential. Asked only where a name or a restored ledger
    /// raises the question, so a walk through all is good enough.
    pub fn held_by_another(&self, id: &CredentialId, uid: &str) -> bool {
        lock(&self.0).iter().any(|(holder, ledger)| holder != uid && ledger.id == *id)
    }

    /// Whether any ledger names the credential, as its own or as where its material came from.
    pub fn names(&self, ids: &[CredentialId]) -> usize {
        let claims = lock(&self.0);
        let named: std::collections::HashSet<_> =
            claims.values().flat_map(|ledger| [&ledger.id, &ledger.staged_as]).collect();
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
    /// The resource as the API server returned it from the operator's last write to it.
    pub written: Option<Arc<ToolzzCredential>>,
}

/// What the process remembers, by uid.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<String, Remembered>>);

impl Memories {
    /// Changes what is remembered of a resource, first seen now if it is new, and returns the change's result.
    pub fn update<T>(&self, uid: &str, now: crate::api::Tick, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut memories = lock(&self.0);
        let remembered = memories.entry(uid.to_owned()).or_insert_with(|| Remembered {
            plan: Memory { first_seen: now, ..Memory::default() },
            ..Remembered::default()
        });
        change(remembered)
    }

    fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Keeps only these resources: after a relist, what was deleted meanwhile is not announced singly.
    pub fn uids(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }
}

impl Context {
    /// After a relist of a scope: forgets resources of it that were deleted while nobody watched.
    pub fn retain(&self, listed: &std::collections::HashSet<String>) {
        for uid in self.memories.uids() {
            if !listed.contains(&uid) {
                self.forget(&uid);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these; if it did, the map would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
