//! Has the passes done whose turn it is: see [`queue`](super::queue).

use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    Resource,
    runtime::{reflector::ObjectRef, reflector::Store},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::Instrument;

use super::{
    context::{Context, lock},
    pass,
    queue::{Lane, Place, Queue},
};
use crate::{
    api::{Class, ConnectionKey, Reason, ToolzzCredential},
    runtime::Due,
};

/// Somebody's pass is asked for.
pub(super) type Call = (ObjectRef<ToolzzCredential>, Lane);

/// How soon it is looked again whether a connection that was full has room.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How a pass ends that is to be tried again, in the metrics' words.
const RETRY: &str = "retry";
/// How many calls are taken in before anybody's turn is looked for.
const AT_ONCE: usize = 256;

/// A queue that the metrics can look into.
struct Waiting(Mutex<Queue<ObjectRef<ToolzzCredential>, ConnectionKey>>);

impl Due for Waiting {
    fn due(&self) -> (usize, Duration) {
        let now = Instant::now();
        let (count, first) = lock(&self.0).due(now);
        (count, first.map_or(Duration::ZERO, |first| now.duration_since(first)))
    }
}

/// Does what is called for, from the moment on when the store is filled. When the end is asked for it begins nothing more,
/// and is over when the passes under way are.
pub(super) async fn work(
    ctx: &Arc<Context>,
    calls: impl Stream<Item = Call>,
    store: Store<ToolzzCredential>,
    mut filled: watch::Receiver<bool>,
    workers: usize,
) {
    let waiting = Arc::new(Waiting(Mutex::new(Queue::new(workers))));
    ctx.metrics.watch(&waiting);
    let call = |object: ObjectRef<ToolzzCredential>, lane, after: Duration| {
        let place = place(ctx, &store, &object);
        lock(&waiting.0).add(object, lane, place, Instant::now() + after);
    };
    let calls = calls.ready_chunks(AT_ONCE);
    let ended = ctx.shutdown.clone().requested();
    tokio::pin!(calls, ended);
    // They end with this, too.
    let mut passes = JoinSet::new();
    loop {
        let mut wake = None;
        if *filled.borrow() {
            let mut queue = lock(&waiting.0);
            let admits = |connection: &ConnectionKey| ctx.links.have_room(connection);
            while let Some((object, lane)) = queue.next(Instant::now(), admits) {
                match store.get(&object) {
                    Some(found) => {
                        let pass = one(Arc::clone(ctx), object, found, lane);
                        passes.spawn(pass);
                    }
                    // It went while it waited.
                    None => queue.done(&object),
                }
            }
            let again = queue.is_held_up().then(|| Instant::now() + LOOK_AGAIN);
            wake = queue.wakes().into_iter().chain(again).min();
        }
        tokio::select! {
            () = &mut ended => break,
            Some(ended) = passes.join_next() => match ended {
                Ok((object, again)) => {
                    lock(&waiting.0).done(&object);
                    if let Some((lane, after)) = again {
                        call(object, lane, after);
                    }
                }
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            Some(several) = calls.next() => several.into_iter().for_each(|(object, lane)| call(object, lane, Duration::ZERO)),
            Ok(()) = filled.changed() => {}
            () = until(wake) => {}
        }
    }
    while let Some(ended) = passes.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn place(ctx: &Context, store: &Store<ToolzzCredential>, object: &ObjectRef<ToolzzCredential>) -> Place<ConnectionKey> {
    let known = store.get(object);
    Place {
        is_there: known.is_some_and(|known| known.status.as_ref().is_some_and(|status| status.id.is_some())),
        tenant: object.namespace.as_deref().unwrap_or_default().into(),
        connection: ctx.links.used_by(object).unwrap_or_else(ConnectionKey::default_of_cluster),
    }
}

/// One pass; whose it was, and how and after how long there is to be another, if nothing happens before.
async fn one(
    ctx: Arc<Context>,
    reference: ObjectRef<ToolzzCredential>,
    object: Arc<ToolzzCredential>,
    lane: Lane,
) -> (ObjectRef<ToolzzCredential>, Option<(Lane, Duration)>) {
    let span = tracing::info_span!(
        "reconcile",
        namespace = object.meta().namespace,
        credential = object.meta().name,
        generation = object.meta().generation
    );
    let pass = async {
        let _running = ctx.metrics.reconcile_started();
        let begun = std::time::Instant::now();
        let link = ctx.links.of(&object).ok();
        let pass = pass::reconcile(&ctx, Arc::clone(&object), lane);
        let after = match &link {
            Some(link) => link.connection.pass(pass).await,
            None => pass.await,
        };
        let outcome = outcome(&ctx, &object);
        ctx.metrics.reconciled(outcome, begun.elapsed());
        let next = if lane == Lane::News && outcome == RETRY { Lane::Again } else { Lane::Routine };
        after.map(|after| (next, after))
    };
    let again = pass.instrument(span).await;
    (reference, again)
}

/// How a reconcile ended, for the metrics.
fn outcome(ctx: &Context, object: &ToolzzCredential) -> &'static str {
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    let trouble = ctx
        .memories
        .update(uid, ctx.clock.now(), |remembered| remembered.plan.trouble.as_ref().map(|trouble| trouble.reason));
    match trouble.map(Reason::class) {
        None | Some(Class::Good | Class::Paused) => "settled",
        Some(Class::Waiting) => RETRY,
        Some(Class::Stalled) => "stalled",
    }
}
