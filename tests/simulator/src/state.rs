//! Everything the simulator knows, behind one lock, with a way to await a change.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::api::{self, Call, Performed};
use crate::faults::{ActiveRule, Fault, Matching, Reply, Rule, RuleId, Seen};
use crate::gate::{GateId, Point, Verdict};
use crate::journal::{Counts, Effect, Entry, Journal, Operation, TokenSeen};
use crate::marker::is_marked;
use crate::settings::{Access, Settings, Token};
use crate::store::{Credential, Store};

/// What can be asked of the simulator at one moment; see [`crate::Simulator::read`] and [`crate::Simulator::until`].
#[derive(Debug)]
pub struct State {
    pub(crate) store: Store,
    pub(crate) settings: Settings,
    pub(crate) tokens: Vec<Token>,
    pub(crate) journal: Journal,
    pub(crate) rules: Vec<ActiveRule>,
    pub(crate) gates: Vec<GateState>,
    late: Vec<Call>,
    last_id: u64,
}

/// A gate at work.
#[derive(Debug)]
pub(crate) struct GateState {
    pub(crate) id: GateId,
    on: Matching,
    point: Point,
    /// How many more requests it stops.
    remaining: u64,
    waiting: VecDeque<oneshot::Sender<Verdict>>,
    /// How many it ever stopped.
    held: usize,
}

impl State {
    pub(crate) fn new(settings: Settings, tokens: Vec<Token>, journal_limit: usize) -> Self {
        Self {
            store: Store::new(),
            settings,
            tokens,
            journal: Journal::new(journal_limit),
            rules: Vec::new(),
            gates: Vec::new(),
            late: Vec::new(),
            last_id: 0,
        }
    }

    /// Every credential that ever was, in the order they were created.
    #[must_use]
    pub fn credentials(&self) -> &[Credential] {
        self.store.all()
    }

    /// The credential of this id, also where it was removed.
    #[must_use]
    pub fn credential(&self, id: Uuid) -> Option<&Credential> {
        self.store.get(id)
    }

    /// The credentials that are active now and have this final name (the operator's marker does not count).
    #[must_use]
    pub fn active_named(&self, name: &str) -> Vec<&Credential> {
        self.named(name).into_iter().filter(|credential| credential.is_active()).collect()
    }

    /// The credentials not removed that have this final name, active or not.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<&Credential> {
        let present = self.store.all().iter().filter(|credential| !credential.removed);
        present.filter(|credential| credential.final_name() == name).collect()
    }

    /// The credentials not removed that are inactive and carry the operator's marker.
    #[must_use]
    pub fn staged(&self) -> Vec<&Credential> {
        let inactive = self.store.all().iter().filter(|credential| !credential.removed && !credential.row.active);
        inactive.filter(|credential| is_marked(&credential.row.name)).collect()
    }

    /// The credentials that were, at any moment, active under a name with the operator's marker.
    #[must_use]
    pub fn ever_active_while_marked(&self) -> Vec<&Credential> {
        let active_marked = |credential: &&Credential| {
            let mut rows = credential.history.iter().filter_map(|change| change.row.as_ref());
            rows.any(|row| row.active && is_marked(&row.name))
        };
        self.store.all().iter().filter(active_marked).collect()
    }

    /// The most credentials of this final name that were active at one moment, over the whole history.
    #[must_use]
    pub fn max_simultaneously_active(&self, name: &str) -> usize {
        self.store.max_active(name)
    }

    /// The same within one unity and integration.
    #[must_use]
    pub fn max_simultaneously_active_in(&self, name: &str, unity_id: Uuid, integration_id: Uuid) -> usize {
        self.store.max_active_in(name, unity_id, integration_id)
    }

    /// The same of these credentials, whatever they were called then.
    #[must_use]
    pub fn max_simultaneously_active_of(&self, these: impl Fn(&Credential) -> bool) -> usize {
        self.store.max_active_of(these)
    }

    /// Every (final name, unityId, integrationId) of which more than one was active at one moment, with how many.
    #[must_use]
    pub fn overlaps(&self) -> Vec<((String, Uuid, Uuid), usize)> {
        self.store.overlaps()
    }

    /// The `credentials` array this secretId holds now.
    #[must_use]
    pub fn material_of(&self, secret_id: Uuid) -> Option<&serde_json::Value> {
        self.store.material(secret_id)
    }

    /// The latest requests, the oldest first.
    pub fn journal(&self) -> impl Iterator<Item = &Entry> {
        self.journal.entries()
    }

    /// How often an operation was asked for.
    #[must_use]
    pub fn counts(&self, operation: Operation) -> Counts {
        self.journal.counts(operation)
    }

    /// Requests in hand now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.journal.in_flight()
    }

    /// The most requests that were ever in hand at once.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.journal.max_in_flight()
    }

    /// How often a rule's fault happened; 0 also where the rule was removed.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.rules.iter().find(|rule| rule.id == id).map_or(0, |rule| rule.hits)
    }

    /// Effects that are still to come.
    #[must_use]
    pub fn pending_commits(&self) -> usize {
        self.late.len()
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

    /// Number of the last change; for [`Reply::Stale`].
    #[must_use]
    pub fn point(&self) -> u64 {
        self.store.point()
    }

    pub(crate) fn token_seen(&self, bearer: Option<&str>) -> TokenSeen {
        let Some(bearer) = bearer else {
            return TokenSeen::Missing;
        };
        match self.tokens.iter().find(|token| token.value == bearer) {
            None => TokenSeen::Unknown,
            Some(Token { id, access: Access::Full, .. }) => TokenSeen::Full(id.clone()),
            Some(Token { id, access: Access::Forbidden, .. }) => TokenSeen::Forbidden(id.clone()),
        }
    }

    pub(crate) fn add_rule(&mut self, rule: Rule) -> RuleId {
        self.last_id += 1;
        let id = RuleId(self.last_id);
        self.rules.push(ActiveRule::new(id, rule));
        id
    }

    /// The first rule that meets the request decides.
    pub(crate) fn pick_fault(&mut self, request: &Seen<'_>) -> Option<(RuleId, Fault)> {
        let rule = self.rules.iter_mut().find_map(|rule| rule.meets(request).then_some(rule))?;
        Some((rule.id, rule.rule.fault.clone()))
    }

    pub(crate) fn add_gate(&mut self, on: Matching, point: Point, limit: Option<u64>) -> GateId {
        self.last_id += 1;
        let id = GateId(self.last_id);
        let remaining = limit.unwrap_or(u64::MAX);
        self.gates.push(GateState { id, on, point, remaining, waiting: VecDeque::new(), held: 0 });
        id
    }

    /// Stops the request where a gate says so.
    pub(crate) fn stop_at_gate(&mut self, request: &Seen<'_>, point: Point) -> Option<oneshot::Receiver<Verdict>> {
        let meets = |gate: &&mut GateState| gate.point == point && gate.remaining > 0 && gate.on.matches(request);
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

    /// Has the effect of a call take place, and notes it.
    pub(crate) fn perform(&mut self, call: &Call, reply: &Reply) -> Performed {
        let performed = api::perform(self, call, reply);
        let effect = match performed.committed {
            Some(credential) => Effect::Committed { credential, change: self.store.point(), at: Timestamp::now() },
            None => Effect::None,
        };
        self.journal.decide(call.seq, call.operation, performed.status(), effect, performed.rows());
        performed
    }

    pub(crate) fn postpone(&mut self, call: Call) {
        self.journal.set_effect(call.seq, Effect::Pending);
        self.late.push(call);
    }

    /// Has one postponed effect take place, if it still is to come.
    pub(crate) fn perform_late(&mut self, seq: u64) {
        if let Some(at) = self.late.iter().position(|call| call.seq == seq) {
            let call = self.late.remove(at);
            self.perform(&call, &Reply::Normal);
        }
    }

    /// Has every postponed effect take place, in the order the requests came; how many those were.
    pub(crate) fn perform_all_late(&mut self) -> usize {
        let late = std::mem::take(&mut self.late);
        for call in &late {
            self.perform(call, &Reply::Normal);
        }
        late.len()
    }

    /// Forgets every postponed effect; how many those were.
    pub(crate) fn discard_late(&mut self) -> usize {
        let late = std::mem::take(&mut self.late);
        for call in &late {
            self.journal.set_effect(call.seq, Effect::None);
        }
        late.len()
    }

    fn gate(&self, id: GateId) -> Option<&GateState> {
        self.gates.iter().find(|gate| gate.id == id)
    }
}

/// The state as the server and every handle share it.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
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
