//! Random lives: whatever is done to a resource, its Secret and its credential, in whatever order, ends with spec,
//! status and remote in agreement.
//!
//! A room is some lives with one simulator, while their operators are disturbed. A schedule is what happens to the
//! operators of a room with two of them and one lease: which disturbances, in which order, after which time each.
//! `TOOLZZ_SEQUENCES` says how many lives with one operator (200), `TOOLZZ_SCHEDULES` how many schedules (10),
//! `TOOLZZ_SEED` where to begin: `make sequences` and `make schedules` do a thousand each. Every room has its own seed,
//! for everything in it; `TOOLZZ_SEED` with one schedule does a single one again.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::join_all, stream};
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use toolzz_simulator::{Credential, Fault, Operation, Times, final_name, is_marked};

use super::{
    leaks::word_of,
    runs::{Failure, Kind},
    support::*,
};

/// Lives of a room with one operator, and how much happens in each after its beginning.
const SEQUENCES: (u64, usize) = (100, 8);
/// The same for a schedule.
const SCHEDULE: (u64, usize) = (4, 5);
/// Schedules at once: they mostly wait.
const AT_ONCE: usize = 12;
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
    /// Each time it began, another; only the last can be there.
    resources: Vec<Resource>,
    /// How many times there was other material, and whether the strategy ever was one that leaves the former active.
    rotations: usize,
    replaces: bool,
}

/// What a resource of a life asked for.
struct Resource {
    uid: String,
    /// How often each material: when it began, and each time it was changed to that.
    wants: BTreeMap<String, usize>,
    /// How often its credential was taken away.
    losses: usize,
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
            resources: Vec::new(),
            rotations: 0,
            replaces: false,
        }
    }

    fn remote_name(&self) -> &str {
        self.spec["name"].as_str().unwrap_or(&self.name)
    }

    fn is_active(&self) -> bool {
        self.spec["active"].as_bool().unwrap_or(true)
    }

    /// So much happens, with pauses below this.
    async fn live(&mut self, lab: &Lab, length: usize, pause: u64) {
        lab.rotate(&self.name, &self.material).await;
        self.create(lab).await;
        for _ in 0..length {
            tokio::time::sleep(Duration::from_millis(self.dice.below(pause))).await;
            self.happen(lab).await;
        }
    }

    async fn create(&mut self, lab: &Lab) {
        self.told.push("create".into());
        let mut manifest = lab.manifest(&self.name);
        for (field, value) in self.spec.as_object().unwrap() {
            manifest["spec"][field] = value.clone();
        }
        let uid = lab.create(manifest).await.unwrap().metadata.uid.unwrap();
        self.resources.push(Resource { uid, wants: BTreeMap::from([(self.material.clone(), 1)]), losses: 0 });
        self.exists = true;
    }

    fn resource(&mut self) -> &mut Resource {
        self.resources.last_mut().unwrap()
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
                    _ => {
                        self.replaces = true;
                        json!({"strategy": "Replace", "gracePeriod": "1s"})
                    }
                };
                self.edit(lab, json!({"rotation": rotation})).await;
            }
            // Among few, so that some are a way back.
            4 | 5 => {
                let material = format!("m{}", self.dice.below(3));
                if material != self.material {
                    self.rotations += 1;
                    *self.resource().wants.entry(material.clone()).or_default() += 1;
                }
                self.material = material;
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
                if tokio::time::timeout(PATIENCE, gone).await.is_err() {
                    print_log_of(lab, &self.name);
                    panic!("{} is stuck\n    {}", self.name, self.told.join(", "));
                }
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
            // A suspended resource can name what is not in use yet: that is nobody's to switch on.
            1 => lab.simulator.edit(id, |row| row.active = !row.active && final_name(&row.name) == row.name),
            2 => lab.simulator.edit(id, |row| row.user_id = uuid::Uuid::nil()),
            _ => {
                self.resource().losses += 1;
                lab.simulator.remove(id)
            }
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
        let material = json!([{"api_key": key_material(&self.material)}]);
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

impl Resource {
    /// Whether a credential was created for this resource, as the marker tells.
    fn made(&self, one: &Credential) -> bool {
        let row = one.history[0].row.as_ref().unwrap();
        is_marked(&row.name) && row.name.contains(&format!(" [toolzz-operator {}-", &self.uid[..8]))
    }

    /// How many creates it asked for. Of changes that follow each other fast not each is seen.
    fn asked(&self) -> usize {
        self.wants.values().sum::<usize>() + self.losses
    }

    /// What was created beyond that. One that is gone may still be in the operator's cache when the Secret, which the
    /// next one uses too, has other material already: what is made of that is inactive, and each material is made once.
    fn too_much(&self, lab: &Lab, all: &[Credential], is_gone: bool) -> Option<String> {
        let mut created = BTreeMap::<String, Vec<&Credential>>::new();
        for one in all.iter().filter(|one| self.made(one)) {
            created.entry(came_with(lab, one)).or_default().push(one);
        }
        let mut beyond = 0;
        for (material, made) in &created {
            beyond += made.len().saturating_sub(self.wants.get(material).copied().unwrap_or(usize::from(is_gone)));
            // They are in the order in which they were created.
            for (nth, one) in made.iter().enumerate() {
                if made[..nth].iter().any(|earlier| is_staged_at(earlier, one.history[0].number)) {
                    return Some(format!("{} was created for {material:?} while another was staged", one.id));
                }
            }
        }
        (beyond > self.losses).then(|| {
            let created: Vec<_> = created.iter().map(|(material, made)| (material, made.len())).collect();
            format!("created: {created:?}, asked for: {:?} and {} losses", self.wants, self.losses)
        })
    }
}

/// The material that a credential was created with.
fn came_with(lab: &Lab, one: &Credential) -> String {
    let material = lab.simulator.material_of(one.history[0].row.as_ref().unwrap().secret_id).unwrap();
    word_of(material[0]["api_key"].as_str().unwrap()).to_owned()
}

/// Whether a credential was there before this change, with a marker.
fn is_staged_at(one: &Credential, number: u64) -> bool {
    let last = one.history.iter().rfind(|change| change.number < number);
    last.and_then(|change| change.row.as_ref()).is_some_and(|row| is_marked(&row.name))
}

/// What the credentials are that no record names.
#[derive(Default)]
struct Strays {
    /// Of material that is not wished any more.
    superseded: usize,
    /// Of resources that are gone.
    deleted: usize,
    /// Of what is in use: it was created twice.
    unexplained: usize,
}

impl Strays {
    fn of(lab: &Lab, lives: &[Life], strays: &[Credential]) -> Self {
        let mut all = Self::default();
        for stray in strays {
            let is_owner = |life: &&Life| life.exists && life.resources.last().is_some_and(|one| one.made(stray));
            match lives.iter().find(is_owner) {
                Some(life) if came_with(lab, stray) == life.material => all.unexplained += 1,
                Some(_) => all.superseded += 1,
                None => all.deleted += 1,
            }
        }
        all
    }
}

impl Life {
    /// What was created for this life, or active at once, beyond what it asked for.
    fn too_much(&self, lab: &Lab, all: &[Credential]) -> Option<String> {
        for (nth, one) in self.resources.iter().enumerate() {
            let is_gone = !self.exists || nth + 1 < self.resources.len();
            if let Some(what) = one.too_much(lab, all, is_gone) {
                return Some(what);
            }
        }
        let own = |credential: &Credential| self.resources.iter().any(|one| one.made(credential));
        let most = lab.simulator.read(|state| state.max_simultaneously_active_of(own));
        let allowed = 1 + if self.replaces { self.rotations } else { 0 };
        (most > allowed).then(|| format!("{most} active at once, {allowed} at most were to be"))
    }
}

/// What the operators wrote of a resource.
fn print_log_of(lab: &Lab, name: &str) {
    let (log, quoted) = (lab.log(), format!("\"{name}\""));
    let about: Vec<&str> = log.lines().filter(|line| line.contains(&quoted)).collect();
    println!("{}", about.join("\n"));
}

fn there(lab: &Lab, id: &str) -> Option<Credential> {
    lab.simulator.credential(id.parse().unwrap()).filter(|one| !one.removed)
}

pub fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
        Err(_) => otherwise,
    }
}

/// What can happen to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Disturbance {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Terminate,
    /// Somebody writes himself into the Lease.
    Rob,
    /// Stopped, and woken when the other leads.
    Sleep,
    /// Stopped for less than its lease.
    Pause,
}

use Disturbance::*;

impl Disturbance {
    const ALL: [Self; 5] = [Kill, Terminate, Rob, Sleep, Pause];

    /// Three, in the order that the dice say; among five rooms in a row each comes first once.
    fn schedule(room: u64, dice: &mut Dice) -> Vec<Self> {
        let mut left = Self::ALL.to_vec();
        let first = left.remove(usize::try_from(room % 5).unwrap());
        let mut drawn = || left.remove(usize::try_from(dice.below(left.len() as u64)).unwrap());
        vec![first, drawn(), drawn()]
    }
}

/// What the operators of a room went through.
type Disturbed = BTreeMap<Disturbance, usize>;

/// What some rooms came to.
#[derive(Default)]
struct Outcome {
    lives: u64,
    creates: u64,
    /// How many creates were asked for, at most.
    asked: usize,
    strays: Strays,
    disturbed: Disturbed,
    failures: Vec<Failure>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.lives += other.lives;
        self.creates += other.creates;
        self.asked += other.asked;
        self.strays.superseded += other.strays.superseded;
        self.strays.deleted += other.strays.deleted;
        self.strays.unexplained += other.strays.unexplained;
        self.failures.extend(other.failures);
        for (disturbance, times) in other.disturbed {
            *self.disturbed.entry(disturbance).or_default() += times;
        }
    }

    fn failed(failure: Failure) -> Self {
        Self { failures: vec![failure], ..Self::default() }
    }

    /// Keeps the figures, then fails if anything did.
    fn tell(&self, what: &str, before: &str) {
        let of = |kind| self.failures.iter().filter(|failure| failure.kind == kind).count();
        let disturbed: Vec<String> =
            self.disturbed.iter().map(|(disturbance, times)| format!("{disturbance:?} {times}")).collect();
        let figure = format!(
            "{before}{} lives, {} creates of at most {} asked for, strays: {} of superseded material, {} of deleted resources, \
             {} unexplained, operators disturbed: {}; {} duplicates, {} lost, {} stuck",
            self.lives,
            self.creates,
            self.asked,
            self.strays.superseded,
            self.strays.deleted,
            self.strays.unexplained,
            disturbed.join(", "),
            of(Kind::Duplicate),
            of(Kind::Lost),
            of(Kind::Stuck)
        );
        println!("{what}: {figure}");
        proof(what, &figure);
        let told: Vec<String> =
            self.failures.iter().map(|failure| format!("{:?}: {}", failure.kind, failure.text)).collect();
        assert!(told.is_empty(), "{}", told.join("\n---\n"));
    }
}

#[tokio::test]
async fn every_life_ends_in_agreement() {
    let _turn = turn().await;
    let (count, seed) = (number("TOOLZZ_SEQUENCES", 200), number("TOOLZZ_SEED", 1));
    let rooms = (0..count.div_ceil(SEQUENCES.0)).map(|room| async move {
        let (mut lab, mut dice) = (room_of("sequences", seed + room, 0.03).await, Dice(seed + room));
        let operator = RefCell::new(Some(lab.another_operator()));
        let lives = Life::some(SEQUENCES.0.min(count - room * SEQUENCES.0), seed + room);
        let kills = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(500 + dice.below(2000))).await;
                // The old one is gone before the new one begins.
                drop(operator.borrow_mut().take());
                *operator.borrow_mut() = Some(lab.another_operator());
            }
            Disturbed::from([(Kill, 3)])
        };
        let (lives, disturbed) = tokio::join!(live_all(&lab, lives, SEQUENCES.1, 400), kills);
        lab.operator = operator.into_inner();
        agreed(&lab, seed + room, lives, disturbed, None).await
    });
    let mut all = Outcome::default();
    // Each is a whole load of work.
    for outcome in stream::iter(rooms).buffer_unordered(2).collect::<Vec<_>>().await {
        all.add(outcome);
    }
    assert_eq!(all.lives, count);
    all.tell("sequences", &format!("seed {seed}: "));
}

/// Two operators and one lease: the one that leads is killed, ended, robbed of its lease, or stopped and woken, in another
/// order in each room; each time at another moment of each of the lives.
#[tokio::test]
async fn every_life_ends_in_agreement_with_two_operators() {
    let _turn = turn().await;
    let (count, seed) = (number("TOOLZZ_SCHEDULES", 10), number("TOOLZZ_SEED", 1));
    let schedules = (seed..seed + count).map(|seed| async move {
        let outcome = AssertUnwindSafe(schedule(seed)).catch_unwind().await;
        outcome.unwrap_or_else(|panic| {
            let failure = Failure::of_panic(&*panic);
            Outcome::failed(Failure { text: format!("seed {seed}: {}", failure.text), ..failure })
        })
    });
    let mut all = Outcome::default();
    for outcome in stream::iter(schedules).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
        all.add(outcome);
    }
    if count >= 5 && all.failures.is_empty() {
        assert!(Disturbance::ALL.iter().all(|one| all.disturbed.contains_key(one)), "{:?}", all.disturbed);
    }
    all.tell("schedules", &format!("{count} schedules from seed {seed}: "));
}

async fn schedule(seed: u64) -> Outcome {
    let mut lab = room_of("schedule", seed, 0.05).await;
    lab.flags.extend(["--leader-elect", "--lease-duration=4s"].map(str::to_owned));
    let mut dice = Dice(seed);
    let order = Disturbance::schedule(seed, &mut dice);
    let mut leader = lab.another_operator();
    let mut other = lab.another_operator();
    let have_lived = Cell::new(false);
    let disturb = async {
        for disturbance in &order {
            tokio::time::sleep(Duration::from_millis(dice.below(2000))).await;
            find_leader(&lab, &mut leader, &mut other).await;
            disturbance.happen(&lab, &mut leader, &mut other, &mut dice).await;
        }
        // A machine that stands still for a while ends leaders too, and who waits for a deletion needs one.
        while !have_lived.get() {
            find_leader(&lab, &mut leader, &mut other).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        order.iter().map(|one| (*one, 1)).collect()
    };
    let live = async {
        let lives = live_all(&lab, Life::some(SCHEDULE.0, seed), SCHEDULE.1, 2500).await;
        have_lived.set(true);
        lives
    };
    let (lives, disturbed) = tokio::join!(live, disturb);
    agreed(&lab, seed, lives, disturbed, Some((&mut leader, &mut other))).await
}

/// Two operators of which one leads.
type Pair<'a> = (&'a mut Operator, &'a mut Operator);

/// Waits until one of them leads, and has that one be the first. Who could not renew in time has ended by itself.
async fn find_leader(lab: &Lab, leader: &mut Operator, other: &mut Operator) {
    let found = async {
        loop {
            for operator in [&mut *leader, &mut *other] {
                if operator.has_ended() {
                    *operator = lab.another_operator();
                }
            }
            if leads(leader) {
                return;
            }
            std::mem::swap(leader, other);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("nobody leads");
}

fn leads(operator: &Operator) -> bool {
    operator.try_get("/metrics").is_ok_and(|(_, metrics)| metrics.contains("toolzz_operator_leader 1\n"))
}

impl Disturbance {
    /// It happens to the one that leads; where that is its end, another takes its place beside the other.
    async fn happen(self, lab: &Lab, leader: &mut Operator, other: &mut Operator, dice: &mut Dice) {
        match self {
            Kill => leader.kill(),
            Terminate => leader.signal("TERM"),
            Rob => lab.rob().await,
            Sleep => {
                leader.stop();
                let led = async {
                    while !leads(other) {
                        if other.has_ended() {
                            *other = lab.another_operator();
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                tokio::time::timeout(PATIENCE, led).await.expect("nobody takes over");
                tokio::time::sleep(Duration::from_millis(dice.below(1000))).await;
                leader.signal("CONT");
            }
            Pause => {
                leader.stop();
                tokio::time::sleep(Duration::from_millis(dice.below(1500))).await;
                return leader.signal("CONT");
            }
        }
        leader.until_ended().await;
        *leader = lab.another_operator();
    }
}

/// A room in which answers get lost.
async fn room_of(prefix: &str, seed: u64, probability: f64) -> Lab {
    let mut lab = Lab::empty(prefix).await;
    lab.flags = ["--settle-period=2s", "--request-timeout=1500ms", "--resync-interval=2s"].map(str::to_owned).to_vec();
    for (nth, operation) in [Operation::Create, Operation::Update, Operation::List].into_iter().enumerate() {
        let times = Times::Chance { probability, seed: seed.wrapping_mul(3).wrapping_add(nth as u64) };
        lab.simulator.fault(operation, times, Fault::reset_after_commit());
    }
    lab
}

impl Life {
    fn some(count: u64, seed: u64) -> Vec<Self> {
        (0..count).map(|number| Self::new(number, seed)).collect()
    }
}

async fn live_all(lab: &Lab, mut lives: Vec<Life>, length: usize, pause: u64) -> Vec<Life> {
    join_all(lives.iter_mut().map(|life| life.live(lab, length, pause))).await;
    lives
}

/// The end of a room: nothing goes wrong any more, and everything must come to agree.
async fn agreed(
    lab: &Lab,
    seed: u64,
    mut lives: Vec<Life>,
    disturbed: Disturbed,
    mut pair: Option<Pair<'_>>,
) -> Outcome {
    lab.simulator.clear_faults();
    for life in lives.iter_mut().filter(|life| life.exists && life.spec["suspend"] == json!(true)) {
        life.edit(lab, json!({"suspend": false})).await;
    }
    let mut outcome = Outcome { lives: lives.len() as u64, disturbed, ..Outcome::default() };
    let mut fail = |kind, text: String| {
        outcome.failures.push(Failure { kind, text: format!("seed {seed}: {text}") });
    };
    let begun = std::time::Instant::now();
    loop {
        if let Some((leader, other)) = &mut pair {
            find_leader(lab, leader, other).await;
        }
        let mut left = Vec::new();
        for life in &lives {
            if let Some(why) = life.disagreement(lab).await {
                left.push((life, why));
            }
        }
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            print_log_of(lab, &left[0].0.name);
            for (life, why) in left {
                fail(Kind::Stuck, format!("{}: {why}\n    {}", life.name, life.told.join(", ")));
            }
            return outcome;
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
    for id in active.symmetric_difference(&expected) {
        let remote = lab.simulator.credential(id.parse().unwrap());
        let about: Vec<&str> = log.lines().filter(|line| line.contains(id.as_str())).collect();
        println!("{}", about.join("\n"));
        fail(Kind::Lost, format!("{id} is active or named, not both: {remote:?}"));
    }
    let early = lab.simulator.read(|state| state.ever_active_while_marked().len());
    if early > 0 {
        fail(Kind::Duplicate, format!("{early} were active before they had their name"));
    }
    for life in &lives {
        if let Some(what) = life.too_much(lab, &all) {
            fail(Kind::Duplicate, format!("{}: {what}\n    {}", life.name, life.told.join(", ")));
        }
    }
    let resources = || lives.iter().flat_map(|life| &life.resources);
    for one in all.iter().filter(|one| !resources().any(|resource| resource.made(one))) {
        fail(Kind::Duplicate, format!("{} was created for no resource: {one:?}", one.id));
    }
    let strays = until_strays_are_counted(lab, pair).await;
    match strays {
        Ok(strays) => outcome.strays = Strays::of(lab, &lives, &strays),
        Err(text) => fail(Kind::Lost, text),
    }
    if outcome.strays.unexplained > 0 {
        fail(Kind::Duplicate, format!("{} strays have the material in use", outcome.strays.unexplained));
    }
    outcome.asked = resources().map(Resource::asked).sum();
    outcome.creates = lab.simulator.counts(Operation::Create).committed;
    lab.assert_no_leak().await;
    outcome
}

/// Those that no record names are as many as the operator says.
async fn until_strays_are_counted(lab: &Lab, mut pair: Option<Pair<'_>>) -> Result<Vec<Credential>, String> {
    let begun = std::time::Instant::now();
    loop {
        let resources = lab.api().list(&Default::default()).await.unwrap().items;
        let ledgers: Vec<String> = resources
            .iter()
            .filter_map(|one| one.metadata.annotations.as_ref()?.get("toolzz.com.br/ledger").cloned())
            .collect();
        let named = |one: &Credential| ledgers.iter().any(|ledger| ledger.contains(&one.id.to_string()));
        let strays: Vec<Credential> = lab.simulator.staged().into_iter().filter(|one| !named(one)).collect();
        let metrics = match &mut pair {
            None => lab.operator.as_ref().unwrap().get("/metrics").1,
            Some((leader, other)) => {
                find_leader(lab, leader, other).await;
                leader.try_get("/metrics").map(|(_, metrics)| metrics).unwrap_or_default()
            }
        };
        // Where nothing is left to look after, nobody looks.
        if resources.is_empty() || metrics.contains(&format!("toolzz_operator_stray_credentials {}\n", strays.len())) {
            return Ok(strays);
        }
        if begun.elapsed() > PATIENCE {
            let told = metrics.lines().find(|line| line.starts_with("toolzz_operator_stray_credentials"));
            return Err(format!("{} strays, the operator says {told:?}", strays.len()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
