//! A connection that the platform shares out, tried by tenants with edit rights in one namespace each. The operator has
//! exactly the rights of the chart for the whole cluster.

use serde_json::{Value, json};
use toolzz_operator::api::{ClusterToolzzConnection, ConnectionStatus, ToolzzCredential};
use toolzz_simulator::{NewCredential, OPENAI, Operation, Simulator};

use super::{
    chart::start_as_chart,
    connections::{assert_only, ready_reason, reference, service, token},
    support::*,
};

const OTHER_UNITY: &str = "0b8e2d34-0000-4000-8000-000000000009";

impl Lab {
    /// Those of the platform.
    fn shared_connections(&self) -> kube::Api<ClusterToolzzConnection> {
        kube::Api::all(self.client.clone())
    }

    pub async fn shared_connection(&self, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ClusterToolzzConnection",
            "metadata": {"name": name}, "spec": spec,
        });
        let apply = kube::api::PatchParams::apply("e2e").force();
        self.shared_connections().patch(name, &apply, &kube::api::Patch::Apply(object)).await.unwrap();
    }

    pub async fn until_shared_connection(&self, name: &str, reason: &str) {
        self.until_shared_status(name, |status| ready_reason(Some(status)) == Some(reason)).await;
    }

    async fn until_shared_status(&self, name: &str, so: impl Fn(&ConnectionStatus) -> bool) {
        let is = |object: Option<&ClusterToolzzConnection>| {
            object.and_then(|object| object.status.as_ref()).is_some_and(&so)
        };
        let found = kube::runtime::wait::await_condition(self.shared_connections(), name, is);
        let found = tokio::time::timeout(std::time::Duration::from_secs(30), found).await;
        assert!(found.is_ok(), "{:#?}\n{}", self.shared_connections().get(name).await.unwrap().status, self.log());
    }
}

struct Platform {
    lab: Lab,
    home: String,
    red: String,
    blue: String,
    shared: Simulator,
}

impl Platform {
    async fn start() -> Self {
        let mut lab = Lab::on(plane_of_ones_own().await, "platform").await;
        start_as_chart(&mut lab, "rateLimit=0,allowedHosts={127.0.0.1}").await;
        let home = lab.namespace.clone();
        let red = lab.plane.unique_namespace("red").await.unwrap();
        let blue = lab.plane.unique_namespace("blue").await.unwrap();
        let shared = service("platform");
        lab.secret("platform-token", &[("token", &token("platform"))]).await;
        Self { lab, home, red, blue, shared }
    }

    /// The connection of this name is given to these.
    async fn give(&self, name: &str, namespaces: Value, unities: Value) {
        let spec = json!({
            "url": self.shared.url(), "tokenSecretRef": {"name": "platform-token", "key": "token"},
            "namespaces": namespaces, "unities": unities,
        });
        self.lab.shared_connection(name, spec).await;
    }

    async fn until_connected(&self, name: &str, credentials: i64) {
        let so = |status: &ConnectionStatus| {
            ready_reason(Some(status)) == Some("Connected") && status.credentials == Some(credentials)
        };
        self.lab.until_shared_status(name, so).await;
    }

    fn act_as(&mut self, namespace: &str) {
        namespace.clone_into(&mut self.lab.namespace);
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let output = self.lab.plane.kubectl(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

fn message(object: &ToolzzCredential) -> String {
    ready(object).unwrap().2.to_owned()
}

#[tokio::test]
async fn confused_deputy_a_tenant_gets_what_it_is_given_and_nothing_else() {
    let mut platform = Platform::start().await;
    let (red, blue) = (platform.red.clone(), platform.blue.clone());
    let by_shared = reference("ClusterToolzzConnection", "shared");
    platform.give("shared", json!({"names": [red]}), json!([{"id": UNITY}])).await;

    // Given: it works, with the platform's token.
    platform.act_as(&red);
    platform.lab.credential_with("openai", by_shared.clone()).await;
    platform.lab.until_ready("openai").await;
    platform.until_connected("shared", 1).await;
    // Another unity of the same account is not.
    let mut spec = by_shared.clone();
    spec["unityId"] = json!(OTHER_UNITY);
    platform.lab.credential_with("unity", spec).await;
    let object = platform.lab.until_reason("unity", "Forbidden").await;
    assert!(message(&object).contains(OTHER_UNITY), "{}", message(&object));
    // Nor is what others made in the account.
    let stranger = platform.shared.insert(NewCredential {
        name: "stranger".to_owned(),
        user_id: USER.parse().unwrap(),
        unity_id: UNITY.parse().unwrap(),
        integration_id: OPENAI,
        active: true,
        material: json!([{"api_key": "theirs"}]),
    });
    let mut spec = by_shared.clone();
    spec["externalId"] = json!(stranger.to_string());
    platform.lab.credential_with("stranger", spec).await;
    let object = platform.lab.until_reason("stranger", "Forbidden").await;
    assert!(!message(&object).is_empty());

    // Somebody else's namespace: nothing, and no word of who has it.
    platform.act_as(&blue);
    platform.lab.credential_with("openai", by_shared.clone()).await;
    let object = platform.lab.until_reason("openai", "Forbidden").await;
    assert!(message(&object).contains(&blue) && !message(&object).contains(&red), "{}", message(&object));
    // A Secret and a connection of the same names in one's own namespace change nothing.
    platform.lab.secret("platform-token", &[("token", "guessed")]).await;
    let own = json!({
        "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzConnection", "metadata": {"name": "shared", "namespace": blue},
        "spec": {"url": platform.shared.url(), "tokenSecretRef": {"name": "platform-token", "key": "token"}},
    });
    let file = platform.lab.directory.join("own.json");
    std::fs::write(&file, own.to_string()).unwrap();
    platform.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    platform.lab.credential_with("own", reference("ToolzzConnection", "shared")).await;
    platform.lab.until_reason("own", "Unauthorized").await;
    let object = platform.lab.api().get("openai").await.unwrap();
    assert_eq!(ready(&object).unwrap().1, "Forbidden");

    let full = |entry: &toolzz_simulator::Entry| entry.token == toolzz_simulator::TokenSeen::Full("platform".into());
    let journal = platform.shared.journal();
    assert!(journal.iter().filter(|entry| full(entry)).all(|entry| !entry.path.contains(OTHER_UNITY)));
    assert!(journal.iter().all(|entry| !entry.path.contains(&stranger.to_string())));
    assert_eq!(platform.shared.counts(Operation::Create).committed, 1);
    platform.lab.assert_no_leak().await;
    platform.act_as(&red);
    platform.lab.assert_no_leak().await;
}

#[tokio::test]
async fn confused_deputy_a_record_of_ones_own_service_is_no_claim_on_the_platforms() {
    let mut platform = Platform::start().await;
    let (red, evil) = (platform.red.clone(), service("evil"));
    platform.give("shared", json!({"names": [red]}), json!([{"id": "*"}])).await;
    platform.act_as(&red);
    let lab = &platform.lab;
    lab.secret("evil", &[("token", &token("evil"))]).await;
    let own = json!({
        "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzConnection", "metadata": {"name": "evil", "namespace": red},
        "spec": {"url": evil.url(), "tokenSecretRef": {"name": "evil", "key": "token"}},
    });
    let file = lab.directory.join("evil.json");
    std::fs::write(&file, own.to_string()).unwrap();
    platform.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    lab.credential_with("openai", reference("ToolzzConnection", "evil")).await;
    let object = lab.until_ready("openai").await;
    let status = object.status.clone().unwrap();
    let id = status.id.clone().unwrap();
    lab.delete("openai").await;
    lab.until_gone("openai").await;

    // The same name again, the record copied over, but by the platform's connection.
    let mut manifest = lab.manifest("openai");
    manifest["spec"]["connectionRef"] = json!({"kind": "ClusterToolzzConnection", "name": "shared"});
    manifest["metadata"]["annotations"] =
        json!({"toolzz.com.br/ledger": object.metadata.annotations.unwrap()["toolzz.com.br/ledger"]});
    lab.create(manifest).await.unwrap();
    lab.until_event("LedgerInvalid").await;
    let object = lab.until_ready("openai").await;
    assert_ne!(object.status.unwrap().id.unwrap(), id);
    assert!(platform.shared.journal().iter().all(|entry| !entry.path.contains(id.as_str())));
    assert_only(&platform.shared, "platform");
    assert_only(&evil, "evil");
}

#[tokio::test]
async fn a_grant_by_label_follows_the_label_and_a_default_object_takes_the_place_of_the_flags_for_good() {
    let mut platform = Platform::start().await;
    let (red, blue) = (platform.red.clone(), platform.blue.clone());
    let by_shared = reference("ClusterToolzzConnection", "shared");
    let selector = json!({"selector": {"matchLabels": {"team": "blue"}}});
    platform.give("shared", selector, json!([{"id": "*", "namespaces": [blue]}])).await;
    platform.act_as(&blue);
    platform.lab.credential_with("openai", by_shared).await;
    platform.lab.until_reason("openai", "Forbidden").await;
    platform.kubectl(&["label", "namespace", &blue, "team=blue"]);
    platform.lab.until_ready("openai").await;
    platform.kubectl(&["label", "namespace", &blue, "team-"]);
    platform.lab.until_reason("openai", "Forbidden").await;
    assert_eq!(platform.shared.posts(), 1);

    // By the flags, everybody has the default.
    platform.lab.credential("plain").await;
    platform.lab.until_ready("plain").await;
    assert_eq!(platform.lab.simulator.posts(), 1);
    platform.give("default", json!({"names": [red]}), json!([{"id": "*"}])).await;
    platform.lab.until_reason("plain", "Forbidden").await;
    platform.act_as(&red);
    platform.lab.credential("plain").await;
    platform.lab.until_ready("plain").await;
    assert_eq!((platform.lab.simulator.posts(), platform.shared.posts()), (1, 2));
    platform.lab.shared_connections().delete("default", &Default::default()).await.unwrap();
    // Without the object that limits everybody nobody has anything: not the flags' connection either.
    platform.lab.until_reason("plain", "ConnectionNotFound").await;
    platform.act_as(&blue);
    let object = platform.lab.until_reason("plain", "ConnectionNotFound").await;
    assert!(message(&object).contains("is gone"), "{}", message(&object));
    platform.give("default", json!({"names": [blue]}), json!([{"id": "*"}])).await;
    platform
        .lab
        .until("plain", "answered by the object", |object| {
            ready(object).is_some_and(|(_, why, _)| why == "RemoteMissing")
        })
        .await;
    assert_only(&platform.shared, "platform");
    assert_only(&platform.lab.simulator, "default");

    // What a tenant with the chart's edit role may and may not write.
    let edit =
        ["create", "rolebinding", "tenant", "-n", &blue, "--clusterrole=op-toolzz-operator-edit", "--user=tenant"];
    platform.kubectl(&edit);
    let may = |verb: &str, what: &str| {
        platform.kubectl(&["auth", "can-i", verb, what, "--as=tenant", "-n", &blue]).trim().starts_with("yes")
    };
    assert!(may("create", "toolzzconnections.toolzz.com.br") && may("create", "toolzzcredentials.toolzz.com.br"));
    assert!(!may("create", "clustertoolzzconnections.toolzz.com.br"));
    assert!(!may("patch", "clustertoolzzconnections.toolzz.com.br"));
    assert!(!platform.home.is_empty());
}
