//! The model: what may happen next, and what must never be.

use std::hash::{DefaultHasher, Hash, Hasher};

use stateright::{Model, Property};
use toolzz_operator::api::{ToolzzCredentialStatus, condition};

use crate::{
    bounds::Bounds,
    shell::RESYNC,
    world::{Answer, Ground, Operator, Resource, Shared, Version, World},
};

/// More steps than the way to rest has from anywhere.
const MOST_STEPS: usize = 500;
/// More credentials than any run needs.
const MOST_CREDENTIALS: usize = 16;

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

/// A world within bounds.
#[derive(Clone, Debug)]
pub struct Protocol(pub Bounds);

impl Protocol {
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Bounds { operators, resources, .. } = self.0;
        (0..operators).flat_map(move |operator| (0..resources).map(move |resource| (operator, resource)))
    }

    /// Whether everybody has seen all that is older than the lag allows, were it a tick later.
    fn may_tick(&self, world: &World) -> bool {
        self.pairs().all(|(operator, resource)| {
            let seen = world.operators[operator].works[resource].seen;
            let mut unseen = world.resources[resource].versions.iter().filter(|version| version.number > seen);
            unseen.all(|version| version.since + self.0.lag > world.now)
        })
    }

    /// Whether this very event may be next, and what is then.
    pub fn after(&self, world: &World, event: Event) -> Option<World> {
        let bounds = &self.0;
        let mut next = world.clone();
        match event {
            Event::Step(operator, resource) => {
                let decision = world.decide(bounds, operator, resource)?;
                next.perform(bounds, operator, resource, decision, false);
            }
            Event::Lose(operator, resource) | Event::Kill(operator, resource) => {
                let decision = world.decide(bounds, operator, resource)?;
                if !matches!(decision.step, toolzz_operator::plan::Step::Post(_) | toolzz_operator::plan::Step::Put(_))
                {
                    return None;
                }
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
                next.operators[operator].works[resource].seen = world.resources[resource].current().number;
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
    /// Before anything has happened.
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
        Self {
            now: 1,
            operators: (0..bounds.operators).map(|_| Operator::begin(&resources, 1)).collect(),
            resources,
            credentials: Vec::new(),
            pending: Vec::new(),
            crashes: bounds.crashes,
            losses: bounds.losses,
            rotations: bounds.rotations,
            deletions: bounds.deletions,
            ticks: bounds.ticks,
        }
    }

    fn crash(&mut self, operator: usize) {
        for pending in &mut self.pending {
            if pending.sender == Some(operator as u8) {
                pending.sender = None;
            }
        }
        self.operators[operator] = Operator::begin(&self.resources, self.now);
    }

    fn delete(&mut self, resource: usize) {
        self.resources[resource].deleted = true;
        // The API server decides by the finalizers there are.
        self.write(resource, |version| if version.finalizer { version.deleting = true } else { version.gone = true });
    }

    /// Nothing is active that is not recorded. Two kinds are excepted (and counted): what an operator that was killed had
    /// sent before its resource went; and what a second operator, without election, did by a record that was changed.
    pub fn unrecorded(&self) -> Option<String> {
        self.credentials.iter().enumerate().find_map(|(place, credential)| {
            let resource = &self.resources[usize::from(credential.owner)];
            let excepted = self.excepted(credential.ground, resource);
            let id = crate::world::id(place as u8);
            let version = resource.current();
            let recorded = version.ledger.as_ref().filter(|_| !version.gone);
            let recorded = recorded.is_some_and(|ledger| ledger.credentials().any(|(one, _)| *one == id));
            (credential.row.active && !recorded && !excepted).then(|| format!("{id} is active and not recorded"))
        })
    }

    fn excepted(&self, ground: Ground, resource: &Resource) -> bool {
        match ground {
            Ground::Current => false,
            Ground::Stale => self.operators.len() > 1,
            Ground::Orphaned => resource.current().gone || self.operators.len() > 1,
        }
    }

    /// Whether something is active that is excepted from the rule.
    pub fn outlived(&self) -> bool {
        self.credentials.iter().any(|credential| {
            let gone = self.resources[usize::from(credential.owner)].current().gone;
            credential.row.active && gone && credential.ground != Ground::Current
        })
    }

    /// No credential is two resources' own.
    pub fn shared(&self) -> Option<String> {
        let own = |resource: &Resource| {
            let version = resource.current();
            version.ledger.as_ref().filter(|_| !version.gone).map(|ledger| ledger.id.clone())
        };
        let all: Vec<_> = self.resources.iter().filter_map(own).collect();
        (all.len() > 1 && all[0] == all[1]).then(|| format!("{} is two resources' own", all[0]))
    }

    /// What agents were told to use can be used: while a resource is ready, its published credential is active.
    pub fn unusable(&self) -> Option<String> {
        self.resources.iter().find_map(|resource| {
            let version = resource.current();
            let ready = condition(&version.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
            let published = version.status.id.as_ref().and_then(crate::world::place)?;
            let credential = self.credentials.get(usize::from(published))?;
            let off = ready && !version.deleting && !version.gone && !credential.row.active;
            // A late or stale write of another operator is put right at the next comparison.
            (off && self.operators.len() == 1 && !self.deactivated_late(published))
                .then(|| format!("c{published:02} is published and inactive"))
        })
    }

    /// A superseded credential is switched off while another's publication is on its way only if somebody has taken
    /// its place already.
    fn deactivated_late(&self, published: u8) -> bool {
        let owner = self.credentials[usize::from(published)].owner;
        let ledger = self.resources[usize::from(owner)].current().ledger.as_ref();
        ledger.is_some_and(|ledger| crate::world::place(&ledger.id) != Some(published))
            && self.credentials.iter().any(|one| one.owner == owner && one.row.active)
    }

    /// No active credential has a marker in its name.
    pub fn marked(&self) -> Option<String> {
        let place = self.credentials.iter().position(|one| one.row.active && one.row.marker.is_some())?;
        Some(format!("c{place:02} is active under a marked name"))
    }
}

impl Protocol {
    /// Where one operator lives on, and listings show what was created, none is created twice for the same material.
    fn doubled(&self, world: &World) -> Option<String> {
        let Bounds { operators, crashes, hides, .. } = self.0;
        if operators > 1 || crashes > 0 || hides {
            return None;
        }
        world.resources.iter().enumerate().find_map(|(place, resource)| {
            let created = world.credentials.iter().filter(|one| usize::from(one.owner) == place).count();
            (created > usize::from(resource.secret) + 1).then(|| format!("{created} were created for resource {place}"))
        })
    }

    /// What is wrong in this world, if anything.
    pub fn wrong(&self, world: &World) -> Option<String> {
        let doubled = self.doubled(world);
        doubled
            .or_else(|| world.unrecorded())
            .or_else(|| world.shared())
            .or_else(|| world.marked())
            .or_else(|| world.unusable())
    }

    /// What is wrong when nothing more goes wrong and everybody gets his turn, until there is nothing to do and every
    /// credential was compared again. What could go wrong is bounded, so every fair run comes to such a stretch.
    pub fn unsettled(&self, world: &World) -> Option<String> {
        let mut world = world.clone();
        // Requests that were given up and not heard of since never take effect.
        world.pending.clear();
        let mut quiet = 0;
        for round in 1..MOST_STEPS {
            let mut busy = false;
            // Nobody is infinitely fast: two operators that contradict each other do so until a look decides.
            world.now += u64::from(round.is_multiple_of(16));
            for (operator, resource) in self.pairs() {
                let current = world.resources[resource].current().number;
                world.operators[operator].works[resource].seen = current;
                if world.operators[operator].works[resource].answer.is_some() {
                    world.receive(operator, resource);
                    busy = true;
                } else if let Some(decision) = world.decide(&self.0, operator, resource) {
                    world.perform(&self.0, operator, resource, decision, false);
                    busy = true;
                }
                world.tidy();
                if let Some(wrong) = self.wrong(&world) {
                    return Some(wrong);
                }
            }
            if world.credentials.len() > MOST_CREDENTIALS {
                return Some("it creates without end".to_owned());
            }
            if !busy {
                quiet += 1;
                // A while for what waits for its time, and twice long enough for everything to be compared again.
                world.now += if quiet == 12 || quiet == 24 { 2 * RESYNC } else { 1 };
                if quiet == 36 {
                    return world.disagreement();
                }
            }
        }
        Some("it does not come to rest".to_owned())
    }
}

impl World {
    /// What the resources say and what there is.
    fn disagreement(&self) -> Option<String> {
        self.resources.iter().enumerate().find_map(|(place, resource)| {
            let version = resource.current();
            let own = |one: &&crate::world::Credential| usize::from(one.owner) == place && one.row.active;
            let active: Vec<_> = self.credentials.iter().filter(own).collect();
            if resource.deleted {
                let left = active.iter().any(|one| !self.excepted(one.ground, resource));
                return if !version.gone {
                    Some(format!("resource {place} does not go"))
                } else {
                    left.then(|| format!("resource {place} is gone and something of it is active"))
                };
            }
            let ready = condition(&version.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
            let of = |one: &crate::world::Credential| self.credentials[usize::from(one.row.secret)].material;
            match active.iter().filter(|one| !self.excepted(one.ground, resource)).count() {
                _ if !ready => Some(format!("resource {place} does not become ready")),
                1 if active.iter().any(|one| of(one) == resource.secret % 2) => None,
                1 => Some(format!("resource {place} goes on with old material")),
                // Another operator's late word.
                0 if self.operators.len() > 1 && !active.is_empty() => None,
                count => Some(format!("resource {place} has {count} active credentials")),
            }
        })
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (operator, resource) in self.pairs() {
            let work = &world.operators[operator].works[resource];
            if let Some(answer) = &work.answer {
                events.push(Event::Receive(operator, resource));
                debug_assert!(!matches!(answer, Answer::Listed { began_at, .. } if *began_at > world.now));
            } else {
                events.push(Event::Step(operator, resource));
                if world.losses > 0 {
                    events.push(Event::Lose(operator, resource));
                }
                if world.crashes > 0 {
                    events.push(Event::Kill(operator, resource));
                }
            }
            if work.seen < world.resources[resource].current().number {
                events.push(Event::Deliver(operator, resource));
            }
        }
        if world.crashes > 0 {
            events.extend((0..self.0.operators).map(Event::Crash));
        }
        events.extend((0..world.pending.len()).map(Event::Commit));
        if world.ticks > 0 && self.may_tick(world) {
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

    /// Two operators without election may contradict each other in a status for as long as no time passes.
    fn within_boundary(&self, world: &World) -> bool {
        let most = if self.0.operators > 1 { 6 } else { 24 };
        world.resources.iter().all(|resource| resource.current().number <= most)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one active, and recorded", |model: &Self, world: &World| model.wrong(world).is_none()),
            Property::always("settles", |model: &Self, world: &World| {
                let mut hasher = DefaultHasher::new();
                world.hash(&mut hasher);
                !hasher.finish().is_multiple_of(model.0.settling) || model.unsettled(world).is_none()
            }),
            Property::sometimes("something outlives its resource", |_: &Self, world: &World| world.outlived()),
        ]
    }
}
