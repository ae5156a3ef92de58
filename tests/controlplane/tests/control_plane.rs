//! The control plane does for the tests of others what it promises.

#![allow(clippy::unwrap_used, reason = "clippy does not take the helpers of tests for tests")]

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions},
};
use serde_json::json;
use test_controlplane::{ControlPlane, Options};

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

async fn client_of(kubeconfig: &std::path::Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn a_service_account_has_the_rights_of_its_bindings_and_no_more() {
    let plane = ControlPlane::shared().await.unwrap();
    let admin = plane.client().await.unwrap();
    let namespace = plane.unique_namespace("rbac").await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &namespace);
    let account = object(json!({"metadata": {"name": "reader"}}));
    accounts.create(&PostParams::default(), &account).await.unwrap();

    let kubeconfig = plane.service_account_kubeconfig(&namespace, "reader").await.unwrap();
    let reader = client_of(&kubeconfig).await;
    let secrets: Api<Secret> = Api::default_namespaced(reader.clone());
    let refused = secrets.list(&ListParams::default()).await.unwrap_err();
    assert_eq!(status_code(&refused), Some(403), "{refused}");

    let bound = plane
        .kubectl(["create", "role", "reader", "--verb=list", "--resource=secrets", "-n", &namespace])
        .status()
        .unwrap();
    assert!(bound.success());
    let account = format!("--serviceaccount={namespace}:reader");
    let bound = plane
        .kubectl(["create", "rolebinding", "reader", "--role=reader", &account, "-n", &namespace])
        .status()
        .unwrap();
    assert!(bound.success());

    // The authorizer learns of the binding from a watch.
    let mut answer = secrets.list(&ListParams::default()).await;
    while answer.as_ref().is_err_and(|error| status_code(error) == Some(403)) {
        answer = secrets.list(&ListParams::default()).await;
    }
    answer.unwrap();
    let elsewhere: Api<Secret> = Api::namespaced(reader, "default");
    let refused = elsewhere.list(&ListParams::default()).await.unwrap_err();
    assert_eq!(status_code(&refused), Some(403), "{refused}");
}

#[tokio::test]
async fn a_token_for_nobody_is_an_error_that_names_the_account() {
    let plane = ControlPlane::shared().await.unwrap();
    let error = plane.service_account_kubeconfig("default", "nobody").await.unwrap_err();
    assert!(error.to_string().contains("default/nobody"), "{error}");
}

#[tokio::test]
async fn the_controllers_delete_the_content_of_a_namespace() {
    let plane = ControlPlane::shared().await.unwrap();
    let client = plane.client().await.unwrap();
    let namespace = plane.unique_namespace("gone").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let map = object(json!({"metadata": {"name": "map"}}));
    let uid = maps.create(&PostParams::default(), &map).await.unwrap().uid().unwrap();
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client);
    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    await_condition(maps, "map", conditions::is_deleted(&uid)).await.unwrap();
}

#[tokio::test]
async fn pod_security_is_enforced() {
    let plane = ControlPlane::shared().await.unwrap();
    let namespace = plane.unique_namespace("restricted").await.unwrap();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let labelled = plane.kubectl(["label", "namespace", &namespace, label]).status().unwrap();
    assert!(labelled.success());
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client().await.unwrap(), &namespace);
    let exists = |account: Option<&ServiceAccount>| account.is_some();
    await_condition(accounts, "default", exists).await.unwrap();
    let output = plane.kubectl(["run", "root", "--image=example", "--privileged", "-n", &namespace]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("violates PodSecurity"), "{message}");
}

#[tokio::test]
async fn helm_and_kubectl_are_the_pinned_ones_and_stay_out_of_the_home() {
    let plane = ControlPlane::shared().await.unwrap();
    let version = plane.kubectl(["version", "--output=json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&version.stdout).unwrap();
    assert_eq!(version["clientVersion"]["gitVersion"], version["serverVersion"]["gitVersion"]);
    let list = plane.helm(["list", "--all-namespaces", "--output=json"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&list.stdout).trim(), "[]");
    assert!(plane.directory().join("home/.kube").is_dir());
}

#[tokio::test]
async fn a_restart_keeps_the_data_and_the_address() {
    // Its own: a restart disturbs the other tests.
    let plane = ControlPlane::start(Options { controller_manager: false, ..Options::default() }).await.unwrap();
    let client = plane.client().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let map: ConfigMap = object(json!({"metadata": {"name": "kept"}, "data": {"key": "value"}}));
    let before = maps.create(&PostParams::default(), &map).await.unwrap();

    plane.stop_api_server().await.unwrap();
    std::net::TcpStream::connect(plane.server().trim_start_matches("https://")).unwrap_err();
    plane.start_api_server().await.unwrap();
    assert_eq!(maps.get("kept").await.unwrap(), before);

    plane.restart_api_server().await.unwrap();
    assert_eq!(maps.get("kept").await.unwrap(), before);

    let directory = plane.directory().to_owned();
    drop(plane);
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_restart_waits_for_its_port() {
    let plane = ControlPlane::start(Options { controller_manager: false, ..Options::default() }).await.unwrap();
    plane.stop_api_server().await.unwrap();
    let squatter = std::net::TcpListener::bind(plane.server().trim_start_matches("https://")).unwrap();
    let log = plane.directory().join("logs/kube-apiserver.log");
    let release = async {
        while !std::fs::read_to_string(&log).unwrap().contains("address already in use") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        drop(squatter);
    };
    let (started, ()) = tokio::join!(plane.start_api_server(), release);
    started.unwrap();
    plane.unique_namespace("after").await.unwrap();
}

/// The shared control plane is started on the runtime of whichever test is first; here that one is gone.
#[test]
fn nothing_depends_on_the_runtime_that_started_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = Options { controller_manager: false, ..Options::default() };
    let plane = runtime().block_on(ControlPlane::start(options)).unwrap();
    runtime().block_on(plane.restart_api_server()).unwrap();
    runtime().block_on(plane.unique_namespace("later")).unwrap();
}
