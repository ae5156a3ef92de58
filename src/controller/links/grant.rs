//! Who may use a connection of the platform, and for what.

use std::collections::{BTreeMap, HashSet};

use kube::core::{ParseExpressionError, Selector, SelectorExt};

use crate::api::{Adoption, ClusterToolzzConnectionSpec, UnityGrant};

/// The id that stands for every unity.
const EVERY: &str = "*";

/// Who may use a connection of the platform, and for what.
pub(super) struct Grant {
    names: HashSet<String>,
    selector: Option<Selector>,
    unities: Vec<UnityGrant>,
    pub may_adopt: bool,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// It is not given to the namespace.
    Namespace,
    /// It is, but not for this unity.
    Unity,
    /// It depends on the namespace's labels, which are not known.
    LabelsUnknown,
}

impl Grant {
    /// What a spec grants.
    ///
    /// # Errors
    /// The selector is none.
    pub fn of(spec: &ClusterToolzzConnectionSpec) -> Result<Self, ParseExpressionError> {
        Ok(Self {
            names: spec.namespaces.names.iter().flatten().cloned().collect(),
            selector: spec.namespaces.selector.clone().map(Selector::try_from).transpose()?,
            unities: spec.unities.clone(),
            may_adopt: spec.adoption == Some(Adoption::Allowed),
        })
    }

    /// Nobody may anything: what stands for a grant that cannot be read.
    pub fn nothing() -> Self {
        Self { names: HashSet::new(), selector: None, unities: Vec::new(), may_adopt: false }
    }

    /// Whether it depends on the labels of namespaces.
    pub fn is_by_label(&self) -> bool {
        self.selector.as_ref().is_some_and(|selector| !selector.selects_all())
    }

    /// Whether a namespace may use the connection for a unity. `labels` are the namespace's, where they are known.
    pub fn admits(
        &self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
        unity: &str,
    ) -> Result<(), Denial> {
        if !self.names.contains(namespace) {
            let Some(selector) = &self.selector else { return Err(Denial::Namespace) };
            // An empty selector selects also what nothing is known of.
            if !selector.selects_all() {
                let labels = labels.ok_or(Denial::LabelsUnknown)?;
                if !selector.matches(labels) {
                    return Err(Denial::Namespace);
                }
            }
        }
        let given = |grant: &&UnityGrant| {
            let this_unity = grant.id == EVERY || grant.id.eq_ignore_ascii_case(unity);
            this_unity && grant.namespaces.as_ref().is_none_or(|names| names.iter().any(|name| name == namespace))
        };
        self.unities.iter().find(given).map(|_| ()).ok_or(Denial::Unity)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const A: &str = "0b8e2d34-0000-4000-8000-00000000000a";
    const B: &str = "0b8e2d34-0000-4000-8000-00000000000b";

    fn grant(namespaces: Value, unities: Value) -> Grant {
        let spec = json!({
            "url": "https://api.example", "tokenSecretRef": {"name": "t", "key": "t"},
            "namespaces": namespaces, "unities": unities,
        });
        Grant::of(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    #[test]
    fn a_namespace_gets_what_it_is_given_and_nothing_else() {
        use Denial::{LabelsUnknown, Namespace, Unity};
        let label = |value: &str| Some(BTreeMap::from([("team".to_owned(), value.to_owned())]));
        let selected = json!({"selector": {"matchLabels": {"team": "red"}}});
        let both = json!({"names": ["x"], "selector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}});
        let every = json!([{"id": "*"}]);
        let shared = json!([{"id": A}, {"id": B.to_uppercase(), "namespaces": ["x"]}]);
        for (namespaces, unities, namespace, labels, unity, expected) in [
            (json!({"names": ["x"]}), &every, "x", None, A, Ok(())),
            (json!({"names": ["x"]}), &every, "y", label("red"), A, Err(Namespace)),
            (json!({"names": ["x"]}), &every, "xx", label("red"), A, Err(Namespace)),
            (json!({"selector": {}}), &every, "y", None, A, Ok(())),
            (selected.clone(), &every, "y", label("red"), A, Ok(())),
            (selected.clone(), &every, "y", label("blue"), A, Err(Namespace)),
            (selected.clone(), &every, "y", Some(BTreeMap::new()), A, Err(Namespace)),
            (selected, &every, "y", None, A, Err(LabelsUnknown)),
            (both.clone(), &shared, "x", None, B, Ok(())),
            (both.clone(), &shared, "y", label("any"), A, Ok(())),
            (both.clone(), &shared, "y", label("any"), B, Err(Unity)),
            (both, &shared, "x", None, "0b8e2d34-0000-4000-8000-00000000000c", Err(Unity)),
            (json!({}), &every, "x", None, A, Err(Namespace)),
        ] {
            let found = grant(namespaces.clone(), unities.clone()).admits(namespace, labels.as_ref(), unity);
            assert_eq!(found, expected, "{namespaces} {unities} {namespace} {labels:?} {unity}");
        }
        assert_eq!(Grant::nothing().admits("x", Some(&BTreeMap::new()), A), Err(Namespace));
    }
}
