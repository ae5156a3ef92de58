//! One reconcile: observe, decide, do one step, until there is nothing to do.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Resource, runtime::controller::Action};

use super::{
    connections::Link,
    context::{Context, Remembered, secret_names},
};
use crate::{
    api::{DeletionPolicy, FINALIZER, OnConflict, Reason, SecretVersion, Tick, ToolzzCredential},
    plan::{self, Desired, Material, Recorded, Sight, Step, Trouble, View},
    remote::Catalogue,
    secrets,
};

/// More steps than any way through the protocol has: who takes more is going round in circles.
const MOST_STEPS: usize = 32;
/// The first pause after a failure; doubles to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause after a failure.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// What one pass holds beside the shared context.
pub(super) struct Pass<'a> {
    pub ctx: &'a Context,
    pub uid: String,
    pub object: Arc<ToolzzCredential>,
    /// The connection this pass uses from its beginning to its end, or what is in the way of it.
    pub link: Result<Arc<Link>, Trouble>,
    pub material: Material,
    /// The values themselves; wiped when the pass ends.
    pub values: Option<secrets::Material>,
    /// The pass is over whatever the plan says: the resource is gone, or the process is ending.
    pub over: bool,
}

/// Reconciles a resource until there is nothing to do; says when to come again.
pub(super) async fn reconcile(ctx: &Context, cached: Arc<ToolzzCredential>) -> Action {
    let Some(uid) = cached.meta().uid.clone() else {
        return Action::await_change();
    };
    let object = ctx.memories.update(&uid, ctx.clock.now(), |remembered| newest(remembered, cached));
    let link = ctx.connections.link(&object);
    let mut pass = Pass { ctx, uid, object, link, material: Material::Unread, values: None, over: false };
    pass.material = pass.unchanged();

    for _ in 0..MOST_STEPS {
        if ctx.shutdown.is_requested() {
            return Action::await_change();
        }
        if pass.over {
            let retry_at = pass.remember(|remembered| remembered.plan.trouble.as_ref()?.retry_at);
            return retry_at.map_or_else(Action::await_change, |at| Action::requeue(at - ctx.clock.now()));
        }
        let (desired, view) = pass.observe().await;
        let now = ctx.clock.now();
        match plan::next(&desired, &view, &ctx.settings, now) {
            Step::Rest(wake) => {
                pass.remember(|remembered| {
                    if remembered.plan.trouble.is_none() {
                        remembered.failures = 0;
                    }
                });
                return wake
                    .map_or_else(Action::await_change, |wake| Action::requeue(spread(wake - now, &ctx.settings)));
            }
            step => pass.perform(step, &desired, &view).await,
        }
    }
    tracing::error!("no end after {MOST_STEPS} steps; trying again later");
    Action::requeue(LONGEST_BACKOFF)
}

/// The newer of the cached object and the one returned by the last own write: acting on an object older than one's
/// own last write to it would undo what was recorded.
fn newest(remembered: &mut Remembered, cached: Arc<ToolzzCredential>) -> Arc<ToolzzCredential> {
    if let Some(written) = &remembered.written {
        if version(written) > version(&cached) {
            return Arc::clone(written);
        }
        remembered.written = None;
    }
    cached
}

/// Resource versions of one resource can be compared as numbers.
/// Source: KEP-5504, comparable resource version.
fn version(object: &ToolzzCredential) -> u128 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// Periodic work is spread over a tenth of its interval, so that it does not come all at once.
fn spread(wait: Duration, settings: &plan::Settings) -> Duration {
    if wait < settings.resync_interval { wait } else { wait.mul_f64(rand::random_range(0.9..1.0)) }
}

impl Pass<'_> {
    /// Changes what is remembered of this resource.
    pub fn remember<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> T {
        self.ctx.memories.update(&self.uid, self.ctx.clock.now(), change)
    }

    /// Takes note of what is in the way; the planner waits until it is time to try again.
    pub fn trouble(&self, reason: Reason, message: impl Into<String>, retry_at: Option<Tick>) {
        let now = self.ctx.clock.now();
        let message = message.into();
        tracing::info!(%reason, message, "cannot go on yet");
        self.remember(|remembered| {
            let backoff = LONGEST_BACKOFF.min(FIRST_BACKOFF * 2u32.saturating_pow(remembered.failures.min(16)));
            remembered.failures += 1;
            let retry_at = retry_at.unwrap_or(now + backoff.mul_f64(rand::random_range(0.5..1.0)));
            remembered.plan.trouble = Some(Trouble { reason, message, retry_at: Some(retry_at) });
        });
    }

    fn asks_to_adopt(&self) -> bool {
        let spec = &self.object.spec;
        spec.external_id.is_some() || spec.on_conflict == Some(OnConflict::Adopt)
    }

    /// The integrations, where the connection tells them.
    pub async fn catalogue(&self) -> Option<Arc<Catalogue>> {
        self.link.as_ref().ok()?.connection.catalogue().await
    }

    /// Whether the Secrets are the very versions that the status says were sent.
    fn unchanged(&self) -> Material {
        let meta = self.object.meta();
        let sent = self.object.status.as_ref().and_then(|status| status.material.as_ref());
        let (Recorded::Own(ledger), Some(sent)) = (self.ctx.recorded(&self.object).0, sent) else {
            return Material::Unread;
        };
        let current = || -> Option<Vec<SecretVersion>> {
            let names = secret_names(&self.object);
            self.ctx.secrets.versions(meta.namespace.as_deref()?, &names)
        };
        let same = sent.digest == ledger.digest
            && Some(sent.observed_generation) == meta.generation
            && current().is_some_and(|current| current == sent.sources);
        if same { Material::Unchanged } else { Material::Unread }
    }

    async fn observe(&self) -> (Desired, View) {
        let ctx = self.ctx;
        let spec = &self.object.spec;
        let meta = self.object.meta();
        let status = self.object.status.clone().unwrap_or_default();
        let now = ctx.clock.now();
        let wall = Timestamp::now();

        let kind = match spec.kind.or(status.kind) {
            Some(kind) => Some(kind),
            None => match self.catalogue().await {
                _ if self.link.is_err() => None,
                Some(catalogue) => catalogue.get(&spec.integration_id).and_then(|integration| integration.kind),
                None => {
                    if self.remember(|remembered| remembered.plan.trouble.is_none()) {
                        let message = "Toolzz's list of integrations, which tells the type, cannot be read now; \
                                       set spec.type to go on without it";
                        self.trouble(Reason::ApiUnavailable, message, None);
                    }
                    None
                }
            },
        };
        let desired = Desired {
            uid: self.uid.clone(),
            generation: meta.generation,
            name: self.object.remote_name(),
            user_id: spec.user_id.clone(),
            unity_id: spec.unity_id.clone(),
            integration_id: spec.integration_id.clone(),
            kind,
            active: spec.active.unwrap_or(true),
            deletion_policy: spec.deletion_policy.unwrap_or(DeletionPolicy::Deactivate),
            on_conflict: spec.on_conflict.unwrap_or(OnConflict::Fail),
            deleting_for: meta
                .deletion_timestamp
                .as_ref()
                .map(|since| Duration::try_from(wall.duration_since(since.0)).unwrap_or_default()),
        };
        let (recorded, ledger_text) = ctx.recorded(&self.object);
        if let Recorded::Own(ledger) = &recorded {
            let service = ctx.connections.service(&self.object);
            ctx.memories.while_known(&self.uid, || ctx.claims.set(&self.uid, &service, ledger));
        }
        let sight = self.sight(&desired, &recorded);
        // A connection that is missing or refused concerns everybody, also who needs no call just now.
        let in_the_way = match &self.link {
            Err(trouble) => Some(trouble.clone()),
            Ok(link) if !link.may_adopt && self.asks_to_adopt() && recorded.own().is_none() => {
                let message = format!("{} does not let existing credentials be taken over", link.key);
                let retry_at = Some(now + ctx.settings.resync_interval);
                Some(Trouble { reason: Reason::Forbidden, message, retry_at })
            }
            Ok(link) => link.connection.refusal().map(|refusal| {
                let retry_at = Some(now + ctx.settings.resync_interval);
                Trouble { reason: refusal.reason(), message: refusal.to_string(), retry_at }
            }),
        };
        let memory = self.remember(|remembered| {
            if remembered.generation != meta.generation {
                remembered.generation = meta.generation;
                remembered.failures = 0;
                remembered.plan.trouble = None;
            }
            let memory = &mut remembered.plan;
            if memory.trouble.as_ref().is_some_and(|trouble| trouble.retry_at.is_some_and(|at| at <= now)) {
                memory.trouble = None;
            }
            memory.observe(&sight);
            let mut memory = memory.clone();
            if in_the_way.is_some() {
                memory.trouble = in_the_way;
            }
            memory
        });
        let view = View {
            finalizer: meta.finalizers.as_ref().is_some_and(|all| all.iter().any(|one| one == FINALIZER)),
            recorded,
            ledger_text,
            status,
            material: self.material.clone(),
            sight,
            memory,
            wall,
        };
        (desired, view)
    }

    fn sight(&self, desired: &Desired, recorded: &Recorded) -> Sight {
        let (Some(key), Ok(link)) = (desired.listing(), &self.link) else {
            return Sight::default();
        };
        let inventory = &link.inventory;
        let digest = match &self.material {
            Material::Read { digest, .. } => Some(digest),
            _ => None,
        };
        let of_integration =
            |seen: &crate::api::Seen| seen.row.fields.integration_id.eq_ignore_ascii_case(&desired.integration_id);
        let namesake = |seen: &crate::api::Seen| {
            of_integration(seen)
                && seen.row.fields.user_id.eq_ignore_ascii_case(&desired.user_id)
                && !self.ctx.claims.held_by_another(link.service(), &seen.row.id, &self.uid)
        };
        Sight {
            listing: inventory.facts(&key),
            shows_inactive: inventory.shows_inactive(),
            recorded: recorded.own().and_then(|ledger| inventory.row(&key, &ledger.id)),
            marked: digest
                .map(|digest| inventory.tagged(&key, &plan::tag(&desired.uid, digest)))
                .unwrap_or_default()
                .into_iter()
                .filter(of_integration)
                .collect(),
            // Only a resource without a record can be in somebody's way.
            namesakes: if recorded.own().is_none() {
                inventory.named(&key, &desired.name).into_iter().filter(namesake).collect()
            } else {
                Vec::new()
            },
        }
    }
}
