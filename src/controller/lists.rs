//! What went while nobody watched: a watch does not announce that singly.

use std::collections::{HashMap, HashSet};

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use crate::api::ToolzzCredential;

type Name = ObjectRef<ToolzzCredential>;

/// Follows the lists of a watch on resources.
#[derive(Default)]
pub(super) struct Lists {
    /// By uid, what lists have shown that did not come to their end: it may be gone when the next one begins.
    begun: HashMap<String, Name>,
    /// What the present one has shown.
    shown: HashMap<String, Name>,
}

/// A resource that is there no longer.
pub(super) struct Gone {
    pub uid: String,
    pub name: Name,
    /// No other resource has taken it.
    pub name_is_free: bool,
}

impl Lists {
    pub fn begins(&mut self) {
        self.begun.extend(self.shown.drain());
    }

    pub fn shows(&mut self, object: &ToolzzCredential) {
        self.shown.insert(object.uid().unwrap_or_default(), Name::from_obj(object));
    }

    /// The list is complete. What is gone of what was there before, and what is there.
    pub fn ends(&mut self, before: impl IntoIterator<Item = (String, Name)>) -> (Vec<Gone>, HashMap<String, Name>) {
        let shown = std::mem::take(&mut self.shown);
        self.begun.extend(before);
        let names: HashSet<&Name> = shown.values().collect();
        let gone = self.begun.drain().filter(|(uid, _)| !shown.contains_key(uid));
        let gone = gone.map(|(uid, name)| Gone { name_is_free: !names.contains(&name), uid, name }).collect();
        (gone, shown)
    }
}
