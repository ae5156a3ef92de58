//! The pauses the API asks for hold back the whole connection.

use std::time::Duration;

use jiff::Timestamp;
use toolzz_operator::{
    api::Reason,
    remote::{Connection, Lost, NotDone, Outcome, State},
};
use toolzz_simulator::{Fault, Operation, Simulator, Times};

use crate::support::*;

/// Asks for everything; nothing may be sent.
async fn assert_paused(connection: &Connection, simulator: &Simulator, expected: Reason) {
    let sent = simulator.journal().len();
    let row = "0b8e0000-0000-4000-8000-000000000009".into();
    let outcomes = [
        create(connection, "n").await.map(|_| ()),
        connection.update(&row, &fields("n", "s".into(), true), None).await.map(|_| ()),
        connection.list(&key()).await.map(|_| ()),
    ];
    for outcome in outcomes {
        match outcome {
            Outcome::NotDone(why @ NotDone::Paused { .. }) => assert_eq!(why.reason(), expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(connection.catalogue().await.is_none());
    assert_eq!(simulator.journal().len(), sent);
    match &*connection.state().borrow() {
        State::Paused { reason, .. } => assert_eq!(*reason, expected),
        other => panic!("{other:?}"),
    };
}

fn paused_for(connection: &Connection) -> Duration {
    match &*connection.state().borrow() {
        State::Paused { until, .. } => *until - connection.clock().now(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_429_pauses_every_call_for_as_long_as_it_says() {
    let half_an_hour = Duration::from_secs(1800);
    let date = Timestamp::now() + half_an_hour;
    for fault in [Fault::retry_after_seconds(429, 1800), Fault::retry_after_date(429, date)] {
        let simulator = Simulator::start();
        let connection = connect(&simulator);
        simulator.fault(Operation::List, Times::Next(1), fault.clone());
        let Outcome::NotDone(why) = connection.list(&key()).await else { panic!("{fault:?}") };
        assert!(matches!(why, NotDone::Throttled { .. }), "{why:?}");
        assert_eq!(why.reason(), Reason::RateLimited);
        let wait = paused_for(&connection);
        assert!(wait <= half_an_hour && wait > half_an_hour / 2, "{fault:?}: {wait:?}");
        assert_paused(&connection, &simulator, Reason::RateLimited).await;
    }
}

#[tokio::test]
async fn a_503_pauses_only_where_it_says_how_long() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    simulator.fault(Operation::Create, Times::Next(1), Fault::status(503));
    let lost = |outcome| match outcome {
        Outcome::<_>::Unknown(unknown) => unknown.lost,
        other => panic!("{other:?}"),
    };
    assert_eq!(lost(create(&connection, "n").await), Lost::ServerError(503));
    assert_eq!(*connection.state().borrow(), State::Open);
    done(connection.list(&key()).await);
    simulator.fault(Operation::Create, Times::Next(1), Fault::retry_after_seconds(503, 1800));
    assert_eq!(lost(create(&connection, "n").await), Lost::ServerError(503));
    assert_paused(&connection, &simulator, Reason::ApiUnavailable).await;
}

#[tokio::test]
async fn the_end_of_a_pause_is_published_without_any_call() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    // Without a time of its own: the shortest pause there is.
    simulator.fault(Operation::List, Times::Next(1), Fault::status(429));
    assert!(matches!(connection.list(&key()).await, Outcome::NotDone(NotDone::Throttled { .. })));
    assert_paused(&connection, &simulator, Reason::RateLimited).await;
    until(&connection, |state| *state == State::Open).await;
    done(connection.list(&key()).await);
    assert!(connection.catalogue().await.is_some(), "not to have it during the pause is not remembered");
}

#[tokio::test]
async fn a_catalogue_that_fails_is_not_asked_for_again_at_once_and_troubles_nobody() {
    for fault in [Fault::status(500), Fault::status(403), Fault::status(404), Fault::reset_before_commit()] {
        let simulator = Simulator::start();
        let connection = connect(&simulator);
        simulator.fault(Operation::Catalogue, Times::Always, fault.clone());
        for _ in 0..3 {
            assert!(connection.catalogue().await.is_none());
        }
        assert_eq!(simulator.counts(Operation::Catalogue).received, 1, "{fault:?}");
        assert_eq!(*connection.state().borrow(), State::Open, "{fault:?}");
        done(create(&connection, "n").await);
    }
}

#[tokio::test]
async fn a_catalogue_is_read_once_for_everybody_and_goes_on_serving_when_it_fails() {
    let simulator = Simulator::start();
    let token = toolzz_operator::remote::TokenSource::fixed(toolzz_simulator::DEFAULT_TOKEN.into());
    let (connection, _) = connect_with(&simulator, token, |config| config.catalogue_ttl = Duration::from_secs(2));
    let all = futures::future::join_all((0..20).map(|_| connection.catalogue())).await;
    assert!(all.iter().all(Option::is_some));
    assert_eq!(simulator.counts(Operation::Catalogue).received, 1);
    let upper = toolzz_simulator::OPENAI.to_string().to_uppercase();
    let openai = all[0].as_ref().unwrap().get(&upper).unwrap();
    assert_eq!((openai.slug.as_str(), openai.form[0].max_length), ("openai", Some(200)));
    assert!(all[0].as_ref().unwrap().get(USER).is_none());

    simulator.fault(Operation::Catalogue, Times::Always, Fault::status(500));
    while simulator.counts(Operation::Catalogue).received == 1 {
        assert!(connection.catalogue().await.is_some());
        tokio::task::yield_now().await;
    }
    assert!(connection.catalogue().await.is_some());
}
