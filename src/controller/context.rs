//! What every reconcile shares, and what the process remembers of each resource.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Client, Resource, runtime::reflector::ObjectRef};

use crate::{
    api::{LEDGER_ANNOTATION, Reason, TargetKind, ToolzzCredential, condition},
    plan::{Ledger, Memory, Place, Recorded, Settings},
    remote::{Clock, Tenure},
    runtime::Metrics,
    secrets::{InstallationKey, SecretIndex},
};

use super::{claims::Claims, events::Events, links::Links, watches::Caches};

/// What every reconcile shares.
pub(super) struct Context {
    pub client: Client,
    pub links: Arc<Links>,
    pub key: InstallationKey,
    pub secrets: SecretIndex,
    pub claims: Arc<Claims>,
    pub caches: Arc<Caches>,
    /// The ConfigMaps that resources write their virtual keys to.
    pub config_maps: SecretIndex,
    pub memories: Memories,
    /// Deletions that went on without the finalizer.
    pub ghosts: Mutex<tokio::task::JoinSet<()>>,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub settings: Settings,
    pub tenure: Tenure,
    pub shutdown: crate::runtime::Shutdown,
}

impl Context {
    /// The ledger on a resource: the annotation, or else its copy in the status, and its text.
    pub fn recorded(&self, object: &ToolzzCredential) -> (Recorded, Option<String>) {
        let meta = object.meta();
        let Some(uid) = meta.uid.as_deref() else { return (Recorded::Nothing, None) };
        let connection = Links::key_of(object);
        let place = place(object, &connection);
        let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(LEDGER_ANNOTATION));
        let copy = object.status.as_ref().and_then(|status| status.ledger.as_ref());
        if annotation.is_none() && copy.is_none() {
            return (Recorded::Nothing, None);
        }
        let mac = |parts: &[&[u8]]| self.key.mac(parts);
        let read = |text: &'_ String| Some((Ledger::read(text, place, &mac)?, text.clone()));
        // Of equal ones the annotation.
        let found = copy.and_then(read).into_iter().chain(annotation.and_then(read));
        match found.max_by_key(|(ledger, _)| (ledger.uid == *uid, ledger.sequence)) {
            None => (Recorded::Forged, None),
            Some((ledger, text)) if ledger.uid == *uid => (Recorded::Own(ledger), Some(text)),
            Some((ledger, _)) => {
                let service = self.links.of(object).map(|link| link.service.clone()).unwrap_or_default();
                let held = ledger.named().any(|id| self.claims.holder(object, &service, id).is_some());
                (Recorded::Former { ledger, held }, None)
            }
        }
    }

    /// Keeps what is known of who holds what in step with what is recorded.
    pub fn claim(&self, object: &ToolzzCredential, recorded: &Recorded) {
        let Some(uid) = object.meta().uid.as_deref() else { return };
        let service = self.links.of(object).map(|link| link.service.clone());
        self.memories.while_known(uid, || match (recorded, service) {
            (Recorded::Own(ledger), Ok(service)) => self.claims.set(object, &service, ledger),
            // A connection that is away for a moment takes nothing away from anybody.
            (Recorded::Own(_), Err(_)) => {}
            _ => self.claims.remove(uid),
        });
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
        self.secrets.set(ObjectRef::from_obj(object), watched_secrets(object));
        self.config_maps.set(ObjectRef::from_obj(object), watched_config_maps(object));
        self.links.seen(object);
        self.memories.caught_up(uid, object);
        self.claim(object, &self.recorded(object).0);
    }

    /// Stops watching on behalf of a resource that is gone.
    pub fn gone(&self, object: &ToolzzCredential) {
        self.secrets.remove(&ObjectRef::from_obj(object));
        self.config_maps.remove(&ObjectRef::from_obj(object));
        self.links.gone(object);
        if let Some(uid) = object.meta().uid.as_deref() {
            self.claims.remove(uid);
            self.metrics.gone(uid);
        }
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, object: &ToolzzCredential) {
        if let Some(uid) = object.meta().uid.as_deref() {
            self.forget_uid(uid);
        }
        self.gone(object);
    }

    /// Forgets a resource that is gone, but nothing that is kept by its name.
    pub fn forget_uid(&self, uid: &str) {
        // Before the claims: who takes one for a resource that is known has it removed here.
        self.memories.remove(uid);
        self.claims.remove(uid);
        self.metrics.gone(uid);
    }
}

/// Where a ledger on this resource belongs.
pub(super) fn place<'a>(object: &'a ToolzzCredential, connection: &'a str) -> Place<'a> {
    let meta = object.meta();
    let text = |value: &'a Option<String>| value.as_deref().unwrap_or_default();
    let spec = &object.spec;
    let slug = spec.integration_ref.as_ref().map(|integration| integration.slug.as_str());
    Place {
        namespace: text(&meta.namespace),
        name: text(&meta.name),
        connection,
        unity: &spec.unity_id,
        integration: spec.integration_id.as_deref().or(slug).unwrap_or_default(),
    }
}

/// The Secrets whose changes concern a resource.
fn watched_secrets(object: &ToolzzCredential) -> std::collections::BTreeSet<String> {
    let target = object.spec.target.as_ref().filter(|target| target.kind == TargetKind::Secret);
    secret_names(object).into_iter().chain(target.map(|target| target.name.clone())).collect()
}

/// The ConfigMap that a resource writes its virtual key to.
fn watched_config_maps(object: &ToolzzCredential) -> std::collections::BTreeSet<String> {
    let target = object.spec.target.as_ref().filter(|target| target.kind == TargetKind::ConfigMap);
    target.map(|target| target.name.clone()).into_iter().collect()
}

/// The Secrets a resource's key material comes from, each once.
pub(super) fn secret_names(object: &ToolzzCredential) -> std::collections::BTreeSet<String> {
    let fields = object.spec.credentials.iter().flat_map(|item| item.values());
    fields.map(|source| source.secret_key_ref.name.clone()).collect()
}

/// What the process remembers of one resource.
#[derive(Clone, Default)]
pub(super) struct Remembered {
    pub plan: Memory,
    /// Failed passes since the last good one.
    pub failures: u32,
    /// The generation the failures belong to: an edited spec starts afresh.
    pub generation: Option<i64>,
    /// Held by whoever works on the resource: one at a time, also when it went without its finalizer's consent.
    pub at_work: Arc<tokio::sync::Mutex<()>>,
    /// An event has told that the ledger does not verify.
    pub told_invalid: bool,
    /// What stays active when the resource goes was named.
    pub told_left_active: bool,
    /// The connection could not be used when it was last asked for.
    pub unlinked: bool,
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

/// Resource versions of one resource can be compared as numbers.
/// Source: KEP-5504, comparable resource version.
pub(super) fn version(object: &ToolzzCredential) -> u128 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
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

    /// The watch has shown this version: an own write that is not newer need not be remembered.
    fn caught_up(&self, uid: &str, object: &ToolzzCredential) {
        if let Some(remembered) = lock(&self.0).get_mut(uid)
            && remembered.written.as_ref().is_some_and(|written| version(written) <= version(object))
        {
            remembered.written = None;
        }
    }

    /// Does this unless the resource is gone.
    pub fn while_known<T>(&self, uid: &str, act: impl FnOnce() -> T) -> Option<T> {
        let memories = lock(&self.0);
        memories.contains_key(uid).then(act)
    }

    fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these; if it did, the map would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
