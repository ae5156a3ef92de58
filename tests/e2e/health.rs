//! What a resource means to those who wait for it: Flux (kstatus), Argo CD and kubectl, asked about the same objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use test_controlplane::tool;
use toolzz_operator::api::{Class, FINALIZER, Reason};

use super::{
    connections::{service, token},
    support::*,
};

const KINDS: [&str; 3] = ["ToolzzCredential", "ToolzzConnection", "ClusterToolzzConnection"];
const REQUESTED: &str = "toolzz.com.br/reconcile-requested-at";

/// What becomes of the wait.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Meaning {
    /// It goes on.
    Progressing,
    /// It is over.
    Ready,
    /// It is in vain until somebody changes something.
    Failed,
    /// It goes on until somebody resumes.
    Paused,
    /// It is for the end.
    Terminating,
}

/// What each of the judges says: `kubectl wait` is asked for two conditions.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    kstatus: String,
    argo: String,
    ready: bool,
    stalled: bool,
}

impl Meaning {
    fn verdict(self) -> Verdict {
        let (kstatus, argo, ready, stalled) = match self {
            Self::Progressing => ("InProgress", "Progressing", false, false),
            Self::Ready => ("Current", "Healthy", true, false),
            Self::Failed => ("Failed", "Degraded", false, true),
            // kstatus has no word for it.
            Self::Paused => ("InProgress", "Suspended", false, false),
            // Nor has Argo CD for this.
            Self::Terminating => ("Terminating", "Progressing", false, false),
        };
        Verdict { kstatus: kstatus.to_owned(), argo: argo.to_owned(), ready, stalled }
    }
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/argocd").join(file)
}

/// Runs the tool `health` with a script of Argo CD.
fn health(command: &[&str], script: &Path, input: &Value) -> Value {
    let mut child = Command::new(tool("health").unwrap())
        .args(command)
        .arg("--lua")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the judges say of every resource of this kind in the room, by name.
fn verdicts(lab: &Lab, kind: &str) -> BTreeMap<String, Verdict> {
    let list: Value = serde_json::from_str(&lab.kubectl(&["get", kind, "-o", "json"])).unwrap();
    let objects = list["items"].as_array().unwrap();
    let judged = health(&[], &shipped("health.lua"), &list["items"]);
    let (ready, stalled) = (met(lab, kind, "Ready", objects.len()), met(lab, kind, "Stalled", objects.len()));
    let judged = judged.as_array().unwrap();
    assert_eq!(objects.len(), judged.len());
    let verdict = |(object, judged): (&Value, &Value)| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let said = |judge: &str| judged[judge]["status"].as_str().unwrap().to_owned();
        let verdict = Verdict {
            kstatus: said("kstatus"),
            argo: said("argo"),
            ready: ready.contains(&name),
            stalled: stalled.contains(&name),
        };
        (name, verdict)
    };
    objects.iter().zip(judged).map(verdict).collect()
}

/// For which of so many resources `kubectl wait` would be over.
fn met(lab: &Lab, kind: &str, condition: &str, all: usize) -> BTreeSet<String> {
    let condition = format!("--for=condition={condition}");
    let args = ["wait", &condition, "--timeout=0s", "--all", kind, "-n", &lab.namespace];
    let output = lab.plane.kubectl(args).output().unwrap();
    let (yes, no) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(yes.lines().count() + no.lines().count(), all, "a line for each: {yes}{no}");
    let name = |line: &str| Some(line.strip_suffix(" condition met")?.split_once('/')?.1.to_owned());
    yes.lines().filter_map(name).collect()
}

fn assert_means(lab: &Lab, kind: &str, name: &str, meaning: Meaning) {
    assert_eq!(verdicts(lab, kind)[name], meaning.verdict(), "{kind} {name} is not {meaning:?}\n{}", lab.log());
}

/// A row of `health.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default = "credential")]
    kind: String,
    means: Meaning,
    #[serde(default)]
    spec: Map<String, Value>,
    #[serde(default)]
    conditions: BTreeMap<String, String>,
    #[serde(default = "written")]
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Status,
    Edit,
    Delete,
}

fn credential() -> String {
    KINDS[0].to_owned()
}

fn written() -> Vec<Step> {
    vec![Step::Status]
}

impl Row {
    /// Status and reason of a condition.
    fn condition(&self, kind: &str) -> Option<(&str, &str)> {
        self.conditions.get(kind)?.split_once(' ')
    }

    /// The reason of the Ready condition.
    fn reason(&self) -> Option<Reason> {
        Reason::from_name(self.condition("Ready")?.1)
    }

    /// Such a status can be an operator's.
    fn assert_possible(&self) {
        assert_eq!(self.steps.contains(&Step::Status), !self.conditions.is_empty(), "{}", self.name);
        if self.conditions.is_empty() {
            return;
        }
        let class = self.reason().unwrap_or_else(|| panic!("{}: no such reason", self.name)).class();
        let ready = self.condition("Ready").unwrap().0 == "True";
        assert!(class == Class::Paused || ready == (class == Class::Good), "{}", self.name);
        for (kind, there) in [("Reconciling", class == Class::Waiting), ("Stalled", class == Class::Stalled)] {
            let condition = there.then(|| ("True", self.reason().unwrap().as_str()));
            assert_eq!(self.condition(kind), condition, "{}: {kind}", self.name);
        }
    }

    fn manifest(&self, lab: &Lab) -> Value {
        let mut manifest = lab.manifest(&self.name);
        if self.kind != KINDS[0] {
            manifest["kind"] = json!(self.kind);
            manifest["spec"] =
                json!({"url": "https://toolzz.invalid", "tokenSecretRef": {"name": "token", "key": "token"}});
        }
        if self.kind == KINDS[2] {
            manifest["metadata"]["namespace"] = Value::Null;
            manifest["spec"]["namespaces"] = json!({"names": ["nobody"]});
            manifest["spec"]["unities"] = json!([{"id": "*"}]);
        }
        // A deleted one stays.
        manifest["metadata"]["finalizers"] = json!(["example.com/held"]);
        manifest["spec"].as_object_mut().unwrap().extend(self.spec.clone());
        manifest
    }

    fn status(&self, generation: Option<i64>) -> Value {
        let condition = |kind: &String| {
            let (status, reason) = self.condition(kind).unwrap();
            json!({
                "type": kind, "status": status, "reason": reason, "message": "As the table says.",
                "lastTransitionTime": "2026-11-24T00:00:00Z", "observedGeneration": generation,
            })
        };
        let conditions: Vec<Value> = self.conditions.keys().map(condition).collect();
        json!({"status": {"observedGeneration": generation, "conditions": conditions}})
    }

    /// Makes the resource, and lets happen to it what the row says.
    async fn make(&self, lab: &Lab) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("toolzz.com.br", "v1alpha1", &self.kind));
        let api: Api<DynamicObject> = match self.kind == KINDS[2] {
            true => Api::all_with(lab.client.clone(), &resource),
            false => Api::namespaced_with(lab.client.clone(), &lab.namespace, &resource),
        };
        let (name, params) = (self.name.as_str(), PatchParams::default());
        let object: DynamicObject = serde_json::from_value(self.manifest(lab)).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        for step in &self.steps {
            match step {
                Step::Status => {
                    let generation = api.get(name).await.unwrap().metadata.generation;
                    api.patch_status(name, &params, &Patch::Merge(self.status(generation))).await.unwrap();
                }
                Step::Edit => {
                    let edit = if self.kind == KINDS[0] { json!({"active": true}) } else { json!({"rateLimit": 7}) };
                    api.patch(name, &params, &Patch::Merge(json!({ "spec": edit }))).await.unwrap();
                }
                Step::Delete => {
                    api.delete(name, &DeleteParams::default()).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn every_status_means_the_same_to_all_who_wait() {
    let rows: Vec<Row> = serde_saphyr::from_str(include_str!("health.yaml")).unwrap();
    for reason in Reason::ALL {
        assert!(rows.iter().any(|row| row.reason() == Some(*reason)), "{reason} is in no row");
    }
    // Without any operator: it would write statuses of its own.
    let lab = Lab::on(plane_of_ones_own().await, "statuses").await;
    for row in &rows {
        row.assert_possible();
        row.make(&lab).await;
    }
    let said: BTreeMap<String, Verdict> = KINDS.iter().flat_map(|kind| verdicts(&lab, kind)).collect();
    assert_eq!(said.len(), rows.len(), "names are for one row each");
    let wrong: Vec<_> = rows.iter().filter(|row| said[&row.name] != row.means.verdict()).collect();
    let wrong: Vec<_> = wrong.iter().map(|row| (&row.name, row.means, &said[&row.name])).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_live_resource_means_the_same_to_all_who_wait() {
    // Who looks at the connections of the cluster looks at all of it.
    let mut lab = Lab::on(plane_of_ones_own().await, "health").await;
    lab.scope = Some(Vec::new());
    lab.flags.push("--allowed-hosts=127.0.0.1".to_owned());
    lab.start_operator();
    let means = |name: &str, meaning| assert_means(&lab, "ToolzzCredential", name, meaning);

    // The Secret comes late: nobody gives up meanwhile.
    lab.create(lab.manifest("openai")).await.unwrap();
    lab.until_reason("openai", "SecretNotFound").await;
    means("openai", Meaning::Progressing);
    lab.rotate("openai", "openai").await;
    lab.until_ready("openai").await;
    means("openai", Meaning::Ready);
    // Nobody waits for what needs somebody.
    let field = |name: &str| json!({"credentials": [{name: {"secretKeyRef": {"name": "openai", "key": "key"}}}]});
    lab.edit("openai", field("apikey")).await;
    lab.until_reason("openai", "InvalidSpec").await;
    means("openai", Meaning::Failed);
    lab.edit("openai", field("api_key")).await;
    lab.until_ready("openai").await;
    means("openai", Meaning::Ready);
    lab.simulator.go_down();
    lab.delete("openai").await;
    lab.until_reason("openai", "DeletionBlocked").await;
    means("openai", Meaning::Terminating);
    lab.simulator.come_up().unwrap();
    lab.until_gone("openai").await;

    let own = service("own");
    let means = |meaning| assert_means(&lab, "ToolzzConnection", "own", meaning);
    lab.connection("own", json!({"url": own.url(), "tokenSecretRef": {"name": "late", "key": "token"}})).await;
    lab.until_connection("own", "SecretNotFound").await;
    means(Meaning::Progressing);
    lab.secret("late", &[("token", &token("own"))]).await;
    lab.until_connection("own", "Connected").await;
    means(Meaning::Ready);
    lab.secret("late", &[("token", &token("another"))]).await;
    lab.until_connection("own", "Unauthorized").await;
    means(Meaning::Failed);

    // That of the platform, with a Secret of its own.
    let means = |meaning| assert_means(&lab, "ClusterToolzzConnection", "shared", meaning);
    let spec = json!({
        "url": own.url(), "tokenSecretRef": {"name": "later", "key": "token"},
        "namespaces": {"names": [lab.namespace]}, "unities": [{"id": "*"}],
    });
    lab.shared_connection("shared", spec).await;
    lab.until_shared_connection("shared", "SecretNotFound").await;
    means(Meaning::Progressing);
    lab.secret("later", &[("token", &token("own"))]).await;
    lab.until_shared_connection("shared", "Connected").await;
    means(Meaning::Ready);
    lab.secret("later", &[("token", &token("another"))]).await;
    lab.until_shared_connection("shared", "Unauthorized").await;
    means(Meaning::Failed);
}

/// `actions.yaml`: a value of Argo CD's ConfigMap.
#[derive(Deserialize)]
struct Actions {
    #[serde(rename = "discovery.lua")]
    discovery: String,
    definitions: Vec<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    #[serde(rename = "action.lua")]
    script: String,
}

impl Actions {
    fn shipped() -> Self {
        serde_saphyr::from_str(&fs::read_to_string(shipped("actions.yaml")).unwrap()).unwrap()
    }

    /// Those that a user is offered for this resource.
    fn offered(&self, lab: &Lab, name: &str) -> Vec<String> {
        let actions = run(lab, "discovery", &self.discovery, &live(lab, name));
        let actions = actions.as_object().unwrap();
        assert_eq!(
            actions.keys().collect::<BTreeSet<_>>(),
            self.definitions.iter().map(|definition| &definition.name).collect(),
            "offered are those that are defined"
        );
        actions.iter().filter(|(_, action)| action["disabled"] == json!(false)).map(|(name, _)| name.clone()).collect()
    }

    /// Does what Argo CD does when a user chooses this action: it sends the difference. What that was.
    async fn choose(&self, lab: &Lab, name: &str, action: &str) -> Value {
        let definition = self.definitions.iter().find(|definition| definition.name == action).unwrap();
        let before = live(lab, name);
        let patch = difference(&before, &run(lab, "action", &definition.script, &before));
        let params = PatchParams { field_manager: Some("argocd-server".to_owned()), ..PatchParams::default() };
        lab.api().patch(name, &params, &Patch::Merge(&patch)).await.unwrap();
        patch
    }
}

fn run(lab: &Lab, command: &str, script: &str, object: &Value) -> Value {
    let file = lab.directory.join("script.lua");
    fs::write(&file, script).unwrap();
    health(&[command], &file, object)
}

fn live(lab: &Lab, name: &str) -> Value {
    let args = ["get", "toolzzcredential", name, "-o", "json", "--show-managed-fields"];
    serde_json::from_str(&lab.kubectl(&args)).unwrap()
}

/// A merge patch that makes the one of the other.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return after.clone() };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    let changed = changed.map(|(key, value)| (key.clone(), difference(&before[key], value)));
    gone.chain(changed).collect()
}

#[tokio::test]
async fn actions_of_argo_cd_change_what_they_are_for_and_the_operator_follows() {
    let lab = Lab::start("actions").await;
    let actions = Actions::shipped();
    let means = |name: &str, meaning| assert_means(&lab, "ToolzzCredential", name, meaning);
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    assert_eq!(actions.offered(&lab, "openai"), ["suspend", "sync-now"]);

    let patch = actions.choose(&lab, "openai", "sync-now").await;
    let requested = patch["metadata"]["annotations"][REQUESTED].as_str().expect("a request");
    assert_eq!(patch, json!({"metadata": {"annotations": {REQUESTED: requested}}}));
    lab.until("openai", "answered", |object| {
        object.status.as_ref().unwrap().last_handled_reconcile_at.as_deref() == Some(requested)
    })
    .await;
    means("openai", Meaning::Ready);

    // What worked works on while it is left alone.
    assert_eq!(actions.choose(&lab, "openai", "suspend").await, json!({"spec": {"suspend": true}}));
    lab.until_reason("openai", "Suspended").await;
    means("openai", Meaning::Ready);
    assert_eq!(actions.offered(&lab, "openai"), ["resume"]);
    assert_eq!(actions.choose(&lab, "openai", "resume").await, json!({"spec": {"suspend": null}}));
    let object = lab
        .until("openai", "resumed", |object| {
            let seen = object.status.as_ref().unwrap().observed_generation == object.metadata.generation;
            seen && ready(object).unwrap().1 != "Suspended"
        })
        .await;
    assert_eq!(object.spec.suspend, None);
    means("openai", Meaning::Ready);

    // What did not work yet waits for somebody.
    lab.credential_with("second", json!({"suspend": true})).await;
    lab.until_reason("second", "Suspended").await;
    means("second", Meaning::Paused);
    actions.choose(&lab, "second", "resume").await;
    lab.until_ready("second").await;
    means("second", Meaning::Ready);

    // What leaves is left alone.
    let held = "example.com/held";
    lab.set_finalizers("second", &[FINALIZER, held]).await;
    lab.delete("second").await;
    assert!(actions.offered(&lab, "second").is_empty());
    lab.until("second", "let go", |object| object.metadata.finalizers.as_deref() == Some(&[held.to_owned()])).await;
    lab.set_finalizers("second", &[]).await;
    lab.until_gone("second").await;
}

#[tokio::test]
async fn argo_cd_learns_of_it_by_one_command_that_changes_nothing_else() {
    let lab = Lab::empty("argocd").await;
    let kubectl = |args: &[&str]| {
        let output = lab.plane.kubectl(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/argocd.md")).unwrap();
    let command = page.lines().find(|line| line.starts_with("kubectl apply ")).expect("the command to install it");
    let command: Vec<_> = command.split_whitespace().skip(1).collect();
    let before = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"url": "https://argocd.example.com"},
        "metadata": {"name": "argocd-cm", "namespace": "argocd", "labels": {"app.kubernetes.io/part-of": "argocd"}},
    });
    let file = lab.directory.join("argocd-cm.json");
    fs::write(&file, before.to_string()).unwrap();

    let mut expected = before["data"].clone();
    let text = |file: &str| fs::read_to_string(shipped(file)).unwrap();
    for kind in KINDS {
        expected[format!("resource.customizations.health.toolzz.com.br_{kind}")] = json!(text("health.lua"));
    }
    expected["resource.customizations.actions.toolzz.com.br_ToolzzCredential"] = json!(text("actions.yaml"));
    kubectl(&["create", "namespace", "argocd"]);
    // The second time is an update of Argo CD, then one of this.
    for _ in 0..2 {
        kubectl(&["apply", "--server-side", "-f", file.to_str().unwrap()]);
        kubectl(&command);
        let found: Value =
            serde_json::from_str(&kubectl(&["get", "configmap", "argocd-cm", "-n", "argocd", "-o", "json"])).unwrap();
        assert_eq!(found["data"], expected);
    }
}
