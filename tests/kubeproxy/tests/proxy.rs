//! The proxy in front of a real API server: what it stops, breaks, delays and remembers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use test_controlplane::ControlPlane;
use test_kubeproxy::{Asked, Fault, Operation, Point, Proxy, State, Times};

/// Far beyond what anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Room {
    proxy: Proxy,
    /// Through the proxy.
    through: Api<ConfigMap>,
    /// Past it.
    past: Api<ConfigMap>,
}

impl Room {
    async fn new() -> Self {
        let plane = ControlPlane::shared().await.unwrap();
        let namespace = plane.unique_namespace("proxy").await.unwrap();
        let admin = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(admin, &KubeConfigOptions::default()).await.unwrap();
        let proxy = Proxy::start(config).unwrap();
        let own = Kubeconfig::from_yaml(&proxy.kubeconfig(&namespace)).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(own, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let through = Api::default_namespaced(Client::try_from(config).unwrap());
        let past = Api::namespaced(plane.client().await.unwrap(), &namespace);
        Self { proxy, through, past }
    }

    async fn exists(&self, name: &str) -> bool {
        self.past.get_opt(name).await.unwrap().is_some()
    }

    /// A watch of ConfigMaps through the proxy, from now on.
    async fn watch(&self) -> Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<ConfigMap>>>>> {
        let now = self.past.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
        let ours = WatchParams::default().labels("ours");
        Box::pin(self.through.watch(&ours, &now).await.unwrap())
    }
}

fn named(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"ours": "yes"}}})).unwrap()
}

fn creates(asked: &Asked) -> bool {
    asked.operation == Operation::Create && asked.resource == "configmaps"
}

fn code(result: Result<ConfigMap, kube::Error>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        Ok(_) | Err(_) => None,
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it does not happen")
}

async fn next_name(events: &mut Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<ConfigMap>>>>>) -> Option<String> {
    loop {
        return match soon(events.next()).await? {
            Ok(WatchEvent::Added(object)) => object.metadata.name,
            Ok(WatchEvent::Bookmark(_)) => continue,
            Ok(other) => Some(format!("{other:?}")),
            Err(error) => Some(error.to_string()),
        };
    }
}

#[tokio::test]
async fn requests_pass_and_are_remembered_without_their_bodies() {
    let room = Room::new().await;
    let mut object = named("a");
    object.data = Some([("key".to_owned(), "a-secret-value".to_owned())].into());
    room.through.create(&PostParams::default(), &object).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "another-secret-value"}}));
    let patched = room.through.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap()["key"], "another-secret-value");
    room.through.delete("a", &Default::default()).await.unwrap();
    assert_eq!(code(room.through.get("a").await), Some(404));
    let journal = room.proxy.journal();
    let seen: Vec<_> =
        journal.iter().map(|entry| (entry.asked.operation, entry.asked.name.as_deref(), entry.status)).collect();
    let a = Some("a");
    assert_eq!(
        seen,
        [
            (Operation::Create, a, Some(201)),
            (Operation::Patch, a, Some(200)),
            (Operation::Delete, a, Some(200)),
            (Operation::Get, a, Some(404)),
        ]
    );
    assert_eq!(journal.iter().filter(|entry| entry.committed()).count(), 3);
    assert!(!format!("{journal:?}").contains("secret-value"));
}

#[tokio::test]
async fn a_gate_stops_a_request_before_it_is_sent_or_after_it_is_committed() {
    let room = Room::new().await;
    for (point, there) in [(Point::BeforeSent, false), (Point::Committed, true)] {
        for released in [true, false] {
            let name = format!("{}-{released}", if there { "committed" } else { "before" });
            let gate = room.proxy.hold_next(1, creates, point);
            let (through, object) = (room.through.clone(), named(&name));
            let request = tokio::spawn(async move { through.create(&PostParams::default(), &object).await });
            soon(gate.until_held(1)).await;
            assert_eq!(room.exists(&name).await, there, "{name}");
            assert_eq!(if released { gate.release() } else { gate.discard() }, 1);
            let answer = soon(request).await.unwrap();
            assert_eq!(answer.is_ok(), released, "{name}: {answer:?}");
            assert_eq!(room.exists(&name).await, there || released, "{name}");
        }
    }
}

#[tokio::test]
async fn what_passed_its_gate_is_done_although_the_client_is_gone() {
    let room = Room::new().await;
    let gate = room.proxy.hold(creates, Point::BeforeSent);
    let (through, object) = (room.through.clone(), named("a"));
    let request = tokio::spawn(async move { through.create(&PostParams::default(), &object).await });
    soon(gate.until_held(1)).await;
    request.abort();
    soon(room.proxy.until(|state| state.journal()[0].client_gone)).await;
    gate.release();
    soon(room.proxy.until(|state| state.journal()[0].decided == Some(201))).await;
    assert!(room.exists("a").await);
}

#[tokio::test]
async fn faults_answer_instead_and_as_often_as_they_should() {
    let room = Room::new().await;
    let rule = room.proxy.fault(creates, Times::Next(2), Fault::forbidden());
    for expected in [Some(403), Some(403), None] {
        assert_eq!(code(room.through.create(&PostParams::default(), &named("a")).await), expected);
    }
    assert_eq!(room.proxy.hits(rule), 2);
    for (fault, expected, there) in [
        (Fault::conflict(), Some(409), false),
        (Fault::already_exists(), Some(409), false),
        (Fault::refused_by_webhook(), Some(422), false),
        (Fault::internal_error(), Some(500), false),
        (Fault::too_many_requests(1), Some(429), false),
        (Fault::namespace_terminating(), Some(403), false),
        (Fault::reset_before_commit(), None, false),
        (Fault::reset_after_commit(), None, true),
        (Fault::timeout_after_commit(), Some(504), true),
    ] {
        let name = format!("r{}", room.proxy.journal().len());
        let rule = room.proxy.fault(creates, Times::Always, fault.clone());
        let answer = room.through.create(&PostParams::default(), &named(&name)).await;
        assert!(answer.is_err(), "{fault:?}");
        assert_eq!(code(answer), expected, "{fault:?}");
        assert_eq!(room.exists(&name).await, there, "{fault:?}");
        room.proxy.remove_fault(rule);
    }
    room.proxy.fault(creates, Times::Next(1), Fault::lost_answer());
    let object = named("lost");
    let params = PostParams::default();
    tokio::select! {
        answer = room.through.create(&params, &object) => panic!("there is an answer: {answer:?}"),
        () = soon(room.proxy.until(|state| state.journal().iter().any(|entry| {
            entry.asked.name.as_deref() == Some("lost") && entry.decided == Some(201)
        }))) => {}
    }
    // And it goes on hanging until the client gives up.
    let lost =
        |state: &State| state.journal().iter().find(|entry| entry.asked.name.as_deref() == Some("lost")).cloned();
    assert!(room.exists("lost").await);
    soon(room.proxy.until(move |state| lost(state).is_some_and(|entry| entry.finished_at.is_some()))).await;
    assert!(room.proxy.read(lost).is_some_and(|entry| entry.status.is_none() && entry.client_gone));
}

#[tokio::test]
async fn watch_events_are_held_back_in_their_order_and_let_go() {
    let room = Room::new().await;
    let mut events = room.watch().await;
    let lag = room.proxy.lag(|asked| asked.is_watch_on("configmaps"), 2);
    for name in ["a", "b", "c", "d"] {
        room.past.create(&PostParams::default(), &named(name)).await.unwrap();
    }
    // What is older than the newest two comes.
    assert_eq!(next_name(&mut events).await.as_deref(), Some("a"));
    assert_eq!(next_name(&mut events).await.as_deref(), Some("b"));
    soon(room.proxy.until(|state| state.held_back() == 2)).await;
    assert!(futures::poll!(events.next()).is_pending());
    drop(lag);
    assert_eq!(next_name(&mut events).await.as_deref(), Some("c"));
    assert_eq!(next_name(&mut events).await.as_deref(), Some("d"));
    // A client that leaves is no watch any more.
    drop(events);
    soon(room.proxy.until(|state| state.watches(|_| true) == 0)).await;
}

#[tokio::test]
async fn a_watch_is_cut_kept_away_and_told_that_it_is_too_old() {
    let room = Room::new().await;
    let watches = |asked: &Asked| asked.is_watch_on("configmaps");
    let mut events = room.watch().await;
    soon(room.proxy.until(move |state| state.watches(watches) == 1)).await;
    let _lag = room.proxy.lag(watches, usize::MAX);
    room.past.create(&PostParams::default(), &named("lost")).await.unwrap();
    soon(room.proxy.until(|state| state.held_back() == 1)).await;
    assert_eq!(room.proxy.cut_watches(watches), 1);
    assert_eq!(next_name(&mut events).await, None, "what was held back does not come");
    assert_eq!(room.proxy.read(|state| state.watches(watches)), 0);
    room.proxy.fault(watches, Times::Next(1), Fault::expired());
    let mut events = room.watch().await;
    assert!(next_name(&mut events).await.unwrap().contains("Expired"));
    room.proxy.fault(watches, Times::Next(1), Fault::gone());
    let refused = room.through.watch(&WatchParams::default(), "1").await.map(|_| ());
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 410));
}

#[tokio::test]
async fn it_goes_away_and_comes_back_on_the_same_port() {
    let room = Room::new().await;
    let mut events = room.watch().await;
    room.proxy.go_down();
    // A broken stream, or one that ends: either way it is over.
    while let Some(Ok(_)) = soon(events.next()).await {}
    assert!(room.through.get_opt("a").await.is_err());
    room.proxy.come_up();
    let back = async {
        // A connection of before may be tried first.
        while room.through.get_opt("a").await.is_err() {}
    };
    soon(back).await;
}
