//! What every reconcile shares, and what the process remembers of each resource.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Client, Resource, runtime::reflector::ObjectRef};

use crate::{
    api::{CredentialId, LEDGER_ANNOTATION, Reason, TargetKind, ToolzzCredential, condition},
    plan::{Ledger, Memory, Place, Recorded, Settings},
    remote::{Clock, Tenure},
    runtime::{Metrics, Share},
    secrets::{InstallationKey, Reach, SecretIndex},
};

use super::{claims::Claims, events::Events, links::Links, watches::Caches};

/// What every reconcile shares.
pub(super) struct Context {
    pub client: Client,
    pub reach: Reach,
    /// Which resources it works on.
    pub share: Share,
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
    /// The latest ledger of a resource, and its text: the annotation, its copy in the status, or what this process has
    /// seen or written before. Somebody may have put an earlier state of the resource back, or one without any.
    pub fn recorded(&self, object: &ToolzzCredential) -> (Recorded, Option<String>) {
        let meta = object.meta();
        let Some(uid) = meta.uid.as_deref() else { return (Recorded::Nothing, None) };
        let connection = Links::key_of(object);
        let place = place(object, &connection);
        let copy = object.status.as_ref().and_then(|status| status.ledger.as_ref());
        let written = [copy, annotation(object)];
        // As a rule all three are the same, and read once.
        let remembered = self.memories.ledger(uid).filter(|text| !written.contains(&Some(text)));
        let copy = copy.filter(|text| annotation(object) != Some(text));
        let mac = |parts: &[&[u8]]| self.key.mac(parts);
        let read = |text: &String| Some((Ledger::read(text, place, &mac)?, text.clone()));
        // Of equal ones the last: the annotation.
        let found = remembered.iter().chain(copy).chain(annotation(object)).filter_map(read);
        match found.max_by_key(|(ledger, _)| (ledger.uid == *uid, ledger.sequence)) {
            None if written == [None, None] => (Recorded::Nothing, None),
            None => (Recorded::Forged, None),
            Some((ledger, text)) if ledger.uid == *uid => {
                self.memories.keep_ledger(uid, &text);
                (Recorded::Own(ledger), Some(text))
            }
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
        self.memories.while_known(uid, || self.note_claim(object, uid, recorded));
    }

    fn note_claim(&self, object: &ToolzzCredential, uid: &str, recorded: &Recorded) {
        match recorded {
            Recorded::Own(ledger) => self.claims.set(object, ledger),
            _ => self.claims.remove(uid),
        }
    }

    /// Whether a resource of this namespace is this shard's.
    pub fn is_own(&self, namespace: Option<&str>) -> bool {
        self.share.has(namespace.unwrap_or_default())
    }

    /// Takes note of what a resource of another shard holds, and of the connection it uses.
    pub fn seen_elsewhere(&self, object: &ToolzzCredential) {
        let Some(uid) = object.meta().uid.as_deref() else { return };
        self.links.seen(object);
        self.note_claim(object, uid, &self.recorded(object).0);
    }

    /// A resource of another shard is gone; its name may have been taken by another one.
    pub fn gone_elsewhere(&self, uid: &str, other: &ObjectRef<ToolzzCredential>, name_is_free: bool) {
        self.claims.remove(uid);
        if name_is_free {
            self.links.gone(other);
        }
    }

    /// Takes note of an object of the watch, before it is reconciled. Whether it asks for a pass: it is new, or something
    /// was changed that decides, by somebody else.
    pub fn seen(&self, object: &ToolzzCredential) -> bool {
        let Some(uid) = object.meta().uid.as_deref() else { return false };
        let news = self.memories.seen(uid, self.clock.now(), object);
        let ready = object.status.as_ref().and_then(|status| condition(&status.conditions, "Ready"));
        if let Some(reason) = ready.and_then(|ready| Reason::from_name(&ready.reason)) {
            self.metrics.resource(uid, reason);
        }
        self.secrets.set(ObjectRef::from_obj(object), watched_secrets(object));
        self.config_maps.set(ObjectRef::from_obj(object), watched_config_maps(object));
        self.links.seen(object);
        self.claim(object, &self.recorded(object).0);
        news
    }

    /// Stops watching on behalf of a resource whose name is free.
    pub fn name_is_free(&self, name: &ObjectRef<ToolzzCredential>) {
        self.secrets.remove(name);
        self.config_maps.remove(name);
        self.links.gone(name);
    }

    /// Forgets a resource that is gone, but nothing that is kept by its name: another may have it by now.
    pub fn forget(&self, uid: &str) {
        // Before the claims: who takes one for a resource that is known has it removed here.
        self.memories.remove(uid);
        self.claims.remove(uid);
        self.metrics.gone(uid);
    }
}

/// The record as it stands on a resource.
pub(super) fn annotation(object: &ToolzzCredential) -> Option<&String> {
    object.meta().annotations.as_ref()?.get(LEDGER_ANNOTATION)
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
    /// What stays active when the resource goes, as far as it was named.
    pub told_left_active: Vec<CredentialId>,
    /// This process let the resource go.
    pub released: bool,
    /// The latest ledger of the resource that was seen or written, as text.
    ledger: Option<String>,
    /// The connection could not be used when it was last asked for.
    pub unlinked: bool,
    /// What the watch has last shown of what decides whether there is something to do.
    shown: Option<u64>,
    /// The newest version that a pass was given by the API server, in answer to an own write or when it asked. It has gone
    /// on from there, so the watch tells nothing new by showing that version, or one before.
    pub had: u128,
    /// The newest version of the resource that the watch, or the answer to an own write, has shown.
    pub version: u128,
    /// The API server said that there is no such resource any more: what the cache still shows is older.
    pub gone: bool,
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

/// Tells apart what decides whether there is something to do: the status is none of it.
fn deciding(object: &ToolzzCredential) -> u64 {
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    // The generation counts edits of the spec, and the deletion.
    (&meta.generation, &meta.finalizers, &meta.annotations).hash(&mut hasher);
    hasher.finish()
}

/// What the process remembers, by uid.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<String, Remembered>>);

impl Memories {
    /// Takes note of a version that the watch has shown, and begins to remember a resource that is new. Whether it is, or
    /// differs in what decides from what was shown before, and no pass has had that version.
    fn seen(&self, uid: &str, now: crate::api::Tick, object: &ToolzzCredential) -> bool {
        let mut memories = lock(&self.0);
        let remembered = memories.entry(uid.to_owned()).or_insert_with(|| Remembered::since(now));
        remembered.version = remembered.version.max(version(object));
        let shown = remembered.shown.replace(deciding(object));
        shown != remembered.shown && version(object) > remembered.had
    }

    /// Changes what is remembered of a resource, and returns the change's result. Of one that is gone nothing is kept:
    /// a pass may outlive its resource.
    pub fn update<T>(&self, uid: &str, now: crate::api::Tick, change: impl FnOnce(&mut Remembered) -> T) -> T {
        match lock(&self.0).get_mut(uid) {
            Some(remembered) => change(remembered),
            None => change(&mut Remembered::since(now)),
        }
    }

    fn ledger(&self, uid: &str) -> Option<String> {
        lock(&self.0).get(uid)?.ledger.clone()
    }

    fn keep_ledger(&self, uid: &str, text: &str) {
        if let Some(remembered) = lock(&self.0).get_mut(uid)
            && remembered.ledger.as_deref() != Some(text)
        {
            remembered.ledger = Some(text.to_owned());
        }
    }

    /// Whether the resource is there still; one that is gone is forgotten.
    pub fn know(&self, uid: &str) -> bool {
        lock(&self.0).contains_key(uid)
    }

    /// The uids of all that are there.
    pub fn known(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
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
