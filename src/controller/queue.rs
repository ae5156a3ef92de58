//! Whose turn it is. Pure: it is told the time, and it starts nothing.
//!
//! An object waits once, however often it is named, and for the earliest of the times it was named with. It has one pass
//! at a time; what comes during a pass leads to one more.
//!
//! - What somebody did just now ([`Lane::News`]) goes before what can wait; but one pass in [`ROUTINE_EVERY`] is for the
//!   latter first, so that it is never shut out.
//! - In a lane tenants take turns, and the connections of a tenant. Of a connection what is at Toolzz already and what is not
//!   take turns: an edit does not wait for a thousand creates, nor a create for a thousand rotations.
//! - A tenant gets another worker while it has fewer than [`SHARE`] times those that are free: one alone leaves a quarter
//!   of them to whoever comes next. So a tenant whose passes hang holds nobody up; of 64 workers it takes four of them.
//! - Of a tenant's news the one that waits longest and the one that came last go in turns: who does one thing after a
//!   thousand others does not wait for those, and neither is passed over for ever.
//! - News that could not be done with are news once more, and take turns with the two ([`Lane::Again`]); after that they are
//!   routine, or a thousand that fail would be in everybody's way.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::Arc,
};

use tokio::time::Instant;

/// A tenant may have this many times as many workers as are free.
const SHARE: usize = 3;
/// One pass in so many is for routine first.
const ROUTINE_EVERY: u32 = 8;

/// Why a pass is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Time has come, or something is tried again.
    Routine,
    /// It was there when everything was listed, or a change concerns many. In line with routine.
    Found,
    /// It was news, and is tried again for the first time. In line with news.
    Again,
    /// Somebody did something: made, edited or deleted the object, or changed what it refers to.
    News,
}

/// For whom a pass is, and through what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place<C> {
    pub tenant: Arc<str>,
    pub connection: C,
    /// It is at Toolzz already.
    pub is_there: bool,
}

/// What waits, and what is at work.
pub(super) struct Queue<K, C> {
    workers: usize,
    /// What waits and is not at work.
    waiting: HashMap<K, Waiting<C>>,
    /// Those of them whose time has not come, the next one first.
    timers: BTreeMap<(Instant, u64), K>,
    /// The rest of them, in their order. Who has changed lanes leaves a number behind that nobody has any more.
    routine: Lines<K, C>,
    news: Lines<K, C>,
    at_work: HashMap<K, AtWork<C>>,
    /// How many of those each tenant has.
    by_tenant: HashMap<Arc<str>, usize>,
    begun: u32,
    last_number: u64,
    /// When it was looked last whose turn it is, a connection did not admit somebody's pass.
    is_held_up: bool,
}

/// By tenant, connection and kind.
type Lines<K, C> = Turns<Arc<str>, Turns<C, Turns<Kind, Line<K>>>>;

/// Of one connection these take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It is not at Toolzz yet.
    Fresh,
    /// It is.
    There,
    /// It is tried again.
    Again,
}

impl Kind {
    fn of<C>(lane: Lane, place: &Place<C>) -> Self {
        if lane == Lane::Again {
            Self::Again
        } else if place.is_there {
            Self::There
        } else {
            Self::Fresh
        }
    }
}

struct Waiting<C> {
    lane: Lane,
    place: Place<C>,
    at: Instant,
    number: u64,
}

struct AtWork<C> {
    tenant: Arc<str>,
    /// What was asked for meanwhile.
    again: Option<(Lane, Place<C>, Instant)>,
}

impl<K: Clone + Eq + Hash, C: Clone + Ord> Queue<K, C> {
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            waiting: HashMap::new(),
            timers: BTreeMap::new(),
            routine: Turns::default(),
            news: Turns::default(),
            at_work: HashMap::new(),
            by_tenant: HashMap::new(),
            begun: 0,
            last_number: 0,
            is_held_up: false,
        }
    }

    /// A pass is asked for at that time or later. Of what is asked for already the earlier time and the more urgent lane
    /// hold.
    pub fn add(&mut self, key: K, lane: Lane, place: Place<C>, at: Instant) {
        if let Some(work) = self.at_work.get_mut(&key) {
            let (lane, at) = match &work.again {
                Some((known, _, earlier)) => (lane.max(*known), at.min(*earlier)),
                None => (lane, at),
            };
            work.again = Some((lane, place, at));
            return;
        }
        let (lane, at) = match self.waiting.get(&key) {
            Some(known) if known.lane >= lane && known.at <= at => return,
            Some(known) => {
                self.timers.remove(&(known.at, known.number));
                (lane.max(known.lane), at.min(known.at))
            }
            None => (lane, at),
        };
        self.last_number += 1;
        let number = self.last_number;
        self.timers.insert((at, number), key.clone());
        self.waiting.insert(key, Waiting { lane, place, at, number });
    }

    /// Whose pass is to begin now, if anybody's, and why it was asked for: it is at work then. A connection that does not
    /// admit a pass is passed over.
    pub fn next(&mut self, now: Instant, admits: impl Fn(&C) -> bool) -> Option<(K, Lane)> {
        self.ripen(now);
        self.is_held_up = false;
        let free = self.workers.checked_sub(self.at_work.len()).filter(|free| *free > 0)?;
        let (waiting, by_tenant) = (&mut self.waiting, &mut self.by_tenant);
        // Asked once, however many tenants use it.
        let mut admitted: BTreeMap<C, bool> = BTreeMap::new();
        let mut is_admitted = |connection: &C| match admitted.get(connection) {
            Some(known) => *known,
            None => *admitted.entry(connection.clone()).or_insert_with(|| admits(connection)),
        };
        let mut turn =
            |lines: &mut Lines<K, C>| {
                lines.pick(|tenant, connections| {
                    if by_tenant.get(tenant).is_some_and(|passes| *passes >= SHARE * free) {
                        return None;
                    }
                    connections.pick(|connection, kinds| {
                        if is_admitted(connection) { kinds.pick(|_, line| line.take(waiting)) } else { None }
                    })
                })
            };
        let found = if self.begun % ROUTINE_EVERY == ROUTINE_EVERY - 1 {
            turn(&mut self.routine).or_else(|| turn(&mut self.news))
        } else {
            turn(&mut self.news).or_else(|| turn(&mut self.routine))
        };
        self.is_held_up = admitted.into_values().any(|admitted| !admitted);
        let (key, Waiting { lane, place, .. }) = found?;
        self.begun = self.begun.wrapping_add(1);
        *self.by_tenant.entry(Arc::clone(&place.tenant)).or_default() += 1;
        self.at_work.insert(key.clone(), AtWork { tenant: place.tenant, again: None });
        Some((key, lane))
    }

    /// A pass is over.
    pub fn done(&mut self, key: &K) {
        let Some(work) = self.at_work.remove(key) else { return };
        if let Some(passes) = self.by_tenant.get_mut(&work.tenant) {
            *passes -= 1;
            if *passes == 0 {
                self.by_tenant.remove(&work.tenant);
            }
        }
        if let Some((lane, place, at)) = work.again {
            self.add(key.clone(), lane, place, at);
        }
    }

    /// When the next one's time comes that does not wait for anything else.
    pub fn wakes(&self) -> Option<Instant> {
        self.timers.keys().next().map(|(at, _)| *at)
    }

    /// Somebody's pass did not begin because the connection did not admit it. Who waits for a worker is not meant: that
    /// ends with a pass.
    pub fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// How many passes are due that are no routine and have not begun, and since when the first of them is.
    pub fn due(&self, now: Instant) -> (usize, Option<Instant>) {
        let waiting = self.waiting.values().map(|waiting| (waiting.lane, waiting.at));
        let again = self.at_work.values().filter_map(|work| work.again.as_ref().map(|(lane, _, at)| (*lane, *at)));
        let due = waiting.chain(again).filter(|(lane, at)| *lane > Lane::Routine && *at <= now).map(|(_, at)| at);
        due.fold((0, None), |(count, first), at| (count + 1, Some(first.map_or(at, |first: Instant| first.min(at)))))
    }

    /// Those whose time has come get in line.
    fn ripen(&mut self, now: Instant) {
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, number), key) = first.remove_entry();
            let Some(Waiting { lane, place, .. }) = self.waiting.get(&key) else { continue };
            let is_news = *lane >= Lane::Again;
            let lines = if is_news { &mut self.news } else { &mut self.routine };
            let line: &mut Line<K> = lines.of(&place.tenant).of(&place.connection).of(&Kind::of(*lane, place));
            line.ends_in_turns = *lane == Lane::News;
            line.queue.push_back((number, key));
        }
    }
}

/// Who is looked at in turns, by name.
struct Turns<N, V> {
    by_name: BTreeMap<N, V>,
    /// Whose turn it was.
    last: Option<N>,
}

impl<N, V> Default for Turns<N, V> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), last: None }
    }
}

impl<N: Clone + Ord, V: Default + Emptied> Turns<N, V> {
    fn of(&mut self, name: &N) -> &mut V {
        self.by_name.entry(name.clone()).or_default()
    }

    /// The first that has something, from the one after whoever had something last. Who has nothing left goes.
    fn pick<R>(&mut self, mut look: impl FnMut(&N, &mut V) -> Option<R>) -> Option<R> {
        let last = self.last.take();
        let found = match &last {
            None => self.pick_of((Unbounded, Unbounded), &mut look),
            Some(last) => self
                .pick_of((Excluded(last), Unbounded), &mut look)
                .or_else(|| self.pick_of((Unbounded, Included(last)), &mut look)),
        };
        if found.is_none() {
            self.last = last;
        }
        found
    }

    /// The first of these that has something: its turn it was then.
    fn pick_of<R>(
        &mut self,
        these: (Bound<&N>, Bound<&N>),
        look: &mut impl FnMut(&N, &mut V) -> Option<R>,
    ) -> Option<R> {
        let mut emptied = Vec::new();
        let found = self.by_name.range_mut::<N, _>(these).find_map(|(name, value)| {
            let found = look(name, value);
            if value.is_empty() {
                emptied.push(name.clone());
            }
            if found.is_some() {
                self.last = Some(name.clone());
            }
            found
        });
        for name in emptied {
            self.by_name.remove(&name);
        }
        found
    }
}

trait Emptied {
    fn is_empty(&self) -> bool;
}

impl<N, V> Emptied for Turns<N, V> {
    fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl<K> Emptied for Line<K> {
    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Those of one tenant, one connection and one kind.
struct Line<K> {
    queue: VecDeque<(u64, K)>,
    ends_in_turns: bool,
    last_from_back: bool,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), ends_in_turns: false, last_from_back: false }
    }
}

impl<K: Eq + Hash> Line<K> {
    fn take<C>(&mut self, waiting: &mut HashMap<K, Waiting<C>>) -> Option<(K, Waiting<C>)> {
        let from_back = self.ends_in_turns && !self.last_from_back;
        loop {
            let (number, key) = if from_back { self.queue.pop_back() } else { self.queue.pop_front() }?;
            if waiting.get(&key).is_some_and(|waiting| waiting.number == number) {
                self.last_from_back = from_back;
                return waiting.remove(&key).map(|waiting| (key, waiting));
            }
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
