//! Pausing, asking, targets, and listings that are not believed.

use super::{Target, *};

#[test]
fn a_suspended_resource_is_left_alone_and_stays_as_ready_as_it_was() {
    let suspended = Desired { suspended: true, requested: Some("now".into()), ..desired() };
    for (mut view, ready) in [(settled(), "True"), (fresh(), "False")] {
        view.material = read(OTHER_DIGEST);
        let publication = published(next(&suspended, &view, &SETTINGS, after(2)));
        let condition = |kind| condition(&publication.status.conditions, kind);
        assert_eq!(
            (condition("Ready").unwrap().status.as_str(), condition("Ready").unwrap().reason.as_str()),
            (ready, "Suspended")
        );
        assert!(condition("Reconciling").is_none() && condition("Stalled").is_none());
        assert_eq!(publication.status.last_handled_reconcile_at, None, "asked for, but not done");
        view.status = publication.status.clone();
        assert_eq!(next(&suspended, &view, &SETTINGS, after(2)), Step::Rest(None));
    }
    // Back again.
    let mut view = settled();
    view.status = published(next(&suspended, &view, &SETTINGS, after(2))).status;
    assert_eq!(reason(step(&view)).0, Reason::InSync);
}

#[test]
fn a_request_reads_looks_and_is_answered_once() {
    let asked = Desired { requested: Some("now".into()), ..desired() };
    let go = |view: &View| next(&asked, view, &SETTINGS, after(6));
    let mut view = settled();
    view.memory.note_request("now", after(5));
    view.material = Material::Unchanged;
    assert_eq!(go(&view), Step::ReadMaterial);
    view.material = read(DIGEST);
    assert!(matches!(go(&view), Step::Look { began_after, .. } if began_after == after(5)));
    view.sight.listing = listing(after(6));
    view.sight.recorded.as_mut().unwrap().at = after(6);
    view.status = published(go(&view)).status;
    assert_eq!(view.status.last_handled_reconcile_at.as_deref(), Some("now"));
    view.material = Material::Unchanged;
    assert!(matches!(go(&view), Step::Rest(_)));
}

#[test]
fn a_request_tries_again_what_was_refused() {
    let asked = Desired { requested: Some("now".into()), ..desired() };
    let mut view = fresh();
    let Step::Post(post) = step(&view) else { panic!() };
    view.memory.rejected = vec![Rejection {
        request: post.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "422".into(),
        at: START,
    }];
    view.status = published(step(&view)).status;
    view.memory.note_request("now", after(1));
    assert!(matches!(next(&asked, &view, &SETTINGS, after(2)), Step::Post(_)));
    // Noted once: what is refused since then is not tried again by the same request.
    view.memory.rejected = vec![Rejection {
        request: post.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "422".into(),
        at: START,
    }];
    view.memory.note_request("now", after(2));
    assert_eq!(reason(next(&asked, &view, &SETTINGS, after(3))).0, Reason::RejectedByApi);
}

#[test]
fn trouble_does_not_make_a_refused_request_be_sent_again() {
    let mut view = fresh();
    let Step::Post(post) = step(&view) else { panic!() };
    view.memory.rejected = vec![Rejection {
        request: post.fingerprint(),
        reason: Reason::RejectedByApi,
        message: "422".into(),
        at: START,
    }];
    view.status = published(step(&view)).status;
    // A restart, and the first listing fails.
    view.memory.rejected.clear();
    view.memory.trouble =
        Some(Trouble { reason: Reason::ApiUnavailable, message: "500".into(), retry_at: Some(after(3)) });
    view.status = published(step(&view)).status;
    view.memory.trouble = None;
    assert_eq!(reason(at(&view, 4)).0, Reason::RejectedByApi);
}

#[test]
fn a_request_that_meets_with_trouble_stays_unanswered() {
    let asked = Desired { requested: Some("now".into()), ..desired() };
    let mut view = settled();
    view.memory.note_request("now", after(1));
    view.memory.trouble =
        Some(Trouble { reason: Reason::ApiUnavailable, message: "500".into(), retry_at: Some(after(30)) });
    view.status = published(next(&asked, &view, &SETTINGS, after(2))).status;
    assert_eq!(view.status.last_handled_reconcile_at, None);
    assert_eq!(next(&asked, &view, &SETTINGS, after(2)), Step::Rest(Some(after(30))));
    view.memory.trouble = None;
    assert!(matches!(next(&asked, &view, &SETTINGS, after(31)), Step::Look { .. }));
}

mod targets {
    use super::{Target, *};

    fn with_target() -> Desired {
        let keys = TargetKeys { virtual_key: Some("KEY".into()), id: Some("ID".into()), secret_id: None };
        Desired { target: Some(Target { kind: TargetKind::Secret, name: "out".into(), keys }), ..desired() }
    }

    fn go(desired: &Desired, view: &View) -> Step {
        next(desired, view, &SETTINGS, after(2))
    }

    fn written() -> TargetStatus {
        let content = with_target().target.unwrap().content(&seen("c1", "OpenAI", "s1", true).row, Some("vk-c1"));
        TargetStatus {
            kind: TargetKind::Secret,
            name: "out".into(),
            uid: "t".into(),
            resource_version: "1".into(),
            content: Target::fingerprint(&content),
        }
    }

    #[test]
    fn is_written_before_the_status_says_ready() {
        let mut view = kept();
        let Step::WriteTarget { target, content } = go(&with_target(), &view) else { panic!() };
        assert_eq!(target.name, "out");
        assert_eq!(content, [("KEY".to_owned(), "vk-c1".to_owned()), ("ID".to_owned(), "c1".to_owned())].into());
        view.target = Some(written());
        let publication = published(go(&with_target(), &view));
        assert_eq!(publication.status.target, Some(written()));
    }

    #[test]
    fn is_written_again_when_it_or_what_it_shall_hold_changed() {
        let mut view = settled();
        view.status.target = Some(written());
        // Changed or gone: the watch does not show it as it was written.
        assert!(matches!(go(&with_target(), &view), Step::WriteTarget { .. }));
        view.target = Some(written());
        assert!(!matches!(go(&with_target(), &view), Step::WriteTarget { .. }));
        let mut renamed = with_target();
        renamed.target.as_mut().unwrap().keys.virtual_key = Some("OTHER".into());
        assert!(matches!(go(&renamed, &view), Step::WriteTarget { .. }));
    }

    #[test]
    fn a_row_without_its_virtual_key_takes_it_from_nobody() {
        let mut view = settled();
        view.target = Some(written());
        view.status = published(go(&with_target(), &view)).status;
        view.sight.recorded.as_mut().unwrap().row.virtual_key = None;
        assert!(matches!(go(&with_target(), &view), Step::Rest(_)));
        view.target = None;
        assert!(matches!(go(&with_target(), &view), Step::WriteTarget { content, .. } if content["KEY"] == "vk-c1"));
    }

    #[test]
    fn a_former_one_is_dropped_once() {
        let mut view = settled();
        view.status.target = Some(written());
        let mut moved = with_target();
        moved.target.as_mut().unwrap().kind = TargetKind::ConfigMap;
        for desired in [desired(), moved] {
            assert_eq!(go(&desired, &view), Step::DropTarget(written()));
        }
        view.memory.target_dropped = Some("t".into());
        assert_eq!(published(go(&desired(), &view)).status.target, None);
    }

    #[test]
    fn somebody_elses_object_is_told_and_tried_again_later() {
        let mut view = kept();
        view.memory.target_conflict = Some(("Secret \"out\" is not ours".into(), after(1)));
        assert_eq!(reason(go(&with_target(), &view)).0, Reason::TargetConflict);
        assert!(matches!(next(&with_target(), &view, &SETTINGS, after(61)), Step::WriteTarget { .. }));
    }

    #[test]
    fn a_request_tries_again_at_once() {
        let mut view = kept();
        view.memory.target_conflict = Some(("the operator may not create ConfigMap \"out\"".into(), after(1)));
        view.memory.note_request("now", after(2));
        assert!(matches!(next(&with_target(), &view, &SETTINGS, after(3)), Step::WriteTarget { .. }));
    }

    #[test]
    fn is_switched_before_the_old_credential_retires() {
        let mut view = settled();
        let retiring = vec![Retiring { id: "c0".into(), secret_id: "s0".into() }];
        view.recorded = Recorded::Own(Ledger { retiring, ..ledger() });
        view.status.retiring = vec![RetiringStatus {
            id: "c0".into(),
            after: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH)),
        }];
        assert!(matches!(go(&with_target(), &view), Step::WriteTarget { .. }));
        view.target = Some(written());
        assert!(matches!(go(&with_target(), &view), Step::Put(put) if put.id.as_str() == "c0"));
    }
}

mod losses {
    use super::*;

    fn doubted(began: u64) -> View {
        let mut view = settled();
        view.sight.listing = Some(ListingFacts { began_at: after(began), complete: true, suspect: true });
        view
    }

    #[test]
    fn nothing_is_done_on_the_word_of_a_listing_that_is_not_believed() {
        let mut lost = doubted(1);
        lost.sight.recorded = None;
        let mut drifted = doubted(1);
        drifted.sight.recorded.as_mut().unwrap().row.fields.name = "x".into();
        let mut new = fresh();
        new.sight.listing = doubted(1).sight.listing;
        for view in [lost, drifted, new] {
            assert_eq!(reason(at(&view, 2)).0, Reason::InventorySuspect);
            assert!(matches!(at(&view, 47), Step::Look { began_after, .. } if began_after == after(46)));
        }
    }

    #[test]
    fn what_the_user_says_is_gone_is_made_again_and_the_old_one_retires() {
        let really = Desired { recreate: Some("c1".into()), ..desired() };
        let mut view = doubted(60);
        view.sight.recorded = None;
        view.memory.absent_since = Some(after(10));
        let go = |view: &View| next(&really, view, &SETTINGS, after(61));
        assert!(matches!(go(&view), Step::Post(_)));
        view.sight.marked = vec![staged("c9")];
        let Step::Record(new) = go(&view) else { panic!() };
        assert_eq!((new.id.as_str(), new.retiring[0].id.as_str()), ("c9", "c1"));
        // Without the second look, or for another id, nothing is made.
        view.memory.absent_since = Some(after(60));
        assert_eq!(reason(go(&view)).0, Reason::VerifyingLoss);
        let another = Desired { recreate: Some("c0".into()), ..desired() };
        view.sight.listing = listing(after(60));
        view.memory.absent_since = Some(after(10));
        assert_eq!(reason(next(&another, &view, &SETTINGS, after(61))).0, Reason::RemoteMissing);
    }

    #[test]
    fn more_than_three_and_more_than_a_fifth_are_suspicious() {
        for (known, missing, want) in [
            (0, 0, false),
            (3, 3, false),
            (4, 4, true),
            (19, 4, true),
            (20, 4, false),
            (21, 5, true),
            (10_000, 2000, false),
            (10_000, 2001, true),
        ] {
            assert_eq!(suspicious(known, missing), want, "{missing} of {known}");
        }
    }
}
