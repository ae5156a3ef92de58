//! What an operator does around the planner: the model's counterpart of `controller::{pass, effects, writes}`. Every
//! decision is the production planner's.

use std::time::Duration;

use jiff::Timestamp;
use toolzz_operator::{
    api::{CredentialId, DeletionPolicy, ListingFacts, Reason, RotationStrategy, SecretVersion, Seen, Tick, condition},
    plan::{self, Answered, Desired, Ledger, Material, Memory, Put, Recorded, Settings, Sight, Step, Trouble, View},
};

use crate::{
    bounds::{Bounds, SETTLE},
    bugs::Bug,
    world::{
        Answer, Ground, KIND, Known, NAME, Pass, Pending, Request, Row, Version, World, digest, id, material, place,
        uid,
    },
};

/// Far beyond what a run lasts: nothing is compared again just because time has passed, but for the end of a run.
pub const RESYNC: u64 = 1000;

/// What an operator is about to do for a resource.
pub struct Decision {
    /// The pass it is in.
    pub pass: Pass,
    /// What it remembers by now.
    pub memory: Memory,
    /// What the planner was shown.
    view: View,
    /// What the planner says.
    pub step: Step,
}

impl World {
    /// What an operator does next for a resource; `None` while it waits for an answer, or for something to happen.
    pub fn decide(&self, bounds: &Bounds, operator: usize, resource: usize) -> Option<Decision> {
        let work = &self.operators[operator].works[resource];
        if work.answer.is_some() || work.pass.is_none() && !work.awake(self.now) {
            return None;
        }
        let mut pass = work.pass.unwrap_or_else(|| self.begin(operator, resource));
        loop {
            let (view, step) = self.ask(bounds, operator, resource, pass)?;
            match step {
                // It reads the Secret as it is, and goes on: nobody else can see that.
                Step::ReadMaterial => pass.material = Known::Read(self.resources[resource].secret),
                // No write to Toolzz rests on what was read long ago.
                Step::Post(_) | Step::Put(_) if pass.read_at + bounds.lag < self.now => {
                    self.read_again(resource, &mut pass)
                }
                step => return Some(Decision { pass, memory: view.memory.clone(), view, step }),
            }
        }
    }

    fn begin(&self, operator: usize, resource: usize) -> Pass {
        let seen = self.operators[operator].works[resource].seen;
        let object = self.resources[resource].at(seen);
        let same = object.status.material.as_ref().is_some_and(|sent| {
            object.ledger.as_ref().is_some_and(|ledger| ledger.digest == sent.digest)
                && Some(sent.observed_generation) == generation(object)
                && sent.sources == [self.secret_version(resource, self.resources[resource].secret)]
        });
        let material = if same { Known::Unchanged } else { Known::Unread };
        Pass { version: seen, read_at: self.now, material }
    }

    /// Goes on with the resource as it is.
    fn read_again(&self, resource: usize, pass: &mut Pass) {
        let current = self.resources[resource].current().number;
        let material = if pass.version == current { pass.material } else { Known::Unread };
        *pass = Pass { version: current, read_at: self.now, material };
    }

    fn secret_version(&self, resource: usize, secret: u8) -> SecretVersion {
        SecretVersion { name: "secret".to_owned(), uid: uid(resource).to_owned(), resource_version: secret.to_string() }
    }

    /// The planner's word; `None`: the resource is gone.
    fn ask(&self, bounds: &Bounds, operator: usize, resource: usize, pass: Pass) -> Option<(View, Step)> {
        let this = &self.operators[operator];
        let object = self.resources[resource].at(pass.version);
        if object.gone {
            return None;
        }
        let desired = desired(bounds, resource, object);
        let material = match pass.material {
            Known::Unread => Material::Unread,
            Known::Unchanged => Material::Unchanged,
            Known::Read(secret) => Material::Read {
                digest: digest(secret).to_owned(),
                sources: vec![self.secret_version(resource, secret)],
            },
        };
        let shared = bounds.bug == Some(Bug::SharedMarker);
        let seen = |place: u8, (row, at): (Row, u64)| row.seen(place, at, shared);
        let row = |id: &CredentialId| place(id).and_then(|place| Some(seen(place, *this.rows.get(&place)?)));
        let held = |id: &CredentialId| self.holders(operator, resource, id).next().is_some();
        let ledger = object.ledger.as_ref();
        let marked: Vec<Seen> = match pass.material {
            Known::Read(secret) if bounds.bug != Some(Bug::IgnoreMarker) => {
                let own = |row: &Row| {
                    row.marker.is_some_and(|(owner, of)| (shared || usize::from(owner) == resource) && of == secret % 2)
                };
                this.rows.iter().filter(|(_, (row, _))| own(row)).map(|(place, known)| seen(*place, *known)).collect()
            }
            _ => Vec::new(),
        };
        let namesakes = this.rows.iter().filter(|(_, (row, _))| ledger.is_none() && row.marker.is_none());
        let sight = Sight {
            listing: this.listed.map(|began_at| ListingFacts {
                began_at: Tick(if bounds.bug == Some(Bug::NoLook) { self.now + 1 } else { began_at }),
                complete: true,
                suspect: false,
            }),
            shows_inactive: this.shows_inactive,
            recorded: ledger.and_then(|ledger| row(&ledger.id)),
            retiring: ledger.iter().flat_map(|ledger| &ledger.retiring).filter_map(|old| row(&old.id)).collect(),
            marked,
            marked_unread: false,
            namesakes: namesakes
                .map(|(place, known)| seen(*place, *known))
                .filter(|seen| !held(&seen.row.id))
                .collect(),
            external: None,
            external_holder: None,
            claims_complete: true,
            contested: ledger.and_then(|ledger| {
                let mut before = self.holders(operator, resource, &ledger.id);
                before.find(|(other, theirs)| *other < resource && theirs.id == ledger.id).map(|_| "another".to_owned())
            }),
        };
        let mut memory = this.works[resource].memory.clone();
        if this.works[resource].deleting != object.deleting {
            memory.trouble = None;
        }
        memory.trouble.take_if(|trouble| trouble.retry_at.is_some_and(|at| at.0 <= self.now));
        memory.observe(&sight);
        let mut view = View {
            finalizer: object.finalizer,
            recorded: ledger.map_or(Recorded::Nothing, |ledger| Recorded::Own(ledger.clone())),
            ledger_text: ledger.map(|ledger| format!("{ledger:?}")),
            status: object.status.clone(),
            material,
            sight,
            memory,
            target: None,
            wall: Timestamp::UNIX_EPOCH,
        };
        let mut settings = Settings {
            resync_interval: Duration::from_millis(RESYNC),
            settle_period: Duration::from_millis(SETTLE),
            deletion_deadline: Duration::from_millis(100 * RESYNC),
        };
        plant(bounds, &mut view, &mut settings);
        let step = plan::next(&desired, &view, &settings, Tick(self.now));
        Some((view, step))
    }

    /// The other resources whose records name a credential, as far as an operator knows.
    fn holders(&self, operator: usize, resource: usize, id: &CredentialId) -> impl Iterator<Item = (usize, &Ledger)> {
        let works = self.operators[operator].works.iter().enumerate().filter(move |(other, _)| *other != resource);
        works.filter_map(move |(other, work)| {
            let version = self.resources[other].at(work.seen);
            let ledger = version.ledger.as_ref().filter(|_| !version.gone)?;
            ledger.named().any(|named| named == id).then_some((other, ledger))
        })
    }

    /// Does what was decided. A request to Toolzz takes effect and is answered later; or else (`lost`) it is given up,
    /// and may take effect later.
    pub fn perform(&mut self, bounds: &Bounds, operator: usize, resource: usize, decision: Decision, lost: bool) {
        let Decision { pass, memory, view, step } = decision;
        let deleting = self.resources[resource].at(pass.version).deleting;
        let work = &mut self.operators[operator].works[resource];
        (work.pass, work.memory, work.deleting) = (Some(pass), memory, deleting);
        match step {
            Step::Rest(wake) => (work.pass, work.asleep) = (None, Some(wake.map(|at| at.0))),
            Step::Look { began_after, .. } => {
                self.now = self.now.max(began_after.0 + 1);
                let shown = self.credentials.iter().enumerate().filter(|(_, one)| one.row.active || !bounds.hides);
                let rows = shown.map(|(place, one)| (place as u8, one.row)).collect();
                self.operators[operator].works[resource].answer = Some(Answer::Listed { began_at: self.now, rows });
            }
            Step::Post(post) => {
                work.memory.posting();
                let request = Request::Post { owner: resource as u8, material: material(&post.digest) };
                if lost {
                    self.give_up(operator, request);
                    if bounds.bug != Some(Bug::ForgetLostPost) {
                        let now = Tick(self.now);
                        self.operators[operator].works[resource].memory.post_lost(now);
                    }
                    return;
                }
                let (place, row) = self.commit(&request, Ground::Current, bounds.bug == Some(Bug::PostActive));
                self.operators[operator].works[resource].answer = Some(Answer::Posted(place, row));
            }
            Step::Put(_) if deleting && bounds.bug == Some(Bug::ReleaseEarly) => {
                self.patch(bounds, operator, resource, |version| (version.finalizer, version.gone) = (false, true));
            }
            Step::Put(put) => {
                let Some(place) = place(&put.id) else { return };
                let before = self.credentials[usize::from(place)].row;
                let wish = before.asked(&put.fields);
                let material = put.material.as_deref().map(material);
                let of = resource as u8;
                let request = Request::Put { of, place, row: wish, material, version: pass.version };
                if lost {
                    self.give_up(operator, request);
                    if bounds.bug != Some(Bug::ForgetLatePut) {
                        let memory = &mut self.operators[operator].works[resource].memory;
                        memory.put_lost(Tick(self.now), Duration::from_millis(SETTLE));
                    }
                    return self.trouble(operator, resource);
                }
                let ground = self.ground(&request, true);
                let (place, row) = self.commit(&request, ground, false);
                let own = put.id_is_own(&view);
                let answer = Answer::Put { place, row, material, own, wish, sent: self.now };
                self.operators[operator].works[resource].answer = Some(answer);
            }
            Step::Record(ledger) => self.record(bounds, operator, resource, ledger),
            Step::Publish(publication) => {
                work.memory.publishing();
                let ready = condition(&publication.status.conditions, "Ready").is_some_and(|one| one.status == "True");
                if self.patch(bounds, operator, resource, |version| version.status = publication.status) && ready {
                    self.operators[operator].works[resource].memory.corrected.clear();
                }
            }
            Step::Release { .. } => {
                self.patch(bounds, operator, resource, |version| (version.finalizer, version.gone) = (false, true));
            }
            // There are no targets here, and what is read is read at once.
            Step::ReadMaterial | Step::WriteTarget { .. } | Step::DropTarget(_) => {}
        }
    }

    /// What a request that takes effect now rests on.
    pub fn ground(&self, request: &Request, sender_lives: bool) -> Ground {
        let Request::Put { of, version, .. } = request else { return Ground::Current };
        let resource = &self.resources[usize::from(*of)];
        let (then, now) = (resource.at(*version), resource.current());
        let same = then.ledger == now.ledger && then.deleting == now.deleting && then.gone == now.gone;
        match sender_lives {
            // Who sent it knows of it.
            true if same || self.operators.len() == 1 => Ground::Current,
            true => Ground::Stale,
            false => Ground::Orphaned,
        }
    }

    fn give_up(&mut self, operator: usize, request: Request) {
        let sender = Some(operator as u8);
        self.pending.push(Pending { request, until: self.now + SETTLE, sender });
    }

    fn record(&mut self, bounds: &Bounds, operator: usize, resource: usize, mut ledger: Ledger) {
        if ledger.named().any(|id| self.holders(operator, resource, id).next().is_some())
            && bounds.bug != Some(Bug::SharedMarker)
        {
            return self.trouble(operator, resource);
        }
        let before = self.resources[resource].current().ledger.clone();
        if bounds.bug == Some(Bug::ForgetRetiring) {
            ledger.retiring.clear();
        }
        if bounds.bug == Some(Bug::CommitBeforeRecord)
            && before.is_none()
            && let Some(place) = place(&ledger.id)
        {
            let row = &mut self.credentials[usize::from(place)].row;
            if !std::mem::replace(row, Row { marker: None, secret: place, active: true }).active {
                return;
            }
        }
        let written = self.patch(bounds, operator, resource, |version| {
            (version.finalizer, version.ledger) = (true, Some(ledger.clone()));
        });
        if written {
            self.credentials.iter_mut().zip(0..).for_each(|(credential, place)| {
                let named = ledger.credentials().any(|(named, _)| *named == id(place));
                let retired = before.iter().flat_map(|before| &before.retiring).any(|old| old.id == id(place));
                credential.left = !named && (credential.left || retired);
            });
            let before = before.map_or(Recorded::Nothing, Recorded::Own);
            self.operators[operator].works[resource].memory.recorded(&before, &ledger);
        }
    }

    /// A write to the resource, on condition that it is as the pass has it. True when it was written; otherwise the
    /// pass goes on with the resource as it is.
    fn patch(&mut self, bounds: &Bounds, operator: usize, resource: usize, change: impl FnOnce(&mut Version)) -> bool {
        let current = self.resources[resource].current();
        let (number, gone, now) = (current.number, current.gone, self.now);
        let works = &mut self.operators[operator].works;
        let Some(pass) = works[resource].pass.as_mut() else { return false };
        if gone {
            works[resource].pass = None;
            works[resource].seen = number;
            return false;
        }
        if pass.version != number && bounds.bug != Some(Bug::NoPrecondition) {
            *pass = Pass { version: number, read_at: now, material: Known::Unread };
            works[resource].seen = number;
            return false;
        }
        let number = self.write(resource, change);
        let work = &mut self.operators[operator].works[resource];
        work.seen = number;
        work.pass.iter_mut().for_each(|pass| (pass.version, pass.read_at) = (number, now));
        true
    }

    /// Something is in the way: it is tried again after a while.
    fn trouble(&mut self, operator: usize, resource: usize) {
        let retry_at = Some(Tick(self.now + 1));
        let trouble = Trouble { reason: Reason::ApiUnavailable, message: "lost".to_owned(), retry_at };
        self.operators[operator].works[resource].memory.trouble = Some(trouble);
    }

    /// The answer comes that an operator waits for.
    pub fn receive(&mut self, operator: usize, resource: usize) {
        let now = self.now;
        let this = &mut self.operators[operator];
        let Some(answer) = this.works[resource].answer.take() else { return };
        let version = this.works[resource].pass.map_or(0, |pass| pass.version);
        let deleting = self.resources[resource].at(version).deleting;
        let memory = &mut this.works[resource].memory;
        match answer {
            Answer::Posted(place, row) => {
                memory.posted(Tick(now));
                this.rows.insert(place, (row, now));
            }
            Answer::Put { place, row, material, own, wish, sent } => {
                let put = Put {
                    id: id(place),
                    fields: wish.fields(false),
                    changes: vec!["status"],
                    material: material.map(|material| digest(material).to_owned()),
                };
                let before = this.rows.insert(place, (row, now)).map(|(before, _)| before.fields(false));
                let answered = Answered { own, deleting, sent: Tick(sent), now: Tick(now), before: before.as_ref() };
                memory.put_answered(&put, &row.as_of(place).row, &answered, Duration::from_millis(SETTLE));
                memory.corrected.sort_unstable();
            }
            Answer::Listed { began_at, rows } => {
                this.shows_inactive |= rows.iter().any(|(_, row)| !row.active);
                let shows_inactive = this.shows_inactive;
                let before = std::mem::take(&mut this.rows);
                this.rows = rows.into_iter().map(|(place, row)| (place, (row, began_at))).collect();
                for (place, (row, at)) in before {
                    let shown = this.rows.contains_key(&place);
                    if row.seen(place, at, false).outlasts(Tick(began_at), shown, shows_inactive) {
                        this.rows.insert(place, (row, at));
                    }
                }
                this.listed = Some(began_at);
            }
        }
    }
}

fn generation(object: &Version) -> Option<i64> {
    Some(if object.deleting { 2 } else { 1 })
}

fn desired(bounds: &Bounds, resource: usize, object: &Version) -> Desired {
    Desired {
        uid: uid(resource).to_owned(),
        generation: generation(object),
        name: NAME.to_owned(),
        user_id: "u".to_owned(),
        unity_id: "n".to_owned(),
        integration_id: "i".to_owned(),
        kind: Some(KIND),
        active: true,
        deletion_policy: DeletionPolicy::Deactivate,
        on_conflict: bounds.on_conflict,
        external_id: None,
        may_adopt: true,
        strategy: bounds.strategy,
        grace: Duration::ZERO,
        target: None,
        suspended: false,
        requested: None,
        recreate: None,
        deleting_for: object.deleting.then_some(Duration::ZERO),
    }
}

/// Bugs in what the planner is shown.
fn plant(bounds: &Bounds, view: &mut View, settings: &mut Settings) {
    let Recorded::Own(ledger) = &mut view.recorded else {
        if bounds.bug == Some(Bug::NoSettle) {
            settings.settle_period = Duration::ZERO;
        }
        return;
    };
    match bounds.bug {
        Some(Bug::NoSettle) => settings.settle_period = Duration::ZERO,
        Some(Bug::RetireBeforePublish) => {
            view.status.id = Some(ledger.id.clone());
            view.status.virtual_key = place(&ledger.id).map(|place| format!("vk{place}"));
            if let Some(recorded) = view.sight.recorded.as_mut().filter(|_| !ledger.retiring.is_empty()) {
                // The planner is told that it is active.
                recorded.row.fields.active = true;
                recorded.row.fields.name = NAME.to_owned();
            }
            let epoch = || serde_json::from_str("\"1970-01-01T00:00:00Z\"").ok();
            let old = ledger
                .retiring
                .iter()
                .map(|old| toolzz_operator::api::RetiringStatus { id: old.id.clone(), after: epoch() });
            view.status.retiring = old.collect();
        }
        Some(Bug::InPlaceUnrecorded) => {
            let other = matches!(&view.material, Material::Read { digest, .. } if *digest != ledger.digest);
            if bounds.strategy == RotationStrategy::InPlace && other {
                ledger.digest.clear();
            }
        }
        _ => {}
    }
}
