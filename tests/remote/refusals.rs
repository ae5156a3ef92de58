//! A refused token pauses the connection; a forbidden request does not.

use std::time::Duration;

use toolzz_operator::{
    api::{ListingKey, Reason},
    remote::{Connection, NotDone, Outcome, Refusal, State, TokenError, TokenSource},
};
use toolzz_simulator::{DEFAULT_TOKEN, Fault, Matching, Operation, Point, Simulator, Times, Token};

use crate::support::*;

fn not_done<T: std::fmt::Debug>(outcome: Outcome<T>) -> NotDone {
    match outcome {
        Outcome::NotDone(why) => why,
        other => panic!("{other:?}"),
    }
}

fn is_open(connection: &Connection) -> bool {
    *connection.state().borrow() == State::Open
}

#[tokio::test]
async fn twenty_refused_calls_make_one_probe_and_a_new_token_ends_it() {
    let simulator = Simulator::start();
    let file = TokenFile::new(DEFAULT_TOKEN);
    let (connection, _) = connect_with(&simulator, file.source(), |_| {});
    simulator.set_tokens(vec![]);
    let gate = simulator.hold(Operation::List, Point::BeforeCommit);
    let key = key();
    let calls = futures::future::join_all((0..20).map(|_| connection.list(&key)));
    let (outcomes, ()) = tokio::join!(calls, async {
        gate.until_held(20).await;
        // One by one, so that they do not all come back at the same moment.
        while gate.release_one() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        gate.release();
    });
    for outcome in outcomes {
        let why = not_done(outcome);
        assert!(matches!(why, NotDone::Refused { refusal: Refusal::Unauthorized, .. }), "{why:?}");
        assert_eq!(why.reason(), Reason::Unauthorized);
    }
    assert_eq!(simulator.counts(Operation::Catalogue).received, 1, "one probe");
    assert_eq!(*connection.state().borrow(), State::Refused { refusal: Refusal::Unauthorized });

    let sent = simulator.journal().len();
    assert!(matches!(not_done(create(&connection, "n").await), NotDone::Refused { .. }));
    assert!(connection.catalogue().await.is_none());
    assert_eq!(simulator.journal().len(), sent, "nothing is sent while it is refused");

    // The probe interval of these tests is an hour: it is the change that is seen.
    simulator.set_tokens(vec![Token::full("new", "new-token")]);
    file.write("new-token\n");
    until(&connection, |state| *state == State::Open).await;
    done(create(&connection, "n").await);
}

#[tokio::test]
async fn a_token_accepted_again_is_found_out_by_itself() {
    let simulator = Simulator::start();
    let token = TokenSource::fixed(DEFAULT_TOKEN.into());
    let (connection, _) = connect_with(&simulator, token, |config| config.probe_interval = Duration::from_millis(20));
    done(connection.list(&key()).await);
    simulator.set_tokens(vec![Token::forbidden("default", DEFAULT_TOKEN)]);
    let why = not_done(connection.list(&key()).await);
    assert!(matches!(why, NotDone::Refused { refusal: Refusal::Forbidden, .. }), "{why:?}");
    assert_eq!(why.reason(), Reason::Forbidden);
    simulator.set_tokens(vec![]);
    let refused = State::Refused { refusal: Refusal::Unauthorized };
    until(&connection, |state| *state == refused).await;
    simulator.set_tokens(vec![Token::full("default", DEFAULT_TOKEN)]);
    until(&connection, |state| *state == State::Open).await;
    done(connection.list(&key()).await);
}

#[tokio::test]
async fn a_request_forbidden_alone_stays_alone() {
    for catalogue in [true, false] {
        let simulator = Simulator::start();
        simulator.configure(|settings| settings.catalogue = catalogue);
        let connection = connect(&simulator);
        if !catalogue {
            // Nothing was ever accepted, and a 404 may come before anybody looks at the token.
            simulator.fault(Operation::Create, Times::Next(1), Fault::status(401));
            let why = not_done(create(&connection, "n").await);
            assert!(matches!(why, NotDone::Unconfirmed { status: 401, .. }), "{why:?}");
            done(connection.list(&key()).await);
        }
        for status in [401, 403] {
            simulator.fault(Operation::Create, Times::Next(1), Fault::status(status));
            let why = not_done(create(&connection, "n").await);
            assert!(matches!(why, NotDone::Forbidden { status: seen, .. } if seen == status), "{why:?}");
            assert_eq!(why.reason(), Reason::Forbidden);
            assert!(is_open(&connection));
        }
        done(create(&connection, "n").await);
    }
}

#[tokio::test]
async fn a_token_that_may_not_read_the_integrations_is_good_for_all_else() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    simulator.fault(Operation::Catalogue, Times::Always, Fault::status(403));
    assert!(connection.catalogue().await.is_none());
    assert!(is_open(&connection));
    done(connection.list(&key()).await);
    simulator.fault(Operation::Create, Times::Next(1), Fault::status(403));
    let why = not_done(create(&connection, "n").await);
    assert!(matches!(why, NotDone::Forbidden { .. }), "{why:?}");
    assert!(is_open(&connection));
    // A listing that was allowed once is forbidden now: then it is the token.
    simulator.set_tokens(vec![Token::forbidden("default", DEFAULT_TOKEN)]);
    let why = not_done(create(&connection, "n").await);
    assert!(matches!(why, NotDone::Refused { refusal: Refusal::Forbidden, .. }), "{why:?}");
}

#[tokio::test]
async fn what_is_forbidden_to_one_refuses_nobody_else() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    simulator.fault(Operation::Catalogue, Times::Always, Fault::status(403));
    let keys = ["1", "2", "3"].map(|last| ListingKey { unity_id: format!("{}{last}", &UNITY[..35]), ..key() });
    let forbid = |key: &ListingKey| {
        let path = format!("*/unity/{}/*", key.unity_id);
        simulator.fault(Matching::path("GET", &path), Times::Always, Fault::status(403))
    };
    // The very first call, before anything could be read.
    forbid(&keys[0]);
    let why = not_done(connection.list(&keys[0]).await);
    assert!(matches!(why, NotDone::Unconfirmed { status: 403, .. }), "{why:?}");
    assert_eq!(why.reason(), Reason::Forbidden);
    assert!(is_open(&connection));
    // The one that was read last loses its right.
    done(connection.list(&keys[1]).await);
    done(connection.list(&keys[2]).await);
    forbid(&keys[2]);
    let why = not_done(connection.list(&keys[2]).await);
    assert!(matches!(why, NotDone::Forbidden { .. }), "{why:?}");
    assert!(is_open(&connection));
    done(connection.list(&keys[1]).await);
}

#[tokio::test]
async fn a_probe_without_answer_says_nothing_of_the_token_and_is_made_once() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    simulator.fault(Operation::List, Times::Always, Fault::status(401));
    simulator.fault(Operation::Catalogue, Times::Always, Fault::reset_before_commit());
    let gate = simulator.hold(Operation::List, Point::BeforeCommit);
    let key = key();
    let calls = futures::future::join_all((0..5).map(|_| connection.list(&key)));
    let (outcomes, _) = tokio::join!(calls, async {
        gate.until_held(5).await;
        gate.release()
    });
    for outcome in outcomes {
        let why = not_done(outcome);
        assert!(matches!(why, NotDone::Unconfirmed { status: 401, .. }), "{why:?}");
        assert_eq!(why.reason(), Reason::ApiUnavailable);
    }
    assert_eq!(simulator.counts(Operation::Catalogue).received, 1);
    assert!(is_open(&connection));
}

#[tokio::test]
async fn a_refusal_of_a_token_replaced_meanwhile_is_no_refusal() {
    let simulator = Simulator::start();
    let file = TokenFile::new(DEFAULT_TOKEN);
    let (connection, _) = connect_with(&simulator, file.source(), |_| {});
    simulator.set_tokens(vec![Token::full("new", "new-token")]);
    let gate = simulator.hold_next(1, Operation::List, Point::BeforeCommit);
    let key = key();
    let (outcome, _) = tokio::join!(connection.list(&key), async {
        gate.until_held(1).await;
        file.write("new-token");
        gate.release()
    });
    let why = not_done(outcome);
    assert!(matches!(why, NotDone::TokenReplaced { status: 401, .. }), "{why:?}");
    assert_eq!(why.reason(), Reason::ApiUnavailable);
    done(connection.list(&key).await);
}

#[tokio::test]
async fn no_token_is_a_refusal_that_names_the_file_and_heals() {
    let simulator = Simulator::start();
    let file = TokenFile::new("");
    let (connection, _) = connect_with(&simulator, file.source(), |_| {});
    let path = file.0.display().to_string();
    let why = not_done(create(&connection, "n").await);
    assert!(matches!(why, NotDone::Refused { refusal: Refusal::NoToken(TokenError::Empty { .. }), .. }), "{why:?}");
    assert!(why.to_string().contains(&path), "{why}");
    assert_eq!(why.reason(), Reason::Unauthorized);
    assert!(simulator.journal().is_empty());
    std::fs::remove_file(&file.0).unwrap();
    let refused =
        |state: &State| matches!(state, State::Refused { refusal: Refusal::NoToken(TokenError::Unreadable { .. }) });
    until(&connection, refused).await;
    file.write(DEFAULT_TOKEN);
    until(&connection, |state| *state == State::Open).await;
    done(create(&connection, "n").await);
}
