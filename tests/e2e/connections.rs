//! A tenant's own connections: whose token goes where, and what a tenant cannot reach.

use std::{
    io::{Read as _, Write as _},
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use toolzz_operator::api::{ConnectionStatus, ToolzzConnection, condition};
use toolzz_simulator::{Simulator, Token, TokenSeen};

use super::support::*;

/// A simulator of a tenant's own, with one token.
pub fn service(id: &str) -> Simulator {
    Simulator::builder().tokens(vec![Token::full(id, &token(id))]).start().unwrap()
}

pub fn token(id: &str) -> String {
    format!("{CANARY}-token-of-{id}")
}

pub fn reference(kind: &str, name: &str) -> Value {
    json!({"connectionRef": {"kind": kind, "name": name}})
}

/// Reason of the Ready condition.
pub fn ready_reason(status: Option<&ConnectionStatus>) -> Option<&str> {
    Some(&condition(&status?.conditions, "Ready")?.reason)
}

impl Lab {
    pub fn connections(&self) -> kube::Api<ToolzzConnection> {
        kube::Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn connection(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzConnection",
            "metadata": {"name": name}, "spec": spec,
        });
        let apply = kube::api::PatchParams::apply("e2e").force();
        self.connections().patch(name, &apply, &kube::api::Patch::Apply(object)).await.unwrap();
    }

    /// A connection of this name to this URL, with the token of this id in a Secret.
    pub async fn connect(&self, name: &str, url: &str, id: &str) {
        let secret = format!("token-{name}");
        self.secret(&secret, &[("token", &token(id))]).await;
        self.connection(name, json!({"url": url, "tokenSecretRef": {"name": secret, "key": "token"}})).await;
    }

    pub async fn until_connection(&self, name: &str, reason: &str) -> ToolzzConnection {
        let is = |object: Option<&ToolzzConnection>| {
            object.is_some_and(|object| ready_reason(object.status.as_ref()) == Some(reason))
        };
        let found = kube::runtime::wait::await_condition(self.connections(), name, is);
        match tokio::time::timeout(std::time::Duration::from_secs(30), found).await {
            Ok(object) => object.unwrap().unwrap(),
            Err(_) => {
                let status = self.connections().get(name).await.unwrap().status;
                panic!("connection {name} did not become {reason}: {status:#?}\n{}", self.log())
            }
        }
    }
}

/// Every request there came with this token.
pub fn assert_only(simulator: &Simulator, id: &str) {
    let journal = simulator.journal();
    assert!(!journal.is_empty(), "{id}: nothing came");
    for entry in journal {
        assert_eq!(entry.token, TokenSeen::Full(id.to_owned()), "{} {}", entry.method, entry.path);
    }
}

#[tokio::test]
async fn a_tenants_url_gets_the_tenants_token_and_no_other() {
    let mut lab = Lab::empty("tenants").await;
    let (red, blue) = (service("red"), service("blue"));
    let second = lab.plane.unique_namespace("blue").await.unwrap();
    lab.flags.extend([format!("--namespaces={second}"), "--allowed-hosts=127.0.0.1".to_owned()]);
    lab.start_operator();
    // Before its connection: it waits for it.
    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    lab.until_reason("openai", "ConnectionNotFound").await;
    lab.connect("own", &red.url(), "red").await;
    lab.until_ready("openai").await;
    let first = std::mem::replace(&mut lab.namespace, second);
    lab.connect("own", &blue.url(), "blue").await;
    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    lab.until_ready("openai").await;
    lab.credential("by-flags").await;
    lab.until_ready("by-flags").await;

    assert_only(&red, "red");
    assert_only(&blue, "blue");
    assert_only(&lab.simulator, "default");
    assert_eq!((red.posts(), blue.posts(), lab.simulator.posts()), (1, 1, 1));
    let own = lab.until_connection("own", "Connected").await.status.unwrap();
    for kind in ["Ready", "Reachable", "Authorized"] {
        assert_eq!(condition(&own.conditions, kind).map(|found| found.status.as_str()), Some("True"), "{kind}");
    }
    assert!(condition(&own.conditions, "Reconciling").is_none() && condition(&own.conditions, "Stalled").is_none());

    // A name of the other namespace cannot be said: the same name is one's own connection.
    lab.credential_with("other", reference("ToolzzConnection", &first)).await;
    lab.until_reason("other", "ConnectionNotFound").await;
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn a_token_is_read_again_when_its_secret_changes_and_nothing_is_posted_again() {
    let mut lab = Lab::empty("retoken").await;
    let own = service("old");
    lab.flags.push("--allowed-hosts=127.0.0.1".to_owned());
    lab.start_operator();
    lab.connect("own", &own.url(), "old").await;
    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    lab.until_ready("openai").await;

    own.set_tokens(vec![Token::full("new", &token("new"))]);
    lab.edit("openai", json!({"name": "Renamed"})).await;
    lab.until_reason("openai", "Unauthorized").await;
    let status = lab.until_connection("own", "Unauthorized").await.status.unwrap();
    assert_eq!(condition(&status.conditions, "Authorized").unwrap().status, "False");
    assert_eq!(condition(&status.conditions, "Reachable").unwrap().status, "True");
    lab.until_event("Unauthorized").await;

    lab.secret("token-own", &[("token", &token("new"))]).await;
    lab.until_ready("openai").await;
    lab.until_connection("own", "Connected").await;
    assert_eq!((own.posts(), own.active_named("Renamed").len()), (1, 1));

    // A Secret that is gone takes the connection with it, and brings it back.
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> =
        kube::Api::namespaced(lab.client.clone(), &lab.namespace);
    secrets.delete("token-own", &Default::default()).await.unwrap();
    lab.until_connection("own", "SecretNotFound").await;
    let object = lab.until_reason("openai", "ConnectionNotReady").await;
    assert!(ready(&object).unwrap().2.contains("token-own"), "{:?}", ready(&object));
    lab.secret("token-own", &[("token", &token("new"))]).await;
    lab.until_ready("openai").await;
    assert_eq!(own.posts(), 1);
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn cve_2026_4789_a_url_of_a_host_that_is_not_allowed_gets_nothing() {
    let mut lab = Lab::empty("ssrf").await;
    let other = service("other");
    let (allowed, port) = (lab.simulator.address(), other.address().port());
    lab.flags.push(format!("--allowed-hosts={allowed},localhost,[::1]:1"));
    lab.start_operator();
    for (name, host, reason, says) in [
        ("unlisted", format!("http://127.0.0.1:{port}"), "InvalidSpec", "not among the allowed hosts"),
        ("decimal", format!("http://2130706433:{port}"), "InvalidSpec", "not among the allowed hosts"),
        ("mapped", format!("https://[::ffff:127.0.0.1]:{port}"), "InvalidSpec", "not among the allowed hosts"),
        // On the list, but it leads to loopback.
        ("rebound", format!("http://localhost:{port}"), "ApiUnavailable", "not allowed"),
    ] {
        lab.connect(name, &format!("{host}/api/v1"), "other").await;
        let status = lab.until_connection(name, reason).await.status.unwrap();
        let message = &condition(&status.conditions, "Ready").unwrap().message;
        assert!(message.contains(says), "{name}: {message}");
        lab.credential_with(name, reference("ToolzzConnection", name)).await;
        lab.until(name, "refused", |object| {
            ready(object).is_some_and(|(_, why, _)| ["ConnectionNotReady", "ApiUnavailable"].contains(&why))
        })
        .await;
    }
    lab.connect("plain", "http://toolzz.example/api/v1", "other").await;
    let status = lab.until_connection("plain", "InvalidSpec").await.status.unwrap();
    assert!(condition(&status.conditions, "Ready").unwrap().message.contains("https://"));
    assert!(other.journal().is_empty(), "{:?}", other.journal());
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn ssrf_without_a_list_a_tenant_has_the_operators_host_and_that_not_on_loopback() {
    let mut lab = Lab::empty("nolist").await;
    let other = service("other");
    lab.start_operator();
    for (name, url, says) in [
        ("same", lab.simulator.url(), "public Internet"),
        ("elsewhere", "https://toolzz.example/api/v1".to_owned(), "not among the allowed hosts"),
        ("loopback", other.url(), "public Internet"),
    ] {
        lab.connect(name, &url, "other").await;
        let status = lab.until_connection(name, "InvalidSpec").await.status.unwrap();
        let message = &condition(&status.conditions, "Ready").unwrap().message;
        assert!(message.contains(says), "{name}: {message}");
    }
    assert!(other.journal().is_empty() && lab.simulator.journal().is_empty());
}

#[tokio::test]
async fn ssrf_a_proxy_of_the_environment_gets_nothing() {
    let mut lab = Lab::empty("proxied").await;
    // By a proxy it would be its host that answers: there is none.
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let none = String::new();
    // HTTPS_PROXY is Kubernetes' client's as well, which would refuse it.
    lab.environment = vec![
        ("HTTP_PROXY", url.clone()),
        ("http_proxy", url.clone()),
        ("ALL_PROXY", url),
        ("NO_PROXY", none.clone()),
        ("no_proxy", none),
    ];
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    assert_eq!(proxy.accept().map_err(|error| error.kind()).err(), Some(std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn ssrf_the_proxy_of_the_flags_is_for_their_connection_only() {
    let mut lab = Lab::empty("apiproxy").await;
    let own = service("own");
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = proxy.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let journal = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in proxy.incoming().flatten() {
            let mut head = [0; 1024];
            // Who hangs up has said enough.
            let read = stream.read(&mut head).unwrap_or_default();
            journal.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).into_owned());
            let _ = stream.write_all(format!("HTTP/1.1 403 {CANARY}\r\n\r\n").as_bytes());
        }
    });
    // Without any there is no TLS; whether the system has some is not the matter here.
    let authority = lab.directory.join("authority.pem");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&authority, made.cert.pem()).unwrap();
    lab.environment = vec![
        ("TOOLZZ_API_URL", "https://toolzz.example/api/v1".to_owned()),
        ("TOOLZZ_API_PROXY", format!("http://{at}")),
        ("SSL_CERT_FILE", authority.into_os_string().into_string().unwrap()),
    ];
    lab.flags.push("--allowed-hosts=127.0.0.1,toolzz.example".to_owned());
    lab.start_operator();
    lab.credential_with("by-flags", json!({"type": "llm"})).await;
    let object = lab.until_reason("by-flags", "ApiUnavailable").await;
    let says =
        format!("toolzz.example:443 (through the proxy {at}) cannot be reached: the proxy makes no connection to it");
    assert!(ready(&object).unwrap().2.contains(&says), "{:?}", ready(&object));

    lab.connect("own", &own.url(), "own").await;
    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    lab.until_ready("openai").await;
    assert_only(&own, "own");
    let asked = asked.lock().unwrap().clone();
    assert!(!asked.is_empty() && asked.iter().all(|head| head.starts_with("CONNECT toolzz.example:443 ")), "{asked:?}");
    assert!(lab.simulator.journal().is_empty());
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn a_connection_that_goes_while_in_use_is_told_and_holds_no_deletion_for_ever() {
    let mut lab = Lab::empty("connectiongone").await;
    let own = service("own");
    lab.flags.extend(["--allowed-hosts=127.0.0.1".to_owned(), "--deletion-deadline=3s".to_owned()]);
    lab.start_operator();
    lab.connect("own", &own.url(), "own").await;
    for name in ["kept", "openai"] {
        lab.credential_with(name, reference("ToolzzConnection", "own")).await;
        lab.until_ready(name).await;
    }
    lab.connections().delete("own", &Default::default()).await.unwrap();
    lab.until_reason("openai", "ConnectionNotFound").await;
    lab.until_reason("kept", "ConnectionNotFound").await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.until_event("DeletionBlocked").await;
    assert_eq!(own.active_named("openai").len(), 1, "what stays active was named");
    // It comes back: what is still there goes on, and nothing is posted again.
    lab.connect("own", &own.url(), "own").await;
    lab.until_ready("kept").await;
    assert_eq!(own.posts(), 2);
}

#[tokio::test]
async fn a_restart_writes_nothing_and_a_moved_url_takes_the_resources_along() {
    let mut lab = Lab::empty("moved").await;
    let (before, after) = (service("own"), service("own"));
    lab.flags.push("--allowed-hosts=127.0.0.1".to_owned());
    lab.start_operator();
    lab.connect("own", &before.url(), "own").await;
    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    let object = lab.until_ready("openai").await;
    lab.kill_operator();
    lab.start_operator();
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    lab.credential_with("later", reference("ToolzzConnection", "own")).await;
    lab.until_ready("later").await;
    let version = |object: &toolzz_operator::api::ToolzzCredential| object.metadata.resource_version.clone();
    assert_eq!(version(&lab.api().get("openai").await.unwrap()), version(&object), "a restart is no change");
    assert_eq!(before.posts(), 2);

    // The same account moves to another address: there, the credential is not, and that is said.
    lab.connect("own", &after.url(), "own").await;
    lab.until_reason("openai", "RemoteMissing").await;
    assert_eq!((before.posts(), after.posts()), (2, 0));
}

#[tokio::test]
async fn what_a_connection_may_not_be_is_refused_at_admission() {
    let lab = Lab::empty("connectionadmission").await;
    let secret = json!({"name": "t", "key": "t"});
    let full = |url: &str| json!({"url": url, "tokenSecretRef": secret});
    let shared = |change: Value| {
        let mut spec = full("https://toolzz.example");
        spec["namespaces"] = json!({"names": ["x"]});
        spec["unities"] = json!([{"id": "*"}]);
        for (field, value) in change.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let elsewhere = json!({"tokenSecretRef": {"name": "t", "key": "t", "namespace": "kube-system"}});
    for (kind, spec, says) in [
        ("ToolzzConnection", full("toolzz.example"), "must be an absolute URL"),
        ("ToolzzConnection", full("https://anna:pw@toolzz.example"), "user name or password"),
        ("ToolzzConnection", full("https://toolzz.example?x=y"), "query or fragment"),
        ("ToolzzConnection", json!({"url": "https://toolzz.example"}), "tokenSecretRef"),
        ("ClusterToolzzConnection", full("https://toolzz.example"), "namespaces"),
        ("ClusterToolzzConnection", shared(json!({"namespaces": {}})), "name at least one namespace"),
        ("ClusterToolzzConnection", shared(json!({"unities": []})), "at least 1"),
        ("ClusterToolzzConnection", shared(json!({"unities": [{"id": "all"}]})), "should match"),
        ("ClusterToolzzConnection", shared(json!({"rateLimit": 0})), "greater than or equal to 1"),
        ("ClusterToolzzConnection", shared(elsewhere), "tokenSecretRef.namespace"),
    ] {
        let object = json!({
            "apiVersion": "toolzz.com.br/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {"name": "wrong"},
        });
        let file = lab.directory.join("connection.json");
        std::fs::write(&file, object.to_string()).unwrap();
        let output = lab.plane.kubectl(["apply", "-n", &lab.namespace, "-f", file.to_str().unwrap()]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(says), "{object}: {error}");
    }

    for example in ["connection-tenant.yaml", "connection-platform.yaml"] {
        let file = format!("{}/examples/features/{example}", env!("CARGO_MANIFEST_DIR"));
        let args = ["apply", "--dry-run=server", "-n", &lab.namespace, "-f", &file];
        let output = lab.plane.kubectl(args).output().unwrap();
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    }

    lab.credential_with("openai", reference("ToolzzConnection", "own")).await;
    for reference in [json!(null), json!({"kind": "ClusterToolzzConnection", "name": "own"})] {
        let patch = kube::api::Patch::Merge(json!({"spec": {"connectionRef": reference}}));
        let error = lab.api().patch("openai", &Default::default(), &patch).await.unwrap_err().to_string();
        assert!(error.contains("spec.connectionRef") && error.contains("cannot be changed"), "{error}");
    }
}
