//! Which resource holds which credential, by the ledgers that verify.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
};

use kube::{Resource, ResourceExt};

use super::context::lock;
use crate::{
    api::{CredentialId, ToolzzCredential},
    plan::{Ledger, suspicious},
    remote::Reading,
};

/// What one resource holds.
#[derive(Clone)]
struct Claim {
    namespace: String,
    name: String,
    /// Base URL of the service: the same id may be somebody else's elsewhere.
    service: String,
    ledger: Ledger,
}

impl Claim {
    fn new(object: &ToolzzCredential, service: &str, ledger: &Ledger) -> Self {
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            service: service.to_owned(),
            ledger: ledger.clone(),
        }
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

    /// The other resources whose ledgers name a credential of this service, the one that goes first in front.
    fn others<'a>(
        &'a self,
        service: &'a str,
        id: &'a CredentialId,
        uid: &'a str,
    ) -> impl Iterator<Item = (&'a String, &'a Claim)> {
        let uids = self.by_credential.get(id).into_iter().flatten();
        uids.filter(move |other| *other != uid).filter_map(move |other| {
            let claim = self.claims.get(other)?;
            (claim.service == service).then_some((other, claim))
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
    pub fn set(&self, object: &ToolzzCredential, service: &str, ledger: &Ledger) {
        let Some(uid) = object.uid() else { return };
        lock(&self.0).insert(&uid, Claim::new(object, service, ledger));
    }

    /// Takes a credential for a resource, unless another holds it: who that is then. Before it is recorded, so that of
    /// two that want the same only one records it.
    pub fn take(&self, object: &ToolzzCredential, service: &str, ledger: &Ledger) -> Result<(), String> {
        let Some(uid) = object.uid() else { return Ok(()) };
        let mut state = lock(&self.0);
        if let Some((_, claim)) = ledger.named().find_map(|id| state.others(service, id, &uid).next()) {
            return Err(told(claim, object.meta().namespace.as_deref()));
        }
        state.insert(&uid, Claim::new(object, service, ledger));
        Ok(())
    }

    /// A resource holds nothing, or is gone.
    pub fn remove(&self, uid: &str) {
        lock(&self.0).remove(uid);
    }

    /// Who else holds a credential.
    pub fn holder(&self, object: &ToolzzCredential, service: &str, id: &CredentialId) -> Option<String> {
        let state = lock(&self.0);
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        state.others(service, id, uid).next().map(|(_, claim)| told(claim, object.meta().namespace.as_deref()))
    }

    /// Who else holds a resource's own credential and goes first: two operators may have recorded it at the same time.
    pub fn contester(&self, object: &ToolzzCredential, service: &str, id: &CredentialId) -> Option<String> {
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
            claims.any(|claim| claim.service == service && claim.ledger.id == *id)
        };
        let expected: Vec<&CredentialId> = reading.expected().filter(|id| held(id)).collect();
        let missing = expected.iter().filter(|id| !reading.shows(id)).count();
        (strays, reading.complete && suspicious(expected.len(), missing))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(namespace: &str, name: &str) -> ToolzzCredential {
        let uid = format!("uid of {namespace}/{name}");
        let spec = json!({"userId": "u", "unityId": "n", "integrationId": "i", "name": "n", "credentials": []});
        let manifest = json!({
            "apiVersion": "toolzz.com.br/v1alpha1",
            "kind": "ToolzzCredential",
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "spec": spec,
        });
        serde_json::from_value(manifest).unwrap()
    }

    fn ledger(object: &ToolzzCredential, id: &str) -> Ledger {
        Ledger {
            sequence: 0,
            uid: object.uid().unwrap(),
            id: id.into(),
            secret_id: "secret".into(),
            digest: "digest".to_owned(),
            staged_as: id.into(),
            adopted: None,
            retiring: Vec::new(),
        }
    }

    #[test]
    fn one_credential_has_one_holder() {
        let (first, second, stranger) = (resource("a", "first"), resource("a", "second"), resource("b", "third"));
        let claims = Claims::default();
        let take = |object: &ToolzzCredential, service: &str| claims.take(object, service, &ledger(object, "one"));
        assert_eq!(take(&first, "here"), Ok(()));
        assert_eq!(take(&first, "here"), Ok(()), "its own");
        assert_eq!(take(&second, "here"), Err("ToolzzCredential \"first\" of this namespace".to_owned()));
        assert_eq!(take(&stranger, "here"), Err("a resource of another namespace".to_owned()));
        assert_eq!(take(&stranger, "elsewhere"), Ok(()), "another service's ids mean nothing here");
        claims.remove(&first.uid().unwrap());
        assert_eq!(take(&second, "here"), Ok(()));
    }
}
