//! Stage and record: one inactive credential that holds the material, and what it is for.

use super::{
    Ledger, Post, Step,
    next::{Plan, Planner, just_after, rejected, tell},
};
use crate::api::{CredentialId, ListingFacts, OnConflict, Reason, Seen, Tick};

impl Planner<'_> {
    /// Makes sure of one inactive credential that holds the material, and has it recorded: as the resource's first
    /// (no `base`), as new material for the credential that `base` records, or in its place (`replace`).
    pub fn stage(&self, base: Option<&Ledger>, digest: &str, replace: bool) -> Plan {
        // Several can be there after lost answers; every operator takes the same one. What is there needs no look.
        if let Some(seen) = self.view.sight.marked.iter().min_by(|a, b| a.row.id.cmp(&b.row.id)) {
            return Plan::Do(Step::Record(match base {
                None => Ledger::fresh(&self.desired.uid, &seen.row, digest),
                Some(base) if replace => base.replaced(&seen.row, digest),
                Some(base) => base.repointed(&seen.row, digest),
            }));
        }
        let listing = match self.looked() {
            Ok(listing) => listing,
            Err(plan) => return plan,
        };
        if self.view.sight.marked_unread {
            let message = "Toolzz lists a credential with the marker of this resource and its key material, but not so \
                           that it can be read; nothing is sent until it can";
            return self
                .confirms(self.view.memory.first_seen)
                .unwrap_or_else(|again| tell(Reason::OutcomeUnknown, message, Some(again)));
        }
        if let Some(given_up) = self.given_up() {
            // Each further answer that is lost doubles the wait: if listings do not show what was created, every
            // attempt leaves a credential behind that nobody can find.
            let settled =
                given_up + self.settings.settle_period * 2u32.pow(self.view.memory.lost_posts.clamp(1, 9) - 1);
            if self.now <= settled {
                let message = "what came of a create is not known; looking again before anything is sent";
                return tell(Reason::OutcomeUnknown, message, Some(just_after(settled)));
            }
            if listing.began_at <= settled {
                return self.look(settled);
            }
        }
        if base.is_none()
            && self.desired.on_conflict == OnConflict::Fail
            && let Some(namesake) = self.active_namesakes().next()
        {
            let message = format!(
                "Toolzz already has an active credential {:?} (id {}) for this user, unity and integration, which no \
                 resource holds; take it over with spec.onConflict: Adopt, make another with CreateNew, or rename or \
                 deactivate one of them",
                self.desired.name, namesake.row.id
            );
            // A deletion may be on its way that ends the conflict; looking again costs nothing.
            return tell(Reason::NameConflict, message, Some(self.now + self.settings.settle_period));
        }
        let post = Post::new(self.desired, digest);
        match self.rejection(&post.fingerprint()) {
            Some(rejection) => rejected(rejection, self.later()),
            None => Plan::Do(Step::Post(post)),
        }
    }

    /// A look that began before the resource was seen, or before a lost POST was given up, proves nothing.
    fn looked(&self) -> Result<ListingFacts, Plan> {
        let first_seen = self.view.memory.first_seen;
        let since = self.given_up().map_or(first_seen, |given_up| given_up.max(first_seen));
        self.view.sight.listing.filter(|listing| listing.began_at > since).ok_or_else(|| self.look(since))
    }

    /// When a POST was given up with its outcome unknown; by an earlier process, at the latest when the resource was
    /// first seen.
    fn given_up(&self) -> Option<Tick> {
        let memory = &self.view.memory;
        memory.given_up.or(self.view.create_unknown().then_some(memory.first_seen))
    }

    /// Active credentials of the final name that nobody holds. Inactive ones are what deletions leave behind: nobody
    /// uses them, so nothing is doubled.
    fn active_namesakes(&self) -> impl Iterator<Item = &Seen> {
        self.view.sight.namesakes.iter().filter(|seen| seen.row.fields.active)
    }

    /// The namesake to take over, if there is one.
    pub fn namesake(&self) -> Result<Option<Ledger>, Plan> {
        self.looked()?;
        let mut namesakes = self.active_namesakes();
        match (namesakes.next(), namesakes.next()) {
            (None, _) => Ok(None),
            (Some(seen), None) => {
                self.may_adopt("spec.onConflict")?;
                Ok(Some(Ledger::adopting(&self.desired.uid, &seen.row)))
            }
            (Some(one), Some(other)) => {
                let message = format!(
                    "spec.onConflict: Toolzz has more than one active credential {:?} for this user, unity and \
                     integration (ids {} and {}); say which with spec.externalId",
                    self.desired.name, one.row.id, other.row.id
                );
                Err(tell(Reason::NameConflict, message, self.later()))
            }
        }
    }

    /// The credential that the spec asks to take over.
    pub fn external(&self, id: &CredentialId) -> Result<Ledger, Plan> {
        self.may_adopt("spec.externalId")?;
        let listing = self.looked()?;
        let fail = |reason, message: String| Err(tell(reason, format!("spec.externalId: {message}"), self.later()));
        if let Some(holder) = &self.view.sight.external_holder {
            return fail(Reason::NameConflict, format!("credential {id} is held by {holder}"));
        }
        let Some(seen) = &self.view.sight.external else {
            // A listing is read again at every later look.
            if self.now - listing.began_at >= self.settings.resync_interval {
                return Err(self.look(listing.began_at));
            }
            return fail(Reason::RemoteMissing, format!("Toolzz lists no credential {id} of this unity and type"));
        };
        if !seen.row.fields.integration_id.eq_ignore_ascii_case(&self.desired.integration_id) {
            return fail(Reason::InvalidSpec, format!("credential {id} is of another integration"));
        }
        Ok(Ledger::adopting(&self.desired.uid, &seen.row))
    }

    fn may_adopt(&self, field: &str) -> Result<(), Plan> {
        if self.desired.may_adopt {
            return if self.view.sight.claims_complete { Ok(()) } else { Err(self.claims_incomplete()) };
        }
        let message = format!("{field}: the connection does not allow to take over existing credentials");
        Err(tell(Reason::Forbidden, message, self.later()))
    }
}
