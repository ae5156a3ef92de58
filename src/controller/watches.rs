//! The watch on Secrets, as metadata and without a store, and what is told of the caches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, controller, reflector::ObjectRef, watcher},
};

use super::context::Context;
use crate::{api::ToolzzCredential, runtime::Readiness};
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

/// The resources to look at again because a Secret of theirs came, changed or went.
///
/// Begins after the resources are known, so that the versions of the Secrets they refer to are kept from the first list on.
pub(super) fn secrets(
    ctx: Arc<Context>,
    scope: Option<String>,
    mut listed: watch::Receiver<bool>,
    caches: Arc<Caches>,
) -> impl Stream<Item = ObjectRef<ToolzzCredential>> + Send + 'static {
    let secrets: Api<PartialObjectMeta<Secret>> = api(&ctx.client, scope.as_deref());
    let begin = async move {
        // Not the store's own signal: that wakes one waiter only, and the controller is one already.
        let _ = listed.wait_for(|listed| *listed).await;
        watcher(secrets, watcher::Config::default().page_size(super::PAGE)).default_backoff()
    };
    stream::once(begin).flatten().flat_map(move |event| {
        let index = &ctx.secrets;
        if let Ok(watcher::Event::Apply(secret) | watcher::Event::Delete(secret)) = &event {
            ctx.connections.secret_changed(&secret.metadata);
        }
        let wake = match event {
            Ok(watcher::Event::Init) => {
                index.relist_started(scope.as_deref());
                Vec::new()
            }
            Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => index.applied(&secret.metadata),
            Ok(watcher::Event::InitDone) => {
                caches.secrets_listed();
                ctx.connections.secrets_listed(scope.as_deref());
                index.relist_finished(scope.as_deref())
            }
            Ok(watcher::Event::Delete(secret)) => index.deleted(&secret.metadata),
            Err(error) => {
                tracing::warn!(error = %watch_error(&error), "the watch on Secrets failed; trying again");
                Vec::new()
            }
        };
        stream::iter(wake)
    })
}

/// How often an API server that does not answer is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How far the caches are.
pub(super) struct Caches {
    scopes: usize,
    credentials: AtomicUsize,
    secrets: AtomicUsize,
    readiness: Arc<Readiness>,
    client: Client,
    probing: AtomicBool,
}

impl Caches {
    pub fn new(scopes: usize, readiness: Arc<Readiness>, client: Client) -> Self {
        let (credentials, secrets, probing) = Default::default();
        Self { scopes, credentials, secrets, readiness, client, probing }
    }

    pub fn credentials_listed(&self) {
        self.credentials.fetch_add(1, Ordering::Relaxed);
        self.readiness.set("crd", true);
        self.readiness.set("api-server", true);
        self.tell();
    }

    pub fn secrets_listed(&self) {
        self.secrets.fetch_add(1, Ordering::Relaxed);
        self.tell();
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
            while caches.client.apiserver_version().await.is_err() {
                tokio::time::sleep(PROBE_INTERVAL).await;
            }
            caches.probing.store(false, Ordering::Relaxed);
            caches.readiness.set("api-server", true);
        });
    }

    fn tell(&self) {
        let filled = |count: &AtomicUsize| count.load(Ordering::Relaxed) >= self.scopes;
        self.readiness.set("caches", filled(&self.credentials) && filled(&self.secrets));
    }
}

/// What the controller itself could not do.
pub(super) fn log(error: &controller::Error<std::convert::Infallible, watcher::Error>) {
    match error {
        // The ordinary end of a resource: it went while it was queued.
        controller::Error::ObjectNotFound(_) => {}
        controller::Error::QueueError(error) => tracing::warn!(error = %watch_error(error), "a watch failed"),
        _ => tracing::error!("a reconcile did not end; please report this as a bug"),
    }
}

pub(super) fn watch_error(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => super::effects::brief(error),
        watcher::Error::WatchError(answer) => format!("{} {}", answer.code, answer.reason),
        watcher::Error::NoResourceVersion => "no resource version".to_owned(),
    }
}
