//! Each fault does what its name says, seen from the client.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::json;
use toolzz_simulator::{Commit, Effect, Fault, Matching, Operation, Point, Reply, Rule, Simulator, Times};

use crate::client::{Client, elsewhere, list_path, parse, row, staged};

fn start(fault: impl Into<Fault>) -> (Simulator, Client) {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    simulator.fault(Operation::Create, Times::Next(1), fault);
    (simulator, client)
}

#[tokio::test]
async fn a_status_replaces_the_answer_and_the_effect() {
    let (simulator, client) = start(Fault::retry_after_seconds(429, 7));
    let answer = client.post(&staged("a")).await.expect("an answer");
    assert_eq!(
        (answer.status(), answer.headers()["retry-after"].to_str().ok()),
        (StatusCode::TOO_MANY_REQUESTS, Some("7"))
    );
    assert_eq!(simulator.credentials().len(), 0);
    assert_eq!(client.create(&staged("a")).await.0, StatusCode::CREATED, "only the next one was met");
    assert_eq!(simulator.counts(Operation::Create).committed, 1);
}

#[tokio::test]
async fn retry_after_can_be_a_date() {
    let when = Timestamp::from_second(1_732_406_400).expect("a time");
    let (_simulator, client) = start(Fault::retry_after_date(503, when));
    let answer = client.post(&staged("a")).await.expect("an answer");
    assert_eq!(answer.headers()["retry-after"].to_str().ok(), Some("Sun, 24 Nov 2024 00:00:00 GMT"));
}

#[tokio::test]
async fn a_status_after_commit_lies() {
    let (simulator, client) = start(Fault::status_after_commit(500));
    assert_eq!(client.create(&staged("a")).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(simulator.credentials().len(), 1);
    let entry = simulator.journal().remove(0);
    assert_eq!((entry.status, entry.decided), (Some(500), Some(201)));
}

#[tokio::test]
async fn a_reset_gives_no_answer() {
    for (fault, committed) in [(Fault::reset_before_commit(), 0), (Fault::reset_after_commit(), 1)] {
        let (simulator, client) = start(fault);
        let error = client.post(&staged("a")).await.expect_err("no answer");
        assert!(!error.is_connect() && !error.is_timeout(), "{error:?}");
        assert_eq!(simulator.credentials().len(), committed);
        assert_eq!(simulator.posts(), 1, "the client did not send it twice");
        assert_eq!(simulator.journal()[0].status, None);
    }
}

#[tokio::test]
async fn a_lost_answer_lasts_until_the_client_gives_up() {
    let (simulator, client) = start(Fault::lost_answer());
    client.post_and_die(&simulator, &staged("a")).await;
    simulator.until(|state| state.in_flight() == 0).await;
    let entry = simulator.journal().remove(0);
    assert!(entry.client_gone && entry.status.is_none(), "{entry:?}");
    assert!(matches!(entry.effect, Effect::Committed { .. }), "{entry:?}");
    assert_eq!(simulator.credentials().len(), 1);
}

#[tokio::test]
async fn a_hang_is_bounded() {
    let (simulator, client) = start(Fault::new(Commit::Never, Reply::Hang { at_most_ms: 30 }));
    assert!(!client.post(&staged("a")).await.expect_err("no answer").is_timeout());
    assert!(!simulator.journal()[0].client_gone);
    assert_eq!(simulator.credentials().len(), 0);
}

#[tokio::test]
async fn a_late_commit_waits_for_its_release() {
    let never = Fault::hang_before(Commit::Never);
    let hanging = Fault::hang_before(Commit::OnRelease);
    for (fault, late) in [(Fault::late_commit(), 1), (hanging, 1), (never, 0)] {
        let closes = fault.reply == Reply::Reset;
        let (simulator, client) = start(fault);
        if closes {
            client.post(&staged("a")).await.expect_err("no answer");
        } else {
            client.post_and_die(&simulator, &staged("a")).await;
        }
        simulator.until(|state| state.in_flight() == 0).await;
        assert_eq!((simulator.credentials().len(), simulator.pending_commits()), (0, late));
        assert_eq!(simulator.journal()[0].effect == Effect::Pending, late == 1);
        assert_eq!(simulator.release_late(), late);
        assert_eq!(simulator.credentials().len(), late);
        let committed = matches!(simulator.journal()[0].effect, Effect::Committed { .. });
        assert_eq!(committed, late == 1);
    }
}

#[tokio::test]
async fn a_late_commit_can_be_discarded() {
    let (simulator, client) = start(Fault::late_commit());
    client.post(&staged("a")).await.expect_err("no answer");
    assert_eq!((simulator.discard_late(), simulator.release_late()), (1, 0));
    assert_eq!((simulator.credentials().len(), simulator.journal()[0].effect), (0, Effect::None));
}

#[tokio::test]
async fn a_late_commit_can_come_by_itself() {
    let (simulator, client) = start(Fault::new(Commit::After { ms: 20 }, Reply::Normal));
    let (status, answer) = client.create(&staged("a")).await;
    assert_eq!((status, answer), (StatusCode::ACCEPTED, json!({"message": "accepted"})));
    simulator.until(|state| state.credentials().len() == 1).await;
    assert_eq!(simulator.pending_commits(), 0);
}

#[tokio::test]
async fn a_request_that_is_refused_commits_nothing_late() {
    let (simulator, mut client) = start(Fault::late_commit());
    client.token = "wrong".to_owned();
    client.post(&staged("a")).await.expect_err("no answer");
    simulator.release_late();
    assert_eq!((simulator.credentials().len(), simulator.journal()[0].decided), (0, Some(401)));
}

#[tokio::test]
async fn broken_bodies_break_where_they_should() {
    let (_simulator, client) = start(Reply::Garbled);
    let answer = client.post(&staged("a")).await.expect("a head");
    assert_eq!(answer.status(), StatusCode::CREATED);
    let bytes = answer.bytes().await.expect("a whole body");
    assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_err());

    let (simulator, client) = start(Reply::Truncated);
    let answer = client.post(&staged("a")).await.expect("a head");
    assert!(answer.content_length().is_some_and(|length| length > 100));
    assert!(answer.bytes().await.is_err(), "the connection ends within the body");
    assert_eq!(simulator.credentials().len(), 1);

    let (_simulator, client) = start(Reply::Html);
    let answer = client.post(&staged("a")).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.expect("text").contains("<html>"));

    let (_simulator, client) = start(Reply::WrongShape);
    let (status, answer) = client.create(&staged("a")).await;
    assert!(status.is_success() && answer.get("id").is_none());

    let (_simulator, client) = start(Reply::Huge { bytes: 300_000 });
    let answer = client.post(&staged("a")).await.expect("an answer");
    assert_eq!(answer.content_length(), None, "its length is not told beforehand");
    let bytes = answer.bytes().await.expect("a whole body");
    assert_eq!(bytes.len(), 300_000);
    assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
}

#[tokio::test]
async fn a_redirect_names_its_target() {
    let target = "http://127.0.0.1:9/elsewhere";
    let (_simulator, client) =
        start(Fault::new(Commit::Never, Reply::Redirect { status: 302, location: target.to_owned() }));
    let answer = client.post(&staged("a")).await.expect("an answer");
    assert_eq!((answer.status(), answer.headers()["location"].to_str().ok()), (StatusCode::FOUND, Some(target)));
}

#[tokio::test]
async fn slow_answers_take_their_time() {
    let drip = Fault::from(Reply::Drip { bytes: 400, every_ms: 10 });
    for fault in [Fault::slow(50), Fault { delay_after_ms: 50, ..Fault::default() }, drip] {
        let (_simulator, client) = start(fault);
        let begun = Instant::now();
        let (status, answer) = client.create(&staged("a")).await;
        // A lower bound only: the simulator itself waits, however fast the machine is.
        assert!(begun.elapsed() >= Duration::from_millis(40));
        assert_eq!((status, &answer["name"]), (StatusCode::CREATED, &json!("a")));
    }
    let (simulator, client) = start(Fault::default());
    simulator.configure(|settings| settings.latency_ms = 50);
    let begun = Instant::now();
    client.create(&staged("a")).await;
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn listings_can_lie() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let first = simulator.insert(elsewhere("a", true));
    let gone = simulator.insert(elsewhere("b", true));
    let point = simulator.point();
    simulator.edit(first, |row| row.name = "A".to_owned());
    simulator.remove(gone);
    let later = simulator.insert(elsewhere("c", true));
    let names = async |reply: Option<Reply>| {
        if let Some(reply) = reply {
            simulator.fault(Operation::List, Times::Next(1), reply);
        }
        let rows = client.list().await.1;
        let names =
            rows.as_array().expect("an array").iter().map(|row| row["credentials"]["name"].as_str().map(str::to_owned));
        names.collect::<Option<Vec<_>>>().expect("names").join(" ")
    };
    assert_eq!(names(Some(Reply::Stale { as_of: point })).await, "a b");
    assert_eq!(names(Some(Reply::Stale { as_of: 0 })).await, "");
    assert_eq!(names(Some(Reply::Empty)).await, "");
    assert_eq!(names(Some(Reply::Partial { every: 2 })).await, "A");
    assert_eq!(names(Some(Reply::Partial { every: 1 })).await, "");
    assert_eq!(names(None).await, "A c");
    simulator.remove(later);
    assert_eq!(names(None).await, "A");
    assert_eq!(simulator.journal()[0].rows, Some(2));
}

#[tokio::test]
async fn faults_meet_only_what_they_match() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let poisoned = simulator.fault(Matching::named(Operation::Create, "poisoned"), Times::Always, Fault::status(500));
    let voice = Matching::path("GET", "/api/v1/credential/unity/*/type/voice");
    let listing = simulator.add_rule(Rule { on: voice, times: Times::Next(1), skip: 1, fault: Fault::status(503) });
    assert_eq!(client.create(&staged("poisoned [toolzz-operator 00000000-ffffffff]")).await.0.as_u16(), 500);
    assert_eq!(client.create(&staged("poisoned")).await.0.as_u16(), 500);
    let (status, created) = client.create(&staged("sound")).await;
    assert_eq!(status.as_u16(), 201);
    assert_eq!(client.put(&created["id"], &row("poisoned", true)).await.0.as_u16(), 200);
    let mut statuses = vec![client.list().await.0.as_u16()];
    for _ in 0..3 {
        statuses.push(client.json(Method::GET, &list_path("voice"), None).await.0.as_u16());
    }
    assert_eq!(statuses, [200, 200, 503, 200]);
    assert_eq!((simulator.hits(poisoned), simulator.hits(listing)), (2, 1));
    simulator.remove_fault(poisoned);
    assert_eq!(client.create(&staged("poisoned")).await.0.as_u16(), 201);
}

#[tokio::test]
async fn going_down_refuses_connections_and_comes_up_on_the_same_port() {
    let (simulator, client) = start(Fault::default());
    client.list().await;
    simulator.go_down();
    // A client of its own: the other one may try its open connection before it sees that it was closed.
    let refused = Client::new(&simulator).post(&staged("a")).await;
    assert!(refused.expect_err("refused").is_connect());
    simulator.come_up().expect("the port");
    let answer = Client::new(&simulator).post(&staged("a")).await.expect("an answer");
    assert_eq!(parse(answer).await["name"], "a");
    assert_eq!(simulator.posts(), 1);
}

#[tokio::test]
async fn who_stops_listening_gives_the_answers_that_are_due_and_refuses_the_next_call() {
    let (simulator, client) = start(Fault::default());
    // Nobody is at work on it when the port is closed.
    let idle = Client::new(&simulator);
    idle.list().await;
    let gate = simulator.hold(Operation::Create, Point::AfterCommit);
    let request = tokio::spawn(async move {
        let created = client.create(&staged("a")).await.0;
        (created, client.post(&staged("b")).await.map(|_| ()))
    });
    gate.until_held(1).await;
    simulator.stop_listening();
    gate.release();
    let (created, next) = request.await.expect("no panic");
    assert_eq!(created, StatusCode::CREATED);
    // It may have tried its open connection before it saw that it was closed; then it was reset.
    next.expect_err("nobody answers");
    assert!(Client::new(&simulator).post(&staged("c")).await.expect_err("refused").is_connect());
    simulator.come_up().expect("the port");
    assert_eq!(Client::new(&simulator).create(&staged("d")).await.0, StatusCode::CREATED);
    assert_eq!(simulator.posts(), 2);
}

#[tokio::test]
async fn disconnecting_loses_the_answer_but_not_the_effect() {
    let (simulator, client) = start(Fault::default());
    let gate = simulator.hold(Operation::Create, Point::BeforeCommit);
    let request = tokio::spawn(async move { client.post(&staged("a")).await.map(|_| ()) });
    gate.until_held(1).await;
    simulator.disconnect();
    request.await.expect("no panic").expect_err("the connection is closed");
    gate.release();
    simulator.until(|state| state.credentials().len() == 1).await;
    assert_eq!(Client::new(&simulator).create(&staged("b")).await.0, StatusCode::CREATED);
}
