//! Deletion: everything that may be active on the resource's behalf is deactivated, then the finalizer goes.

use std::time::Duration;

use super::{
    Ledger, Put, Recorded, Step,
    next::{Plan, Planner, just_after, tell},
};
use crate::api::{CredentialId, DeletionPolicy, Fields, Reason, SecretId, Tick};

impl Planner<'_> {
    pub fn delete(&self, waited: Duration) -> Plan {
        if !self.view.finalizer {
            return Plan::Do(Step::Rest(None));
        }
        let nowhere = &self.view.memory.nowhere;
        let release = |left_active| Plan::Do(Step::Release { left_active, nowhere: nowhere.clone() });
        // What is superseded is not what is to be retained.
        let retain = self.desired.deletion_policy == DeletionPolicy::Retain;
        let ledger = match &self.view.recorded {
            Recorded::Own(ledger) | Recorded::Former { ledger, held: false } => ledger,
            // What it is cannot be told from a record; what the status names may be active.
            Recorded::Nothing | Recorded::Forged => {
                let status = &self.view.status;
                let own = status.id.iter().filter(|_| status.active == Some(true) && !retain);
                return release(own.chain(status.retiring.iter().map(|old| &old.id)).cloned().collect());
            }
            Recorded::Former { .. } => return release(Vec::new()),
        };
        let active: Vec<(&CredentialId, &SecretId)> = ledger
            .credentials()
            .filter(|(id, _)| !(retain && **id == ledger.id || self.inactive_for_good(id)))
            .collect();
        if self.view.sight.contested.is_some() {
            // Its holder may hold the superseded ones as well.
            return release(active.iter().map(|(id, _)| (*id).clone()).filter(|id| *id != ledger.id).collect());
        }
        let Some((first, _)) = active.first() else {
            return release(Vec::new());
        };
        // The deadline ends the waiting, never the first attempts: the operator may have been away that long.
        let attempts = self.view.memory.first_seen + self.settings.settle_period * 2;
        let left = self.settings.deletion_deadline.saturating_sub(waited).max(attempts - self.now);
        let blocked = |id: &CredentialId, why: &str, wake: Option<Tick>| {
            if left.is_zero() {
                return release(active.iter().map(|(id, _)| (*id).clone()).collect());
            }
            let message = format!(
                "credential {id} cannot be deactivated: {why}. The resource is let go after the deletion deadline"
            );
            let deadline = self.now + left;
            tell(Reason::DeletionBlocked, message, Some(wake.map_or(deadline, |wake| wake.min(deadline))))
        };
        if !self.view.sight.claims_complete && matches!(self.view.recorded, Recorded::Former { .. }) {
            let why = "not every namespace's ToolzzCredentials could be listed yet, so another resource may hold it";
            return blocked(first, why, Some(self.now + self.settings.settle_period));
        }
        let memory = &self.view.memory;
        if let Some(trouble) = &memory.trouble
            && trouble.retry_at.is_none_or(|at| at > self.now)
        {
            return blocked(first, &trouble.message, trouble.retry_at);
        }
        let mut refused = None;
        for (id, secret_id) in &active {
            if memory.inactive_since(id).is_some() && self.late_until().is_some_and(|late_until| self.now <= late_until)
            {
                continue;
            }
            if let Some(told) = memory.missing_since(id) {
                return match self.confirms(told) {
                    Ok(look) => look,
                    Err(again) => blocked(id, "whether it exists is not known", Some(again)),
                };
            }
            let put = Put {
                id: (*id).clone(),
                fields: self.deactivated(id, secret_id, ledger),
                changes: vec!["status"],
                material: None,
            };
            match self.refused_lately(&put) {
                None => return Plan::Do(Step::Put(put)),
                Some(rejection) => refused = refused.or(Some((*id, rejection))),
            }
        }
        let late = "an update that was sent before may still take effect";
        match refused {
            Some((id, rejection)) => {
                let again = just_after(rejection.at + self.settings.resync_interval);
                let late = self.late_until().map(just_after).filter(|late| *late > self.now);
                blocked(id, &rejection.message, late.into_iter().chain([again]).min())
            }
            None => blocked(first, late, self.late_until().map(just_after)),
        }
    }

    /// Seen inactive, or gone, after every update that may come late.
    fn inactive_for_good(&self, id: &CredentialId) -> bool {
        let since = self.view.memory.inactive_since(id);
        since.is_some_and(|since| self.late_until().is_none_or(|late_until| since > late_until))
    }

    /// As it is seen, but inactive; where it is not seen, as the spec says.
    fn deactivated(&self, id: &CredentialId, secret_id: &SecretId, ledger: &Ledger) -> Fields {
        let sight = &self.view.sight;
        let shown = sight.recorded.iter().chain(&sight.retiring).find(|seen| seen.row.id == *id);
        let fields = shown.map_or_else(
            || Fields { secret_id: secret_id.clone(), ..self.desired.fields(ledger) },
            |seen| seen.row.fields.clone(),
        );
        Fields { active: false, ..fields }
    }
}
