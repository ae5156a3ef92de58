//! The model: what may happen next, and what must never be.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, DefaultHasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use stateright::{Model, Property};
use toolzz_operator::{
    api::{OnConflict, RotationStrategy, ToolzzCredentialStatus, condition},
    plan::Step,
};

use crate::{
    bounds::{Bounds, SETTLE},
    world::{Answer, Credential, Ground, NOBODY, Operator, Resource, Row, Shared, Version, World, id, material, place},
};

/// More rounds than the way to rest has from anywhere.
const MOST_ROUNDS: usize = 400;
/// More credentials than any run needs.
const MOST_CREDENTIALS: usize = 16;
/// More writes to a resource than any run needs.
const MOST_WRITES: u64 = 40;

/// What may be the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An operator (first) goes one step on for a resource (second).
    Step(usize, usize),
    /// The same, and its request is given up; it may take effect later.
    Lose(usize, usize),
    /// The same, and the operator is killed before its request arrives, which it may later.
    Kill(usize, usize),
    /// The answer comes that an operator waits for.
    Receive(usize, usize),
    /// The watch shows an operator the newest version of a resource.
    Deliver(usize, usize),
    /// An operator is killed, and another begins.
    Crash(usize),
    /// A request that was given up takes effect.
    Commit(usize),
    /// Time passes.
    Tick,
    /// The material of a resource changes.
    Rotate(usize),
    /// A resource is deleted by its user.
    Delete(usize),
}

/// Worlds within bounds, and what was found of them.
#[derive(Clone)]
pub struct Protocol {
    /// The bounds.
    pub bounds: Bounds,
    /// Worlds that are known to settle.
    settled: Arc<Mutex<HashSet<u64, BuildHasherDefault<DefaultHasher>>>>,
    /// Of how many worlds something is active that no record names any more.
    pub outlived: Arc<AtomicUsize>,
    /// How many worlds lie beyond the bounds that no run needs.
    pub beyond: Arc<AtomicUsize>,
}

impl Protocol {
    /// Nothing is found yet.
    pub fn new(bounds: &Bounds) -> Self {
        Self { bounds: bounds.clone(), settled: Arc::default(), outlived: Arc::default(), beyond: Arc::default() }
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Bounds { operators, resources, .. } = self.bounds;
        (0..operators).flat_map(move |operator| (0..resources).map(move |resource| (operator, resource)))
    }

    /// Whether time may pass: were it a tick later, everybody would have seen all that is older than the lag allows, and
    /// no update would have waited for its answer for longer than the settle period (a time limit is shorter).
    fn may_pass(&self, world: &World) -> bool {
        self.pairs().all(|(operator, resource)| {
            let work = &world.operators[operator].works[resource];
            let mut unseen = world.resources[resource].versions.iter().filter(|version| version.number > work.seen);
            let late = matches!(work.answer, Some(Answer::Put { sent, .. }) if sent + SETTLE <= world.now);
            !late && unseen.all(|version| version.since + self.bounds.lag > world.now)
        })
    }

    /// Whether this very event may be next, and what is then.
    pub fn after(&self, world: &World, event: Event) -> Option<World> {
        let bounds = &self.bounds;
        let mut next = world.clone();
        match event {
            Event::Step(operator, resource) => {
                let decision = world.decide(bounds, operator, resource)?;
                next.perform(bounds, operator, resource, decision, false);
            }
            Event::Lose(operator, resource) | Event::Kill(operator, resource) => {
                let decision = world.decide(bounds, operator, resource)?;
                next.perform(bounds, operator, resource, decision, true);
                if let Event::Kill(..) = event {
                    next.crashes -= 1;
                    next.crash(operator);
                } else {
                    next.losses -= 1;
                }
            }
            Event::Receive(operator, resource) => next.receive(operator, resource),
            Event::Deliver(operator, resource) => {
                next.deliver(operator, resource);
            }
            Event::Crash(operator) => {
                next.crashes -= 1;
                next.crash(operator);
            }
            Event::Commit(place) => {
                let pending = next.pending.remove(place);
                let ground = world.ground(&pending.request, pending.sender.is_some());
                next.commit(&pending.request, ground, false);
            }
            Event::Tick => {
                next.ticks -= 1;
                next.now += 1;
            }
            Event::Rotate(resource) => {
                next.rotations -= 1;
                next.resources[resource].secret += 1;
                next.wake(resource);
            }
            Event::Delete(resource) => {
                next.deletions -= 1;
                next.delete(resource);
            }
        }
        next.tidy();
        Some(next)
    }
}

impl World {
    /// Before anything has happened, but for what somebody made by hand.
    pub fn new(bounds: &Bounds) -> Self {
        let version = Version {
            number: 1,
            since: 0,
            gone: false,
            finalizer: false,
            deleting: false,
            ledger: None,
            status: ToolzzCredentialStatus::default(),
        };
        let resource = Resource { versions: vec![Shared::new(version)], secret: 0, deleted: false };
        let resources = vec![resource; bounds.resources];
        let by_hand = Credential {
            row: Row { marker: None, secret: 0, active: true },
            owner: NOBODY,
            material: NOBODY,
            ground: Ground::Current,
            left: false,
        };
        Self {
            now: 1,
            operators: (0..bounds.operators).map(|_| Operator::begin(&resources, 1)).collect(),
            resources,
            credentials: if bounds.on_conflict == OnConflict::Adopt { vec![by_hand] } else { Vec::new() },
            pending: Vec::new(),
            late: bounds.late,
            crashes: bounds.crashes,
            losses: bounds.losses,
            rotations: bounds.rotations,
            deletions: bounds.deletions,
            ticks: bounds.ticks,
        }
    }

    /// Nothing more goes wrong, and what was given up and not heard of since never takes effect.
    fn undisturbed(&self) -> Self {
        let mut world = self.clone();
        (world.crashes, world.losses, world.rotations, world.deletions, world.ticks) = (0, 0, 0, 0, 0);
        world.pending.clear();
        world
    }

    fn crash(&mut self, operator: usize) {
        for pending in &mut self.pending {
            if pending.sender == Some(operator as u8) {
                pending.sender = None;
                if self.late {
                    pending.until = u64::MAX / 2;
                }
            }
        }
        self.operators[operator] = Operator::begin(&self.resources, self.now);
    }

    fn delete(&mut self, resource: usize) {
        self.resources[resource].deleted = true;
        // The API server decides by the finalizers there are.
        self.write(resource, |version| if version.finalizer { version.deleting = true } else { version.gone = true });
    }

    /// Everybody who works on a resource begins a pass.
    fn wake(&mut self, resource: usize) {
        self.operators.iter_mut().for_each(|operator| operator.works[resource].asleep = None);
    }

    /// The watch shows the newest version. A status alone wakes nobody.
    fn deliver(&mut self, operator: usize, resource: usize) {
        let work = &mut self.operators[operator].works[resource];
        let (then, now) = (self.resources[resource].at(work.seen), self.resources[resource].current());
        let same = (then.deleting, then.gone, then.finalizer) == (now.deleting, now.gone, now.finalizer)
            && then.ledger == now.ledger;
        work.seen = now.number;
        if !same {
            work.asleep = None;
        }
    }

    /// The credentials of a resource that are active.
    fn active_of(&self, resource: usize) -> impl Iterator<Item = (u8, &Credential)> {
        let own = move |credential: &Credential| usize::from(credential.owner) == resource && credential.row.active;
        (0..).zip(&self.credentials).filter(move |(_, credential)| own(credential))
    }

    /// What is wrong in this world, if anything.
    fn wrong(&self, strategy: RotationStrategy) -> Option<String> {
        let by_resource = (0..self.resources.len()).find_map(|resource| {
            self.unrecorded(resource)
                .or_else(|| self.too_many(resource, strategy))
                .or_else(|| self.unusable(resource, strategy))
                .or_else(|| self.other_material(resource, strategy))
        });
        by_resource.or_else(|| self.shared()).or_else(|| self.marked())
    }

    /// Nothing that another operator sent takes effect but within the settle period.
    fn alone(&self) -> bool {
        self.operators.len() == 1 && !self.late
    }

    /// Active by an update that another operator had sent before the credential left the record, or the resource went,
    /// and that took effect after it: what is excepted, and counted. Who works alone waits for what was sent before.
    fn outlives(&self, resource: usize, credential: &Credential) -> bool {
        let unrecorded = self.resources[resource].current().gone || credential.left;
        unrecorded && !self.alone() && credential.ground != Ground::Current
    }

    /// Something is active that is not recorded.
    fn unrecorded(&self, resource: usize) -> Option<String> {
        let version = self.resources[resource].current();
        let recorded = |id| {
            let ledger = version.ledger.as_ref().filter(|_| !version.gone);
            ledger.is_some_and(|ledger| ledger.credentials().any(|(one, _)| *one == id))
        };
        let mut active = self.active_of(resource);
        let (place, _) =
            active.find(|(place, credential)| !recorded(id(*place)) && !self.outlives(resource, credential))?;
        Some(format!("{} is active and not recorded", id(place)))
    }

    /// More are active than the strategy allows: one, and with `Replace` those that the record calls superseded.
    fn too_many(&self, resource: usize, strategy: RotationStrategy) -> Option<String> {
        let ledger = self.resources[resource].current().ledger.as_ref();
        let retires = |place| ledger.is_some_and(|ledger| ledger.retiring.iter().any(|old| old.id == id(place)));
        let allowed = |place, credential: &Credential| {
            strategy == RotationStrategy::Replace
                && (retires(place) || credential.left && self.outlives(resource, credential))
        };
        let count = self.active_of(resource).filter(|(place, credential)| !allowed(*place, credential)).count();
        (count > 1).then(|| format!("{count} are active at once"))
    }

    /// Whether something is active that no record names any more.
    pub fn outlived(&self) -> bool {
        (0..self.resources.len()).any(|resource| {
            let gone = self.resources[resource].current().gone;
            self.active_of(resource).any(|(_, credential)| gone || credential.left)
        })
    }

    /// A credential is two resources' own.
    fn shared(&self) -> Option<String> {
        let all = self.resources.iter().filter(|resource| !resource.current().gone);
        let mut ledgers = all.filter_map(|resource| resource.current().ledger.as_ref());
        let (one, other) = (ledgers.next()?, ledgers.next()?);
        let (id, _) = one.credentials().find(|(id, _)| other.named().any(|named| named == *id))?;
        Some(format!("{id} is two resources' own"))
    }

    /// What agents were told to use cannot be used: the resource is ready, and its published credential is inactive.
    fn unusable(&self, resource: usize, strategy: RotationStrategy) -> Option<String> {
        let version = self.resources[resource].current();
        let ready = condition(&version.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
        let published = version.status.id.as_ref().and_then(place)?;
        let credential = self.credentials.get(usize::from(published))?;
        let off = ready && !version.deleting && !version.gone && !credential.row.active;
        // A late or stale write of another operator is put right at the next comparison. In place, while what it holds is
        // not known, a write leaves it as it was seen, which another may have changed.
        let stale = credential.ground != Ground::Current || strategy == RotationStrategy::InPlace;
        let others = !self.alone() && stale;
        (off && !others && !self.superseded(resource, published))
            .then(|| format!("{} is published and inactive", id(published)))
    }

    /// A superseded credential may be off while another's publication is on its way, if somebody has taken its place
    /// already.
    fn superseded(&self, resource: usize, published: u8) -> bool {
        let ledger = self.resources[resource].current().ledger.as_ref();
        ledger.is_some_and(|ledger| place(&ledger.id) != Some(published)) && self.active_of(resource).next().is_some()
    }

    /// What is recorded as known is not what the credential holds. In place, something on its way or another operator
    /// could change that.
    fn other_material(&self, resource: usize, strategy: RotationStrategy) -> Option<String> {
        let version = self.resources[resource].current();
        let ledger = version.ledger.as_ref().filter(|ledger| !version.gone && !ledger.digest.is_empty())?;
        let own = place(&ledger.id)?;
        let secret = self.credentials.get(usize::from(own))?.row.secret;
        let held = self.credentials[usize::from(secret)].material;
        let recorded = ledger.secret_id.0 == format!("s{secret:02}");
        let certain = strategy != RotationStrategy::InPlace || self.pending.is_empty() && self.alone();
        (recorded && certain && held != material(&ledger.digest))
            .then(|| format!("{} holds other material than is recorded", id(own)))
    }

    /// An active credential of a resource has a marker in its name.
    fn marked(&self) -> Option<String> {
        let place = self.credentials.iter().position(|one| one.row.active && one.row.marker.is_some())?;
        Some(format!("{} is active under a marked name", id(place as u8)))
    }
}

impl Protocol {
    /// More were created than one for each material by each operator, and for each crash and each loss where listings
    /// hide what was created.
    fn doubled(&self, world: &World) -> Option<String> {
        let Bounds { operators, crashes, losses, hides, .. } = self.bounds;
        let missed = usize::from(crashes - world.crashes) + if hides { usize::from(losses - world.losses) } else { 0 };
        world.resources.iter().enumerate().find_map(|(place, resource)| {
            let created = world.credentials.iter().filter(|one| usize::from(one.owner) == place).count();
            (created > operators * (usize::from(resource.secret) + 1) + missed)
                .then(|| format!("{created} were created for resource {place}"))
        })
    }

    /// What is wrong in this world, if anything.
    pub fn wrong(&self, world: &World) -> Option<String> {
        self.doubled(world).or_else(|| world.wrong(self.bounds.strategy))
    }

    /// What is wrong when nothing more goes wrong and everybody gets his turn, until nothing happens any more but that
    /// everything is compared again. What could go wrong is bounded, so every fair run comes to such a stretch.
    pub fn unsettled(&self, world: &World) -> Option<String> {
        let mut world = world.undisturbed();
        // When each world on the way was met, and how many effects there were before it.
        let mut met: HashMap<u64, usize> = HashMap::new();
        let mut effects = 0;
        for _ in 0..MOST_ROUNDS {
            let print = world.fingerprint();
            if self.settled().contains(&print) {
                break;
            }
            match met.insert(print, effects) {
                // It goes on like this for ever.
                Some(before) if before == effects => {
                    if let Some(wrong) = world.disagreement() {
                        return Some(wrong);
                    }
                    break;
                }
                Some(_) => return Some("it does not come to rest".to_owned()),
                None => {}
            }
            let (busy, more) = self.round(&mut world, self.pairs());
            effects += more;
            if busy {
                world.now += 1;
            } else if let Some(due) = world.due() {
                world.now = world.now.max(due);
            } else if let Some(wrong) = world.disagreement() {
                return Some(wrong);
            } else {
                break;
            }
            if let Some(wrong) = self.wrong(&world) {
                return Some(wrong);
            }
            if world.credentials.len() > MOST_CREDENTIALS || met.len() == MOST_ROUNDS - 1 {
                return Some("it goes on without end".to_owned());
            }
        }
        self.settled().extend(met.into_keys());
        None
    }

    fn settled(&self) -> std::sync::MutexGuard<'_, HashSet<u64, BuildHasherDefault<DefaultHasher>>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each takes a step: whether any had one to take, and how many effects there were.
    fn round(&self, world: &mut World, pairs: impl Iterator<Item = (usize, usize)>) -> (bool, usize) {
        let (mut busy, mut effects) = (false, 0);
        for (operator, resource) in pairs {
            world.deliver(operator, resource);
            if world.operators[operator].works[resource].answer.is_some() {
                world.receive(operator, resource);
                busy = true;
            } else if let Some(decision) = world.decide(&self.bounds, operator, resource) {
                busy = true;
                effects += usize::from(!matches!(decision.step, Step::Look { .. } | Step::Rest(_)));
                world.perform(&self.bounds, operator, resource, decision, false);
            }
            world.tidy();
        }
        (busy, effects)
    }
}

impl World {
    /// When somebody wakes next.
    fn due(&self) -> Option<u64> {
        self.operators.iter().flat_map(|operator| &operator.works).filter_map(|work| work.asleep?).min()
    }

    /// What the resources say and what there is.
    fn disagreement(&self) -> Option<String> {
        (0..self.resources.len()).find_map(|place| {
            let resource = &self.resources[place];
            let version = resource.current();
            let mut active = self.active_of(place).filter(|(_, one)| !self.outlives(place, one));
            if resource.deleted {
                let left = active.next().is_some();
                return if !version.gone {
                    Some(format!("resource {place} does not go"))
                } else {
                    left.then(|| format!("resource {place} is gone and something of it is active"))
                };
            }
            let ready = condition(&version.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
            if !ready {
                return Some(format!("resource {place} does not become ready"));
            }
            let published = version.status.id.as_ref().and_then(crate::world::place);
            let own = published.and_then(|own| self.credentials.get(usize::from(own))).filter(|own| own.row.active);
            let Some(own) = own else { return Some(format!("resource {place} is ready without a credential")) };
            let others = active.filter(|(other, _)| published != Some(*other)).count();
            if others > 0 {
                return Some(format!("resource {place} has {others} more that are active"));
            }
            let held = self.credentials[usize::from(own.row.secret)].material;
            (held != resource.secret % 2).then(|| format!("resource {place} goes on with old material"))
        })
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let mut world = World::new(&self.bounds);
        // One after the other, so that none races another in what led here.
        let operators = if self.bounds.settled { self.bounds.operators } else { 0 };
        for operator in 0..operators {
            while self.round(&mut world, self.pairs().filter(|(other, _)| *other == operator)).0 {
                world.now += 1;
            }
        }
        vec![world]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        let passes = self.may_pass(world);
        for (operator, resource) in self.pairs() {
            let work = &world.operators[operator].works[resource];
            if work.answer.is_some() {
                events.push(Event::Receive(operator, resource));
            } else if let Some(decision) = world.decide(&self.bounds, operator, resource) {
                // A look may have to wait for the next tick.
                if passes || !matches!(decision.step, Step::Look { began_after, .. } if began_after.0 >= world.now) {
                    events.push(Event::Step(operator, resource));
                }
                if let Step::Post(_) | Step::Put(_) = decision.step {
                    if world.losses > 0 {
                        events.push(Event::Lose(operator, resource));
                    }
                    if world.crashes > 0 {
                        events.push(Event::Kill(operator, resource));
                    }
                }
            }
            if work.seen < world.resources[resource].current().number {
                events.push(Event::Deliver(operator, resource));
            }
        }
        if world.crashes > 0 {
            events.extend((0..self.bounds.operators).map(Event::Crash));
        }
        events.extend((0..world.pending.len()).map(Event::Commit));
        if world.ticks > 0 && passes {
            events.push(Event::Tick);
        }
        for (place, resource) in world.resources.iter().enumerate().filter(|(_, resource)| !resource.deleted) {
            if world.rotations > 0 {
                events.push(Event::Rotate(place));
            }
            if world.deletions > 0 && !resource.current().gone {
                events.push(Event::Delete(place));
            }
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        self.after(world, event)
    }

    fn within_boundary(&self, world: &World) -> bool {
        let within = world.credentials.len() <= MOST_CREDENTIALS
            && world.resources.iter().all(|resource| resource.current().number <= MOST_WRITES);
        self.beyond.fetch_add(usize::from(!within), Ordering::Relaxed);
        within
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("safe", |model: &Self, world: &World| {
                model.outlived.fetch_add(usize::from(world.outlived()), Ordering::Relaxed);
                model.wrong(world).is_none()
            }),
            Property::always("settles", |model: &Self, world: &World| model.unsettled(world).is_none()),
        ]
    }
}
