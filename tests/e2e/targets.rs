//! Handing the virtual key to workloads.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{Patch, PostParams},
    runtime::wait::await_condition,
};
use serde_json::json;

use super::support::*;

fn config_maps(lab: &Lab) -> Api<ConfigMap> {
    Api::namespaced(lab.client.clone(), &lab.namespace)
}

async fn until_holds(lab: &Lab, name: &str, key: &str, value: &str) {
    let holds = |object: Option<&ConfigMap>| {
        object.is_some_and(|object| {
            object.data.as_ref().is_some_and(|data| data.get(key).is_some_and(|text| text == value))
        })
    };
    let waiting = await_condition(config_maps(lab), name, holds);
    tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.expect("the target").unwrap();
}

#[tokio::test]
async fn a_target_is_written_owned_and_put_right() {
    let lab = Lab::start("target").await;
    let target = json!({"kind": "ConfigMap", "name": "out", "keys": {"virtualKey": "TOOLZZ_VIRTUAL_KEY", "id": "ID"}});
    lab.credential_with("openai", json!({"target": target})).await;
    let object = lab.until_ready("openai").await;
    let status = object.status.unwrap();
    let key = status.virtual_key.unwrap();
    let written = config_maps(&lab).get("out").await.unwrap();
    let data = written.data.unwrap();
    assert_eq!((data.len(), data["TOOLZZ_VIRTUAL_KEY"].as_str()), (2, key.as_str()));
    assert_eq!(written.metadata.owner_references.unwrap()[0].uid, object.metadata.uid.unwrap());

    // Changed, and removed, by somebody else.
    let edit = Patch::Merge(json!({"data": {"TOOLZZ_VIRTUAL_KEY": "wrong"}}));
    config_maps(&lab).patch("out", &Default::default(), &edit).await.unwrap();
    until_holds(&lab, "out", "TOOLZZ_VIRTUAL_KEY", &key).await;
    config_maps(&lab).delete("out", &Default::default()).await.unwrap();
    until_holds(&lab, "out", "TOOLZZ_VIRTUAL_KEY", &key).await;

    // Other keys, another name, none.
    lab.edit("openai", json!({"target": {"keys": {"virtualKey": "KEY", "id": null}}})).await;
    until_holds(&lab, "out", "KEY", &key).await;
    assert_eq!(config_maps(&lab).get("out").await.unwrap().data.unwrap().len(), 1);
    lab.edit("openai", json!({"target": {"name": "moved"}})).await;
    until_holds(&lab, "moved", "KEY", &key).await;
    lab.edit("openai", json!({"target": null})).await;
    lab.until("openai", "without a target", |object| object.status.as_ref().unwrap().target.is_none()).await;
    for name in ["out", "moved"] {
        assert!(config_maps(&lab).get_opt(name).await.unwrap().is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_target_that_is_not_its_own_is_not_touched() {
    let lab = Lab::start("foreign").await;
    let foreign = json!({"metadata": {"name": "out"}, "stringData": {"precious": "data"}});
    let secrets: Api<Secret> = Api::namespaced(lab.client.clone(), &lab.namespace);
    secrets.create(&PostParams::default(), &serde_json::from_value(foreign).unwrap()).await.unwrap();
    lab.credential_with("openai", json!({"target": {"kind": "Secret", "name": "out"}})).await;
    let object = lab.until_reason("openai", "TargetConflict").await;
    assert!(ready(&object).unwrap().2.contains("spec.target") && has_condition(&object, "Stalled"));
    assert_eq!(secrets.get("out").await.unwrap().data.unwrap().len(), 1);
    // It goes, and the resource goes on by itself.
    lab.edit("openai", json!({"target": {"name": "other"}})).await;
    let object = lab.until_ready("openai").await;
    let data = secrets.get("other").await.unwrap().data.unwrap();
    assert_eq!(data["virtualKey"].0, object.status.unwrap().virtual_key.unwrap().into_bytes());
}

#[tokio::test]
async fn a_target_switches_before_the_old_credential_retires() {
    let lab = Lab::start("switchtarget").await;
    let spec = json!({
        "target": {"kind": "ConfigMap", "name": "out"},
        "rotation": {"strategy": "Replace", "gracePeriod": "1s"},
    });
    lab.credential_with("openai", spec).await;
    let before = lab.until_ready("openai").await.status.unwrap();
    lab.rotate("openai", "new").await;
    let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
    assert_ne!(before.virtual_key, after.virtual_key);
    assert_eq!(config_maps(&lab).get("out").await.unwrap().data.unwrap()["virtualKey"], after.virtual_key.unwrap());
    lab.until("openai", "retired", |object| object.status.as_ref().unwrap().retiring.is_empty()).await;
    assert_eq!(lab.simulator.active_named("openai").len(), 1);
}

#[tokio::test]
async fn the_resource_goes_and_its_target_with_it() {
    let lab = Lab::start("targetgc").await;
    lab.credential_with("openai", json!({"target": {"kind": "ConfigMap", "name": "out"}})).await;
    lab.until_ready("openai").await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    let gone = await_condition(config_maps(&lab), "out", |object: Option<&ConfigMap>| object.is_none());
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("garbage collection").unwrap();
}

#[tokio::test]
async fn a_target_that_a_policy_refuses_is_told_and_tried_again() {
    let lab = Lab::empty("policy").await;
    let policy = json!({
        "apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": lab.namespace},
                "spec": {
                    "matchConstraints": {"resourceRules": [{
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"],
                    }]},
                    "validations": [{"expression": "object.metadata.name != 'out'", "message": "not this name"}],
                },
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": lab.namespace},
                "spec": {
                    "policyName": lab.namespace, "validationActions": ["Deny"],
                    "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": lab.namespace}}},
                },
            },
        ],
    });
    let file = lab.directory.join("policy.json");
    std::fs::write(&file, policy.to_string()).unwrap();
    let apply = |args: &[&str]| assert!(lab.plane.kubectl(args).status().unwrap().success());
    apply(&["apply", "-f", file.to_str().unwrap()]);
    // Policies come into force some moment after they were made.
    let refused = async {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("out".into());
        while config_maps(&lab).create(&PostParams { dry_run: true, ..PostParams::default() }, &map).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), refused).await.unwrap();
    let mut lab = lab;
    lab.start_operator();
    lab.credential_with("openai", json!({"target": {"kind": "ConfigMap", "name": "out"}})).await;
    let object = lab.until_reason("openai", "TargetConflict").await;
    assert!(ready(&object).unwrap().2.contains("spec.target"), "{:?}", ready(&object));
    assert_eq!(lab.simulator.active_named("openai").len(), 1);
    lab.edit("openai", json!({"target": {"name": "other"}})).await;
    lab.until_ready("openai").await;
}
