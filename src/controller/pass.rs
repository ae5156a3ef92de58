//! One reconcile: observe, decide, do one step, until there is nothing to do.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::Resource;

use super::{
    context::{Context, Remembered, annotation, secret_names, version},
    links::Link,
    queue::Lane,
};
use crate::{
    api::{FINALIZER, ListingFacts, Reason, SecretVersion, TargetKind, TargetStatus, Tick, ToolzzCredential},
    plan::{self, Desired, Happening, Material, Recorded, Sight, Step, Trouble, View},
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
    /// When the object was taken from the cache, or was read.
    pub read_at: Tick,
    /// The connection the resource uses, if it has one.
    pub link: Option<Arc<Link>>,
    pub material: Material,
    /// The values themselves; wiped when the pass ends.
    pub values: Option<secrets::Material>,
    /// The pass is over whatever the plan says: the resource is gone, or the process is ending.
    pub over: bool,
    /// Why there is a pass.
    pub lane: Lane,
}

/// Reconciles a resource until there is nothing to do; says after how long to come again, if nothing changes before.
pub(super) async fn reconcile(ctx: &Context, cached: Arc<ToolzzCredential>, lane: Lane) -> Option<Duration> {
    let uid = cached.meta().uid.clone()?;
    ctx.caches.filled().await;
    let at_work = ctx.memories.update(&uid, ctx.clock.now(), |remembered| Arc::clone(&remembered.at_work));
    let _at_work = at_work.lock().await;
    let mut pass = Pass::new(ctx, uid, cached, lane);
    // Who acts on an object that is older than his own last write to it undoes what was recorded; on one that is gone, he
    // creates for nobody.
    if pass.remember(|remembered| remembered.gone || remembered.version > version(&pass.object)) {
        pass.fetch().await;
    }
    pass.material = pass.unchanged();

    // Each superseded credential takes some more.
    let most = MOST_STEPS + 4 * pass.object.status.as_ref().map_or(0, |status| status.retiring.len());
    for _ in 0..most {
        // What is gone meanwhile is nobody's any more, or in other hands: see `ghost`.
        let ending = ctx.shutdown.is_requested();
        if !ctx.memories.know(&pass.uid) || ending && !pass.owes_a_word() {
            return None;
        }
        if pass.over {
            let (retry_at, released) = pass.remember(|remembered| {
                (remembered.plan.trouble.as_ref().and_then(|trouble| trouble.retry_at), remembered.released)
            });
            return match retry_at {
                Some(at) => Some(at - ctx.clock.now()),
                None if released => None,
                // Nothing may come that wakes it. If it is gone, there is no pass then.
                None => Some(FIRST_BACKOFF),
            };
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
                return wake.map(|wake| spread(wake - now, &ctx.settings));
            }
            step if ending && !matches!(step, Step::Look { .. } | Step::Record(_) | Step::Publish(_)) => {
                return None;
            }
            // Another operator may have recorded something else meanwhile: no write to Toolzz rests on what was read so
            // long ago that it could come after what that other waited for.
            Step::Post(_) | Step::Put(_) if now - pass.read_at > ctx.settings.settle_period / 3 => pass.fetch().await,
            step => pass.perform(step, &desired, &view).await,
        }
    }
    tracing::error!("no end after {most} steps; trying again later");
    Some(LONGEST_BACKOFF)
}

/// Periodic work is spread over a tenth of its interval, so that it does not come all at once.
fn spread(wait: Duration, settings: &plan::Settings) -> Duration {
    if wait < settings.resync_interval / 2 { wait } else { wait.mul_f64(rand::random_range(1.0..1.1)) }
}

impl<'a> Pass<'a> {
    pub fn new(ctx: &'a Context, uid: String, object: Arc<ToolzzCredential>, lane: Lane) -> Self {
        Self {
            ctx,
            uid,
            object,
            read_at: ctx.clock.now(),
            link: None,
            material: Material::Unread,
            values: None,
            over: false,
            lane,
        }
    }
}

impl Pass<'_> {
    /// Changes what is remembered of this resource.
    pub fn remember<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> T {
        self.ctx.memories.update(&self.uid, self.ctx.clock.now(), change)
    }

    /// A create is lost or not recorded, and the status does not say so yet: the next process would not know to wait for it.
    fn owes_a_word(&self) -> bool {
        let told = self.object.status.as_ref().is_some_and(|status| status.create_unknown_since.is_some());
        !told && self.remember(|remembered| remembered.plan.given_up.is_some())
    }

    /// Takes note of what is in the way; the planner waits until it is time to try again.
    pub fn trouble(&self, reason: Reason, message: impl Into<String>, retry_at: Option<Tick>) {
        let now = self.ctx.clock.now();
        let message = message.into();
        tracing::info!(%reason, message, "cannot go on yet");
        self.remember(|remembered| {
            // A time that was asked for is no failure.
            let retry_at = retry_at.unwrap_or_else(|| {
                let backoff = LONGEST_BACKOFF.min(FIRST_BACKOFF * 2u32.saturating_pow(remembered.failures.min(16)));
                remembered.failures += 1;
                now + backoff.mul_f64(rand::random_range(0.5..1.0))
            });
            remembered.plan.trouble = Some(Trouble { reason, message, retry_at: Some(retry_at) });
        });
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

    pub async fn observe(&mut self) -> (Desired, View) {
        let ctx = self.ctx;
        match ctx.links.of(&self.object) {
            Ok(link) => {
                self.link = Some(link);
                // What was in the way is not any more.
                self.remember(|remembered| {
                    if std::mem::take(&mut remembered.unlinked) {
                        remembered.plan.trouble = None;
                    }
                });
            }
            Err((reason, message)) => {
                self.link = None;
                let retry_at = Some(ctx.clock.now() + ctx.settings.resync_interval);
                self.remember(|remembered| {
                    remembered.unlinked = true;
                    remembered.plan.trouble = Some(Trouble { reason, message, retry_at });
                });
            }
        }
        let (recorded, ledger_text) = ctx.recorded(&self.object);
        ctx.claim(&self.object, &recorded);
        self.tell_invalid(&recorded);
        let desired = self.desired().await;
        let sight = self.link.as_ref().map(|link| self.sight(link, &desired, &recorded)).unwrap_or_default();
        let meta = self.object.meta();
        let status = self.object.status.clone().unwrap_or_default();
        let now = ctx.clock.now();
        let refusal = self.link.as_ref().and_then(|link| link.connection.refusal());
        let memory = self.remember(|remembered| {
            if remembered.generation != meta.generation {
                remembered.generation = meta.generation;
                remembered.failures = 0;
                remembered.plan.target_conflict = None;
                if self.link.is_some() {
                    remembered.plan.trouble = None;
                }
            }
            let memory = &mut remembered.plan;
            if memory.trouble.as_ref().is_some_and(|trouble| trouble.retry_at.is_some_and(|at| at <= now)) {
                memory.trouble = None;
            }
            memory.observe(&sight);
            let mut memory = memory.clone();
            // A refused connection concerns everybody, also who needs no call just now.
            if let Some(refusal) = refusal {
                let retry_at = Some(now + ctx.settings.resync_interval);
                memory.trouble = Some(Trouble { reason: refusal.reason(), message: refusal.to_string(), retry_at });
            }
            memory
        });
        // What a manifest that replaced the resource took away is put back, as long as that can be.
        let whole = recorded.own().is_none()
            || meta.deletion_timestamp.is_some()
            || annotation(&self.object) == ledger_text.as_ref();
        let view = View {
            finalizer: whole && meta.finalizers.as_ref().is_some_and(|all| all.iter().any(|one| one == FINALIZER)),
            recorded,
            ledger_text,
            target: self.standing_target(&status, &memory),
            status,
            material: self.material.clone(),
            sight,
            memory,
            wall: Timestamp::now(),
        };
        (desired, view)
    }

    /// Takes note of what is in the way, unless something is already.
    pub fn in_the_way(&self, reason: Reason, message: String, retry_at: Option<Tick>) {
        if self.remember(|remembered| remembered.plan.trouble.is_none()) {
            self.trouble(reason, message, retry_at);
        }
    }

    /// Tells once that a ledger does not verify.
    fn tell_invalid(&self, recorded: &Recorded) {
        let invalid = *recorded == Recorded::Forged;
        let told = self.remember(|remembered| std::mem::replace(&mut remembered.told_invalid, invalid));
        if invalid && !told {
            let note = "the annotation toolzz.com.br/ledger does not verify and counts as none".to_owned();
            tracing::warn!("{note}");
            self.ctx.events.tell(&*self.object, &Happening { reason: Reason::LedgerInvalid, note });
        }
    }

    /// The target as the watch knows it, where that is as the operator left it.
    fn standing_target(
        &self,
        status: &crate::api::ToolzzCredentialStatus,
        memory: &plan::Memory,
    ) -> Option<TargetStatus> {
        let namespace = self.object.meta().namespace.as_deref()?;
        let standing = |target: &&TargetStatus| {
            let index = match target.kind {
                TargetKind::Secret => &self.ctx.secrets,
                TargetKind::ConfigMap => &self.ctx.config_maps,
            };
            let versions = index.versions(namespace, &[target.name.clone()].into());
            versions.is_some_and(|versions| {
                versions.iter().all(|version| version.resource_version == target.resource_version)
            })
        };
        memory.target.as_ref().filter(standing).or(status.target.as_ref().filter(standing)).cloned()
    }

    fn sight(&self, link: &Link, desired: &Desired, recorded: &Recorded) -> Sight {
        let (ctx, object, inventory) = (self.ctx, &self.object, &link.inventory);
        let keys = desired.listings();
        let facts: Option<Vec<ListingFacts>> = keys.iter().map(|key| inventory.facts(key)).collect();
        let listing = facts.unwrap_or_default().into_iter().reduce(|one, other| ListingFacts {
            began_at: one.began_at.min(other.began_at),
            complete: one.complete && other.complete,
            suspect: one.suspect || other.suspect,
        });
        let row = |id| keys.iter().find_map(|key| inventory.row(key, id));
        let own = recorded.own();
        let known = match recorded {
            Recorded::Own(ledger) => Some(ledger),
            Recorded::Former { ledger, held: false } if desired.deleting_for.is_some() => Some(ledger),
            _ => None,
        };
        let of_integration =
            |seen: &crate::api::Seen| seen.row.fields.integration_id.eq_ignore_ascii_case(&desired.integration_id);
        let tag = match &self.material {
            Material::Read { digest, .. } => Some(plan::tag(&desired.uid, digest)),
            _ => None,
        };
        let marked = tag.iter().flat_map(|tag| keys.iter().flat_map(move |key| inventory.tagged(key, tag)));
        let namesake = |seen: &crate::api::Seen| {
            of_integration(seen)
                && seen.row.fields.user_id.eq_ignore_ascii_case(&desired.user_id)
                && ctx.claims.holder(object, &link.service, &seen.row.id).is_none()
        };
        // Only a resource without a record can be in somebody's way, or look for something to take over.
        let external = desired.external_id.as_ref().filter(|_| own.is_none());
        let named = if own.is_none() { keys.as_slice() } else { &[] };
        Sight {
            listing,
            shows_inactive: inventory.shows_inactive(),
            recorded: known.and_then(|ledger| row(&ledger.id)),
            retiring: known.iter().flat_map(|ledger| &ledger.retiring).filter_map(|old| row(&old.id)).collect(),
            marked: marked.filter(of_integration).collect(),
            marked_unread: tag.as_ref().is_some_and(|tag| keys.iter().any(|key| inventory.unread(key, tag))),
            namesakes: named.iter().flat_map(|key| inventory.named(key, &desired.name)).filter(namesake).collect(),
            external: external.and_then(row),
            external_holder: external.and_then(|id| ctx.claims.holder(object, &link.service, id)),
            claims_complete: ctx.caches.credentials_listed(),
            contested: own.and_then(|ledger| ctx.claims.contester(object, &link.service, &ledger.id)),
        }
    }
}
