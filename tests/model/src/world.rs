//! The state of the world. Credentials, resources and operators are numbers; time is in ticks.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use toolzz_operator::{
    api::{CredentialId, CredentialType, Fields, SecretId, Seen, Tick, ToolzzCredentialStatus, marked_name},
    plan::{self, Ledger, Memory},
};

/// The name that every resource wants.
pub const NAME: &str = "name";
const UIDS: [&str; 2] = ["aaaaaaaa-0", "bbbbbbbb-1"];
const DIGESTS: [&str; 2] = ["kkkkkkkk:aaaaaaaa", "kkkkkkkk:bbbbbbbb"];

/// The uid of a resource.
pub fn uid(resource: usize) -> &'static str {
    UIDS[resource]
}

/// The digest of the material in a version of a Secret: A, B, A, …
pub fn digest(secret: u8) -> &'static str {
    DIGESTS[usize::from(secret % 2)]
}

/// The material of this digest.
pub fn material(digest: &str) -> u8 {
    u8::from(digest == DIGESTS[1])
}

/// The id of a credential, by its place among those created.
pub fn id(place: u8) -> CredentialId {
    CredentialId(format!("c{place:02}"))
}

/// The place of a credential.
pub fn place(id: &CredentialId) -> Option<u8> {
    id.0.strip_prefix('c')?.parse().ok()
}

/// A remote credential as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The resource and the material of the marker; `None`: the final name.
    pub marker: Option<(u8, u8)>,
    /// The credential with which the secret came that it uses.
    pub secret: u8,
    /// Agents may use it.
    pub active: bool,
}

impl Row {
    /// As the planner knows it. With the bug, markers do not say whose they are.
    pub fn fields(self, shared: bool) -> Fields {
        let name = self.marker.map_or_else(
            || NAME.to_owned(),
            |(owner, material)| {
                marked_name(NAME, &plan::tag(uid(if shared { 0 } else { owner.into() }), digest(material)))
            },
        );
        Fields {
            name,
            user_id: "u".to_owned(),
            unity_id: "n".to_owned(),
            integration_id: "i".to_owned(),
            secret_id: SecretId(format!("s{:02}", self.secret)),
            active: self.active,
        }
    }

    /// What a PUT asks for, of a row that is like this one.
    pub fn asked(self, fields: &Fields) -> Self {
        let secret = fields.secret_id.0.strip_prefix('s').and_then(|place| place.parse().ok()).unwrap_or(self.secret);
        // No PUT gives a marker; one that keeps it keeps this one.
        let marker = if fields.name == NAME { None } else { self.marker };
        Self { marker, secret, active: fields.active }
    }

    /// As it stands in an answer.
    pub fn as_of(self, place: u8) -> Seen {
        self.seen(place, 0, false)
    }

    /// A row and when it was seen so.
    pub fn seen(self, place: u8, at: u64, shared: bool) -> Seen {
        let fields = self.fields(shared);
        let virtual_key = Some(format!("vk{place}"));
        Seen { row: toolzz_operator::api::Row { id: id(place), fields, virtual_key, integration: None }, at: Tick(at) }
    }
}

/// On what ground a credential was last activated or deactivated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ground {
    /// The record as it was when it took effect.
    Current,
    /// A record that another operator had changed already.
    Stale,
    /// A record that was current when it was sent, by an operator that was killed since.
    Orphaned,
}

/// A remote credential, and what only the checker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credential {
    /// As it is shown.
    pub row: Row,
    /// The resource it was created for, or [`NOBODY`].
    pub owner: u8,
    /// What its own secret holds.
    pub material: u8,
    /// Why it is active, or inactive.
    pub ground: Ground,
    /// It was recorded as superseded, and is recorded no more.
    pub left: bool,
}

/// Who made what was there before any resource.
pub const NOBODY: u8 = u8::MAX;

/// A request to Toolzz that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Creates a credential.
    Post {
        /// The resource it is for.
        owner: u8,
        /// What its secret holds.
        material: u8,
    },
    /// Sets what a credential is.
    Put {
        /// The resource in whose name it is sent.
        of: u8,
        /// Which credential.
        place: u8,
        /// What it shall be.
        row: Row,
        /// The material that goes with it.
        material: Option<u8>,
        /// The version of the resource that it was decided on.
        version: u64,
    },
}

/// A request that was given up and may still take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What was sent.
    pub request: Request,
    /// The last moment it may take effect.
    pub until: u64,
    /// The operator that sent it, if that lives and remembers.
    pub sender: Option<u8>,
}

/// A version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// Counts the writes.
    pub number: u64,
    /// When it was written.
    pub since: u64,
    /// The resource does not exist any more.
    pub gone: bool,
    /// The operator is asked before it goes.
    pub finalizer: bool,
    /// It is marked for deletion.
    pub deleting: bool,
    /// The record.
    pub ledger: Option<Ledger>,
    /// The status.
    pub status: ToolzzCredentialStatus,
}

impl Hash for Version {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Number and time are told apart by whoever hashes the world: only how far they are from now counts.
        (self.gone, self.finalizer, self.deleting, &self.ledger).hash(hasher);
        serde_json::to_string(&self.status).unwrap_or_default().hash(hasher);
    }
}

/// A version, and a hash of what it says that is computed once.
#[derive(Clone, Debug)]
pub struct Shared(Arc<(u64, Version)>);

impl Shared {
    /// Hashes it.
    pub fn new(version: Version) -> Self {
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        Self(Arc::new((hasher.finish(), version)))
    }

    /// A hash of what it says.
    pub fn said(&self) -> u64 {
        self.0.0
    }
}

impl std::ops::Deref for Shared {
    type Target = Version;

    fn deref(&self) -> &Version {
        &self.0.1
    }
}

/// A resource as the API server has it.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Those versions that somebody may still see; the current one at the end.
    pub versions: Vec<Shared>,
    /// The version of its Secret.
    pub secret: u8,
    /// It was deleted by its user.
    pub deleted: bool,
}

impl Resource {
    /// As it is.
    pub fn current(&self) -> &Shared {
        &self.versions[self.versions.len() - 1]
    }

    /// As of a version that somebody still sees.
    pub fn at(&self, number: u64) -> &Shared {
        self.versions.iter().find(|version| version.number == number).unwrap_or_else(|| self.current())
    }
}

/// What is known of the material in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Known {
    /// Nothing yet.
    Unread,
    /// It is what was sent.
    Unchanged,
    /// This version of the Secret.
    Read(u8),
}

/// A pass that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The version of the resource it goes by.
    pub version: u64,
    /// When that was read.
    pub read_at: u64,
    /// What is known of the material.
    pub material: Known,
}

/// What an operator waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a POST: the credential.
    Posted(u8, Row),
    /// To a PUT.
    Put {
        /// Which credential.
        place: u8,
        /// As it was when the update took effect.
        row: Row,
        /// The material that went with it.
        material: Option<u8>,
        /// It is the resource's own, not a superseded one.
        own: bool,
        /// What was to be changed, as it was asked for.
        wish: Row,
        /// When it was sent.
        sent: u64,
    },
    /// A listing.
    Listed {
        /// When it began.
        began_at: u64,
        /// As it was then.
        rows: Vec<(u8, Row)>,
    },
}

/// One operator's work on one resource.
#[derive(Clone, Debug)]
pub struct Work {
    /// The newest version it knows: from the watch, or from the answer to its last write.
    pub seen: u64,
    /// The pass it is in.
    pub pass: Option<Pass>,
    /// What it waits for.
    pub answer: Option<Answer>,
    /// The memory, as long as the resource is there.
    pub memory: Memory,
    /// The version with the generation the memory is of was marked for deletion.
    pub deleting: bool,
    /// It rests until then, or (`None`) until something happens; awake otherwise.
    pub asleep: Option<Option<u64>>,
}

impl Work {
    /// Whether there is a reason to begin a pass.
    pub fn awake(&self, now: u64) -> bool {
        self.asleep.is_none_or(|until| until.is_some_and(|until| until <= now))
    }
}

/// One operator.
#[derive(Clone, Debug)]
pub struct Operator {
    /// By resource.
    pub works: Vec<Work>,
    /// When the last listing began.
    pub listed: Option<u64>,
    /// A listing has shown an inactive credential.
    pub shows_inactive: bool,
    /// What listings and answers showed, and when.
    pub rows: BTreeMap<u8, (Row, u64)>,
}

impl Operator {
    /// One that begins now, and has listed these resources.
    pub fn begin(resources: &[Resource], now: u64) -> Self {
        let work = |resource: &Resource| Work {
            seen: resource.current().number,
            pass: None,
            answer: None,
            memory: Memory { first_seen: Tick(now), ..Memory::default() },
            deleting: resource.current().deleting,
            asleep: None,
        };
        Self { works: resources.iter().map(work).collect(), listed: None, shows_inactive: false, rows: BTreeMap::new() }
    }
}

/// Everything.
#[derive(Clone, Debug)]
pub struct World {
    /// The moment.
    pub now: u64,
    /// As the API server has them.
    pub resources: Vec<Resource>,
    /// Those at work.
    pub operators: Vec<Operator>,
    /// At Toolzz, in the order they were created.
    pub credentials: Vec<Credential>,
    /// On their way, maybe.
    pub pending: Vec<Pending>,
    /// See [`crate::bounds::Bounds`].
    pub late: bool,
    /// How many are left of each.
    pub crashes: u8,
    /// See [`crate::bounds::Bounds`].
    pub losses: u8,
    /// See [`crate::bounds::Bounds`].
    pub rotations: u8,
    /// See [`crate::bounds::Bounds`].
    pub deletions: u8,
    /// See [`crate::bounds::Bounds`].
    pub ticks: u8,
}

/// States are told apart by their fingerprints alone, as the explorer does.
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl World {
    /// A new version of a resource.
    pub fn write(&mut self, resource: usize, change: impl FnOnce(&mut Version)) -> u64 {
        let now = self.now;
        let resource = &mut self.resources[resource];
        let mut version = Version::clone(resource.current());
        version.number += 1;
        version.since = now;
        change(&mut version);
        let number = version.number;
        resource.versions.push(Shared::new(version));
        number
    }

    /// Forgets versions that nobody goes by any more, and requests that can have no effect any more.
    pub fn tidy(&mut self) {
        let now = self.now;
        self.pending.retain(|pending| pending.until >= now);
        for (place, resource) in self.resources.iter_mut().enumerate() {
            let last = resource.current().number;
            let mut kept = vec![last];
            for work in self.operators.iter().map(|operator| &operator.works[place]) {
                // The first that is newer says for how long it has not been seen.
                kept.extend([work.seen, work.seen + 1]);
                kept.extend(work.pass.map(|pass| pass.version));
            }
            kept.extend(self.pending.iter().filter_map(|pending| match pending.request {
                Request::Put { of, version, .. } if usize::from(of) == place => Some(version),
                _ => None,
            }));
            resource.versions.retain(|version| kept.contains(&version.number));
        }
    }

    /// A request takes effect: what there is after it.
    pub fn commit(&mut self, request: &Request, ground: Ground, active: bool) -> (u8, Row) {
        match request {
            Request::Post { owner, material } => {
                let place = self.credentials.len() as u8;
                let row = Row { marker: Some((*owner, *material)), secret: place, active };
                self.credentials.push(Credential { row, owner: *owner, material: *material, ground, left: false });
                (place, row)
            }
            Request::Put { place, row, material, .. } => {
                if let Some(material) = material {
                    let secret = usize::from(row.secret);
                    self.credentials[secret].material = *material;
                }
                let credential = &mut self.credentials[usize::from(*place)];
                if row.active != credential.row.active {
                    credential.ground = ground;
                }
                credential.row = *row;
                (*place, *row)
            }
        }
    }
}

/// The type of every credential here.
pub const KIND: CredentialType = CredentialType::Llm;
