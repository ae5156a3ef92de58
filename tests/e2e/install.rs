//! The chart as a release of Helm's, and what the checkers have to say of its objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::Pod, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use test_controlplane::{schemas, tool};
use toolzz_simulator::DEFAULT_TOKEN;

use super::{
    chart::{CHART, IMAGE, as_installed},
    docs::{Page, ROOT, files},
    support::*,
};

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

/// `helm test` ends well, with this in the place of the kubelet: it runs what the pod would run, with the operator's own
/// address for that of the Service, and says how it ended.
async fn is_tested(lab: &Lab) {
    let namespace = lab.namespace.as_str();
    let mut helm = lab.plane.helm(["test", "op", "--namespace", namespace, "--timeout=2m"]);
    let helm = helm.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), namespace);
    let name = "op-toolzz-operator-test";
    let made = await_condition(pods.clone(), name, |pod: Option<&Pod>| pod.is_some());
    let pod = tokio::time::timeout(Duration::from_secs(60), made).await.expect("the pod is made").unwrap().unwrap();

    let args = pod.spec.unwrap().containers.remove(0).args.unwrap();
    let service = format!("op-toolzz-operator-metrics.{namespace}.svc:8080");
    let get = |what: &str| -> Value {
        serde_json::from_str(&output(lab.plane.kubectl(["get", what, "-n", namespace, "-o", "json"]))).unwrap()
    };
    let leads = get("service/op-toolzz-operator-metrics")["spec"].take();
    let behind = get("deployment/op-toolzz-operator")["spec"]["template"].take();
    assert_eq!(leads["ports"][0]["port"], 8080);
    let port = &leads["ports"][0]["targetPort"];
    let ports = behind["spec"]["containers"][0]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|one| one["name"] == *port || one["containerPort"] == *port), "{port} {ports:?}");
    for (key, value) in leads["selector"].as_object().unwrap() {
        assert_eq!(behind["metadata"]["labels"][key], *value, "{key}");
    }
    assert!(args.iter().any(|arg| arg.contains(&service)), "{args:?}");
    let here = lab.operator.as_ref().unwrap().http().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"));
    command.args(args.iter().map(|arg| arg.replace(&service, &here))).env_clear();
    let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap().unwrap();
    let phase = if status.success() { "Succeeded" } else { "Failed" };
    let status = Patch::Merge(json!({"status": {"phase": phase}}));
    pods.patch_status(name, &PatchParams::default(), &status).await.unwrap();
    let told = tokio::task::spawn_blocking(|| helm.wait_with_output()).await.unwrap().unwrap();
    assert!(told.status.success(), "{phase}: {}", String::from_utf8_lossy(&told.stderr));
}

#[tokio::test]
async fn a_release_comes_is_upgraded_goes_and_comes_again_and_nothing_is_lost() {
    let _turn = turn().await;
    // Bare: the definitions come with the release.
    let plane = bare_plane().await;
    let mut lab = Lab::on(plane.clone(), "release").await;
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
    is_tested(&lab).await;
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
    let mut lab = Lab::on(plane.clone(), "applied").await;
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
    let (plane, folder) = (&lab.plane, lab.directory.join("schemas"));
    let known = tool("prometheus-operator-crds").unwrap();
    let known: Vec<PathBuf> = ["servicemonitors", "podmonitors", "prometheusrules"]
        .map(|plural| known.join(format!("monitoring.coreos.com_{plural}.yaml")))
        .into();
    schemas::write(&plane.client().await.unwrap(), &known, &folder).await.unwrap();
    let reasons = fs::read_to_string(Path::new(CHART).join("README.md")).unwrap();
    let sets = files("charts/toolzz-operator/ci", "yaml");
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

/// Also the pod of `helm test`.
#[tokio::test]
async fn every_pod_is_admitted_where_only_restricted_ones_are() {
    let lab = Lab::empty("restricted").await;
    // Of what makes pods the API server only warns.
    let levels = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
    lab.kubectl(&["label", "namespace", &lab.namespace, &levels[0], &levels[1]]);
    let file = lab.directory.join("pod.json");
    let apply = |object: &Value| {
        fs::write(&file, object.to_string()).unwrap();
        let args = ["apply", "--server-side", "--dry-run=server", "-f"];
        let applied = lab.plane.kubectl(args).arg(&file).output().unwrap();
        (applied.status.success(), String::from_utf8_lossy(&applied.stderr).into_owned())
    };
    let mut places = BTreeSet::new();
    for set in files("charts/toolzz-operator/ci", "yaml") {
        let mut template = lab.plane.helm(["template", "op", CHART, "-n", &lab.namespace, "-f"]);
        template.arg(&set);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&output(template)).unwrap();
        for object in objects {
            let place = match object["kind"].as_str() {
                Some("Deployment") => "/spec/template/spec",
                Some("Pod") => "/spec",
                _ => continue,
            };
            places.insert(place);
            // One that is not restricted is seen. The API server learns of a label, and makes an account for pods, some moment after.
            let mut privileged = object.clone();
            let pod = privileged.pointer_mut(place).unwrap();
            pod["containers"][0]["securityContext"] = json!({"privileged": true});
            let seen = async {
                while !apply(&privileged).1.contains("PodSecurity") {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
            seen.unwrap_or_else(|_| panic!("{}: {:?}", set.display(), apply(&privileged)));
            let (admitted, said) = apply(&object);
            assert!(admitted && !said.contains("PodSecurity"), "{}: {said}", set.display());
        }
    }
    assert_eq!(places.len(), 2, "{places:?}");
}

/// The definitions of the repository. With their types: a number is the same whether it is written as 1 or as 1.0.
fn definitions() -> Vec<CustomResourceDefinition> {
    let read = |file: PathBuf| {
        let definition: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        serde_json::from_value(definition).unwrap()
    };
    let all: Vec<_> = files("crds", "yaml").into_iter().map(read).collect();
    assert_eq!(all.len(), 3);
    all
}

/// What stands in files is rendered as it stands there.
#[test]
fn definitions_alerts_and_dashboard_are_those_of_the_files() {
    let mut template = Command::new(tool("helm").unwrap());
    template.args(["template", "op", CHART, "-f", &format!("{CHART}/ci/platform-values.yaml")]);
    let rendered: Vec<Value> = serde_saphyr::from_multiple(&output(template)).unwrap();
    let named = |kind: &str, name: &str| {
        let so = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        rendered.iter().find(so).unwrap_or_else(|| panic!("no {kind} {name}"))
    };
    let read = |path: &Path| fs::read_to_string(path).unwrap();

    for definition in definitions() {
        let name = definition.metadata.name.as_deref().unwrap();
        let found = named("CustomResourceDefinition", name).clone();
        let found: CustomResourceDefinition = serde_json::from_value(found).unwrap();
        assert_eq!(found.spec, definition.spec, "{name}");
    }

    let folder = Path::new(CHART).join("files");
    let alerts: Value = serde_saphyr::from_str(&read(&folder.join("alerts.yaml"))).unwrap();
    assert_eq!(named("PrometheusRule", "op-toolzz-operator")["spec"], alerts);
    let dashboard = &named("ConfigMap", "op-toolzz-operator-dashboard")["data"]["op-toolzz-operator.json"];
    assert_eq!(dashboard.as_str().unwrap().trim(), read(&folder.join("dashboard.json")).trim());
}

/// The values whose fields are not the chart's to name: those of a parent chart, and what Kubernetes or the Prometheus
/// operator has the fields of.
const OPEN: [&str; 10] = [
    "/definitions/objects/items",
    "/definitions/peers/items/properties/namespaceSelector",
    "/definitions/peers/items/properties/podSelector",
    "/properties/affinity",
    "/properties/global",
    "/properties/livenessProbe",
    "/properties/podSecurityContext",
    "/properties/readinessProbe",
    "/properties/resources",
    "/properties/securityContext",
];

/// Finds the objects of this schema that may have fields that it does not name. A map has none that could be named: its
/// schema says what each of them is.
fn find_open(schema: &Value, place: &str, open: &mut BTreeSet<String>) {
    match schema {
        Value::Array(parts) => parts.iter().for_each(|part| find_open(part, place, open)),
        Value::Object(parts) => {
            let closed = matches!(parts.get("additionalProperties"), Some(Value::Bool(false) | Value::Object(_)));
            if schema["type"] == "object" && !closed {
                open.insert(place.to_owned());
            }
            parts.iter().for_each(|(name, part)| find_open(part, &format!("{place}/{name}"), open));
        }
        _ => {}
    }
}

#[test]
fn every_object_among_the_values_is_closed_or_somebody_elses() {
    let schema = fs::read_to_string(Path::new(CHART).join("values.schema.json")).unwrap();
    let mut open = BTreeSet::new();
    find_open(&serde_json::from_str(&schema).unwrap(), "", &mut open);
    assert_eq!(open, BTreeSet::from(OPEN.map(str::to_owned)));
}

/// The manifest of this kind.
fn example(text: &str, kind: &str) -> Value {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The definitions of Flux's that its example is made of.
pub fn flux_definitions() -> [PathBuf; 3] {
    let definitions = [
        ("flux-source-crds", "source.toolkit.fluxcd.io_ocirepositories.yaml"),
        ("flux-kustomize-crds", "kustomize.toolkit.fluxcd.io_kustomizations.yaml"),
        ("flux-helm-crds", "helm.toolkit.fluxcd.io_helmreleases.yaml"),
    ];
    definitions.map(|(folder, name)| tool(folder).unwrap().join(name))
}

#[tokio::test]
async fn flux_understands_its_example() {
    let lab = Lab::empty("flux").await;
    let folder = lab.directory.join("schemas");
    schemas::write(&lab.plane.client().await.unwrap(), &flux_definitions(), &folder).await.unwrap();
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

#[test]
fn flux_waits_for_kinds_that_there_are_and_in_an_order_that_there_is() {
    let text = fs::read_to_string(Path::new(ROOT).join("integrations/flux/toolzz.yaml")).unwrap();
    let steps: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let checks: Vec<&Value> = steps.iter().flat_map(|step| step["spec"]["healthChecks"].as_array()).flatten().collect();
    let definitions = definitions();
    assert!(!checks.is_empty());
    for check in checks {
        let is_defined = definitions.iter().any(|CustomResourceDefinition { spec, .. }| {
            let mut versions = spec.versions.iter().map(|version| format!("{}/{}", spec.group, version.name));
            check["kind"] == spec.names.kind && versions.any(|version| check["apiVersion"] == version)
        });
        assert!(is_defined, "there is no such kind: {check}");
    }
    // Each but the first waits for one before it.
    for (place, step) in steps.iter().enumerate().skip(1) {
        let waits_for = step["spec"]["dependsOn"].as_array().into_iter().flatten();
        let earlier = |name: &Value| steps[..place].iter().any(|step| step["metadata"]["name"] == *name);
        assert!(waits_for.map(|before| &before["name"]).any(earlier), "{step}");
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
