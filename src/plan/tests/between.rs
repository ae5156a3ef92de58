//! Small things that only show when something goes wrong in between.

use super::*;

#[test]
fn an_external_id_that_is_the_recorded_one_is_no_contradiction() {
    let external = Desired { external_id: Some("c1".into()), ..desired() };
    assert_eq!(reason(next(&external, &kept(), &SETTINGS, after(2))).0, Reason::Created);
}

#[test]
fn each_lost_create_doubles_the_wait() {
    for (lost, wait) in [(1, 45), (2, 90), (4, 360), (9, 11_520), (60, 11_520)] {
        let mut view = fresh();
        view.memory.given_up = Some(after(1));
        view.memory.lost_posts = lost;
        let last = 1 + wait;
        view.sight.listing = listing(after(last + 1));
        assert_eq!(reason(at(&view, last)).0, Reason::OutcomeUnknown, "{lost}");
        assert!(matches!(at(&view, last + 1), Step::Post(_)), "{lost}");
    }
}

#[test]
fn what_was_not_staged_apart_is_not_promoted() {
    let mut view = settled();
    view.sight.recorded.as_mut().unwrap().row.fields.secret_id = "s9".into();
    let Step::Put(put) = step(&view) else { panic!() };
    view.memory.rejected = put.verify(&view.sight.recorded.as_ref().unwrap().row, START).into_iter().collect();
    let replace = Desired { strategy: RotationStrategy::Replace, ..desired() };
    assert_eq!(reason(next(&replace, &view, &SETTINGS, after(2))).0, Reason::RotationUnsupported);
}

#[test]
fn before_the_first_commit_a_virtual_key_is_nobodys_yet() {
    let mut view = kept();
    view.status.id = Some("c1".into());
    view.status.virtual_key = Some("vk-of-the-staged-one".into());
    let publication = published(step(&view));
    assert_eq!(publication.status.virtual_key.as_deref(), Some("vk-c1"));
    assert_eq!(publication.event.unwrap().reason, Reason::Created);
}

#[test]
fn what_was_seen_before_a_put_was_given_up_is_in_doubt() {
    let mut view = settled();
    view.memory.doubt = Some(after(1));
    assert!(matches!(step(&view), Step::Look { began_after, .. } if began_after == after(1)));
    view.sight.recorded.as_mut().unwrap().at = after(2);
    assert!(matches!(at(&view, 3), Step::Rest(_)));
}

#[test]
fn trouble_before_the_commit_starts_no_grace_and_claims_no_material() {
    let mut view = kept();
    let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
    view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
    view.memory.trouble =
        Some(Trouble { reason: Reason::ApiUnavailable, message: "x".into(), retry_at: Some(after(30)) });
    let status = published(step(&view)).status;
    assert_eq!((status.retiring.len(), status.retiring[0].after.clone()), (1, None));
    assert_eq!(status.material, None);
    view.memory.trouble = None;
    view.status = status;
    let status = published(step(&view)).status;
    assert!(status.retiring[0].after.is_some() && status.material.is_some());
}

#[test]
fn a_credential_that_shows_up_again_was_not_lost() {
    let mut memory = Memory::default();
    let absent = Sight { listing: listing(after(5)), ..Sight::default() };
    memory.observe(&absent);
    assert_eq!(memory.absent_since, Some(after(5)));
    memory.told_gone(&"c1".into(), after(4));
    memory.observe(&Sight { recorded: Some(Seen { at: after(6), ..staged("c1") }), ..absent.clone() });
    assert_eq!((memory.absent_since, memory.gone.clone()), (None, None));
    memory.observe(&Sight { listing: Some(ListingFacts { complete: false, ..absent.listing.unwrap() }), ..absent });
    assert_eq!(memory.absent_since, None, "what could not be read is not absent");
}
