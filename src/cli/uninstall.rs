//! `toolzz-operator uninstall --check`.

use std::{collections::BTreeSet, fmt::Debug};

use clap::builder::NonEmptyStringValueParser;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, coordination::v1::Lease},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, Resource, ResourceExt as _, api::ListParams, core::ObjectMeta};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{
    api::{
        ClusterToolzzConnection, ConnectionKey, DeletionPolicy, FINALIZER, LEDGER_ANNOTATION, ToolzzConnection,
        ToolzzCredential, condition,
    },
    kubernetes::{NoAccess, answered, brief, timed},
};

/// What is said without `--check`.
pub(super) const ONLY_CHECKS: &str = "uninstall needs --check: it only says what an uninstallation would leave behind. \
    It deletes nothing and uninstalls nothing; that is for `kubectl delete` and `helm uninstall`";

/// How the chart marks what is an operator.
const OPERATOR_LABEL: &str = "app.kubernetes.io/name=toolzz-operator";
/// The Lease of an operator whose flags name no other.
const OPERATOR_LEASE: &str = "metadata.name=toolzz-operator";

const HOW: &str = "\
Marked with !: what would be lost or stuck.

Uninstalling the chart deletes no ToolzzCredential while the CustomResourceDefinitions are kept. The resources stay, with
their finalizers; their credentials stay at Toolzz as they are, and nobody manages them. That is harmless until somebody
deletes such a resource, or its namespace, without an operator: then that hangs.

How to go:
  1. While the operator runs: delete the ToolzzCredentials and wait until they are gone, then their connections.
     Set deletionPolicy: Retain before, where a credential shall stay active.
  2. Uninstall the operator (helm uninstall).
  3. Delete the CustomResourceDefinitions.
";

const NOT_SEEN: &str = "
No operator at work was seen. If there is none, every deletion of step 1 hangs: install it again first.
";

/// Say what an uninstallation would leave behind. It only looks.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Says what an uninstallation would leave behind: what deleting each resource does at Toolzz, what waits to be \
        deleted, and what becomes of the CustomResourceDefinitions. It only looks, with the rights of KUBECONFIG to read.\n\n\
        Ends with 0 if nothing would be lost or stuck, with 1 if something would, or if it could not look, and with 2 if \
        the arguments are wrong.",
    after_help = "Example:\n  toolzz-operator uninstall --check --namespace ai --namespace data"
)]
pub(super) struct UninstallArgs {
    /// Required, so that nobody takes this for the uninstallation.
    #[arg(long)]
    pub check: bool,
    /// Look at the resources of this namespace only; can be given several times. Absent: of all namespaces.
    #[arg(long, short, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: Vec<String>,
}

#[derive(Debug, Error)]
enum Error {
    #[error("{0}")]
    Kubernetes(#[from] NoAccess),
    #[error("{what} cannot be read: {why}")]
    Read { what: &'static str, why: String },
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
    #[error("would be lost or stuck: {0}")]
    Findings(usize),
}

pub(super) fn uninstall(arguments: UninstallArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let namespaces: BTreeSet<String> = arguments.namespace.into_iter().collect();
    let (problems, text) = report(&runtime.block_on(look(&namespaces))?, &namespaces);
    print(&text)?;
    if problems == 0 { Ok(()) } else { Err(Error::Findings(problems).into()) }
}

fn print(text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// What there is.
#[derive(Default)]
struct Found {
    credentials: Vec<ToolzzCredential>,
    connections: Vec<ConnectionKey>,
    definitions: Vec<ObjectMeta>,
    /// Operators at work: what shows it, and how.
    operators: Vec<(String, String)>,
}

/// A line of the table.
#[derive(Debug)]
struct Line {
    /// Something would be lost or stuck.
    problem: bool,
    what: String,
    state: String,
    deletion: String,
}

impl Line {
    /// Of something that is no problem by itself.
    fn of(what: String, state: impl Into<String>, deletion: impl Into<String>) -> Self {
        Self { problem: false, what, state: state.into(), deletion: deletion.into() }
    }
}

/// What uninstalling would do to each.
fn judge(found: &Found) -> Vec<Line> {
    let Found { credentials, connections, definitions, operators } = found;
    let users = |key: &ConnectionKey| credentials.iter().filter(|object| ConnectionKey::of(object) == *key).count();
    let used = !credentials.is_empty() || !connections.is_empty();
    let credentials = credentials.iter().map(|object| credential(object, !operators.is_empty()));
    let connections = connections.iter().map(|key| connection(key, users(key)));
    let definitions = definitions.iter().map(|meta| definition(meta, used));
    let operators = operators
        .iter()
        .map(|(what, state)| Line::of(what.clone(), state.clone(), "leaves deletions to nobody: they hang"));
    credentials.chain(connections).chain(definitions).chain(operators).collect()
}

fn credential(object: &ToolzzCredential, served: bool) -> Line {
    let (meta, status) = (&object.metadata, object.status.as_ref());
    let held = object.finalizers().iter().any(|one| one == FINALIZER);
    let id = status.and_then(|status| status.id.as_ref());
    let recorded = held || id.is_some() || object.annotations().contains_key(LEDGER_ANNOTATION);

    let mut state = match (id, status.and_then(|status| status.active)) {
        (Some(id), Some(false)) => format!("inactive, id {id}"),
        (Some(id), _) => format!("active, id {id}"),
        (None, _) if recorded => "being created".to_owned(),
        (None, _) => "nothing at Toolzz".to_owned(),
    };
    let superseded = status.map_or(0, |status| status.retiring.len());
    if superseded > 0 {
        state += &format!(", {superseded} superseded");
    }
    // Where Toolzz cannot be reached nothing is switched off.
    let ready = status.and_then(|status| condition(&status.conditions, "Ready"));
    if let Some(ready) = ready.filter(|ready| ready.status != "True") {
        state += &format!(", not ready: {}", ready.reason);
    }
    let deletion = match (meta.deletion_timestamp.is_some(), object.spec.deletion_policy.unwrap_or_default()) {
        (true, _) if held && served => "waits for the operator: stuck if that goes first".to_owned(),
        (true, _) if held => "waits for an operator, and none was seen: stuck".to_owned(),
        (true, _) => format!("waits for {}", object.finalizers().join(", ")),
        (false, _) if !recorded => "changes nothing at Toolzz".to_owned(),
        (false, DeletionPolicy::Deactivate) => "switches it off: what uses its virtual key stops".to_owned(),
        (false, DeletionPolicy::Retain) => "leaves it as it is: nobody manages it then".to_owned(),
    };
    if meta.deletion_timestamp.is_some() {
        state = format!("being deleted; {state}");
    }
    let what = format!("ToolzzCredential/{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    Line { problem: recorded, ..Line::of(what, state, deletion) }
}

fn connection(key: &ConnectionKey, users: usize) -> Line {
    let deletion = match users {
        0 => "changes nothing at Toolzz",
        _ => "leaves what uses it without a way to Toolzz: delete that first",
    };
    Line::of(key.to_string(), format!("used by {users}"), deletion)
}

/// `used`: there are resources that would go with it.
fn definition(meta: &ObjectMeta, used: bool) -> Line {
    let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let of_helm = annotation("meta.helm.sh/release-name").is_some();
    let kept = annotation("helm.sh/resource-policy") == Some("keep");
    let (state, problem) = match meta.deletion_timestamp {
        Some(_) => ("being deleted", used),
        None if of_helm && kept => ("kept by helm uninstall", false),
        None if of_helm => ("deleted by helm uninstall", used),
        None => ("of no Helm release", false),
    };
    let what = format!("CustomResourceDefinition/{}", meta.name.as_deref().unwrap_or_default());
    Line { problem, ..Line::of(what, state, "deletes all its resources in the cluster") }
}

/// How much would be lost or stuck, and what to say.
fn report(found: &Found, namespaces: &BTreeSet<String>) -> (usize, String) {
    let lines = judge(found);
    let problems = lines.iter().filter(|line| line.problem).count();
    let mut text = if lines.is_empty() { String::new() } else { table(&lines) + "\n" };
    if problems > 0 {
        text += HOW;
        if found.operators.is_empty() {
            text += NOT_SEEN;
        }
    } else {
        let names: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        let places = if names.is_empty() { String::new() } else { format!(" in {}", names.join(", ")) };
        text += &format!("Nothing would be lost or stuck{places}.\n");
    }
    (problems, text)
}

fn table(lines: &[Line]) -> String {
    let mark = |line: &Line| if line.problem { "!" } else { " " };
    let mut rows = vec![[" ", "RESOURCE", "STATE", "DELETING IT"]];
    rows.extend(lines.iter().map(|line| [mark(line), line.what.as_str(), line.state.as_str(), line.deletion.as_str()]));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let (first, second) = (width(1), width(2));
    rows.iter()
        .map(|[mark, what, state, deletion]| format!("{mark} {what:first$}  {state:second$}  {deletion}\n"))
        .collect()
}

async fn look(namespaces: &BTreeSet<String>) -> Result<Found, Error> {
    let client = Client::try_from(kube::Config::infer().await.map_err(NoAccess::from)?).map_err(NoAccess::from)?;
    let all = ListParams::default();
    let own: Vec<ToolzzConnection> = list(&client, namespaces, &all).await.map_err(cannot("the ToolzzConnections"))?;
    let shared: Api<ClusterToolzzConnection> = Api::all(client.clone());
    let shared = match timed(shared.list(&all)).await {
        Ok(list) => list.items,
        Err(error) if answered(&error, 403) || answered(&error, 404) => Vec::new(),
        Err(error) => return Err(cannot("the ClusterToolzzConnections")(error)),
    };
    let own = own.iter().map(|object| ConnectionKey { namespace: object.namespace(), name: object.name_any() });
    let shared = shared.iter().map(|object| ConnectionKey { namespace: None, name: object.name_any() });
    Ok(Found {
        credentials: list(&client, namespaces, &all).await.map_err(cannot("the ToolzzCredentials"))?,
        connections: own.chain(shared).collect(),
        definitions: definitions(&client).await?,
        operators: operators(&client, namespaces).await?,
    })
}

fn cannot(what: &'static str) -> impl Fn(kube::Error) -> Error {
    move |error| Error::Read { what, why: brief(&error) }
}

/// The objects of these namespaces, or of all of them. None where their kind is not known.
async fn list<K>(client: &Client, namespaces: &BTreeSet<String>, params: &ListParams) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let mut apis: Vec<Api<K>> = namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect();
    if apis.is_empty() {
        apis.push(Api::all(client.clone()));
    }
    let mut all = Vec::new();
    for api in apis {
        match timed(api.list(params)).await {
            Ok(list) => all.extend(list.items),
            Err(error) if answered(&error, 404) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Of all namespaces where that is allowed, otherwise of these, otherwise of none: an operator may be anywhere.
async fn seen<K>(client: &Client, namespaces: &BTreeSet<String>, params: &ListParams) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    for places in [&BTreeSet::new(), namespaces] {
        match list(client, places, params).await {
            Ok(found) => return Ok(found),
            Err(error) if answered(&error, 403) => {}
            Err(error) => return Err(cannot("what runs in the cluster")(error)),
        }
    }
    Ok(Vec::new())
}

/// Those that there are, and may be looked at.
async fn definitions(client: &Client) -> Result<Vec<ObjectMeta>, Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut found = Vec::new();
    for name in [ToolzzCredential::crd_name(), ToolzzConnection::crd_name(), ClusterToolzzConnection::crd_name()] {
        match timed(api.get_metadata_opt(name)).await {
            Ok(object) => found.extend(object.map(|object| object.metadata)),
            Err(error) if answered(&error, 403) => {}
            Err(error) => return Err(cannot("the CustomResourceDefinitions")(error)),
        }
    }
    Ok(found)
}

async fn operators(client: &Client, namespaces: &BTreeSet<String>) -> Result<Vec<(String, String)>, Error> {
    let labelled = ListParams::default().labels(OPERATOR_LABEL);
    let deployments: Vec<Deployment> = seen(client, namespaces, &labelled).await?;
    let mut found: Vec<_> = deployments.iter().filter_map(deployed).collect();
    if found.is_empty() {
        // One that runs outside of the cluster.
        let named = ListParams::default().fields(OPERATOR_LEASE);
        let leases: Vec<Lease> = seen(client, namespaces, &named).await?;
        found.extend(leases.iter().filter_map(|lease| leading(lease, Timestamp::now())));
    }
    Ok(found)
}

fn deployed(deployment: &Deployment) -> Option<(String, String)> {
    let ready = deployment.status.as_ref()?.ready_replicas.filter(|ready| *ready > 0)?;
    let namespace = deployment.namespace().unwrap_or_default();
    Some((format!("Deployment/{namespace}/{}", deployment.name_any()), format!("an operator, {ready} ready")))
}

fn leading(lease: &Lease, now: Timestamp) -> Option<(String, String)> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())?;
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    let until = spec.renew_time.as_ref()?.0.checked_add(lasts).ok()?;
    let namespace = lease.namespace().unwrap_or_default();
    let what = format!("Lease/{namespace}/{}", lease.name_any());
    (until > now).then(|| (what, format!("an operator, held by {holder}")))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;

    fn object(meta: Value, spec: Value, status: Value) -> ToolzzCredential {
        let mut object = json!({
            "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzCredential",
            "metadata": {"namespace": "ai", "name": "openai"},
            "spec": {"userId": "u", "unityId": "u", "credentials": []}, "status": status,
        });
        for (part, fields) in [("metadata", meta), ("spec", spec)] {
            object[part].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        }
        serde_json::from_value(object).unwrap()
    }

    fn held() -> Value {
        json!({"finalizers": [FINALIZER]})
    }

    fn deleted(finalizer: &str) -> Value {
        json!({"finalizers": [finalizer], "deletionTimestamp": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn what_is_at_toolzz_or_waits_for_the_operator_is_a_problem() {
        let none = || json!({});
        let active = || json!({"id": "one", "active": true});
        for (meta, spec, status, served, problem, state, deletion) in [
            (none(), none(), none(), true, false, "nothing at Toolzz", "changes nothing"),
            (held(), none(), none(), true, true, "being created", "switches it off"),
            (held(), none(), active(), true, true, "active, id one", "switches it off"),
            (none(), none(), active(), true, true, "active, id one", "switches it off"),
            (held(), none(), json!({"id": "one", "active": false}), true, true, "inactive, id one", "switches it off"),
            (held(), json!({"deletionPolicy": "Retain"}), active(), true, true, "active, id one", "nobody manages it"),
            (deleted(FINALIZER), none(), active(), true, true, "being deleted; active", "if that goes first"),
            (deleted(FINALIZER), none(), active(), false, true, "being deleted; active", "none was seen: stuck"),
            (deleted("example.com/x"), none(), none(), false, false, "being deleted", "waits for example.com/x"),
        ] {
            let line = credential(&object(meta, spec, status), served);
            assert_eq!(line.what, "ToolzzCredential/ai/openai");
            assert_eq!(line.problem, problem, "{line:?}");
            assert!(line.state.starts_with(state) && line.deletion.contains(deletion), "{line:?}");
        }
        let retiring = json!({"id": "two", "active": true, "retiring": [{"id": "one"}]});
        assert_eq!(credential(&object(held(), none(), retiring), true).state, "active, id two, 1 superseded");
        let refused = json!({"id": "one", "active": true, "conditions": [{
            "type": "Ready", "status": "False", "reason": "Unauthorized", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        assert_eq!(credential(&object(held(), none(), refused), true).state, "active, id one, not ready: Unauthorized");
        let ledger = json!({"annotations": {LEDGER_ANNOTATION: "{}"}});
        assert!(credential(&object(ledger, none(), none()), true).problem);
    }

    #[test]
    fn a_definition_is_a_problem_where_it_takes_resources_along() {
        let keep = ("helm.sh/resource-policy", "keep");
        let helm = ("meta.helm.sh/release-name", "op");
        for (annotations, deleted, used, problem, state) in [
            (vec![helm, keep], false, true, false, "kept by helm uninstall"),
            (vec![helm], false, true, true, "deleted by helm uninstall"),
            (vec![helm], false, false, false, "deleted by helm uninstall"),
            (vec![], false, true, false, "of no Helm release"),
            (vec![helm, keep], true, true, true, "being deleted"),
        ] {
            let annotations = annotations.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            let meta = ObjectMeta {
                annotations: Some(annotations.collect()),
                deletion_timestamp: deleted.then_some(Time(Timestamp::UNIX_EPOCH)),
                ..ObjectMeta::default()
            };
            let line = definition(&meta, used);
            assert_eq!((line.problem, line.state.as_str()), (problem, state));
        }
    }

    #[test]
    fn a_connection_is_counted_by_who_uses_it_and_an_operator_is_seen() {
        let by_own = json!({"connectionRef": {"kind": "ToolzzConnection", "name": "own"}});
        let mut found = Found {
            credentials: vec![object(held(), by_own, json!({"id": "one"}))],
            connections: vec![
                ConnectionKey { namespace: Some("ai".to_owned()), name: "own".to_owned() },
                ConnectionKey::default_of_cluster(),
            ],
            ..Found::default()
        };
        let lines = judge(&found);
        let states: Vec<&str> = lines.iter().map(|line| line.state.as_str()).collect();
        assert_eq!(states, ["active, id one", "used by 1", "used by 0"]);
        let (problems, text) = report(&found, &BTreeSet::new());
        assert_eq!(problems, 1);
        assert!(
            text.contains("! ToolzzCredential/ai/openai") && text.contains("No operator at work was seen"),
            "{text}"
        );
        assert!(text.contains("  ToolzzConnection/ai/own"), "{text}");

        found.operators.push(("Deployment/toolzz/op".to_owned(), "an operator, 1 ready".to_owned()));
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(text.contains("Deployment/toolzz/op") && !text.contains("No operator at work"), "{text}");
    }

    #[test]
    fn the_page_explains_what_is_said() {
        let said = include_str!("uninstall.rs").split("#[cfg(test)]").next().unwrap();
        let rows = include_str!("../../docs/uninstall.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let quoted: Vec<&str> = rows.flat_map(|row| row.split(" | ").next().unwrap().split('`').step_by(2)).collect();
        assert!(quoted.len() > 8, "{quoted:?}");
        for text in quoted.into_iter().filter(|text| !text.is_empty()) {
            assert!(said.contains(text), "nobody says {text:?}");
        }
    }

    #[test]
    fn where_there_is_nothing_it_says_so_and_where_it_looked() {
        let none = Found::default();
        assert_eq!(report(&none, &BTreeSet::new()), (0, "Nothing would be lost or stuck.\n".to_owned()));
        let named = BTreeSet::from(["data".to_owned(), "ai".to_owned()]);
        assert_eq!(report(&none, &named), (0, "Nothing would be lost or stuck in ai, data.\n".to_owned()));
    }

    #[test]
    fn an_operator_is_one_that_is_ready_or_holds_its_lease() {
        let lease = |spec: Value| -> Lease {
            serde_json::from_value(json!({"metadata": {"namespace": "dev", "name": "toolzz-operator"}, "spec": spec}))
                .unwrap()
        };
        let spec = |holder: &str| json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"});
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (then, later) = (at("2026-01-01T00:00:10Z"), at("2026-01-01T00:00:16Z"));
        assert!(leading(&lease(spec("me")), then).is_some_and(|(what, _)| what == "Lease/dev/toolzz-operator"));
        assert_eq!(leading(&lease(spec("me")), later), None);
        assert_eq!(leading(&lease(spec("")), then), None);
        assert_eq!(leading(&lease(json!({})), then), None);

        let deployment = |status: Value| -> Deployment {
            serde_json::from_value(json!({"metadata": {"namespace": "toolzz", "name": "op"}, "status": status}))
                .unwrap()
        };
        assert!(deployed(&deployment(json!({"readyReplicas": 1}))).is_some());
        assert_eq!(deployed(&deployment(json!({"readyReplicas": 0}))), None);
        assert_eq!(deployed(&deployment(json!({}))), None);
    }
}
