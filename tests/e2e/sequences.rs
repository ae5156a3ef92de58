//! Random lives: whatever is done to a resource, its Secret and its credential, in whatever order, ends with spec,
//! status and remote in agreement.
//!
//! `TOOLZZ_SEQUENCES` says how many lives (200), `TOOLZZ_SCHEDULES` how many with two operators (100), `TOOLZZ_SEED`
//! where to begin: `make sequences` and `make schedules` live a thousand each.

use std::{cell::RefCell, collections::BTreeSet, time::Duration};

use futures::future::join_all;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use toolzz_simulator::{Credential, Fault, Operation, Times};

use super::support::*;

/// How many things happen in a life, after its beginning.
const LENGTH: usize = 8;
/// Far beyond what it takes for everything to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// SplitMix64: the same life for the same seed.
/// Source: <https://prng.di.unimi.it/splitmix64.c>
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What a life should have come to.
struct Life {
    name: String,
    dice: Dice,
    spec: Value,
    material: String,
    exists: bool,
    told: Vec<String>,
}

impl Life {
    fn new(number: u64, seed: u64) -> Self {
        Self {
            name: format!("r{number:04}"),
            dice: Dice(seed.wrapping_mul(1_000_003).wrapping_add(number)),
            spec: json!({}),
            material: "first".into(),
            exists: false,
            told: Vec::new(),
        }
    }

    fn remote_name(&self) -> &str {
        self.spec["name"].as_str().unwrap_or(&self.name)
    }

    fn is_active(&self) -> bool {
        self.spec["active"].as_bool().unwrap_or(true)
    }

    async fn live(&mut self, lab: &Lab) {
        lab.rotate(&self.name, &self.material).await;
        self.create(lab).await;
        for _ in 0..LENGTH {
            tokio::time::sleep(Duration::from_millis(self.dice.below(400))).await;
            self.happen(lab).await;
        }
    }

    async fn create(&mut self, lab: &Lab) {
        self.told.push("create".into());
        let mut manifest = lab.manifest(&self.name);
        for (field, value) in self.spec.as_object().unwrap() {
            manifest["spec"][field] = value.clone();
        }
        lab.create(manifest).await.unwrap();
        self.exists = true;
    }

    async fn happen(&mut self, lab: &Lab) {
        if !self.exists {
            return self.create(lab).await;
        }
        match self.dice.below(9) {
            0 => {
                let name = format!("{} {}", self.name, self.dice.below(3));
                self.edit(lab, json!({"name": name})).await;
            }
            1 => {
                let active = self.dice.below(2) == 0;
                self.edit(lab, json!({"active": active})).await;
            }
            2 => {
                let user = format!("6f1c2d34-0000-4000-8000-00000000000{}", self.dice.below(3));
                self.edit(lab, json!({"userId": user})).await;
            }
            3 => {
                let rotation = match self.dice.below(2) {
                    0 => json!({"strategy": "Repoint", "gracePeriod": null}),
                    _ => json!({"strategy": "Replace", "gracePeriod": "1s"}),
                };
                self.edit(lab, json!({"rotation": rotation})).await;
            }
            // Among few, so that some are a way back.
            4 | 5 => {
                self.material = format!("m{}", self.dice.below(3));
                self.told.push(self.material.clone());
                lab.rotate(&self.name, &self.material).await;
            }
            6 => {
                self.told.push("delete".into());
                self.delete(lab).await;
                let gone = async {
                    while lab.api().get_opt(&self.name).await.unwrap().is_some() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                };
                tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{} is stuck", self.name));
                self.exists = false;
            }
            7 => self.meddle(lab).await,
            _ => {
                let suspend = self.spec["suspend"] != json!(true);
                self.edit(lab, json!({"suspend": suspend})).await;
            }
        }
    }

    /// Deletes the resource as it is. The API server decides whether a deletion waits for finalizers and does not look
    /// again before it deletes; a kill on top of that loses what the finalizer was to hold (`docs/guarantees.md`).
    async fn delete(&self, lab: &Lab) {
        loop {
            let Some(seen) = lab.api().get_metadata_opt(&self.name).await.unwrap() else { return };
            let seen = seen.metadata;
            let preconditions = Some(Preconditions { resource_version: seen.resource_version, uid: seen.uid });
            match lab.api().delete(&self.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
                Err(kube::Error::Api(answer)) if answer.code == 409 => {}
                // The server may say "conflict" when it has marked the resource already; it can be gone by now.
                Err(kube::Error::Api(answer)) if answer.code == 404 => return,
                result => return drop(result.unwrap()),
            }
        }
    }

    /// Something happens at Toolzz.
    async fn meddle(&mut self, lab: &Lab) {
        let status = lab.api().get(&self.name).await.unwrap().status.unwrap();
        let Some(id) = status.id.and_then(|id| id.as_str().parse().ok()) else { return };
        let which = self.dice.below(4);
        self.told.push(format!("meddle {which}"));
        match which {
            0 => lab.simulator.edit(id, |row| row.name = "by hand".into()),
            1 => lab.simulator.edit(id, |row| row.active = !row.active),
            2 => lab.simulator.edit(id, |row| row.user_id = uuid::Uuid::nil()),
            _ => lab.simulator.remove(id),
        };
    }

    async fn edit(&mut self, lab: &Lab, change: Value) {
        self.told.push(change.to_string());
        for (field, value) in change.as_object().unwrap() {
            self.spec[field] = value.clone();
        }
        lab.edit(&self.name, change).await;
    }

    /// What does not agree yet; the user's part in it is done on the way.
    async fn disagreement(&self, lab: &Lab) -> Option<String> {
        let Some(object) = lab.api().get_opt(&self.name).await.unwrap() else {
            return self.exists.then(|| "it is gone".into());
        };
        if !self.exists {
            return Some("it is stuck".into());
        }
        let status = object.status.clone().unwrap();
        let (is_ready, reason, message) = ready(&object).unwrap();
        if matches!(reason, "RemoteMissing" | "InventorySuspect")
            && let Some(id) = &status.id
            && there(lab, id.as_str()).is_none()
        {
            lab.annotate(&self.name, "toolzz.com.br/recreate", id.as_str()).await;
        }
        if is_ready != "True" || status.observed_generation != object.metadata.generation {
            return Some(format!("{reason}: {message}"));
        }
        if !status.retiring.is_empty() {
            return Some("something has not retired".into());
        }
        let id = status.id.as_ref().unwrap().to_string();
        let Some(remote) = there(lab, &id) else { return Some("it is lost".into()) };
        let held = lab.simulator.material_of(remote.row.secret_id);
        let material = json!([{"api_key": format!("{CANARY}-{}", self.material)}]);
        for (what, agrees) in [
            ("name", remote.row.name == self.remote_name()),
            ("active", remote.row.active == self.is_active() && status.active == Some(self.is_active())),
            ("user", remote.row.user_id.to_string() == self.spec["userId"].as_str().unwrap_or(USER)),
            ("material", held == Some(material)),
            ("secretId", status.secret_id.as_ref().unwrap().as_str() == remote.row.secret_id.to_string()),
            ("virtual key", status.virtual_key.as_deref() == Some(remote.row.virtual_key.as_str())),
        ] {
            if !agrees {
                return Some(format!("{what} does not agree"));
            }
        }
        None
    }
}

fn there(lab: &Lab, id: &str) -> Option<Credential> {
    lab.simulator.credential(id.parse().unwrap()).filter(|one| !one.removed)
}

pub fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[tokio::test]
async fn every_life_ends_in_agreement() {
    let (count, seed) = (number("TOOLZZ_SEQUENCES", 200), number("TOOLZZ_SEED", 1));
    let kill = async |lab: &Lab, operator: &RefCell<Option<Operator>>| {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            // The old one is gone before the new one begins.
            drop(operator.borrow_mut().take());
            *operator.borrow_mut() = Some(lab.another_operator());
        }
    };
    lives("sequences", count, seed, &[], kill).await;
    proof("sequences", &format!("{count} lives from seed {seed}"));
}

/// Two operators and one lease: the one that leads is stopped, killed, robbed of its lease or ended, again and again; each
/// time at another moment of each of the lives.
#[tokio::test]
async fn every_life_ends_in_agreement_with_two_operators() {
    let (count, seed) = (number("TOOLZZ_SCHEDULES", 100), number("TOOLZZ_SEED", 1));
    let disturb = async |lab: &Lab, operator: &RefCell<Option<Operator>>| {
        let mut dice = Dice(seed);
        let mut other = lab.another_operator();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(1000 + dice.below(1500))).await;
            let leads = |operator: &mut Operator| {
                if operator.has_ended() {
                    *operator = lab.another_operator();
                }
                operator.get("/metrics").1.contains("toolzz_operator_leader 1\n")
            };
            // Who could not renew in time has ended by itself.
            while !leads(operator.borrow_mut().as_mut().unwrap()) {
                if leads(&mut other) {
                    std::mem::swap(operator.borrow_mut().as_mut().unwrap(), &mut other);
                } else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            if other.has_ended() {
                other = lab.another_operator();
            }
            match dice.below(4) {
                0 => drop(operator.borrow_mut().take()),
                1 => drop(operator.borrow_mut().take().map(Operator::terminate)),
                2 => {
                    lab.rob().await;
                    let mut robbed = operator.borrow_mut().take().unwrap();
                    tokio::time::timeout(PATIENCE, robbed.until_ended()).await.unwrap();
                }
                _ => {
                    let mut asleep = operator.borrow_mut().take().unwrap();
                    asleep.signal("STOP");
                    other.until_metric("toolzz_operator_leader 1").await;
                    tokio::time::sleep(Duration::from_millis(dice.below(1000))).await;
                    asleep.signal("CONT");
                    tokio::time::timeout(PATIENCE, asleep.until_ended()).await.unwrap();
                }
            }
            *operator.borrow_mut() = Some(lab.another_operator());
        }
        operator.borrow_mut().as_ref().unwrap().signal("TERM");
        *operator.borrow_mut() = Some(other);
    };
    lives("schedules", count, seed, &["--leader-elect", "--lease-duration=6s"], disturb).await;
    proof("schedules", &format!("{count} lives from seed {seed}"));
}

/// So many lives, with lost answers, while this goes on with the operators.
async fn lives(
    prefix: &str,
    count: u64,
    seed: u64,
    flags: &[&str],
    disturb: impl AsyncFn(&Lab, &RefCell<Option<Operator>>),
) {
    let mut lab = Lab::empty(prefix).await;
    lab.flags = ["--settle-period=2s", "--request-timeout=1500ms", "--resync-interval=2s"].map(str::to_owned).to_vec();
    lab.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    for (operation, seed) in [(Operation::Create, seed), (Operation::Update, seed + 1), (Operation::List, seed + 2)] {
        let times = Times::Chance { probability: 0.03, seed };
        lab.simulator.fault(operation, times, Fault::reset_after_commit());
    }
    let mut lives: Vec<Life> = (0..count).map(|number| Life::new(number, seed)).collect();
    let operator = RefCell::new(Some(lab.another_operator()));
    tokio::join!(join_all(lives.iter_mut().map(|life| life.live(&lab))), disturb(&lab, &operator));
    lab.simulator.clear_faults();

    for life in lives.iter_mut().filter(|life| life.exists && life.spec["suspend"] == json!(true)) {
        life.edit(&lab, json!({"suspend": false})).await;
    }
    let begun = std::time::Instant::now();
    loop {
        let mut left = Vec::new();
        for life in &lives {
            if let Some(why) = life.disagreement(&lab).await {
                left.push(format!("{}: {why}\n    {}", life.name, life.told.join(", ")));
            }
        }
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            let name = &left[0][..5];
            let object = lab.api().get_opt(name).await.unwrap();
            let (log, quoted) = (lab.log(), format!("\"{name}\""));
            let about: Vec<&str> = log.lines().filter(|line| line.contains(&quoted)).collect();
            panic!(
                "seed {seed}: {} of {count} do not agree:\n{}\n{}\n{}",
                left.len(),
                left.join("\n"),
                serde_json::to_string_pretty(&object).unwrap(),
                about.join("\n")
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // Nothing is active but what the resources name.
    let mut expected = BTreeSet::new();
    for life in lives.iter().filter(|life| life.exists && life.is_active()) {
        expected.insert(lab.api().get(&life.name).await.unwrap().status.unwrap().id.unwrap().to_string());
    }
    let all = lab.simulator.credentials();
    let active: BTreeSet<String> = all.iter().filter(|one| one.is_active()).map(|one| one.id.to_string()).collect();
    let log = lab.log();
    if let Some(id) = active.symmetric_difference(&expected).next() {
        let remote = lab.simulator.credential(id.parse().unwrap());
        let about: Vec<&str> = log.lines().filter(|line| line.contains(id.as_str())).collect();
        panic!("seed {seed}: {id} is active or named, not both: {remote:?}\n{}", about.join("\n"));
    }
    assert!(lab.simulator.read(|state| state.ever_active_while_marked().is_empty()));
    lab.operator = operator.into_inner();
    lab.assert_no_leak().await;
}
