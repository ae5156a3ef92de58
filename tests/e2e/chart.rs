//! The binary with the arguments, the environment and exactly the rights that the chart gives it.

use std::{path::Path, process::Command};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::Api;
use serde_json::json;
use toolzz_simulator::DEFAULT_TOKEN;

use super::support::*;

pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/toolzz-operator");
/// The value that must be set beside the token.
pub const IMAGE: &str = "image.repository=registry.example.com/toolzz-operator";

/// Starts the operator as the chart with these values does.
pub async fn start_as_chart(lab: &mut Lab, values: &str) {
    let command = as_chart(lab, values).await;
    lab.operator = Some(Operator::spawn(command, &lab.directory.join("operator.log")));
}

/// Installs the chart, and says how its pod would start the operator.
pub async fn as_chart(lab: &Lab, values: &str) -> Command {
    let namespace = lab.namespace.as_str();
    let set = format!(
        "apiUrl={},token.value={DEFAULT_TOKEN},{IMAGE},crds.enabled=false,settlePeriod=3s,requestTimeout=2s,{values}",
        lab.simulator.url()
    );
    let rendered =
        lab.plane.helm(["template", "op", CHART, "-n", namespace, "--skip-tests", "--set", &set]).output().unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let file = lab.directory.join("chart.yaml");
    std::fs::write(&file, &rendered.stdout).unwrap();
    let applied = lab.plane.kubectl(["apply", "--server-side", "-f"]).arg(&file).output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    as_installed(lab).await
}

/// How the pod of the release in this namespace would start the operator.
pub async fn as_installed(lab: &Lab) -> Command {
    let namespace = lab.namespace.clone();
    let deployments: Api<Deployment> = Api::namespaced(lab.client.clone(), &namespace);
    let deployment = deployments.list(&Default::default()).await.unwrap().items.remove(0);
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let account = pod.service_account_name.unwrap();
    let container = &pod.containers[0];

    // What the kubelet would do: the token's Secret mounted as a folder, a port of the pod's own.
    let volume = pod.volumes.iter().flatten().find(|volume| volume.secret.is_some()).expect("a Secret with the token");
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.name == volume.name).unwrap();
    let source = volume.secret.as_ref().unwrap();
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &namespace);
    let data = secrets.get(source.secret_name.as_ref().unwrap()).await.unwrap().data.unwrap();
    let mounted = lab.directory.join("token");
    std::fs::create_dir_all(&mounted).unwrap();
    for item in source.items.iter().flatten() {
        std::fs::write(mounted.join(&item.path), &data[&item.key].0).unwrap();
    }
    let args = container.args.as_ref().unwrap().iter().map(|arg| match arg.split_once('=') {
        Some(("--api-token-file", file)) => {
            let file = Path::new(file).strip_prefix(&mount.mount_path).expect("the token is in the folder");
            format!("--api-token-file={}", mounted.join(file).display())
        }
        Some(("--http-addr", _)) => "--http-addr=127.0.0.1:0".to_owned(),
        _ => arg.clone(),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"));
    command.args(args).env_clear();
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|source| source.field_ref.as_ref());
        let value = match field.map(|field| field.field_path.as_str()) {
            Some("metadata.namespace") => namespace.clone(),
            Some(other) => panic!("{other} is not known here"),
            None => variable.value.clone().unwrap_or_default(),
        };
        command.env(&variable.name, value);
    }
    command.env("KUBECONFIG", lab.plane.service_account_kubeconfig(&namespace, &account).await.unwrap());
    command
}

/// Create, update, rotate, delete.
async fn main_job(lab: &Lab) {
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.edit("openai", json!({"name": "Renamed"})).await;
    lab.until_reason("openai", "Updated").await;
    lab.secret("openai", &[("key", &format!("{CANARY}-new"))]).await;
    lab.until_reason("openai", "Rotated").await;
    lab.until_event("Rotated").await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    assert_eq!(lab.operator.as_ref().unwrap().get("/readyz").0, 200);
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn the_main_job_works_with_exactly_the_rights_of_the_chart_in_one_namespace() {
    let mut lab = Lab::empty("chart").await;
    let values = format!("scope=namespaces,namespaces={{{}}}", lab.namespace);
    start_as_chart(&mut lab, &values).await;
    main_job(&lab).await;
}

#[tokio::test]
async fn the_main_job_works_with_exactly_the_rights_of_the_chart_in_the_whole_cluster() {
    let mut lab = Lab::on(plane_of_ones_own().await, "chart").await;
    start_as_chart(&mut lab, "rateLimit=0").await;
    let operators = std::mem::replace(&mut lab.namespace, lab.plane.unique_namespace("tenant").await.unwrap());
    main_job(&lab).await;
    lab.namespace = operators;
    main_job(&lab).await;
}

#[tokio::test]
async fn the_main_job_works_with_the_token_of_a_secret_that_is_there_already() {
    let mut lab = Lab::empty("existing").await;
    lab.secret("account", &[("api-token", DEFAULT_TOKEN)]).await;
    let secret = "token.value=,token.existingSecret.name=account,token.existingSecret.key=api-token";
    let values = format!("scope=namespaces,namespaces={{{}}},{secret}", lab.namespace);
    start_as_chart(&mut lab, &values).await;
    main_job(&lab).await;
}

#[tokio::test]
async fn only_secrets_that_are_named_are_read() {
    let mut lab = Lab::empty("named").await;
    let home = lab.namespace.clone();
    let values = format!("scope=namespaces,namespaces={{{home}}},secretAccess=named,secretNames.{home}={{openai}}");
    start_as_chart(&mut lab, &values).await;
    main_job(&lab).await;
    until_out_of_reach(&lab).await;
}

#[tokio::test]
async fn only_secrets_of_the_named_namespaces_are_read() {
    let mut lab = Lab::on(plane_of_ones_own().await, "given").await;
    let values = format!("rateLimit=0,secretAccess=namespaces,secretNamespaces={{{}}}", lab.namespace);
    start_as_chart(&mut lab, &values).await;
    main_job(&lab).await;
    lab.namespace = lab.plane.unique_namespace("tenant").await.unwrap();
    until_out_of_reach(&lab).await;
}

#[tokio::test]
async fn secrets_that_are_not_named_are_left_alone_also_where_rbac_would_allow_them() {
    let mut lab = Lab::empty("unnamed").await;
    lab.flags.extend([format!("--secret-names={}/openai", lab.namespace), "--allowed-hosts=127.0.0.1".to_owned()]);
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    // Neither key material, nor a token, nor what a virtual key is written to.
    until_out_of_reach(&lab).await;
    lab.connect("own", &lab.simulator.url(), "own").await;
    lab.until_connection("own", "ApiUnavailable").await;
    lab.edit("openai", json!({"target": {"kind": "Secret", "name": "out"}})).await;
    let object = lab.until_reason("openai", "TargetConflict").await;
    assert!(ready(&object).unwrap().2.contains("--secret-names"), "{:?}", ready(&object));
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &lab.namespace);
    assert!(secrets.get_opt("out").await.unwrap().is_none());
}

/// A credential whose Secret the operator may not read says so.
async fn until_out_of_reach(lab: &Lab) {
    lab.credential("other").await;
    let object = lab.until_reason("other", "ApiUnavailable").await;
    let (_, _, message) = ready(&object).unwrap();
    assert!(message.contains("may not get Secret \"other\""), "{message}");
    assert!(lab.simulator.active_named("other").is_empty());
}

/// What the chart makes of these values, or what it says against them.
async fn rendered(values: &str) -> Result<String, String> {
    let set = format!("token.value={DEFAULT_TOKEN},{IMAGE},{values}");
    let output = plane().await.helm(["template", "op", CHART, "--set", &set]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn pods_overlap_only_with_leader_election() {
    let one = rendered("replicas=1").await.unwrap();
    assert!(one.contains("--leader-elect") && one.contains("type: RollingUpdate") && one.contains("[leases]"));
    assert!(!one.contains("PodDisruptionBudget") && !one.contains("topologySpreadConstraints"));
    let two = rendered("replicas=2").await.unwrap();
    assert!(two.contains("PodDisruptionBudget") && two.contains("topologySpreadConstraints"));
    let alone = rendered("leaderElection.enabled=false").await.unwrap();
    assert!(alone.contains("type: Recreate") && !alone.contains("RollingUpdate"));
    assert!(!alone.contains("--leader-elect") && !alone.contains("--lease") && !alone.contains("[leases]"));
    let told = rendered("leaderElection.enabled=false,replicas=2").await.unwrap_err();
    assert!(told.contains("more than one needs leaderElection.enabled"), "{told}");
}

#[tokio::test]
async fn one_namespace_out_of_reach_stops_nothing_elsewhere() {
    let mut lab = Lab::empty("reach").await;
    let (home, locked) = (lab.namespace.clone(), lab.plane.unique_namespace("locked").await.unwrap());
    let command = as_chart(&lab, &format!("scope=namespaces,namespaces={{{home},{locked}}}")).await;
    let kubectl = |args: &[&str]| {
        let output = lab.plane.kubectl(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Without the right to list ToolzzConnections in one of the namespaces.
    let without = r#"[{"op":"replace","path":"/rules/2/resources","value":["none"]}]"#;
    assert!(
        kubectl(&["get", "role", "op-toolzz-operator", "-n", &locked, "-o", "yaml"]).contains("- toolzzconnections\n")
    );
    kubectl(&["patch", "role", "op-toolzz-operator", "-n", &locked, "--type=json", "-p", without]);
    lab.operator = Some(Operator::spawn(command, &lab.directory.join("operator.log")));
    main_job(&lab).await;
    // There, what needs none works too, and what needs one waits.
    lab.namespace.clone_from(&locked);
    lab.credential("default").await;
    lab.until_ready("default").await;
    lab.credential_with("own", json!({"connectionRef": {"kind": "ToolzzConnection", "name": "own"}})).await;
    let object = lab.until_reason("own", "ConnectionNotReady").await;
    assert!(ready(&object).unwrap().2.contains("cannot be listed"), "{:?}", ready(&object));
    let with = without.replace("none", "toolzzconnections");
    kubectl(&["patch", "role", "op-toolzz-operator", "-n", &locked, "--type=json", "-p", &with]);
    lab.until_reason("own", "ConnectionNotFound").await;
}
