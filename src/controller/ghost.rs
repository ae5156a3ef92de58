//! Resources that went although they had a record.
//!
//! The API server decides whether a deletion waits for finalizers before it deletes, and does not look again: a
//! finalizer that is added in between does not hold the resource. Or somebody took the finalizer away before, with a
//! manifest that replaced the resource. What had been recorded on it is deactivated all the same, as its last state says.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

use super::{
    context::{Context, lock},
    pass::Pass,
};
use crate::{
    api::{FINALIZER, ToolzzCredential},
    plan::{self, Step},
};

/// Between two looks at a credential that cannot be deactivated yet.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a shutdown waits for what is being deactivated.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes note that a resource is gone, by its last state.
pub(super) fn gone(ctx: &Arc<Context>, object: &ToolzzCredential) {
    // Where the finalizer held it, its last state says that it was being deleted.
    let held = object.meta().deletion_timestamp.is_some();
    if held || ctx.recorded(object).0.own().is_none() {
        return ctx.forget(object);
    }
    ctx.gone(object);
    let (ctx, mut ghost) = (Arc::clone(ctx), object.clone());
    ghost.meta_mut().deletion_timestamp.get_or_insert(Time(Timestamp::now()));
    ghost.meta_mut().finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    let mut ghosts = lock(&ctx.ghosts);
    while ghosts.try_join_next().is_some() {}
    let context = Arc::clone(&ctx);
    ghosts.spawn(async move {
        lay(&context, ghost).await;
    });
}

/// Waits, within limits, for what is being deactivated.
pub(super) async fn finish(ctx: &Context) {
    let mut ghosts = std::mem::take(&mut *lock(&ctx.ghosts));
    let _ = tokio::time::timeout(PATIENCE, async { while ghosts.join_next().await.is_some() {} }).await;
}

async fn lay(ctx: &Context, ghost: ToolzzCredential) {
    let (namespace, credential) = (ghost.meta().namespace.clone(), ghost.meta().name.clone());
    let uid = ghost.meta().uid.clone().unwrap_or_default();
    let at_work = ctx.memories.update(&uid, ctx.clock.now(), |remembered| Arc::clone(&remembered.at_work));
    let _at_work = at_work.lock().await;
    tracing::warn!(namespace, credential, "the resource went without its finalizer; deactivating its credential");
    let mut pass = Pass::new(ctx, uid, Arc::new(ghost));
    loop {
        let (desired, view) = pass.observe().await;
        match plan::next(&desired, &view, &ctx.settings, ctx.clock.now()) {
            Step::Release { left_active } => {
                pass.tell_left_active(&left_active);
                break;
            }
            // There is no status left to say it in.
            Step::Publish(_) | Step::Rest(_) if ctx.shutdown.is_requested() => break,
            Step::Publish(_) | Step::Rest(_) => tokio::time::sleep(PAUSE).await,
            _ if pass.over => break,
            step => pass.perform(step, &desired, &view).await,
        }
    }
    // Another resource may have its name by now.
    ctx.forget_uid(&pass.uid);
}
