//! What went wrong elsewhere, tried here: each test is named after the advisory whose attack it repeats. `docs/advisories.md`
//! lists them all; some are in other rooms.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, config::Kubeconfig};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use toolzz_simulator::{DEFAULT_TOKEN, Operation, Reply, Times};

use super::{
    chart::as_chart,
    connections::{reference, service, token},
    leaks::search,
    support::*,
};

impl Lab {
    /// Applies an object. `strict`: kubectl refuses fields that the schema does not know. Otherwise the API server drops
    /// them, as for everybody who does not let kubectl check.
    fn attack(&self, object: &Value, strict: bool) -> Result<(), String> {
        let file = self.directory.join("attack.json");
        std::fs::write(&file, object.to_string()).unwrap();
        let validate = format!("--validate={strict}");
        let args = ["apply", &validate, "-n", &self.namespace, "-f", file.to_str().unwrap()];
        let output = self.plane.kubectl(args).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn config_maps_of(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A room of an attacker, and a namespace of somebody else's with a Secret `openai`. One operator works in both, and has
/// every right in the cluster: what it does not do, it does not do by itself.
async fn neighbours(prefix: &str) -> (Lab, String) {
    let mut lab = Lab::empty(prefix).await;
    let victim = lab.plane.unique_namespace("victim").await.unwrap();
    lab.flags.extend([format!("--namespaces={victim}"), "--allowed-hosts=127.0.0.1".to_owned()]);
    lab.start_operator();
    let attacker = std::mem::replace(&mut lab.namespace, victim);
    lab.rotate("openai", "theirs").await;
    let victim = std::mem::replace(&mut lab.namespace, attacker);
    (lab, victim)
}

/// A connection of the room's namespace, as a manifest.
fn connection(lab: &Lab, name: &str, url: &str, token: Value) -> Value {
    json!({
        "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzConnection",
        "metadata": {"name": name, "namespace": lab.namespace},
        "spec": {"url": url, "tokenSecretRef": token},
    })
}

/// The operator as the chart starts it in the room's namespace, and the token of its ServiceAccount.
async fn start_with_account(lab: &mut Lab, values: &str) -> String {
    let values = format!("scope=namespaces,namespaces={{{}}},{values}", lab.namespace);
    let command = as_chart(lab, &values).await;
    let file = command.get_envs().find_map(|(name, value)| value.filter(|_| name == "KUBECONFIG").map(PathBuf::from));
    let kubeconfig = Kubeconfig::read_from(file.unwrap()).unwrap();
    lab.operator = Some(Operator::spawn(command, &lab.directory.join("operator.log")));
    let account = kubeconfig.auth_infos.into_iter().find_map(|named| named.auth_info?.token).unwrap();
    account.expose_secret().to_owned()
}

#[tokio::test]
async fn cve_2026_39961_a_secret_of_another_namespace_cannot_be_named() {
    let (lab, victim) = neighbours("cve39961").await;
    let mut manifest = lab.manifest("openai");
    manifest["spec"]["credentials"][0]["api_key"]["secretKeyRef"]["namespace"] = json!(victim);
    let told = lab.attack(&manifest, true).unwrap_err();
    assert!(told.contains("secretKeyRef.namespace"), "{told}");
    lab.attack(&manifest, false).unwrap();
    lab.until_reason("openai", "SecretNotFound").await;
    for name in [format!("{victim}/openai"), format!("../{victim}/secrets/openai"), "..".to_owned()] {
        let mut manifest = lab.manifest("path");
        manifest["spec"]["credentials"][0]["api_key"]["secretKeyRef"]["name"] = json!(name);
        let told = lab.attack(&manifest, false).unwrap_err();
        assert!(told.contains("secretKeyRef.name"), "{name}: {told}");
    }
    assert_eq!(lab.simulator.posts(), 0);
}

#[tokio::test]
async fn cve_2024_43803_a_secret_of_another_namespace_is_no_token_for_ones_own_url() {
    let (lab, victim) = neighbours("cve43803").await;
    let evil = service("evil");
    let elsewhere = json!({"name": "openai", "key": "key", "namespace": victim});
    let object = connection(&lab, "evil", &evil.url(), elsewhere);
    let told = lab.attack(&object, true).unwrap_err();
    assert!(told.contains("tokenSecretRef.namespace"), "{told}");
    lab.attack(&object, false).unwrap();
    lab.until_connection("evil", "SecretNotFound").await;
    lab.credential_with("any", reference("ToolzzConnection", "evil")).await;
    lab.until_reason("any", "ConnectionNotReady").await;
    assert!(evil.journal().is_empty(), "{:?}", evil.journal());
}

#[tokio::test]
async fn cve_2025_55196_a_secret_of_the_same_name_elsewhere_is_not_found_and_cannot_be_selected() {
    let (mut lab, victim) = neighbours("cve55196").await;
    lab.create(lab.manifest("openai")).await.unwrap();
    lab.until_reason("openai", "SecretNotFound").await;
    let mut manifest = lab.manifest("selected");
    manifest["spec"]["credentials"][0]["api_key"]["secretKeyRef"] =
        json!({"selector": {"matchLabels": {}}, "key": "key"});
    let told = lab.attack(&manifest, false).unwrap_err();
    assert!(told.contains("secretKeyRef.name"), "{told}");
    lab.rotate("openai", "own").await;
    lab.until_ready("openai").await;
    // What changes there changes nothing here; what comes after it was seen after it.
    let attacker = std::mem::replace(&mut lab.namespace, victim);
    lab.rotate("openai", "other").await;
    lab.credential("later").await;
    lab.until_ready("later").await;
    lab.namespace = attacker;
    assert_eq!((lab.simulator.posts(), lab.materials("openai")), (2, vec!["own".to_owned()]));
}

#[tokio::test]
async fn cve_2026_22822_a_template_is_nothing_but_text() {
    let (lab, victim) = neighbours("cve22822").await;
    let text = format!("{{{{ getSecretKey \"{victim}\" \"openai\" \"key\" }}}}");
    lab.secret("own", &[("key", &text)]).await;
    let mut manifest = lab.manifest("own");
    manifest["spec"]["name"] = json!(text);
    lab.create(manifest).await.unwrap();
    lab.until_ready("own").await;
    let remote = lab.simulator.active_named(&text).remove(0);
    assert_eq!(lab.simulator.material_of(remote.row.secret_id), Some(json!([{"api_key": text}])));
}

#[tokio::test]
async fn cve_2026_42875_no_other_reference_leads_to_another_namespace_either() {
    let (mut lab, victim) = neighbours("cve42875").await;
    let theirs = service("theirs");
    let attacker = std::mem::replace(&mut lab.namespace, victim.clone());
    lab.connect("theirs", &theirs.url(), "theirs").await;
    lab.namespace = attacker;
    for (name, field, value) in [
        ("used", "connectionRef", json!({"kind": "ToolzzConnection", "name": "theirs", "namespace": victim})),
        ("written", "target", json!({"kind": "ConfigMap", "name": "out", "namespace": victim})),
    ] {
        lab.rotate(name, name).await;
        let mut manifest = lab.manifest(name);
        manifest["spec"][field] = value;
        let told = lab.attack(&manifest, true).unwrap_err();
        assert!(told.contains(&format!("{field}.namespace")), "{told}");
        lab.attack(&manifest, false).unwrap();
    }
    lab.until_reason("used", "ConnectionNotFound").await;
    lab.until_ready("written").await;
    assert!(lab.config_maps_of(&lab.namespace).get_opt("out").await.unwrap().is_some());
    assert!(lab.config_maps_of(&victim).get_opt("out").await.unwrap().is_none());
    assert_eq!(theirs.posts(), 0);
    // Certificates stand in the connection itself: there is no reference to them.
    let mut object = connection(&lab, "ca", "https://toolzz.example", json!({"name": "t", "key": "t"}));
    object["spec"]["caProvider"] = json!({"type": "ConfigMap", "name": "ca", "key": "ca.crt", "namespace": victim});
    let told = lab.attack(&object, true).unwrap_err();
    assert!(told.contains("caProvider"), "{told}");
}

#[tokio::test]
async fn cve_2026_40161_a_url_without_a_token_of_its_own_gets_no_other() {
    let mut lab = Lab::empty("cve40161").await;
    let tenant = lab.plane.unique_namespace("tenant").await.unwrap();
    lab.flags.extend([format!("--namespaces={tenant}"), "--allowed-hosts=127.0.0.1".to_owned()]);
    lab.start_operator();
    // The platform's, in the operator's namespace.
    lab.secret("platform", &[("token", &token("platform"))]).await;
    lab.namespace = tenant;
    let evil = service("evil");
    let mut without = connection(&lab, "without", &evil.url(), Value::Null);
    without["spec"].as_object_mut().unwrap().remove("tokenSecretRef");
    let told = lab.attack(&without, false).unwrap_err();
    assert!(told.contains("tokenSecretRef"), "{told}");
    lab.secret("bad", &[("empty", ""), ("blank", " \n")]).await;
    for (name, secret, key, reason) in [
        ("platforms", "platform", "token", "ConnectionNotReady"),
        ("absent", "bad", "token", "ConnectionNotReady"),
        ("empty", "bad", "empty", "Unauthorized"),
        ("blank", "bad", "blank", "Unauthorized"),
    ] {
        lab.connection(name, json!({"url": evil.url(), "tokenSecretRef": {"name": secret, "key": key}})).await;
        let mut spec = reference("ToolzzConnection", name);
        spec["type"] = json!("llm");
        lab.credential_with(name, spec).await;
        lab.until_reason(name, reason).await;
    }
    assert!(evil.journal().is_empty(), "{:?}", evil.journal());
}

/// Answers every request with an empty list, and keeps what came, to the byte. Ends with the process.
fn listener() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let hears = Arc::clone(&heard);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1 << 14];
            let Ok(read) = stream.read(&mut request) else { continue };
            hears.lock().unwrap().extend_from_slice(&request[..read]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n[]");
        }
    });
    (url, heard)
}

#[tokio::test]
async fn cve_2026_41323_a_tenants_url_never_gets_the_operators_own_tokens() {
    let mut lab = Lab::empty("cve41323").await;
    let account = start_with_account(&mut lab, "allowedHosts={127.0.0.1}").await;
    let (url, heard) = listener();
    lab.connect("evil", &url, "evil").await;
    let mut spec = reference("ToolzzConnection", "evil");
    spec["type"] = json!("llm");
    lab.credential_with("openai", spec).await;
    let text = || String::from_utf8_lossy(&heard.lock().unwrap()).into_owned();
    let posted = async {
        while !text().contains("POST ") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), posted).await.unwrap_or_else(|_| panic!("{}\n{}", text(), lab.log()));
    let text = text();
    assert!(text.contains(&token("evil")));
    for (whose, other) in [("the ServiceAccount's", account.as_str()), ("the platform's", DEFAULT_TOKEN)] {
        assert!(!text.contains(other), "{whose} token was sent");
    }
}

#[tokio::test]
async fn cve_2025_23216_a_value_that_is_refused_is_not_repeated() {
    let lab = Lab::start("cve23216").await;
    let long = |length: usize| format!("{CANARY}{}", "x".repeat(length)).into_bytes();
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &lab.namespace);
    for (name, value) in
        [("binary", [CANARY.as_bytes(), b"\xff"].concat()), ("form", long(1 << 12)), ("huge", long(1 << 17))]
    {
        let data = BTreeMap::from([("key".to_owned(), ByteString(value))]);
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        secrets.create(&Default::default(), &secret).await.unwrap();
        lab.create(lab.manifest(name)).await.unwrap();
        let object = lab.until_reason(name, "InvalidSpec").await;
        assert!(ready(&object).unwrap().2.contains("spec.credentials[0].api_key"), "{name}: {:?}", ready(&object));
    }
    lab.until_event("InvalidSpec").await;
    assert_eq!(lab.simulator.posts(), 0);
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn cve_2023_2878_the_service_accounts_token_is_in_no_log_at_any_level() {
    let mut lab = Lab::empty("cve2878").await;
    let account = start_with_account(&mut lab, "logLevel=trace\\,toolzz_operator=trace").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.rotate("openai", "m1").await;
    lab.until_reason("openai", "Rotated").await;
    let log = lab.log();
    assert!(log.contains("TRACE"), "{log}");
    // Claims and signature too: whoever has the one may find the other elsewhere.
    for part in account.split('.') {
        assert!(part.len() > 20 && !log.contains(part), "a part of the token is in the log");
    }
    lab.assert_no_leak().await;
}

/// What the operator says that does not start with this URL.
fn refusal(url: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"))
        .args(["run", "--api-url", url, "--log-level", "trace"])
        .env_clear()
        .env("TOOLZZ_API_TOKEN", DEFAULT_TOKEN)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("--api-url"), "{told}");
    search("the refusal", &told);
    told
}

#[tokio::test]
async fn cve_2024_31216_a_token_in_a_url_is_refused_and_none_is_in_a_connection_error() {
    for part in ["?sig=", "#"] {
        let told = refusal(&format!("https://toolzz.example/api/v1{part}{CANARY}"));
        assert!(told.contains("query or fragment"), "{told}");
    }
    let lab = Lab::start("cve31216").await;
    lab.simulator.go_down();
    lab.credential_with("openai", json!({"type": "llm"})).await;
    let object = lab.until_reason("openai", "ApiUnavailable").await;
    assert!(ready(&object).unwrap().2.contains("connection refused"), "{:?}", ready(&object));
    lab.until_event("ApiUnavailable").await;
    lab.assert_no_leak().await;
}

#[test]
fn cve_2023_46255_a_url_that_cannot_be_read_is_not_repeated() {
    for url in
        ["https://anna:KEY@[toolzz", "https://anna:KEY@toolzz:port", "anna:KEY@toolzz", "https://anna:KEY@toolzz"]
    {
        refusal(&url.replace("KEY", CANARY));
    }
    let proxy = format!("http://anna:{CANARY}@proxy.example:3128");
    let output = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"))
        .args(["run", "--api-proxy", &proxy, "--log-level", "trace"])
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("--api-proxy: the proxy's URL must not"), "{told}");
    search("the refusal", &told);
    // Nor are those that libraries read, nor what else a kubeconfig holds.
    let room = std::env::temp_dir().join(format!("toolzz-46255-{}", std::process::id()));
    std::fs::create_dir_all(&room).unwrap();
    let kubeconfig = |name: &str, more: &str| {
        let user = format!("users: [{{name: u, user: {{token: {CANARY}}}}}]");
        let context = "contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c";
        let cluster = "clusters: [{name: c, cluster: {server: \"https://127.0.0.1:1\"}}]";
        let file = room.join(name);
        std::fs::write(&file, format!("apiVersion: v1\nkind: Config\n{cluster}\n{context}\n{user}\n{more}")).unwrap();
        file.into_os_string().into_string().unwrap()
    };
    let (good, broken) = (kubeconfig("good", ""), kubeconfig("broken", &format!("extensions: {CANARY}\n  x: [")));
    let collector = format!("http://anna:{CANARY}@[collector");
    for (says, variables) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", [("KUBECONFIG", &good), ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)]),
        ("proxy", [("KUBECONFIG", &good), ("HTTPS_PROXY", &proxy)]),
        ("kubeconfig", [("KUBECONFIG", &broken), ("TOOLZZ_LOG_LEVEL", &"trace".to_owned())]),
    ] {
        let mut operator = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"));
        let output = operator.args(["run", "--http-addr=127.0.0.1:0"]).env_clear().envs(variables).output().unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(1) && told.contains(says), "{says}: {told}");
        search("the refusal", &told);
    }
    std::fs::remove_dir_all(&room).unwrap();
}

#[tokio::test]
async fn cve_2024_8365_a_token_is_in_nothing_that_is_kept_of_a_request() {
    let mut lab = Lab::empty("cve8365").await;
    lab.flags.push("--allowed-hosts=127.0.0.1".to_owned());
    lab.start_operator();
    let own = service("own");
    lab.connect("own", &own.url(), "own").await;
    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    lab.until_ready("openai").await;
    // The server refuses the token, and repeats it.
    own.set_tokens(vec![]);
    let headers = vec![("x-token".to_owned(), token("own"))];
    let body = json!({"message": format!("Bearer {} is not valid", token("own"))}).to_string();
    for operation in [Operation::Create, Operation::Update, Operation::List, Operation::Catalogue] {
        let reply = Reply::Status { status: 401, headers: headers.clone(), body: body.clone() };
        own.fault(operation, Times::Always, reply);
    }
    lab.edit("openai", json!({"name": "Renamed"})).await;
    lab.until_reason("openai", "Unauthorized").await;
    lab.until_connection("own", "Unauthorized").await;
    lab.until_event("Unauthorized").await;
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn cve_2025_62705_key_material_is_in_no_log_as_bytes_either() {
    let lab = Lab::start("cve62705").await;
    // Keys with quotes, backslashes and line ends in them; searched for in every form that bytes are shown in.
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.rotate("openai", "m1").await;
    lab.until_reason("openai", "Rotated").await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.assert_no_leak().await;
}

/// What the operator's account may do nowhere, with none of the values tried here.
const NEVER: [&str; 16] = [
    "* *",
    "update secrets",
    "patch secrets",
    "delete secrets",
    "update toolzzcredentials.toolzz.com.br",
    "delete toolzzcredentials.toolzz.com.br",
    "create pods",
    "create pods --subresource=exec",
    "create serviceaccounts --subresource=token",
    "impersonate serviceaccounts",
    "patch deployments.apps",
    "create rolebindings.rbac.authorization.k8s.io",
    "bind clusterroles.rbac.authorization.k8s.io",
    "escalate roles.rbac.authorization.k8s.io",
    "patch validatingwebhookconfigurations.admissionregistration.k8s.io",
    "patch customresourcedefinitions.apiextensions.k8s.io",
];

/// Whether the account of the operator in this room may do that.
fn may(lab: &Lab, namespace: &str, what: &str) -> bool {
    may_as(lab, &account(lab), namespace, what)
}

fn account(lab: &Lab) -> String {
    format!("system:serviceaccount:{}:op-toolzz-operator", lab.namespace)
}

/// Waits until somebody may do that: the API server learns of a right some moment after it was given.
pub async fn until_may(lab: &Lab, who: &str, namespace: &str, what: &str) {
    let learnt = async {
        while !may_as(lab, who, namespace, what) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let learnt = tokio::time::timeout(Duration::from_secs(60), learnt).await;
    learnt.unwrap_or_else(|_| panic!("{who} may not {what}"));
}

/// Whether somebody may do that.
pub fn may_as(lab: &Lab, who: &str, namespace: &str, what: &str) -> bool {
    let who = format!("--as={who}");
    let args = ["auth", "can-i", &who, "-n", namespace].into_iter().chain(what.split(' '));
    let output = lab.plane.kubectl(args).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    match told.split_whitespace().next() {
        Some("yes") => true,
        Some("no") => false,
        _ => panic!("{what}: {told} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// The account may do what is in none of the lists, in this namespace and where the cluster has its own: without targets
/// it writes to nothing of others, and with ConfigMaps as targets to these and no more.
async fn may_do_nothing_else(lab: &Lab, scope: &str) {
    let here = lab.namespace.as_str();
    for (values, writes) in [(scope.to_owned(), false), (format!("{scope},targets={{configmaps}}"), true)] {
        drop(as_chart(lab, &values).await);
        let given = if writes { "patch configmaps" } else { "patch toolzzcredentials.toolzz.com.br" };
        until_may(lab, &account(lab), here, given).await;
        assert!(may(lab, here, "get secrets"));
        for namespace in [here, "kube-system"] {
            let so = writes && (scope == "scope=cluster" || namespace == here);
            for what in ["get configmaps", "create configmaps", "patch configmaps", "delete configmaps"] {
                assert_eq!(may(lab, namespace, what), so, "{what} in {namespace} with {values}");
            }
        }
        assert!(!may(lab, "kube-system", "create secrets"), "with {values}");
    }
    for namespace in [here, "kube-system"] {
        for what in NEVER {
            assert!(!may(lab, namespace, what), "{what} in {namespace} with {scope}");
        }
    }
}

#[tokio::test]
async fn cve_2024_45041_the_operators_account_may_do_what_it_needs_and_nothing_else() {
    let lab = Lab::empty("cve45041").await;
    may_do_nothing_else(&lab, &format!("scope=namespaces,namespaces={{{}}}", lab.namespace)).await;
    for what in ["get secrets", "list secrets", "get toolzzcredentials.toolzz.com.br", "create events.events.k8s.io"] {
        assert!(!may(&lab, "kube-system", what), "{what} elsewhere");
    }
    assert!(!may(&lab, &lab.namespace, "list secrets --all-namespaces"));

    let lab = Lab::on(plane_of_ones_own().await, "cve45041").await;
    may_do_nothing_else(&lab, "scope=cluster").await;
}

#[tokio::test]
async fn cve_2026_33022_the_longest_names_stop_nobody() {
    let mut lab = Lab::start("cve33022").await;
    let longest = "x".repeat(253);
    lab.rotate(&longest, "long").await;
    lab.create(lab.manifest(&longest)).await.unwrap();
    // More bytes than characters: a cut at a byte would be within one.
    lab.credential_with("wide", json!({"name": "ü".repeat(200)})).await;
    lab.credential("openai").await;
    for name in [longest.as_str(), "wide", "openai"] {
        lab.until_ready(name).await;
    }
    assert!(!lab.operator.as_mut().unwrap().has_ended());
    lab.log_holds_no_leak();
}

/// Lists, maps, texts and numbers without a bound, by their path. The texts of a selector are the API server's own type, and
/// none of a tenant's.
fn unbounded(path: &str, schema: &Value, found: &mut Vec<String>) {
    let (items, values) = (&schema["items"], &schema["additionalProperties"]);
    let endless = schema["type"] == "string" && schema["maxLength"].is_null() && schema["enum"].is_null();
    let number = schema["type"] == "integer" || schema["type"] == "number";
    if items.is_object() && schema["maxItems"].is_null()
        || values.is_object() && schema["maxProperties"].is_null()
        || endless && !path.contains(".selector.")
        || number && (schema["minimum"].is_null() || schema["maximum"].is_null())
    {
        found.push(path.to_owned());
    }
    for inner in [items, values].into_iter().filter(|inner| inner.is_object()) {
        unbounded(&format!("{path}[]"), inner, found);
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        unbounded(&format!("{path}.{name}"), inner, found);
    }
}

#[tokio::test]
async fn cve_2023_27483_nothing_in_a_spec_grows_without_bound() {
    let mut found = Vec::new();
    for crd in toolzz_operator::api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        unbounded(crd["spec"]["names"]["kind"].as_str().unwrap(), schema, &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
    // Few fields are numbers: it would have seen one.
    for end in ["minimum", "maximum"] {
        unbounded(end, &json!({"type": "integer", end: 1}), &mut found);
    }
    assert_eq!(found, ["minimum", "maximum"]);

    let lab = Lab::empty("cve27483").await;
    let source = json!({"secretKeyRef": {"name": "a", "key": "a"}});
    let fields: serde_json::Map<String, Value> = (0..33).map(|n| (format!("f{n}"), source.clone())).collect();
    for (field, value, says) in [
        ("credentials", json!(vec![json!({"api_key": source}); 17]), "at most 16"),
        ("credentials", json!([fields]), "at most 32"),
        ("rotation", json!({"strategy": "Replace", "gracePeriod": "99999999h"}), "gracePeriod"),
    ] {
        let mut manifest = lab.manifest("large");
        manifest["spec"][field] = value;
        let told = lab.attack(&manifest, false).unwrap_err();
        assert!(told.contains(says), "{field}: {told}");
    }
    let mut object = connection(&lab, "fast", "https://toolzz.example", json!({"name": "t", "key": "t"}));
    object["spec"]["rateLimit"] = json!(i32::MAX);
    let told = lab.attack(&object, false).unwrap_err();
    assert!(told.contains("rateLimit"), "{told}");
}

#[tokio::test]
async fn cve_2026_25518_an_answer_that_is_made_up_stops_nobody_else() {
    let mut lab = Lab::empty("cve25518").await;
    lab.flags.push("--allowed-hosts=127.0.0.1".to_owned());
    lab.start_operator();
    let answers = [
        "[".repeat(100_000),
        "null".to_owned(),
        "[null, [], 1]".to_owned(),
        format!("[{{\"credentials\": {}}}]", "9".repeat(100_000)),
        json!([{"credentials": {"id": "../..", "name": "\u{0}", "secretId": [], "status": "x"}, "integration": 1}])
            .to_string(),
        String::new(),
    ];
    let mut services = Vec::new();
    for (number, body) in answers.into_iter().enumerate() {
        let (evil, name) = (service("evil"), format!("evil{number}"));
        for operation in [Operation::List, Operation::Catalogue] {
            evil.fault(operation, Times::Always, Reply::Status { status: 200, headers: vec![], body: body.clone() });
        }
        lab.connect(&name, &evil.url(), "evil").await;
        let mut spec = reference("ToolzzConnection", &name);
        spec["type"] = json!("llm");
        lab.credential_with(&name, spec).await;
        services.push(evil);
    }
    for evil in &services {
        let asked = evil.until(|state| state.counts(Operation::List).received > 0);
        tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap_or_else(|_| panic!("{}", lab.log()));
    }
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    lab.log_holds_no_leak();
}

/// Functions of this file that are named after an advisory.
fn named_after_advisories(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let names = text.lines().filter_map(|line| {
        let name = line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.split('(').next()?;
        ["cve_", "ghsa_"].iter().any(|prefix| name.starts_with(prefix)).then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn the_table_of_advisories_and_the_tests_say_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["tests/e2e", "tests/remote"].into_iter().flat_map(|directory| super::docs::files(directory, "rs"));
    let mut tests: Vec<String> = files.flat_map(|file| named_after_advisories(&file)).collect();
    tests.sort();
    let mut listed = Vec::new();
    for row in std::fs::read_to_string(root.join("docs/advisories.md")).unwrap().lines() {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let Some(id) = cells.first().filter(|id| id.starts_with("CVE-") || id.starts_with("GHSA-")) else { continue };
        let test = cells.last().unwrap().trim_matches('`');
        assert_eq!(cells.len(), 5, "{row}");
        assert!(test.starts_with(&format!("{}_", id.to_lowercase().replace('-', "_"))), "{id}: {test}");
        listed.push(test.to_owned());
    }
    listed.sort();
    assert_eq!(listed, tests);
    assert!(listed.len() > 20, "{}", listed.len());
}
