//! Rotation by each strategy, over crashes and changes of mind.

use serde_json::json;
use toolzz_simulator::{Fault, Operation, Point, Times};

use super::support::*;

fn replace(grace: &str) -> serde_json::Value {
    json!({"rotation": {"strategy": "Replace", "gracePeriod": grace}})
}

/// SIGKILL with a request at this gate, which is dropped as it is; and a new operator.
async fn kill_at(lab: &mut Lab, gate: toolzz_simulator::Gate) {
    held(&gate).await;
    lab.kill_operator();
    gate.discard();
    lab.start_operator();
}

/// Nothing superseded is left in the record.
async fn until_retired(lab: &Lab, name: &str) {
    lab.until(name, "without superseded credentials", |object| object.status.as_ref().unwrap().retiring.is_empty())
        .await;
}

#[tokio::test]
async fn replace_publishes_the_new_credential_and_retires_the_old_one_after_its_grace() {
    let lab = Lab::start("replace").await;
    lab.credential_with("openai", replace("3s")).await;
    let before = lab.until_ready("openai").await.status.unwrap();
    lab.rotate("openai", "new").await;
    let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
    assert_ne!((&before.id, &before.virtual_key), (&after.id, &after.virtual_key));
    assert_eq!(after.retiring[0].id, before.id.unwrap());
    assert!(after.retiring[0].after.is_some());
    until_retired(&lab, "openai").await;
    assert_eq!(lab.materials("openai"), ["new"]);
    assert_eq!(lab.simulator.max_simultaneously_active("openai"), 2, "both serve during the grace period");
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn replace_survives_a_second_rotation_within_the_grace_period_and_a_way_back() {
    let lab = Lab::start("replaceaba").await;
    lab.credential_with("openai", replace("4s")).await;
    lab.until_ready("openai").await;
    for material in ["b", "openai"] {
        let before = lab.api().get("openai").await.unwrap().status.unwrap().id;
        lab.rotate("openai", material).await;
        lab.until("openai", "rotated", |object| {
            object.status.as_ref().unwrap().id != before && ready(object).unwrap().0 == "True"
        })
        .await;
    }
    until_retired(&lab, "openai").await;
    assert_eq!(lab.materials("openai"), ["openai"]);
    assert_eq!(lab.simulator.credentials().len(), 3);
}

async fn replace_survives_a_kill(operation: Operation, point: Point) {
    let mut lab = Lab::start("replacekill").await;
    lab.credential_with("openai", replace("15s")).await;
    lab.until_ready("openai").await;
    let gate = lab.simulator.hold(operation, point);
    lab.rotate("openai", "new").await;
    kill_at(&mut lab, gate).await;
    lab.until_reason("openai", "Rotated").await;
    // And once more while the old one is deactivated.
    let gate = lab.simulator.hold(Operation::Update, point);
    kill_at(&mut lab, gate).await;
    until_retired(&lab, "openai").await;
    assert_eq!(lab.materials("openai"), ["new"], "{operation:?} {point:?}");
    assert!(lab.simulator.max_simultaneously_active("openai") <= 2);
    assert!(lab.simulator.read(|state| state.ever_active_while_marked().is_empty()));
}

#[tokio::test]
async fn replace_survives_a_kill_at_every_effect() {
    futures::join!(
        replace_survives_a_kill(Operation::Create, Point::BeforeCommit),
        replace_survives_a_kill(Operation::Create, Point::AfterCommit),
        replace_survives_a_kill(Operation::Update, Point::BeforeCommit),
        replace_survives_a_kill(Operation::Update, Point::AfterCommit),
    );
}

#[tokio::test]
async fn in_place_sends_the_material_with_the_update() {
    let lab = Lab::start("inplace").await;
    lab.simulator.configure(|settings| settings.replace_material_in_place = true);
    lab.credential_with("openai", json!({"rotation": {"strategy": "InPlace"}})).await;
    let before = lab.until_ready("openai").await.status.unwrap();
    lab.rotate("openai", "new").await;
    let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
    assert_eq!((&before.id, &before.virtual_key), (&after.id, &after.virtual_key));
    assert_eq!(lab.materials("openai"), ["new"]);
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 2));
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn in_place_survives_a_kill_around_the_update() {
    for point in [Point::BeforeCommit, Point::AfterCommit] {
        let mut lab = Lab::start("inplacekill").await;
        lab.simulator.configure(|settings| settings.replace_material_in_place = true);
        lab.credential_with("openai", json!({"rotation": {"strategy": "InPlace"}})).await;
        lab.until_ready("openai").await;
        let gate = lab.simulator.hold(Operation::Update, point);
        lab.rotate("openai", "new").await;
        kill_at(&mut lab, gate).await;
        lab.until_reason("openai", "Rotated").await;
        assert_eq!(lab.materials("openai"), ["new"], "{point:?}");
        assert_eq!(lab.simulator.credentials().len(), 1);
    }
}

#[tokio::test]
async fn in_place_there_and_back_again_ends_with_what_the_secret_holds() {
    for (fault, killed) in
        [(Fault::reset_after_commit(), false), (Fault::reset_after_commit(), true), (Fault::late_commit(), false)]
    {
        let mut lab = Lab::start("inplaceaba").await;
        let label = format!("{fault:?} {killed}");
        lab.simulator.configure(|settings| settings.replace_material_in_place = true);
        lab.credential_with("openai", json!({"rotation": {"strategy": "InPlace"}})).await;
        lab.until_ready("openai").await;
        // The new material is sent, nobody hears of it, and the Secret goes back.
        lab.simulator.fault(Operation::Update, Times::Next(1), fault);
        lab.rotate("openai", "new").await;
        lab.until_remote(|state| state.counts(Operation::Update).received >= 2).await;
        if killed {
            lab.kill_operator();
        }
        lab.rotate("openai", "openai").await;
        if killed {
            lab.start_operator();
        }
        lab.until_remote(|state| state.counts(Operation::Update).answered_2xx >= 2).await;
        // The new material takes effect after the old one was sent again.
        lab.simulator.release_late();
        lab.until("openai", "settled again", |object| {
            let text = object.metadata.annotations.as_ref().and_then(|all| all.get("toolzz.com.br/ledger"));
            text.is_some_and(|text| !text.contains("\"digest\":\"\"")) && ready(object).unwrap().0 == "True"
        })
        .await;
        assert_eq!(lab.materials("openai"), ["openai"], "{label}");
        assert_eq!(lab.simulator.credentials().len(), 1, "{label}");
    }
}

#[tokio::test]
async fn repoint_goes_there_and_back_again() {
    let lab = Lab::start("repointaba").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await.status.unwrap();
    let mut digests = vec![before.material.unwrap().digest];
    for material in ["b", "openai", "b", "openai"] {
        lab.rotate("openai", material).await;
        let last = digests.last().unwrap().clone();
        let now = lab
            .until("openai", "rotated", |object| {
                let status = object.status.as_ref().unwrap();
                status.material.as_ref().unwrap().digest != last && ready(object).unwrap().0 == "True"
            })
            .await
            .status
            .unwrap();
        assert_eq!((&now.id, &now.virtual_key), (&before.id, &before.virtual_key));
        assert_eq!(lab.materials("openai"), [material]);
        digests.push(now.material.unwrap().digest);
    }
    // What was staged once is used again: one credential for each material, and the first.
    assert_eq!(lab.simulator.posts(), 3);
    lab.assert_none_doubled("openai");
}

#[tokio::test]
async fn a_vendor_that_cannot_repoint_is_replaced_when_the_strategy_says_so() {
    let lab = Lab::start("switch").await;
    lab.simulator.configure(|settings| settings.ignore_secret_id = true);
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await.status.unwrap();
    lab.rotate("openai", "new").await;
    let object = lab.until_reason("openai", "RotationUnsupported").await;
    assert!(ready(&object).unwrap().2.contains("Replace"));
    lab.edit("openai", replace("1s")).await;
    let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
    assert_ne!(before.id, after.id);
    until_retired(&lab, "openai").await;
    assert_eq!(lab.materials("openai"), ["new"]);
    assert_eq!(lab.simulator.posts(), 2, "what was staged is used, not another one");
}

#[tokio::test]
async fn the_strategy_may_change_midway() {
    let lab = Lab::start("midway").await;
    lab.credential_with("openai", replace("1s")).await;
    lab.until_ready("openai").await;
    let gate = lab.simulator.hold(Operation::Create, Point::AfterCommit);
    lab.rotate("openai", "new").await;
    held(&gate).await;
    lab.api()
        .patch("openai", &Default::default(), &kube::api::Patch::Merge(json!({"spec": {"rotation": null}})))
        .await
        .unwrap();
    drop(gate);
    lab.until("openai", "rotated", |object| {
        let status = object.status.as_ref().unwrap();
        status.observed_generation == object.metadata.generation && ready(object).unwrap().0 == "True"
    })
    .await;
    until_retired(&lab, "openai").await;
    assert_eq!(lab.materials("openai"), ["new"]);
    assert_eq!(lab.simulator.posts(), 2);
}

#[tokio::test]
async fn a_changed_virtual_key_is_told_until_it_is_accepted() {
    let lab = Lab::start("newkey").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await.status.unwrap();
    lab.simulator.configure(|settings| settings.regenerate_virtual_key = true);
    lab.rotate("openai", "new").await;
    let told = lab.until_reason("openai", "RotationUnsupported").await;
    assert_eq!(told.status.as_ref().unwrap().virtual_key, before.virtual_key);
    lab.annotate("openai", "toolzz.com.br/reconcile-requested-at", "accepted").await;
    let after = lab.until_ready("openai").await.status.unwrap();
    assert_ne!(after.virtual_key, before.virtual_key);
    assert_eq!(after.virtual_key.as_deref(), Some(lab.simulator.active_named("openai")[0].row.virtual_key.as_str()));
}
