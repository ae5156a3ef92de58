//! The shell: watches, the loop, one effect per step.
//!
//! [`run`] starts one controller for each scope (a namespace, or all of them). A reconcile observes, asks
//! [`crate::plan::next`], does that one step and goes round again until there is nothing to do.

mod claims;
mod context;
mod effects;
mod events;
mod ghost;
mod links;
mod pass;
mod target;
mod watches;
mod wish;
mod writes;

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use futures::{StreamExt, future, stream};
use kube::{
    Client, Resource,
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt, controller, predicates, reflector,
        reflector::ObjectRef, watcher,
    },
};
use thiserror::Error;
use tracing::Instrument;

use crate::{
    api::{Class, Reason, ToolzzCredential},
    plan::Settings,
    remote::{Clock, Connection, Tenure},
    runtime::{Metrics, Readiness, Share, Shutdown},
    secrets::{InstallationKey, Reach, SecretIndex},
};
use claims::Claims;
use context::{Context, Memories};
use links::Links;
pub use links::{Counting, Terms};

/// How many objects a list call asks for at once.
const PAGE: u32 = 500;

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
        others: std::sync::Mutex::default(),
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
    let mut listed: HashMap<String, ObjectRef<ToolzzCredential>> = HashMap::new();
    let (tell_listed, all_listed) = tokio::sync::watch::channel(false);
    let cache = watches::Cache::Credentials(scope.clone());
    let (context, known) = (Arc::clone(ctx), reader.clone());
    let credentials = watcher(api, watcher::Config::default().page_size(PAGE))
        .default_backoff()
        .modify(|object| object.metadata.managed_fields = None);
    let credentials = watches::own(Arc::clone(ctx), credentials)
        .inspect(move |event| match event {
            Ok(watcher::Event::Init) => listed.clear(),
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(object.meta().uid.clone().unwrap_or_default(), ObjectRef::from_obj(object));
                context.seen(object);
            }
            Ok(watcher::Event::InitDone) => {
                // What was deleted while nobody watched is not announced singly: the store still has it.
                for object in known.state() {
                    let uid = object.meta().uid.clone().unwrap_or_default();
                    if listed.contains_key(&uid) {
                        continue;
                    }
                    let name_is_free = !listed.values().any(|other| *other == ObjectRef::from_obj(&*object));
                    ghost::gone(&context, &object, name_is_free);
                }
                listed = HashMap::new();
                context.caches.listed(&cache);
                tell_listed.send_replace(true);
            }
            Ok(watcher::Event::Apply(object)) => context.seen(object),
            Ok(watcher::Event::Delete(object)) => ghost::gone(&context, object, true),
            Err(error) => context.caches.credentials_failed(error),
        })
        .reflect(writer)
        .touched_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::finalizers).combine(predicates::annotations),
            PredicateConfig::default(),
        );

    let links = watches::own_users(Arc::clone(ctx), ctx.links.woken(scope.clone()));
    let parts = ctx.reach.parts(scope.as_deref()).into_iter();
    let secrets =
        stream::select_all(parts.map(|part| watches::secrets(Arc::clone(ctx), part, all_listed.clone()).boxed()));
    let config_maps = if targets.config_maps {
        watches::config_maps(Arc::clone(ctx), scope, all_listed.clone()).left_stream()
    } else {
        stream::pending().right_stream()
    };
    // The controller holds everything until its store is filled, also its end: asked for before, it would never come.
    let (asked, filled) = (ctx.shutdown.clone(), all_listed.clone());
    let ended_before_it_began = async move {
        asked.requested().await;
        if *filled.borrow() {
            future::pending::<()>().await;
        }
    };
    let shutdown = ctx.shutdown.clone();
    let work = Controller::for_stream(credentials, reader)
        .with_config(controller::Config::default().concurrency(concurrency))
        .reconcile_on(secrets)
        .reconcile_on(config_maps)
        .reconcile_on(links)
        .graceful_shutdown_on(shutdown.requested())
        .run(
            |object, ctx: Arc<Context>| {
                let span = tracing::info_span!(
                    "reconcile",
                    namespace = object.meta().namespace,
                    credential = object.meta().name,
                    generation = object.meta().generation
                );
                async move {
                    let _running = ctx.metrics.reconcile_started();
                    ctx.metrics.dequeued(object.meta().uid.as_deref().unwrap_or_default());
                    let begun = std::time::Instant::now();
                    let action = pass::reconcile(&ctx, Arc::clone(&object)).await;
                    ctx.metrics.reconciled(outcome(&ctx, &object), begun.elapsed());
                    Ok::<_, Infallible>(action)
                }
                .instrument(span)
            },
            |_, error, _| match *error {},
            Arc::clone(ctx),
        )
        .for_each(|result| async move {
            if let Err(error) = result {
                watches::log(&error);
            }
        });
    tokio::select! {
        () = work => {}
        () = ended_before_it_began => {}
    }
}

/// How a reconcile ended, for the metrics.
fn outcome(ctx: &Context, object: &ToolzzCredential) -> &'static str {
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    let trouble = ctx
        .memories
        .update(uid, ctx.clock.now(), |remembered| remembered.plan.trouble.as_ref().map(|trouble| trouble.reason));
    match trouble.map(Reason::class) {
        None | Some(Class::Good | Class::Paused) => "settled",
        Some(Class::Waiting) => "retry",
        Some(Class::Stalled) => "stalled",
    }
}
