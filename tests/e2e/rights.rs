//! Least privilege, both ways: with the rights of the chart nothing is refused, and without any one of them something is.

use std::{
    cell::OnceCell,
    collections::BTreeSet,
    fmt,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use test_kubeproxy::{Asked, Entry, Fault, Operation, Times};
use toolzz_simulator::{DEFAULT_TOKEN, Token};

use super::{chart::as_chart, connections::token, docs::ROOT, support::*};

/// Far beyond what anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rooms at once: they mostly wait.
const AT_ONCE: usize = 6;

// Tests of what each right is for. Where there is such a one, one whose operator has the chart's rights and no others; that
// each right is needed is shown below.
const MAIN_JOB: &str = "chart::the_main_job_works_with_exactly_the_rights_of_the_chart_in_one_namespace";
const NAMED: &str = "chart::only_secrets_that_are_named_are_read";
const REACH: &str = "chart::one_namespace_out_of_reach_stops_nothing_elsewhere";
const GIVEN: &str = "shared::confused_deputy_a_tenant_gets_what_it_is_given_and_nothing_else";
const BY_LABEL: &str =
    "shared::a_grant_by_label_follows_the_label_and_a_default_object_takes_the_place_of_the_flags_for_good";
const ANSWERED: &str = "schema::connections_that_the_api_server_accepts_are_answered";
const TARGET: &str = "targets::a_target_is_written_owned_and_put_right";
const SECRET_TARGET: &str = "targets::a_target_that_is_not_its_own_is_not_touched";
const LEADER: &str = "leader::one_works_and_the_other_takes_over_at_once_when_that_ends";
const SHARDS: &str = "shards::three_share_the_work_and_one_that_comes_or_goes_doubles_nothing";
/// Of what the other tests come to the same end without, or never ask for.
const LIFE: &str = "rights::every_right_in_a_namespace_is_needed_and_none_is_missing";

/// Each right, what does not work without it, and a test that needs it. `own`: of the Role in the release's namespace.
const NEEDED: [(&str, &str, &str, &str); 37] = [
    ("toolzzcredentials", "get", "going on after somebody else has written to the resource", LIFE),
    ("toolzzcredentials", "list", "being ready", MAIN_JOB),
    ("toolzzcredentials", "watch", "seeing an edit at once", MAIN_JOB),
    ("toolzzcredentials", "patch", "recording what was created, and letting a deleted resource go", MAIN_JOB),
    ("toolzzcredentials/status", "patch", "saying anything", MAIN_JOB),
    ("toolzzconnections", "list", "using a tenant's connection", REACH),
    ("toolzzconnections", "watch", "seeing that one was edited", GIVEN),
    ("toolzzconnections/status", "patch", "saying how they are", ANSWERED),
    ("secrets", "get", "reading key material and tokens", MAIN_JOB),
    ("secrets", "list", "being ready", MAIN_JOB),
    ("secrets", "watch", "seeing at once that key material has changed", MAIN_JOB),
    ("secrets", "create", "making the Secret of a target", SECRET_TARGET),
    ("secrets", "patch", "writing the virtual key to it", SECRET_TARGET),
    ("secrets", "delete", "removing it when it is not asked for any more", LIFE),
    ("configmaps", "get", "knowing whose the ConfigMap of a target is", TARGET),
    ("configmaps", "list", "seeing that one was changed", TARGET),
    ("configmaps", "watch", "the same, at once", TARGET),
    ("configmaps", "create", "making the ConfigMap of a target", TARGET),
    ("configmaps", "patch", "writing the virtual key to it", TARGET),
    ("configmaps", "delete", "removing it when it is not asked for any more", TARGET),
    ("events", "create", "saying what happened", MAIN_JOB),
    ("own secrets", "get", "verifying records", NAMED),
    ("own secrets", "create", "making the installation key at the first start", NAMED),
    ("own leases", "get", "knowing who leads", LEADER),
    ("own leases", "update", "leading for longer than one term", LEADER),
    ("own leases", "create", "leading at all, the first time", LEADER),
    ("own leases -0", "get", "knowing who works on a shard", SHARDS),
    ("own leases -0", "update", "working on it for longer than one term", SHARDS),
    ("own leases -1", "get", "the same of another one", SHARDS),
    ("own leases -1", "update", "the same of another one", SHARDS),
    ("own leases -asking", "get", "knowing who asks for a shard", SHARDS),
    ("own leases -asking", "update", "asking no more", SHARDS),
    ("clustertoolzzconnections", "list", "knowing the platform's connections", GIVEN),
    ("clustertoolzzconnections", "watch", "seeing that one was edited", BY_LABEL),
    ("clustertoolzzconnections/status", "patch", "saying how they are", GIVEN),
    ("namespaces", "list", "giving connections to namespaces by label", BY_LABEL),
    ("namespaces", "watch", "seeing that labels have changed", BY_LABEL),
];

/// What the chart calls what it makes.
const RELEASE: &str = "op-toolzz-operator";

/// One verb on one resource, in one of the chart's roles; of leases on one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// `role` or `clusterrole`, and its name and namespace, for kubectl.
    role: Vec<String>,
    group: String,
    /// With its subresource.
    resource: String,
    /// The only objects it is for; none: all.
    names: Vec<String>,
    verb: String,
    own: bool,
}

impl fmt::Display for Right {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = if self.own { "own " } else { "" };
        write!(formatter, "{own}{} ", self.resource)?;
        let lease =
            self.names.first().filter(|_| self.resource == "leases").and_then(|name| name.strip_prefix(RELEASE));
        if let Some(of) = lease.filter(|of| !of.is_empty()) {
            write!(formatter, "{of} ")?;
        }
        formatter.write_str(&self.verb)
    }
}

impl Right {
    /// Every right of a role.
    fn all(lab: &Lab, role: Vec<String>, own: bool) -> Vec<Self> {
        let rules = json(lab, &role)["rules"].as_array().unwrap().clone();
        let texts = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        let of_rule = |rule: &Value| {
            let (groups, names, verbs) =
                (texts(&rule["apiGroups"]), texts(&rule["resourceNames"]), texts(&rule["verbs"]));
            let [group] = groups.as_slice() else { panic!("{rule}") };
            let mut all = Vec::new();
            for resource in texts(&rule["resources"]) {
                for verb in &verbs {
                    let right = Self {
                        role: role.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        names: names.clone(),
                        verb: verb.clone(),
                        own,
                    };
                    // Each lease is about something else; of Secrets any may need any of these rights.
                    if resource == "leases" {
                        all.extend(right.one_by_one());
                    } else {
                        all.push(right);
                    }
                }
            }
            all
        };
        rules.iter().flat_map(of_rule).collect()
    }

    /// The same on each of the objects it is for.
    fn one_by_one(&self) -> Vec<Self> {
        if self.names.is_empty() {
            return vec![self.clone()];
        }
        self.names.iter().map(|name| Self { names: vec![name.clone()], ..self.clone() }).collect()
    }

    /// Where it is needed.
    fn namespace<'a>(&self, lab: &'a Lab) -> &'a str {
        if self.own { &lab.home } else { &lab.namespace }
    }

    /// Whether a request needs it.
    fn is_for(&self, asked: &Asked, home: &str) -> bool {
        let resource = asked
            .subresource
            .as_ref()
            .map_or_else(|| asked.resource.clone(), |subresource| format!("{}/{subresource}", asked.resource));
        let verb = match asked.operation {
            Operation::Get => "get",
            Operation::List => "list",
            Operation::Watch => "watch",
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Patch => "patch",
            Operation::Delete => "delete",
            Operation::DeleteCollection | Operation::Other => return false,
        };
        let own = matches!(asked.resource.as_str(), "secrets" | "leases") && asked.namespace.as_deref() == Some(home);
        let named = self.names.is_empty() || asked.name.as_ref().is_none_or(|name| self.names.contains(name));
        resource == self.resource && verb == self.verb && own == self.own && named
    }

    /// Whether a line of the log is about what was refused without it. Lines do not name the lease, nor the verb on a
    /// resource.
    fn is_told_by(&self, line: &str, lab: &Lab) -> bool {
        let line = line.to_lowercase();
        let says = |words: &str| line.contains(words);
        match (self.resource.as_str(), self.verb.as_str()) {
            ("leases", _) => says("lease") || says("shard"),
            (resource, "list" | "watch") => says(&format!("the watch on {resource} failed")),
            ("secrets" | "configmaps", "delete") => says("cannot be removed"),
            // A connection of an earlier room may not get its Secret either.
            (resource @ ("secrets" | "configmaps"), verb) => {
                let here = says(&lab.namespace) || says(&lab.home);
                says(&format!("may not {verb} {}", resource.trim_end_matches('s'))) && here
            }
            ("events", _) => says("an event is not written"),
            ("toolzzcredentials" | "toolzzcredentials/status", _) => says("kubernetes api: 403"),
            (resource, _) => {
                let kind = resource.trim_end_matches("s/status");
                says("the connection's status was not written") && says(&format!("\"{kind}/"))
            }
        }
    }

    /// Takes it away, and waits until the API server knows.
    async fn withdraw(&self, lab: &Lab) {
        let mut role = json(lab, &self.role);
        let rules = role["rules"].as_array_mut().unwrap();
        let mut of_others = Vec::new();
        for rule in rules.iter_mut() {
            let holds = |field: &str, one: &str| rule[field].as_array().unwrap().iter().any(|other| other == one);
            if holds("resources", &self.resource) && holds("verbs", &self.verb) {
                let mut others = rule.clone();
                others["verbs"] = json!([self.verb]);
                if let Some(names) = others["resourceNames"].as_array_mut() {
                    names.retain(|name| !self.names.iter().any(|own| name == own));
                    of_others.extend((!names.is_empty()).then_some(others));
                }
                rule["verbs"].as_array_mut().unwrap().retain(|verb| *verb != self.verb.as_str());
            }
        }
        rules.retain(|rule| !rule["verbs"].as_array().unwrap().is_empty());
        rules.append(&mut of_others);
        let mut kubectl =
            lab.plane.kubectl(["replace", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        kubectl.stdin.take().unwrap().write_all(role.to_string().as_bytes()).unwrap();
        assert!(kubectl.wait().unwrap().success());

        let (resource, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        let spec = json!({
            "user": format!("system:serviceaccount:{}:{RELEASE}", lab.home),
            "resourceAttributes": {
                "namespace": self.namespace(lab), "verb": self.verb, "group": self.group, "resource": resource,
                "subresource": subresource, "name": self.names.first(),
            },
        });
        let review: SubjectAccessReview = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let reviews: Api<SubjectAccessReview> = Api::all(lab.client.clone());
        let gone = async {
            while reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{self} is given twice"));
    }
}

fn json(lab: &Lab, role: &[String]) -> Value {
    let output = lab.plane.kubectl(["get", "-o", "json"]).args(role).output().unwrap();
    assert!(output.status.success(), "{role:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Where the operator has its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Namespace,
    /// The same, but those on Secrets are for these names.
    NamedSecrets,
    /// As the first, with two shards.
    Sharded,
    Cluster,
    /// The same, but those on Secrets are for namespaces that are named for that.
    SecretNamespaces,
    /// The same, but those on Secrets are for names in such namespaces.
    SecretNames,
}

impl Scope {
    fn is_cluster(self) -> bool {
        matches!(self, Self::Cluster | Self::SecretNamespaces | Self::SecretNames)
    }
}

/// A room with the chart installed for another namespace, or for all, and the rights it gives. The operator is started
/// behind a proxy that sees what is refused.
struct Room {
    lab: Lab,
    scope: Scope,
    command: Command,
    /// Of two shards one is for this.
    second: OnceCell<Operator>,
    rights: Vec<Right>,
}

impl Room {
    async fn new(mut lab: Lab, scope: Scope) -> Self {
        let home = lab.home.clone();
        let tenant = lab.plane.unique_namespace("tenant").await.unwrap();
        let namespaces = format!("scope=namespaces,namespaces={{{tenant}}}");
        let named = format!("secretAccess=named,secretNames.{tenant}={{a,b,token-own,out-b}}");
        let values = match scope {
            Scope::Cluster => "scope=cluster".to_owned(),
            Scope::Namespace => namespaces,
            Scope::Sharded => format!("{namespaces},sharding.shards=2,replicas=2"),
            Scope::SecretNamespaces => {
                format!("scope=cluster,secretAccess=namespaces,secretNamespaces={{{tenant},{home}}}")
            }
            Scope::SecretNames => format!("scope=cluster,{named},secretNames.{home}={{shared}}"),
            Scope::NamedSecrets => format!("{namespaces},{named}"),
        };
        // Who loses its lease on a busy machine ends, and nobody starts it anew here.
        let lease = "leaderElection.leaseDuration=30s,leaderElection.renewDeadline=25s,leaderElection.retryPeriod=2s";
        let more = format!("targets={{configmaps,secrets}},allowedHosts={{127.0.0.1}},rateLimit=0,{lease}");
        let mut command = as_chart(&lab, &format!("{values},{more}")).await;
        lab.identity = lab.plane.service_account_kubeconfig(&home, RELEASE).await.unwrap();
        lab.use_proxy().await;
        command.env("KUBECONFIG", lab.directory.join("kubeconfig"));
        lab.simulator.set_tokens(vec![Token::full("default", DEFAULT_TOKEN), Token::full("own", &token("own"))]);
        lab.namespace = tenant;
        let role = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let main = if scope.is_cluster() {
            role(&["clusterrole", RELEASE])
        } else {
            role(&["role", RELEASE, "-n", &lab.namespace])
        };
        let mut rights = Right::all(&lab, main, false);
        if matches!(scope, Scope::NamedSecrets | Scope::SecretNamespaces | Scope::SecretNames) {
            let name = format!("{RELEASE}-secrets");
            rights.extend(Right::all(&lab, role(&["role", &name, "-n", &lab.namespace]), false));
        }
        rights.extend(Right::all(&lab, role(&["role", &format!("{RELEASE}-own"), "-n", &home]), true));
        Self { lab, scope, command, second: OnceCell::new(), rights }
    }

    fn start(&mut self) {
        self.lab.operator = Some(self.another());
    }

    fn another(&self) -> Operator {
        let mut command = Command::new(self.command.get_program());
        let environment = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.args(self.command.get_args()).env_clear().envs(environment);
        Operator::spawn(command, &self.lab.directory.join("operator.log"))
    }

    /// Everything that needs a right.
    async fn live(&self) {
        let lab = &self.lab;
        let records = |asked: &Asked| {
            asked.operation == Operation::Patch && asked.resource == "toolzzcredentials" && asked.subresource.is_none()
        };
        // Who meets a conflict reads the resource again.
        lab.proxy().fault(records, Times::Next(1), Fault::conflict());
        match self.scope {
            Scope::Cluster | Scope::SecretNamespaces | Scope::SecretNames => self.share().await,
            // Another one comes when this one has both, and asks for one of them.
            Scope::Sharded => {
                for shard in 0..2 {
                    let works = format!("toolzz_operator_shard{{shard=\"{shard}\"}} 1");
                    lab.operator.as_ref().unwrap().until_metric(&works).await;
                }
                self.second.get_or_init(|| self.another());
            }
            Scope::Namespace | Scope::NamedSecrets => {}
        }
        lab.connect("own", &lab.simulator.url(), "own").await;
        let target = |kind: &str, name: &str| json!({"kind": kind, "name": name});
        let own = json!({"connectionRef": {"kind": "ToolzzConnection", "name": "own"}, "target": target("ConfigMap", "out-a")});
        lab.credential_with("a", own).await;
        lab.credential_with("b", json!({"target": target("Secret", "out-b")})).await;
        for name in ["a", "b"] {
            lab.until_ready(name).await;
            lab.rotate(name, "changed").await;
            lab.until_reason(name, "Rotated").await;
            lab.edit(name, json!({"target": null})).await;
            lab.until(name, "without a target", |object| object.status.as_ref().unwrap().target.is_none()).await;
            lab.delete(name).await;
            lab.until_gone(name).await;
        }
        // A watch may begin later than what it tells of was seen.
        let unused = |state: &test_kubeproxy::State| {
            let used = |right: &&Right| !state.journal().iter().any(|entry| self.uses(right, entry));
            names(&self.rights.iter().filter(used).cloned().collect::<Vec<_>>())
        };
        let used = tokio::time::timeout(PATIENCE, lab.proxy().until(|state| unused(state).is_empty())).await;
        used.unwrap_or_else(|_| panic!("nobody needs {:?}", lab.proxy().read(unused)));
    }

    /// A connection of the platform's.
    async fn share(&self) {
        let lab = &self.lab;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "shared", "namespace": lab.home},
            "stringData": {"token": token("own")}});
        let connection = json!({"apiVersion": "toolzz.com.br/v1alpha1", "kind": "ClusterToolzzConnection",
            "metadata": {"name": "shared"}, "spec": {
                "url": lab.simulator.url(), "tokenSecretRef": {"name": "shared", "key": "token"},
                "namespaces": {"names": [lab.namespace]}, "unities": [{"id": "*"}]}});
        for object in [secret, connection] {
            let mut kubectl =
                lab.plane.kubectl(["apply", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            kubectl.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
            assert!(kubectl.wait().unwrap().success());
        }
    }

    fn uses(&self, right: &Right, entry: &Entry) -> bool {
        right.is_for(&entry.asked, &self.lab.home) && entry.status.is_some_and(|status| status != 403)
    }

    /// Nothing was refused.
    fn assert_nothing_refused(&self) {
        let journal = self.lab.proxy().journal();
        let refused: Vec<_> =
            journal.iter().filter(|entry| entry.status == Some(403)).map(|entry| &entry.asked).collect();
        assert!(refused.is_empty(), "{refused:#?}\n{}", self.lab.log());
    }

    /// Without this right, as another room has it: what needs it is refused, and that is said.
    async fn lives_without(mut self, right: &Right) {
        let own = self.rights.iter().find(|own| own.to_string() == right.to_string()).unwrap();
        let right = &Right { names: right.names.clone(), ..own.clone() };
        right.withdraw(&self.lab).await;
        self.start();
        let refused = |entry: &Entry| entry.status == Some(403) && right.is_for(&entry.asked, &self.lab.home);
        tokio::select! {
            biased;
            () = self.lab.proxy().until(|state| state.journal().iter().any(refused)) => {}
            () = self.live() => panic!("{right} {:?} is given and not needed", right.names),
        }
        let said = async {
            let is_it = |line: &str| says_refused(line) && right.is_told_by(line, &self.lab);
            while !self.lab.log().lines().any(is_it) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("nobody says that {right} {:?} is missing\n{}", right.names, self.lab.log()));
    }
}

/// Whether it is a line for people, of what the API server does not allow.
fn says_refused(line: &str) -> bool {
    let for_people = ["\"INFO\"", "\"WARN\"", "\"ERROR\"", "error: "].iter().any(|level| line.contains(level));
    for_people && ["403", "Forbidden", "may not"].iter().any(|word| line.contains(word))
}

fn names(rights: &[Right]) -> BTreeSet<String> {
    rights.iter().map(Right::to_string).collect()
}

fn is_of_shards(right: &str) -> bool {
    right.starts_with("own leases -")
}

fn needed() -> BTreeSet<String> {
    NEEDED.iter().map(|(resource, verb, ..)| format!("{resource} {verb}")).collect()
}

/// With all rights of this scope nothing is refused, and none of these can be taken away.
async fn are_needed(scope: Scope, these: impl Fn(&Right) -> bool) {
    let _turn = turn().await;
    // Who sees all namespaces needs a control plane.
    let (plane, at_once) = if scope.is_cluster() { (plane_of_ones_own().await, 1) } else { (plane().await, AT_ONCE) };
    let mut whole = Room::new(Lab::on(plane.clone(), "rights").await, scope).await;
    let rights = whole.rights.clone();
    let mut expected = needed();
    expected.retain(|right| {
        let of_cluster = right.starts_with("clustertoolzz") || right.starts_with("namespaces");
        (scope.is_cluster() || !of_cluster) && (scope == Scope::Sharded || !is_of_shards(right))
    });
    assert_eq!(names(&rights), expected);
    whole.start();
    whole.live().await;
    whole.assert_nothing_refused();
    drop(whole);
    let without = async |right: &Right| {
        let lab = Lab::on(plane.clone(), "without").await;
        if scope.is_cluster() {
            // What was taken out of it by hand is no longer the chart's, and would be a conflict.
            lab.kubectl(&["delete", "clusterrole", RELEASE]);
        }
        Room::new(lab, scope).await.lives_without(right).await;
    };
    // Each name is read, so what reads is taken away of each by itself. Written is to one of them only.
    let each = |right: &Right| match right.verb.as_str() {
        "get" | "list" | "watch" if scope == Scope::NamedSecrets => right.one_by_one(),
        _ => vec![right.clone()],
    };
    let these: Vec<Right> = rights.iter().filter(|right| these(right)).flat_map(each).collect();
    stream::iter(&these).for_each_concurrent(at_once, without).await;
}

#[test]
fn the_test_that_is_named_for_each_right_is_there() {
    for (resource, verb, what, test) in NEEDED {
        println!("{resource} {verb}: {what} ({test})");
        let (module, name) = test.split_once("::").unwrap();
        let source = std::fs::read_to_string(format!("{ROOT}/tests/e2e/{module}.rs")).unwrap();
        assert!(source.contains(&format!("#[tokio::test]\nasync fn {name}() {{\n")), "there is no test {test}");
    }
}

#[tokio::test]
async fn every_right_in_a_namespace_is_needed_and_none_is_missing() {
    are_needed(Scope::Namespace, |_| true).await;
}

#[tokio::test]
async fn every_right_on_named_secrets_is_needed_and_none_is_missing() {
    are_needed(Scope::NamedSecrets, |right| right.resource == "secrets" && !right.own).await;
}

#[tokio::test]
async fn every_right_of_shards_is_needed_and_none_is_missing() {
    are_needed(Scope::Sharded, |right| is_of_shards(&right.to_string())).await;
}

#[tokio::test]
async fn every_right_in_the_cluster_is_needed_and_none_is_missing() {
    // Those on its own Secrets are among those on all here. The chart gives them always: with another `secretAccess`,
    // or where no Secret may be a target, they are not among those.
    are_needed(Scope::Cluster, |right| !(right.own && right.resource == "secrets")).await;
}

#[tokio::test]
async fn every_right_on_secrets_of_named_namespaces_is_needed_and_none_is_missing() {
    are_needed(Scope::SecretNamespaces, |right| right.resource == "secrets" && !right.own).await;
}

#[tokio::test]
async fn every_right_on_named_secrets_in_the_cluster_is_needed_and_none_is_missing() {
    // To make one is among what is given where the tokens of the cluster's connections are.
    are_needed(Scope::SecretNames, |right| right.resource == "secrets" && (!right.own || right.verb == "get")).await;
}
