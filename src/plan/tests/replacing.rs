//! The rotations `Replace` and `InPlace`, and what becomes of superseded credentials.

use super::*;

const NEXT_DIGEST: &str = "aaaabbbb:5555666677778888";

fn replace() -> Desired {
    Desired { strategy: RotationStrategy::Replace, ..desired() }
}

fn in_place() -> Desired {
    Desired { strategy: RotationStrategy::InPlace, ..desired() }
}

fn replacing(view: &View, seconds: u64) -> Step {
    next(&replace(), view, &SETTINGS, after(seconds))
}

fn marked(id: &str, digest: &str) -> Seen {
    seen(id, &marked_name("OpenAI", &tag(UID, digest)), &format!("s-{id}"), false)
}

/// The new credential is recorded, committed and published; the old one is active for its grace period.
fn replaced() -> View {
    let mut view = settled();
    view.material = read(OTHER_DIGEST);
    view.sight.marked = vec![marked("c2", OTHER_DIGEST)];
    let Step::Record(new) = replacing(&view, 2) else { panic!() };
    view.recorded = Recorded::Own(new);
    view.sight.recorded = Some(seen("c2", "OpenAI", "s-c2", true));
    view.sight.retiring = vec![seen("c1", "OpenAI", "s1", true)];
    view.sight.marked.clear();
    view.status = published(replacing(&view, 2)).status;
    view
}

#[test]
fn a_replacement_is_staged_recorded_committed_and_published_before_the_old_one_retires() {
    let mut view = settled();
    view.material = read(OTHER_DIGEST);
    assert!(matches!(replacing(&view, 2), Step::Post(_)));
    view.sight.marked = vec![marked("c2", OTHER_DIGEST)];
    let Step::Record(new) = replacing(&view, 2) else { panic!() };
    assert_eq!((new.id.as_str(), new.secret_id.as_str(), new.retiring[0].id.as_str()), ("c2", "s-c2", "c1"));

    view.recorded = Recorded::Own(new);
    view.sight.recorded = view.sight.marked.pop();
    view.sight.retiring = vec![seen("c1", "OpenAI", "s1", true)];
    let Step::Put(put) = replacing(&view, 2) else { panic!() };
    assert_eq!((put.id.as_str(), put.fields.active), ("c2", true));

    view.sight.recorded = Some(seen("c2", "OpenAI", "s-c2", true));
    let publication = published(replacing(&view, 2));
    assert_eq!(publication.status.virtual_key.as_deref(), Some("vk-c2"));
    let after_grace = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(600);
    assert_eq!(publication.status.retiring[0].after.as_ref().map(|time| time.0), Some(after_grace));
    let happening = publication.event.unwrap();
    assert_eq!(happening.reason, Reason::Rotated);
    assert!(happening.note.contains("c1") && happening.note.contains("c2"), "{}", happening.note);
}

#[test]
fn a_superseded_credential_is_deactivated_after_its_grace_and_forgotten_when_nothing_can_bring_it_back() {
    let mut view = replaced();
    assert_eq!(replacing(&view, 2), Step::Rest(Some(after(601))), "a resync comes before the grace is over");
    view.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(590);
    assert_eq!(replacing(&view, 3), Step::Rest(Some(after(13) + Duration::from_millis(1))));

    view.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(600);
    let Step::Put(put) = replacing(&view, 3) else { panic!() };
    assert_eq!((put.id.as_str(), put.fields.active, put.changes.as_slice()), ("c1", false, &["status"][..]));
    assert_eq!(put.fields.secret_id.as_str(), "s1");

    view.memory.deactivated(&"c1".into(), after(4));
    assert_eq!(replacing(&view, 5), Step::Rest(Some(after(49) + Duration::from_millis(1))));
    assert!(matches!(replacing(&view, 50), Step::Look { began_after, .. } if began_after == after(49)));
    view.sight.listing = listing(after(50));
    let Step::Record(kept) = replacing(&view, 51) else { panic!() };
    assert_eq!((kept.id.as_str(), kept.retiring.len()), ("c2", 0));

    // A late update brought it back: it is deactivated again.
    view.sight.retiring = vec![Seen { at: after(50), ..seen("c1", "OpenAI", "s1", true) }];
    view.memory.observe(&view.sight.clone());
    assert!(matches!(replacing(&view, 51), Step::Put(_)));
}

#[test]
fn nothing_retires_before_the_new_virtual_key_is_published() {
    type Change = fn(&mut View);
    let changes: [Change; 3] = [
        |view| view.status.id = Some("c1".into()),
        |view| view.status.virtual_key = Some("vk-c1".into()),
        |view| view.status.retiring.clear(),
    ];
    for change in changes {
        let mut view = replaced();
        view.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(6000);
        change(&mut view);
        assert!(!matches!(replacing(&view, 3), Step::Put(_)));
    }
}

#[test]
fn a_second_rotation_within_the_grace_period_retires_both() {
    let mut view = replaced();
    view.material = read(NEXT_DIGEST);
    view.sight.marked = vec![marked("c3", NEXT_DIGEST)];
    let Step::Record(third) = replacing(&view, 3) else { panic!() };
    let ids = |ledger: &Ledger| ledger.credentials().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&third), ["c3", "c1", "c2"]);
    // Also one that is seen inactive is deactivated: another operator may have activated it since.
    view.sight.retiring = vec![marked("c2", OTHER_DIGEST), seen("c1", "OpenAI", "s1", true)];
    view.memory.observe(&view.sight.clone());
    assert_eq!(view.memory.inactive, []);
}

#[test]
fn what_toolzz_would_not_repoint_is_replaced_by_what_was_staged() {
    let mut view = settled();
    view.material = read(OTHER_DIGEST);
    view.recorded = Recorded::Own(ledger().repointed(&marked("c2", OTHER_DIGEST).row, OTHER_DIGEST));
    let Step::Put(put) = step(&view) else { panic!() };
    view.memory.rejected = put.verify(&seen("c1", "OpenAI", "s1", true).row, START).into_iter().collect();
    let (why, message) = reason(step(&view));
    assert_eq!(why, Reason::RotationUnsupported);
    assert!(message.contains("Replace"), "{message}");
    let Step::Record(promoted) = replacing(&view, 2) else { panic!() };
    assert_eq!((promoted.id.as_str(), promoted.retiring[0].id.as_str()), ("c2", "c1"));
    // Not for a refusal of another kind.
    view.memory.rejected[0].reason = Reason::RejectedByApi;
    assert!(matches!(replacing(&view, 2), Step::Publish(_)));
}

#[test]
fn what_differs_is_put_right_before_new_material_is_staged_unless_that_was_refused() {
    let mut view = settled();
    view.material = read(OTHER_DIGEST);
    let off = Desired { active: false, ..desired() };
    let Step::Put(put) = next(&off, &view, &SETTINGS, after(2)) else { panic!() };
    assert_eq!((put.changes.as_slice(), put.fields.secret_id.as_str()), (&["status"][..], "s1"));
    view.memory.rejected =
        vec![Rejection { request: put.fingerprint(), reason: Reason::RejectedByApi, message: "422".into(), at: START }];
    assert!(matches!(next(&off, &view, &SETTINGS, after(2)), Step::Post(_)));
}

#[test]
fn material_sent_in_place_is_recorded_with_the_secret_id_of_the_answer() {
    let mut view = settled();
    view.material = read(OTHER_DIGEST);
    let go = |view: &View, seconds| next(&in_place(), view, &SETTINGS, after(seconds));
    // What the credential holds is unknown from before the update is sent until its answer is recorded.
    let Step::Record(unknown) = go(&view, 2) else { panic!() };
    assert_eq!(unknown, Ledger { digest: String::new(), ..ledger() });
    view.recorded = Recorded::Own(unknown);
    view.memory.marked_unknown = true;
    let Step::Put(put) = go(&view, 2) else { panic!() };
    assert_eq!(put.material.as_deref(), Some(OTHER_DIGEST));
    assert_eq!((put.id.as_str(), put.fields.secret_id.as_str()), ("c1", "s1"));
    view.memory.in_place = Some(sent(OTHER_DIGEST, 3));
    let Step::Record(new) = go(&view, 4) else { panic!() };
    assert_eq!((new.id.as_str(), new.secret_id.as_str(), new.digest.as_str()), ("c1", "s5", OTHER_DIGEST));
    // What was sent for other material is no answer for this.
    view.material = read(NEXT_DIGEST);
    assert!(matches!(go(&view, 4), Step::Put(_)));
}

fn sent(digest: &str, at: u64) -> SentInPlace {
    SentInPlace { digest: digest.into(), secret_id: "s5".into(), at: after(at) }
}

#[test]
fn material_that_went_back_while_an_update_was_lost_is_sent_again() {
    // B was sent, the answer was lost, and the Secret holds A again: Toolzz may hold either.
    let mut view = settled();
    view.recorded = Recorded::Own(Ledger { digest: String::new(), ..ledger() });
    let go = |view: &View, seconds| next(&in_place(), view, &SETTINGS, after(seconds));
    assert!(matches!(go(&view, 2), Step::Put(put) if put.material.as_deref() == Some(DIGEST)));
    // An earlier process sent it, or this one: B may take effect after A until a settle period is over.
    for (marked_unknown, late_until, settled) in [(false, None, 45), (true, Some(after(30)), 30)] {
        view.memory.marked_unknown = marked_unknown;
        view.memory.late_until = late_until;
        view.memory.in_place = Some(sent(DIGEST, 3));
        assert_eq!(reason(go(&view, 4)).0, Reason::OutcomeUnknown);
        view.sight.listing = listing(after(settled + 1));
        assert!(matches!(go(&view, settled + 1), Step::Put(put) if put.material.as_deref() == Some(DIGEST)));
        view.memory.in_place = Some(sent(DIGEST, settled + 1));
        assert!(matches!(go(&view, settled + 2), Step::Record(new) if new.digest == DIGEST));
    }
}

#[test]
fn a_credential_whose_material_is_unknown_is_activated_only_together_with_material() {
    let mut view = settled();
    view.recorded = Recorded::Own(Ledger { digest: String::new(), ..ledger() });
    view.sight.recorded = Some(seen("c1", "Somebody's", "s-unknown", false));
    let missing = Material::Unusable { reason: Reason::SecretNotFound, message: "Secret openai".into() };
    for material in [read(DIGEST), missing.clone()] {
        view.material = material;
        let Step::Put(put) = next(&in_place(), &view, &SETTINGS, after(2)) else { panic!() };
        assert_eq!((put.material, put.fields.active, put.fields.secret_id.as_str()), (None, false, "s-unknown"));
        assert_eq!(put.changes, ["name"]);
    }
    view.sight.recorded.as_mut().unwrap().row.fields.name = "OpenAI".into();
    assert_eq!(reason(next(&in_place(), &view, &SETTINGS, after(2))).0, Reason::SecretNotFound);
    view.material = read(DIGEST);
    let Step::Put(put) = next(&in_place(), &view, &SETTINGS, after(2)) else { panic!() };
    assert!(put.material.is_some() && put.fields.active);
    // Not seen, and nothing to send: left alone.
    view.material = missing;
    view.sight.recorded = None;
    view.sight.shows_inactive = false;
    assert_eq!(reason(next(&in_place(), &view, &SETTINGS, after(2))).0, Reason::SecretNotFound);
}

#[test]
fn superseded_credentials_retire_while_the_next_rotation_is_stuck() {
    let mut view = replaced();
    view.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(590);
    view.material = read(NEXT_DIGEST);
    let Step::Post(post) = replacing(&view, 3) else { panic!() };
    view.memory.refused(Rejection {
        request: post.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "422".into(),
        at: START,
    });
    let Step::Publish(publication) = replacing(&view, 3) else { panic!() };
    view.status = publication.status;
    assert_eq!(replacing(&view, 3), Step::Rest(Some(after(13) + Duration::from_millis(1))), "comes back for it");
    view.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(600);
    let Step::Put(put) = replacing(&view, 3) else { panic!() };
    assert_eq!((put.id.as_str(), put.fields.active), ("c1", false));
    // One that cannot retire keeps neither the others nor the rotation.
    view.memory.refused(Rejection {
        request: put.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "422".into(),
        at: START,
    });
    view.memory.rejected.remove(0);
    view.status.rejected = None;
    assert!(matches!(replacing(&view, 3), Step::Post(_)));
}

#[test]
fn a_record_has_room_for_so_many_superseded_credentials_and_the_oldest_makes_room() {
    let mut view = replaced();
    let Recorded::Own(ledger) = &mut view.recorded else { panic!() };
    let old = |number: usize| Retiring { id: format!("old{number}").as_str().into(), secret_id: "s".into() };
    ledger.retiring = (0..32).map(old).collect();
    view.material = read(NEXT_DIGEST);
    let Step::Publish(publication) = replacing(&view, 3) else { panic!() };
    view.status = publication.status;
    // Long before its grace period is over.
    let Step::Put(put) = replacing(&view, 3) else { panic!() };
    assert_eq!((put.id.as_str(), put.fields.active), ("old0", false));
    view.memory.deactivated(&"old0".into(), after(3));
    assert_eq!(reason_of(&view.status), "Pending");
    view.sight.listing = listing(after(49));
    view.sight.recorded.as_mut().unwrap().at = after(49);
    let Step::Record(kept) = replacing(&view, 50) else { panic!() };
    assert_eq!(kept.retiring.len(), 31);
    view.recorded = Recorded::Own(kept);
    assert!(matches!(replacing(&view, 50), Step::Post(_)));
}

fn reason_of(status: &ToolzzCredentialStatus) -> &str {
    condition(&status.conditions, "Ready").map_or("", |ready| ready.reason.as_str())
}

#[test]
fn one_superseded_credential_that_cannot_retire_does_not_keep_the_others() {
    let mut view = replaced();
    view.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(600);
    let Recorded::Own(ledger) = &mut view.recorded else { panic!() };
    ledger.retiring.push(Retiring { id: "c0".into(), secret_id: "s0".into() });
    view.status.retiring.push(RetiringStatus { id: "c0".into(), ..view.status.retiring[0].clone() });
    let Step::Put(put) = replacing(&view, 3) else { panic!() };
    view.memory.refused(Rejection {
        request: put.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "422".into(),
        at: START,
    });
    assert!(matches!(replacing(&view, 3), Step::Put(put) if put.id.as_str() == "c0"));
    view.memory.deactivated(&"c0".into(), after(3));
    assert_eq!(reason(replacing(&view, 4)).0, Reason::RejectedByApi);
}

#[test]
fn a_first_credential_is_created_whatever_the_strategy() {
    for desired in [desired(), replace(), in_place()] {
        assert!(matches!(next(&desired, &fresh(), &SETTINGS, after(2)), Step::Post(_)));
        let mut view = fresh();
        view.sight.marked = vec![staged("c1")];
        assert_eq!(next(&desired, &view, &SETTINGS, after(2)), Step::Record(ledger()));
    }
}

#[test]
fn a_changed_virtual_key_is_told_until_somebody_accepts_it() {
    let mut view = settled();
    view.sight.recorded.as_mut().unwrap().row.virtual_key = Some("vk-new".into());
    let publication = published(step(&view));
    assert_eq!(publication.status.virtual_key.as_deref(), Some("vk-c1"), "not before it is accepted");
    let (why, message) = reason(step(&view));
    assert_eq!(why, Reason::RotationUnsupported);
    assert!(message.contains("vk-new") && message.contains("reconcile-requested-at"), "{message}");
    view.status = publication.status;
    assert!(matches!(step(&view), Step::Rest(_)));
    view.memory.note_request("yes", START);
    let accepted = Desired { requested: Some("yes".into()), ..desired() };
    let publication = published(next(&accepted, &view, &SETTINGS, after(2)));
    assert_eq!(publication.status.virtual_key.as_deref(), Some("vk-new"));
}
