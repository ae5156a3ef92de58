//! The decision.

use super::{
    Desired, Ledger, Material, Recorded, Rejection, Settings, Step, View,
    commit::MOST_RETIRING,
    report::{Verdict, report},
};
use crate::api::{OnConflict, Reason, RotationStrategy, Tick, condition};

/// For how many resync intervals a request that was refused is not sent again.
const REFUSED_FOR: u32 = 6;

/// Names the one thing to do next for a resource.
///
/// Calling it again after the step was done, with what was learnt from it, leads to [`Step::Rest`].
pub fn next(desired: &Desired, view: &View, settings: &Settings, now: Tick) -> Step {
    let planner = Planner { desired, view, settings, now };
    let plan = match desired.deleting_for {
        Some(waited) => planner.delete(waited),
        None => planner.keep(),
    };
    match plan {
        Plan::Do(step) => step,
        Plan::Tell(mut verdict) => {
            // Then it is looked at once more.
            let late = planner.late_until().filter(|late_until| *late_until >= now).map(just_after);
            verdict.wake = verdict.wake.into_iter().chain(late).min();
            report(desired, view, &verdict)
                .map_or(Step::Rest(verdict.wake), |publication| Step::Publish(Box::new(publication)))
        }
    }
}

pub(super) enum Plan {
    /// One effect.
    Do(Step),
    /// Nothing to do now; say so in the status unless it says so already.
    Tell(Verdict),
}

pub(super) fn tell(reason: Reason, message: impl Into<String>, wake: Option<Tick>) -> Plan {
    Plan::Tell(Verdict { problem: Some((reason, message.into())), wake, ..Verdict::default() })
}

pub(super) struct Planner<'a> {
    pub desired: &'a Desired,
    pub view: &'a View,
    pub settings: &'a Settings,
    pub now: Tick,
}

impl Planner<'_> {
    fn keep(&self) -> Plan {
        if self.desired.suspended {
            return tell(Reason::Suspended, "spec.suspend is true: nothing is done until it is not", None);
        }
        if let Some(trouble) = &self.view.memory.trouble
            && trouble.retry_at.is_none_or(|at| at > self.now)
        {
            if self.stands(trouble.reason) {
                return Plan::Do(Step::Rest(trouble.retry_at));
            }
            return Plan::Tell(Verdict {
                problem: Some((trouble.reason, trouble.message.clone())),
                wake: trouble.retry_at,
                unanswered: true,
                ..Verdict::default()
            });
        }
        if let Some(problem) = self.view.recorded.own().and_then(|ledger| self.not_ours(ledger)) {
            return problem;
        }
        if let Some(ledger) = self.view.recorded.own()
            && !self.view.finalizer
        {
            // Somebody replaced the resource by a manifest without it. A deletion would pass by now.
            return Plan::Do(Step::Record(ledger.clone()));
        }
        let unknown = self.view.recorded.own().is_some_and(|ledger| ledger.digest.is_empty());
        let digest = match &self.view.material {
            Material::Unread => return Plan::Do(Step::ReadMaterial),
            Material::Unchanged if self.requested().is_some() || unknown => return Plan::Do(Step::ReadMaterial),
            Material::Read { digest, .. } => Some(digest.as_str()),
            Material::Unchanged | Material::Unusable { .. } => None,
        };
        if let Some(plan) = self.suspect() {
            return plan;
        }
        match (&self.view.recorded, digest) {
            (Recorded::Own(ledger), Some(digest)) if ledger.digest != digest => self.rotate(ledger, digest),
            // Material that is missing or unfit changes nothing of what is recorded: that is kept in order meanwhile.
            (Recorded::Own(ledger), _) => self.commit(ledger),
            (Recorded::Former { held: false, .. }, _) if !self.view.sight.claims_complete => self.claims_incomplete(),
            (Recorded::Former { ledger, held: false }, _) => {
                Plan::Do(Step::Record(Ledger { uid: self.desired.uid.clone(), ..ledger.clone() }))
            }
            (_, Some(digest)) => self.acquire(digest),
            (_, None) => match &self.view.material {
                Material::Unusable { reason, message } => tell(*reason, message, self.later()),
                // Unchanged since a status that has no record behind it: read again.
                _ => Plan::Do(Step::ReadMaterial),
            },
        }
    }

    /// Whether what the status says still stands although Toolzz cannot be asked just now: for twice the resync interval
    /// there is no reason to doubt a credential that was as wished, and ten thousand of them would tell the same.
    fn stands(&self, reason: Reason) -> bool {
        let (view, status) = (self.view, &self.view.status);
        let ready = condition(&status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
        let same = match (&view.recorded, &view.material) {
            (Recorded::Own(ledger), Material::Read { digest, .. }) => ledger.digest == *digest,
            (Recorded::Own(_), Material::Unchanged) => true,
            _ => false,
        };
        let known = view.sight.recorded.as_ref().map_or(view.memory.first_seen, |seen| seen.at);
        matches!(reason, Reason::ApiUnavailable | Reason::RateLimited)
            && ready
            && same
            && status.observed_generation == self.desired.generation
            && self.requested().is_none()
            && view.memory.corrected.is_empty()
            && self.now < known + 2 * self.settings.resync_interval
    }

    /// What speaks against acting on a record.
    fn not_ours(&self, ledger: &Ledger) -> Option<Plan> {
        if let Some(holder) = &self.view.sight.contested {
            let message = format!(
                "credential {} is held by {holder}, which goes first; delete this resource (the credential stays as it is)",
                ledger.id
            );
            return Some(tell(Reason::NameConflict, message, self.later()));
        }
        let external = self.desired.external_id.as_ref()?;
        (ledger.id != *external && ledger.adopted.as_ref() != Some(external)).then(|| {
            let message = format!(
                "spec.externalId: this resource has credential {} already; remove the field, or make another resource \
                 for credential {external}",
                ledger.id
            );
            tell(Reason::InvalidSpec, message, None)
        })
    }

    /// Nothing is done on the word of a listing that is not believed, until one comes that is.
    fn suspect(&self) -> Option<Plan> {
        let listing = self.view.sight.listing.filter(|listing| listing.suspect)?;
        if self.recreates(self.view.recorded.own()) {
            return None;
        }
        let again = listing.began_at + self.settings.settle_period;
        Some(if self.now > again {
            self.look(again)
        } else {
            let message = "many credentials vanished from Toolzz's listing at once, so nothing is done on its word; if \
                           they are really gone, annotate each resource with toolzz.com.br/recreate: <its credential id>";
            tell(Reason::InventorySuspect, message, Some(just_after(again)))
        })
    }

    /// Whether the user says that the recorded credential is really gone.
    pub fn recreates(&self, ledger: Option<&Ledger>) -> bool {
        ledger.is_some_and(|ledger| self.desired.recreate.as_ref() == Some(&ledger.id))
    }

    /// When a user's request that is not answered yet was seen.
    pub fn requested(&self) -> Option<Tick> {
        let requested = self.desired.requested.as_ref()?;
        if self.view.status.last_handled_reconcile_at.as_ref() == Some(requested) {
            return None;
        }
        Some(self.view.memory.requested.as_ref().map_or(self.now, |(_, seen)| *seen))
    }

    /// New material: by the strategy.
    fn rotate(&self, ledger: &Ledger, digest: &str) -> Plan {
        // Not for a credential that is gone.
        let seen = match self.present(ledger) {
            Ok(seen) => seen,
            Err(plan) => return plan,
        };
        let wake = match self.before_rotation(ledger, seen) {
            Err(plan) => return plan,
            Ok(wake) => wake,
        };
        let plan = match self.desired.strategy {
            RotationStrategy::Repoint => self.stage(Some(ledger), digest, false),
            RotationStrategy::Replace if ledger.retiring.len() >= MOST_RETIRING => self.make_room(ledger),
            RotationStrategy::Replace => self.stage(Some(ledger), digest, true),
            RotationStrategy::InPlace => self.send_in_place(ledger, seen, digest),
        };
        match plan {
            Plan::Tell(verdict) => Plan::Tell(Verdict { wake: verdict.wake.into_iter().chain(wake).min(), ..verdict }),
            plan => plan,
        }
    }

    /// Brings what is recorded into use and to its end before more is recorded.
    fn make_room(&self, ledger: &Ledger) -> Plan {
        match self.commit(ledger) {
            Plan::Tell(verdict) if verdict.problem.is_none() => {
                let message = format!(
                    "{MOST_RETIRING} superseded credentials are not known to be inactive yet; the new key material \
                     follows when the oldest has retired"
                );
                Plan::Tell(Verdict { problem: Some((Reason::Pending, message)), ..verdict })
            }
            plan => plan,
        }
    }

    /// No record: a credential is made, or an existing one taken over.
    fn acquire(&self, digest: &str) -> Plan {
        let base = match (&self.desired.external_id, self.desired.on_conflict) {
            (Some(id), _) => self.external(id).map(Some),
            (None, OnConflict::Adopt) => self.namesake(),
            (None, OnConflict::Fail | OnConflict::CreateNew) => Ok(None),
        };
        match base {
            Err(plan) => plan,
            Ok(None) if self.may_have_one() => {
                let message = "the record on this resource does not verify, so whether it has a credential already is \
                               not known; take an existing one over with spec.externalId or spec.onConflict: Adopt, \
                               or, to have a new one in any case, remove the annotation toolzz.com.br/ledger and \
                               status.ledger";
                tell(Reason::LedgerInvalid, message, self.later())
            }
            Ok(None) => self.stage(None, digest, false),
            Ok(Some(base)) => match self.desired.strategy {
                RotationStrategy::Repoint => self.stage(Some(&base), digest, false),
                RotationStrategy::Replace => self.stage(Some(&base), digest, true),
                RotationStrategy::InPlace => Plan::Do(Step::Record(base)),
            },
        }
    }

    /// There may be a credential already that nothing would tell of: a namesake is in nobody's way with `CreateNew`, and
    /// what the status names may be of an earlier name or user.
    fn may_have_one(&self) -> bool {
        let had = self.view.status.id.is_some() || self.desired.on_conflict == OnConflict::CreateNew;
        self.view.recorded == Recorded::Forged && had
    }

    /// Nothing is taken over while somebody who holds it may not be known yet.
    pub fn claims_incomplete(&self) -> Plan {
        let message = "not every namespace's ToolzzCredentials could be listed yet, so it is not known whether another \
                       resource holds the credential";
        tell(Reason::Pending, message, Some(self.now + self.settings.settle_period))
    }

    pub fn look(&self, began_after: Tick) -> Plan {
        Plan::Do(Step::Look { keys: self.desired.listings(), began_after })
    }

    /// Until when an update may take effect whose answer this process lost, or that an earlier process sent. That one
    /// matters to a deletion, and once this process has written the status: before, what was sent is what the status tells.
    pub fn late_until(&self) -> Option<Tick> {
        let memory = &self.view.memory;
        let matters = !memory.began_here && (memory.published || self.desired.deleting_for.is_some());
        memory.late_until.max(matters.then_some(memory.first_seen + self.settings.settle_period))
    }

    /// When to look after what nothing wakes us for.
    pub fn later(&self) -> Option<Tick> {
        Some(self.now + self.settings.resync_interval)
    }

    /// What is known of a request that the API has refused lately, in this process or an earlier one. What was refused
    /// is not refused for ever: the reason may have been at Toolzz.
    pub fn rejection(&self, request: &str) -> Option<Rejection> {
        let told = || {
            let told = self.view.status.rejected.as_ref().filter(|_| self.requested().is_none())?;
            (told.request == request).then(|| Rejection {
                request: told.request.clone(),
                reason: Reason::from_name(&told.reason).unwrap_or(Reason::RejectedByApi),
                message: told.message.clone(),
                at: self.view.memory.first_seen,
            })
        };
        let known = self.view.memory.rejection(request).cloned().or_else(told)?;
        (self.now <= known.at + self.settings.resync_interval * REFUSED_FOR).then_some(known)
    }
}

pub(super) fn rejected(rejection: Rejection, wake: Option<Tick>) -> Plan {
    Plan::Tell(Verdict {
        problem: Some((rejection.reason, rejection.message.clone())),
        wake,
        rejection: Some(rejection),
        ..Verdict::default()
    })
}

/// The first moment that is certainly after another.
pub(super) fn just_after(moment: Tick) -> Tick {
    moment + std::time::Duration::from_millis(1)
}
