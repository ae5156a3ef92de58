//! Everything the proxy knows, behind one lock, with a way to await a change.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::{
    asked::Asked,
    faults::{Fault, RuleId, Times},
    gate::{GateId, Point, Verdict},
    journal::Entry,
};

/// Which requests a fault, a gate or a lag meets.
pub(crate) type Matching = Box<dyn Fn(&Asked) -> bool + Send + Sync>;

/// What can be asked of the proxy at one moment; see [`crate::Proxy::read`] and [`crate::Proxy::until`].
#[derive(Default)]
pub struct State {
    journal: Vec<Entry>,
    rules: Vec<Rule>,
    gates: Vec<GateState>,
    lags: Vec<LagState>,
    watches: HashMap<u64, Watch>,
    last_id: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("journal", &self.journal).finish_non_exhaustive()
    }
}

struct Rule {
    id: RuleId,
    on: Matching,
    times: Times,
    fault: Fault,
    hits: u64,
}

struct GateState {
    id: GateId,
    on: Matching,
    point: Point,
    /// How many more requests it stops.
    remaining: u64,
    waiting: VecDeque<oneshot::Sender<Verdict>>,
    /// How many it ever stopped.
    held: usize,
}

struct LagState {
    id: u64,
    on: Matching,
    events: usize,
}

/// A watch that is streamed now.
struct Watch {
    asked: Asked,
    /// Events held back.
    held_back: usize,
    /// Dropped when it shall end.
    _lives: oneshot::Sender<()>,
}

impl State {
    /// Every request, the oldest first.
    #[must_use]
    pub fn journal(&self) -> &[Entry] {
        &self.journal
    }

    /// How often a rule's fault happened; 0 also where the rule was removed.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.rules.iter().find(|rule| rule.id == id).map_or(0, |rule| rule.hits)
    }

    /// Requests waiting at a gate now.
    #[must_use]
    pub fn waiting_at(&self, gate: GateId) -> usize {
        self.gate(gate).map_or(0, |gate| gate.waiting.iter().filter(|sender| !sender.is_closed()).count())
    }

    /// Requests a gate stopped since it was made.
    #[must_use]
    pub fn held_at(&self, gate: GateId) -> usize {
        self.gate(gate).map_or(0, |gate| gate.held)
    }

    /// Watches streamed now that are so.
    #[must_use]
    pub fn watches(&self, on: impl Fn(&Asked) -> bool) -> usize {
        self.watches.values().filter(|watch| on(&watch.asked)).count()
    }

    /// Watch events held back now.
    #[must_use]
    pub fn held_back(&self) -> usize {
        self.watches.values().map(|watch| watch.held_back).sum()
    }

    fn gate(&self, id: GateId) -> Option<&GateState> {
        self.gates.iter().find(|gate| gate.id == id)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn add_rule(&mut self, on: Matching, times: Times, fault: Fault) -> RuleId {
        let id = RuleId(self.next_id());
        self.rules.push(Rule { id, on, times, fault, hits: 0 });
        id
    }

    pub(crate) fn remove_rules(&mut self, which: impl Fn(RuleId) -> bool) {
        self.rules.retain(|rule| !which(rule.id));
    }

    /// Enters a request; the first rule that meets it decides.
    pub(crate) fn receive(&mut self, asked: &Asked) -> (u64, Option<Fault>) {
        let meets =
            |rule: &&mut Rule| (rule.on)(asked) && !matches!(rule.times, Times::Next(times) if rule.hits >= times);
        let picked = self.rules.iter_mut().find(meets).map(|rule| {
            rule.hits += 1;
            (rule.id, rule.fault.clone())
        });
        let seq = self.journal.len() as u64 + 1;
        self.journal.push(Entry {
            seq,
            started_at: Timestamp::now(),
            finished_at: None,
            asked: asked.clone(),
            rule: picked.as_ref().map(|(id, _)| *id),
            fault: picked.as_ref().map(|(_, fault)| fault.clone()),
            decided: None,
            status: None,
            client_gone: false,
        });
        (seq, picked.map(|(_, fault)| fault))
    }

    pub(crate) fn entry(&mut self, seq: u64) -> Option<&mut Entry> {
        self.journal.get_mut(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    pub(crate) fn add_gate(&mut self, on: Matching, point: Point, limit: Option<u64>) -> GateId {
        let id = GateId(self.next_id());
        let remaining = limit.unwrap_or(u64::MAX);
        self.gates.push(GateState { id, on, point, remaining, waiting: VecDeque::new(), held: 0 });
        id
    }

    /// Stops the request where a gate says so.
    pub(crate) fn stop_at_gate(&mut self, asked: &Asked, point: Point) -> Option<oneshot::Receiver<Verdict>> {
        let meets = |gate: &&mut GateState| gate.point == point && gate.remaining > 0 && (gate.on)(asked);
        let gate = self.gates.iter_mut().find(meets)?;
        let (sender, receiver) = oneshot::channel();
        gate.remaining -= 1;
        gate.held += 1;
        gate.waiting.push_back(sender);
        Some(receiver)
    }

    /// Lets the request that waits longest go; false where none waits.
    pub(crate) fn let_one_go(&mut self, id: GateId, verdict: Verdict) -> bool {
        let Some(gate) = self.gates.iter_mut().find(|gate| gate.id == id) else {
            return false;
        };
        while let Some(sender) = gate.waiting.pop_front() {
            if sender.send(verdict).is_ok() {
                return true;
            }
        }
        false
    }

    /// Removes the gate and lets all go that wait; how many that were.
    pub(crate) fn open_gate(&mut self, id: GateId, verdict: Verdict) -> usize {
        let Some(at) = self.gates.iter().position(|gate| gate.id == id) else {
            return 0;
        };
        let gate = self.gates.remove(at);
        gate.waiting.into_iter().filter_map(|sender| sender.send(verdict).ok()).count()
    }

    pub(crate) fn add_lag(&mut self, on: Matching, events: usize) -> u64 {
        let id = self.next_id();
        self.lags.push(LagState { id, on, events });
        id
    }

    pub(crate) fn remove_lag(&mut self, id: u64) {
        self.lags.retain(|lag| lag.id != id);
    }

    /// How many events of a watch are held back.
    pub(crate) fn lag_of(&self, asked: &Asked) -> usize {
        self.lags.iter().filter(|lag| (lag.on)(asked)).map(|lag| lag.events).max().unwrap_or(0)
    }

    /// Enters a watch; the receiver ends when the watch shall.
    pub(crate) fn begin_watch(&mut self, asked: &Asked) -> (u64, oneshot::Receiver<()>) {
        let id = self.next_id();
        let (sender, ends) = oneshot::channel();
        self.watches.insert(id, Watch { asked: asked.clone(), held_back: 0, _lives: sender });
        (id, ends)
    }

    pub(crate) fn end_watch(&mut self, id: u64) {
        self.watches.remove(&id);
    }

    pub(crate) fn held_back_by(&self, id: u64) -> Option<usize> {
        self.watches.get(&id).map(|watch| watch.held_back)
    }

    pub(crate) fn note_held_back(&mut self, id: u64, count: usize) {
        if let Some(watch) = self.watches.get_mut(&id) {
            watch.held_back = count;
        }
    }

    pub(crate) fn cut_watches(&mut self, on: impl Fn(&Asked) -> bool) -> usize {
        let before = self.watches.len();
        self.watches.retain(|_, watch| !on(&watch.asked));
        before - self.watches.len()
    }
}

/// The state as the server and every handle share it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and tells everybody who waits for a change.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }

    /// Told at every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until the state is as wanted. Needs no particular runtime.
    pub(crate) async fn until<T>(&self, mut wanted: impl FnMut(&State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = self.read(&mut wanted) {
                return found;
            }
            // The sender lives as long as `self`: there is no error to come.
            let _ = changed.changed().await;
        }
    }
}
