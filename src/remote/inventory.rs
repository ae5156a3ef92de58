//! What is known of the remote credentials, from listings and from the answers to own writes.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Connection, Listed, Outcome};
use crate::api::{CredentialId, ListingFacts, ListingKey, Row, Seen, Tick, marker_tag};

/// What a listing showed, for the one who judges it.
pub struct Reading<'a> {
    /// Which listing.
    pub key: &'a ListingKey,
    /// Every row of it could be read.
    pub complete: bool,
    rows: &'a HashMap<CredentialId, Seen>,
    expected: &'a HashMap<CredentialId, Option<Tick>>,
    by_tag: &'a HashMap<String, Vec<CredentialId>>,
}

impl Reading<'_> {
    /// Whether it shows this credential, or an answer since has.
    pub fn shows(&self, id: &CredentialId) -> bool {
        self.rows.contains_key(id)
    }

    /// The credentials that earlier listings or answers showed active lately, and nothing has shown inactive since.
    pub fn expected(&self) -> impl Iterator<Item = &CredentialId> {
        self.expected.keys()
    }

    /// The credentials whose name ends with any marker.
    pub fn marked(&self) -> impl Iterator<Item = &CredentialId> {
        self.by_tag.values().flatten()
    }
}

/// Losses that come one after another within this time are one loss. What is missing for longer is expected no more.
const LOSS_WINDOW: Duration = Duration::from_secs(600);

/// Judges every listing that is read, before anybody acts on it: true when it is not to be believed.
pub type Judge = Box<dyn Fn(&Reading<'_>) -> bool + Send + Sync>;

/// The credentials of a connection, by listing.
pub struct Inventory {
    shelves: Mutex<Shelves>,
    shows_inactive: AtomicBool,
    judge: Judge,
}

/// Every listing is believed.
impl Default for Inventory {
    fn default() -> Self {
        Self::new(Box::new(|_| false), Duration::from_secs(600))
    }
}

/// How many intervals a listing is kept that nobody asks for.
const KEPT_INTERVALS: u32 = 4;

/// The listings, but for those that nobody asks for any more.
struct Shelves {
    by_key: HashMap<ListingKey, Used>,
    /// How often who needs a listing asks for it.
    interval: Duration,
    /// The time in which somebody asked for any listing. The rest does not count: while the connection is refused,
    /// nobody asks for what is needed all the same.
    busy: Duration,
    last: Tick,
}

struct Used {
    shelf: Arc<Shelf>,
    /// In busy time.
    at: Duration,
}

/// One listing.
#[derive(Default)]
struct Shelf {
    /// Whoever reads the listing: one at a time. What it holds is how the last reading failed, if it did.
    flight: tokio::sync::Mutex<Option<Failed>>,
    known: Mutex<Known>,
}

/// A listing that could not be read. Who waited for it while it was tried has the same answer, not a try of his own.
struct Failed {
    began: Tick,
    ended: Tick,
    outcome: Outcome<()>,
}

#[derive(Default)]
struct Known {
    facts: Option<ListingFacts>,
    rows: HashMap<CredentialId, Seen>,
    /// What a listing must show, as it was shown active; since when it is not, if so.
    expected: HashMap<CredentialId, Option<Tick>>,
    by_name: HashMap<String, Vec<CredentialId>>,
    by_tag: HashMap<String, Vec<CredentialId>>,
    /// The tags of marked rows that could not be read.
    unread: HashSet<String>,
}

impl Inventory {
    /// Nothing is known yet.
    ///
    /// Who needs a listing looks at it at least once in an `interval`.
    pub fn new(judge: Judge, interval: Duration) -> Self {
        let shelves = Shelves { by_key: HashMap::new(), interval, busy: Duration::ZERO, last: Tick(0) };
        Self { shelves: Mutex::new(shelves), shows_inactive: AtomicBool::new(false), judge }
    }

    /// Makes sure of a listing that began strictly after a moment. Who asks at the same time shares one.
    pub async fn look(&self, connection: &Connection, key: &ListingKey, began_after: Tick) -> Outcome<()> {
        let clock = connection.clock();
        let (shelf, dropped) = self.shelves().used(key, clock.now());
        dropped.iter().for_each(|key| connection.dropped(key));
        let served = || shelf.known().facts.is_some_and(|facts| facts.began_at > began_after);
        if served() {
            return Outcome::Done(());
        }
        let asked = clock.now();
        clock.until_after(began_after).await;
        // Who waits for another's call is none of those that wait for the token bucket.
        let waiting = connection.waiting();
        let mut flight = shelf.flight.lock().await;
        drop(waiting);
        if served() {
            return Outcome::Done(());
        }
        if let Some(failed) = &*flight
            && failed.began > began_after
            && failed.ended >= asked
        {
            return failed.outcome.clone();
        }
        let began_at = clock.now();
        let outcome = connection.list(key).await.map(|listed| {
            if listed.rows.iter().any(|row| !row.fields.active) {
                self.shows_inactive.store(true, Ordering::Relaxed);
            }
            shelf.known().replace(key, listed, began_at, self.shows_inactive(), &self.judge);
        });
        let failed = !matches!(outcome, Outcome::Done(()));
        *flight = failed.then(|| Failed { began: began_at, ended: clock.now(), outcome: outcome.clone() });
        outcome
    }

    /// A credential as the answer to an own write showed it.
    pub fn learn(&self, key: &ListingKey, row: Row, at: Tick) {
        let shelf = self.shelves().shelf(key);
        shelf.known().learn(key, Seen { row, at });
    }

    /// A credential does not exist.
    pub fn forget(&self, key: &ListingKey, id: &CredentialId) {
        self.read(key, |known| known.take(id));
    }

    /// Whether a listing of this connection ever showed an inactive credential.
    pub fn shows_inactive(&self) -> bool {
        self.shows_inactive.load(Ordering::Relaxed)
    }

    /// The last listing as a whole.
    pub fn facts(&self, key: &ListingKey) -> Option<ListingFacts> {
        self.read(key, |known| known.facts)
    }

    /// One credential.
    pub fn row(&self, key: &ListingKey, id: &CredentialId) -> Option<Seen> {
        self.read(key, |known| known.rows.get(id).cloned())
    }

    /// The credentials whose name ends with the marker of this tag.
    pub fn tagged(&self, key: &ListingKey, tag: &str) -> Vec<Seen> {
        self.read(key, |known| known.pick(known.by_tag.get(tag)))
    }

    /// Whether a row that could not be read bears the marker of this tag.
    pub fn unread(&self, key: &ListingKey, tag: &str) -> bool {
        self.read(key, |known| known.unread.contains(tag))
    }

    /// The credentials of this very name.
    pub fn named(&self, key: &ListingKey, name: &str) -> Vec<Seen> {
        self.read(key, |known| known.pick(known.by_name.get(name)))
    }

    /// Of a listing that nobody looked at, nothing is known; asking what is known is not looking.
    fn read<T: Default>(&self, key: &ListingKey, read: impl FnOnce(&mut Known) -> T) -> T {
        let shelf = self.shelves().by_key.get(key).map(|used| Arc::clone(&used.shelf));
        shelf.map(|shelf| read(&mut shelf.known())).unwrap_or_default()
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn shelf(&mut self, key: &ListingKey) -> Arc<Shelf> {
        let at = self.busy;
        let used = self.by_key.entry(key.clone()).or_insert_with(|| Used { shelf: Arc::default(), at });
        used.at = at;
        Arc::clone(&used.shelf)
    }

    /// A listing that is looked at now; and those that were dropped, as nobody has looked at them for long.
    fn used(&mut self, key: &ListingKey, now: Tick) -> (Arc<Shelf>, Vec<ListingKey>) {
        self.busy += (now - self.last).min(self.interval);
        self.last = self.last.max(now);
        let shelf = self.shelf(key);
        let oldest = self.busy.saturating_sub(self.interval * KEPT_INTERVALS);
        // Who is at a reading holds the shelf.
        let idle = |used: &Used| used.at < oldest && Arc::strong_count(&used.shelf) == 1;
        let dropped = self.by_key.extract_if(|_, used| idle(used)).map(|(key, _)| key).collect();
        (shelf, dropped)
    }
}

impl Shelf {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// A listing takes the place of what was known, but for what it may have missed.
    fn replace(&mut self, key: &ListingKey, listed: Listed, began_at: Tick, shows_inactive: bool, judge: &Judge) {
        let mut before = std::mem::take(self);
        self.expected = std::mem::take(&mut before.expected);
        let complete = listed.complete;
        self.unread = listed.unread.into_iter().collect();
        for row in listed.rows {
            if row.fields.active {
                self.expected.insert(row.id.clone(), None);
            }
            self.put(Seen { row, at: began_at });
        }
        for (id, seen) in before.rows {
            if seen.outlasts(began_at, self.rows.contains_key(&id), shows_inactive) {
                self.put(seen);
            }
        }
        for (id, missing_since) in &mut self.expected {
            if !self.rows.contains_key(id) {
                missing_since.get_or_insert(began_at);
            }
        }
        let (rows, expected, by_tag) = (&self.rows, &self.expected, &self.by_tag);
        let suspect = judge(&Reading { key, complete, rows, expected, by_tag });
        if complete && !suspect {
            self.expected.retain(|_, missing_since| missing_since.is_none_or(|since| began_at - since < LOSS_WINDOW));
        }
        self.facts = Some(ListingFacts { began_at, complete, suspect });
    }

    /// What an answer shows is expected in the listing only if the answer says that it stands there: what the resource
    /// says (`spec.type`) may be wrong, and would put the listing of others in doubt.
    fn learn(&mut self, key: &ListingKey, seen: Seen) {
        let row = &seen.row;
        let kind = row.integration.as_ref().and_then(|integration| integration.kind);
        if row.fields.active && kind == Some(key.kind) && row.fields.unity_id.eq_ignore_ascii_case(&key.unity_id) {
            self.expected.insert(row.id.clone(), None);
        }
        self.put(seen);
    }

    fn put(&mut self, seen: Seen) {
        let id = seen.row.id.clone();
        self.take(&id);
        let name = &seen.row.fields.name;
        if let Some(tag) = marker_tag(name) {
            self.by_tag.entry(tag.to_owned()).or_default().push(id.clone());
        }
        self.by_name.entry(name.clone()).or_default().push(id.clone());
        if !seen.row.fields.active {
            self.expected.remove(&id);
        }
        self.rows.insert(id, seen);
    }

    fn take(&mut self, id: &CredentialId) {
        let Some(seen) = self.rows.remove(id) else { return };
        let name = seen.row.fields.name;
        if let Some(tag) = marker_tag(&name) {
            remove(&mut self.by_tag, tag, id);
        }
        remove(&mut self.by_name, &name, id);
    }

    fn pick(&self, ids: Option<&Vec<CredentialId>>) -> Vec<Seen> {
        ids.into_iter().flatten().filter_map(|id| self.rows.get(id).cloned()).collect()
    }
}

fn remove(index: &mut HashMap<String, Vec<CredentialId>>, key: &str, id: &CredentialId) {
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|other| other != id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{CredentialType, Fields, Integration, marked_name};

    fn row(id: &str, name: &str, active: bool) -> Row {
        let text = String::new;
        let fields = Fields {
            name: name.into(),
            user_id: text(),
            unity_id: text(),
            integration_id: text(),
            secret_id: "s".into(),
            active,
        };
        Row { id: id.into(), fields, virtual_key: None, integration: None }
    }

    fn key() -> ListingKey {
        ListingKey { unity_id: "u".into(), kind: CredentialType::Llm }
    }

    fn listed(rows: Vec<Row>) -> Listed {
        Listed { rows, complete: true, unread: Vec::new() }
    }

    fn believed() -> Judge {
        Box::new(|_| false)
    }

    #[test]
    fn a_listing_is_judged_by_what_it_shows_and_what_is_known_since() {
        let judge: Judge = Box::new(|reading| {
            assert_eq!(reading.marked().count(), 1);
            !(reading.shows(&"learnt".into()) && reading.shows(&"listed".into())) || reading.shows(&"old".into())
        });
        let mut known = Known::default();
        known.put(Seen { row: row("learnt", &marked_name("n", "0f8fad5b-12345678"), false), at: Tick(11) });
        known.put(Seen { row: row("old", "n", true), at: Tick(9) });
        let listing = listed(vec![row("listed", "n", true)]);
        known.replace(&key(), listing, Tick(10), true, &judge);
        assert!(known.facts.is_some_and(|facts| !facts.suspect));
        let listing = listed(vec![row("learnt", &marked_name("n", "0f8fad5b-12345678"), false)]);
        known.replace(&key(), listing, Tick(20), true, &judge);
        assert!(known.facts.is_some_and(|facts| facts.suspect));
    }

    #[test]
    fn what_was_shown_active_is_expected_until_it_is_shown_inactive_or_long_gone() {
        let believed_if_none_is_missing: Judge = Box::new(|reading| {
            let missing = reading.expected().filter(|id| !reading.shows(id)).count();
            missing > 1
        });
        let mut known = Known::default();
        let list = |known: &mut Known, at: u64, rows: &[(&str, bool)]| {
            let rows = rows.iter().map(|(id, active)| row(id, "n", *active)).collect();
            known.replace(&key(), listed(rows), Tick(at), true, &believed_if_none_is_missing);
            let mut expected: Vec<String> = known.expected.keys().map(ToString::to_string).collect();
            expected.sort();
            (expected.join(""), known.facts.is_some_and(|facts| facts.suspect))
        };
        assert_eq!(list(&mut known, 10, &[("a", true), ("b", true), ("c", false)]), ("ab".into(), false));
        assert_eq!(list(&mut known, 20, &[("b", true)]), ("ab".into(), false), "one is missing");
        assert_eq!(list(&mut known, 30, &[]), ("ab".into(), true), "two are, one after another");
        assert_eq!(list(&mut known, 40, &[("b", true)]), ("ab".into(), false));
        assert_eq!(list(&mut known, 600_019, &[("b", true)]), ("ab".into(), false));
        assert_eq!(list(&mut known, 600_020, &[("b", true)]), ("b".into(), false), "long gone");
        assert_eq!(list(&mut known, 600_030, &[("b", false)]), (String::new(), false));
        let answer = |id: &str, unity: &str, kind: Option<CredentialType>| {
            let text = String::new;
            let mut row = row(id, "n", true);
            row.fields.unity_id = unity.to_owned();
            row.integration =
                Some(Integration { id: text(), name: text(), slug: text(), kind, form: Vec::new() }.into());
            Seen { row, at: Tick(600_040) }
        };
        known.learn(&key(), answer("d", "U", Some(CredentialType::Llm)));
        // What only the resource says counts for nothing.
        known.learn(&key(), answer("e", "u", Some(CredentialType::Voice)));
        known.learn(&key(), answer("f", "u", None));
        known.learn(&key(), answer("g", "other", Some(CredentialType::Llm)));
        assert_eq!(list(&mut known, 600_050, &[]).0, "d", "an answer counts as well");
    }

    #[test]
    fn a_marker_that_could_not_be_read_with_its_row_is_known_until_the_next_listing() {
        let mut known = Known::default();
        let unread = Listed { complete: false, unread: vec!["0f8fad5b-12345678".to_owned()], ..listed(Vec::new()) };
        known.replace(&key(), unread, Tick(10), true, &believed());
        assert!(known.unread.contains("0f8fad5b-12345678"));
        known.replace(&key(), listed(Vec::new()), Tick(20), true, &believed());
        assert!(known.unread.is_empty());
    }

    fn ids(known: &Known) -> Vec<String> {
        let mut ids: Vec<String> = known.rows.keys().map(ToString::to_string).collect();
        ids.sort();
        ids
    }

    #[test]
    fn a_listing_replaces_only_what_it_must_have_seen() {
        // (the row, when it was learnt, listings are known to show inactive ones, it stays)
        for (active, at, shows_inactive, stays) in [
            (true, 9, true, false),
            (true, 10, true, true),
            (true, 11, true, true),
            (false, 9, true, false),
            (false, 9, false, true),
            (true, 9, false, false),
        ] {
            let mut known = Known::default();
            known.put(Seen { row: row("own", "n", active), at: Tick(at) });
            let listing = listed(vec![row("other", "n", true)]);
            known.replace(&key(), listing, Tick(10), shows_inactive, &believed());
            assert_eq!(ids(&known).contains(&"own".to_owned()), stays, "{active} {at} {shows_inactive}");
            assert_eq!(known.by_name["n"].len(), if stays { 2 } else { 1 });
        }
    }

    #[test]
    fn what_nobody_looks_at_any_more_is_dropped_unless_nobody_looks_at_anything() {
        let inventory = Inventory::new(believed(), Duration::from_secs(10));
        let keys = [CredentialType::Llm, CredentialType::Voice].map(|kind| ListingKey { kind, ..key() });
        let look = |key: &ListingKey, second: u64| inventory.shelves().used(key, Tick(second * 1000)).1;
        let held = inventory.shelves().used(&keys[1], Tick(1000)).0;
        for second in (10..=50).step_by(8) {
            assert_eq!(look(&keys[0], second), [], "somebody reads it still");
        }
        drop(held);
        assert_eq!(look(&keys[0], 51), [keys[1].clone()]);
        assert_eq!(look(&keys[1], 52), []);
        // A day in which the connection was refused counts as one interval.
        for second in [90_000, 90_010, 90_020, 90_030] {
            assert_eq!(look(&keys[0], second), []);
        }
        assert_eq!(look(&keys[0], 90_031), [keys[1].clone()]);
        // Asking what is known of one is not looking at it.
        assert!(inventory.facts(&keys[1]).is_none() && inventory.shelves().by_key.len() == 1);
    }

    #[test]
    fn a_listing_does_not_undo_a_later_answer() {
        let mut known = Known::default();
        known.put(Seen { row: row("c", "new", true), at: Tick(11) });
        let listing = listed(vec![row("c", "old", false)]);
        known.replace(&key(), listing, Tick(10), true, &believed());
        assert_eq!(known.rows[&"c".into()].row.fields.name, "new");
        assert!(!known.by_name.contains_key("old"));
    }

    #[test]
    fn a_renamed_credential_is_found_under_its_new_name_only() {
        let inventory = Inventory::default();
        let key = key();
        let tag = "0f8fad5b-12345678";
        inventory.learn(&key, row("c", &marked_name("n", tag), false), Tick(1));
        assert_eq!((inventory.tagged(&key, tag).len(), inventory.named(&key, "n").len()), (1, 0));
        inventory.learn(&key, row("c", "n", true), Tick(2));
        assert_eq!((inventory.tagged(&key, tag).len(), inventory.named(&key, "n").len()), (0, 1));
        inventory.forget(&key, &"c".into());
        assert!(inventory.named(&key, "n").is_empty() && inventory.row(&key, &"c".into()).is_none());
    }
}
