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
    secrets::KEY_SECRET,
};

/// What is said without `--check`.
pub(super) const ONLY_CHECKS: &str = "uninstall needs --check: it only says what an uninstallation would leave behind. \
    It deletes nothing and uninstalls nothing; that is for `kubectl delete` and `helm uninstall`";

/// How the chart marks what is an operator, unless `nameOverride` says otherwise.
const OPERATOR_LABEL: (&str, &str) = ("app.kubernetes.io/name", "toolzz-operator");
/// What the chart has among the arguments of an operator, and nobody else has.
const OPERATOR_FLAG: &str = "--settle-period=";
/// The Lease of an operator whose flags name no other.
const OPERATOR_LEASE: &str = "metadata.name=toolzz-operator";

const HOW: &str = "\
Marked with !: what would be lost or stuck.

Uninstalling the chart deletes no ToolzzCredential while the CustomResourceDefinitions are kept. The resources stay, with
their finalizers; their credentials stay at Toolzz as they are, and nobody manages them. That is harmless while the
installation key stays, and until somebody deletes such a resource, or its namespace, without an operator: then that hangs.

How to go:
  1. While the operator runs: delete the ToolzzCredentials and wait until they are gone, then their connections.
     Set deletionPolicy: Retain before, where a credential shall stay active.
  2. Uninstall the operator (helm uninstall).
  3. Delete the CustomResourceDefinitions.
";

/// Say what an uninstallation would leave behind. It only looks.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Says what an uninstallation would leave behind: what deleting each resource does at Toolzz, what waits to be \
        deleted, and what becomes of the CustomResourceDefinitions. It only looks, with the rights of KUBECONFIG to read.\n\n\
        Ends with 0 if nothing would be lost or stuck, with 1 if something would, or if it could not look at everything, and \
        with 2 if the arguments are wrong.",
    after_help = "Example:\n  toolzz-operator uninstall --check --namespace ai --namespace data"
)]
pub(super) struct UninstallArgs {
    /// Required, so that nobody takes this for the uninstallation.
    #[arg(long)]
    pub check: bool,
    /// Name the resources of this namespace only; can be given several times. Absent: of all namespaces. The
    /// CustomResourceDefinitions are everybody's, and are looked at in any case.
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
    #[error("whether anything would be lost or stuck is not known")]
    NotKnown,
}

pub(super) fn uninstall(arguments: UninstallArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let namespaces: BTreeSet<String> = arguments.namespace.into_iter().collect();
    let (verdict, text) = report(&runtime.block_on(look(&namespaces))?, &namespaces);
    print(&text)?;
    Ok(verdict?)
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
    operators: Vec<Operator>,
    /// Whether there is any resource in the cluster, also in namespaces that were not asked for. `None`: not known.
    any: Option<bool>,
    /// What may not be looked at.
    unseen: BTreeSet<&'static str>,
}

impl Found {
    fn is_served(&self, namespace: &str) -> bool {
        self.operators.iter().any(|operator| operator.works_in(namespace))
    }

    /// There are resources, or that is not known.
    fn may_have_resources(&self) -> bool {
        self.any != Some(false)
    }
}

/// An operator at work.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Operator {
    /// What shows it.
    what: String,
    state: String,
    /// Where it runs, and has its installation key.
    home: String,
    /// Where it works. Empty: everywhere, as far as can be seen.
    namespaces: BTreeSet<String>,
}

impl Operator {
    fn works_in(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
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
    let Found { credentials, connections, definitions, operators, .. } = found;
    let users = |key: &ConnectionKey| credentials.iter().filter(|object| ConnectionKey::of(object) == *key).count();
    let served = |object: &ToolzzCredential| found.is_served(&object.namespace().unwrap_or_default());
    let credentials = credentials.iter().map(|object| credential(object, served(object)));
    let connections = connections.iter().map(|key| connection(key, users(key)));
    let definitions = definitions.iter().map(|meta| definition(meta, found.may_have_resources()));
    let operators = operators.iter().map(|operator| {
        Line::of(operator.what.clone(), operator.state.clone(), "leaves deletions to nobody: they hang")
    });
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

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The Helm release it belongs to: namespace and name.
fn release(meta: &ObjectMeta) -> Option<(&str, &str)> {
    let name = annotation(meta, "meta.helm.sh/release-name")?;
    Some((annotation(meta, "meta.helm.sh/release-namespace").unwrap_or_default(), name))
}

fn is_annotated(meta: &ObjectMeta) -> bool {
    annotation(meta, "helm.sh/resource-policy") == Some("keep")
}

/// `used`: there may be resources that would go with it.
fn definition(meta: &ObjectMeta, used: bool) -> Line {
    let (state, problem) = match (&meta.deletion_timestamp, release(meta)) {
        (Some(_), _) => ("being deleted", used),
        (None, Some(_)) if is_annotated(meta) => ("annotated to be kept by helm uninstall", false),
        (None, Some(_)) => ("deleted by helm uninstall", used),
        (None, None) => ("of no Helm release", false),
    };
    let what = format!("CustomResourceDefinition/{}", meta.name.as_deref().unwrap_or_default());
    Line { problem, ..Line::of(what, state, "deletes all its resources in the cluster") }
}

/// How it is, and what to say.
fn report(found: &Found, namespaces: &BTreeSet<String>) -> (Result<(), Error>, String) {
    let lines = judge(found);
    let problems = lines.iter().filter(|line| line.problem).count();
    let mut text = if lines.is_empty() { String::new() } else { table(&lines) + "\n" };
    let verdict = match problems {
        0 if found.unseen.is_empty() => Ok(()),
        0 => Err(Error::NotKnown),
        _ => Err(Error::Findings(problems)),
    };
    if problems > 0 {
        text += HOW;
        text += &unserved(found);
    } else if verdict.is_ok() && namespaces.is_empty() {
        text += "Nothing would be lost or stuck.\n";
    } else if verdict.is_ok() {
        text += &format!("Nothing would be lost or stuck in {}.\n", join(namespaces));
        text += "Resources of other namespaces are not named here, and uninstalling concerns them too.\n";
    }
    if !found.unseen.is_empty() {
        text += &format!("\nCould not be looked at, by lack of rights: {}.\n", join(&found.unseen));
    }
    if found.may_have_resources() {
        text += &kept(found);
    }
    (verdict, text)
}

fn join(names: &BTreeSet<impl AsRef<str>>) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

/// Where nobody works who would let resources go.
fn unserved(found: &Found) -> String {
    let held = found.credentials.iter().filter(|object| credential(object, false).problem);
    let alone: BTreeSet<String> =
        held.filter_map(|object| object.namespace()).filter(|namespace| !found.is_served(namespace)).collect();
    let place = match found.operators.as_slice() {
        [] => String::new(),
        _ if alone.is_empty() => return String::new(),
        _ => format!(" that works in {}", join(&alone)),
    };
    format!(
        "\nNo operator at work was seen{place}. If there is none, every deletion of step 1 hangs: install it again first.\n"
    )
}

/// What the resources need that stay.
fn kept(found: &Found) -> String {
    let homes: BTreeSet<&str> = found.operators.iter().map(|operator| operator.home.as_str()).collect();
    let home = if homes.is_empty() { "the operator's namespace".to_owned() } else { join(&homes) };
    let mut text = format!(
        "\nThe installation key, the Secret {KEY_SECRET} in {home}, is not deleted by helm uninstall. Resources that are kept \
         need it: delete neither the key nor its namespace before them.\n"
    );
    let annotated = found.definitions.iter().filter(|meta| is_annotated(meta));
    let releases: BTreeSet<(&str, &str)> = annotated.filter_map(release).collect();
    for (namespace, name) in releases {
        text += &format!(
            "\nHelm goes by what its release says of the CustomResourceDefinitions, not by their annotations. To see it: \
             helm get manifest {name} -n {namespace} | grep resource-policy\n"
        );
    }
    text
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
    let (everywhere, all) = (BTreeSet::new(), ListParams::default());
    let credentials = list(&client, namespaces, &all).await.map_err(cannot("the ToolzzCredentials"))?;
    let own: Vec<ToolzzConnection> = list(&client, namespaces, &all).await.map_err(cannot("the ToolzzConnections"))?;

    let mut look = Look { client, unseen: BTreeSet::new() };
    let shared = look.shared().await?;
    let first = ListParams::default().limit(1);
    let others = list::<ToolzzCredential>(&look.client, &everywhere, &first).await;
    let others = look.allowed("the ToolzzCredentials of all namespaces", others)?;
    let others_own = list::<ToolzzConnection>(&look.client, &everywhere, &first).await;
    let others_own = look.allowed("the ToolzzConnections of all namespaces", others_own)?;
    let there = [
        Some(!credentials.is_empty() || !own.is_empty()),
        others.map(|found| !found.is_empty()),
        others_own.map(|found| !found.is_empty()),
        shared.as_ref().map(|found| !found.is_empty()),
    ];

    let own = own.iter().map(|object| ConnectionKey { namespace: object.namespace(), name: object.name_any() });
    let shared = shared.unwrap_or_default();
    let shared = shared.iter().map(|object| ConnectionKey { namespace: None, name: object.name_any() });
    Ok(Found {
        connections: own.chain(shared).collect(),
        credentials,
        definitions: look.definitions().await?,
        operators: look.operators(namespaces).await?,
        any: any(&there),
        unseen: look.unseen,
    })
}

/// Whether any is; `None`: not known.
fn any(there: &[Option<bool>]) -> Option<bool> {
    if there.contains(&Some(true)) {
        return Some(true);
    }
    (!there.contains(&None)).then_some(false)
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

/// Looks, and notes what it may not look at.
struct Look {
    client: Client,
    unseen: BTreeSet<&'static str>,
}

impl Look {
    /// What was answered, unless it may not be looked at.
    fn allowed<T>(&mut self, what: &'static str, answer: kube::Result<T>) -> Result<Option<T>, Error> {
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(error) if answered(&error, 403) => {
                self.unseen.insert(what);
                Ok(None)
            }
            Err(error) => Err(cannot(what)(error)),
        }
    }

    async fn shared(&mut self) -> Result<Option<Vec<ClusterToolzzConnection>>, Error> {
        let api: Api<ClusterToolzzConnection> = Api::all(self.client.clone());
        let answer = match timed(api.list(&ListParams::default())).await {
            Err(error) if answered(&error, 404) => Ok(Vec::new()),
            answer => answer.map(|list| list.items),
        };
        self.allowed("the ClusterToolzzConnections", answer)
    }

    /// Of all namespaces where that is allowed, otherwise of these, otherwise of none: an operator may be anywhere.
    async fn seen<K>(
        &mut self,
        what: &'static str,
        namespaces: &BTreeSet<String>,
        params: &ListParams,
    ) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        for places in [&BTreeSet::new(), namespaces] {
            let answer = list(&self.client, places, params).await;
            if let Some(found) = self.allowed(what, answer)? {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    async fn definitions(&mut self) -> Result<Vec<ObjectMeta>, Error> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let mut found = Vec::new();
        for name in [ToolzzCredential::crd_name(), ToolzzConnection::crd_name(), ClusterToolzzConnection::crd_name()] {
            let answer = timed(api.get_metadata_opt(name)).await;
            let object = self.allowed("the CustomResourceDefinitions", answer)?.flatten();
            found.extend(object.map(|object| object.metadata));
        }
        Ok(found)
    }

    async fn operators(&mut self, namespaces: &BTreeSet<String>) -> Result<Vec<Operator>, Error> {
        let all = ListParams::default();
        let deployments: Vec<Deployment> = self.seen("the Deployments of all namespaces", namespaces, &all).await?;
        let mut found: Vec<_> = deployments.iter().filter_map(deployed).collect();
        // One that runs outside of the cluster; the Lease of one that runs inside says nothing new.
        let named = ListParams::default().fields(OPERATOR_LEASE);
        let leases: Vec<Lease> = self.seen("the Leases of all namespaces", namespaces, &named).await?;
        let leading = leases.iter().filter_map(|lease| leading(lease, Timestamp::now()));
        let homes: BTreeSet<String> = found.iter().map(|operator| operator.home.clone()).collect();
        found.extend(leading.filter(|operator| !homes.contains(&operator.home)));
        Ok(found)
    }
}

fn deployed(deployment: &Deployment) -> Option<Operator> {
    let ready = deployment.status.as_ref()?.ready_replicas.filter(|ready| *ready > 0)?;
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    let words = containers.iter().flat_map(|one| one.command.iter().flatten().chain(one.args.iter().flatten()));
    let words: Vec<&str> = words.map(String::as_str).collect();
    let labelled = deployment.labels().get(OPERATOR_LABEL.0).is_some_and(|name| name == OPERATOR_LABEL.1);
    if !labelled && !words.iter().any(|word| word.starts_with(OPERATOR_FLAG)) {
        return None;
    }
    let variables = containers.iter().flat_map(|one| one.env.iter().flatten());
    let variable =
        variables.filter(|variable| variable.name == "TOOLZZ_NAMESPACES").find_map(|one| one.value.as_deref());
    let namespaces = named(&words, variable);
    let place = if namespaces.is_empty() { "all namespaces".to_owned() } else { join(&namespaces) };
    let home = deployment.namespace().unwrap_or_default();
    Some(Operator {
        what: format!("Deployment/{home}/{}", deployment.name_any()),
        state: format!("an operator, {ready} ready, works in {place}"),
        home,
        namespaces,
    })
}

/// The namespaces that the arguments of `run` name, or else its environment.
fn named(words: &[&str], variable: Option<&str>) -> BTreeSet<String> {
    let by_flag = words.iter().enumerate().filter_map(|(at, word)| match word.strip_prefix("--namespaces")? {
        "" => words.get(at + 1).copied(),
        list => list.strip_prefix('='),
    });
    let mut lists: Vec<&str> = by_flag.collect();
    if lists.is_empty() {
        lists.extend(variable);
    }
    let names = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn leading(lease: &Lease, now: Timestamp) -> Option<Operator> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())?;
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    let until = spec.renew_time.as_ref()?.0.checked_add(lasts).ok()?;
    let home = lease.namespace().unwrap_or_default();
    (until > now).then(|| Operator {
        what: format!("Lease/{home}/{}", lease.name_any()),
        state: format!("an operator, held by {holder}; where it works is not seen"),
        home,
        namespaces: BTreeSet::new(),
    })
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
            (vec![helm, keep], false, true, false, "annotated to be kept by helm uninstall"),
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
        let (verdict, text) = report(&found, &BTreeSet::new());
        assert!(matches!(verdict, Err(Error::Findings(1))), "{verdict:?}");
        assert!(
            text.contains("! ToolzzCredential/ai/openai") && text.contains("No operator at work was seen"),
            "{text}"
        );
        assert!(text.contains("  ToolzzConnection/ai/own"), "{text}");

        found.operators.push(operator(&[]));
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(text.contains("Deployment/toolzz/op") && !text.contains("No operator at work"), "{text}");
    }

    fn operator(namespaces: &[&str]) -> Operator {
        Operator {
            what: "Deployment/toolzz/op".to_owned(),
            state: "an operator, 1 ready".to_owned(),
            home: "toolzz".to_owned(),
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn another_tenants_operator_lets_nothing_go() {
        let waiting = object(deleted(FINALIZER), json!({}), json!({"id": "one"}));
        for (namespaces, alone) in [(&["data"][..], true), (&["data", "ai"], false), (&[], false)] {
            let operators = vec![operator(namespaces)];
            let found = Found { credentials: vec![waiting.clone()], operators, ..Found::default() };
            let (_, text) = report(&found, &BTreeSet::new());
            assert_eq!(text.contains("none was seen: stuck"), alone, "{text}");
            assert_eq!(text.contains("No operator at work was seen that works in ai."), alone, "{text}");
        }
    }

    /// A definition of Helm's, with these annotations beside.
    fn of_helm(annotations: &[(&str, &str)]) -> ObjectMeta {
        let release = [("meta.helm.sh/release-name", "op"), ("meta.helm.sh/release-namespace", "toolzz")];
        let all = release.iter().chain(annotations).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ObjectMeta { annotations: Some(all.collect()), ..ObjectMeta::default() }
    }

    #[test]
    fn a_definition_that_goes_is_a_problem_also_where_the_named_namespaces_are_empty() {
        let named = BTreeSet::from(["ai".to_owned()]);
        for (there, expected) in [(Some(true), Some(1)), (None, Some(1)), (Some(false), None)] {
            let found = Found { definitions: vec![of_helm(&[])], any: there, ..Found::default() };
            let (verdict, text) = report(&found, &named);
            let problems = match verdict {
                Ok(()) => None,
                Err(Error::Findings(problems)) => Some(problems),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(problems, expected, "{there:?}: {text}");
        }
        assert_eq!(any(&[Some(false), Some(true), None]), Some(true));
        assert_eq!(any(&[Some(false), None]), None);
        assert_eq!(any(&[Some(false), Some(false)]), Some(false));
    }

    #[test]
    fn what_may_not_be_looked_at_is_named_and_no_good_news() {
        for named in [BTreeSet::new(), BTreeSet::from(["ai".to_owned()])] {
            let unseen = BTreeSet::from(["the CustomResourceDefinitions", "the Leases of all namespaces"]);
            let (verdict, text) = report(&Found { any: Some(false), unseen, ..Found::default() }, &named);
            assert!(matches!(verdict, Err(Error::NotKnown)), "{verdict:?}");
            let told = "by lack of rights: the CustomResourceDefinitions, the Leases of all namespaces.";
            assert!(text.contains(told) && !text.contains("Nothing would be lost"), "{text}");
        }
    }

    #[test]
    fn what_stays_is_told_what_it_needs_and_by_what_it_stays() {
        let keep = of_helm(&[("helm.sh/resource-policy", "keep")]);
        let mut found = Found { definitions: vec![keep.clone(), keep], any: Some(true), ..Found::default() };
        let (verdict, text) = report(&found, &BTreeSet::from(["ai".to_owned()]));
        assert!(verdict.is_ok(), "{text}");
        assert!(text.contains("the Secret toolzz-operator-installation-key in the operator's namespace"), "{text}");
        assert_eq!(text.matches("helm get manifest op -n toolzz").count(), 1, "{text}");
        found.operators.push(operator(&[]));
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(text.contains("the Secret toolzz-operator-installation-key in toolzz,"), "{text}");
        found.any = Some(false);
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(!text.contains("installation-key") && !text.contains("helm get"), "{text}");
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
        let none = Found { any: Some(false), ..Found::default() };
        let (verdict, text) = report(&none, &BTreeSet::new());
        assert!(verdict.is_ok() && text == "Nothing would be lost or stuck.\n", "{text}");
        let named = BTreeSet::from(["data".to_owned(), "ai".to_owned()]);
        let (verdict, text) = report(&none, &named);
        let told = "Nothing would be lost or stuck in ai, data.\nResources of other namespaces are not named here";
        assert!(verdict.is_ok() && text.starts_with(told), "{text}");
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
        assert!(leading(&lease(spec("me")), then).is_some_and(|one| one.what == "Lease/dev/toolzz-operator"));
        assert_eq!(leading(&lease(spec("me")), later), None);
        assert_eq!(leading(&lease(spec("")), then), None);
        assert_eq!(leading(&lease(json!({})), then), None);

        let ready = |status: Value| deployed(&deployment("toolzz-operator", json!({}), status));
        assert!(ready(json!({"readyReplicas": 1})).is_some());
        assert_eq!(ready(json!({"readyReplicas": 0})), None);
        assert_eq!(ready(json!({})), None);
    }

    /// A Deployment with this `app.kubernetes.io/name`, and this of its container.
    fn deployment(name: &str, container: Value, status: Value) -> Deployment {
        let mut object = json!({
            "metadata": {"namespace": "toolzz", "name": "op", "labels": {"app.kubernetes.io/name": name}},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "operator"}]}}},
            "status": status,
        });
        let containers = &mut object["spec"]["template"]["spec"]["containers"];
        containers[0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_operator_is_known_by_its_arguments_and_works_where_they_say() {
        let seen = |name: &str, container: Value| {
            deployed(&deployment(name, container, json!({"readyReplicas": 1}))).map(|one| join(&one.namespaces))
        };
        let own = "toolzz-operator";
        let by_environment = json!([{"name": "TOOLZZ_NAMESPACES", "value": "ai"}]);
        for (name, container, expected) in [
            (own, json!({}), Some("")),
            (own, json!({"args": ["run", "--namespaces=data,ai"]}), Some("ai, data")),
            (own, json!({"args": ["run", "--namespaces", "ai", "--namespaces=data"]}), Some("ai, data")),
            (own, json!({"command": ["/toolzz-operator", "run", "--namespaces=ai"]}), Some("ai")),
            (own, json!({"args": ["run", "--namespaces="]}), Some("")),
            (own, json!({"args": ["run"], "env": by_environment}), Some("ai")),
            (own, json!({"args": ["run", "--namespaces=data"], "env": by_environment}), Some("data")),
            // By nameOverride.
            ("credentials", json!({"args": ["run", "--namespaces=ai", "--settle-period=45s"]}), Some("ai")),
            ("credentials", json!({"args": ["run", "--namespaces=ai"]}), None),
            ("credentials", json!({}), None),
        ] {
            assert_eq!(seen(name, container.clone()).as_deref(), expected, "{name} {container}");
        }
    }
}
