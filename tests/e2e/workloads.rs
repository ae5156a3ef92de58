//! What users do with one resource, each from a state of rest to a state of rest, so that the operator's effects on the
//! way can be listed and every one of them be met by a crash or a fault.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolzz_operator::api::ToolzzCredential;
use toolzz_simulator::{Fault, Operation, Point, Times};
use uuid::Uuid;

use super::{
    adoption::{as_in_a_backup, lose, made_by_hand},
    support::*,
};

/// The resource, and the final name of its credential until it is renamed.
pub const NAME: &str = "openai";

/// No effect begins or ends for so long: the operator is at rest. Longer than every interval the workloads set.
const QUIET: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Create,
    CreateTarget,
    Update,
    SwitchOff,
    Repoint,
    RepointTwice,
    Replace,
    ReplaceTarget,
    InPlace,
    PromoteStaged,
    Drift,
    Loss,
    AdoptById,
    AdoptByName,
    DropTarget,
    Delete,
    DeleteWhileRetiring,
    DeleteUnknownPost,
    DeleteUnknownPut,
    Restore,
}

use Workload::*;

impl Workload {
    pub const ALL: [Self; 20] = [
        Create,
        CreateTarget,
        Update,
        SwitchOff,
        Repoint,
        RepointTwice,
        Replace,
        ReplaceTarget,
        InPlace,
        PromoteStaged,
        Drift,
        Loss,
        AdoptById,
        AdoptByName,
        DropTarget,
        Delete,
        DeleteWhileRetiring,
        DeleteUnknownPost,
        DeleteUnknownPut,
        Restore,
    ];

    /// The spec's fields that this is about.
    pub fn spec(self) -> Value {
        let target = json!({"kind": "ConfigMap", "name": "out"});
        match self {
            CreateTarget | DropTarget => json!({ "target": target }),
            Replace | PromoteStaged => json!({"rotation": {"strategy": "Replace", "gracePeriod": "1s"}}),
            ReplaceTarget => json!({"target": target, "rotation": {"strategy": "Replace", "gracePeriod": "1s"}}),
            DeleteWhileRetiring => json!({"rotation": {"strategy": "Replace", "gracePeriod": "10m"}}),
            InPlace => json!({"rotation": {"strategy": "InPlace"}}),
            AdoptByName => json!({"onConflict": "Adopt"}),
            _ => json!({}),
        }
    }

    /// A room where everything is ready for it and at rest.
    pub async fn prepare(self) -> Lab {
        self.prepare_in(Lab::empty("workload").await, &[]).await
    }

    /// Makes an empty room such a one, for operators with these flags.
    pub async fn prepare_in(self, mut lab: Lab, flags: &[&str]) -> Lab {
        let resync = if matches!(self, Drift | Loss) { "2s" } else { "10m" };
        lab.flags = ["--settle-period=3s", "--request-timeout=2s", "--allow-adoption"].map(str::to_owned).to_vec();
        lab.flags.push(format!("--resync-interval={resync}"));
        lab.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        lab.use_proxy().await;
        lab.simulator.configure(|settings| settings.replace_material_in_place = self == InPlace);
        match self {
            Create | CreateTarget => {}
            AdoptById | AdoptByName => drop(made_by_hand(&lab, NAME)),
            DeleteUnknownPost => drop(lab.simulator.fault(Operation::Create, Times::Next(1), Fault::lost_answer())),
            DeleteUnknownPut => drop(lab.simulator.fault(Operation::Update, Times::Next(1), Fault::lost_answer())),
            _ => self.settle(&mut lab).await,
        }
        lab
    }

    /// The resource is there and ready.
    async fn settle(self, lab: &mut Lab) {
        lab.start_operator();
        if self == Loss {
            // Listings show inactive ones: so what is not listed is not there.
            lab.credential_with("inactive", json!({"active": false})).await;
            lab.until_ready("inactive").await;
        }
        let spec = if self == PromoteStaged { json!({}) } else { self.spec() };
        lab.credential_with(NAME, spec).await;
        let object = lab.until_ready(NAME).await;
        // What came late would be taken for an effect of what follows.
        until_at_rest(lab).await;
        match self {
            DeleteWhileRetiring => {
                lab.rotate(NAME, "new").await;
                lab.until_reason(NAME, "Rotated").await;
            }
            PromoteStaged => {
                lab.simulator.configure(|settings| settings.ignore_secret_id = true);
                lab.rotate(NAME, "new").await;
                lab.until_reason(NAME, "RotationUnsupported").await;
            }
            Restore => {
                lab.kill_operator();
                lose(lab, NAME).await;
                std::fs::write(lab.directory.join("backup"), as_in_a_backup(&object).to_string()).unwrap();
            }
            _ => return,
        }
        until_at_rest(lab).await;
    }

    /// What the user does, and waits for. It goes on over whatever happens to the operator.
    pub async fn act(self, lab: &Lab) {
        match self {
            Create | CreateTarget | AdoptByName => {
                lab.credential_with(NAME, self.spec()).await;
                lab.until_ready(NAME).await;
            }
            AdoptById => {
                let id = lab.simulator.credentials()[0].id.to_string();
                lab.credential_with(NAME, json!({"externalId": id})).await;
                lab.until_ready(NAME).await;
            }
            Update => {
                lab.edit(NAME, json!({"name": "OpenAI Marketing", "userId": Uuid::nil().to_string()})).await;
                lab.until_ready(NAME).await;
            }
            SwitchOff => {
                lab.edit(NAME, json!({"active": false})).await;
                lab.until_ready(NAME).await;
            }
            Repoint | Replace | ReplaceTarget | InPlace => rotate(lab, "new").await,
            RepointTwice => {
                rotate(lab, "new").await;
                rotate(lab, "newer").await;
            }
            PromoteStaged => {
                let before = digest(&lab.api().get(NAME).await.unwrap());
                lab.edit(NAME, self.spec()).await;
                until_rotated(lab, before, "new").await;
            }
            Drift => {
                let id = lab.simulator.credentials()[0].id;
                lab.simulator.edit(id, |row| row.name = "by hand".into());
                lab.simulator.until(move |state| state.credential(id).unwrap().row.name == NAME).await;
                lab.until_ready(NAME).await;
            }
            Loss => {
                let id = lab.until_ready(NAME).await.status.unwrap().id.unwrap();
                lab.simulator.remove(id.as_str().parse().unwrap());
                lab.until_reason(NAME, "RemoteMissing").await;
                lab.annotate(NAME, "toolzz.com.br/recreate", id.as_str()).await;
                lab.until(NAME, "made again", |object| {
                    let status = object.status.as_ref().unwrap();
                    status.id.as_ref() != Some(&id) && status.retiring.is_empty() && ready(object).unwrap().0 == "True"
                })
                .await;
            }
            DropTarget => {
                lab.edit(NAME, json!({"target": null})).await;
                lab.until_ready(NAME).await;
            }
            Delete | DeleteWhileRetiring => {
                lab.delete(NAME).await;
                lab.until_gone(NAME).await;
            }
            DeleteUnknownPost | DeleteUnknownPut => {
                let lost = if self == DeleteUnknownPost { Operation::Create } else { Operation::Update };
                lab.credential_with(NAME, self.spec()).await;
                lab.simulator.until(move |state| state.counts(lost).received >= 1).await;
                // The deletion comes before the operator can learn what became of the request, however long either takes.
                let look = lab.simulator.hold(Operation::List, Point::BeforeCommit);
                lab.delete(NAME).await;
                look.release();
                lab.until_gone(NAME).await;
            }
            Restore => {
                let backup = std::fs::read_to_string(lab.directory.join("backup")).unwrap();
                lab.create(serde_json::from_str(&backup).unwrap()).await.unwrap();
                lab.until_ready(NAME).await;
            }
        }
    }
}

fn digest(object: &ToolzzCredential) -> Option<String> {
    Some(object.status.as_ref()?.material.as_ref()?.digest.clone())
}

async fn rotate(lab: &Lab, material: &str) {
    let before = digest(&lab.api().get(NAME).await.unwrap());
    lab.rotate(NAME, material).await;
    until_rotated(lab, before, material).await;
}

async fn until_rotated(lab: &Lab, before: Option<String>, material: &str) {
    lab.until(NAME, "rotated", |object| {
        let status = object.status.as_ref().unwrap();
        status.observed_generation == object.metadata.generation
            && status.retiring.is_empty()
            && digest(object) != before
            && ready(object).unwrap().0 == "True"
            && lab.materials(NAME) == [material]
    })
    .await;
}

/// What a workload comes to, by its own description: not as the operator says.
struct Right {
    creates: u64,
    /// Credentials that were there without the operator.
    by_hand: u64,
    /// Name, user and material of the one that is active.
    active: Option<(&'static str, &'static str, &'static str)>,
    most_active: usize,
    target: bool,
    deleted: bool,
}

impl Workload {
    fn right(self) -> Right {
        // While nothing else is said of them.
        let (creates, name, user, material) = (1, NAME, USER, NAME);
        let one = |creates, name, user, material| Right {
            creates,
            by_hand: 0,
            active: Some((name, user, material)),
            most_active: 1,
            target: false,
            deleted: false,
        };
        let plain = one(creates, name, user, material);
        let rotated = one(2, name, user, "new");
        match self {
            Create | Drift | DropTarget | Restore => plain,
            CreateTarget => Right { target: true, ..plain },
            Update => one(creates, "OpenAI Marketing", "00000000-0000-0000-0000-000000000000", material),
            SwitchOff => Right { active: None, ..plain },
            Repoint => rotated,
            RepointTwice => one(3, name, user, "newer"),
            Replace | PromoteStaged => Right { most_active: 2, ..rotated },
            ReplaceTarget => Right { most_active: 2, target: true, ..rotated },
            InPlace => one(creates, name, user, "new"),
            // The one that is lost, the one in its place, and an inactive one beside them.
            Loss => one(3, name, user, material),
            AdoptById | AdoptByName => Right { by_hand: 1, ..plain },
            Delete | DeleteUnknownPost | DeleteUnknownPut => Right { active: None, deleted: true, ..plain },
            DeleteWhileRetiring => Right { active: None, most_active: 2, deleted: true, ..rotated },
        }
    }
}

/// A change the operator makes somewhere. Which of several equal ones is said beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At Toolzz.
    Remote(Operation),
    /// In Kubernetes.
    Kubernetes { operation: test_kubeproxy::Operation, resource: String, subresource: Option<String> },
}

impl Effect {
    /// Whether it makes or changes an object of this resource (plural name).
    pub fn writes_to(&self, name: &str) -> bool {
        let Self::Kubernetes { operation, resource, .. } = self else { return false };
        resource == name && *operation != test_kubeproxy::Operation::Delete
    }

    pub fn of_kubernetes(asked: &test_kubeproxy::Asked) -> Option<Self> {
        // Events are hints for people, and a lease is kept, beside everything else.
        (asked.is_write() && !matches!(asked.resource.as_str(), "events" | "leases")).then(|| Self::Kubernetes {
            operation: asked.operation,
            resource: asked.resource.clone(),
            subresource: asked.subresource.clone(),
        })
    }
}

/// Waits until the operator is at rest.
pub async fn until_at_rest(lab: &Lab) {
    let (mut before, mut since) = (begun_and_ended(lab), Instant::now());
    while since.elapsed() < QUIET {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = begun_and_ended(lab);
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// How many effects have begun, and how many of them have ended.
pub fn begun_and_ended(lab: &Lab) -> (usize, usize) {
    fn count(all: impl Iterator<Item = bool>) -> (usize, usize) {
        all.fold((0, 0), |(begun, ended), one| (begun + 1, ended + usize::from(one)))
    }
    let remote = lab.simulator.read(|state| {
        let effects = state.journal().filter(|entry| is_remote_effect(entry.operation));
        count(effects.map(|entry| entry.finished_at.is_some()))
    });
    let kubernetes = lab.proxy().read(|state| {
        let effects = state.journal().iter().filter(|entry| Effect::of_kubernetes(&entry.asked).is_some());
        count(effects.map(|entry| entry.finished_at.is_some()))
    });
    (remote.0 + kubernetes.0, remote.1 + kubernetes.1)
}

fn is_remote_effect(operation: Operation) -> bool {
    matches!(operation, Operation::Create | Operation::Update)
}

/// Every effect the operator asked for so far, in order.
pub fn effects(lab: &Lab) -> Vec<Effect> {
    let remote = lab.simulator.journal().into_iter().filter_map(|entry| {
        is_remote_effect(entry.operation).then_some((entry.started_at, Effect::Remote(entry.operation)))
    });
    let kubernetes = lab.proxy().journal();
    let kubernetes =
        kubernetes.iter().filter_map(|entry| Some((entry.started_at, Effect::of_kubernetes(&entry.asked)?)));
    let mut all: Vec<_> = remote.chain(kubernetes).collect();
    // One resource is worked on by one pass, so there are no two at the same time.
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, effect)| effect).collect()
}

/// What is to be the same whatever happened to the operator on the way. Identifiers are told by their order.
#[derive(Clone, Debug, PartialEq)]
pub struct EndState {
    /// Creates that took effect.
    pub creates: u64,
    /// Updates that were sent.
    pub updates: u64,
    /// The most credentials of the name that were active at one moment.
    pub most_active: usize,
    /// Whether one was ever active before it was recorded.
    active_while_marked: usize,
    remote: Vec<Value>,
    resource: Option<Value>,
    target: Option<Value>,
}

impl EndState {
    /// Whether this is as good an end as the one of a run in which nothing happened.
    pub fn fits(&self, reference: &Self) -> bool {
        if self.most_active > reference.most_active {
            return false;
        }
        // An update may be sent again: it says the same.
        let (most_active, updates) = (reference.most_active, reference.updates);
        let same = Self { most_active, updates, ..self.clone() } == *reference;
        // A deletion may come before what it undoes: then less was done, and nothing is left active all the same.
        let deleted = self.resource.is_none() && reference.resource.is_none();
        let less = self.creates <= reference.creates && self.active_while_marked == 0 && self.active() == 0;
        same || deleted && less
    }

    /// What is wrong with the end of this workload, whatever was in the way.
    pub fn wrong(&self, workload: Workload) -> Option<&'static str> {
        let right = workload.right();
        let active: Vec<(usize, &Value)> =
            self.remote.iter().enumerate().filter(|(_, row)| !row["active"].is_null()).collect();
        let expected = right.active.map(|(name, user, material)| {
            json!({"name": name, "user": user, "material": [{"api_key": key_material(material)}]})
        });
        let as_expected = |row: &Value, expected: &Value| {
            ["name", "user", "material"].iter().all(|field| row["active"][field] == expected[field])
        };
        let is_current = |row: usize| self.resource.as_ref().is_some_and(|resource| resource["id"] == row);
        let creates = if right.deleted { self.creates <= right.creates } else { self.creates == right.creates };
        let target = self.target.as_ref().map(|target| &target["credential"]);
        [
            (self.active_while_marked > 0, "something was active before it was recorded"),
            (self.most_active > right.most_active, "more than one was active at once"),
            (!creates, "not as many creates as there should be"),
            (self.remote.len() as u64 != self.creates + right.by_hand, "not as many credentials as were made"),
            (active.len() != usize::from(expected.is_some()), "the wrong number is active"),
            (
                active.iter().zip(&expected).any(|((_, row), expected)| !as_expected(row, expected)),
                "what is active has a wrong name, user or material",
            ),
            (active.iter().any(|(row, _)| !is_current(*row)), "what is active is not the resource's"),
            (self.resource.is_some() == right.deleted, "the resource is there, or not, against the user's wish"),
            (self.resource.as_ref().is_some_and(|resource| !is_right(resource)), "status or ledger is wrong"),
            (self.target.is_some() != right.target, "the target is there, or not, against the user's wish"),
            (
                target.is_some_and(|target| target != &self.resource.as_ref().unwrap_or(&Value::Null)["id"]),
                "the target has the key of another credential",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, what)| wrong.then_some(what))
    }

    /// Whether less was done than this workload does when nothing is in the way.
    pub fn less_than(&self, workload: Workload) -> Option<&'static str> {
        (self.creates < workload.right().creates).then_some("fewer creates than there should be")
    }

    /// How many credentials are active.
    pub fn active(&self) -> usize {
        self.remote.iter().filter(|row| !row["active"].is_null()).count()
    }
}

/// Status, ledger and remote agree.
fn is_right(resource: &Value) -> bool {
    let ledger = &resource["ledger"];
    resource["finalizers"] == json!(["toolzz.com.br/credential"])
        && resource["ready"] == "True"
        && ["current", "sameSecretId", "virtualKey"].iter().all(|field| resource[field] == true)
        && ["digest", "copied"].iter().all(|field| ledger[field] == true)
        && resource["id"].is_u64()
        && resource["id"] == ledger["id"]
        && resource["secretId"] == ledger["stagedAs"]
        && resource["retiring"] == json!([])
        && ledger["retiring"].is_null()
}

/// How it is now; these strays, of which is known where they come from, are left out.
pub async fn end_state(lab: &Lab, strays: &[Uuid]) -> EndState {
    let mut all = lab.simulator.credentials();
    all.retain(|one| !strays.contains(&one.id));
    let nth = |id: &str| all.iter().position(|one| one.id.to_string() == id);
    let holder = |secret_id: &str| {
        let first = |one: &toolzz_simulator::Credential| one.history[0].row.as_ref().unwrap().secret_id.to_string();
        all.iter().position(|one| first(one) == secret_id)
    };
    let remote = all.iter().map(|one| {
        let material = lab.simulator.material_of(one.row.secret_id).unwrap();
        // What is inactive may have got its last name or not; nobody uses it.
        let details = one.is_active().then(|| {
            json!({"name": one.row.name, "user": one.row.user_id, "material": material, "from": holder(&one.row.secret_id.to_string())})
        });
        json!({"name": one.final_name(), "active": details, "removed": one.removed})
    });
    let object = lab.api().get_opt(NAME).await.unwrap();
    let resource = object.map(|object| {
        let meta = serde_json::to_value(&object.metadata).unwrap();
        let ledger = meta["annotations"]["toolzz.com.br/ledger"].as_str().unwrap_or("null");
        let ledger: Value = serde_json::from_str(ledger).unwrap();
        let status = object.status.clone().unwrap();
        let id = status.id.as_ref().map(|id| id.as_str());
        let row = id.and_then(|id| lab.simulator.credential(id.parse().unwrap())).map(|one| one.row);
        let index = |value: &Value| value.as_str().and_then(&nth);
        json!({
            "finalizers": meta["finalizers"],
            "ready": ready(&object).map(|(status, _, _)| status),
            "current": status.observed_generation == object.metadata.generation,
            "id": id.and_then(nth),
            "secretId": status.secret_id.as_ref().and_then(|id| holder(id.as_str())),
            "sameSecretId": status.secret_id.as_ref().map(|id| id.as_str()) == row.as_ref().map(|row| row.secret_id.to_string()).as_deref(),
            "virtualKey": row.as_ref().map(|row| status.virtual_key.as_ref() == Some(&row.virtual_key)),
            "active": status.active,
            "retiring": status.retiring.iter().map(|old| nth(old.id.as_str())).collect::<Vec<_>>(),
            "ledger": {
                "id": index(&ledger["id"]), "stagedAs": index(&ledger["stagedAs"]), "adopted": index(&ledger["adopted"]),
                "retiring": ledger["retiring"].as_array().map(Vec::len),
                "digest": status.material.as_ref().map(|material| ledger["digest"] == material.digest.as_str()),
                "copied": status.ledger.as_deref() == meta["annotations"]["toolzz.com.br/ledger"].as_str(),
            },
        })
    });
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(lab.client.clone(), &lab.namespace);
    let target = maps.get_opt("out").await.unwrap().map(|map| {
        let data = map.data.unwrap_or_default();
        let virtual_key = data.get("virtualKey").cloned().unwrap_or_default();
        let credential = all.iter().position(|one| one.row.virtual_key == virtual_key);
        json!({"credential": credential, "keys": data.keys().collect::<Vec<_>>()})
    });
    EndState {
        creates: lab.simulator.counts(Operation::Create).committed - strays.len() as u64,
        updates: lab.simulator.puts(),
        most_active: lab.simulator.max_simultaneously_active(NAME),
        active_while_marked: lab.simulator.read(|state| state.ever_active_while_marked().len()),
        remote: remote.collect(),
        // The garbage collector takes the target of a deleted resource in its own time.
        target: target.filter(|_| resource.is_some()),
        resource,
    }
}
