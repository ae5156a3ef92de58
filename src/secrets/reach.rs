//! Which Secrets the operator was given.

use std::collections::{BTreeMap, BTreeSet};

/// The Secrets the operator may read and watch. RBAC has no right to see that a Secret changed without one to read it, and
/// none to watch some names only; so what is watched has to be what was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Those of every namespace it works in.
    #[default]
    Scope,
    /// Those of these namespaces.
    Namespaces(BTreeSet<String>),
    /// Those of these names, by namespace.
    Names(BTreeMap<String, BTreeSet<String>>),
}

/// What is listed and watched as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Absent: all namespaces.
    pub namespace: Option<String>,
    /// Absent: all of them.
    pub name: Option<String>,
}

impl Part {
    /// All of a namespace, or of all.
    pub fn of(namespace: Option<String>) -> Self {
        Self { namespace, name: None }
    }

    /// Whether this object is in it.
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
            && self.name.as_deref().is_none_or(|own| own == name)
    }
}

impl Reach {
    /// Whether this Secret was given, wherever the operator works.
    pub fn covers(&self, namespace: &str, name: &str) -> bool {
        match self {
            Self::Scope => true,
            Self::Namespaces(namespaces) => namespaces.contains(namespace),
            Self::Names(names) => names.get(namespace).is_some_and(|names| names.contains(name)),
        }
    }

    /// What to watch of a scope: a namespace, or all.
    pub fn parts(&self, scope: Option<&str>) -> Vec<Part> {
        let within = |namespace: &&String| scope.is_none_or(|scope| scope == *namespace);
        match self {
            Self::Scope => vec![Part::of(scope.map(str::to_owned))],
            Self::Namespaces(namespaces) => {
                namespaces.iter().filter(within).map(|namespace| Part::of(Some(namespace.clone()))).collect()
            }
            Self::Names(names) => names
                .iter()
                .filter(|(namespace, _)| within(namespace))
                .flat_map(|(namespace, names)| {
                    let part = |name: &String| Part { namespace: Some(namespace.clone()), name: Some(name.clone()) };
                    names.iter().map(part)
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_what_was_given() {
        let named =
            Reach::Names([("ai".into(), ["a".into(), "b".into()].into()), ("data".into(), ["c".into()].into())].into());
        let some = Reach::Namespaces(["ai".into()].into());
        for (reach, scope, parts) in [
            (&Reach::Scope, None, 1),
            (&Reach::Scope, Some("ai"), 1),
            (&some, None, 1),
            (&some, Some("data"), 0),
            (&named, None, 3),
            (&named, Some("ai"), 2),
        ] {
            let watched = reach.parts(scope);
            assert_eq!(watched.len(), parts, "{reach:?} {scope:?}");
            for (namespace, name) in [("ai", "a"), ("ai", "c"), ("data", "c"), ("other", "a")] {
                let given = reach.covers(namespace, name) && scope.is_none_or(|scope| scope == namespace);
                let seen = watched.iter().filter(|part| part.has(namespace, name)).count();
                assert_eq!(seen, usize::from(given), "{reach:?} {scope:?} {namespace}/{name}");
            }
        }
    }
}
