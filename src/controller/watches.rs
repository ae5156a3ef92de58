//! The watch on Secrets, as metadata and without a store, and what is told of the caches.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, future, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, reflector::ObjectRef, watcher},
};

use super::{
    context::{Context, lock},
    lists::Lists,
    queue::Lane,
    work::Call,
};
use crate::{
    api::{TARGET_LABEL, ToolzzCredential},
    kubernetes::{brief, timed},
    runtime::Readiness,
    secrets::{Part, Reach, SecretIndex},
};
use tokio::sync::watch;

/// The objects of a scope: a namespace, or all of them.
pub(super) fn api<K>(client: &Client, scope: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Of the events of resources, those that are this shard's. Of the others is noted what they hold: one credential has one
/// resource, whoever works on it.
pub(super) fn own(
    ctx: Arc<Context>,
    events: impl Stream<Item = watcher::Result<watcher::Event<ToolzzCredential>>> + Send,
) -> impl Stream<Item = watcher::Result<watcher::Event<ToolzzCredential>>> + Send {
    let mut others: HashMap<String, ObjectRef<ToolzzCredential>> = HashMap::new();
    let mut lists = Lists::default();
    events.filter_map(move |event| {
        let is_own = |object: &ToolzzCredential| ctx.is_own(object.metadata.namespace.as_deref());
        let uid = |object: &ToolzzCredential| object.metadata.uid.clone().unwrap_or_default();
        let mut passes = true;
        match &event {
            Ok(watcher::Event::Init) => lists.begins(),
            Ok(watcher::Event::InitApply(object)) if !is_own(object) => {
                passes = false;
                lists.shows(object);
                ctx.seen_elsewhere(object);
            }
            Ok(watcher::Event::InitDone) => {
                let (gone, there) = lists.ends(others.drain());
                gone.iter().for_each(|gone| ctx.gone_elsewhere(&gone.uid, &gone.name, gone.name_is_free));
                others = there;
            }
            Ok(watcher::Event::Apply(object)) if !is_own(object) => {
                passes = false;
                others.insert(uid(object), ObjectRef::from_obj(object));
                ctx.seen_elsewhere(object);
            }
            Ok(watcher::Event::Delete(object)) if !is_own(object) => {
                passes = false;
                others.remove(&uid(object));
                ctx.gone_elsewhere(&uid(object), &ObjectRef::from_obj(object), true);
            }
            _ => {}
        }
        future::ready(passes.then_some(event))
    })
}

/// Of those that are to be looked at again, this shard's.
pub(super) fn own_users(
    ctx: Arc<Context>,
    users: impl Stream<Item = ObjectRef<ToolzzCredential>> + Send,
) -> impl Stream<Item = ObjectRef<ToolzzCredential>> + Send {
    users.filter(move |user| future::ready(ctx.is_own(user.namespace.as_deref())))
}

/// The resources to look at again because a Secret of theirs came, changed or went.
///
/// Begins after the resources are known, so that the versions of the Secrets they refer to are kept from the first list on.
pub(super) fn secrets(
    ctx: Arc<Context>,
    part: Part,
    listed: watch::Receiver<bool>,
) -> impl Stream<Item = Call> + Send + 'static {
    let caches = Arc::clone(&ctx.caches);
    let secrets: Api<PartialObjectMeta<Secret>> = api(&ctx.client, part.namespace.as_deref());
    let links = Arc::clone(&ctx.links);
    let cache = Cache::Secrets(part.clone());
    let of_part = part.clone();
    let done = move || {
        caches.listed(&cache);
        links.secrets_listed(&of_part);
    };
    let config = match &part.name {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    referred(secrets, config, listed, part, move || Arc::clone(&ctx), |ctx| &ctx.secrets, done)
}

/// The same for the ConfigMaps that resources write their virtual keys to. Only those that bear the label.
pub(super) fn config_maps(
    ctx: Arc<Context>,
    scope: Option<String>,
    listed: watch::Receiver<bool>,
) -> impl Stream<Item = Call> + Send + 'static {
    let config_maps: Api<PartialObjectMeta<ConfigMap>> = api(&ctx.client, scope.as_deref());
    let labelled = watcher::Config::default().labels(TARGET_LABEL);
    referred(config_maps, labelled, listed, Part::of(scope), move || Arc::clone(&ctx), |ctx| &ctx.config_maps, || ())
}

fn referred<K>(
    objects: Api<PartialObjectMeta<K>>,
    config: watcher::Config,
    mut listed: watch::Receiver<bool>,
    part: Part,
    ctx: impl Fn() -> Arc<Context> + Send + 'static,
    index: fn(&Context) -> &SecretIndex,
    done: impl Fn() + Send + 'static,
) -> impl Stream<Item = Call> + Send + 'static
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Send + 'static,
{
    let begin = async move {
        // Not the store's own signal: that wakes one waiter only, and the controller is one already.
        let _ = listed.wait_for(|listed| *listed).await;
        // `kubectl apply` leaves whole Secrets in an annotation.
        let unread = |object: &mut PartialObjectMeta<K>| {
            (object.metadata.annotations, object.metadata.managed_fields) = (None, None);
        };
        watcher(objects, config.page_size(super::PAGE)).default_backoff().modify(unread)
    };
    stream::once(begin).flatten().flat_map(move |event| {
        let ctx = ctx();
        if let Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) = &event
            && K::kind(&()) == "Secret"
        {
            ctx.links.secret_changed(&object.metadata);
        }
        let index = index(&ctx);
        // What is listed is no news: as a rule, nobody did anything to it.
        let lane = match &event {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => Lane::News,
            _ => Lane::Found,
        };
        let wake = match event {
            Ok(watcher::Event::Init) => {
                index.relist_started(&part);
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => index.applied(&object.metadata),
            Ok(watcher::Event::InitDone) => {
                done();
                index.relist_finished(&part)
            }
            Ok(watcher::Event::Delete(object)) => index.deleted(&object.metadata),
            Err(error) => {
                let kind = K::plural(&());
                tracing::warn!(error = %watch_error(&error), "the watch on {kind} failed; trying again");
                Vec::new()
            }
        };
        stream::iter(wake.into_iter().map(move |object| (object, lane)))
    })
}

/// How often an API server that does not answer is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long reconciles wait for the first lists. Without them they work too, but read Secrets that did not change.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is cached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cache {
    /// Of a namespace, or of all.
    Credentials(Option<String>),
    Secrets(Part),
}

/// How far the caches are.
pub(super) struct Caches {
    /// What was not listed yet.
    missing: Mutex<HashSet<Cache>>,
    filled: watch::Sender<bool>,
    began: tokio::time::Instant,
    readiness: Arc<Readiness>,
    client: Client,
    probing: AtomicBool,
}

impl Caches {
    pub fn new(scopes: &[Option<String>], reach: &Reach, readiness: Arc<Readiness>, client: Client) -> Self {
        let of_scope = |scope: &Option<String>| {
            let secrets = reach.parts(scope.as_deref()).into_iter().map(Cache::Secrets);
            secrets.chain([Cache::Credentials(scope.clone())])
        };
        Self {
            missing: Mutex::new(scopes.iter().flat_map(of_scope).collect()),
            filled: watch::Sender::new(false),
            began: tokio::time::Instant::now(),
            readiness,
            client,
            probing: AtomicBool::new(false),
        }
    }

    /// Waits until the first lists are in; not for ever, as one namespace may be out of reach.
    pub async fn filled(&self) {
        let mut filled = self.filled.subscribe();
        let _ = tokio::time::timeout_at(self.began + PATIENCE, filled.wait_for(|filled| *filled)).await;
    }

    /// One was listed.
    pub fn listed(&self, cache: &Cache) {
        if matches!(cache, Cache::Credentials(_)) {
            self.readiness.set("crd", true);
            self.readiness.set("api-server", true);
        }
        let mut missing = lock(&self.missing);
        missing.remove(cache);
        if missing.is_empty() {
            self.readiness.set("caches", true);
            self.filled.send_replace(true);
        }
    }

    /// Whether the resources of every scope were listed once.
    pub fn credentials_listed(&self) -> bool {
        !lock(&self.missing).iter().any(|cache| matches!(cache, Cache::Credentials(_)))
    }

    pub fn credentials_failed(self: &Arc<Self>, error: &watcher::Error) {
        let missing =
            matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(answer)) if answer.code == 404);
        if missing {
            self.readiness.set("crd", false);
            tracing::error!(
                "the CustomResourceDefinition toolzzcredentials.toolzz.com.br is not installed; apply the files in crds/"
            );
        } else {
            self.probe();
            tracing::warn!(error = %watch_error(error), "the watch on ToolzzCredentials failed; trying again");
        }
    }

    /// Asks the API server until it answers. A watch that goes on where it was tells of that only when something
    /// happens, which may be never.
    fn probe(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.readiness.set("api-server", false);
        let caches = Arc::clone(self);
        tokio::spawn(async move {
            while timed(caches.client.apiserver_version()).await.is_err() {
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
            caches.probing.store(false, Ordering::Relaxed);
            caches.readiness.set("api-server", true);
        });
    }
}

pub(super) fn watch_error(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => brief(error),
        watcher::Error::WatchError(answer) => format!("{} {}", answer.code, answer.reason),
        watcher::Error::NoResourceVersion => "no resource version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::LEDGER_ANNOTATION,
        controller::{
            context::{Memories, place},
            links::Links,
            tests as samples,
        },
        plan::Settings,
        remote::Tenure,
        runtime::{Share, Shutdown},
        secrets::InstallationKey,
    };

    /// Of one shard of two. Nothing answers.
    fn context() -> Arc<Context> {
        let share = Share::all(2.try_into().unwrap()).next().unwrap();
        let (shared, terms) = samples::shared(share, Arc::default());
        let (client, clock) = (shared.client.clone(), shared.clock);
        let (claims, metrics) = (Arc::clone(&shared.claims), Arc::clone(&shared.metrics));
        let second = Duration::from_secs(1);
        let events = shared.events.clone();
        Arc::new(Context {
            caches: Arc::new(Caches::new(&[], &Reach::default(), Arc::new(Readiness::new(&[])), client.clone())),
            links: Links::new(shared, terms, None).0,
            client,
            reach: Reach::default(),
            share,
            key: InstallationKey::new(vec![7; 32]),
            secrets: SecretIndex::default(),
            config_maps: SecretIndex::default(),
            ghosts: Mutex::default(),
            claims,
            memories: Memories::default(),
            events,
            metrics,
            clock,
            settings: Settings { resync_interval: second, settle_period: second, deletion_deadline: second },
            tenure: Tenure::unlimited(),
            shutdown: Shutdown::never(),
        })
    }

    #[tokio::test]
    async fn what_goes_between_a_list_and_the_same_one_anew_holds_nothing() {
        let ctx = context();
        let elsewhere = (0..).map(|number: u32| number.to_string()).find(|name| !ctx.share.has(name)).unwrap();
        let mut holder = samples::resource(&elsewhere, "holder");
        let ledger = samples::ledger(&holder, "one");
        let connection = Links::key_of(&holder);
        let record = ledger.write(place(&holder, &connection), &|parts| ctx.key.mac(parts));
        holder.metadata.annotations = Some([(LEDGER_ANNOTATION.to_owned(), record)].into());
        ctx.claims.leads(&crate::api::ConnectionKey::of(&holder), samples::SERVICE);
        let other = samples::resource(&elsewhere, "other");
        let is_held = || ctx.claims.holder(&other, samples::SERVICE, &"one".into()).is_some();

        let (tell, told) = futures::channel::mpsc::unbounded();
        let mut shown = Box::pin(own(Arc::clone(&ctx), told));
        let mut show = |event| {
            tell.unbounded_send(Ok(event)).unwrap();
            while let Some(Some(_)) = futures::FutureExt::now_or_never(shown.next()) {}
        };
        show(watcher::Event::Init);
        show(watcher::Event::InitApply(holder));
        assert!(is_held(), "seen");
        show(watcher::Event::Init);
        assert!(is_held(), "nobody knows yet");
        show(watcher::Event::InitDone);
        assert!(!is_held(), "it is gone");
    }
}
