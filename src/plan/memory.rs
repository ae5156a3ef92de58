//! What the process remembers of a resource between two looks at it.

use std::time::Duration;

use super::{Ledger, Put, Recorded, Rejection, Sight, differences};
use crate::api::{CredentialId, Fields, Reason, Row, SecretId, TargetStatus, Tick};

/// Why nothing can be done for the moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// As a reason.
    pub reason: Reason,
    /// For people; nothing of a remote body.
    pub message: String,
    /// When to try again; `None`: when something changes.
    pub retry_at: Option<Tick>,
}

/// A credential that PUTs were told does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its id.
    pub id: CredentialId,
    /// When the first PUT was told.
    pub since: Tick,
    /// When the last one was.
    pub last: Tick,
}

/// Key material that Toolzz took with an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentInPlace {
    /// Its digest.
    pub digest: String,
    /// The secretId of the answer.
    pub secret_id: SecretId,
    /// When it was sent: it holds at the earliest since then.
    pub at: Tick,
}

/// What this process remembers of a resource. Losing it costs a look, never a credential.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// When the resource was first seen: a look for a marker begins after it.
    pub first_seen: Tick,
    /// When a POST was given up with its outcome unknown, or was answered and what it made is not recorded yet.
    pub given_up: Option<Tick>,
    /// What the status tells of a create whose outcome an earlier process did not know is settled.
    pub told_create_settled: bool,
    /// How many POSTs were given up since one was answered.
    pub lost_posts: u32,
    /// When a PUT was given up with its outcome unknown: what was seen before is in doubt.
    pub doubt: Option<Tick>,
    /// Until when a PUT whose answer was lost may still take effect, or may have overtaken what is known.
    pub late_until: Option<Tick>,
    /// When the first listing began that lacked the recorded credential.
    pub absent_since: Option<Tick>,
    /// What a PUT for the resource's own credential was told does not exist.
    pub gone: Option<Gone>,
    /// The fields the last PUT set, until the status says so.
    pub corrected: Vec<&'static str>,
    /// Credentials that were deactivated for good, or are gone, and since when that is known: when the update was sent,
    /// or the listing began, that showed it.
    pub inactive: Vec<(CredentialId, Tick)>,
    /// Credentials that were to be deactivated and do not exist.
    pub nowhere: Vec<CredentialId>,
    /// Credentials that a deactivation was told do not exist, and when. One answer is not believed.
    pub missing: Vec<(CredentialId, Tick)>,
    /// The material that was sent in place and is not recorded yet.
    pub in_place: Option<SentInPlace>,
    /// This process wrote the first record: no update of another one is on its way.
    pub began_here: bool,
    /// This process wrote the status, or tried to.
    pub published: bool,
    /// This process recorded that the material is unknown: none before it has an update on its way that carries any.
    pub marked_unknown: bool,
    /// The last value of the user's request, and when it was seen.
    pub requested: Option<(String, Tick)>,
    /// The target as this process wrote it.
    pub target: Option<TargetStatus>,
    /// The uid of a former target that is gone.
    pub target_dropped: Option<String>,
    /// Why the target cannot be written, and when that was found.
    pub target_conflict: Option<(String, Tick)>,
    /// The requests the API refused in this process, since one for the resource's own credential was taken.
    pub rejected: Vec<Rejection>,
    /// What keeps the operator from going on.
    pub trouble: Option<Trouble>,
}

impl Memory {
    /// Takes note of what a fresh listing shows of the recorded credential and the superseded ones.
    pub fn observe(&mut self, sight: &Sight) {
        self.absent_since = match (&sight.recorded, sight.listing) {
            (None, Some(listing)) if listing.complete => self.absent_since.or(Some(listing.began_at)),
            (None, _) => self.absent_since,
            (Some(_), _) => None,
        };
        if sight.recorded.as_ref().is_some_and(|seen| self.gone.as_ref().is_some_and(|gone| seen.at > gone.last)) {
            self.gone = None;
        }
        if let Some(listing) = sight.listing.filter(|listing| listing.complete && !listing.suspect) {
            // What is active is in every listing.
            let active = |id: &CredentialId| {
                let mut shown = sight.recorded.iter().chain(&sight.retiring);
                shown.any(|seen| seen.row.id == *id && seen.row.fields.active)
            };
            let (told, open) =
                std::mem::take(&mut self.missing).into_iter().partition(|(_, at)| listing.began_at > *at);
            self.missing = open;
            for (id, _) in Vec::into_iter(told).filter(|(id, _)| !active(id)) {
                self.deactivated(&id, listing.began_at);
                let shown = sight.recorded.iter().chain(&sight.retiring).any(|seen| seen.row.id == id);
                if !shown && !self.nowhere.contains(&id) {
                    self.nowhere.push(id);
                }
            }
        }
        // What had retired can be the resource's own again: also that is known to be active when it is seen so. What is
        // seen inactive is not known to be: another operator may have activated it since.
        for seen in sight.retiring.iter().chain(&sight.recorded) {
            if seen.row.fields.active && self.inactive_since(&seen.row.id).is_some_and(|since| seen.at > since) {
                self.inactive.retain(|(id, _)| *id != seen.row.id);
            }
        }
    }

    /// A POST is sent: whatever becomes of it, what was known of an earlier one is settled by now.
    pub fn posting(&mut self) {
        self.create_settled();
    }

    /// The status is written: whatever becomes of that, it does not stand as an earlier process left it.
    pub fn publishing(&mut self) {
        self.published = true;
    }

    fn create_settled(&mut self) {
        (self.given_up, self.told_create_settled) = (None, true);
    }

    /// A POST was answered. Until what it made is recorded, a listing that lacks it is no reason to send another at once.
    pub fn posted(&mut self, now: Tick) {
        self.lost_posts = 0;
        self.given_up = Some(now);
    }

    /// A POST was given up with its outcome unknown.
    pub fn post_lost(&mut self, now: Tick) {
        self.given_up = Some(now);
        self.lost_posts += 1;
    }

    /// A PUT was given up with its outcome unknown.
    pub fn put_lost(&mut self, now: Tick, settle_period: Duration) {
        self.doubt = Some(now);
        self.late_until = self.late_until.max(Some(now + settle_period));
    }

    /// A PUT for the resource's own credential was told that it does not exist.
    pub fn told_gone(&mut self, id: &CredentialId, now: Tick) {
        let since = self.gone.as_ref().filter(|gone| gone.id == *id).map_or(now, |gone| gone.since);
        self.gone = Some(Gone { id: id.clone(), since, last: now });
    }

    /// A PUT was answered with this row.
    pub fn put_answered(&mut self, put: &Put, row: &Row, answered: &Answered, settle_period: Duration) {
        let Answered { own, deleting, sent, now, before } = *answered;
        let rejection = put.verify(row, now);
        if own {
            self.rejected.clear();
            self.doubt = None;
            // What really changed: where nothing was seen the whole row was sent.
            let changes = match before {
                Some(before) if put.material.is_none() => differences(&row.fields, before),
                _ => put.changes.clone(),
            };
            changes.into_iter().for_each(|change| {
                if !self.corrected.contains(&change) {
                    self.corrected.push(change);
                }
            });
        }
        // An answer says what was so when the update took effect, which may have been as early as it was sent. What may
        // come late may have come since.
        if self.late_until.is_some_and(|late_until| sent <= late_until) {
            self.late_until = self.late_until.max(Some(now));
        }
        if row.fields.active {
            self.inactive.retain(|(id, _)| *id != put.id);
        } else if deleting || !own {
            // Where the answer was long in coming, a listing from before it may have shown what came in between. What is
            // looked at a settle period later must not be such a one.
            self.deactivated(&put.id, sent.max(now - settle_period));
        }
        if let (Some(digest), None) = (&put.material, &rejection) {
            let secret_id = row.fields.secret_id.clone();
            self.in_place = Some(SentInPlace { digest: digest.clone(), secret_id, at: sent });
        }
        if let Some(rejection) = rejection {
            self.refused(rejection);
        }
    }

    /// A record was written in the place of this one.
    pub fn recorded(&mut self, before: &Recorded, ledger: &Ledger) {
        self.create_settled();
        self.in_place = None;
        match before {
            Recorded::Own(before) | Recorded::Former { ledger: before, .. } => {
                self.marked_unknown |= !before.digest.is_empty() && ledger.digest.is_empty();
            }
            Recorded::Nothing => {
                self.began_here = true;
                self.marked_unknown |= ledger.digest.is_empty();
            }
            Recorded::Forged => self.marked_unknown |= ledger.digest.is_empty(),
        }
    }

    /// Takes note of a user's request, once.
    pub fn note_request(&mut self, request: &str, now: Tick) {
        if self.requested.as_ref().is_none_or(|(noted, _)| noted != request) {
            self.requested = Some((request.to_owned(), now));
            // "Now" means whatever stood in the way before.
            (self.trouble, self.target_conflict) = (None, None);
            self.rejected.clear();
        }
    }

    /// Takes note that a credential was deactivated, or is gone.
    pub fn deactivated(&mut self, id: &CredentialId, at: Tick) {
        self.inactive.retain(|(other, _)| other != id);
        self.inactive.push((id.clone(), at));
    }

    /// When a deactivation was told that a credential does not exist, if no listing has settled that yet.
    pub fn missing_since(&self, id: &CredentialId) -> Option<Tick> {
        self.missing.iter().find_map(|(other, at)| (other == id).then_some(*at))
    }

    /// Takes note that the API refused a request.
    pub fn refused(&mut self, rejection: Rejection) {
        self.rejected.retain(|other| other.request != rejection.request);
        self.rejected.push(rejection);
    }

    /// Whether the API refused this request in this process.
    pub fn rejection(&self, request: &str) -> Option<&Rejection> {
        self.rejected.iter().find(|rejection| rejection.request == request)
    }

    /// Since when a credential is known to be inactive.
    pub fn inactive_since(&self, id: &CredentialId) -> Option<Tick> {
        self.inactive.iter().find_map(|(other, since)| (other == id).then_some(*since))
    }
}

/// How a PUT came to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// It was for the resource's own credential, not a superseded one.
    pub own: bool,
    /// The resource is being deleted.
    pub deleting: bool,
    /// When the PUT was sent.
    pub sent: Tick,
    /// When its answer was there.
    pub now: Tick,
    /// The row as it was known before.
    pub before: Option<&'a Fields>,
}
