//! The decision.

use super::{
    Desired, Ledger, Material, Post, Put, Recorded, Settings, Step, View, differences,
    report::{Verdict, report},
};
use crate::api::{DeletionPolicy, Fields, OnConflict, Reason, Tick};

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
        Plan::Tell(verdict) => report(desired, view, &verdict)
            .map_or(Step::Rest(verdict.wake), |publication| Step::Publish(Box::new(publication))),
    }
}

enum Plan {
    /// One effect.
    Do(Step),
    /// Nothing to do now; say so in the status unless it says so already.
    Tell(Verdict),
}

fn tell(reason: Reason, message: impl Into<String>, wake: Option<Tick>) -> Plan {
    Plan::Tell(Verdict { problem: Some((reason, message.into())), rejection: None, wake })
}

struct Planner<'a> {
    desired: &'a Desired,
    view: &'a View,
    settings: &'a Settings,
    now: Tick,
}

impl Planner<'_> {
    fn keep(&self) -> Plan {
        if let Some(trouble) = &self.view.memory.trouble
            && trouble.retry_at.is_none_or(|at| at > self.now)
        {
            return tell(trouble.reason, &trouble.message, trouble.retry_at);
        }
        // Without the listing's name nothing can be found again, so nothing may be sent.
        let Some(key) = self.desired.listing() else {
            return tell(
                Reason::InvalidSpec,
                "spec.type: absent, and Toolzz's list of integrations does not tell the type of spec.integrationId; set it",
                Some(self.now + self.settings.resync_interval),
            );
        };
        let digest = match &self.view.material {
            Material::Unread => return Plan::Do(Step::ReadMaterial),
            Material::Read { digest, .. } => Some(digest.as_str()),
            Material::Unchanged | Material::Unusable { .. } => None,
        };
        match (&self.view.recorded, digest) {
            (Recorded::Own(ledger), Some(digest)) if ledger.digest != digest => self.stage(&key, Some(ledger), digest),
            // Material that is missing or unfit changes nothing of what is recorded: that is kept in order meanwhile.
            (Recorded::Own(ledger), _) => self.commit(&key, ledger),
            (Recorded::Former { ledger, held: false }, _) => {
                Plan::Do(Step::Record(Ledger { uid: self.desired.uid.clone(), ..ledger.clone() }))
            }
            (_, Some(digest)) => self.stage(&key, None, digest),
            (_, None) => match &self.view.material {
                Material::Unusable { reason, message } => {
                    tell(*reason, message, Some(self.now + self.settings.resync_interval))
                }
                // Unchanged since a status that has no record behind it: read again.
                _ => Plan::Do(Step::ReadMaterial),
            },
        }
    }

    /// Makes sure of one inactive credential that holds the material, and has it recorded.
    fn stage(&self, key: &crate::api::ListingKey, base: Option<&Ledger>, digest: &str) -> Plan {
        let look = |began_after| Plan::Do(Step::Look { key: key.clone(), began_after });
        let memory = &self.view.memory;

        // A look that began before the resource was seen, or before a lost POST was given up, proves nothing.
        let since = memory.given_up.map_or(memory.first_seen, |given_up| given_up.max(memory.first_seen));
        let Some(listing) = self.view.sight.listing.filter(|listing| listing.began_at > since) else {
            return look(since);
        };
        // Several can be there after lost answers; every operator takes the same one.
        if let Some(seen) = self.view.sight.marked.iter().min_by(|a, b| a.row.id.cmp(&b.row.id)) {
            return Plan::Do(Step::Record(Ledger::of_staged(&self.desired.uid, base, &seen.row, digest)));
        }
        if let Some(given_up) = memory.given_up {
            let settled = given_up + self.settings.settle_period;
            if self.now <= settled {
                let message = "the answer to a create was lost; looking again before anything is sent";
                return tell(Reason::OutcomeUnknown, message, Some(settled + std::time::Duration::from_millis(1)));
            }
            if listing.began_at <= settled {
                return look(settled);
            }
        }
        if base.is_none()
            && let Some(conflict) = self.conflict()
        {
            return conflict;
        }
        let post = Post::new(self.desired, digest);
        self.rejected(&post.fingerprint()).unwrap_or(Plan::Do(Step::Post(post)))
    }

    /// An active credential of the final name that nobody holds. Inactive ones are what deletions leave behind:
    /// nobody uses them, so nothing is doubled.
    fn conflict(&self) -> Option<Plan> {
        if self.desired.on_conflict == OnConflict::CreateNew {
            return None;
        }
        let namesake = self.view.sight.namesakes.iter().find(|seen| seen.row.fields.active)?;
        let message = format!(
            "Toolzz already has an active credential {:?} (id {}) for this user, unity and integration, which no \
             resource holds; rename it or spec.name, deactivate it, or set spec.onConflict: CreateNew",
            self.desired.name, namesake.row.id
        );
        Some(tell(Reason::NameConflict, message, Some(self.now + self.settings.resync_interval)))
    }

    /// Commit is drift correction: where the row is not as recorded and wished, one PUT puts it right.
    fn commit(&self, key: &crate::api::ListingKey, ledger: &Ledger) -> Plan {
        let look = |began_after| Plan::Do(Step::Look { key: key.clone(), began_after });
        let memory = &self.view.memory;
        let wish = self.desired.fields(ledger);

        // What was seen before a PUT was given up is in doubt; what is older than the resync interval is stale.
        let stale = Tick((self.now - Tick(0)).saturating_sub(self.settings.resync_interval).as_millis() as u64);
        let since = memory.doubt.map_or(stale, |doubt| doubt.max(stale));
        let fresh = |at: Tick| at > since || at == Tick(0) && since == Tick(0);

        if let Some(seen) = self.view.sight.recorded.as_ref().filter(|seen| fresh(seen.at)) {
            let changes = differences(&wish, &seen.row.fields);
            return if changes.is_empty() { self.settled(&wish, ledger) } else { self.put(ledger, wish, changes) };
        }
        let Some(listing) = self.view.sight.listing.filter(|listing| fresh(listing.began_at)) else {
            return look(since);
        };
        // The listing lacks it. Is that a loss, or does the listing not show such a row?
        let was_active = self.view.status.active == Some(true) && self.view.status.id.as_ref() == Some(&ledger.id);
        if !listing.complete || !(self.view.sight.shows_inactive || was_active) {
            let all = vec!["name", "userId", "unityId", "integrationId", "secretId", "status"];
            return self.put(ledger, wish, all);
        }
        let confirmed = memory.absent_since.unwrap_or(listing.began_at) + self.settings.settle_period;
        if self.now <= confirmed {
            let message = format!("credential {} is no longer listed; looking again", ledger.id);
            tell(Reason::VerifyingLoss, message, Some(confirmed + std::time::Duration::from_millis(1)))
        } else if listing.began_at <= confirmed {
            look(confirmed)
        } else {
            let message = format!(
                "credential {} is gone from Toolzz; delete the resource and apply it again to make a new one",
                ledger.id
            );
            tell(Reason::RemoteMissing, message, Some(self.now + self.settings.resync_interval))
        }
    }

    fn put(&self, ledger: &Ledger, fields: Fields, changes: Vec<&'static str>) -> Plan {
        let put = Put { id: ledger.id.clone(), fields, changes };
        self.rejected(&put.fingerprint()).unwrap_or(Plan::Do(Step::Put(put)))
    }

    /// The row is as wished. What is wrong with new material, or with how Toolzz took it over, is said all the same.
    fn settled(&self, wish: &Fields, ledger: &Ledger) -> Plan {
        let wake = Some(self.now + self.settings.resync_interval);
        if let Material::Unusable { reason, message } = &self.view.material {
            return tell(*reason, message, wake);
        }
        let put = Put { id: ledger.id.clone(), fields: wish.clone(), changes: Vec::new() };
        self.rejected(&put.fingerprint()).unwrap_or(Plan::Tell(Verdict { problem: None, rejection: None, wake }))
    }

    /// The verdict on a request that the API has refused before, in this process or an earlier one.
    fn rejected(&self, request: &str) -> Option<Plan> {
        let rejection = self.view.memory.rejected.clone().or_else(|| {
            let told = self.view.status.rejected.as_ref()?;
            Some(super::Rejection {
                request: told.request.clone(),
                reason: Reason::from_name(&told.reason).unwrap_or(Reason::RejectedByApi),
                message: told.message.clone(),
            })
        })?;
        (rejection.request == request).then(|| {
            Plan::Tell(Verdict {
                problem: Some((rejection.reason, rejection.message.clone())),
                wake: Some(self.now + self.settings.resync_interval),
                rejection: Some(rejection),
            })
        })
    }

    fn delete(&self, waited: std::time::Duration) -> Plan {
        if !self.view.finalizer {
            return Plan::Do(Step::Rest(None));
        }
        let release = |left_active| Plan::Do(Step::Release { left_active });
        let (Recorded::Own(ledger) | Recorded::Former { ledger, held: false }) = &self.view.recorded else {
            return release(None);
        };
        let memory = &self.view.memory;
        if self.desired.deletion_policy == DeletionPolicy::Retain || memory.deactivated.as_ref() == Some(&ledger.id) {
            return release(None);
        }
        if waited >= self.settings.deletion_deadline {
            return release(Some(ledger.id.clone()));
        }
        let deadline = self.now + (self.settings.deletion_deadline - waited);
        let blocked = |why: &str, wake: Tick| {
            let message = format!(
                "credential {} cannot be deactivated: {why}. The resource is let go after the deletion deadline",
                ledger.id
            );
            tell(Reason::DeletionBlocked, message, Some(wake))
        };
        if let Some(trouble) = &memory.trouble
            && trouble.retry_at.is_none_or(|at| at > self.now)
        {
            return blocked(&trouble.message, trouble.retry_at.map_or(deadline, |at| at.min(deadline)));
        }
        let fields = Fields { active: false, ..self.desired.fields(ledger) };
        let put = Put { id: ledger.id.clone(), fields, changes: vec!["status"] };
        match &memory.rejected {
            Some(rejection) if rejection.request == put.fingerprint() => blocked(&rejection.message, deadline),
            _ => Plan::Do(Step::Put(put)),
        }
    }
}
