//! Every fault of the remote side at every call, one at a time, and in pairs by seed.
//!
//! Each case has a connection and a simulator of its own, and lives through four phases, each from rest to rest: a
//! beginning (a create, or a takeover), new material, a new name, a deletion. The calls of each phase are those of a life
//! without faults; a case meets its fault at the nth call of a kind in each phase that has one, and fails where it does
//! not. What a fault is made of is taken from how things are when the phase begins.
//!
//! `TOOLZZ_FAULT_PAIRS` says how many pairs (40), `TOOLZZ_SEED` where to begin. Where the first is set, as by
//! `make remote-faults`, every fault meets every call of every life; otherwise every one those of the first life, and
//! some those of the others.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use toolzz_simulator::{Commit, Entry, Fault, Operation, Point, Reply, Rule, Simulator, Times};

use super::{
    dice::{Dice, number},
    remote_lives::{Case, LIVES, Life, Meeting, Met, PHASES, Phase, Reference},
    support::*,
};

/// Longer than every retry of two faults after each other takes.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How many live at a time: other tests want their share of the machine.
const AT_ONCE: usize = 32;
/// How many share an operator and its log.
const ONE_ROOM: usize = 150;
/// What the operator is told, in seconds. Resources at rest are looked at, and the catalogue is kept, for so long.
pub const RESYNC: i64 = 3;
const CALLS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::List, Operation::Catalogue];

/// What a fault makes a difference for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Everywhere,
    /// It is about when an effect takes place.
    Writes,
    Lists,
    /// Nobody waits for a second catalogue.
    Awaited,
}

impl Where {
    fn holds(self, call: Operation) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Writes => matches!(call, Operation::Create | Operation::Update),
            Self::Lists => call == Operation::List,
            Self::Awaited => call != Operation::Catalogue,
        }
    }
}

#[derive(Clone)]
pub struct Kind {
    pub name: &'static str,
    /// Made for the state of things at the beginning of a phase.
    pub fault: Rc<dyn Fn(&Simulator) -> Fault>,
    /// For how many calls.
    pub times: u64,
    at: Where,
}

/// What a server says in words must not be repeated.
fn status(status: u16) -> Fault {
    let body = format!(r#"{{"statusCode":{status},"message":"{CANARY} is no good"}}"#);
    Fault::new(Commit::Never, Reply::Status { status, headers: vec![], body })
}

/// Answers that leave a create's outcome unknown although it took effect.
fn lost() -> Vec<Kind> {
    let kind = |name, fault: Fault| Kind { name, fault: Rc::new(move |_| fault.clone()), times: 1, at: Where::Writes };
    vec![
        kind("reset after commit", Fault::reset_after_commit()),
        kind("time-out after commit", Fault::lost_answer()),
        kind("500 after commit", Fault { commit: Commit::Now, ..status(500) }),
    ]
}

/// Listings that do not show what was created since the phase began, and some not even what was there before.
fn wrong_listings() -> Vec<Kind> {
    fn kind(name: &'static str, reply: impl Fn(&Simulator) -> Reply + 'static) -> Kind {
        Kind { name, fault: Rc::new(move |simulator| reply(simulator).into()), times: 1, at: Where::Lists }
    }
    vec![
        kind("stale listing", |simulator| Reply::Stale { as_of: simulator.point() }),
        kind("every second row of a listing", |_| Reply::Partial { every: 2 }),
        kind("listing without its next row", |simulator| Reply::Partial { every: simulator.credentials().len() + 1 }),
        kind("empty listing", |_| Reply::Empty),
    ]
}

fn kinds() -> Vec<Kind> {
    let of = |at, name, fault: Fault| Kind { name, fault: Rc::new(move |_| fault.clone()), times: 1, at };
    let anywhere = |name, fault| of(Where::Everywhere, name, fault);
    let write = |name, fault| of(Where::Writes, name, fault);
    let late = |ms, reply| Fault::new(Commit::After { ms }, reply);
    let body = |body: String| Fault::new(Commit::Now, Reply::Status { status: 200, headers: vec![], body });
    let dated =
        Rc::new(|_: &Simulator| Fault::retry_after_date(429, Timestamp::now() + SignedDuration::from_secs(RESYNC)));
    let mut kinds = vec![
        anywhere("reset before commit", Fault::reset_before_commit()),
        anywhere("time-out before commit", Fault::hang_before(Commit::Never)),
        Kind { times: 2, ..of(Where::Awaited, "time-out, and the retry too", Fault::hang_before(Commit::Never)) },
        anywhere("429, seconds", Fault::retry_after_seconds(429, 1)),
        Kind { name: "429, date", fault: dated, times: 1, at: Where::Everywhere },
        anywhere("503, seconds", Fault::retry_after_seconds(503, 1)),
        anywhere("500 before commit", status(500)),
        anywhere("HTML", Reply::Html.into()),
        anywhere("truncated", Reply::Truncated.into()),
        anywhere("cut JSON", Reply::Garbled.into()),
        anywhere("wrong shape", Reply::WrongShape.into()),
        anywhere("slow drip", Reply::Drip { bytes: 1, every_ms: 50 }.into()),
        anywhere("1 GiB", Reply::Huge { bytes: 1 << 30 }.into()),
        anywhere("deep JSON", body("[".repeat(100_000))),
        anywhere("redirect", Reply::Redirect { status: 307, location: "http://127.0.0.1:9/".into() }.into()),
        write("delivered twice", Fault::delivered_twice()),
        write("late commit, reset", late(1000, Reply::Reset)),
        write("late commit, time-out", late(2500, Reply::Hang { at_most_ms: 10_000 })),
    ];
    kinds.extend(lost());
    kinds.extend(wrong_listings());
    kinds.extend(
        [(400, "400"), (401, "401"), (403, "403"), (404, "404"), (409, "409"), (413, "413"), (422, "422")]
            .map(|(code, name)| anywhere(name, status(code))),
    );
    kinds
}

/// What many lives came to, for people.
#[derive(Default)]
struct Figures {
    lives: usize,
    met: HashMap<Met, u64>,
    unmet: usize,
    strays: usize,
}

impl Figures {
    fn add(&mut self, cases: &[Case]) {
        self.lives += cases.len();
        for case in cases {
            case.met.borrow().iter().for_each(|(met, hits)| *self.met.entry(*met).or_default() += hits);
            self.unmet += *case.unmet.borrow();
        }
    }

    /// How many different faults were met.
    fn faults(&self) -> usize {
        self.met.keys().map(|(.., kind)| kind).collect::<HashSet<_>>().len()
    }

    /// At how many different calls.
    fn calls(&self) -> usize {
        self.met.keys().map(|(life, phase, call, nth, _)| (life, phase, call, nth)).collect::<HashSet<_>>().len()
    }

    fn hits(&self) -> u64 {
        self.met.values().sum()
    }
}

async fn room(prefix: &str, resync: &str) -> Lab {
    let mut lab = Lab::empty(prefix).await;
    lab.flags = [
        "--settle-period=3s",
        "--request-timeout=2s",
        "--allowed-hosts=127.0.0.1",
        "--allow-adoption",
        "--concurrency=64",
    ]
    .map(str::to_owned)
    .to_vec();
    lab.flags.push(format!("--resync-interval={resync}"));
    lab.start_operator();
    lab
}

/// Lives without faults.
async fn references(lab: &Lab, lives: &[Life]) -> BTreeMap<Life, Reference> {
    let cases: Vec<Case> =
        lives.iter().enumerate().map(|(number, life)| Case::new(number + 900, *life, Vec::new())).collect();
    stream::iter(&cases).map(|case| undisturbed(lab, case)).buffer_unordered(AT_ONCE).collect().await
}

async fn undisturbed(lab: &Lab, case: &Case) -> (Life, Reference) {
    case.connect(lab).await;
    let mut calls = BTreeMap::new();
    for phase in PHASES {
        case.until_catalogue_is_old().await;
        let before = case.simulator.journal().len();
        case.act(lab, phase).await;
        case.settled(lab, phase).await;
        // Where the machine is too slow for the time limits, a call is made again.
        let journal = case.simulator.journal().into_iter().skip(before);
        let answered: Vec<Operation> =
            journal.filter(|entry| !entry.client_gone).map(|entry| entry.operation).collect();
        let is_write = |call: &Operation| matches!(call, Operation::Create | Operation::Update);
        let writes: Vec<Operation> = answered.iter().copied().filter(is_write).collect();
        assert_eq!(writes, case.life.writes()[phase as usize], "{:?} {phase:?}", case.life);
        calls.insert(phase, answered);
    }
    assert!(!calls[&Phase::End].contains(&Operation::Catalogue));
    let reference = Reference { calls, credentials: case.own().len() };
    case.is_over(&reference).await;
    (case.life, reference)
}

/// All of them, many at once.
async fn live_through(
    prefix: &str,
    mut cases: Vec<Case>,
    references: &BTreeMap<Life, Reference>,
    beginning: impl AsyncFn(&Lab, &Case),
) -> Figures {
    let mut figures = Figures::default();
    while !cases.is_empty() {
        let later = cases.split_off(cases.len().min(ONE_ROOM));
        let lab = room(prefix, &format!("{RESYNC}s")).await;
        let (room, beginning) = (&lab, &beginning);
        // Most of a life is waiting, but not all of it.
        let begin = |case| async move {
            Case::connect(case, room).await;
            beginning(room, case).await;
        };
        stream::iter(&cases).for_each_concurrent(AT_ONCE, begin).await;
        let strays: usize = cases.iter().map(|case| case.strays(&references[&case.life])).sum();
        // All are at rest, and looked at again and again. Nor does a record name what an adoption once staged, and new
        // material has superseded.
        let superseded = cases.iter().filter(|case| case.life.is_adoption()).count();
        let marked: usize = cases.iter().map(|case| case.simulator.staged().len()).sum();
        println!("{strays} strays, {superseded} superseded, {marked} marked and inactive");
        let told = format!("toolzz_operator_stray_credentials {}", strays + superseded);
        lab.operator.as_ref().unwrap().until_metric(&told).await;
        lab.assert_no_leak().await;
        let end = |case| async move {
            let case: &Case = case;
            let reference = &references[&case.life];
            case.phase(room, Phase::End, reference).await;
            case.is_over(reference).await;
        };
        stream::iter(&cases).for_each_concurrent(AT_ONCE, end).await;
        lab.assert_no_leak().await;
        figures.strays += strays;
        figures.add(&cases);
        cases = later;
    }
    figures
}

/// The phases before the end, with the faults of the case.
async fn grow_up(lab: &Lab, case: &Case, references: &BTreeMap<Life, Reference>) {
    for phase in [Phase::Begin, Phase::Rotate, Phase::Rename] {
        case.phase(lab, phase, &references[&case.life]).await;
    }
}

/// Whether every fault is to meet every call of every life.
fn all() -> bool {
    std::env::var_os("TOOLZZ_FAULT_PAIRS").is_some()
}

/// Whether a fault has something to say at a call of a life.
fn fits(life: Life, call: Operation, kind: &Kind) -> bool {
    // A listing that hides somebody else's credential cannot be told from one in which there is none.
    kind.at.holds(call) && !(life == Life::AdoptByName && kind.at == Where::Lists)
}

#[tokio::test]
async fn every_fault_at_every_call_ends_in_agreement() {
    let _turn = turn().await;
    let references = references(&room("calls", &format!("{RESYNC}s")).await, &LIVES).await;
    let few = ["reset before commit", "reset after commit"];
    let mut cases = Vec::new();
    for life in LIVES {
        for call in CALLS {
            let longest =
                PHASES.map(|phase| references[&life].calls[&phase].iter().filter(|one| **one == call).count());
            let most = if call == Operation::List { 2 } else { longest.into_iter().max().unwrap() as u64 };
            for (nth, kind) in (0..most).flat_map(|nth| kinds().into_iter().map(move |kind| (nth, kind))) {
                // A second look is the first one again, but for what it shows.
                let again = call == Operation::List && nth > 0 && kind.at != Where::Lists;
                let chosen = life == Life::Repoint || all() || few.contains(&kind.name) && call != Operation::List;
                if fits(life, call, &kind) && chosen && !again {
                    cases.push(Case::new(cases.len(), life, vec![Meeting { call, nth, kind }]));
                }
            }
        }
    }
    let figures =
        live_through("faults", cases, &references, async |lab, case| grow_up(lab, case, &references).await).await;
    assert_eq!((figures.faults(), figures.unmet), (kinds().len(), 0));
    proof(
        "remote-faults",
        &format!(
            "{} faults at {} calls, met {} times in {} lives; {} strays, each of them explained",
            figures.faults(),
            figures.calls(),
            figures.hits(),
            figures.lives,
            figures.strays
        ),
    );
}

#[tokio::test]
async fn pairs_of_faults_end_in_agreement() {
    let _turn = turn().await;
    let (count, seed) = (number("TOOLZZ_FAULT_PAIRS", 40), number("TOOLZZ_SEED", 1));
    let references = references(&room("paircalls", &format!("{RESYNC}s")).await, &LIVES).await;
    let (kinds, mut dice) = (kinds(), Dice(seed));
    let mut pick = |life| loop {
        let call = CALLS[dice.below(CALLS.len() as u64) as usize];
        let kind = kinds[dice.below(kinds.len() as u64) as usize].clone();
        // The first look, or the one after.
        let nth = if call == Operation::List { dice.below(2) } else { 0 };
        if fits(life, call, &kind) {
            return Meeting { call, nth, kind };
        }
    };
    let cases = (0..count as usize).map(|number| {
        let life = LIVES[number % LIVES.len()];
        Case::new(number, life, vec![pick(life), pick(life)])
    });
    let cases: Vec<Case> = cases.collect();
    let figures =
        live_through("pairs", cases, &references, async |lab, case| grow_up(lab, case, &references).await).await;
    let (hits, unmet, strays) = (figures.hits(), figures.unmet, figures.strays);
    proof(
        "remote-fault-pairs",
        &format!(
            "{count} pairs from seed {seed}, {hits} faults met, {unmet} with nothing left to meet; {strays} strays, each \
             of them explained"
        ),
    );
}

/// A create whose answer is lost, and looks after it that do not show it.
struct Hidden {
    lost: Kind,
    wrong: Kind,
    /// Which looks, counted from the create on: so many pass, so many are wrong.
    looks: (u64, u64),
}

impl Hidden {
    /// How many strays it leaves for certain: one where neither of the two looks before the next create shows the last
    /// one. Where what is recorded is hidden too, its loss is verified first.
    fn strays(&self, phase: Phase) -> Option<usize> {
        let hides_the_new_alone = matches!(self.wrong.name, "stale listing" | "listing without its next row");
        (phase == Phase::Begin || hides_the_new_alone).then_some(usize::from(self.looks == (0, 2)))
    }

    async fn happen(&self, lab: &Lab, case: &Case, phase: Phase) {
        let (simulator, before) = (&case.simulator, case.own().len());
        let (lost, wrong) = ((self.lost.fault)(simulator), (self.wrong.fault)(simulator));
        let lost = simulator.fault(Operation::Create, Times::Next(1), lost);
        let gate = simulator.hold_next(1, Operation::Create, Point::AfterCommit);
        case.act(lab, phase).await;
        held(&gate).await;
        let ((skip, count), on) = (self.looks, Operation::List.into());
        let looks = simulator.add_rule(Rule { on, times: Times::Next(count), skip, fault: wrong });
        gate.release();
        case.settled(lab, phase).await;
        let met = simulator.until(|state| state.hits(lost) == 1 && state.hits(looks) == count);
        let met = tokio::time::timeout(PATIENCE, met).await;
        met.unwrap_or_else(|_| panic!("{}: {phase:?}: not met\n{}", case.label, case.told()));
        case.settled(lab, phase).await;
        // On a machine that is too slow for the time limits, other looks are the second and third that are answered.
        let late = |entry: &Entry| entry.operation == Operation::List && entry.client_gone;
        if let Some(expected) = self.strays(phase)
            && !simulator.journal().iter().any(late)
        {
            let strays = case.own().len() - before - 1;
            assert_eq!(strays, expected, "{}: strays of {phase:?}", case.label);
        }
    }
}

#[tokio::test]
async fn a_lost_create_that_looks_do_not_show_leaves_just_the_strays_that_those_explain() {
    let _turn = turn().await;
    let references = references(&room("hiddencalls", &format!("{RESYNC}s")).await, &[Life::Repoint]).await;
    let (mut cases, mut plans) = (Vec::new(), BTreeMap::new());
    for (first, lost) in lost().into_iter().enumerate() {
        for wrong in wrong_listings() {
            // The look at once, the one after the settle period, and both.
            for looks in [(0, 1), (1, 1), (0, 2)] {
                if first > 0 && !all() && (wrong.name, looks) != ("empty listing", (0, 2)) {
                    continue;
                }
                let mut case = Case::new(cases.len(), Life::Repoint, Vec::new());
                case.label = format!("{} and {} after {} looks, {}", lost.name, wrong.name, looks.0, looks.1);
                plans.insert(case.name.clone(), Hidden { lost: lost.clone(), wrong: wrong.clone(), looks });
                cases.push(case);
            }
        }
    }
    let figures = live_through("hidden", cases, &references, async |lab, case| {
        for phase in [Phase::Begin, Phase::Rotate] {
            plans[&case.name].happen(lab, case, phase).await;
        }
        case.phase(lab, Phase::Rename, &references[&Life::Repoint]).await;
    })
    .await;
    assert!(figures.strays > 0, "none was hidden");
    let (lives, strays) = (figures.lives, figures.strays);
    proof(
        "hidden-creates",
        &format!("{lives} lives with two lost creates each: {strays} strays, each of them explained"),
    );
}

/// What the operator calls a call.
fn word(call: Operation) -> &'static str {
    match call {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::List => "list",
        Operation::Catalogue | Operation::Other => "catalogue",
    }
}

/// The nth call of each phase finds nobody listening.
async fn refused(lab: &Lab, case: &Case, phase: Phase, reference: &Reference, nth: usize) -> bool {
    let calls = &reference.calls[&phase];
    let simulator = &case.simulator;
    // Nobody waits for a catalogue: what comes after it says so.
    let Some(call) = calls.iter().skip(nth).find(|call| **call != Operation::Catalogue) else {
        case.phase(lab, phase, reference).await;
        return false;
    };
    let told = format!("{}: {} cannot be reached: connection refused", word(*call), simulator.address());
    let refusals = || lab.log().matches(&told).count();
    let before = refusals();
    match nth.checked_sub(1) {
        None => {
            simulator.stop_listening();
            case.act(lab, phase).await;
        }
        Some(last) => {
            let earlier = calls[..last].iter().filter(|call| **call == calls[last]).count();
            let gate = simulator.hold(calls[last], Point::AfterCommit);
            case.act(lab, phase).await;
            for _ in 0..earlier {
                held(&gate).await;
                assert!(gate.release_one());
            }
            held(&gate).await;
            simulator.stop_listening();
            gate.release();
        }
    }
    // Where nothing is wrong with the credential itself, the status does not say so at once; the log does.
    let begun = Instant::now();
    while refusals() == before {
        assert!(begun.elapsed() < PATIENCE, "{}: {phase:?}: no {told}\n{}", case.label, case.told());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    simulator.come_up().unwrap();
    case.settled(lab, phase).await;
    true
}

#[tokio::test]
async fn a_refused_connection_at_every_call_ends_in_agreement() {
    let _turn = turn().await;
    let lives = if all() { LIVES.to_vec() } else { vec![Life::Repoint, Life::Replace] };
    // No call is made but for what the user does.
    let lab = room("refused", "10m").await;
    let references = references(&lab, &lives).await;
    let mut cases = Vec::new();
    for life in lives {
        let longest = references[&life].calls.values().map(Vec::len).max().unwrap();
        for nth in 0..longest {
            let mut case = Case::new(cases.len(), life, Vec::new());
            case.label = format!("{life:?}, refused at call no. {}", nth + 1);
            cases.push((case, nth));
        }
    }
    let live = async |(case, nth): &(Case, usize)| {
        let reference = &references[&case.life];
        case.connect(&lab).await;
        let mut met = 0;
        for phase in PHASES {
            met += usize::from(refused(&lab, case, phase, reference, *nth).await);
        }
        assert!(met > 0, "{}: nothing was refused", case.label);
        case.is_over(reference).await;
        assert_eq!(case.strays(reference), 0, "{}", case.label);
        met
    };
    let met: Vec<usize> = stream::iter(&cases).map(live).buffer_unordered(AT_ONCE).collect().await;
    lab.assert_no_leak().await;
    let refused: usize = met.iter().sum();
    proof("remote-refused", &format!("refused at {refused} calls of {} lives; 0 strays", cases.len()));
}
