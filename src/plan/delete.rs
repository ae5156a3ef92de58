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
        let release = |left_active| Plan::Do(Step::Release { left_active });
        let ledger = match &self.view.recorded {
            Recorded::Own(ledger) | Recorded::Former { ledger, held: false } => ledger,
            // What it is cannot be told from a record; what the status names may be active.
            Recorded::Nothing | Recorded::Forged => {
                let named = self.view.status.id.clone().filter(|_| self.view.status.active == Some(true));
                return release(named.into_iter().collect());
            }
            Recorded::Former { .. } => return release(Vec::new()),
        };
        if self.desired.deletion_policy == DeletionPolicy::Retain || self.view.sight.contested.is_some() {
            return release(Vec::new());
        }
        let active: Vec<(&CredentialId, &SecretId)> =
            ledger.credentials().filter(|(id, _)| !self.inactive_for_good(id, ledger)).collect();
        let Some((id, secret_id)) = active.first() else {
            return release(Vec::new());
        };
        // The deadline ends the waiting, never the first attempt: the operator may have been away that long.
        let left = self.settings.deletion_deadline.saturating_sub(waited);
        let blocked = |why: &str, wake: Option<Tick>| {
            if left.is_zero() {
                return release(active.iter().map(|(id, _)| (*id).clone()).collect());
            }
            let message = format!(
                "credential {id} cannot be deactivated: {why}. The resource is let go after the deletion deadline"
            );
            let deadline = self.now + left;
            tell(Reason::DeletionBlocked, message, Some(wake.map_or(deadline, |wake| wake.min(deadline))))
        };
        let memory = &self.view.memory;
        if let Some(trouble) = &memory.trouble
            && trouble.retry_at.is_none_or(|at| at > self.now)
        {
            return blocked(&trouble.message, trouble.retry_at);
        }
        if let Some(late_until) = memory.late_until
            && memory.inactive_since(id).is_some()
            && self.now <= late_until
        {
            return blocked("an update whose answer was lost may still take effect", Some(just_after(late_until)));
        }
        let put = Put {
            id: (*id).clone(),
            fields: self.deactivated(id, secret_id, ledger),
            changes: vec!["status"],
            material: None,
        };
        match &memory.rejected {
            Some(rejection) if rejection.request == put.fingerprint() => blocked(&rejection.message, None),
            _ => Plan::Do(Step::Put(put)),
        }
    }

    /// Seen inactive, or gone, after every update that may come late.
    fn inactive_for_good(&self, id: &CredentialId, ledger: &Ledger) -> bool {
        let memory = &self.view.memory;
        let late_until = memory.late_until.filter(|_| *id == ledger.id);
        memory.inactive_since(id).is_some_and(|since| late_until.is_none_or(|late_until| since > late_until))
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
