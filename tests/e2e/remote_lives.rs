//! A life of one credential at a simulator of its own, from phase to phase, and the faults that meet it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use toolzz_simulator::{
    Commit, Credential, Effect, Entry, NewCredential, OPENAI, Operation, Reply, Rule, RuleId, Simulator, Times,
};
use uuid::Uuid;

use super::{
    connections::{ready_reason, reference, service},
    remote_faults::{Kind, PATIENCE, RESYNC},
    support::*,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    Repoint,
    Replace,
    InPlace,
    AdoptByName,
    AdoptById,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Begin,
    Rotate,
    Rename,
    End,
}

pub const LIVES: [Life; 5] = [Life::Repoint, Life::Replace, Life::InPlace, Life::AdoptByName, Life::AdoptById];
pub const PHASES: [Phase; 4] = [Phase::Begin, Phase::Rotate, Phase::Rename, Phase::End];

impl Life {
    pub fn is_adoption(self) -> bool {
        matches!(self, Self::AdoptByName | Self::AdoptById)
    }

    /// The writes of a life, phase by phase. There is nothing else to meet a fault that is about writes; a deletion needs
    /// no listing and no catalogue.
    pub fn writes(self) -> [&'static [Operation]; 4] {
        use Operation::{Create, Update};
        let rotate: &[Operation] = match self {
            // The new one is activated, and the old one deactivated.
            Self::Replace => &[Create, Update, Update],
            Self::InPlace => &[Update],
            Self::Repoint | Self::AdoptByName | Self::AdoptById => &[Create, Update],
        };
        [&[Create, Update], rotate, &[Update], &[Update]]
    }
}

/// A life without faults.
pub struct Reference {
    /// The calls of each phase, in order.
    pub calls: BTreeMap<Phase, Vec<Operation>>,
    /// How many credentials it takes.
    pub credentials: usize,
}

impl Reference {
    fn count(&self, phase: Phase, call: Operation) -> usize {
        match (call, phase) {
            (Operation::List, Phase::End) => 0,
            // Whoever rests looks again and again.
            (Operation::List, _) => usize::MAX,
            _ => self.calls[&phase].iter().filter(|one| **one == call).count(),
        }
    }
}

/// The nth call of a kind in each phase, and the fault there.
#[derive(Clone)]
pub struct Meeting {
    pub call: Operation,
    pub nth: u64,
    pub kind: Kind,
}

struct Armed {
    meeting: usize,
    rule: RuleId,
    /// How often it must be met.
    least: u64,
}

pub type Met = (Life, Phase, Operation, u64, &'static str);

/// One life of one credential, and what meets it.
pub struct Case {
    pub life: Life,
    pub name: String,
    pub label: String,
    pub simulator: Simulator,
    strangers: Vec<Uuid>,
    meets: Vec<Meeting>,
    /// What was met, how often.
    pub met: RefCell<HashMap<Met, u64>>,
    /// Second faults of pairs that came too late.
    pub unmet: RefCell<usize>,
}

impl Case {
    pub fn new(number: usize, life: Life, meets: Vec<Meeting>) -> Self {
        let name = format!("f{number:03}");
        let simulator = service(&name);
        simulator.configure(|settings| settings.replace_material_in_place = life == Life::InPlace);
        let insert = |name: &str, active| {
            simulator.insert(NewCredential {
                name: name.into(),
                user_id: USER.parse().unwrap(),
                unity_id: UNITY.parse().unwrap(),
                integration_id: OPENAI,
                active,
                material: json!([{"api_key": format!("{CANARY}-unknown")}]),
            })
        };
        // A listing has several rows, and inactive ones among them.
        let strangers = [("one", true), ("two", false), ("three", true)].map(|(name, active)| insert(name, active));
        match life {
            Life::AdoptByName => drop(insert(&name, true)),
            Life::AdoptById => drop(insert("by hand", true)),
            Life::Repoint | Life::Replace | Life::InPlace => {}
        }
        let mut label: Vec<String> = vec![format!("{life:?}")];
        label.extend(meets.iter().map(|one| format!("{} at {:?} no. {}", one.kind.name, one.call, one.nth + 1)));
        let label = label.join(", ");
        Self {
            life,
            name,
            label,
            simulator,
            strangers: strangers.to_vec(),
            meets,
            met: RefCell::default(),
            unmet: RefCell::default(),
        }
    }

    /// The connection is there, and known to work: what it makes of faults at its own probes is another test's.
    pub async fn connect(&self, lab: &Lab) {
        lab.connect(&self.name, &self.simulator.url(), &self.name).await;
        let begun = Instant::now();
        loop {
            // One probe that a busy machine is late with is followed by the next only after a while.
            let connection = lab.connections().get(&self.name).await.unwrap();
            match ready_reason(connection.status.as_ref()) {
                Some("Connected") => return,
                other => assert!(begun.elapsed() < PATIENCE, "{}: the connection is {other:?}", self.label),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn arm(&self, phase: Phase, reference: &Reference, at: impl Fn(Operation) -> bool) -> Vec<Armed> {
        let mut armed = Vec::new();
        for (meeting, one) in self.meets.iter().enumerate() {
            if !at(one.call) || reference.count(phase, one.call) as u64 <= one.nth {
                continue;
            }
            let (times, fault) = (Times::Next(one.kind.times), (one.kind.fault)(&self.simulator));
            let rule = self.simulator.add_rule(Rule { on: one.call.into(), times, skip: one.nth, fault });
            // The first of a pair may leave no other call of the kind to be met.
            let earlier = self.meets[..meeting].iter().any(|other| other.call == one.call);
            let least = match (self.meets.len(), earlier && one.call != Operation::List) {
                (1, _) => one.kind.times,
                (_, false) => 1,
                (_, true) => 0,
            };
            armed.push(Armed { meeting, rule, least });
        }
        armed
    }

    /// Each was met; none is left for the next phase.
    async fn meet(&self, lab: &Lab, phase: Phase, armed: Vec<Armed>) {
        for Armed { meeting, rule, least } in armed {
            let one = &self.meets[meeting];
            if self.simulator.hits(rule) < least {
                let met = self.simulator.until(|state| state.hits(rule) >= least);
                let wait = if one.call == Operation::List { PATIENCE } else { Duration::ZERO };
                if tokio::time::timeout(wait, met).await.is_err() {
                    panic!("{}: {phase:?} did not meet {}\n{}", self.label, one.kind.name, self.told());
                }
            }
            let hits = self.simulator.hits(rule);
            self.simulator.remove_fault(rule);
            if hits == 0 {
                *self.unmet.borrow_mut() += 1;
            } else {
                self.met.borrow_mut().insert((self.life, phase, one.call, one.nth, one.kind.name), hits);
            }
        }
        self.settled(lab, phase).await;
    }

    pub async fn phase(&self, lab: &Lab, phase: Phase, reference: &Reference) {
        let is_catalogue = |call| call == Operation::Catalogue;
        // Before the wait: whoever asks meanwhile meets it, as who asks later finds an answer that is not old.
        let mut armed = self.arm(phase, reference, is_catalogue);
        if !armed.is_empty() {
            self.until_catalogue_is_old().await;
        }
        armed.extend(self.arm(phase, reference, |call| !is_catalogue(call)));
        self.act(lab, phase).await;
        self.settled(lab, phase).await;
        self.meet(lab, phase, armed).await;
    }

    /// Whoever needs the catalogue now asks for it.
    pub async fn until_catalogue_is_old(&self) {
        let journal = self.simulator.journal();
        let asked = journal.iter().rfind(|entry| entry.operation == Operation::Catalogue);
        let Some(asked) = asked.and_then(|entry| entry.finished_at) else { return };
        // The operator counts from when it has read the answer, and may be slow to.
        let old = asked + SignedDuration::from_secs(RESYNC + 5);
        tokio::time::sleep(old.duration_since(Timestamp::now()).try_into().unwrap_or_default()).await;
    }

    /// The user's part.
    pub async fn act(&self, lab: &Lab, phase: Phase) {
        match phase {
            Phase::Begin => {
                let mut spec = reference("ToolzzConnection", &self.name);
                let (field, value) = match self.life {
                    Life::Repoint => ("rotation", json!({"strategy": "Repoint"})),
                    Life::Replace => ("rotation", json!({"strategy": "Replace", "gracePeriod": "1s"})),
                    Life::InPlace => ("rotation", json!({"strategy": "InPlace"})),
                    Life::AdoptByName => ("onConflict", json!("Adopt")),
                    Life::AdoptById => ("externalId", json!(self.own()[0].id.to_string())),
                };
                spec[field] = value;
                lab.credential_with(&self.name, spec).await;
            }
            Phase::Rotate => lab.rotate(&self.name, "new").await,
            Phase::Rename => lab.edit(&self.name, json!({"name": self.renamed()})).await,
            Phase::End => lab.delete(&self.name).await,
        }
    }

    fn renamed(&self) -> String {
        format!("{} renamed", self.name)
    }

    pub async fn settled(&self, lab: &Lab, phase: Phase) {
        match phase {
            Phase::Begin => self.until_as_wished(lab, &self.name, &self.name).await,
            Phase::Rotate => self.until_as_wished(lab, &self.name, "new").await,
            Phase::Rename => self.until_as_wished(lab, &self.renamed(), "new").await,
            Phase::End => {
                let gone = async {
                    while lab.api().get_opt(&self.name).await.unwrap().is_some() {
                        tokio::time::sleep(Duration::from_millis(400)).await;
                    }
                };
                let gone = tokio::time::timeout(PATIENCE, gone).await;
                gone.unwrap_or_else(|_| panic!("{}: stuck\n{}", self.label, self.told()));
            }
        }
    }

    /// Ready, and one active credential of this name with this material; the user's part is done on the way.
    async fn until_as_wished(&self, lab: &Lab, remote: &str, material: &str) {
        let begun = Instant::now();
        let (mut asked, mut again) = (0, begun);
        loop {
            let object = lab.api().get(&self.name).await.unwrap();
            let text = serde_json::to_string(&object).unwrap();
            assert!(CANARY.split('-').all(|half| !text.contains(half)), "{}: a leak: {text}", self.label);
            let status = object.status.clone().unwrap_or_default();
            if let Some((is_ready, ..)) = ready(&object)
                && status.observed_generation == object.metadata.generation
            {
                let id = status.id.map(|id| id.to_string()).unwrap_or_default();
                if is_ready == "True" && status.retiring.is_empty() && self.holds(&id, remote, material) {
                    return;
                }
                // A single answer is final for the operator where the API says so: the user asks again, but leaves time
                // for an answer.
                if has_condition(&object, "Stalled") && again <= Instant::now() {
                    again = Instant::now() + Duration::from_secs(1 << asked);
                    asked += 1;
                    lab.annotate(&self.name, "toolzz.com.br/reconcile-requested-at", &asked.to_string()).await;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "{}: {:?}\n{}", self.label, ready(&object), self.told());
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    /// The last that was asked of the simulator.
    pub fn told(&self) -> String {
        format!("{:#?}", self.simulator.journal().iter().rev().take(5).collect::<Vec<_>>())
    }

    /// Of all credentials that came with this life, the one that is recorded is active, and no other.
    fn holds(&self, id: &str, name: &str, material: &str) -> bool {
        let own = self.own();
        let active: Vec<&Credential> = own.iter().filter(|one| one.is_active()).collect();
        let wanted = Some(json!([{"api_key": format!("{CANARY}-{material}")}]));
        matches!(active.as_slice(), [one] if one.id.to_string() == id && one.row.name == name
            && self.simulator.material_of(one.row.secret_id) == wanted)
    }

    fn is_own(&self, one: &Credential) -> bool {
        !self.strangers.contains(&one.id)
    }

    /// All credentials but the strangers'.
    pub fn own(&self) -> Vec<Credential> {
        self.simulator.credentials().into_iter().filter(|one| self.is_own(one)).collect()
    }

    /// The most of them that were active at one moment, under whatever names.
    fn most_active(&self) -> usize {
        self.simulator.read(|state| state.max_simultaneously_active_of(|one| self.is_own(one)))
    }

    /// How many credentials there are beyond those that the life takes: just those that the faults explain.
    pub fn strays(&self, reference: &Reference) -> usize {
        let strays = self.own().len() - reference.credentials;
        assert_eq!(strays, self.explained(), "{}: strays, and those that the faults explain", self.label);
        strays
    }

    /// How many creates the faults explain beyond one for each material: those that the network delivered twice, and
    /// those that were sent again after looks none of which showed what was there: two where the answer was lost.
    fn explained(&self) -> usize {
        let journal = self.simulator.journal();
        let mut explained = 0;
        for (number, create) in journal.iter().enumerate() {
            let (Operation::Create, Effect::Committed { at, .. }) = (create.operation, create.effect) else { continue };
            if create.fault.as_ref().is_some_and(|fault| fault.commit == Commit::Twice) {
                explained += 1;
            }
            let name = |entry: &Entry| entry.body.as_ref().map(|body| body["name"].clone());
            let later = &journal[number + 1..];
            let again = |entry: &&Entry| entry.operation == Operation::Create && name(entry) == name(create);
            let Some(again) = later.iter().find(again) else { continue };
            let looks = later.iter().filter(|look| {
                look.seq < again.seq
                    && look.started_at > at
                    && look.operation == Operation::List
                    && look.path.ends_with("/type/llm")
                    && look.status == Some(200)
            });
            let hides = |look: &&Entry| {
                let reply = look.fault.as_ref().map(|fault| &fault.reply);
                matches!(reply, Some(Reply::Stale { .. } | Reply::Partial { .. } | Reply::Empty))
            };
            assert!(
                looks.clone().all(|look| look.fault.is_some()),
                "{}: sent again although a listing showed it: {journal:#?}",
                self.label
            );
            let hidden = looks.filter(hides).count();
            // Of one whose answer came, and that is not recorded yet, the operator knows no more than the last look shows.
            let whole = create.fault.as_ref().is_none_or(|fault| fault.reply == Reply::Normal);
            let least = if whole && create.status == Some(201) { 1 } else { 2 };
            assert!(hidden >= least, "{}: sent again after {hidden} looks that hid it: {journal:#?}", self.label);
            explained += 1;
        }
        explained
    }

    /// What holds whatever happened, once the resource is gone and nothing is on its way any more.
    pub async fn is_over(&self, reference: &Reference) {
        let landed = self.simulator.until(|state| state.pending_commits() == 0);
        tokio::time::timeout(PATIENCE, landed).await.unwrap();
        assert!(self.own().iter().all(|one| !one.is_active()), "{}: left active", self.label);
        assert!(self.simulator.read(|state| state.ever_active_while_marked().is_empty()), "{}", self.label);
        // A `Replace` has its time of two.
        let (most, overlaps) = if self.life == Life::Replace { (2, 1) } else { (1, 0) };
        assert_eq!(self.most_active(), most, "{}: active at once", self.label);
        assert_eq!(self.simulator.read(|state| state.overlaps().len()), overlaps, "{}: overlaps", self.label);
        self.strays(reference);
    }
}
