//! How long one decision of the planner takes.
#![allow(missing_docs)] // what criterion's macros make has none

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use toolzz_operator::{
    api::{
        CredentialType, DeletionPolicy, Fields, ListingFacts, OnConflict, RotationStrategy, Row, Seen, Tick,
        ToolzzCredentialStatus, marked_name,
    },
    plan::{Desired, Ledger, Material, Memory, Recorded, Settings, Sight, Step, View, next, tag},
};

const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const DIGEST: &str = "01234567:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SETTINGS: Settings = Settings {
    resync_interval: Duration::from_secs(600),
    settle_period: Duration::from_secs(45),
    deletion_deadline: Duration::from_secs(900),
};
const SEEN: Tick = Tick(2_000);
const NOW: Tick = Tick(3_000);

fn desired() -> Desired {
    Desired {
        uid: UID.into(),
        generation: Some(1),
        name: "OpenAI Marketing".into(),
        user_id: "6f1c2d34-0000-4000-8000-000000000001".into(),
        unity_id: "0b8e2d34-0000-4000-8000-000000000002".into(),
        integration_id: "9a770001-0000-4000-8000-000000000001".into(),
        kind: Some(CredentialType::Llm),
        active: true,
        deletion_policy: DeletionPolicy::Deactivate,
        on_conflict: OnConflict::Fail,
        external_id: None,
        may_adopt: false,
        strategy: RotationStrategy::Repoint,
        grace: Duration::ZERO,
        target: None,
        suspended: false,
        requested: None,
        recreate: None,
        deleting_for: None,
    }
}

fn row(name: &str, active: bool) -> Row {
    let wish = desired();
    Row {
        id: "c0ffee00-0000-4000-8000-000000000001".into(),
        fields: Fields {
            name: name.to_owned(),
            user_id: wish.user_id,
            unity_id: wish.unity_id,
            integration_id: wish.integration_id,
            secret_id: "5ec2e700-0000-4000-8000-000000000001".into(),
            active,
        },
        virtual_key: Some("vk-0123456789abcdef0123".to_owned()),
        integration: None,
    }
}

/// A resource that was just seen, its Secret read, and a listing since: it is to be created.
fn fresh() -> View {
    View {
        finalizer: false,
        recorded: Recorded::Nothing,
        ledger_text: None,
        status: ToolzzCredentialStatus::default(),
        material: Material::Read { digest: DIGEST.to_owned(), sources: Vec::new() },
        sight: Sight {
            listing: Some(ListingFacts { began_at: SEEN, complete: true, suspect: false }),
            shows_inactive: true,
            claims_complete: true,
            ..Sight::default()
        },
        memory: Memory { first_seen: Tick(1_000), ..Memory::default() },
        target: None,
        wall: Timestamp::UNIX_EPOCH,
    }
}

/// The same one recorded, but not in use yet.
fn recorded() -> View {
    let staged = row(&marked_name(&desired().name, &tag(UID, DIGEST)), false);
    let mut view = fresh();
    view.finalizer = true;
    view.recorded = Recorded::Own(Ledger::fresh(UID, &staged, DIGEST));
    view.ledger_text = Some("a record".repeat(50));
    view.sight.recorded = Some(Seen { row: staged, at: SEEN });
    view
}

/// In use, but the status does not say so yet.
fn committed() -> View {
    let mut view = recorded();
    view.sight.recorded = Some(Seen { row: row(&desired().name, true), at: SEEN });
    view
}

/// And the status says so.
fn settled() -> View {
    let mut view = committed();
    if let Step::Publish(publication) = next(&desired(), &view, &SETTINGS, NOW) {
        view.status = publication.status;
    }
    view
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    let wish = desired();
    let situations = [("stage", fresh()), ("commit", recorded()), ("publish", committed()), ("rest", settled())];
    for (expected, view) in situations {
        // What is measured is what it is called.
        assert_eq!(next(&wish, &view, &SETTINGS, NOW).name(), expected);
        group.bench_function(expected, |bencher| {
            bencher.iter(|| next(black_box(&wish), black_box(&view), black_box(&SETTINGS), black_box(NOW)));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
