//! The protocol as a table: what is seen, and the one step that follows.

use std::time::Duration;

use jiff::Timestamp;

use super::Target;
use super::*;
use crate::api::*;

const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const DIGEST: &str = "aaaabbbb:1111222233334444";
const OTHER_DIGEST: &str = "aaaabbbb:9999888877776666";
const SETTINGS: Settings = Settings {
    resync_interval: Duration::from_secs(600),
    settle_period: Duration::from_secs(45),
    deletion_deadline: Duration::from_secs(900),
};
const START: Tick = Tick(1_000_000);

fn after(seconds: u64) -> Tick {
    START + Duration::from_secs(seconds)
}

fn desired() -> Desired {
    Desired {
        uid: UID.into(),
        generation: Some(1),
        name: "OpenAI".into(),
        user_id: "user".into(),
        unity_id: "unity".into(),
        integration_id: "integration".into(),
        kind: Some(CredentialType::Llm),
        active: true,
        deletion_policy: DeletionPolicy::Deactivate,
        on_conflict: OnConflict::Fail,
        external_id: None,
        may_adopt: true,
        strategy: RotationStrategy::Repoint,
        grace: Duration::from_secs(600),
        target: None,
        suspended: false,
        requested: None,
        recreate: None,
        deleting_for: None,
    }
}

fn read(digest: &str) -> Material {
    Material::Read { digest: digest.into(), sources: Vec::new() }
}

fn listing(began_at: Tick) -> Option<ListingFacts> {
    Some(ListingFacts { began_at, complete: true, suspect: false })
}

/// A resource that was first seen at `START`, and a listing since.
fn fresh() -> View {
    View {
        finalizer: false,
        recorded: Recorded::Nothing,
        ledger_text: None,
        status: ToolzzCredentialStatus::default(),
        material: read(DIGEST),
        sight: Sight { listing: listing(after(1)), shows_inactive: true, claims_complete: true, ..Sight::default() },
        memory: Memory { first_seen: START, began_here: true, ..Memory::default() },
        target: None,
        wall: Timestamp::UNIX_EPOCH,
    }
}

fn seen(id: &str, name: &str, secret_id: &str, active: bool) -> Seen {
    let fields = Fields {
        name: name.into(),
        user_id: "user".into(),
        unity_id: "unity".into(),
        integration_id: "integration".into(),
        secret_id: secret_id.into(),
        active,
    };
    let row = Row { id: id.into(), fields, virtual_key: Some(format!("vk-{id}")), integration: None };
    Seen { row, at: after(1) }
}

fn staged(id: &str) -> Seen {
    seen(id, &marked_name("OpenAI", &tag(UID, DIGEST)), "s1", false)
}

fn ledger() -> Ledger {
    Ledger::fresh(UID, &staged("c1").row, DIGEST)
}

/// Recorded, and as wished at Toolzz.
fn kept() -> View {
    let mut view = fresh();
    view.finalizer = true;
    view.recorded = Recorded::Own(ledger());
    view.ledger_text = Some("ledger".into());
    view.sight.recorded = Some(seen("c1", "OpenAI", "s1", true));
    view
}

/// [`kept`], and the status says so.
fn settled() -> View {
    let mut view = kept();
    let Step::Publish(publication) = step(&view) else { panic!("nothing to publish") };
    view.status = publication.status;
    view
}

fn step(view: &View) -> Step {
    at(view, 2)
}

fn at(view: &View, seconds: u64) -> Step {
    next(&desired(), view, &SETTINGS, after(seconds))
}

fn published(step: Step) -> Publication {
    match step {
        Step::Publish(publication) => *publication,
        step => panic!("{step:?} is no publication"),
    }
}

fn reason(step: Step) -> (Reason, String) {
    let publication = published(step);
    let ready = condition(&publication.status.conditions, "Ready").expect("Ready").clone();
    (Reason::from_name(&ready.reason).expect("a reason of ours"), ready.message)
}

#[test]
fn a_create_looks_stages_records_commits_publishes_and_rests() {
    let mut view = fresh();
    view.material = Material::Unread;
    view.sight.listing = None;
    assert_eq!(step(&view), Step::ReadMaterial);

    view.material = read(DIGEST);
    assert_eq!(step(&view), Step::Look { keys: desired().listings(), began_after: START });

    view.sight.listing = listing(after(1));
    let Step::Post(post) = step(&view) else { panic!() };
    assert_eq!(post.name, "OpenAI [toolzz-operator 0f8fad5b-11112222]");

    view.sight.marked = vec![staged("c1")];
    assert_eq!(step(&view), Step::Record(ledger()));

    view.recorded = Recorded::Own(ledger());
    view.finalizer = true;
    view.sight.recorded = Some(staged("c1"));
    let Step::Put(put) = step(&view) else { panic!() };
    assert_eq!((put.id.as_str(), put.changes.as_slice()), ("c1", &["name", "status"][..]));
    assert!(put.fields.active && put.fields.name == "OpenAI");

    view.sight.recorded = Some(seen("c1", "OpenAI", "s1", true));
    view.memory.corrected = put.changes;
    let publication = published(step(&view));
    assert_eq!(publication.event.as_ref().map(|event| event.reason), Some(Reason::Created));
    view.status = publication.status;
    view.memory.corrected.clear();
    assert_eq!(step(&view), Step::Rest(Some(after(601))));
}

#[test]
fn nothing_is_posted_without_a_look_that_began_after_the_resource_was_seen() {
    for (began_at, posts) in [(None, false), (Some(Tick(0)), false), (Some(START), false), (Some(after(1)), true)] {
        let mut view = fresh();
        view.sight.listing = began_at.and_then(listing);
        assert_eq!(matches!(step(&view), Step::Post(_)), posts, "{began_at:?}");
        assert_eq!(matches!(step(&view), Step::Look { .. }), !posts, "{began_at:?}");
    }
}

#[test]
fn a_lost_post_is_looked_for_twice_before_another_is_sent() {
    let given_up = after(10);
    let settled = after(55);
    // (now, the last listing began, what follows)
    for (now, began, want) in [
        (11, 9, "look"),
        (11, 10, "look"),
        (12, 11, "wait"),
        (55, 11, "wait"),
        (56, 11, "look again"),
        (57, 56, "post"),
    ] {
        let mut view = fresh();
        view.memory.given_up = Some(given_up);
        view.sight.listing = listing(after(began));
        let got = match at(&view, now) {
            Step::Look { began_after, .. } if began_after == given_up => "look",
            Step::Look { began_after, .. } if began_after == settled => "look again",
            Step::Post(_) => "post",
            step => {
                assert_eq!(reason(step).0, Reason::OutcomeUnknown);
                "wait"
            }
        };
        assert_eq!(got, want, "now {now}, listing {began}");
        // Whenever the marker shows up, it is taken.
        view.sight.marked = vec![staged("c9")];
        if want != "look" {
            assert!(matches!(at(&view, now), Step::Record(_)));
        }
    }
}

#[test]
fn what_an_earlier_process_lost_is_looked_for_twice_as_well() {
    let mut view = fresh();
    view.memory.given_up = Some(after(1));
    view.sight.listing = listing(after(2));
    view.status = published(at(&view, 3)).status;
    // Whatever else is told meanwhile.
    for in_between in [Desired { suspended: true, ..desired() }, desired()] {
        let mut view = view.clone();
        view.memory.trouble =
            Some(Trouble { reason: Reason::ApiUnavailable, message: "503".into(), retry_at: Some(after(9)) });
        let status = published(next(&in_between, &view, &SETTINGS, after(3))).status;
        assert_eq!(status.create_unknown_since, view.status.create_unknown_since);
        assert!(status.create_unknown_since.is_some());
        let told = View { status, memory: Memory { first_seen: after(4), ..Memory::default() }, ..view };
        assert!(matches!(at(&told, 5), Step::Look { began_after, .. } if began_after == after(4)));
    }
    view.memory.given_up = None;
    // (now, the last listing began, what follows); the resource was first seen at the start.
    for (now, began, want) in [(3, 2, "wait"), (45, 2, "wait"), (46, 2, "look again"), (47, 46, "post")] {
        view.sight.listing = listing(after(began));
        let got = match at(&view, now) {
            Step::Rest(_) => "wait",
            Step::Look { began_after, .. } if began_after == after(45) => "look again",
            Step::Post(_) => "post",
            step => panic!("{step:?}"),
        };
        assert_eq!(got, want, "now {now}, listing {began}");
    }
}

#[test]
fn of_several_staged_every_operator_takes_the_same() {
    for order in [["c1", "c2", "c3"], ["c3", "c2", "c1"], ["c2", "c1", "c3"]] {
        let mut view = fresh();
        view.sight.marked = order.into_iter().map(staged).collect();
        assert_eq!(step(&view), Step::Record(ledger()));
    }
}

#[test]
fn any_field_that_differs_is_put_right_and_named() {
    type Edit = fn(&mut Fields);
    let edits: [(&str, Edit); 6] = [
        ("name", |fields| fields.name = "x".into()),
        ("userId", |fields| fields.user_id = "x".into()),
        ("unityId", |fields| fields.unity_id = "x".into()),
        ("integrationId", |fields| fields.integration_id = "x".into()),
        ("secretId", |fields| fields.secret_id = "x".into()),
        ("status", |fields| fields.active = false),
    ];
    for (name, edit) in edits {
        let mut view = settled();
        edit(&mut view.sight.recorded.as_mut().unwrap().row.fields);
        let Step::Put(put) = step(&view) else { panic!("{name}") };
        assert_eq!(put.changes, vec![name]);
        assert_eq!(put.fields, desired().fields(&ledger()));
    }
    let mut view = settled();
    view.sight.recorded.as_mut().unwrap().row.fields.user_id = "USER".into();
    assert!(matches!(step(&view), Step::Rest(_)), "UUIDs differ in case only");
}

#[test]
fn a_settled_resource_writes_nothing_and_looks_only_when_its_sight_is_stale() {
    let view = settled();
    assert_eq!(step(&view), Step::Rest(Some(after(601))));
    assert!(matches!(at(&view, 600), Step::Rest(_)));
    assert!(matches!(at(&view, 602), Step::Look { .. }));
    let mut unread = view.clone();
    unread.material = Material::Unchanged;
    assert!(matches!(step(&unread), Step::Rest(_)), "unchanged Secrets need not be read");
}

#[test]
fn a_rotation_stages_and_repoints_and_keeps_the_id() {
    let mut view = settled();
    view.material = read(OTHER_DIGEST);
    let Step::Post(post) = step(&view) else { panic!() };
    assert_eq!(post.name, "OpenAI [toolzz-operator 0f8fad5b-99998888]");

    view.sight.marked = vec![seen("c2", &post.name, "s2", false)];
    let Step::Record(rotated) = step(&view) else { panic!() };
    assert_eq!(rotated.id, ledger().id);
    assert_eq!((rotated.secret_id.as_str(), rotated.staged_as.as_str()), ("s2", "c2"));
    assert_eq!(rotated.digest, OTHER_DIGEST);

    view.recorded = Recorded::Own(rotated);
    let Step::Put(put) = step(&view) else { panic!() };
    assert_eq!((put.id.as_str(), put.changes.as_slice()), ("c1", &["secretId"][..]));

    view.sight.recorded = Some(seen("c1", "OpenAI", "s2", true));
    view.memory.corrected = put.changes.clone();
    let publication = published(step(&view));
    assert_eq!(publication.event.map(|event| event.reason), Some(Reason::Rotated));
    assert_eq!(publication.status.material.unwrap().digest, OTHER_DIGEST);
    // After a crash before the status was written, it is still a rotation.
    view.memory.corrected.clear();
    assert_eq!(reason(step(&view)).0, Reason::Rotated);
}

#[test]
fn an_answer_that_shows_something_else_is_not_believed() {
    let put = |material: Option<&str>| Put {
        id: "c1".into(),
        fields: seen("c1", "OpenAI", "s2", true).row.fields,
        changes: vec!["secretId"],
        material: material.map(str::to_owned),
    };
    let answer = |name: &str, secret_id: &str, active: bool| seen("c1", name, secret_id, active).row;
    for (material, row, want) in [
        (None, answer("OpenAI", "s2", true), None),
        (None, answer("OpenAI", "s1", true), Some(Reason::RotationUnsupported)),
        (None, answer("Other", "s2", true), Some(Reason::RejectedByApi)),
        (None, answer("OpenAI", "s2", false), Some(Reason::RejectedByApi)),
        // What is sent in place may get a new place in the vault.
        (Some("d"), answer("OpenAI", "s9", true), None),
        (Some("d"), answer("Other", "s9", true), Some(Reason::RejectedByApi)),
    ] {
        assert_eq!(put(material).verify(&row, START).map(|rejection| rejection.reason), want, "{material:?} {row:?}");
    }
}

#[test]
fn a_rejected_request_is_not_sent_again_also_after_a_restart() {
    let mut view = fresh();
    let Step::Post(post) = step(&view) else { panic!() };
    let rejection = Rejection {
        request: post.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "rejected with 422".into(),
        at: START,
    };
    view.memory.rejected = vec![rejection];
    let publication = published(step(&view));
    assert_eq!(publication.event.as_ref().unwrap().reason, Reason::RejectedByApi);
    assert!(condition(&publication.status.conditions, "Stalled").is_some());

    // The reason may have been at Toolzz: it is tried again when some resync intervals are over.
    let tried = |view: &View| (at(view, 3600), at(view, 3601));
    assert!(matches!(tried(&view), (Step::Publish(_), Step::Post(_))), "{:?}", tried(&view));

    // The process restarts: only the status remembers.
    view.memory.rejected.clear();
    view.status = publication.status;
    assert!(matches!(step(&view), Step::Rest(_)));
    assert!(matches!(tried(&view), (Step::Rest(_), Step::Post(_))), "{:?}", tried(&view));

    for (what, change) in [
        (
            "name",
            Box::new(|desired: &mut Desired, _: &mut View| desired.name = "Other".into())
                as Box<dyn Fn(&mut Desired, &mut View)>,
        ),
        ("user", Box::new(|desired, _| desired.user_id = "other".into())),
        ("integration", Box::new(|desired, _| desired.integration_id = "other".into())),
        ("material", Box::new(|_, view| view.material = read(OTHER_DIGEST))),
    ] {
        let (mut desired, mut view) = (desired(), view.clone());
        change(&mut desired, &mut view);
        assert!(matches!(next(&desired, &view, &SETTINGS, after(2)), Step::Post(_)), "{what} changed");
    }
}

#[test]
fn an_active_namesake_nobody_holds_is_a_conflict_unless_a_new_one_is_asked_for() {
    let mut view = fresh();
    view.sight.namesakes = vec![seen("c7", "OpenAI", "s7", true)];
    let (why, message) = reason(step(&view));
    assert_eq!(why, Reason::NameConflict);
    assert!(message.contains("c7"), "{message}");

    let anew = Desired { on_conflict: OnConflict::CreateNew, ..desired() };
    assert!(matches!(next(&anew, &view, &SETTINGS, after(2)), Step::Post(_)));

    view.sight.namesakes = vec![seen("c7", "OpenAI", "s7", false)];
    assert!(matches!(step(&view), Step::Post(_)), "what a deletion left behind is in nobody's way");
}

#[test]
fn material_that_is_missing_waits_and_keeps_what_is_recorded_in_order() {
    let missing = Material::Unusable { reason: Reason::SecretNotFound, message: "Secret openai".into() };
    let mut view = fresh();
    view.material = missing.clone();
    let publication = published(step(&view));
    assert!(condition(&publication.status.conditions, "Reconciling").is_some());
    assert_eq!(condition(&publication.status.conditions, "SecretsResolved").unwrap().status, "False");

    let mut view = settled();
    view.material = missing;
    assert_eq!(reason(step(&view)).0, Reason::SecretNotFound);
    view.sight.recorded.as_mut().unwrap().row.fields.active = false;
    assert!(matches!(step(&view), Step::Put(_)));
}

#[test]
fn a_loss_is_believed_only_after_a_second_look() {
    let lost = |began: u64, absent: Option<Tick>| {
        let mut view = settled();
        view.sight.recorded = None;
        view.sight.listing = listing(after(began));
        view.memory.absent_since = absent;
        view
    };
    assert_eq!(reason(at(&lost(10, Some(after(10))), 11)).0, Reason::VerifyingLoss);
    assert!(matches!(at(&lost(10, Some(after(10))), 56), Step::Look { began_after, .. } if began_after == after(55)));
    assert_eq!(reason(at(&lost(56, Some(after(10))), 57)).0, Reason::RemoteMissing);
}

#[test]
fn where_listings_may_hide_inactive_credentials_a_missing_one_is_put_right_instead() {
    let mut view = kept();
    view.sight.recorded = None;
    view.sight.shows_inactive = false;
    let Step::Put(put) = step(&view) else { panic!() };
    assert_eq!(put.changes.len(), 6);
    // Also one that was active: somebody may have deactivated it. The PUT is told if it is gone.
    let mut view = settled();
    view.sight.recorded = None;
    view.sight.shows_inactive = false;
    assert!(matches!(step(&view), Step::Put(_)));
    view.memory.told_gone(&"c1".into(), after(1));
    assert_eq!(reason(step(&view)).0, Reason::VerifyingLoss);
    // One answer is not believed: a settle period later it is sent again, and the second is.
    assert!(matches!(at(&view, 47), Step::Look { began_after, .. } if began_after == after(46)));
    view.sight.listing = listing(after(47));
    assert!(matches!(at(&view, 48), Step::Put(put) if put.changes.len() == 6 && put.fields.active));
    view.memory.told_gone(&"c1".into(), after(48));
    assert_eq!(reason(at(&view, 49)).0, Reason::RemoteMissing);
    // What was told of another one says nothing of this.
    view.memory.told_gone(&"c0".into(), after(49));
    assert!(matches!(at(&view, 50), Step::Put(_)));
    view.memory.told_gone(&"c1".into(), after(50));
    assert_eq!(reason(at(&view, 51)).0, Reason::VerifyingLoss);
}

#[test]
fn what_cannot_be_read_in_a_listing_is_not_lost() {
    let mut view = settled();
    view.sight.recorded = None;
    view.sight.listing = Some(ListingFacts { began_at: after(1), complete: false, suspect: false });
    assert!(matches!(step(&view), Step::Put(_)));
}

#[test]
fn a_forged_ledger_counts_as_none_and_a_former_one_is_taken_only_if_nobody_holds_it() {
    let mut view = fresh();
    view.recorded = Recorded::Forged;
    assert!(matches!(step(&view), Step::Post(_)));

    let anew = Desired { on_conflict: OnConflict::CreateNew, ..desired() };
    assert_eq!(reason(next(&anew, &view, &SETTINGS, after(2))).0, Reason::LedgerInvalid, "it would double");

    // It had one, which may be of another name by now.
    let had = View { status: settled().status, ..view.clone() };
    let adopting = Desired { on_conflict: OnConflict::Adopt, ..desired() };
    for wish in [desired(), anew, adopting.clone()] {
        assert_eq!(reason(next(&wish, &had, &SETTINGS, after(2))).0, Reason::LedgerInvalid, "{wish:?}");
    }
    let mut named = had;
    named.sight.namesakes = vec![seen("c1", "OpenAI", "s1", true)];
    assert!(matches!(next(&adopting, &named, &SETTINGS, after(2)), Step::Post(_)), "that is taken over");

    let former = Ledger { uid: "another".into(), ..ledger() };
    view.recorded = Recorded::Former { ledger: former.clone(), held: true };
    assert!(matches!(step(&view), Step::Post(_)));
    view.recorded = Recorded::Former { ledger: former, held: false };
    assert_eq!(step(&view), Step::Record(ledger()));
}

#[test]
fn a_finalizer_that_was_taken_away_is_put_back() {
    let view = View { finalizer: false, ..settled() };
    assert_eq!(step(&view), Step::Record(ledger()));
    let suspended = Desired { suspended: true, ..desired() };
    assert!(!matches!(next(&suspended, &view, &SETTINGS, after(2)), Step::Record(_)));
}

#[test]
fn trouble_is_told_and_waited_out() {
    let mut view = settled();
    view.memory.trouble = Some(Trouble { reason: Reason::Forbidden, message: "403".into(), retry_at: Some(after(30)) });
    let publication = published(step(&view));
    assert!(condition(&publication.status.conditions, "Stalled").is_some());
    view.status = publication.status;
    assert_eq!(step(&view), Step::Rest(Some(after(30))));
    view.memory.trouble = None;
    assert_eq!(reason(at(&view, 31)).0, Reason::InSync);
}

#[test]
fn what_is_settled_stands_while_toolzz_cannot_be_asked_for_a_while() {
    let troubled = |reason| {
        let mut view = settled();
        view.memory.trouble = Some(Trouble { reason, message: "no answer".into(), retry_at: Some(Tick(u64::MAX)) });
        view
    };
    for reason in [Reason::ApiUnavailable, Reason::RateLimited] {
        assert!(matches!(at(&troubled(reason), 1200), Step::Rest(_)), "{reason}");
        assert!(matches!(at(&troubled(reason), 1201), Step::Publish(_)), "{reason}, but not for ever");
    }
    type Change = fn(&mut Desired, &mut View);
    let changes: [(&str, Change); 6] = [
        ("another reason", |_, view| view.memory.trouble.as_mut().unwrap().reason = Reason::Unauthorized),
        ("other material", |_, view| view.material = read(OTHER_DIGEST)),
        ("an edited spec", |desired, _| desired.generation = Some(2)),
        ("a request", |desired, _| desired.requested = Some("now".into())),
        ("an unpublished correction", |_, view| view.memory.corrected = vec!["name"]),
        ("not ready before", |_, view| view.status.conditions.clear()),
    ];
    for (what, change) in changes {
        let (mut desired, mut view) = (desired(), troubled(Reason::ApiUnavailable));
        change(&mut desired, &mut view);
        assert!(matches!(next(&desired, &view, &SETTINGS, after(2)), Step::Publish(_)), "{what}");
    }
}

#[test]
fn while_the_type_is_not_known_every_listing_is_looked_at() {
    let unknown = Desired { kind: None, ..desired() };
    assert_eq!((unknown.listings().len(), desired().listings().len()), (6, 1));
    let mut view = fresh();
    view.sight.listing = None;
    let Step::Look { keys, .. } = next(&unknown, &view, &SETTINGS, after(2)) else { panic!() };
    assert_eq!(keys.len(), 6);
}

mod adoption;
mod asking;
mod between;
mod deletion;
mod invariants;
mod late;
mod replacing;
