//! What a request asks for, read from its method, path and query.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris>

use hyper::{Method, Uri};

/// The verb, as RBAC has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// One object.
    Get,
    /// Many objects.
    List,
    /// A stream of changes.
    Watch,
    /// `POST`.
    Create,
    /// `PUT`.
    Update,
    /// `PATCH`, server-side apply included.
    Patch,
    /// `DELETE` of one object.
    Delete,
    /// `DELETE` of many.
    DeleteCollection,
    /// What is no resource: discovery, health, version.
    Other,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The verb.
    pub operation: Operation,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name of the resource, `configmaps` for instance; the path for [`Operation::Other`].
    pub resource: String,
    /// Namespace, if one is named.
    pub namespace: Option<String>,
    /// Name of the object; of one that is created, as its body says.
    pub name: Option<String>,
    /// Subresource, `status` for instance.
    pub subresource: Option<String>,
}

impl Asked {
    /// Reads method, path and query; the body only for the name of what is created.
    pub(crate) fn read(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let (group, rest) = match segments.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => ("", [].as_slice()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) => {
                (Some(*namespace), rest)
            }
            rest => (None, rest),
        };
        let [resource, of @ ..] = rest else {
            return Self {
                operation: Operation::Other,
                group: group.to_owned(),
                resource: uri.path().to_owned(),
                namespace: None,
                name: None,
                subresource: None,
            };
        };
        let named = of.first().map(|name| (*name).to_owned());
        let mut query = uri.query().unwrap_or_default().split('&');
        let watches = query.any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1"));
        let operation = match (method.as_str(), &named) {
            ("GET", _) if watches => Operation::Watch,
            ("GET", Some(_)) => Operation::Get,
            ("GET", None) => Operation::List,
            ("POST", _) => Operation::Create,
            ("PUT", _) => Operation::Update,
            ("PATCH", _) => Operation::Patch,
            ("DELETE", Some(_)) => Operation::Delete,
            ("DELETE", None) => Operation::DeleteCollection,
            _ => Operation::Other,
        };
        Self {
            operation,
            group: group.to_owned(),
            resource: (*resource).to_owned(),
            namespace: namespace.map(str::to_owned),
            name: named.or_else(|| name_in(body)),
            subresource: of.get(1).map(|subresource| (*subresource).to_owned()),
        }
    }

    /// Whether it may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        use Operation::{Create, Delete, DeleteCollection, Patch, Update};
        matches!(self.operation, Create | Update | Patch | Delete | DeleteCollection)
    }

    /// Whether it may change an object of this resource (plural name), whatever the subresource.
    #[must_use]
    pub fn is_write_to(&self, resource: &str) -> bool {
        self.is_write() && self.resource == resource
    }

    /// Whether it is a watch on this resource (plural name).
    #[must_use]
    pub fn is_watch_on(&self, resource: &str) -> bool {
        self.operation == Operation::Watch && self.resource == resource
    }
}

fn name_in(body: &[u8]) -> Option<String> {
    let object: serde_json::Value = serde_json::from_slice(body).ok()?;
    object["metadata"]["name"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_and_names_are_those_of_rbac() {
        use Operation::{Create, Delete, Get, List, Other, Patch, Watch};
        let body = br#"{"metadata":{"name":"new"},"data":{}}"#;
        for (method, uri, operation, resource, namespace, name, subresource) in [
            ("GET", "/version", Other, "/version", None, None, None),
            ("GET", "/api/v1/secrets?limit=500", List, "secrets", None, None, None),
            ("GET", "/api/v1/namespaces/a/secrets?x=1&watch=true", Watch, "secrets", Some("a"), None, None),
            ("GET", "/api/v1/namespaces/a", Get, "namespaces", None, Some("a"), None),
            ("PATCH", "/api/v1/namespaces/a/status", Patch, "namespaces", None, Some("a"), Some("status")),
            ("POST", "/api/v1/namespaces/a/configmaps?", Create, "configmaps", Some("a"), Some("new"), None),
            (
                "PATCH",
                "/apis/g.io/v1/namespaces/a/things/t/status",
                Patch,
                "things",
                Some("a"),
                Some("t"),
                Some("status"),
            ),
            ("DELETE", "/apis/g.io/v1/clusterthings/t", Delete, "clusterthings", None, Some("t"), None),
        ] {
            let method = method.parse().expect("a method");
            let body: &[u8] = if operation == Create { body } else { b"" };
            let asked = Asked::read(&method, &uri.parse().expect("a path"), body);
            let seen = (asked.operation, asked.resource.as_str(), asked.namespace.as_deref(), asked.name.as_deref());
            assert_eq!(seen, (operation, resource, namespace, name), "{uri}");
            assert_eq!(asked.subresource.as_deref(), subresource, "{uri}");
            assert_eq!(asked.group, if uri.contains("g.io") { "g.io" } else { "" });
        }
    }
}
