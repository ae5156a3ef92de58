//! Updates whose answer was lost, and what the answers to others prove of them.

use super::{super::next::just_after, *};

fn answered(sent: u64, now: u64) -> Answered<'static> {
    Answered { own: true, deleting: false, sent: after(sent), now: after(now), before: None }
}

fn put(active: bool) -> Put {
    let fields = Fields { active, ..seen("c1", "OpenAI", "s1", true).row.fields };
    Put { id: "c1".into(), fields, changes: vec!["status"], material: None }
}

fn answer(memory: &mut Memory, put: &Put, row: &Row, answered: &Answered) {
    memory.put_answered(put, row, answered, SETTINGS.settle_period);
}

/// A superseded credential, `c0`, is about to retire. What is wished, and what is seen.
fn retiring() -> (Desired, View) {
    let replace = Desired { strategy: RotationStrategy::Replace, grace: Duration::ZERO, ..desired() };
    let mut view = kept();
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
    view.status = published(next(&replace, &view, &SETTINGS, after(2))).status;
    (replace, view)
}

#[test]
fn an_answer_proves_nothing_of_the_time_after_its_update_was_sent() {
    let deleted = Desired { deleting_for: Some(Duration::from_secs(1)), ..desired() };
    let mut view = settled();
    // An activating update may come late until 45; the deactivation is sent before and answered after that.
    view.memory.late_until = Some(after(45));
    let inactive = seen("c1", "OpenAI", "s1", false).row;
    answer(&mut view.memory, &put(false), &inactive, &Answered { deleting: true, ..answered(16, 46) });
    let late = |view: &View, now| next(&deleted, view, &SETTINGS, after(now));
    assert!(!matches!(late(&view, 46), Step::Release { .. }), "it may be active again");
    assert!(matches!(late(&view, 47), Step::Put(_)));
    answer(&mut view.memory, &put(false), &inactive, &Answered { deleting: true, ..answered(47, 48) });
    assert_eq!(late(&view, 48), Step::Release { left_active: Vec::new(), nowhere: Vec::new() });
}

#[test]
fn what_is_listed_active_after_an_update_was_sent_is_not_known_to_be_inactive() {
    let deleted = Desired { deleting_for: Some(Duration::from_secs(1)), ..desired() };
    let mut view = settled();
    let inactive = seen("c1", "OpenAI", "s1", false).row;
    answer(&mut view.memory, &put(false), &inactive, &Answered { deleting: true, ..answered(16, 20) });
    assert!(matches!(next(&deleted, &view, &SETTINGS, after(21)), Step::Release { .. }));
    let active = Seen { at: after(18), ..seen("c1", "OpenAI", "s1", true) };
    view.memory.observe(&Sight { recorded: Some(active), ..view.sight.clone() });
    assert!(matches!(next(&deleted, &view, &SETTINGS, after(21)), Step::Put(_)));
}

/// The listing may have shown what a late update had done after the deactivation; or that it had done nothing yet.
#[test]
fn nothing_retires_on_the_word_of_a_listing_from_before_the_deactivation_was_answered() {
    let (replace, mut view) = retiring();
    let go = |view: &View, now| next(&replace, view, &SETTINGS, after(now));
    let deactivation = Put { id: "c0".into(), ..put(false) };
    let inactive = seen("c0", "OpenAI", "s0", false).row;
    let superseded = Answered { own: false, ..answered(3, 60) };
    answer(&mut view.memory, &deactivation, &inactive, &superseded);
    view.sight.listing = listing(after(59));
    assert!(!matches!(go(&view, 61), Step::Record(_)));
    view.sight.listing = listing(after(61));
    assert!(matches!(go(&view, 62), Step::Record(new) if new.retiring.is_empty()));
}

#[test]
fn material_in_place_is_known_from_when_it_was_sent() {
    let mut memory = Memory::default();
    let in_place = Put { material: Some(DIGEST.into()), ..put(true) };
    answer(&mut memory, &in_place, &seen("c1", "OpenAI", "s7", true).row, &answered(3, 9));
    assert_eq!(memory.in_place, Some(SentInPlace { digest: DIGEST.into(), secret_id: "s7".into(), at: after(3) }));
}

#[test]
fn what_came_late_is_looked_for_when_nothing_more_can_come() {
    let off = Desired { active: false, ..desired() };
    let mut view = settled();
    view.sight.recorded = Some(seen("c1", "OpenAI", "s1", false));
    let go = |view: &View, now| next(&off, view, &SETTINGS, after(now));
    view.memory.late_until = Some(after(20));
    view.status = published(go(&view, 2)).status;
    is_looked_for_once(&off, view, 20);
}

/// What may have switched the credential on by then is looked for after that, and put right.
fn is_looked_for_once(off: &Desired, mut view: View, late_until: u64) {
    let go = |view: &View, now| next(off, view, &SETTINGS, after(now));
    assert_eq!(go(&view, 2), Step::Rest(Some(just_after(after(late_until)))), "it comes again then");
    assert_eq!(go(&view, late_until + 1), Step::Look { keys: off.listings(), began_after: after(late_until) });
    view.sight.listing = listing(after(late_until + 1));
    assert!(matches!(go(&view, late_until + 2), Step::Rest(_)), "once");
    view.sight.recorded = Some(Seen { at: after(late_until + 1), ..seen("c1", "OpenAI", "s1", true) });
    assert!(matches!(go(&view, late_until + 2), Step::Put(put) if !put.fields.active));
}

#[test]
fn what_an_earlier_process_sent_is_looked_for_when_nothing_more_can_come() {
    let off = Desired { active: false, generation: Some(2), ..desired() };
    let go = |view: &View, now| next(&off, view, &SETTINGS, after(now));
    let mut view = settled();
    view.memory.began_here = false;
    assert_eq!(step(&view), Step::Rest(Some(after(601))), "what is as an earlier process told costs no second listing");
    assert!(matches!(at(&view, 46), Step::Rest(_)));
    // Another wish: what was sent for the former one is not seen yet.
    view.sight.recorded = Some(seen("c1", "OpenAI", "s1", false));
    view.status = published(go(&view, 2)).status;
    view.memory.publishing();
    let mut began_here = view.clone();
    began_here.memory.began_here = true;
    assert_eq!(go(&began_here, 2), Step::Rest(Some(after(601))), "there is no earlier one");
    is_looked_for_once(&off, view, 45);
}

#[test]
fn what_had_retired_and_is_the_own_one_again_is_deactivated_with_the_resource() {
    // Superseded before it was ever active, then taken back as the material came back.
    for by_answer in [true, false] {
        let mut view = settled();
        view.memory.deactivated(&"c1".into(), after(1));
        let active = Seen { at: after(3), ..seen("c1", "OpenAI", "s1", true) };
        if by_answer {
            answer(&mut view.memory, &put(true), &active.row, &answered(2, 3));
        } else {
            view.memory.observe(&Sight { recorded: Some(active), ..view.sight.clone() });
        }
        let deleted = Desired { deleting_for: Some(Duration::from_secs(1)), ..desired() };
        assert!(matches!(next(&deleted, &view, &SETTINGS, after(4)), Step::Put(_)), "by an answer: {by_answer}");
    }
}

#[test]
fn nothing_retires_for_good_on_the_word_of_a_listing_that_could_not_be_read_as_a_whole() {
    let (replace, mut view) = retiring();
    let go = |view: &View, now| next(&replace, view, &SETTINGS, after(now));
    view.memory.deactivated(&"c0".into(), after(2));
    view.sight.listing = Some(ListingFacts { complete: false, ..listing(after(50)).unwrap() });
    assert!(matches!(go(&view, 51), Step::Rest(Some(at)) if at == just_after(after(95))));
    assert_eq!(go(&view, 96), Step::Look { keys: desired().listings(), began_after: after(95) });
    view.sight.listing = listing(after(50));
    assert!(matches!(go(&view, 51), Step::Record(new) if new.retiring.is_empty()));
}

#[test]
fn a_record_that_does_not_verify_is_looked_at_again() {
    let create_new = Desired { on_conflict: OnConflict::CreateNew, ..desired() };
    let mut view = View { recorded: Recorded::Forged, ..fresh() };
    view.status = published(next(&create_new, &view, &SETTINGS, after(2))).status;
    assert!(matches!(next(&create_new, &view, &SETTINGS, after(2)), Step::Rest(Some(_))));
}

#[test]
fn a_create_that_was_answered_and_is_not_listed_yet_is_not_sent_again_at_once() {
    let mut view = fresh();
    view.memory.posted(after(10));
    view.sight.listing = listing(after(11));
    assert_eq!(reason(at(&view, 12)).0, Reason::OutcomeUnknown);
    view.sight.listing = listing(after(56));
    assert!(matches!(at(&view, 57), Step::Post(_)));
    // Its answer is enough to record it.
    view.sight.listing = None;
    view.sight.marked = vec![staged("c1")];
    assert_eq!(at(&view, 12), Step::Record(ledger()));
    view.memory.recorded(&Recorded::Own(ledger()), &ledger());
    assert_eq!(view.memory.given_up, None);
}

#[test]
fn what_is_marked_and_cannot_be_read_is_not_created_again() {
    for given_up in [None, Some(after(1))] {
        let mut view = fresh();
        view.memory.given_up = given_up;
        view.sight.listing = Some(ListingFacts { complete: false, ..listing(after(50)).unwrap() });
        assert!(matches!(at(&view, 51), Step::Post(_)), "another odd row is in nobody's way");
        view.sight.marked_unread = true;
        let publication = published(at(&view, 51));
        assert_eq!(condition(&publication.status.conditions, "Ready").unwrap().reason, "OutcomeUnknown");
        view.status = publication.status;
        assert_eq!(at(&view, 51), Step::Rest(Some(just_after(after(95)))));
        assert!(matches!(at(&view, 96), Step::Look { began_after, .. } if began_after == after(95)));
    }
}
