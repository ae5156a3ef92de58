//! A random life of one resource: what is done to it, its Secret and its credential, and what it should have come to.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use toolzz_simulator::{Credential, final_name, is_marked};

use super::{dice::Dice, leaks::word_of, support::*};

/// Far beyond what it takes for everything to come to rest.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a life should have come to.
pub struct Life {
    pub name: String,
    dice: Dice,
    pub spec: Value,
    material: String,
    pub exists: bool,
    pub told: Vec<String>,
    /// Each time it began, another; only the last can be there.
    pub resources: Vec<Resource>,
    /// How many times there was other material, and whether the strategy ever was one that leaves the former active.
    rotations: usize,
    replaces: bool,
}

/// What a resource of a life asked for.
pub struct Resource {
    uid: String,
    /// How often each material: when it began, and each time it was changed to that.
    wants: BTreeMap<String, usize>,
    /// How often its credential was taken away.
    losses: usize,
}

impl Life {
    pub fn some(count: u64, seed: u64) -> Vec<Self> {
        (0..count).map(|number| Self::new(number, seed)).collect()
    }

    fn new(number: u64, seed: u64) -> Self {
        Self {
            name: format!("r{number:04}"),
            dice: Dice(seed.wrapping_mul(1_000_003).wrapping_add(number)),
            spec: json!({}),
            material: "first".into(),
            exists: false,
            told: Vec::new(),
            resources: Vec::new(),
            rotations: 0,
            replaces: false,
        }
    }

    fn remote_name(&self) -> &str {
        self.spec["name"].as_str().unwrap_or(&self.name)
    }

    pub fn is_active(&self) -> bool {
        self.spec["active"].as_bool().unwrap_or(true)
    }

    /// So much happens, with pauses below this.
    async fn live(&mut self, lab: &Lab, length: usize, pause: u64) {
        lab.rotate(&self.name, &self.material).await;
        self.create(lab).await;
        for _ in 0..length {
            tokio::time::sleep(Duration::from_millis(self.dice.below(pause))).await;
            self.happen(lab).await;
        }
    }

    async fn create(&mut self, lab: &Lab) {
        self.told.push("create".into());
        let mut manifest = lab.manifest(&self.name);
        for (field, value) in self.spec.as_object().unwrap() {
            manifest["spec"][field] = value.clone();
        }
        let uid = lab.create(manifest).await.unwrap().metadata.uid.unwrap();
        self.resources.push(Resource { uid, wants: BTreeMap::from([(self.material.clone(), 1)]), losses: 0 });
        self.exists = true;
    }

    fn resource(&mut self) -> &mut Resource {
        self.resources.last_mut().unwrap()
    }

    async fn happen(&mut self, lab: &Lab) {
        if !self.exists {
            return self.create(lab).await;
        }
        match self.dice.below(9) {
            0 => {
                let name = format!("{} {}", self.name, self.dice.below(3));
                self.edit(lab, json!({"name": name})).await;
            }
            1 => {
                let active = self.dice.below(2) == 0;
                self.edit(lab, json!({"active": active})).await;
            }
            2 => {
                let user = format!("6f1c2d34-0000-4000-8000-00000000000{}", self.dice.below(3));
                self.edit(lab, json!({"userId": user})).await;
            }
            3 => {
                let rotation = match self.dice.below(2) {
                    0 => json!({"strategy": "Repoint", "gracePeriod": null}),
                    _ => {
                        self.replaces = true;
                        json!({"strategy": "Replace", "gracePeriod": "1s"})
                    }
                };
                self.edit(lab, json!({"rotation": rotation})).await;
            }
            // Among few, so that some are a way back.
            4 | 5 => {
                let material = format!("m{}", self.dice.below(3));
                if material != self.material {
                    self.rotations += 1;
                    *self.resource().wants.entry(material.clone()).or_default() += 1;
                }
                self.material = material;
                self.told.push(self.material.clone());
                lab.rotate(&self.name, &self.material).await;
            }
            6 => {
                self.told.push("delete".into());
                self.delete(lab).await;
                let gone = async {
                    while lab.api().get_opt(&self.name).await.unwrap().is_some() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                };
                if tokio::time::timeout(PATIENCE, gone).await.is_err() {
                    print_log_of(lab, &self.name);
                    panic!("{} is stuck\n    {}", self.name, self.told.join(", "));
                }
                self.exists = false;
            }
            7 => self.meddle(lab).await,
            _ => {
                let suspend = self.spec["suspend"] != json!(true);
                self.edit(lab, json!({"suspend": suspend})).await;
            }
        }
    }

    /// Deletes the resource as it is. The API server decides whether a deletion waits for finalizers and does not look
    /// again before it deletes; a kill on top of that loses what the finalizer was to hold (`docs/guarantees.md`).
    async fn delete(&self, lab: &Lab) {
        loop {
            let Some(seen) = lab.api().get_metadata_opt(&self.name).await.unwrap() else { return };
            let seen = seen.metadata;
            let preconditions = Some(Preconditions { resource_version: seen.resource_version, uid: seen.uid });
            match lab.api().delete(&self.name, &DeleteParams { preconditions, ..DeleteParams::default() }).await {
                Err(kube::Error::Api(answer)) if answer.code == 409 => {}
                // The server may say "conflict" when it has marked the resource already; it can be gone by now.
                Err(kube::Error::Api(answer)) if answer.code == 404 => return,
                result => return drop(result.unwrap()),
            }
        }
    }

    /// Something happens at Toolzz.
    async fn meddle(&mut self, lab: &Lab) {
        let status = lab.api().get(&self.name).await.unwrap().status.unwrap();
        let Some(id) = status.id.and_then(|id| id.as_str().parse().ok()) else { return };
        let which = self.dice.below(4);
        self.told.push(format!("meddle {which}"));
        match which {
            0 => lab.simulator.edit(id, |row| row.name = "by hand".into()),
            // A suspended resource can name what is not in use yet: that is nobody's to switch on.
            1 => lab.simulator.edit(id, |row| row.active = !row.active && final_name(&row.name) == row.name),
            2 => lab.simulator.edit(id, |row| row.user_id = uuid::Uuid::nil()),
            _ => {
                self.resource().losses += 1;
                lab.simulator.remove(id)
            }
        };
    }

    pub async fn edit(&mut self, lab: &Lab, change: Value) {
        self.told.push(change.to_string());
        for (field, value) in change.as_object().unwrap() {
            self.spec[field] = value.clone();
        }
        lab.edit(&self.name, change).await;
    }

    /// What does not agree yet; the user's part in it is done on the way.
    pub async fn disagreement(&self, lab: &Lab) -> Option<String> {
        let Some(object) = lab.api().get_opt(&self.name).await.unwrap() else {
            return self.exists.then(|| "it is gone".into());
        };
        if !self.exists {
            return Some("it is stuck".into());
        }
        let status = object.status.clone().unwrap();
        let (is_ready, reason, message) = ready(&object).unwrap();
        if matches!(reason, "RemoteMissing" | "InventorySuspect")
            && let Some(id) = &status.id
            && there(lab, id.as_str()).is_none()
        {
            lab.annotate(&self.name, "toolzz.com.br/recreate", id.as_str()).await;
        }
        if is_ready != "True" || status.observed_generation != object.metadata.generation {
            return Some(format!("{reason}: {message}"));
        }
        if !status.retiring.is_empty() {
            return Some("something has not retired".into());
        }
        let id = status.id.as_ref().unwrap().to_string();
        let Some(remote) = there(lab, &id) else { return Some("it is lost".into()) };
        let held = lab.simulator.material_of(remote.row.secret_id);
        let material = json!([{"api_key": key_material(&self.material)}]);
        for (what, agrees) in [
            ("name", remote.row.name == self.remote_name()),
            ("active", remote.row.active == self.is_active() && status.active == Some(self.is_active())),
            ("user", remote.row.user_id.to_string() == self.spec["userId"].as_str().unwrap_or(USER)),
            ("material", held == Some(material)),
            ("secretId", status.secret_id.as_ref().unwrap().as_str() == remote.row.secret_id.to_string()),
            ("virtual key", status.virtual_key.as_deref() == Some(remote.row.virtual_key.as_str())),
        ] {
            if !agrees {
                return Some(format!("{what} does not agree"));
            }
        }
        None
    }
}

impl Resource {
    /// Whether a credential was created for this resource, as the marker tells.
    pub fn made(&self, one: &Credential) -> bool {
        let row = one.history[0].row.as_ref().unwrap();
        is_marked(&row.name) && row.name.contains(&format!(" [toolzz-operator {}-", &self.uid[..8]))
    }

    /// How many creates it asked for. Of changes that follow each other fast not each is seen.
    pub fn asked(&self) -> usize {
        self.wants.values().sum::<usize>() + self.losses
    }

    /// What was created beyond that. One that is gone may still be in the operator's cache when the Secret, which the
    /// next one uses too, has other material already: what is made of that is inactive, and each material is made once.
    fn too_much(&self, lab: &Lab, all: &[Credential], is_gone: bool) -> Option<String> {
        let mut created = BTreeMap::<String, Vec<&Credential>>::new();
        for one in all.iter().filter(|one| self.made(one)) {
            created.entry(came_with(lab, one)).or_default().push(one);
        }
        let mut beyond = 0;
        for (material, made) in &created {
            beyond += made.len().saturating_sub(self.wants.get(material).copied().unwrap_or(usize::from(is_gone)));
            // They are in the order in which they were created.
            for (nth, one) in made.iter().enumerate() {
                if made[..nth].iter().any(|earlier| is_staged_at(earlier, one.history[0].number)) {
                    return Some(format!("{} was created for {material:?} while another was staged", one.id));
                }
            }
        }
        (beyond > self.losses).then(|| {
            let created: Vec<_> = created.iter().map(|(material, made)| (material, made.len())).collect();
            format!("created: {created:?}, asked for: {:?} and {} losses", self.wants, self.losses)
        })
    }
}

/// The material that a credential was created with.
fn came_with(lab: &Lab, one: &Credential) -> String {
    let material = lab.simulator.material_of(one.history[0].row.as_ref().unwrap().secret_id).unwrap();
    word_of(material[0]["api_key"].as_str().unwrap()).to_owned()
}

/// Whether a credential was there before this change, with a marker.
fn is_staged_at(one: &Credential, number: u64) -> bool {
    let last = one.history.iter().rfind(|change| change.number < number);
    last.and_then(|change| change.row.as_ref()).is_some_and(|row| is_marked(&row.name))
}

/// What the credentials are that no record names.
#[derive(Default)]
pub struct Strays {
    /// Of material that is not wished any more.
    pub superseded: usize,
    /// Of resources that are gone.
    pub deleted: usize,
    /// Of what is in use: it was created twice.
    pub unexplained: usize,
}

impl Strays {
    pub fn of(lab: &Lab, lives: &[Life], strays: &[Credential]) -> Self {
        let mut all = Self::default();
        for stray in strays {
            let is_owner = |life: &&Life| life.exists && life.resources.last().is_some_and(|one| one.made(stray));
            match lives.iter().find(is_owner) {
                Some(life) if came_with(lab, stray) == life.material => all.unexplained += 1,
                Some(_) => all.superseded += 1,
                None => all.deleted += 1,
            }
        }
        all
    }
}

impl Life {
    /// What was created for this life, or active at once, beyond what it asked for.
    pub fn too_much(&self, lab: &Lab, all: &[Credential]) -> Option<String> {
        for (nth, one) in self.resources.iter().enumerate() {
            let is_gone = !self.exists || nth + 1 < self.resources.len();
            if let Some(what) = one.too_much(lab, all, is_gone) {
                return Some(what);
            }
        }
        let own = |credential: &Credential| self.resources.iter().any(|one| one.made(credential));
        let most = lab.simulator.read(|state| state.max_simultaneously_active_of(own));
        let allowed = 1 + if self.replaces { self.rotations } else { 0 };
        (most > allowed).then(|| format!("{most} active at once, {allowed} at most were to be"))
    }
}

/// What the operators wrote of a resource.
pub fn print_log_of(lab: &Lab, name: &str) {
    let (log, quoted) = (lab.log(), format!("\"{name}\""));
    let about: Vec<&str> = log.lines().filter(|line| line.contains(&quoted)).collect();
    println!("{}", about.join("\n"));
}

fn there(lab: &Lab, id: &str) -> Option<Credential> {
    lab.simulator.credential(id.parse().unwrap()).filter(|one| !one.removed)
}

pub async fn live_all(lab: &Lab, mut lives: Vec<Life>, length: usize, pause: u64) -> Vec<Life> {
    join_all(lives.iter_mut().map(|life| life.live(lab, length, pause))).await;
    lives
}
