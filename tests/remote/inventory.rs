//! What is known of the remote credentials, end to end.

use std::sync::Arc;

use toolzz_operator::{
    api::{Tick, marked_name},
    remote::{Inventory, Outcome},
};
use toolzz_simulator::{Fault, NewCredential, OPENAI, Operation, Point, Reply, Simulator, Times};

use crate::support::*;

const TAG: &str = "0f8fad5b-12345678";

fn insert(simulator: &Simulator, name: &str, active: bool) -> uuid::Uuid {
    simulator.insert(NewCredential {
        name: name.to_owned(),
        user_id: USER.parse().unwrap(),
        unity_id: UNITY.parse().unwrap(),
        integration_id: OPENAI,
        active,
        material: "[]".into(),
    })
}

fn names(inventory: &Inventory, names: &[&str]) -> Vec<usize> {
    names.iter().map(|name| inventory.named(&key(), name).len()).collect()
}

#[tokio::test]
async fn twenty_who_ask_at_once_share_one_listing() {
    let simulator = Simulator::start();
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    let key = key();
    let now = connection.clock().now();
    let all = futures::future::join_all((0..20).map(|_| inventory.look(&connection, &key, now))).await;
    assert!(all.into_iter().all(|outcome| outcome == Outcome::Done(())));
    assert_eq!(simulator.lists(), 1);
    let facts = inventory.facts(&key).unwrap();
    assert!(facts.began_at > now && facts.complete);
    done(inventory.look(&connection, &key, now).await);
    assert_eq!(simulator.lists(), 1, "the last one still serves");
    done(inventory.look(&connection, &key, facts.began_at).await);
    assert_eq!(simulator.lists(), 2, "one that began at a moment did not begin after it");
}

#[tokio::test]
async fn who_asks_while_a_listing_is_under_way_gets_one_that_began_later() {
    let simulator = Simulator::start();
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    let key = key();
    let gate = simulator.hold_next(1, Operation::List, Point::AfterCommit);
    let first = inventory.look(&connection, &key, Tick(0));
    let (_, ()) = tokio::join!(first, async {
        gate.until_held(1).await;
        insert(&simulator, "late", true);
        let now = connection.clock().now();
        let later = inventory.look(&connection, &key, now);
        gate.release();
        done(later.await);
    });
    assert_eq!(names(&inventory, &["late"]), [1]);
    assert_eq!(simulator.lists(), 2);
}

#[tokio::test]
async fn who_waited_for_a_listing_that_failed_does_not_try_it_again() {
    let simulator = Simulator::start();
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    let key = key();
    simulator.fault(Operation::List, Times::Next(1), Fault::reset_before_commit());
    let gate = simulator.hold(Operation::List, Point::BeforeCommit);
    let now = connection.clock().now();
    connection.clock().until_after(now).await;
    let all = futures::future::join_all((0..20).map(|_| inventory.look(&connection, &key, now)));
    let (all, _) = tokio::join!(all, async {
        gate.until_held(1).await;
        gate.release()
    });
    assert!(all.into_iter().all(|outcome| matches!(outcome, Outcome::Unknown(_))));
    assert_eq!(simulator.lists(), 1);
    connection.clock().until_after(connection.clock().now()).await;
    done(inventory.look(&connection, &key, now).await);
    assert_eq!(simulator.lists(), 2, "who asks later tries again");
}

#[tokio::test]
async fn an_own_write_outlives_a_listing_that_began_before_its_answer() {
    let simulator = Simulator::start();
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    let key = key();
    let name = marked_name("n", TAG);
    // Stopped after it was taken: what is created now is not in it.
    let gate = simulator.hold_next(1, Operation::List, Point::AfterCommit);
    let (outcome, row) = tokio::join!(inventory.look(&connection, &key, Tick(0)), async {
        gate.until_held(1).await;
        let row = done(create(&connection, &name).await);
        inventory.learn(&key, row.clone(), connection.clock().now());
        gate.release();
        row
    });
    done(outcome);
    let seen = inventory.tagged(&key, TAG);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].row, row);
    // Removed by somebody; the next listing, which shows inactive ones, lacks it.
    insert(&simulator, "inactive", false);
    simulator.remove(row.id.as_str().parse().unwrap());
    done(inventory.look(&connection, &key, connection.clock().now()).await);
    assert!(inventory.shows_inactive());
    assert!(inventory.row(&key, &row.id).is_none() && inventory.tagged(&key, TAG).is_empty());
}

#[tokio::test]
async fn an_inactive_credential_is_kept_where_listings_do_not_show_such() {
    let simulator = Simulator::start();
    simulator.configure(|settings| settings.listings_show_inactive = false);
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    let key = key();
    let row = done(create(&connection, "n").await);
    inventory.learn(&key, row.clone(), connection.clock().now());
    done(inventory.look(&connection, &key, connection.clock().now()).await);
    assert!(!inventory.shows_inactive());
    assert_eq!(inventory.row(&key, &row.id).map(|seen| seen.row), Some(row.clone()));

    let active = done(connection.update(&row.id, &fields("n", row.fields.secret_id.clone(), true), None).await);
    inventory.learn(&key, active, connection.clock().now());
    done(inventory.look(&connection, &key, connection.clock().now()).await);
    let seen = inventory.row(&key, &row.id).unwrap();
    assert_eq!(Some(seen.at), inventory.facts(&key).map(|facts| facts.began_at), "as the listing shows it");
    simulator.remove(row.id.as_str().parse().unwrap());
    done(inventory.look(&connection, &key, connection.clock().now()).await);
    assert!(inventory.row(&key, &row.id).is_none(), "active ones are shown: it is gone");
}

#[tokio::test]
async fn a_listing_in_part_is_one_all_the_same_but_a_bad_row_is_said() {
    let simulator = Simulator::start();
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    for name in ["a", "b"] {
        insert(&simulator, name, true);
    }
    done(inventory.look(&connection, &key(), connection.clock().now()).await);
    assert_eq!(names(&inventory, &["a", "b"]), [1, 1]);
    let body = r#"[{"credentials": {"id": 7}}]"#.to_owned();
    simulator.fault(Operation::List, Times::Next(1), Reply::Status { status: 200, headers: vec![], body });
    done(inventory.look(&connection, &key(), connection.clock().now()).await);
    assert!(!inventory.facts(&key()).unwrap().complete);
    done(inventory.look(&connection, &key(), connection.clock().now()).await);
    assert!(inventory.facts(&key()).unwrap().complete);
    assert_eq!(names(&inventory, &["a", "b"]), [1, 1]);
}

#[tokio::test]
async fn a_listing_that_fails_leaves_what_was_known() {
    let simulator = Simulator::start();
    let (connection, inventory) = (connect(&simulator), Inventory::default());
    insert(&simulator, "a", true);
    done(inventory.look(&connection, &key(), Tick(0)).await);
    let facts = inventory.facts(&key());
    for fault in [Fault::status(500), Reply::Html.into(), Reply::Garbled.into(), Reply::Truncated.into()] {
        simulator.fault(Operation::List, Times::Next(1), fault);
        let outcome = inventory.look(&connection, &key(), connection.clock().now()).await;
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        assert_eq!((names(&inventory, &["a"]), inventory.facts(&key())), (vec![1], facts));
    }
}

#[tokio::test]
async fn many_rows_share_their_integration() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    for number in 0..1000 {
        insert(&simulator, &format!("c{number}"), true);
    }
    let listed = done(connection.list(&key()).await);
    assert_eq!(listed.rows.len(), 1000);
    let first = listed.rows[0].integration.as_ref().unwrap();
    assert_eq!(Arc::strong_count(first), 1000);
}
