//! JSON schemas for kubeconform, from what a running API server says of its kinds and from CustomResourceDefinitions.
//!
//! kubeconform usually fetches its schemas, made from some release of Kubernetes. These need no network, are of the very
//! version that is tested against, and know the custom resources. They are strict: a field that the API server would
//! drop, or refuse under strict validation, is refused. That goes for every object whose fields are listed, unless its
//! schema says that it may have others. `null` is refused where a schema does not allow it, although the API server takes
//! it for an absent field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use kube::Client;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

/// Where OpenAPI documents have their schemas, and where JSON schemas have them.
const COMPONENTS: &str = "#/components/schemas/";
const DEFINITIONS: &str = "#/definitions/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// Why there are no schemas.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer as it should.
    #[error("cannot get {path} from the API server")]
    Request {
        /// The path asked for.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no YAML of Kubernetes.
    #[error("cannot understand {path}")]
    Yaml {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file has no CustomResourceDefinition with a schema.
    #[error("{path} has no CustomResourceDefinition with a schema")]
    NoDefinition {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The `-schema-location` that makes kubeconform look in the folder.
pub fn location(folder: &Path) -> String {
    format!("{}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json", folder.display())
}

/// Writes a schema for each kind that the API server serves, and for those that the YAML files define, which need not be
/// installed there.
///
/// # Errors
///
/// Among others when a file has no CustomResourceDefinition.
pub async fn write(client: &Client, definitions: &[PathBuf], folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|source| Error::Write { path: folder.to_owned(), source })?;
    let index: Index = get(client, "/openapi/v3").await?;
    let mut core = Schemas::new();
    for name in index.paths.keys() {
        let Some((group, version)) = group_and_version(name) else { continue };
        // Not by the address that the index gives: its hash may be of a document that has changed since, as one does for a
        // while after a definition was applied, and is then answered with a redirection.
        let document: Document = get(client, &format!("/openapi/v3/{name}")).await?;
        let schemas = document.components.schemas;
        for schema in schemas.values() {
            if let Some(kind) = kind_of(schema, group, version) {
                save(folder, kind, group, version, &bundle(schema.clone(), &schemas))?;
            }
        }
        if group.is_empty() {
            core = schemas;
        }
    }
    for path in definitions {
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let definitions =
            custom_resources(&text).map_err(|source| Error::Yaml { path: path.clone(), source: Box::new(source) })?;
        if definitions.is_empty() {
            return Err(Error::NoDefinition { path: path.clone() });
        }
        for CustomResource { group, kind, version, schema } in definitions {
            save(folder, &kind, &group, &version, &bundle(schema, &core))?;
        }
    }
    Ok(())
}

/// Schemas by name.
type Schemas = BTreeMap<String, Value>;

/// The answer to `/openapi/v3`.
#[derive(Deserialize)]
struct Index {
    paths: BTreeMap<String, IgnoredAny>,
}

/// The OpenAPI document of one version of a group.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    components: Components,
}

#[derive(Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: Schemas,
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Request { path: path.to_owned(), source };
    let request = http::Request::get(path).body(Vec::new()).map_err(|error| failed(error.into()))?;
    client.request(request).await.map_err(|error| failed(error.into()))
}

/// `api/v1` is version v1 of the group without a name, `apis/apps/v1` that of the group apps; others have no kinds.
fn group_and_version(path: &str) -> Option<(&str, &str)> {
    match *path.split('/').collect::<Vec<_>>() {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

/// The kind that this is the schema of. What belongs to many kinds, such as DeleteOptions, is nothing to write manifests
/// of.
fn kind_of<'a>(schema: &'a Value, group: &str, version: &str) -> Option<&'a str> {
    let [kind] = schema[KINDS].as_array()?.as_slice() else { return None };
    (kind["group"] == group && kind["version"] == version).then(|| kind["kind"].as_str()).flatten()
}

struct CustomResource {
    group: String,
    kind: String,
    version: String,
    schema: Value,
}

/// The custom resources that the documents of a YAML file define.
fn custom_resources(text: &str) -> Result<Vec<CustomResource>, serde_saphyr::Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let mut found = Vec::new();
    for document in documents.into_iter().filter(|document| document["kind"] == "CustomResourceDefinition") {
        let spec = &document["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for version in spec["versions"].as_array().into_iter().flatten() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            if !schema.is_object() {
                continue;
            }
            // The API server adds these, whatever the definition says of them.
            schema["properties"]["apiVersion"] = json!({"type": "string"});
            schema["properties"]["kind"] = json!({"type": "string"});
            schema["properties"]["metadata"] = json!({"$ref": format!("{COMPONENTS}{OBJECT_META}")});
            let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
            found.push(CustomResource { group, kind, version: text(&version["name"]), schema });
        }
    }
    Ok(found)
}

fn save(folder: &Path, kind: &str, group: &str, version: &str, schema: &Value) -> Result<(), Error> {
    // kubeconform takes the `v1` of an apiVersion without a slash for both.
    let group = if group.is_empty() { version } else { group };
    let path = folder.join(format!("{}-{group}-{version}.json", kind.to_lowercase()));
    fs::write(&path, schema.to_string()).map_err(|source| Error::Write { path, source })
}

/// A schema that stands by itself: strict, and with all that it refers to.
fn bundle(mut root: Value, schemas: &Schemas) -> Value {
    let mut definitions = Map::new();
    let mut wanted = BTreeSet::new();
    close(&mut root);
    refer_to_definitions(&mut root, &mut wanted);
    while let Some(name) = wanted.pop_first() {
        if let Some(schema) = schemas.get(&name).filter(|_| !definitions.contains_key(&name)) {
            let mut schema = schema.clone();
            close(&mut schema);
            refer_to_definitions(&mut schema, &mut wanted);
            definitions.insert(name, schema);
        }
    }
    root["definitions"] = Value::Object(definitions);
    root
}

/// Makes JSON schema of OpenAPI, and strict at that.
///
/// It leaves `allOf`, `anyOf`, `oneOf` and `not` alone: what is in them lists no fields, it only says more of those
/// listed beside them.
fn close(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("description");
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        schema.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if schema.get("nullable") == Some(&Value::Bool(true))
        && let Some(of) = schema.get("type").filter(|of| of.is_string()).cloned()
    {
        schema.insert("type".to_owned(), json!([of, "null"]));
    }
    for of_items in ["items", "additionalProperties"] {
        if let Some(items) = schema.get_mut(of_items) {
            close(items);
        }
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(close);
        let open = ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"];
        if !open.iter().any(|mark| schema.get(*mark) == Some(&Value::Bool(true))) {
            schema.entry("additionalProperties").or_insert(Value::Bool(false));
        }
    }
}

/// Names the definitions that are referred to, and makes the references those of a JSON schema.
fn refer_to_definitions(value: &mut Value, wanted: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| refer_to_definitions(item, wanted)),
        Value::Object(fields) => {
            // There is a field of this name too, whose schema is no text.
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(name) = reference.strip_prefix(COMPONENTS).map(str::to_owned)
            {
                *reference = format!("{DEFINITIONS}{name}");
                wanted.insert(name);
            }
            fields.values_mut().for_each(|field| refer_to_definitions(field, wanted));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_closed_unless_it_may_have_more_fields() {
        let field = json!({"a": {"type": "string"}});
        for (schema, closed) in [
            (json!({"properties": field}), true),
            (json!({"type": "object"}), false),
            (json!({"additionalProperties": {"type": "string"}}), false),
            (json!({"properties": field, "x-kubernetes-preserve-unknown-fields": true}), false),
            (json!({"properties": field, "x-kubernetes-embedded-resource": true}), false),
        ] {
            let nested = [
                json!({"properties": {"inner": schema}}),
                json!({"items": schema}),
                json!({"additionalProperties": schema}),
                json!({"properties": {"inner": {"items": {"additionalProperties": schema}}}}),
            ];
            for mut outer in nested {
                close(&mut outer);
                let expected = json!({"properties": field, "additionalProperties": false});
                assert_eq!(outer.to_string().contains(&expected.to_string()), closed, "{outer}");
            }
        }
        let mut conditions = json!({"anyOf": [{"properties": {"a": {"minLength": 1}}}, {"required": ["b"]}]});
        let before = conditions.clone();
        close(&mut conditions);
        assert_eq!(conditions, before);
    }

    #[test]
    fn types_that_json_schema_does_not_have_become_lists() {
        let mut schema = json!({"properties": {
            "port": {"x-kubernetes-int-or-string": true, "description": "a port"},
            "description": {"type": "string", "nullable": true},
        }});
        close(&mut schema);
        assert_eq!(schema["properties"]["port"]["type"], json!(["integer", "string"]));
        assert_eq!(schema["properties"]["description"]["type"], json!(["string", "null"]));
    }

    #[test]
    fn what_is_referred_to_comes_along_once() {
        let reference = |name: &str| json!({"$ref": format!("{COMPONENTS}{name}")});
        let schemas: Schemas = [
            ("Tree", json!({"properties": {"branches": {"items": reference("Tree")}, "leaf": {"allOf": [reference("Leaf")]}}})),
            ("Leaf", json!({"properties": {"$ref": {"type": "string"}}})),
            ("Stone", json!({})),
        ]
        .map(|(name, schema)| (name.to_owned(), schema))
        .into();
        let bundled = bundle(reference("Tree"), &schemas);
        assert_eq!(bundled["$ref"], "#/definitions/Tree");
        let definitions = bundled["definitions"].as_object().unwrap();
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["Leaf", "Tree"]);
        assert_eq!(definitions["Tree"]["properties"]["branches"]["items"]["$ref"], "#/definitions/Tree");
        assert_eq!(definitions["Leaf"]["additionalProperties"], false);
    }
}
