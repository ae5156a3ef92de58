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

use super::{chart::as_chart, connections::token, support::*};

/// Far beyond what anything takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rooms at once: they mostly wait.
const AT_ONCE: usize = 6;

/// Each right, and what does not work without it. `own`: of the Role in the release's namespace.
const NEEDED: [(&str, &str, &str); 37] = [
    ("toolzzcredentials", "get", "going on after somebody else has written to the resource"),
    ("toolzzcredentials", "list", "being ready"),
    ("toolzzcredentials", "watch", "seeing an edit at once"),
    ("toolzzcredentials", "patch", "recording what was created, and letting a deleted resource go"),
    ("toolzzcredentials/status", "patch", "saying anything"),
    ("toolzzconnections", "list", "using a tenant's connection"),
    ("toolzzconnections", "watch", "seeing that one was edited"),
    ("toolzzconnections/status", "patch", "saying how they are"),
    ("secrets", "get", "reading key material and tokens"),
    ("secrets", "list", "being ready"),
    ("secrets", "watch", "seeing at once that key material has changed"),
    ("secrets", "create", "making the Secret of a target"),
    ("secrets", "patch", "writing the virtual key to it"),
    ("secrets", "delete", "removing it when it is not asked for any more"),
    ("configmaps", "get", "knowing whose the ConfigMap of a target is"),
    ("configmaps", "list", "seeing that one was changed"),
    ("configmaps", "watch", "the same, at once"),
    ("configmaps", "create", "making the ConfigMap of a target"),
    ("configmaps", "patch", "writing the virtual key to it"),
    ("configmaps", "delete", "removing it when it is not asked for any more"),
    ("events", "create", "saying what happened"),
    ("own secrets", "get", "verifying records"),
    ("own secrets", "create", "making the installation key at the first start"),
    ("own leases", "get", "knowing who leads"),
    ("own leases", "update", "leading for longer than one term"),
    ("own leases", "create", "leading at all, the first time"),
    ("own leases -0", "get", "knowing who works on a shard"),
    ("own leases -0", "update", "working on it for longer than one term"),
    ("own leases -1", "get", "the same of another one"),
    ("own leases -1", "update", "the same of another one"),
    ("own leases -asking", "get", "knowing who asks for a shard"),
    ("own leases -asking", "update", "asking no more"),
    ("clustertoolzzconnections", "list", "knowing the platform's connections"),
    ("clustertoolzzconnections", "watch", "seeing that one was edited"),
    ("clustertoolzzconnections/status", "patch", "saying how they are"),
    ("namespaces", "list", "giving connections to namespaces by label"),
    ("namespaces", "watch", "seeing that labels have changed"),
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
                // Each lease is about something else; of Secrets any may need any of these rights.
                let names: Vec<_> = match resource.as_str() {
                    "leases" if !names.is_empty() => names.chunks(1).map(<[_]>::to_vec).collect(),
                    _ => vec![names.clone()],
                };
                all.extend(names.iter().flat_map(|names| {
                    verbs.iter().map(|verb| Self {
                        role: role.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        names: names.clone(),
                        verb: verb.clone(),
                        own,
                    })
                }));
            }
            all
        };
        rules.iter().flat_map(of_rule).collect()
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
        let namespace = if self.own { &lab.home } else { &lab.namespace };
        let spec = json!({
            "user": format!("system:serviceaccount:{}:{RELEASE}", lab.home),
            "resourceAttributes": {
                "namespace": namespace, "verb": self.verb, "group": self.group, "resource": resource,
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
}

impl Scope {
    fn is_cluster(self) -> bool {
        matches!(self, Self::Cluster | Self::SecretNamespaces)
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
        let values = match scope {
            Scope::Cluster => "scope=cluster".to_owned(),
            Scope::Namespace => namespaces,
            Scope::Sharded => format!("{namespaces},sharding.shards=2,replicas=2"),
            Scope::SecretNamespaces => {
                format!("scope=cluster,secretAccess=namespaces,secretNamespaces={{{tenant},{home}}}")
            }
            Scope::NamedSecrets => {
                format!("{namespaces},secretAccess=named,secretNames.{tenant}={{a,b,token-own,out-b}}")
            }
        };
        let more = "targets={configmaps,secrets},allowedHosts={127.0.0.1},leaderElection.leaseDuration=10s,rateLimit=0";
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
        if matches!(scope, Scope::NamedSecrets | Scope::SecretNamespaces) {
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
            Scope::Cluster | Scope::SecretNamespaces => self.share().await,
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

    /// Without this right, as another room has it: something is refused, and said.
    async fn lives_without(mut self, right: &Right) {
        let right = &self.rights.iter().find(|own| own.to_string() == right.to_string()).unwrap().clone();
        right.withdraw(&self.lab).await;
        self.start();
        let refused = |entry: &Entry| entry.status == Some(403) && right.is_for(&entry.asked, &self.lab.home);
        tokio::select! {
            biased;
            () = self.lab.proxy().until(|state| state.journal().iter().any(refused)) => {}
            () = self.live() => panic!("{right} is given and not needed"),
        }
        let said = async {
            while !self.lab.log().lines().any(says_refused) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let said = tokio::time::timeout(PATIENCE, said).await;
        said.unwrap_or_else(|_| panic!("nobody says that {right} is missing\n{}", self.lab.log()));
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
    NEEDED.iter().map(|(resource, verb, _)| format!("{resource} {verb}")).collect()
}

/// With all rights of this scope nothing is refused, and none of these can be taken away.
async fn are_needed(scope: Scope, these: impl Fn(&Right) -> bool) {
    let _turn = turn().await;
    // Who sees all namespaces needs a control plane.
    let (plane, at_once) = if scope.is_cluster() { (plane_of_ones_own().await, 1) } else { (plane().await, AT_ONCE) };
    let mut whole = Room::new(Lab::on(plane, "rights").await, scope).await;
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
        let lab = Lab::on(plane, "without").await;
        if scope.is_cluster() {
            // What was taken out of it by hand is no longer the chart's, and would be a conflict.
            lab.kubectl(&["delete", "clusterrole", RELEASE]);
        }
        Room::new(lab, scope).await.lives_without(right).await;
    };
    stream::iter(rights.iter().filter(|right| these(right))).for_each_concurrent(at_once, without).await;
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
    // Those on its own Secrets are among those on all.
    are_needed(Scope::Cluster, |right| !(right.own && right.resource == "secrets")).await;
}

#[tokio::test]
async fn every_right_on_secrets_of_named_namespaces_is_needed_and_none_is_missing() {
    are_needed(Scope::SecretNamespaces, |right| right.resource == "secrets" && !right.own).await;
}
