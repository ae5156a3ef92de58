//! The search for key material and tokens in whatever an operator writes.

use std::io::Write as _;

use k8s_openapi::{
    ByteString,
    api::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Secret},
    },
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use toolzz_operator::api::{ToolzzConnection, ToolzzCredential};
use toolzz_simulator::DEFAULT_TOKEN;

use crate::support::{Lab, Operator};

/// In every key of a test: neither half may show up anywhere. Both are such that no escaping changes them.
pub const CANARY: &str = "cut7f3aCanary-two9b2eHalves";

impl Lab {
    /// Nothing of key material or token is in anything that the operators of this room have written or been told.
    pub async fn assert_no_leak(&self) {
        self.log_holds_no_leak();
        search("the events", &text(&self.events().await));
        search("the resources", &self.all::<ToolzzCredential>().await);
        search("the connections", &self.all::<ToolzzConnection>().await);
        search("the config maps", &self.all::<ConfigMap>().await);
        search("the leases", &self.all::<Lease>().await);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for mut secret in secrets.list(&ListParams::default()).await.unwrap() {
            // Those of the users hold what they are for; those of the operator hold targets.
            if secret.owner_references().is_empty() {
                secret.data = None;
                // Of `kubectl apply`, with the whole manifest in it.
                secret.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
            }
            let decoded: Vec<_> = secret.data.iter().flatten().map(|(key, value)| (key, &value.0)).collect();
            let told: Vec<_> = decoded.iter().map(|(key, value)| (key, String::from_utf8_lossy(value))).collect();
            search("a secret", &(text(&told) + &text(&secret)));
        }
        if let Some(operator) = &self.operator {
            for path in ["/metrics", "/readyz", "/healthz"] {
                search(path, &operator.get(path).1);
            }
            self.told_nothing(operator);
        }
        if let Some(directory) = std::env::var_os("TOOLZZ_PROOF") {
            let path = std::path::Path::new(&directory).join("leak-searches");
            let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
            file.write_all(b".\n").unwrap();
        }
    }

    /// Nothing is in the logs, at trace.
    pub fn log_holds_no_leak(&self) {
        search("the log", &self.log());
    }

    /// Nothing is in the arguments and the environment, but for the token, which the tests put there.
    fn told_nothing(&self, operator: &Operator) {
        search("the arguments and the environment", &operator.told().replace(DEFAULT_TOKEN, ""));
    }

    async fn all<K>(&self) -> String
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        text(&api.list(&ListParams::default()).await.unwrap().items)
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn search(place: &str, text: &str) {
    if let Some(form) = found(text) {
        let at = text.find(&form).unwrap_or_default();
        let around = text.get(at.saturating_sub(300)..(at + 300).min(text.len())).unwrap_or_default();
        panic!("key material or token in {place}, as {form:?}: {around}");
    }
}

/// The first form of a half of the canary, or of the token, that this text holds.
fn found(text: &str) -> Option<String> {
    static FORMS: std::sync::LazyLock<Vec<String>> =
        std::sync::LazyLock::new(|| CANARY.split('-').chain([DEFAULT_TOKEN]).flat_map(forms).collect());
    FORMS.iter().find(|form| text.contains(form.as_str())).cloned()
}

/// The ways a text can stand somewhere: as it is, as its bytes, in hexadecimal, and in base64 wherever it begins.
fn forms(text: &str) -> Vec<String> {
    let bytes: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = (0..3).map(|shift| {
        let shifted = ByteString([vec![0; shift], text.as_bytes().to_vec()].concat());
        let all = serde_json::to_value(&shifted).unwrap().as_str().unwrap().trim_end_matches('=').to_owned();
        // Only what depends on the text alone.
        all[(shift * 4).div_ceil(3)..all.len() - 1].to_owned()
    });
    let plain = [text.to_owned(), bytes.join(", "), bytes.join(","), hex.to_uppercase(), hex];
    plain.into_iter().chain(base64).collect()
}

#[test]
fn every_form_of_a_text_is_found_in_what_holds_it() {
    for before in ["", "a", "ab", "abc"] {
        for half in CANARY.split('-') {
            let held = format!("{before}{half}xyz");
            assert!(found(&text(&ByteString(held.clone().into_bytes()))).is_some(), "{half}");
            assert!(found(&format!("{:?}", held.as_bytes())).is_some(), "{half}");
            assert!(found(&text(&held.as_bytes())).is_some(), "{half}");
            assert!(found(&text(&[text(&held)])).is_some(), "{half}");
        }
    }
    assert!(found(&format!("{:x?}", b"nothing")).is_none());
    assert!(forms("ab").contains(&"97, 98".to_owned()) && forms("ab").contains(&"6162".to_owned()));
}
