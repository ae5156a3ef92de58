//! `uninstall --check`: what it says of a namespace in each state, and what it needs to say it.

use std::{path::Path, process::Command, time::Duration};

use serde_json::json;

use super::{chart::CHART, support::*};

/// The exit code, and what was said.
fn uninstall(kubeconfig: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"))
        .arg("uninstall")
        .args(args)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code(), told)
}

fn check(lab: &Lab) -> (Option<i32>, String) {
    uninstall(lab.plane.kubeconfig(), &["--check", "--namespace", &lab.namespace])
}

/// The line of the table about this credential.
fn line<'a>(lab: &Lab, name: &str, told: &'a str) -> &'a str {
    let what = format!("ToolzzCredential/{}/{name} ", lab.namespace);
    told.lines().find(|line| line.contains(&what)).unwrap_or_else(|| panic!("{name}: {told}"))
}

#[tokio::test]
async fn what_is_at_toolzz_is_named_until_it_is_gone() {
    let mut lab = Lab::empty("uninstall").await;
    lab.flags.push("--leader-elect".to_owned());
    lab.start_operator();
    let (code, told) = check(&lab);
    assert!(
        code == Some(0) && told.contains(&format!("Nothing would be lost or stuck in {}", lab.namespace)),
        "{told}"
    );
    lab.credential("openai").await;
    lab.credential_with("kept", json!({"deletionPolicy": "Retain"})).await;
    let id = lab.until_ready("openai").await.status.unwrap().id.unwrap();
    lab.until_ready("kept").await;
    let (code, told) = check(&lab);
    assert_eq!(code, Some(1), "{told}");
    assert!(line(&lab, "openai", &told).contains(&format!("active, id {id}")), "{told}");
    assert!(line(&lab, "openai", &told).contains("switches it off"), "{told}");
    assert!(line(&lab, "kept", &told).contains("leaves it as it is"), "{told}");
    assert!(told.contains("How to go") && told.contains("would be lost or stuck: 2"), "{told}");
    // One that runs outside of the cluster is known by its Lease, others by the chart's label.
    assert!(told.contains(&format!("Lease/{}/toolzz-operator ", lab.namespace)), "{told}");
    lab.kubectl(&["create", "deployment", "op", "--image=op"]);
    lab.kubectl(&["label", "deployment", "op", "app.kubernetes.io/name=toolzz-operator"]);
    let ready = r#"{"status":{"replicas":1,"readyReplicas":1}}"#;
    lab.kubectl(&["patch", "deployment", "op", "--subresource=status", "--type=merge", "-p", ready]);
    let (_, told) = check(&lab);
    assert!(told.contains(&format!("Deployment/{}/op ", lab.namespace)), "{told}");
    // Nor does another name of the chart hide one.
    lab.kubectl(&["label", "--overwrite", "deployment", "op", "app.kubernetes.io/name=other"]);
    assert!(!check(&lab).1.contains("/op "), "it is none");
    let args = r#"{"spec":{"template":{"spec":{"containers":[
        {"name":"op","args":["run","--namespaces=elsewhere","--settle-period=45s"]}]}}}}"#;
    lab.kubectl(&["patch", "deployment", "op", "--type=strategic", "-p", args]);
    let (_, told) = check(&lab);
    assert!(told.contains(&format!("Deployment/{}/op ", lab.namespace)), "{told}");
    assert!(told.contains("an operator, 1 ready, works in elsewhere"), "{told}");
    assert!(told.contains("the Secret toolzz-operator-installation-key in "), "{told}");
    for name in ["openai", "kept"] {
        lab.delete(name).await;
        lab.until_gone(name).await;
    }
    let (code, told) = check(&lab);
    assert_eq!(code, Some(0), "{told}");
    // It only looks.
    assert_eq!((lab.simulator.posts(), lab.simulator.active_named("kept").len()), (2, 1));
}

#[tokio::test]
async fn what_waits_for_an_operator_that_is_gone_is_named() {
    let mut lab = Lab::start("uninstalled").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.kill_operator();
    lab.delete("openai").await;
    let (code, told) = check(&lab);
    let line = line(&lab, "openai", &told);
    assert!(code == Some(1) && line.starts_with('!') && line.contains("being deleted; active, id "), "{told}");
    assert!(line.contains("stuck"), "{told}");
    lab.start_operator();
    lab.until_gone("openai").await;
    assert_eq!(check(&lab).0, Some(0));
}

#[tokio::test]
async fn who_may_read_the_resources_of_a_namespace_is_told_of_those_and_what_was_not_looked_at() {
    let lab = Lab::empty("reader").await;
    lab.create(lab.manifest("openai")).await.unwrap();
    lab.set_finalizers("openai", &[toolzz_operator::api::FINALIZER]).await;
    lab.kubectl(&["create", "serviceaccount", "reader"]);
    let resources = "--resource=toolzzcredentials.toolzz.com.br,toolzzconnections.toolzz.com.br";
    lab.kubectl(&["create", "role", "reader", "--verb=list", resources]);
    let account = format!("--serviceaccount={}:reader", lab.namespace);
    let reader = lab.plane.service_account_kubeconfig(&lab.namespace, "reader").await.unwrap();
    let args = ["--check", "-n", &lab.namespace];
    // Without it nothing is known, and that is no good news.
    let (code, told) = uninstall(&reader, &args);
    assert!(code == Some(1) && told.contains("cannot be read: 403 Forbidden"), "{told}");
    lab.kubectl(&["create", "rolebinding", "reader", "--role=reader", &account]);
    // The API server learns of a binding some moment after it was made.
    let allowed = async {
        loop {
            let (code, told) = uninstall(&reader, &args);
            if !told.contains("cannot be read") {
                return (code, told);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (code, told) = tokio::time::timeout(Duration::from_secs(30), allowed).await.expect("no right to read");
    assert!(code == Some(1) && line(&lab, "openai", &told).starts_with('!'), "{told}");
    assert!(told.contains("No operator at work was seen"), "{told}");
    let unseen = "the ClusterToolzzConnections, the CustomResourceDefinitions, the Deployments of all namespaces, the Leases \
                  of all namespaces, the ToolzzConnections of all namespaces, the ToolzzCredentials of all namespaces";
    assert!(told.contains(&format!("Could not be looked at, by lack of rights: {unseen}.")), "{told}");
    // Nothing there is not: nothing to lose.
    lab.set_finalizers("openai", &[]).await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    let (code, told) = uninstall(&reader, &args);
    assert!(code == Some(1) && told.contains("is not known") && !told.contains("Nothing would be lost"), "{told}");
}

#[tokio::test]
async fn definitions_that_go_with_the_release_are_a_problem_whatever_namespaces_are_named() {
    let plane = bare_plane().await;
    let mut lab = Lab::on(plane.clone(), "definitions").await;
    let helm = |args: &[&str]| {
        let output = plane.helm(args).args(["--namespace", "default"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let install = |keep: bool| {
        let values = format!("image.repository=toolzz-operator,token.required=false,crds.keep={keep}");
        helm(&["upgrade", "--install", "op", CHART, "--set", &values]);
    };
    install(false);
    lab.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    let (code, told) = check(&lab);
    assert!(code == Some(0) && told.contains("deleted by helm uninstall"), "nothing is there: {told}");

    let asked = std::mem::replace(&mut lab.namespace, plane.unique_namespace("elsewhere").await.unwrap());
    lab.credential("openai").await;
    let check = || uninstall(plane.kubeconfig(), &["--check", "--namespace", &asked]);
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("would be lost or stuck: 3") && !told.contains("openai"), "{told}");

    install(true);
    let (code, told) = check();
    assert!(code == Some(0) && told.contains("annotated to be kept by helm uninstall"), "{told}");
    assert!(told.contains("helm get manifest op -n default"), "{told}");

    // Without the annotation the definitions go with the release.
    install(false);
    helm(&["uninstall", "op"]);
    let gone = async {
        while !lab.kubectl(&["get", "customresourcedefinitions", "-o", "name"]).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the definitions stay");
}

#[tokio::test]
async fn without_check_it_does_nothing_and_says_why() {
    let plane = plane().await;
    let cases: [&[&str]; 4] =
        [&[], &["--namespace", "default"], &["--check", "--namespace", ""], &["--check", "--force"]];
    for args in cases {
        let (code, told) = uninstall(plane.kubeconfig(), args);
        assert_eq!(code, Some(2), "{args:?}: {told}");
    }
    let (_, told) = uninstall(plane.kubeconfig(), &[]);
    assert!(told.contains("--check") && told.contains("deletes nothing"), "{told}");
}
