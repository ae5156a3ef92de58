//! Gates stop requests exactly where they say.

use serde_json::json;
use toolzz_simulator::{Matching, Operation, Point, Simulator};

use crate::client::{Client, row, staged};

#[tokio::test]
async fn a_gate_before_commit_stops_the_effect() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let gate = simulator.hold(Operation::Create, Point::BeforeCommit);
    let requests = ["a", "b"].map(|name| {
        let client = client.clone();
        tokio::spawn(async move { client.create(&staged(name)).await })
    });
    gate.until_held(2).await;
    assert_eq!((simulator.credentials().len(), simulator.read(|state| state.in_flight())), (0, 2));
    assert!(gate.release_one());
    simulator.until(|state| state.credentials().len() == 1).await;
    assert_eq!(gate.waiting(), 1);
    assert_eq!(gate.release(), 1);
    for request in requests {
        assert_eq!(request.await.expect("no panic").0.as_u16(), 201);
    }
    assert_eq!((simulator.credentials().len(), simulator.read(|state| state.max_in_flight())), (2, 2));
    client.create(&staged("c")).await;
}

#[tokio::test]
async fn a_gate_after_commit_stops_the_answer() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let gate = simulator.hold(Matching::named(Operation::Create, "a"), Point::AfterCommit);
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.post(&staged("a")).await.map(|_| ()) }
    });
    gate.until_held(1).await;
    assert_eq!(simulator.credentials().len(), 1);
    client.create(&staged("b")).await;
    assert_eq!(gate.discard(), 1);
    request.await.expect("no panic").expect_err("the connection is closed");
    assert_eq!(simulator.credentials().len(), 2);
}

#[tokio::test]
async fn a_discarded_request_does_nothing_and_a_dropped_gate_releases() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let gate = simulator.hold_next(1, Operation::Create, Point::BeforeCommit);
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.post(&staged("a")).await.map(|_| ()) }
    });
    gate.until_held(1).await;
    assert_eq!(client.create(&staged("b")).await.0.as_u16(), 201, "only the next one was stopped");
    assert!(gate.discard_one() && !gate.discard_one());
    request.await.expect("no panic").expect_err("the connection is closed");
    assert_eq!((simulator.named("a").len(), gate.held()), (0, 1));
    drop(gate);

    let gate = simulator.hold(Operation::Update, Point::BeforeCommit);
    let id = json!(simulator.named("b")[0].id);
    let request = tokio::spawn({
        let client = client.clone();
        async move { client.put(&id, &row("b", true)).await.0.as_u16() }
    });
    gate.until_held(1).await;
    drop(gate);
    assert_eq!(request.await.expect("no panic"), 200);
}

#[tokio::test]
async fn a_held_request_takes_effect_although_its_client_died() {
    let simulator = Simulator::start();
    let gate = simulator.hold(Operation::Create, Point::BeforeCommit);
    Client::new(&simulator).post_and_die(&simulator, &staged("a")).await;
    gate.until_held(1).await;
    simulator.until(|state| state.journal().all(|entry| entry.client_gone)).await;
    assert_eq!((gate.waiting(), simulator.credentials().len()), (1, 0));
    gate.release();
    simulator.until(|state| state.credentials().len() == 1 && state.in_flight() == 0).await;
    assert_eq!(simulator.journal()[0].status, None);
}

#[test]
fn awaiting_works_in_any_runtime_and_controls_in_none() {
    let simulator = Simulator::start();
    for _ in 0..2 {
        let other = simulator.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let gate = simulator.hold(Operation::Create, Point::AfterCommit);
        let before = simulator.posts();
        runtime.block_on(async move {
            let client = Client::new(&other);
            let request = tokio::spawn(async move { client.create(&staged("a")).await });
            other.until(|state| state.counts(Operation::Create).received > before).await;
            gate.until_held(1).await;
            gate.release();
            request.await.expect("no panic");
        });
    }
}

#[test]
fn it_stops_with_its_last_handle() {
    // A server of another test may get the freed port at once: one of a few tries must find it closed.
    let closed = (0..5).any(|_| {
        let simulator = Simulator::start();
        let (address, other) = (simulator.address(), simulator.clone());
        drop(simulator);
        assert!(std::net::TcpStream::connect(address).is_ok());
        drop(other);
        std::net::TcpStream::connect(address).is_err()
    });
    assert!(closed);
}
