//! What the tests of this room share.

use std::{sync::Arc, time::Duration};

use kube::{Client, ResourceExt};
use serde_json::json;

use super::{events::Events, links};
use crate::{
    api::ToolzzCredential,
    plan::Ledger,
    remote::{Clock, Config},
    runtime::{Metrics, Share},
};

/// Where nothing answers.
pub(super) const SERVICE: &str = "127.0.0.1:9";

pub(super) fn resource(namespace: &str, name: &str) -> ToolzzCredential {
    let uid = format!("uid of {namespace}/{name}");
    let spec = json!({"userId": "u", "unityId": "n", "integrationId": "i", "name": "n", "credentials": []});
    let manifest = json!({
        "apiVersion": "toolzz.com.br/v1alpha1",
        "kind": "ToolzzCredential",
        "metadata": {"namespace": namespace, "name": name, "uid": uid},
        "spec": spec,
    });
    serde_json::from_value(manifest).unwrap()
}

/// The resource, over another connection than the default one.
pub(super) fn over_another(mut resource: ToolzzCredential) -> ToolzzCredential {
    let another = json!({"kind": "ClusterToolzzConnection", "name": "another"});
    resource.spec.connection_ref = serde_json::from_value(another).unwrap();
    resource
}

/// One by which the resource holds this credential.
pub(super) fn ledger(object: &ToolzzCredential, id: &str) -> Ledger {
    Ledger {
        sequence: 0,
        uid: object.uid().unwrap(),
        id: id.into(),
        secret_id: "secret".into(),
        digest: "digest".to_owned(),
        staged_as: id.into(),
        adopted: None,
        retiring: Vec::new(),
    }
}

/// What connections share, and terms for them.
pub(super) fn shared(share: Share, metrics: Arc<Metrics>) -> (links::Shared, links::Terms) {
    let client = Client::try_from(kube::Config::new(format!("http://{SERVICE}").parse().unwrap())).unwrap();
    let shared = links::Shared {
        events: Events::start(client.clone(), "test".to_owned(), Arc::clone(&metrics)).0,
        client,
        reach: Default::default(),
        clock: Clock::start(),
        share,
        resync_interval: Duration::from_secs(600),
        claims: Arc::default(),
        metrics,
    };
    let terms = links::Terms {
        config: Config::new(format!("http://{SERVICE}/api/v1")),
        allow_adoption: false,
        allow_private_addresses: true,
        scoped: false,
        operator_namespace: "operator".to_owned(),
    };
    (shared, terms)
}
