//! Taking over what exists: by id, by name, and from a former life of the resource.

use super::*;

fn external() -> Desired {
    Desired { external_id: Some("c7".into()), ..desired() }
}

fn adopting() -> Desired {
    Desired { on_conflict: OnConflict::Adopt, ..desired() }
}

fn found() -> View {
    let mut view = fresh();
    view.sight.external = Some(seen("c7", "Made by hand", "s7", true));
    view.sight.namesakes = vec![seen("c7", "OpenAI", "s7", true)];
    view
}

fn go(desired: &Desired, view: &View) -> Step {
    next(desired, view, &SETTINGS, after(2))
}

#[test]
fn its_material_is_unknown_so_the_own_is_rotated_in_by_the_strategy() {
    for desired in [external(), adopting()] {
        assert!(matches!(go(&desired, &found()), Step::Post(_)));
        let mut view = found();
        view.sight.marked = vec![staged("c1")];
        for (strategy, id, retiring) in [(RotationStrategy::Repoint, "c7", 0), (RotationStrategy::Replace, "c1", 1)] {
            let Step::Record(record) = go(&Desired { strategy, ..desired.clone() }, &view) else { panic!() };
            assert_eq!((record.id.as_str(), record.secret_id.as_str(), record.retiring.len()), (id, "s1", retiring));
            assert_eq!(record.adopted, Some("c7".into()));
        }
        let in_place = Desired { strategy: RotationStrategy::InPlace, ..desired };
        let Step::Record(record) = go(&in_place, &view) else { panic!() };
        assert_eq!((record.id.as_str(), record.secret_id.as_str(), record.digest.as_str()), ("c7", "s7", ""));
        view.recorded = Recorded::Own(record);
        view.finalizer = true;
        view.sight.recorded = Some(seen("c7", "OpenAI", "s7", true));
        let Step::Put(put) = go(&in_place, &view) else { panic!() };
        assert_eq!(put.material.as_deref(), Some(DIGEST));
    }
}

#[test]
fn nothing_is_taken_over_while_somebody_who_holds_it_may_not_be_known() {
    let incomplete = |mut view: View| {
        view.sight.claims_complete = false;
        view
    };
    for desired in [external(), adopting()] {
        let mut view = incomplete(found());
        let told = published(go(&desired, &view));
        view.status = told.status;
        assert_eq!(condition(&view.status.conditions, "Ready").unwrap().reason, Reason::Pending.as_str());
        // Nobody says when the last namespace is listed.
        assert!(matches!(go(&desired, &view), Step::Rest(Some(wake)) if wake > after(2)));
    }
    let former = Recorded::Former { ledger: Ledger { uid: "former".into(), ..ledger() }, held: false };
    let mut view = incomplete(fresh());
    assert!(matches!(step(&view), Step::Post(_)), "what is made is nobody's");
    view.recorded = former;
    assert_eq!(reason(step(&view)).0, Reason::Pending);
}

#[test]
fn it_is_told_as_adopted() {
    let mut view = found();
    view.finalizer = true;
    view.recorded =
        Recorded::Own(Ledger::adopting(UID, &seen("c7", "x", "s7", true).row).repointed(&staged("c1").row, DIGEST));
    view.sight.recorded = Some(seen("c7", "OpenAI", "s1", true));
    assert_eq!(published(go(&external(), &view)).event.unwrap().reason, Reason::Adopted);
}

#[test]
fn what_cannot_be_taken_over_is_told() {
    type Change = fn(&mut Desired, &mut View);
    let cases: [(&str, Desired, Change, Reason, &str); 7] = [
        ("not there", external(), |_, view| view.sight.external = None, Reason::RemoteMissing, "c7"),
        (
            "held by another",
            external(),
            |_, view| view.sight.external_holder = Some("a resource of another namespace".into()),
            Reason::NameConflict,
            "another namespace",
        ),
        (
            "of another integration",
            external(),
            |_, view| view.sight.external.as_mut().unwrap().row.fields.integration_id = "other".into(),
            Reason::InvalidSpec,
            "another integration",
        ),
        ("not allowed by id", external(), |desired, _| desired.may_adopt = false, Reason::Forbidden, "spec.externalId"),
        ("not allowed by name", adopting(), |desired, _| desired.may_adopt = false, Reason::Forbidden, "onConflict"),
        (
            "more than one",
            adopting(),
            |_, view| view.sight.namesakes.push(seen("c8", "OpenAI", "s8", true)),
            Reason::NameConflict,
            "c8",
        ),
        ("has its own already", external(), |_, view| *view = kept(), Reason::InvalidSpec, "c1"),
    ];
    for (what, mut desired, change, want, says) in cases {
        let mut view = found();
        change(&mut desired, &mut view);
        let (why, message) = reason(go(&desired, &view));
        assert_eq!(why, want, "{what}");
        assert!(message.contains(says), "{what}: {message}");
    }
}

#[test]
fn nothing_is_taken_over_without_a_look() {
    for desired in [external(), adopting()] {
        let mut view = found();
        view.sight.listing = listing(START);
        assert!(matches!(go(&desired, &view), Step::Look { .. }));
    }
}

#[test]
fn with_nobody_of_that_name_a_new_one_is_created() {
    let mut view = found();
    view.sight.namesakes.clear();
    assert!(matches!(go(&adopting(), &view), Step::Post(_)));
    view.sight.namesakes = vec![seen("c7", "OpenAI", "s7", false)];
    assert!(matches!(go(&adopting(), &view), Step::Post(_)), "inactive ones are left alone");
}

#[test]
fn what_was_taken_over_once_is_not_looked_for_again() {
    // It was replaced since: the id is another one.
    let mut view = kept();
    view.recorded = Recorded::Own(Ledger { adopted: Some("c7".into()), ..ledger() });
    assert_eq!(reason(go(&external(), &view)).0, Reason::Adopted);
}

#[test]
fn of_two_that_recorded_the_same_credential_one_leaves_it_alone() {
    let mut view = settled();
    view.sight.contested = Some("ToolzzCredential \"first\" of this namespace".into());
    view.sight.recorded.as_mut().unwrap().row.fields.name = "drifted".into();
    let (why, message) = reason(go(&desired(), &view));
    assert_eq!(why, Reason::NameConflict);
    assert!(message.contains("first"), "{message}");
}
