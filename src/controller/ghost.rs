//! Resources that went although they had a record.
//!
//! The API server decides whether a deletion waits for finalizers before it deletes, and does not look again: a
//! finalizer that is added in between does not hold the resource. Or somebody took the finalizer away before, with a
//! manifest that replaced the resource. What had been recorded on it is deactivated all the same, as its last state says.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, runtime::reflector::ObjectRef};

use super::{
    context::{Context, lock},
    pass::Pass,
    queue::Lane,
    writes::AFTER_THE_DEADLINE,
};
use crate::{
    api::{CredentialId, DeletionPolicy, FINALIZER, ToolzzCredential},
    plan::{self, Step},
};

/// Between two looks at a credential that cannot be deactivated yet.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a shutdown waits for what is being deactivated.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes note that a resource is gone, by its last state. Its name is free, unless another resource has taken it.
pub(super) fn gone(ctx: &Arc<Context>, object: &ToolzzCredential, name_is_free: bool) {
    if name_is_free {
        ctx.name_is_free(&ObjectRef::from_obj(object));
    }
    let uid = object.meta().uid.as_deref().unwrap_or_default();
    // What was let go is done with. Anything else went without asking, whatever its last state says of finalizers.
    let released = ctx.memories.update(uid, ctx.clock.now(), |remembered| remembered.released);
    if released || ctx.recorded(object).0.own().is_none() {
        return ctx.forget(uid);
    }
    ctx.metrics.gone(uid);
    let (ctx, mut ghost) = (Arc::clone(ctx), object.clone());
    ghost.meta_mut().deletion_timestamp.get_or_insert(Time(Timestamp::now()));
    ghost.meta_mut().finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    let mut ghosts = lock(&ctx.ghosts);
    while ghosts.try_join_next().is_some() {}
    let context = Arc::clone(&ctx);
    ghosts.spawn(async move { Ghost::new(&context, ghost).lay().await });
}

/// Waits, within limits, for what is being deactivated.
pub(super) async fn finish(ctx: &Context) {
    let mut ghosts = std::mem::take(&mut *lock(&ctx.ghosts));
    let _ = tokio::time::timeout(PATIENCE, async { while ghosts.join_next().await.is_some() {} }).await;
    // Those that are left say so.
    ghosts.shutdown().await;
}

/// A resource that went. Nobody else knows of it, so it is named if it does not come to its end, however that is.
struct Ghost<'a> {
    pass: Pass<'a>,
    laid: bool,
    /// Kept until the resource is forgotten: a pass that was about to begin must not find it known.
    at_work: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl<'a> Ghost<'a> {
    fn new(ctx: &'a Context, last: ToolzzCredential) -> Self {
        let uid = last.meta().uid.clone().unwrap_or_default();
        Self { pass: Pass::new(ctx, uid, Arc::new(last), Lane::News), laid: false, at_work: None }
    }

    async fn lay(mut self) {
        let pass = &mut self.pass;
        let at_work = pass.remember(|remembered| Arc::clone(&remembered.at_work));
        self.at_work = Some(at_work.lock_owned().await);
        let (namespace, credential) = (&pass.object.metadata.namespace, &pass.object.metadata.name);
        tracing::warn!(namespace, credential, "the resource went without its finalizer; deactivating its credential");
        loop {
            let (desired, view) = pass.observe().await;
            match plan::next(&desired, &view, &pass.ctx.settings, pass.ctx.clock.now()) {
                Step::Release { left_active, nowhere } => {
                    pass.tell_left_active(&left_active, AFTER_THE_DEADLINE);
                    pass.tell_nowhere(&nowhere);
                    self.laid = true;
                    return;
                }
                // There is no status left to say it in.
                Step::Publish(_) | Step::Rest(_) if pass.ctx.shutdown.is_requested() => return,
                Step::Publish(_) | Step::Rest(_) => tokio::time::sleep(PAUSE).await,
                _ if pass.over => return,
                step => pass.perform(step, &desired, &view).await,
            }
        }
    }

    /// What may be active still.
    fn left_active(&self) -> Vec<CredentialId> {
        let pass = &self.pass;
        let Some(ledger) = pass.ctx.recorded(&pass.object).0.own().cloned() else { return Vec::new() };
        let retained = (pass.object.spec.deletion_policy == Some(DeletionPolicy::Retain)).then_some(&ledger.id);
        let maybe = ledger.credentials().map(|(id, _)| id).filter(|id| retained != Some(id));
        pass.remember(|remembered| maybe.filter(|id| remembered.plan.inactive_since(id).is_none()).cloned().collect())
    }
}

impl Drop for Ghost<'_> {
    fn drop(&mut self) {
        if !self.laid {
            self.pass.tell_left_active(&self.left_active(), "the operator ends");
        }
        self.pass.ctx.forget(&self.pass.uid);
    }
}
