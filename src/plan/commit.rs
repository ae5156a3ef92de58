//! Commit is drift correction: where the row is not as recorded and wished, one PUT puts it right. And what comes
//! after: the target, and the end of superseded credentials.

use super::{
    Ledger, Material, Put, Rejection, Step, Target, differences,
    next::{Plan, Planner, just_after, rejected, tell},
    report::Verdict,
};
use crate::api::{Fields, Reason, RotationStrategy, Seen, Tick};

const EVERY_FIELD: [&str; 6] = ["name", "userId", "unityId", "integrationId", "secretId", "status"];
/// How many superseded credentials a record has room for: it is copied to a status field of 8192 characters.
pub(super) const MOST_RETIRING: usize = 32;
/// How long a target that somebody else holds is left alone, unless something wakes the resource.
const TARGET_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

impl Planner<'_> {
    pub fn commit(&self, ledger: &Ledger) -> Plan {
        match self.present(ledger) {
            Err(plan) => plan,
            Ok(None) => match &self.view.material {
                Material::Unusable { reason, message } if ledger.digest.is_empty() => {
                    tell(*reason, message, self.later())
                }
                _ => self.put(ledger, self.desired.fields(ledger), EVERY_FIELD.to_vec()),
            },
            Ok(Some(seen)) => {
                let wish = self.wish(ledger, seen);
                let changes = differences(&wish, &seen.row.fields);
                if changes.is_empty() { self.settled(ledger, seen) } else { self.put(ledger, wish, changes) }
            }
        }
    }

    /// The row that follows from the spec and the record. While nobody can tell what its material is, that stays, and
    /// an inactive credential is not activated: only together with material of the resource's own.
    fn wish(&self, ledger: &Ledger, seen: &Seen) -> Fields {
        let mut wish = self.desired.fields(ledger);
        if ledger.digest.is_empty() {
            wish.secret_id.clone_from(&seen.row.fields.secret_id);
            wish.active &= seen.row.fields.active;
        }
        wish
    }

    /// What is to be put right before new material is staged: what the new material meets with (a refusal, an unknown
    /// outcome) must not keep, say, a credential from being switched off. What is refused does not keep it.
    /// Also superseded credentials go on to retire meanwhile; says when to come again for those.
    pub fn before_rotation(&self, ledger: &Ledger, seen: Option<&Seen>) -> Result<Option<Tick>, Plan> {
        let Some(seen) = seen else { return Ok(None) };
        let fields = self.wish(ledger, seen);
        let changes = differences(&fields, &seen.row.fields);
        let put = Put { id: ledger.id.clone(), fields, changes, material: None };
        if !put.changes.is_empty() && self.rejection(&put.fingerprint()).is_none() {
            return Err(Plan::Do(Step::Put(put)));
        }
        match self.target(ledger, seen) {
            None => {}
            Some(step @ Plan::Do(_)) => return Err(step),
            // Nothing retires before the target is switched.
            Some(Plan::Tell(_)) => return Ok(None),
        }
        match self.retire(ledger, seen) {
            Err(Plan::Tell(verdict)) => Ok(verdict.wake),
            other => other,
        }
    }

    /// The recorded credential as a fresh look shows it; `None` where listings may not show it although it is there.
    pub fn present(&self, ledger: &Ledger) -> Result<Option<&Seen>, Plan> {
        let (view, memory) = (self.view, &self.view.memory);
        // What was seen before a PUT was given up is in doubt; what is older than the resync interval is stale.
        let stale = Tick((self.now - Tick(0)).saturating_sub(self.settings.resync_interval).as_millis() as u64);
        let since = [memory.doubt, self.requested()].into_iter().flatten().fold(stale, Tick::max);
        let fresh = |at: Tick| at > since || at == Tick(0) && since == Tick(0);
        // What an update that may come late has done in the end only a listing after that tells.
        if let Some(late_until) = self.late_until().filter(|late_until| *late_until < self.now)
            && view.sight.listing.is_none_or(|listing| listing.began_at <= late_until)
        {
            return Err(self.look(late_until));
        }

        if let Some(seen) = view.sight.recorded.as_ref().filter(|seen| fresh(seen.at)) {
            return Ok(Some(seen));
        }
        let listing = view.sight.listing.filter(|listing| fresh(listing.began_at)).ok_or_else(|| self.look(since))?;
        // The listing lacks it. Somebody may have deactivated it where listings do not show such: a PUT tells, and one
        // more a settle period later. No single answer is believed.
        let gone = memory.gone.as_ref().filter(|gone| gone.id == ledger.id);
        let absent_since = gone.map(|gone| gone.since).or(memory.absent_since).unwrap_or(listing.began_at);
        let confirmed = absent_since + self.settings.settle_period;
        let due = gone.is_none_or(|gone| listing.began_at > confirmed && gone.last <= confirmed);
        if due && !(listing.complete && view.sight.shows_inactive) {
            return Ok(None);
        }
        Err(if self.now <= confirmed {
            let message = format!("credential {} is no longer listed; looking again", ledger.id);
            tell(Reason::VerifyingLoss, message, Some(just_after(confirmed)))
        } else if listing.began_at <= confirmed {
            self.look(confirmed)
        } else if !self.recreates(Some(ledger)) {
            let message = format!(
                "credential {id} is gone from Toolzz; to make a new one, annotate the resource with \
                 toolzz.com.br/recreate: {id}",
                id = ledger.id
            );
            tell(Reason::RemoteMissing, message, self.later())
        } else if let Material::Read { digest, .. } = &view.material {
            // The one that is gone retires: should it come back, it is deactivated.
            self.stage(Some(ledger), digest, true)
        } else if let Material::Unusable { reason, message } = &view.material {
            tell(*reason, message, self.later())
        } else {
            Plan::Do(Step::ReadMaterial)
        })
    }

    fn put(&self, ledger: &Ledger, fields: Fields, changes: Vec<&'static str>) -> Plan {
        let put = Put { id: ledger.id.clone(), fields, changes, material: None };
        match self.rejection(&put.fingerprint()) {
            None => Plan::Do(Step::Put(put)),
            // It cannot take over the staged material, and may be replaced: by what was staged.
            Some(rejection)
                if rejection.reason == Reason::RotationUnsupported
                    && self.desired.strategy == RotationStrategy::Replace
                    && ledger.staged_as != ledger.id =>
            {
                Plan::Do(Step::Record(ledger.promoted()))
            }
            Some(rejection) => rejected(rejection, self.later()),
        }
    }

    /// `InPlace`: the material goes with the update. Before that is sent, what the credential holds is recorded as
    /// unknown: if the answer is lost, the material is sent again, whatever it is by then.
    pub fn send_in_place(&self, ledger: &Ledger, seen: Option<&Seen>, digest: &str) -> Plan {
        if !ledger.digest.is_empty() {
            return Plan::Do(Step::Record(Ledger { digest: String::new(), ..ledger.clone() }));
        }
        let memory = &self.view.memory;
        if let Some(sent) = memory.in_place.as_ref().filter(|sent| sent.digest == digest) {
            // Older material may be on its way still: from this process, or from one before it.
            let before = (!memory.marked_unknown).then_some(memory.first_seen + self.settings.settle_period);
            let late_until = before.max(memory.late_until).filter(|late_until| sent.at <= *late_until);
            match late_until {
                None => {
                    let (digest, secret_id) = (digest.to_owned(), sent.secret_id.clone());
                    return Plan::Do(Step::Record(Ledger { digest, secret_id, ..ledger.clone() }));
                }
                Some(late_until) if self.now <= late_until => {
                    let message = "the new key material was sent; it is sent once more when no earlier update can take \
                                   effect any more";
                    return tell(Reason::OutcomeUnknown, message, Some(just_after(late_until)));
                }
                Some(_) => {}
            }
        }
        let mut fields = self.desired.fields(ledger);
        if let Some(seen) = seen {
            fields.secret_id = seen.row.fields.secret_id.clone();
        }
        let put =
            Put { id: ledger.id.clone(), fields, changes: vec!["credentials"], material: Some(digest.to_owned()) };
        match self.rejection(&put.fingerprint()) {
            Some(rejection) => rejected(rejection, self.later()),
            None => Plan::Do(Step::Put(put)),
        }
    }

    /// The row is as wished. What is wrong with new material, or with how Toolzz took it over, is said all the same.
    fn settled(&self, ledger: &Ledger, seen: &Seen) -> Plan {
        if let Some(plan) = self.target(ledger, seen) {
            return plan;
        }
        let wake = match self.retire(ledger, seen) {
            Err(plan) => return plan,
            Ok(wake) => Some(
                wake.into_iter().fold(just_after(self.now).max(seen.at + self.settings.resync_interval), Tick::min),
            ),
        };
        if let Material::Unusable { reason, message } = &self.view.material {
            return tell(*reason, message, wake);
        }
        if let Some(message) = self.virtual_key_changed(ledger, seen) {
            return tell(Reason::RotationUnsupported, message, wake);
        }
        Plan::Tell(Verdict { committed: true, wake, ..Verdict::default() })
    }

    /// Agents and workloads know the credential by its virtual key: a new one is accepted when somebody says so.
    fn virtual_key_changed(&self, ledger: &Ledger, seen: &Seen) -> Option<String> {
        let status = &self.view.status;
        let (old, new) = (self.published_key(ledger)?, seen.row.virtual_key.as_ref()?);
        let changed = status.material.is_some() && old != new;
        (changed && self.requested().is_none()).then(|| {
            format!(
                "Toolzz changed the virtual key of credential {} from {old} to {new}; give agents the new one, then \
                 annotate the resource with toolzz.com.br/reconcile-requested-at to accept it",
                ledger.id
            )
        })
    }

    /// The virtual key of the recorded credential as the status has it.
    fn published_key(&self, ledger: &Ledger) -> Option<&String> {
        let status = &self.view.status;
        status.virtual_key.as_ref().filter(|_| status.id.as_ref() == Some(&ledger.id))
    }

    /// Brings the virtual key to where workloads find it.
    fn target(&self, ledger: &Ledger, seen: &Seen) -> Option<Plan> {
        let memory = &self.view.memory;
        let wanted = self.desired.target.as_ref();
        if let Some(old) = &self.view.status.target
            && wanted.is_none_or(|target| (target.kind, &target.name) != (old.kind, &old.name))
            && memory.target_dropped.as_ref() != Some(&old.uid)
        {
            return Some(Plan::Do(Step::DropTarget(old.clone())));
        }
        let target = wanted?;
        // A row that comes without its virtual key takes it from nobody.
        let virtual_key = seen.row.virtual_key.as_ref().or(self.published_key(ledger));
        let content = target.content(&seen.row, virtual_key.map(String::as_str));
        let written = self.view.target.as_ref().is_some_and(|written| {
            (written.kind, &written.name) == (target.kind, &target.name)
                && written.content == Target::fingerprint(&content)
        });
        if written {
            return None;
        }
        if let Some((message, found)) = &memory.target_conflict
            && self.now < *found + TARGET_PAUSE
        {
            return Some(tell(Reason::TargetConflict, message, Some(*found + TARGET_PAUSE)));
        }
        Some(Plan::Do(Step::WriteTarget { target: target.clone(), content }))
    }

    /// Deactivates superseded credentials: not before the one in their place is published and the grace period is
    /// over, and they leave the record only when no late update can bring them back. Says when to come again.
    fn retire(&self, ledger: &Ledger, seen: &Seen) -> Result<Option<Tick>, Plan> {
        let status = &self.view.status;
        let published = self.published_key(ledger);
        if status.id.as_ref() != Some(&ledger.id) || seen.row.virtual_key.as_ref().or(published) != published {
            return Ok(None);
        }
        let mut wake: Option<Tick> = None;
        let mut refused = None;
        // Where there are too many for the record, the oldest has no more time.
        let too_many = ledger.retiring.len().saturating_sub(MOST_RETIRING - 1);
        let mut sooner = |at: Tick| wake = Some(wake.map_or(at, |wake| wake.min(at)));
        for (position, old) in ledger.retiring.iter().enumerate() {
            // The next status sets the time.
            let Some(after) = status.retiring.iter().find(|one| one.id == old.id).and_then(|one| one.after.as_ref())
            else {
                continue;
            };
            let left = after.0.duration_since(self.view.wall);
            if left.is_positive() && position >= too_many {
                sooner(just_after(self.now + left.unsigned_abs()));
                continue;
            }
            if let Some(told) = self.view.memory.missing_since(&old.id) {
                match self.confirms(told) {
                    Ok(look) => return Err(look),
                    Err(again) => sooner(again),
                }
                continue;
            }
            let Some(inactive_since) = self.view.memory.inactive_since(&old.id) else {
                let shown = self.view.sight.retiring.iter().find(|seen| seen.row.id == old.id);
                let fields = shown.map_or_else(
                    || Fields { secret_id: old.secret_id.clone(), ..self.desired.fields(ledger) },
                    |seen| seen.row.fields.clone(),
                );
                let fields = Fields { active: false, ..fields };
                let put = Put { id: old.id.clone(), fields, changes: vec!["status"], material: None };
                match self.refused_lately(&put) {
                    Some(rejection) => {
                        sooner(just_after(rejection.at + self.settings.resync_interval));
                        refused = refused.or(Some(rejection.clone()));
                    }
                    None => return Err(Plan::Do(Step::Put(put))),
                }
                continue;
            };
            let settled = inactive_since + self.settings.settle_period;
            if self.now <= settled {
                sooner(just_after(settled));
                continue;
            }
            // Only a listing that was read as a whole tells that nothing has brought it back.
            if self.view.sight.listing.is_some_and(|listing| listing.began_at > settled && listing.complete) {
                return Err(Plan::Do(Step::Record(ledger.without(&old.id))));
            }
            match self.confirms(settled) {
                Ok(look) => return Err(look),
                Err(again) => sooner(again),
            }
        }
        match refused {
            Some(rejection) => Err(rejected(rejection, wake)),
            None => Ok(wake),
        }
    }

    /// The look that confirms that a credential does not exist; or when to take another, where the last one could not
    /// be read as a whole.
    pub fn confirms(&self, told: Tick) -> Result<Plan, Tick> {
        let Some(listing) = self.view.sight.listing.filter(|listing| listing.began_at > told) else {
            return Ok(self.look(told));
        };
        let again = listing.began_at + self.settings.settle_period;
        if self.now > again { Ok(self.look(again)) } else { Err(just_after(again)) }
    }

    /// A deactivation is never given up: what was refused is tried again after a while.
    pub fn refused_lately(&self, put: &Put) -> Option<&Rejection> {
        let rejection = self.view.memory.rejection(&put.fingerprint())?;
        (self.now <= rejection.at + self.settings.resync_interval).then_some(rejection)
    }
}
