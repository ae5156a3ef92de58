//! Which resource holds which credential, by the ledgers that verify.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Mutex,
};

use kube::{Resource, ResourceExt};

use super::context::lock;
use crate::{
    api::{ConnectionKey, CredentialId, ToolzzCredential},
    plan::{Ledger, suspicious},
    remote::Reading,
};

/// What one resource holds.
#[derive(Clone)]
struct Claim {
    namespace: String,
    name: String,
    /// Over which it is held. Where that leads to may change without anything else of the resource.
    connection: ConnectionKey,
    ledger: Ledger,
}

impl Claim {
    fn new(object: &ToolzzCredential, ledger: &Ledger) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            connection: ConnectionKey::of(object),
            ledger: ledger.clone(),
        }
    }
}

/// A service, and the connection that leads the one who asks there.
struct Service<'a> {
    name: &'a str,
    over: ConnectionKey,
}

impl<'a> Service<'a> {
    fn of(object: &ToolzzCredential, name: &'a str) -> Self {
        Self { name, over: ConnectionKey::of(object) }
    }
}

/// Which resource holds which credential. By the resources' uids.
#[derive(Default)]
pub(super) struct Claims(Mutex<State>);

#[derive(Default)]
struct State {
    claims: HashMap<String, Claim>,
    /// The resources whose ledgers name a credential, in whatever role.
    by_credential: HashMap<CredentialId, BTreeSet<String>>,
    /// Where each connection led to when it was last made: the same id may be somebody else's elsewhere.
    services: HashMap<ConnectionKey, String>,
}

impl State {
    fn remove(&mut self, uid: &str) -> Option<Claim> {
        let claim = self.claims.remove(uid)?;
        for id in claim.ledger.named() {
            if let Some(uids) = self.by_credential.get_mut(id) {
                uids.remove(uid);
                if uids.is_empty() {
                    self.by_credential.remove(id);
                }
            }
        }
        Some(claim)
    }

    fn insert(&mut self, uid: &str, claim: Claim) {
        self.remove(uid);
        for id in claim.ledger.named() {
            self.by_credential.entry(id.clone()).or_default().insert(uid.to_owned());
        }
        self.claims.insert(uid.to_owned(), claim);
    }

    fn is_of(&self, claim: &Claim, service: &str) -> bool {
        self.services.get(&claim.connection).is_some_and(|led_to| led_to == service)
    }

    /// The other resources whose ledgers name a credential of this service, the one that goes first in front.
    fn others<'a>(
        &'a self,
        service: &'a Service<'a>,
        id: &'a CredentialId,
        uid: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Claim)> {
        let uids = self.by_credential.get(id).into_iter().flatten();
        uids.filter(move |other| *other != uid).filter_map(move |other| {
            let claim = self.claims.get(other)?;
            // Whoever uses the same connection, also when it leads elsewhere since the asker's pass began.
            let counts = claim.connection == service.over || self.is_of(claim, service.name);
            counts.then_some((other, claim))
        })
    }
}

/// A holder, told to somebody in this namespace: what is in another one is not shown.
fn told(claim: &Claim, namespace: Option<&str>) -> String {
    if Some(claim.namespace.as_str()) == namespace {
        format!("ToolzzCredential {:?} of this namespace", claim.name)
    } else {
        "a resource of another namespace".to_owned()
    }
}

impl Claims {
    /// Takes note of what a resource's ledger says.
    pub fn set(&self, object: &ToolzzCredential, ledger: &Ledger) {
        let Some(uid) = object.uid() else { return };
        lock(&self.0).insert(&uid, Claim::new(object, ledger));
    }

    /// A connection leads to this service from now on, and with it whatever is held over it.
    pub fn leads(&self, connection: &ConnectionKey, service: &str) {
        lock(&self.0).services.insert(connection.clone(), service.to_owned());
    }

    /// Forgets where connections led to that are not there, unless something is held over them: a connection that is away
    /// for a moment takes nothing away from anybody.
    pub fn keep_services(&self, is_there: impl Fn(&ConnectionKey) -> bool) {
        let State { claims, services, .. } = &mut *lock(&self.0);
        let used: HashSet<&ConnectionKey> = claims.values().map(|claim| &claim.connection).collect();
        services.retain(|connection, _| is_there(connection) || used.contains(connection));
    }

    /// Takes a credential for a resource, unless another holds it: who that is then. Before it is recorded, so that of
    /// two that want the same only one records it.
    pub fn take(&self, object: &ToolzzCredential, service: &str, ledger: &Ledger) -> Result<(), String> {
        let Some(uid) = object.uid() else { return Ok(()) };
        let service = &Service::of(object, service);
        let mut state = lock(&self.0);
        if let Some((_, claim)) = ledger.named().find_map(|id| state.others(service, id, &uid).next()) {
            return Err(told(claim, object.meta().namespace.as_deref()));
        }
        state.insert(&uid, Claim::new(object, ledger));
        Ok(())
    }

    /// A resource holds nothing, or is gone.
    pub fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Who else holds a credential.
    pub fn holder(&self, object: &ToolzzCredential, service: &str, id: &CredentialId) -> Option<String> {
        let service = &Service::of(object, service);
        let state = lock(&self.0);
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        state.others(service, id, uid).next().map(|(_, claim)| told(claim, object.meta().namespace.as_deref()))
    }

    /// Who else holds a resource's own credential and goes first: two operators may have recorded it at the same time.
    pub fn contester(&self, object: &ToolzzCredential, service: &str, id: &CredentialId) -> Option<String> {
        let service = &Service::of(object, service);
        let state = lock(&self.0);
        let uid = object.uid().unwrap_or_default();
        state
            .others(service, id, &uid)
            .find(|(other, claim)| **other < uid && claim.ledger.id == *id)
            .map(|(_, claim)| told(claim, object.meta().namespace.as_deref()))
    }

    /// Judges a listing: how many marked credentials no ledger names, and whether so many of those that should be in
    /// it vanished that it is not to be believed.
    pub fn audit(&self, service: &str, reading: &Reading<'_>) -> (usize, bool) {
        let state = lock(&self.0);
        let strays = reading.marked().filter(|id| !state.by_credential.contains_key(id)).count();
        // What the listing itself showed, not what resources say: their specs are their authors'.
        let held = |id: &CredentialId| {
            let uids = state.by_credential.get(id).into_iter().flatten();
            let mut claims = uids.filter_map(|uid| state.claims.get(uid));
            claims.any(|claim| state.is_of(claim, service) && claim.ledger.id == *id)
        };
        let expected: Vec<&CredentialId> = reading.expected().filter(|id| held(id)).collect();
        let missing = expected.iter().filter(|id| !reading.shows(id)).count();
        (strays, reading.complete && suspicious(expected.len(), missing))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{ledger, over_another, resource},
        *,
    };

    #[test]
    fn one_credential_has_one_holder() {
        let (first, second, stranger) = (resource("a", "first"), resource("a", "second"), resource("b", "third"));
        let far = over_another(resource("b", "fourth"));
        let claims = Claims::default();
        claims.leads(&ConnectionKey::of(&first), "here");
        claims.leads(&ConnectionKey::of(&far), "elsewhere");
        let take = |object: &ToolzzCredential, service: &str| claims.take(object, service, &ledger(object, "one"));
        assert_eq!(take(&first, "here"), Ok(()));
        assert_eq!(take(&first, "here"), Ok(()), "its own");
        assert_eq!(take(&second, "here"), Err("ToolzzCredential \"first\" of this namespace".to_owned()));
        assert_eq!(take(&stranger, "here"), Err("a resource of another namespace".to_owned()));
        assert_eq!(take(&far, "elsewhere"), Ok(()), "another service's ids mean nothing here");
        claims.remove(&first.uid().unwrap());
        assert_eq!(take(&second, "here"), Ok(()));
    }

    #[test]
    fn what_is_held_goes_where_its_connection_leads() {
        let (holder, mate) = (resource("a", "holder"), resource("a", "mate"));
        let other = over_another(resource("a", "other"));
        let (key, id) = (ConnectionKey::default_of_cluster(), "one".into());
        let claims = Claims::default();
        claims.set(&holder, &ledger(&holder, "one"));
        let is_held = |service: &str| claims.holder(&other, service, &id).is_some();
        assert!(!is_held("here"), "nobody knows where it leads");
        claims.leads(&key, "here");
        assert!(is_held("here"));
        claims.leads(&key, "there");
        assert!(is_held("there") && !is_held("here"));
        assert!(claims.holder(&mate, "here", &id).is_some(), "its pass began before");
        claims.keep_services(|_| false);
        assert!(is_held("there"), "away for a moment");
        claims.remove(&holder.uid().unwrap());
        claims.keep_services(|_| false);
        claims.set(&holder, &ledger(&holder, "one"));
        assert!(!is_held("there"), "forgotten");
    }
}
