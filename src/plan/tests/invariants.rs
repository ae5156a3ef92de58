//! What holds in every state there is: all combinations of small worlds, and runs from each of them to rest.

use super::*;

/// One value of each part of a view.
#[derive(Clone, Debug)]
struct World {
    desired: Desired,
    view: View,
}

fn recorded() -> Vec<Recorded> {
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    vec![
        Recorded::Nothing,
        Recorded::Forged,
        Recorded::Own(ledger()),
        Recorded::Own(Ledger { retiring, ..ledger() }),
        Recorded::Own(Ledger { digest: String::new(), ..ledger() }),
        Recorded::Former { ledger: Ledger { uid: "former".into(), ..ledger() }, held: false },
        Recorded::Former { ledger: Ledger { uid: "former".into(), ..ledger() }, held: true },
    ]
}

fn materials() -> Vec<Material> {
    let missing = Material::Unusable { reason: Reason::SecretNotFound, message: "Secret".into() };
    vec![Material::Unread, Material::Unchanged, read(DIGEST), read(OTHER_DIGEST), missing]
}

fn sights() -> Vec<Sight> {
    let facts = |began, complete, suspect| Some(ListingFacts { began_at: after(began), complete, suspect });
    let base =
        Sight { listing: facts(5, true, false), shows_inactive: true, claims_complete: true, ..Sight::default() };
    let with = |change: &dyn Fn(&mut Sight)| {
        let mut sight = base.clone();
        change(&mut sight);
        sight
    };
    let row = |name: &str, secret_id: &str, active| Some(Seen { at: after(5), ..seen("c1", name, secret_id, active) });
    vec![
        base.clone(),
        with(&|sight| sight.claims_complete = false),
        with(&|sight| sight.listing = None),
        with(&|sight| sight.listing = facts(0, true, false)),
        with(&|sight| sight.listing = facts(5, false, false)),
        with(&|sight| sight.listing = facts(5, true, true)),
        with(&|sight| sight.shows_inactive = false),
        with(&|sight| sight.marked = vec![staged("c1")]),
        with(&|sight| sight.marked = vec![staged("c2"), staged("c1")]),
        with(&|sight| sight.recorded = row("OpenAI", "s1", true)),
        with(&|sight| sight.recorded = row("OpenAI", "s1", false)),
        with(&|sight| sight.recorded = row("x", "s1", true)),
        with(&|sight| sight.recorded = row("OpenAI", "s9", true)),
        with(&|sight| {
            sight.recorded = row("OpenAI", "s1", true);
            sight.retiring = vec![seen("c0", "OpenAI", "s0", true)];
        }),
        with(&|sight| sight.namesakes = vec![seen("c7", "OpenAI", "s7", true)]),
        with(&|sight| sight.external = Some(seen("c7", "y", "s7", true))),
        with(&|sight| sight.contested = Some("another".into())),
    ]
}

fn memories() -> Vec<Memory> {
    let base = Memory { first_seen: START, ..Memory::default() };
    let trouble = |at| Trouble { reason: Reason::ApiUnavailable, message: "x".into(), retry_at: Some(after(at)) };
    vec![
        base.clone(),
        Memory { given_up: Some(after(3)), lost_posts: 1, ..base.clone() },
        Memory { doubt: Some(after(6)), late_until: Some(after(51)), ..base.clone() },
        Memory { trouble: Some(trouble(1000)), ..base.clone() },
        Memory { absent_since: Some(Tick(1)), ..base.clone() },
        Memory { corrected: vec!["name"], ..base.clone() },
        Memory { inactive: vec![("c0".into(), after(1)), ("c1".into(), after(1))], ..base.clone() },
        Memory { missing: vec![("c1".into(), after(5))], ..base.clone() },
        Memory { gone: Some(Gone { id: "c1".into(), since: after(1), last: after(1) }), ..base },
    ]
}

fn wishes() -> Vec<Desired> {
    let with = |change: &dyn Fn(&mut Desired)| {
        let mut wish = desired();
        change(&mut wish);
        wish
    };
    vec![
        desired(),
        with(&|wish| wish.active = false),
        with(&|wish| wish.strategy = RotationStrategy::Replace),
        with(&|wish| wish.strategy = RotationStrategy::InPlace),
        with(&|wish| wish.on_conflict = OnConflict::Adopt),
        with(&|wish| wish.external_id = Some("c7".into())),
        with(&|wish| wish.suspended = true),
        with(&|wish| wish.recreate = Some("c1".into())),
        with(&|wish| wish.deleting_for = Some(Duration::from_secs(1))),
        with(&|wish| {
            wish.deleting_for = Some(Duration::from_secs(5000));
            wish.deletion_policy = DeletionPolicy::Retain;
        }),
    ]
}

fn every_world() -> Vec<World> {
    let mut worlds = Vec::new();
    for desired in wishes() {
        for recorded in recorded() {
            for material in materials() {
                for sight in sights() {
                    for memory in memories() {
                        for status in [ToolzzCredentialStatus::default(), settled().status] {
                            // Somebody may take the finalizer away, or the record, or bring it back from a backup.
                            for finalizer in [true, false] {
                                let view = View {
                                    finalizer,
                                    recorded: recorded.clone(),
                                    ledger_text: None,
                                    status: status.clone(),
                                    material: material.clone(),
                                    sight: sight.clone(),
                                    memory: memory.clone(),
                                    target: None,
                                    wall: Timestamp::UNIX_EPOCH,
                                };
                                worlds.push(World { desired: desired.clone(), view });
                            }
                        }
                    }
                }
            }
        }
    }
    worlds
}

impl World {
    fn step(&self) -> Step {
        next(&self.desired, &self.view, &SETTINGS, after(7))
    }
}

#[test]
fn nothing_is_sent_that_the_protocol_does_not_allow() {
    let worlds = every_world();
    assert!(worlds.len() > 200_000, "{}", worlds.len());
    for world in &worlds {
        let (view, desired) = (&world.view, &world.desired);
        let deleting = desired.deleting_for.is_some();
        match world.step() {
            Step::Post(post) => {
                assert!(!deleting && !desired.suspended, "{world:?}");
                let listing = view.sight.listing.expect("a look");
                let believed = !listing.suspect || desired.recreate.is_some();
                assert!(listing.began_at > view.memory.first_seen && believed, "{world:?}");
                assert!(view.memory.given_up.is_none(), "before the settle period is over: {world:?}");
                assert!(view.sight.marked.is_empty(), "{world:?}");
                assert!(matches!(&view.material, Material::Read { digest, .. } if *digest == post.digest), "{world:?}");
                assert!(marker_tag(&post.name).is_some(), "{world:?}");
            }
            Step::Put(put) => {
                let (Recorded::Own(ledger) | Recorded::Former { ledger, held: false }) = &view.recorded else {
                    panic!("nothing is recorded: {world:?}")
                };
                let known = ledger.credentials().find(|(id, _)| **id == put.id);
                let (id, _) = known.unwrap_or_else(|| panic!("not recorded: {world:?}"));
                assert!(!deleting || !put.fields.active, "{world:?}");
                assert!(deleting || view.recorded.own().is_some() && view.finalizer, "{world:?}");
                // Only the resource's own is ever activated, with the recorded material.
                if put.fields.active {
                    assert!(*id == ledger.id && marker_tag(&put.fields.name).is_none(), "{world:?}");
                    let was_active = view.sight.recorded.as_ref().is_some_and(|seen| seen.row.fields.active);
                    assert!(put.material.is_some() || !ledger.digest.is_empty() || was_active, "{world:?}");
                    let kept = ledger.digest.is_empty() && put.changes.iter().all(|change| *change != "secretId");
                    assert!(put.material.is_some() || kept || put.fields.secret_id == ledger.secret_id, "{world:?}");
                }
                assert!(view.sight.contested.is_none(), "{world:?}");
            }
            Step::Record(ledger) => {
                assert_eq!(ledger.uid, UID);
                assert!(!deleting, "{world:?}");
                // Whatever may be active on its behalf stays in the record.
                let before: Vec<_> = match &view.recorded {
                    Recorded::Own(before) => before.credentials().map(|(id, _)| id.clone()).collect(),
                    _ => Vec::new(),
                };
                let kept = |id: &CredentialId| ledger.credentials().any(|(one, _)| one == id);
                let retired = |id: &CredentialId| view.memory.inactive_since(id).is_some();
                assert!(before.iter().all(|id| kept(id) || retired(id)), "{world:?}");
            }
            Step::Release { left_active, .. } => {
                assert!(deleting && view.finalizer, "{world:?}");
                if desired.deletion_policy == DeletionPolicy::Deactivate && view.sight.contested.is_none() {
                    let mut known: Vec<&CredentialId> = match &view.recorded {
                        Recorded::Own(ledger) | Recorded::Former { ledger, held: false } => {
                            ledger.credentials().map(|(id, _)| id).collect()
                        }
                        Recorded::Nothing | Recorded::Forged if view.status.active == Some(true) => {
                            view.status.id.iter().collect()
                        }
                        _ => Vec::new(),
                    };
                    known.retain(|id| view.memory.inactive_since(id).is_none());
                    assert!(known.iter().all(|id| left_active.contains(id)), "{world:?}");
                }
            }
            Step::Publish(publication) => told_well(world, &publication),
            Step::Look { keys, .. } => {
                assert!(!keys.is_empty() && (!deleting || !view.memory.missing.is_empty()), "{world:?}")
            }
            Step::ReadMaterial | Step::Rest(_) => {}
            step => panic!("{step:?} in {world:?}"),
        }
    }
}

/// By the rules of kstatus, and a status that is written once says the same the next time.
fn told_well(world: &World, publication: &Publication) {
    let conditions = &publication.status.conditions;
    let is = |kind| condition(conditions, kind).map(|condition| condition.status.as_str());
    assert!(!(is("Reconciling").is_some() && is("Stalled").is_some()), "{world:?}");
    assert!([is("Reconciling"), is("Stalled")].into_iter().flatten().all(|status| status == "True"), "{world:?}");
    assert!(conditions.iter().all(|condition| condition.observed_generation == Some(1)), "{world:?}");
    assert_eq!(publication.status.observed_generation, Some(1));
    if is("Ready") == Some("True") && !world.desired.suspended {
        let ledger = world.view.recorded.own().expect("a record");
        let seen = world.view.sight.recorded.as_ref().expect("a row");
        assert!(differences(&world.desired.fields(ledger), &seen.row.fields).is_empty(), "{world:?}");
    }
    let mut after = world.clone();
    after.view.status = publication.status.clone();
    if is("Ready") == Some("True") {
        after.view.memory.corrected.clear();
    }
    let next = after.step();
    assert!(!matches!(next, Step::Publish(_)), "twice: {next:?} in {world:?}");
}

/// A remote side that does what it is told, at once.
fn obey(world: &mut World, step: Step, now: Tick) {
    let view = &mut world.view;
    let row = |id: &CredentialId, fields: Fields| Seen {
        row: Row { id: id.clone(), fields, virtual_key: Some(format!("vk-{id}")), integration: None },
        at: now,
    };
    match step {
        Step::ReadMaterial => view.material = read(DIGEST),
        Step::Look { .. } => {
            view.sight.listing = Some(ListingFacts { began_at: now, complete: true, suspect: false });
            for seen in view.sight.recorded.iter_mut().chain(&mut view.sight.retiring) {
                seen.at = now;
            }
        }
        Step::Post(post) => {
            let mut new = seen("c9", &post.name, "s-c9", false);
            new.at = now;
            view.sight.marked.push(new);
        }
        Step::Record(ledger) => {
            let find = |id: &CredentialId| {
                let sight = &view.sight;
                let all = sight.recorded.iter().chain(&sight.retiring).chain(&sight.marked).chain(&sight.namesakes);
                all.chain(&sight.external).find(|seen| seen.row.id == *id).cloned()
            };
            let retiring = ledger.retiring.iter().filter_map(|old| find(&old.id)).collect();
            view.sight.recorded = find(&ledger.id);
            view.sight.retiring = retiring;
            view.sight.marked.clear();
            view.finalizer = true;
            view.recorded = Recorded::Own(ledger);
        }
        Step::Put(put) => {
            let own = view.recorded.own().is_none_or(|ledger| ledger.id == put.id);
            view.memory.doubt = None;
            view.memory.gone = None;
            if !put.fields.active && (world.desired.deleting_for.is_some() || !own) {
                view.memory.deactivated(&put.id, now);
            }
            if let Some(digest) = &put.material {
                let (digest, secret_id) = (digest.clone(), put.fields.secret_id.clone());
                view.memory.in_place = Some(SentInPlace { digest, secret_id, at: now });
            }
            if own {
                view.memory.corrected = put.changes.clone();
                view.sight.recorded = Some(row(&put.id, put.fields));
            }
        }
        Step::Publish(publication) => {
            let ready = condition(&publication.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
            if ready {
                view.memory.corrected.clear();
            }
            view.status = publication.status;
        }
        Step::WriteTarget { .. } | Step::DropTarget(_) | Step::Release { .. } | Step::Rest(_) => {}
    }
}

#[test]
fn from_every_state_it_comes_to_rest_or_lets_go() {
    for mut world in every_world() {
        let start = world.clone();
        let mut steps = Vec::new();
        loop {
            let now = after(7 + steps.len() as u64);
            world.view.memory.observe(&world.view.sight.clone());
            let step = next(&world.desired, &world.view, &SETTINGS, now);
            steps.push(step.name());
            if matches!(step, Step::Rest(_) | Step::Release { .. }) {
                break;
            }
            assert!(steps.len() < 16, "{steps:?} from {start:?}");
            obey(&mut world, step, now);
        }
    }
}
