//! The shell: watches, the loop, one effect per step.
//!
//! [`run`] starts the watches and a queue for each scope (a namespace, or all of them). Whose turn it is says
//! [`queue`](self::queue); [`work`](self::work) has the passes done. A pass observes, asks [`crate::plan::next`], does that
//! one step and goes round again until there is nothing to do.

mod claims;
mod context;
mod effects;
mod events;
mod ghost;
mod links;
mod lists;
mod pass;
mod queue;
mod target;
#[cfg(test)]
mod tests;
mod watches;
mod wish;
mod work;
mod writes;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, future, stream};
use kube::{
    Client, ResourceExt,
    runtime::{WatchStreamExt, reflector, reflector::ObjectRef, watcher},
};
use thiserror::Error;

use crate::{
    api::ToolzzCredential,
    plan::Settings,
    remote::{Clock, Connection, Tenure},
    runtime::{Metrics, Readiness, Share, Shutdown},
    secrets::{InstallationKey, Reach, SecretIndex},
};
use claims::Claims;
use context::{Context, Memories};
use links::Links;
pub use links::{Counting, Terms};
use lists::Lists;
use queue::Lane;

/// How many objects a list call asks for at once.
const PAGE: u32 = 500;
/// Where `kubectl apply` keeps the whole manifest once more. Nothing is decided by it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What the controller is started with.
pub struct Start {
    /// Access to Kubernetes.
    pub client: Client,
    /// The connection named `default`, where the flags make one.
    pub connection: Option<Connection>,
    /// What the other connections are made with.
    pub terms: Terms,
    /// The clock the connection was made with.
    pub clock: Clock,
    /// The namespaces to watch; empty: all.
    pub namespaces: Vec<String>,
    /// The Secrets it was given.
    pub reach: Reach,
    /// Which of their resources to work on. Of the others is known what they hold.
    pub share: Share,
    /// How many resources are worked on at a time.
    pub concurrency: u16,
    /// What virtual keys may be written to.
    pub targets: Targets,
    /// How long things may take.
    pub settings: Settings,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Where to tell what is ready.
    pub readiness: Arc<Readiness>,
    /// Until when this process may write.
    pub tenure: Tenure,
    /// When to end.
    pub shutdown: Shutdown,
}

/// What the operator has the right to write virtual keys to. Secrets are watched in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// ConfigMaps may be written, so they are watched.
    pub config_maps: bool,
}

/// Why the controller cannot start.
#[derive(Debug, Error)]
pub enum Error {
    /// Without it no digest can be made and no ledger verified.
    #[error("the installation key: {0}")]
    InstallationKey(#[from] crate::secrets::Error),
}

/// Reconciles until the shutdown, then finishes the steps in hand.
///
/// # Errors
/// When it cannot start at all; while it runs, everything is retried.
pub async fn run(start: Start) -> Result<(), Error> {
    let Start {
        client,
        connection,
        terms,
        clock,
        namespaces,
        reach,
        share,
        concurrency,
        targets,
        settings,
        metrics,
        readiness,
        tenure,
        shutdown,
    } = start;
    let key = InstallationKey::load_or_create(&client, &terms.operator_namespace).await?;
    readiness.set("api-server", true);
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "toolzz-operator".to_owned());
    let (events, events_written) = events::Events::start(client.clone(), instance, Arc::clone(&metrics));
    let scopes: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let claims = Arc::new(Claims::default());
    let shared = links::Shared {
        client: client.clone(),
        reach: reach.clone(),
        clock,
        share,
        resync_interval: settings.resync_interval,
        claims: Arc::clone(&claims),
        metrics: Arc::clone(&metrics),
        events: events.clone(),
    };
    let (links, queue) = Links::new(shared, terms, connection);
    let ctx = Arc::new(Context {
        caches: Arc::new(watches::Caches::new(&scopes, &reach, readiness, client.clone())),
        links,
        client,
        reach,
        share,
        key,
        secrets: SecretIndex::default(),
        config_maps: SecretIndex::default(),
        ghosts: std::sync::Mutex::default(),
        claims,
        memories: Memories::default(),
        events,
        metrics,
        clock,
        settings,
        tenure,
        shutdown,
    });

    // A resource whose connection is not known yet must not be told that there is none.
    let mut known = ctx.links.follow(&scopes, queue);
    tokio::select! {
        _ = known.wait_for(|known| *known) => {}
        () = ctx.shutdown.clone().requested() => {}
    }
    future::join_all(scopes.into_iter().map(|scope| control(&ctx, scope, concurrency, targets))).await;

    ghost::finish(&ctx).await;
    ctx.links.stop();
    // The process may go on with other shards.
    ctx.memories.known().iter().for_each(|uid| ctx.metrics.gone(uid));
    // The last events are still on their way; they end with the last sender.
    drop(ctx);
    let _ = tokio::time::timeout(Duration::from_secs(2), events_written).await;
    Ok(())
}

async fn control(ctx: &Arc<Context>, scope: Option<String>, concurrency: u16, targets: Targets) {
    let api: kube::Api<ToolzzCredential> = watches::api(&ctx.client, scope.as_deref());
    let (reader, writer) = reflector::store::<ToolzzCredential>();
    let mut lists = Lists::default();
    let (tell_listed, all_listed) = tokio::sync::watch::channel(false);
    let cache = watches::Cache::Credentials(scope.clone());
    let (context, known) = (Arc::clone(ctx), reader.clone());
    let credentials = watcher(api, watcher::Config::default().page_size(PAGE)).default_backoff().modify(|object| {
        object.metadata.managed_fields = None;
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
    });
    let credentials = watches::own(Arc::clone(ctx), credentials)
        .inspect(move |event| match event {
            Ok(watcher::Event::Init) => lists.begins(),
            Ok(watcher::Event::InitApply(object)) => lists.shows(object),
            Ok(watcher::Event::InitDone) => {
                // The store still has what was there before.
                let before = known.state().into_iter();
                let before = before.map(|object| (object.uid().unwrap_or_default(), ObjectRef::from_obj(&*object)));
                for gone in lists.ends(before).0 {
                    match known.get(&gone.name).filter(|object| object.uid().as_ref() == Some(&gone.uid)) {
                        Some(object) => ghost::gone(&context, &object, gone.name_is_free),
                        // What the store never had has had no pass either.
                        None => {
                            if gone.name_is_free {
                                context.name_is_free(&gone.name);
                            }
                            context.forget(&gone.uid);
                        }
                    }
                }
                context.caches.listed(&cache);
            }
            Ok(watcher::Event::Delete(object)) => ghost::gone(&context, object, true),
            Ok(watcher::Event::Apply(_)) => {}
            Err(error) => context.caches.credentials_failed(error),
        })
        .reflect(writer);
    let context = Arc::clone(ctx);
    // Those of a list are in the store when it is complete: nobody's pass begins before.
    let mut found: Vec<work::Call> = Vec::new();
    let mut lane = Lane::Found;
    let credentials = credentials.flat_map(move |event| {
        let news = |object: &ToolzzCredential| context.seen(object).then(|| ObjectRef::from_obj(object));
        let calls: Vec<work::Call> = match event {
            Ok(watcher::Event::Apply(object)) => news(&object).map(|object| (object, Lane::News)).into_iter().collect(),
            Ok(watcher::Event::InitApply(object)) => {
                found.extend(news(&object).map(|object| (object, lane)));
                Vec::new()
            }
            Ok(watcher::Event::InitDone) => {
                tell_listed.send_replace(true);
                // What a later list shows first came or was changed since.
                lane = Lane::News;
                std::mem::take(&mut found)
            }
            Ok(watcher::Event::Init | watcher::Event::Delete(_)) | Err(_) => Vec::new(),
        };
        stream::iter(calls)
    });

    let links = watches::own_users(Arc::clone(ctx), ctx.links.woken(scope.clone())).map(|user| (user, Lane::Found));
    let parts = ctx.reach.parts(scope.as_deref()).into_iter();
    let secrets =
        stream::select_all(parts.map(|part| watches::secrets(Arc::clone(ctx), part, all_listed.clone()).boxed()));
    let config_maps = if targets.config_maps {
        watches::config_maps(Arc::clone(ctx), scope, all_listed.clone()).left_stream()
    } else {
        stream::pending().right_stream()
    };
    let calls = stream::select_all([credentials.boxed(), secrets.boxed(), config_maps.boxed(), links.boxed()]);
    work::work(ctx, calls, reader, all_listed, concurrency.into()).await;
}
