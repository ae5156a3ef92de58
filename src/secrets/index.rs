//! Which resources refer to which Secret, and the version of each Secret that is referred to.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;

use super::Part;
use crate::api::{SecretVersion, ToolzzCredential};

type Resource = ObjectRef<ToolzzCredential>;

/// The reverse index. Secrets that nobody refers to leave no trace in it.
#[derive(Default)]
pub struct SecretIndex(Mutex<State>);

#[derive(Default)]
struct State {
    /// By namespace and name.
    secrets: HashMap<(String, String), Entry>,
    by_resource: HashMap<Resource, BTreeSet<String>>,
}

#[derive(Default)]
struct Entry {
    resources: HashSet<Resource>,
    version: Option<SecretVersion>,
    /// Shown by the relist that is under way.
    listed: bool,
}

impl SecretIndex {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A resource refers to these Secrets of its namespace, and to no others.
    pub fn set(&self, resource: Resource, names: BTreeSet<String>) {
        let mut state = self.state();
        if state.by_resource.get(&resource) == Some(&names) {
            return;
        }
        state.detach(&resource);
        // Most resources have no ConfigMap.
        if names.is_empty() {
            return;
        }
        let namespace = resource.namespace.clone().unwrap_or_default();
        for name in &names {
            let entry = state.secrets.entry((namespace.clone(), name.clone())).or_default();
            entry.resources.insert(resource.clone());
        }
        state.by_resource.insert(resource, names);
    }

    /// A resource is gone.
    pub fn remove(&self, resource: &Resource) {
        self.state().detach(resource);
    }

    /// A Secret came or changed: the resources to wake.
    pub fn applied(&self, secret: &ObjectMeta) -> Vec<Resource> {
        let mut state = self.state();
        let Some(entry) = state.entry(secret) else { return Vec::new() };
        entry.listed = true;
        let version = SecretVersion {
            name: secret.name.clone().unwrap_or_default(),
            uid: secret.uid.clone().unwrap_or_default(),
            resource_version: secret.resource_version.clone().unwrap_or_default(),
        };
        if entry.version.as_ref() == Some(&version) {
            return Vec::new();
        }
        entry.version = Some(version);
        entry.resources.iter().cloned().collect()
    }

    /// A Secret was read in this version: the watch may have shown it before anybody referred to it.
    pub fn read(&self, namespace: &str, version: &SecretVersion) {
        let mut state = self.state();
        if let Some(entry) = state.secrets.get_mut(&(namespace.to_owned(), version.name.clone()))
            && entry.version.is_none()
        {
            entry.version = Some(version.clone());
        }
    }

    /// The operator itself wrote this version.
    pub fn wrote(&self, namespace: &str, version: SecretVersion) {
        if let Some(entry) = self.state().secrets.get_mut(&(namespace.to_owned(), version.name.clone())) {
            entry.version = Some(version);
        }
    }

    /// A Secret is gone: the resources to wake.
    pub fn deleted(&self, secret: &ObjectMeta) -> Vec<Resource> {
        let mut state = self.state();
        state.entry(secret).map(Entry::lose).unwrap_or_default()
    }

    /// All Secrets of a part are being listed again.
    pub fn relist_started(&self, part: &Part) {
        let mut state = self.state();
        state.part(part).for_each(|entry| entry.listed = false);
    }

    /// The list is complete: what it did not show is gone. The resources to wake.
    pub fn relist_finished(&self, part: &Part) -> Vec<Resource> {
        let mut state = self.state();
        state.part(part).filter(|entry| !entry.listed && entry.version.is_some()).flat_map(Entry::lose).collect()
    }

    /// The versions of these Secrets, by name; `None` unless every one is known.
    pub fn versions(&self, namespace: &str, names: &BTreeSet<String>) -> Option<Vec<SecretVersion>> {
        let state = self.state();
        names.iter().map(|name| state.secrets.get(&(namespace.to_owned(), name.clone()))?.version.clone()).collect()
    }
}

impl State {
    fn entry(&mut self, secret: &ObjectMeta) -> Option<&mut Entry> {
        self.secrets.get_mut(&(secret.namespace.clone()?, secret.name.clone()?))
    }

    fn part<'a>(&'a mut self, part: &'a Part) -> impl Iterator<Item = &'a mut Entry> {
        self.secrets.iter_mut().filter(|((namespace, name), _)| part.has(namespace, name)).map(|(_, entry)| entry)
    }

    fn detach(&mut self, resource: &Resource) {
        let namespace = resource.namespace.clone().unwrap_or_default();
        for name in self.by_resource.remove(resource).unwrap_or_default() {
            let key = (namespace.clone(), name);
            if let Some(entry) = self.secrets.get_mut(&key) {
                entry.resources.remove(resource);
                if entry.resources.is_empty() {
                    self.secrets.remove(&key);
                }
            }
        }
    }
}

impl Entry {
    fn lose(&mut self) -> Vec<Resource> {
        self.version = None;
        self.resources.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str) -> Resource {
        ObjectRef::new(name).within("ns")
    }

    fn secret(name: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some("u".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn wakes_who_refers_to_a_secret_and_keeps_nothing_of_others() {
        let index = SecretIndex::default();
        assert!(index.applied(&secret("a", "1")).is_empty());
        index.set(resource("x"), names(&["a", "b"]));
        index.set(resource("y"), names(&["a"]));
        assert_eq!(index.applied(&secret("a", "1")).len(), 2);
        assert!(index.applied(&secret("a", "1")).is_empty(), "the same version again");
        assert_eq!(index.applied(&secret("a", "2")).len(), 2);
        assert_eq!(index.versions("ns", &names(&["a", "b"])), None, "b is not known");
        assert_eq!(index.applied(&secret("b", "7")), [resource("x")]);
        assert_eq!(index.versions("ns", &names(&["a", "b"])).map(|all| all.len()), Some(2));

        index.set(resource("z"), names(&["c"]));
        let version =
            |version: &str| SecretVersion { name: "c".into(), uid: "u".into(), resource_version: version.into() };
        index.read("ns", &version("4"));
        assert!(index.applied(&secret("c", "4")).is_empty(), "known from reading it");
        index.read("ns", &version("3"));
        assert_eq!(index.versions("ns", &names(&["c"])), Some(vec![version("4")]), "the watch knows better");

        index.set(resource("x"), names(&["b"]));
        index.remove(&resource("y"));
        assert!(index.applied(&secret("a", "3")).is_empty());
        assert_eq!(index.versions("ns", &names(&["a"])), None);
        assert_eq!(index.deleted(&secret("b", "7")), [resource("x")]);
    }

    #[test]
    fn what_a_relist_does_not_show_is_gone() {
        let index = SecretIndex::default();
        index.set(resource("x"), names(&["a"]));
        index.set(resource("y"), names(&["b"]));
        index.applied(&secret("a", "1"));
        index.applied(&secret("b", "1"));
        let all = Part::of(None);
        index.relist_started(&all);
        index.applied(&secret("a", "1"));
        assert_eq!(index.relist_finished(&all), [resource("y")]);
        for part in [Part::of(Some("other".into())), Part { namespace: Some("ns".into()), name: Some("c".into()) }] {
            index.relist_started(&part);
            assert!(index.relist_finished(&part).is_empty(), "{part:?}");
        }
    }
}
