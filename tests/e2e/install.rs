//! The chart as a release of Helm's, and what the checkers have to say of its objects.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use test_controlplane::{schemas, tool};
use toolzz_simulator::DEFAULT_TOKEN;

use super::{
    chart::{IMAGE, as_installed},
    docs::{Page, ROOT, files},
    support::*,
};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/toolzz-operator");
/// The chart before this one, as it was packaged.
const FORMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/fixtures/toolzz-operator-0.1.0.tgz");

/// A command that has to end well; what it printed.
fn output(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A command that reads this; whether it ended well, and what it printed.
fn fed(mut command: Command, input: &str) -> (bool, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Every object of the release and its version, but for what Helm keeps for itself.
fn versions(lab: &Lab) -> BTreeMap<String, String> {
    let kinds = "deployments,serviceaccounts,services,secrets,configmaps,roles,rolebindings,networkpolicies,\
                 clusterroles,clusterrolebindings,customresourcedefinitions";
    let selector = "app.kubernetes.io/managed-by=Helm";
    let listed = lab.plane.kubectl(["get", kinds, "-A", "-l", selector, "-o", "json"]);
    let listed: Value = serde_json::from_str(&output(listed)).unwrap();
    let version = |object: &Value| {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (format!("{} {}", text("/kind"), text("/metadata/name")), text("/metadata/resourceVersion"))
    };
    listed["items"].as_array().unwrap().iter().map(version).collect()
}

/// What whoever installs the chart in this room sets.
fn values(lab: &Lab) -> String {
    format!(
        "apiUrl={},token.value={DEFAULT_TOKEN},{IMAGE},settlePeriod=3s,requestTimeout=2s,rateLimit=0",
        lab.simulator.url()
    )
}

/// Starts what the pod of the release would start, when the definitions are there.
async fn start(lab: &mut Lab) {
    let selector = "app.kubernetes.io/name=toolzz-operator";
    lab.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", selector]);
    lab.operator = Some(Operator::spawn(as_installed(lab).await, &lab.directory.join("operator.log")));
}

fn end(lab: &mut Lab) {
    assert_eq!(lab.operator.take().unwrap().terminate(), Some(0));
}

/// What users make with the former chart outlives the upgrade, which once more changes nothing.
async fn outlives(lab: &mut Lab, upgrade: impl Fn() -> String) {
    start(lab).await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await.status.unwrap();

    upgrade();
    end(lab);
    start(lab).await;
    lab.edit("openai", json!({"name": "Renamed"})).await;
    let after = lab.until_reason("openai", "Updated").await.status.unwrap();
    assert_eq!((before.id, before.virtual_key), (after.id, after.virtual_key));
    // The same once more changes nothing.
    let installed = versions(lab);
    assert!(installed.len() > 8, "{installed:?}");
    upgrade();
    assert_eq!(versions(lab), installed);
}

#[tokio::test]
async fn a_release_comes_is_upgraded_goes_and_comes_again_and_nothing_is_lost() {
    let _turn = turn().await;
    // Bare: the definitions come with the release.
    let plane = bare_plane().await;
    let mut lab = Lab::on(plane, "release").await;
    let (namespace, values) = (lab.namespace.clone(), values(&lab));
    let helm = |verb: &str, more: &[&str]| {
        let mut command = plane.helm([verb, "op", "--namespace", &namespace]);
        command.args(more);
        output(command)
    };
    // As docs/upgrade.md says: what was set with the version before stays.
    let upgrade = || helm("upgrade", &[CHART, "--reset-then-reuse-values"]);

    helm("install", &[FORMER, "--set", &values]);
    outlives(&mut lab, upgrade).await;

    // What users have made stays, and the definitions with it.
    helm("uninstall", &[]);
    end(&mut lab);
    assert!(lab.api().get("openai").await.unwrap().metadata.deletion_timestamp.is_none());
    assert_eq!(lab.simulator.active_named("Renamed").len(), 1);
    helm("install", &[CHART, "--set", &values]);
    start(&mut lab).await;
    lab.secret("openai", &[("key", &key_material("new"))]).await;
    lab.until_reason("openai", "Rotated").await;
    assert_eq!(lab.simulator.counts(toolzz_simulator::Operation::Create).committed, 2, "one for each material");
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn applied_on_the_server_it_is_upgraded_and_applied_again_without_a_conflict() {
    let _turn = turn().await;
    let plane = bare_plane().await;
    let mut lab = Lab::on(plane, "applied").await;
    let (namespace, values) = (lab.namespace.clone(), values(&lab));
    let file = lab.directory.join("chart.yaml");
    let apply = |chart: &str| {
        let template = ["template", "op", chart, "--namespace", &namespace, "--skip-tests", "--set", &values];
        fs::write(&file, output(plane.helm(template))).unwrap();
        output(plane.kubectl(["apply", "--server-side", "-f", file.to_str().unwrap()]))
    };
    apply(FORMER);
    outlives(&mut lab, || apply(CHART)).await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn the_checkers_accept_the_objects_of_every_set_of_values() {
    let lab = Lab::empty("checked").await;
    let (plane, folder) = (lab.plane, lab.directory.join("schemas"));
    let known = tool("prometheus-operator-crds").unwrap();
    let known: Vec<PathBuf> = ["servicemonitors", "podmonitors", "prometheusrules"]
        .map(|plural| known.join(format!("monitoring.coreos.com_{plural}.yaml")))
        .into();
    schemas::write(&plane.client().await.unwrap(), &known, &folder).await.unwrap();
    let reasons = fs::read_to_string(Path::new(CHART).join("README.md")).unwrap();
    let sets: Vec<_> = fs::read_dir(Path::new(CHART).join("ci")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(sets.len() > 5);
    for set in sets {
        let mut template = plane.helm(["template", "op", CHART, "--namespace", "toolzz", "-f"]);
        template.arg(&set);
        let objects = output(template);
        let mut kubeconform = Command::new(tool("kubeconform").unwrap());
        kubeconform.args(["-strict", "-summary", "-schema-location", &schemas::location(&folder)]);
        let (accepted, said) = fed(kubeconform, &objects);
        assert!(accepted && said.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{}: {said}", set.display());

        let mut score = Command::new(tool("kube-score").unwrap());
        score.args(["score", "--output-format", "ci", "-"]);
        let (_, said) = fed(score, &objects);
        assert!(said.contains("[OK]"), "{said}");
        for line in said.lines() {
            assert!(!line.starts_with("[CRITICAL]"), "{}: {line}", set.display());
        }
        // What is not looked at has a reason that users can read.
        for ignored in objects.lines().filter_map(|line| line.trim().strip_prefix("kube-score/ignore: ")) {
            for check in ignored.trim_matches('"').split(',').map(str::trim) {
                assert!(reasons.contains(&format!("\n| {check} | ")), "{check} is ignored without a reason");
            }
        }
    }
}

/// The manifest of this kind.
fn example(text: &str, kind: &str) -> Value {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[tokio::test]
async fn flux_understands_its_example() {
    let lab = Lab::empty("flux").await;
    let folder = lab.directory.join("schemas");
    let known = [
        ("flux-source-crds", "source.toolkit.fluxcd.io_ocirepositories.yaml"),
        ("flux-kustomize-crds", "kustomize.toolkit.fluxcd.io_kustomizations.yaml"),
        ("flux-helm-crds", "helm.toolkit.fluxcd.io_helmreleases.yaml"),
    ];
    let known = known.map(|(folder, name)| tool(folder).unwrap().join(name));
    schemas::write(&lab.plane.client().await.unwrap(), &known, &folder).await.unwrap();
    let check = |text: &str| {
        let mut kubeconform = Command::new(tool("kubeconform").unwrap());
        kubeconform.args(["-strict", "-summary", "-schema-location", &schemas::location(&folder)]);
        let (accepted, said) = fed(kubeconform, text);
        (accepted && said.contains("Invalid: 0, Errors: 0, Skipped: 0"), said)
    };
    let files = [files("integrations/flux", "yaml"), files("integrations/flux/operator", "yaml")].concat();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (accepted, said) = check(&text);
        assert!(accepted, "{}: {said}", file.display());
        // It would have seen it: each field of metadata and spec, misspelt.
        let field = |line: &&str| line.strip_prefix("  ").is_some_and(|rest| !rest.starts_with([' ', '#']));
        for line in text.lines().filter(field) {
            let misspelt = text.replacen(&format!("\n{line}"), &format!("\n{}", line.replacen(':', "e:", 1)), 1);
            assert!(!check(&misspelt).0, "{}: {line}", file.display());
        }
    }
}

#[test]
fn the_gitops_examples_name_this_chart_and_values_that_it_takes() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let flux = read("integrations/flux/operator/operator.yaml");
    let argo = Page::read("docs/argocd.md");
    let argo = argo.blocks.iter().find(|block| block.text.contains("chart: toolzz-operator")).unwrap();
    let argo = example(&argo.text, "Application");
    let chart: Value = serde_saphyr::from_str(&read("charts/toolzz-operator/Chart.yaml")).unwrap();

    assert_eq!(example(&flux, "OCIRepository")["spec"]["ref"], json!({"tag": chart["version"]}));
    assert_eq!(argo["spec"]["source"]["targetRevision"], chart["version"]);
    // What is pruned with the namespace is the installation key.
    let annotations = &example(&flux, "Namespace")["metadata"]["annotations"];
    assert_eq!(annotations["kustomize.toolkit.fluxcd.io/prune"], "disabled");
    for values in [&example(&flux, "HelmRelease")["spec"]["values"], &argo["spec"]["source"]["helm"]["valuesObject"]] {
        let mut template = Command::new(tool("helm").unwrap());
        template.args(["template", "op", CHART, "-f", "-"]);
        let (taken, said) = fed(template, &values.to_string());
        assert!(taken && said.contains("registry.example.com/toolzz-operator:"), "{values}: {said}");
    }
}

/// `helm test` asks in an image that may hold nothing but the operator.
#[test]
fn who_asks_whether_it_is_ready_needs_no_certificates() {
    let output = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"))
        .args(["ready", "--url=http://127.0.0.1:1/readyz", "--timeout=1ms"])
        .envs([("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nowhere")])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("not ready after"), "{told}");
}
