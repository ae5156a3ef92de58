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

use futures::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;
use toolzz_simulator::{Credential, Fault, Operation, Times};

use super::{
    dice::{Dice, number},
    lives::{Life, PATIENCE, Resource, Strays, live_all, print_log_of},
    runs::{Failure, Kind},
    support::*,
};

/// Lives of a room with one operator, and how much happens in each after its beginning.
const SEQUENCES: (u64, usize) = (100, 8);
/// The same for a schedule.
const SCHEDULE: (u64, usize) = (4, 5);
/// Schedules at once: they mostly wait.
const AT_ONCE: usize = 12;

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
