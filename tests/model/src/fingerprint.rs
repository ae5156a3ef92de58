//! What tells one world from another. Only how far moments and versions are from the present ones counts: two worlds
//! that differ in nothing else, or in which operator is which, have the same future.

use std::hash::{DefaultHasher, Hash, Hasher};

use toolzz_operator::{api::Tick, plan::Memory};

use crate::{
    shell::RESYNC,
    world::{Answer, Operator, Request, Resource, Work, World},
};

/// What is longer ago than anything waits for is just long ago.
const LONG_AGO: i64 = 3 * RESYNC as i64;

/// A moment, as far as it is from now.
#[derive(Clone, Copy)]
struct Clock(u64);

impl Clock {
    fn since(self, moment: u64) -> i64 {
        (self.0 as i64 - moment as i64).min(LONG_AGO)
    }

    fn of(self, tick: &Option<Tick>) -> Option<i64> {
        tick.map(|tick| self.since(tick.0))
    }
}

impl World {
    /// Tells this world from any other.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let clock = Clock(self.now);
        let current = |resource: u8| self.resources[usize::from(resource)].current().number;
        for resource in &self.resources {
            resource.hash_at(clock, hasher);
        }
        // Operators are alike: which is which does not count.
        let mut operators: Vec<u64> = (0..)
            .zip(&self.operators)
            .map(|(place, operator)| {
                let mut hasher = DefaultHasher::new();
                operator.hash_at(clock, &self.resources, &mut hasher);
                let sent = self.pending.iter().map(|pending| pending.sender == Some(place));
                sent.for_each(|own| own.hash(&mut hasher));
                hasher.finish()
            })
            .collect();
        operators.sort_unstable();
        operators.hash(hasher);
        self.credentials.hash(hasher);
        self.pending.len().hash(hasher);
        for pending in &self.pending {
            (clock.since(pending.until), pending.sender.is_some()).hash(hasher);
            match &pending.request {
                Request::Post { owner, material } => (owner, material).hash(hasher),
                Request::Put { of, place, row, material, version } => {
                    (of, place, row, material, current(*of) - version).hash(hasher);
                }
            }
        }
        (self.crashes, self.losses, self.rotations, self.deletions, self.ticks).hash(hasher);
    }
}

impl Resource {
    fn hash_at<H: Hasher>(&self, clock: Clock, hasher: &mut H) {
        let current = self.current().number;
        (self.secret, self.deleted, self.versions.len()).hash(hasher);
        for version in &self.versions {
            (current - version.number, clock.since(version.since), version.said()).hash(hasher);
        }
    }
}

impl Operator {
    fn hash_at<H: Hasher>(&self, clock: Clock, resources: &[Resource], hasher: &mut H) {
        (self.listed.map(|at| clock.since(at)), self.shows_inactive, self.rows.len()).hash(hasher);
        for (place, (row, at)) in &self.rows {
            (place, row, clock.since(*at)).hash(hasher);
        }
        for (work, resource) in self.works.iter().zip(resources) {
            work.hash_at(clock, resource.current().number, hasher);
        }
    }
}

impl Work {
    fn hash_at<H: Hasher>(&self, clock: Clock, current: u64, hasher: &mut H) {
        (current - self.seen, self.deleting, self.asleep.map(|until| until.map(|at| clock.since(at)))).hash(hasher);
        self.pass.map(|pass| (current - pass.version, clock.since(pass.read_at), pass.material)).hash(hasher);
        match &self.answer {
            None => 0.hash(hasher),
            Some(Answer::Posted(place, row)) => (1, place, row).hash(hasher),
            Some(Answer::Put { place, row, material, own, wish, sent }) => {
                (2, place, row, material, own, wish, clock.since(*sent)).hash(hasher);
            }
            Some(Answer::Listed { began_at, rows }) => (3, clock.since(*began_at), rows).hash(hasher),
        }
        hash_memory(&self.memory, clock, hasher);
    }
}

fn hash_memory<H: Hasher>(memory: &Memory, clock: Clock, hasher: &mut H) {
    // Every field by name: one that is added must be thought of here.
    let Memory {
        first_seen,
        given_up,
        told_create_settled,
        lost_posts,
        doubt,
        late_until,
        absent_since,
        gone,
        corrected,
        inactive,
        nowhere: _,
        missing,
        in_place,
        began_here,
        published,
        marked_unknown,
        requested: _,
        target: _,
        target_dropped: _,
        target_conflict: _,
        rejected,
        trouble,
    } = memory;
    (clock.since(first_seen.0), clock.of(given_up), lost_posts, clock.of(doubt), clock.of(late_until)).hash(hasher);
    (clock.of(absent_since), corrected, told_create_settled, began_here, published, marked_unknown, rejected.len())
        .hash(hasher);
    for (id, at) in inactive.iter().chain(missing) {
        (id, clock.since(at.0)).hash(hasher);
    }
    (inactive.len(), missing.len()).hash(hasher);
    gone.as_ref().map(|gone| (&gone.id, clock.since(gone.since.0), clock.since(gone.last.0))).hash(hasher);
    in_place.as_ref().map(|sent| (&sent.digest, &sent.secret_id, clock.since(sent.at.0))).hash(hasher);
    trouble.as_ref().map(|trouble| clock.of(&trouble.retry_at)).hash(hasher);
}
