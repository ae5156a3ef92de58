//! What each thing that can happen to a call makes of it.

use toolzz_operator::{
    api::{CredentialId, Reason, SecretId},
    remote::{ConnectFailure, Connection, Lost, NotDone, Operation, Outcome, TokenSource, Unreadable},
};
use toolzz_simulator::{Commit, DEFAULT_TOKEN, Fault, ListingFormat, OPENAI, Reply, Simulator, Times};

use crate::support::*;

/// What is expected of a call.
#[derive(Debug, PartialEq)]
enum Expected {
    Rejected(u16),
    NotNow(u16),
    Lost(Lost),
}

fn unreadable(status: u16, problem: Unreadable) -> Expected {
    Expected::Lost(Lost::Unreadable { status, problem })
}

/// A short time limit only where running out of it is what is expected.
fn patient_unless(simulator: &Simulator, expected: &Expected) -> Connection {
    match expected {
        Expected::Lost(Lost::TimedOut(_)) => connect_impatient(simulator),
        _ => connect(simulator),
    }
}

fn found<T: std::fmt::Debug>(outcome: Outcome<T>) -> Expected {
    match outcome {
        Outcome::NotDone(NotDone::Rejected { status, .. }) => Expected::Rejected(status),
        Outcome::NotDone(NotDone::NotNow { status, .. }) => Expected::NotNow(status),
        Outcome::Unknown(unknown) => Expected::Lost(unknown.lost),
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test]
async fn a_create_says_what_it_made_and_never_makes_it_active() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    let row = done(create(&connection, "n").await);
    let there = simulator.credentials().remove(0);
    assert_eq!(row.id.as_str(), there.id.to_string());
    assert_eq!(row.fields.secret_id.as_str(), there.row.secret_id.to_string());
    assert_eq!(row.virtual_key.as_deref(), Some(there.row.virtual_key.as_str()));
    assert!(!row.fields.active && !there.row.active);
    assert_eq!(row.integration.unwrap().slug, "openai");
    assert_eq!(simulator.material_of(there.row.secret_id).unwrap()[0]["api_key"], KEY_MATERIAL);
}

#[tokio::test]
async fn an_update_sets_the_whole_row() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    let (first, second) = (done(create(&connection, "a").await), done(create(&connection, "b").await));
    let wanted = fields("renamed", second.fields.secret_id, true);
    let row = done(connection.update(&first.id, &wanted, None).await);
    assert_eq!((row.fields, row.id, row.virtual_key), (wanted, first.id, first.virtual_key));
}

#[tokio::test]
async fn whatever_becomes_of_a_create_is_told_from_the_other_ways() {
    let limit = 1 << 20;
    let late = Fault::new(Commit::OnRelease, Reply::Normal);
    let mut cases = vec![
        (Fault::reset_before_commit(), Expected::Lost(Lost::Disconnected)),
        (Fault::reset_after_commit(), Expected::Lost(Lost::Disconnected)),
        (Fault::lost_answer(), Expected::Lost(Lost::TimedOut(SHORT))),
        (Fault::hang_before(Commit::Never), Expected::Lost(Lost::TimedOut(SHORT))),
        (Reply::Drip { bytes: 1, every_ms: 50 }.into(), Expected::Lost(Lost::TimedOut(SHORT))),
        (Reply::Truncated.into(), Expected::Lost(Lost::Disconnected)),
        (Reply::Garbled.into(), unreadable(201, Unreadable::NotJson)),
        (Reply::Html.into(), unreadable(200, Unreadable::NotJson)),
        (Reply::WrongShape.into(), unreadable(200, Unreadable::WrongShape)),
        (late, unreadable(202, Unreadable::WrongShape)),
        (Reply::Huge { bytes: 1 << 22 }.into(), unreadable(200, Unreadable::TooLong { limit })),
        (Fault::status_after_commit(500), Expected::Lost(Lost::ServerError(500))),
    ];
    for status in [408, 500, 501, 502, 503, 504, 599] {
        cases.push((Fault::status(status), Expected::Lost(Lost::ServerError(status))));
    }
    for status in [400, 402, 405, 406, 409, 410, 412, 413, 414, 415, 422, 451, 499] {
        cases.push((Fault::status(status), Expected::Rejected(status)));
    }
    for status in [404, 421, 423, 425] {
        cases.push((Fault::status(status), Expected::NotNow(status)));
    }
    for status in [300, 304] {
        cases.push((Fault::status(status), Expected::Lost(Lost::Redirected(status))));
    }
    for (fault, expected) in cases {
        let simulator = Simulator::start();
        let connection = patient_unless(&simulator, &expected);
        simulator.fault(toolzz_simulator::Operation::Create, Times::Always, fault.clone());
        let outcome = create(&connection, "n").await;
        let reason = match &outcome {
            Outcome::NotDone(why) => why.reason(),
            Outcome::Unknown(why) => why.reason(),
            Outcome::Done(row) => panic!("{fault:?}: {row:?}"),
        };
        let looked_for = matches!(expected, Expected::Lost(_));
        assert_eq!(reason == Reason::OutcomeUnknown, looked_for, "{fault:?}");
        assert_eq!(found(outcome), expected, "{fault:?}");
        // A machine under load may run out of the short time before it has sent anything.
        assert!(simulator.posts() <= 1, "sent again: {fault:?}");
    }
}

#[tokio::test]
async fn whatever_becomes_of_an_update_or_a_listing_is_told_too() {
    for (fault, expected) in [
        (Fault::reset_after_commit(), Expected::Lost(Lost::Disconnected)),
        (Fault::lost_answer(), Expected::Lost(Lost::TimedOut(SHORT))),
        (Reply::Truncated.into(), Expected::Lost(Lost::Disconnected)),
        (Reply::Garbled.into(), unreadable(200, Unreadable::NotJson)),
        (Reply::Html.into(), unreadable(200, Unreadable::NotJson)),
        (Reply::WrongShape.into(), unreadable(200, Unreadable::WrongShape)),
        (Fault::status(400), Expected::Rejected(400)),
        (Fault::status(425), Expected::NotNow(425)),
        (Fault::status(502), Expected::Lost(Lost::ServerError(502))),
    ] {
        let simulator = Simulator::start();
        let row = done(create(&connect(&simulator), "n").await);
        let connection = patient_unless(&simulator, &expected);
        for operation in [toolzz_simulator::Operation::Update, toolzz_simulator::Operation::List] {
            simulator.fault(operation, Times::Always, fault.clone());
        }
        let update = connection.update(&row.id, &fields("n", row.fields.secret_id, true), None).await;
        assert_eq!(found(update), expected, "{fault:?}");
        assert_eq!(found(connection.list(&key()).await), expected, "{fault:?}");
        assert!(simulator.puts() <= 1 && simulator.lists() <= 1, "sent again: {fault:?}");
    }
}

#[tokio::test]
async fn cve_2026_40924_an_endless_listing_is_not_read_to_its_end() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    simulator.fault(toolzz_simulator::Operation::List, Times::Always, Reply::Huge { bytes: 1 << 40 });
    let limit = 64 << 20;
    assert_eq!(found(connection.list(&key()).await), unreadable(200, Unreadable::TooLong { limit }));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (simulator, elsewhere) = (Simulator::start(), Simulator::start());
    let connection = connect(&simulator);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("{}/credential", elsewhere.url());
        simulator.fault(toolzz_simulator::Operation::Create, Times::Next(1), Reply::Redirect { status, location });
        assert_eq!(found(create(&connection, "n").await), Expected::Lost(Lost::Redirected(status)));
    }
    assert!(elsewhere.journal().is_empty());
}

#[tokio::test]
async fn an_answer_about_another_credential_is_none() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    let row = done(create(&connection, "n").await);
    let body = format!(
        r#"{{"id":"other","name":"m","userId":"{USER}","unityId":"{UNITY}","integrationId":"{OPENAI}","secretId":"s","status":false}}"#
    );
    let reply = Reply::Status { status: 200, headers: vec![], body };
    for operation in [toolzz_simulator::Operation::Create, toolzz_simulator::Operation::Update] {
        simulator.fault(operation, Times::Always, reply.clone());
    }
    let expected = || unreadable(200, Unreadable::AnotherCredential);
    assert_eq!(found(create(&connection, "n").await), expected());
    assert_eq!(found(connection.update(&row.id, &row.fields, None).await), expected());
    assert_eq!(done(create(&connection, "m").await).id.as_str(), "other", "the same answer, to who asked for it");
}

#[tokio::test]
async fn nobody_there_means_nothing_sent() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    done(connection.list(&key()).await);
    simulator.go_down();
    // The connection in the pool is closed: whether it is noticed before or after sending is a race.
    let _ = connection.list(&key()).await;
    let Outcome::NotDone(why) = create(&connection, "n").await else { panic!("there is nobody") };
    let NotDone::Unreachable { failure, .. } = &why else { panic!("{why:?}") };
    assert_eq!((*failure, why.reason()), (ConnectFailure::Refused, Reason::ApiUnavailable));
    let address = simulator.address();
    assert_eq!(why.to_string(), format!("create: {address} cannot be reached: connection refused"));
    assert_eq!(unreachable(&connection).await, ConnectFailure::Refused);
    simulator.come_up().unwrap();
    done(create(&connection, "n").await);
}

#[tokio::test]
async fn a_name_without_address_is_said() {
    let simulator = Simulator::start();
    // No label of a name is this long: no resolver has to be asked.
    let name = "x".repeat(64);
    let (connection, _) = connect_with(&simulator, TokenSource::fixed(DEFAULT_TOKEN.into()), |config| {
        config.base_url = format!("http://{name}.invalid/api/v1");
        config.allow_insecure_http = true;
    });
    assert_eq!(unreachable(&connection).await, ConnectFailure::Dns);
}

#[tokio::test]
async fn an_id_cannot_change_the_path() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    let wanted = fields("n", SecretId::from("s"), true);
    for (id, last) in
        [("../x", "..%2Fx"), ("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("%2e%2e", "%252e%252e"), ("...", "...")]
    {
        let _ = connection.update(&CredentialId::from(id), &wanted, None).await;
        let entry = simulator.journal().pop().unwrap();
        assert_eq!((entry.method.as_str(), entry.path), ("PUT", format!("/api/v1/credential/{last}")));
    }
    let before = simulator.journal().len();
    for id in ["", ".", ".."] {
        let outcome = connection.update(&CredentialId::from(id), &wanted, None).await;
        assert!(matches!(outcome, Outcome::NotDone(NotDone::Unsendable { .. })), "{outcome:?}");
        let mut key = key();
        key.unity_id = id.to_owned();
        let outcome = connection.list(&key).await;
        assert!(matches!(outcome, Outcome::NotDone(NotDone::Unsendable { .. })), "{outcome:?}");
    }
    assert_eq!(simulator.journal().len(), before);
}

#[tokio::test]
async fn an_update_of_what_is_not_there_says_so() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    let row = done(create(&connection, "n").await);
    simulator.remove(row.id.as_str().parse().unwrap());
    let outcome = connection.update(&row.id, &row.fields, None).await;
    assert_eq!(outcome, Outcome::NotDone(NotDone::Gone { operation: Operation::Update }));
}

#[tokio::test]
async fn a_listing_is_read_in_every_format() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    let (one, two) = (done(create(&connection, "a").await), done(create(&connection, "b").await));
    for format in [ListingFormat::Documented, ListingFormat::Older, ListingFormat::Items] {
        simulator.configure(|settings| settings.listing_format = format);
        let listed = done(connection.list(&key()).await);
        assert!(listed.complete);
        assert_eq!(listed.rows, [one.clone(), two.clone()], "{format:?}");
    }
}

#[tokio::test]
async fn every_call_is_told_to_the_observer_once() {
    let simulator = Simulator::start();
    let (connection, recorder) = connect_with(&simulator, TokenSource::fixed(DEFAULT_TOKEN.into()), |_| {});
    done(create(&connection, "n").await);
    done(connection.list(&key()).await);
    assert!(connection.catalogue().await.is_some());
    simulator.fault(toolzz_simulator::Operation::Create, Times::Next(1), Reply::Html);
    let _ = create(&connection, "n").await;
    simulator.fault(toolzz_simulator::Operation::Create, Times::Next(1), Fault::status(422));
    let _ = create(&connection, "n").await;
    simulator.fault(toolzz_simulator::Operation::Create, Times::Next(1), Fault::status(403));
    let _ = create(&connection, "n").await;
    let calls = recorder.calls.lock().unwrap();
    assert_eq!(
        *calls,
        [
            (Operation::Create, "done"),
            (Operation::List, "done"),
            (Operation::Catalogue, "done"),
            (Operation::Create, "unreadable"),
            (Operation::Create, "rejected"),
            (Operation::Create, "forbidden"),
            (Operation::Probe, "done"),
        ]
    );
    assert_eq!(*recorder.listings.lock().unwrap(), [1]);
}
