//! Deletion: everything that may be active is deactivated, within the deadline.

use super::*;

fn deleted(waited: u64) -> Desired {
    Desired { deleting_for: Some(Duration::from_secs(waited)), ..desired() }
}

fn step(desired: &Desired, view: &View) -> Step {
    next(desired, view, &SETTINGS, after(2))
}

fn let_go(left_active: &[&str]) -> Step {
    Step::Release { left_active: left_active.iter().map(|id| (*id).into()).collect(), nowhere: Vec::new() }
}

/// When whoever knows the resource since [`START`] has had the time to try.
fn overdue(view: &View) -> Step {
    next(&deleted(900), view, &SETTINGS, after(91))
}

fn in_trouble(mut view: View) -> View {
    view.memory.trouble =
        Some(Trouble { reason: Reason::ApiUnavailable, message: "no connection".into(), retry_at: Some(after(100)) });
    view
}

#[test]
fn deactivates_sees_it_and_lets_go() {
    let mut view = settled();
    let Step::Put(put) = step(&deleted(1), &view) else { panic!() };
    assert!(!put.fields.active && put.id.as_str() == "c1");
    view.memory.deactivated(&"c1".into(), after(2));
    assert_eq!(step(&deleted(1), &view), let_go(&[]));
}

#[test]
fn deactivates_what_is_superseded_as_well() {
    let mut view = settled();
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
    view.memory.deactivated(&"c1".into(), after(2));
    let Step::Put(put) = step(&deleted(1), &view) else { panic!() };
    assert_eq!((put.id.as_str(), put.fields.secret_id.as_str(), put.fields.active), ("c0", "s0", false));
    view.memory.deactivated(&"c0".into(), after(2));
    assert_eq!(step(&deleted(1), &view), let_go(&[]));
}

#[test]
fn what_a_former_life_held_waits_until_everybody_who_may_hold_it_is_known() {
    let mut view = View { recorded: Recorded::Former { ledger: ledger(), held: false }, ..settled() };
    assert!(matches!(step(&deleted(1), &view), Step::Put(_)));
    view.sight.claims_complete = false;
    assert_eq!(reason(step(&deleted(1), &view)).0, Reason::DeletionBlocked);
    assert_eq!(overdue(&view), let_go(&["c1"]));
    view.recorded = Recorded::Own(ledger());
    assert!(matches!(step(&deleted(1), &view), Step::Put(_)), "one's own is one's own");
}

#[test]
fn sends_nothing_of_the_spec_that_toolzz_may_refuse() {
    let refused = Desired { user_id: "nobody".into(), ..deleted(1) };
    let Step::Put(put) = step(&refused, &settled()) else { panic!() };
    assert_eq!(put.fields.user_id, "user", "as it is seen, but inactive");
}

#[test]
fn lets_go_at_once_of_what_is_retained_or_not_recorded() {
    let retain = Desired { deletion_policy: DeletionPolicy::Retain, ..deleted(1) };
    assert_eq!(step(&retain, &settled()), let_go(&[]));
    let held = View { recorded: Recorded::Former { ledger: ledger(), held: true }, ..settled() };
    assert_eq!(step(&deleted(1), &held), let_go(&[]));
    let mut contested = settled();
    contested.sight.contested = Some("another".into());
    assert_eq!(step(&deleted(1), &contested), let_go(&[]));
    let bare = View { finalizer: false, ..settled() };
    assert_eq!(step(&deleted(1), &bare), Step::Rest(None));
}

#[test]
fn names_what_it_cannot_touch_for_want_of_a_record() {
    for recorded in [Recorded::Nothing, Recorded::Forged] {
        let mut view = View { recorded, ..settled() };
        assert_eq!(step(&deleted(1), &view), let_go(&["c1"]));
        view.status.active = Some(false);
        assert_eq!(step(&deleted(1), &view), let_go(&[]));
    }
}

#[test]
fn is_bounded_by_the_deadline_and_names_what_is_left() {
    let view = in_trouble(settled());
    let (why, message) = reason(step(&deleted(1), &view));
    assert_eq!(why, Reason::DeletionBlocked);
    assert!(message.contains("c1") && message.contains("no connection"), "{message}");
    assert_eq!(overdue(&view), let_go(&["c1"]));
}

#[test]
fn tries_at_least_once_also_after_the_deadline() {
    // The operator was away for longer than that.
    assert!(matches!(step(&deleted(5000), &settled()), Step::Put(_)));
    // What is in the way at the start may pass.
    let view = in_trouble(settled());
    assert_eq!(reason(step(&deleted(5000), &view)).0, Reason::DeletionBlocked);
    let begun = |view: &View, now| next(&deleted(5000), view, &SETTINGS, after(now));
    assert_eq!(reason(begun(&view, 89)).0, Reason::DeletionBlocked);
    assert_eq!(begun(&view, 90), let_go(&["c1"]));
}

#[test]
fn waits_for_what_an_earlier_process_may_have_sent() {
    let mut view = settled();
    view.memory.began_here = false;
    assert!(matches!(step(&deleted(1), &view), Step::Put(_)), "not waiting to begin with");
    view.memory.deactivated(&"c1".into(), after(2));
    let (why, message) = reason(step(&deleted(1), &view));
    assert_eq!(why, Reason::DeletionBlocked);
    assert!(message.contains("still take effect"), "{message}");
    for waited in [1, 5000] {
        let late = |view: &View, now| next(&deleted(waited), view, &SETTINGS, after(now));
        let mut view = view.clone();
        assert!(matches!(late(&view, 45), Step::Publish(_)), "{waited}");
        assert!(matches!(late(&view, 46), Step::Put(_)), "{waited}");
        view.memory.deactivated(&"c1".into(), after(46));
        assert_eq!(late(&view, 46), let_go(&[]));
    }
}

#[test]
fn waits_for_what_may_come_late_and_deactivates_again() {
    let mut view = settled();
    view.memory.late_until = Some(after(20));
    assert!(matches!(step(&deleted(1), &view), Step::Put(_)), "not waiting to begin with");
    view.memory.deactivated(&"c1".into(), after(2));
    let (why, message) = reason(step(&deleted(1), &view));
    assert_eq!(why, Reason::DeletionBlocked);
    assert!(message.contains("still take effect"), "{message}");
    let late = |view: &View| next(&deleted(1), view, &SETTINGS, after(21));
    assert!(matches!(late(&view), Step::Put(_)));
    view.memory.deactivated(&"c1".into(), after(21));
    assert_eq!(late(&view), let_go(&[]));
}

#[test]
fn a_refused_deactivation_waits_for_the_deadline() {
    let mut view = settled();
    let Step::Put(put) = step(&deleted(1), &view) else { panic!() };
    view.memory.rejected =
        vec![Rejection { request: put.fingerprint(), reason: Reason::RejectedByApi, message: "422".into(), at: START }];
    assert_eq!(reason(step(&deleted(1), &view)).0, Reason::DeletionBlocked);
    assert_eq!(overdue(&view), let_go(&["c1"]));
    // What matters so much is tried again.
    assert!(matches!(next(&deleted(601), &view, &SETTINGS, after(601)), Step::Put(_)));
}

#[test]
fn one_answer_that_it_does_not_exist_is_not_believed() {
    let mut view = settled();
    view.memory.missing = vec![("c1".into(), after(1))];
    assert!(matches!(step(&deleted(1), &view), Step::Look { began_after, .. } if began_after == after(1)));
    let looked = |shown: Option<Seen>, complete| {
        let mut view = view.clone();
        view.sight.recorded = shown;
        view.sight.listing = Some(ListingFacts { began_at: after(2), complete, suspect: false });
        view.memory.observe(&view.sight.clone());
        next(&deleted(1), &view, &SETTINGS, after(3))
    };
    assert!(matches!(looked(Some(seen("c1", "OpenAI", "s1", true)), true), Step::Put(_)));
    assert_eq!(looked(Some(seen("c1", "OpenAI", "s1", false)), true), let_go(&[]));
    let nowhere = Step::Release { left_active: Vec::new(), nowhere: vec!["c1".into()] };
    assert_eq!(looked(None, true), nowhere, "named: the connection may lead to another account by now");
    let unread = published(looked(None, false)).status;
    assert_eq!(
        condition(&unread.conditions, "Ready").unwrap().reason,
        "DeletionBlocked",
        "it may be what was not read"
    );
}

#[test]
fn one_refused_deactivation_does_not_keep_the_others() {
    let mut view = settled();
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
    let refuse = |view: &mut View| {
        let Step::Put(put) = step(&deleted(1), view) else { panic!() };
        view.memory.refused(Rejection {
            request: put.fingerprint(),
            reason: Reason::RejectedByApi,
            message: "422".into(),
            at: START,
        });
        put.id
    };
    assert_eq!((refuse(&mut view).as_str(), refuse(&mut view).as_str()), ("c1", "c0"));
    assert_eq!(reason(step(&deleted(1), &view)).0, Reason::DeletionBlocked);
    assert_eq!(overdue(&view), let_go(&["c1", "c0"]));
}

#[test]
fn what_is_superseded_is_not_retained() {
    let retain = Desired { deletion_policy: DeletionPolicy::Retain, ..deleted(1) };
    let mut view = settled();
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
    let mut contested = view.clone();
    contested.sight.contested = Some("another".into());
    assert_eq!(step(&deleted(1), &contested), let_go(&["c0"]), "its holder may hold that as well");
    assert!(matches!(step(&retain, &view), Step::Put(put) if put.id.as_str() == "c0" && !put.fields.active));
    view.memory.deactivated(&"c0".into(), after(2));
    assert_eq!(step(&retain, &view), let_go(&[]));
    // Without a record they are named.
    let mut forged = View { recorded: Recorded::Forged, ..settled() };
    forged.status.retiring = vec![RetiringStatus { id: "c0".into(), after: None }];
    assert_eq!(step(&deleted(1), &forged), let_go(&["c1", "c0"]));
    assert_eq!(step(&retain, &forged), let_go(&["c0"]));
}

#[test]
fn a_late_update_of_a_superseded_credential_is_waited_for_as_well() {
    let mut view = settled();
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
    view.memory.late_until = Some(after(20));
    view.memory.deactivated(&"c1".into(), after(21));
    view.memory.deactivated(&"c0".into(), after(2));
    assert_eq!(reason(step(&deleted(1), &view)).0, Reason::DeletionBlocked);
}

#[test]
fn needs_no_material_and_no_type_and_does_not_mind_being_suspended() {
    let mut view = settled();
    view.material = Material::Unread;
    let desired = Desired { kind: None, suspended: true, ..deleted(1) };
    assert!(matches!(step(&desired, &view), Step::Put(_)));
}
