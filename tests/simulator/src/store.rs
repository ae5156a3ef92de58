//! Every credential that ever was, with its whole history, and the vault.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::catalogue::{self, Integration, Kind};
use crate::marker::final_name;

/// What the vendor keeps of a credential and a PUT can change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name, as sent.
    pub name: String,
    /// Owner.
    pub user_id: Uuid,
    /// Organisational unit.
    pub unity_id: Uuid,
    /// Provider.
    pub integration_id: Uuid,
    /// Where in the vault its material is.
    pub secret_id: Uuid,
    /// The API's `status`.
    pub active: bool,
    /// The public stand-in for the key.
    pub virtual_key: String,
}

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The request with this sequence number in the journal.
    Request(u64),
    /// Somebody else: `insert`, `edit` or `remove`.
    Elsewhere,
}

/// One moment in the life of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Position among all changes of the simulator, from 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: Cause,
    /// The row from then on; `None`: removed.
    pub row: Option<Arc<Row>>,
}

/// A credential with its whole history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Identifier.
    pub id: Uuid,
    /// The current row; for a removed credential the last one.
    pub row: Arc<Row>,
    /// Somebody removed it.
    pub removed: bool,
    /// Every change, the oldest first; never empty.
    pub history: Vec<Change>,
}

impl Credential {
    /// Whether it is active now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.removed && self.row.active
    }

    /// Whether it was active at any moment.
    #[must_use]
    pub fn was_ever_active(&self) -> bool {
        self.history.iter().any(|change| change.row.as_ref().is_some_and(|row| row.active))
    }

    /// Name without the operator's marker.
    #[must_use]
    pub fn final_name(&self) -> &str {
        final_name(&self.row.name)
    }

    /// When it was created.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.history.first().map_or(Timestamp::UNIX_EPOCH, |change| change.at)
    }

    /// When it was last changed.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.history.last().map_or(Timestamp::UNIX_EPOCH, |change| change.at)
    }

    /// The row as it was just after the change of this number, and since when; `None`: not there then.
    pub(crate) fn as_of(&self, number: u64) -> Option<(&Arc<Row>, Timestamp)> {
        let until = self.history.partition_point(|change| change.number <= number);
        let last = self.history[..until].last()?;
        Some((last.row.as_ref()?, last.at))
    }
}

/// A credential made elsewhere, by somebody in the product's own pages.
#[derive(Clone, Debug)]
pub struct NewCredential {
    /// Name.
    pub name: String,
    /// Owner.
    pub user_id: Uuid,
    /// Organisational unit.
    pub unity_id: Uuid,
    /// Provider.
    pub integration_id: Uuid,
    /// Active or not.
    pub active: bool,
    /// The `credentials` array.
    pub material: Value,
}

/// First 12 hex digits of the SHA-256 of the material's JSON: enough to tell two apart, not enough to use one.
#[must_use]
pub fn fingerprint(material: &Value) -> String {
    let digest = Sha256::digest(material.to_string());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// How many are active now, and the most that ever were at once.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    now: usize,
    max: usize,
}

impl Gauge {
    fn add(&mut self) {
        self.now += 1;
        self.max = self.max.max(self.now);
    }
}

type Identity = (String, Uuid, Uuid);

/// The simulated vendor's data.
#[derive(Debug)]
pub(crate) struct Store {
    credentials: Vec<Credential>,
    by_id: HashMap<Uuid, usize>,
    /// The present ones by unity and kind, in the order they were created.
    by_place: HashMap<(Uuid, Kind), BTreeSet<usize>>,
    vault: HashMap<Uuid, Value>,
    integrations: Vec<Integration>,
    changes: u64,
    active_by_name: HashMap<String, Gauge>,
    active_by_identity: HashMap<Identity, Gauge>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            credentials: Vec::new(),
            by_id: HashMap::new(),
            by_place: HashMap::new(),
            vault: HashMap::new(),
            integrations: catalogue::built_in(),
            changes: 0,
            active_by_name: HashMap::new(),
            active_by_identity: HashMap::new(),
        }
    }

    pub(crate) fn integrations(&self) -> &[Integration] {
        &self.integrations
    }

    pub(crate) fn integration(&self, id: Uuid) -> Option<&Integration> {
        self.integrations.iter().find(|integration| integration.id == id)
    }

    /// Adds an integration or replaces the one of the same id.
    pub(crate) fn put_integration(&mut self, integration: Integration) {
        self.integrations.retain(|known| known.id != integration.id);
        self.integrations.push(integration);
    }

    /// Number of the last change.
    pub(crate) fn point(&self) -> u64 {
        self.changes
    }

    pub(crate) fn all(&self) -> &[Credential] {
        &self.credentials
    }

    pub(crate) fn get(&self, id: Uuid) -> Option<&Credential> {
        self.by_id.get(&id).map(|index| &self.credentials[*index])
    }

    pub(crate) fn present(&self, id: Uuid) -> Option<&Credential> {
        self.get(id).filter(|credential| !credential.removed)
    }

    /// The present credentials of a unity and kind, in the order they were created.
    pub(crate) fn listed(&self, unity_id: Uuid, kind: Kind) -> impl Iterator<Item = &Credential> {
        self.by_place.get(&(unity_id, kind)).into_iter().flatten().map(|index| &self.credentials[*index])
    }

    pub(crate) fn material(&self, secret_id: Uuid) -> Option<&Value> {
        self.vault.get(&secret_id)
    }

    pub(crate) fn set_material(&mut self, secret_id: Uuid, material: Value) {
        self.vault.insert(secret_id, material);
    }

    /// Makes a credential with an id, a secretId and a virtualKey of its own.
    pub(crate) fn insert(&mut self, new: NewCredential, by: Cause) -> Uuid {
        let (id, secret_id) = (Uuid::new_v4(), Uuid::new_v4());
        self.vault.insert(secret_id, new.material);
        let row = Arc::new(Row {
            name: new.name,
            user_id: new.user_id,
            unity_id: new.unity_id,
            integration_id: new.integration_id,
            secret_id,
            active: new.active,
            virtual_key: new_virtual_key(),
        });
        let index = self.credentials.len();
        self.enter(index, &row);
        let history = vec![self.change(by, Some(Arc::clone(&row)))];
        self.credentials.push(Credential { id, row, removed: false, history });
        self.by_id.insert(id, index);
        id
    }

    /// Changes a present credential; false where there is none.
    pub(crate) fn update(&mut self, id: Uuid, by: Cause, edit: impl FnOnce(&mut Row)) -> bool {
        let Some((index, old)) = self.locate(id) else {
            return false;
        };
        let mut row = Row::clone(&old);
        edit(&mut row);
        let row = Arc::new(row);
        self.leave(index, &old);
        self.enter(index, &row);
        let change = self.change(by, Some(Arc::clone(&row)));
        self.credentials[index].history.push(change);
        self.credentials[index].row = row;
        true
    }

    /// Removes a present credential; false where there is none.
    pub(crate) fn remove(&mut self, id: Uuid, by: Cause) -> bool {
        let Some((index, old)) = self.locate(id) else {
            return false;
        };
        self.leave(index, &old);
        let change = self.change(by, None);
        self.credentials[index].history.push(change);
        self.credentials[index].removed = true;
        true
    }

    /// The most credentials of this final name that were active at one moment.
    pub(crate) fn max_active(&self, name: &str) -> usize {
        self.active_by_name.get(name).map_or(0, |gauge| gauge.max)
    }

    /// The same for one unity and integration.
    pub(crate) fn max_active_in(&self, name: &str, unity_id: Uuid, integration_id: Uuid) -> usize {
        self.active_by_identity.get(&(name.to_owned(), unity_id, integration_id)).map_or(0, |gauge| gauge.max)
    }

    /// The same of these credentials, whatever they were called then.
    pub(crate) fn max_active_of(&self, these: impl Fn(&Credential) -> bool) -> usize {
        let these = self.credentials.iter().filter(|one| these(one));
        let mut changes: Vec<(&Change, Uuid)> =
            these.flat_map(|one| one.history.iter().map(|change| (change, one.id))).collect();
        changes.sort_unstable_by_key(|(change, _)| change.number);
        let (mut active, mut most) = (HashSet::new(), 0);
        for (change, id) in changes {
            if change.row.as_ref().is_some_and(|row| row.active) {
                active.insert(id);
            } else {
                active.remove(&id);
            }
            most = most.max(active.len());
        }
        most
    }

    /// Every (name, unity, integration) of which more than one was active at one moment, with how many.
    pub(crate) fn overlaps(&self) -> Vec<(Identity, usize)> {
        let overlapping = self.active_by_identity.iter().filter(|(_, gauge)| gauge.max > 1);
        overlapping.map(|(identity, gauge)| (identity.clone(), gauge.max)).collect()
    }

    fn locate(&self, id: Uuid) -> Option<(usize, Arc<Row>)> {
        let index = *self.by_id.get(&id)?;
        let credential = &self.credentials[index];
        (!credential.removed).then(|| (index, Arc::clone(&credential.row)))
    }

    fn change(&mut self, by: Cause, row: Option<Arc<Row>>) -> Change {
        self.changes += 1;
        Change { number: self.changes, at: Timestamp::now(), by, row }
    }

    fn enter(&mut self, index: usize, row: &Row) {
        if let Some(kind) = self.kind(row) {
            self.by_place.entry((row.unity_id, kind)).or_default().insert(index);
        }
        if row.active {
            let (name, identity) = identity(row);
            self.active_by_name.entry(name).or_default().add();
            self.active_by_identity.entry(identity).or_default().add();
        }
    }

    fn leave(&mut self, index: usize, row: &Row) {
        if let Some(kind) = self.kind(row)
            && let Some(place) = self.by_place.get_mut(&(row.unity_id, kind))
        {
            place.remove(&index);
        }
        if row.active {
            let (name, identity) = identity(row);
            self.active_by_name.entry(name).and_modify(|gauge| gauge.now -= 1);
            self.active_by_identity.entry(identity).and_modify(|gauge| gauge.now -= 1);
        }
    }

    pub(crate) fn kind(&self, row: &Row) -> Option<Kind> {
        self.integration(row.integration_id).map(|integration| integration.kind)
    }
}

fn identity(row: &Row) -> (String, Identity) {
    let name = final_name(&row.name).to_owned();
    (name.clone(), (name, row.unity_id, row.integration_id))
}

pub(crate) fn new_virtual_key() -> String {
    format!("vk-{}", &Uuid::new_v4().simple().to_string()[..20])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::{OPENAI, TWILIO};

    fn new(name: &str, unity_id: Uuid, active: bool) -> NewCredential {
        let material = json!([{"api_key": "k"}]);
        NewCredential {
            name: name.to_owned(),
            user_id: Uuid::nil(),
            unity_id,
            integration_id: OPENAI,
            active,
            material,
        }
    }

    #[test]
    fn overlap_is_the_most_ever_active_at_one_moment() {
        let mut store = Store::new();
        let (here, there) = (Uuid::new_v4(), Uuid::new_v4());
        let first = store.insert(new("a", here, true), Cause::Elsewhere);
        let marked = "a [toolzz-operator 00000000-ffffffff]";
        let second = store.insert(new(marked, here, false), Cause::Elsewhere);
        assert_eq!(store.max_active("a"), 1, "an inactive one does not count");
        store.update(first, Cause::Elsewhere, |row| row.active = false);
        store.update(second, Cause::Elsewhere, |row| row.active = true);
        assert_eq!(store.max_active("a"), 1, "one after the other is no overlap");
        store.update(second, Cause::Elsewhere, |row| row.name = "a".to_owned());
        assert_eq!(store.max_active("a"), 1, "taking the marker off is no overlap");
        store.insert(new("a", there, true), Cause::Elsewhere);
        assert_eq!((store.max_active("a"), store.max_active_in("a", here, OPENAI)), (2, 1));
        assert!(store.overlaps().is_empty());
        let third = store.insert(new(marked, here, true), Cause::Elsewhere);
        store.remove(third, Cause::Elsewhere);
        assert_eq!((store.max_active("a"), store.max_active_in("a", here, OPENAI)), (3, 2), "the past counts");
        assert_eq!(store.overlaps(), [(("a".to_owned(), here, OPENAI), 2)]);
        store.update(second, Cause::Elsewhere, |row| row.active = false);
        store.update(second, Cause::Elsewhere, |row| row.active = true);
        assert_eq!((store.max_active("a"), store.max_active_in("a", here, OPENAI)), (3, 2), "also after fewer");
        store.update(second, Cause::Elsewhere, |row| row.name = "b".to_owned());
        assert_eq!(store.max_active("b"), 1);
        assert_eq!(store.max_active_of(|_| true), 3, "under whatever names");
        assert_eq!(store.max_active_of(|one| [first, second].contains(&one.id)), 1);
        assert_eq!(store.max_active_of(|one| [third, second].contains(&one.id)), 2);
        assert_eq!(store.max_active_of(|_| false), 0);
    }

    #[test]
    fn a_credential_is_listed_where_it_is_now() {
        let mut store = Store::new();
        let (here, there) = (Uuid::new_v4(), Uuid::new_v4());
        let ids = [0, 1, 2].map(|_| store.insert(new("a", here, false), Cause::Elsewhere));
        let listed = |store: &Store, unity, kind| store.listed(unity, kind).map(|row| row.id).collect::<Vec<_>>();
        store.update(ids[0], Cause::Elsewhere, |row| row.unity_id = there);
        store.update(ids[1], Cause::Elsewhere, |row| row.integration_id = TWILIO);
        assert_eq!(listed(&store, here, Kind::Llm), [ids[2]]);
        assert_eq!(listed(&store, there, Kind::Llm), [ids[0]]);
        assert_eq!(listed(&store, here, Kind::Phone), [ids[1]]);
        store.update(ids[0], Cause::Elsewhere, |row| row.unity_id = here);
        assert_eq!(listed(&store, here, Kind::Llm), [ids[0], ids[2]], "in the order they were created");
        assert!(store.remove(ids[0], Cause::Elsewhere));
        assert!(!store.remove(ids[0], Cause::Elsewhere));
        assert_eq!(listed(&store, here, Kind::Llm), [ids[2]]);
        let gone = store.get(ids[0]).expect("removed ones are remembered");
        assert!(gone.removed && gone.as_of(3).is_some() && gone.as_of(0).is_none() && gone.as_of(99).is_none());
    }
}
