//! Values made from the definitions' own schemas: what the API server accepts, the operator settles or says why not.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
    runtime::wait::await_condition,
};
use serde_json::{Map, Value, json};
use toolzz_operator::api::{ClusterToolzzConnection, ToolzzConnection, ToolzzCredential};

use super::{
    dice::{Dice, number},
    support::*,
};

const WORDS: [&str; 10] =
    ["openai", "key", "a", "ab-c.d", "KEY_1", "\u{fffd}ü\u{1f511}", "with space", "${HOME}", "../..", "10m"];
const UUIDS: [&str; 3] = [USER, UNITY, "9A770001-0000-4000-8000-000000000001"];

/// A value of this schema, or nearly: what is not one shows that the API server refuses it.
fn value(schema: &Value, dice: &mut Dice) -> Value {
    let mut pick = |from: &[&str]| json!(from[dice.below(from.len() as u64) as usize]);
    if let Some(all) = schema["enum"].as_array() {
        return all[dice.below(all.len() as u64) as usize].clone();
    }
    match schema["type"].as_str() {
        Some("string") if schema.to_string().contains("[0-9a-fA-F]{8}") => pick(&UUIDS),
        Some("string") if schema.to_string().contains("ms|s|m|h") => pick(&["1s", "10m", "1h30m", "0s", "999999h"]),
        Some("string") => {
            let longest = schema["maxLength"].as_u64().unwrap_or(300);
            match dice.below(24) {
                0 => json!("x".repeat(usize::try_from(longest).unwrap())),
                1 => json!("x".repeat(usize::try_from(longest + 1).unwrap())),
                2..5 => json!(WORDS[dice.below(WORDS.len() as u64) as usize]),
                // Mostly what is a name anywhere.
                _ => json!(WORDS[dice.below(4) as usize]),
            }
        }
        Some("boolean") => json!(dice.below(2) == 0),
        Some("integer") => json!(dice.below(3)),
        Some("array") => {
            let most = schema["maxItems"].as_u64().unwrap_or(3).min(3);
            (0..1 + dice.below(most)).map(|_| value(&schema["items"], dice)).collect()
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            let entry = |dice: &mut Dice| {
                (WORDS[dice.below(5) as usize].to_owned(), value(&schema["additionalProperties"], dice))
            };
            // The field that the integration's form has is among them now and then.
            let mut fields: Map<String, Value> = (0..dice.below(2)).map(|_| entry(dice)).collect();
            fields.insert("api_key".into(), value(&schema["additionalProperties"], dice));
            Value::Object(fields)
        }
        Some("object") => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut fields = Map::new();
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if required.contains(&name.as_str()) || dice.below(4) == 0 {
                    fields.insert(name.clone(), value(inner, dice));
                }
            }
            Value::Object(fields)
        }
        _ => Value::Null,
    }
}

/// The schema of the spec, as the API server has it.
async fn schema_of_spec(lab: &Lab, definition: &str) -> Value {
    let definitions: Api<CustomResourceDefinition> = Api::all(lab.client.clone());
    let definition = definitions.get(definition).await.unwrap();
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    schema["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// So many values, made good enough by `mend` that some are accepted; the names of those that were.
async fn accepted(
    api: &Api<DynamicObject>,
    resource: &ApiResource,
    schema: &Value,
    (count, dice): (u64, &mut Dice),
    mend: impl Fn(&mut Value, &mut Dice),
) -> Vec<String> {
    let mut accepted = Vec::new();
    for number in 0..count {
        let name = format!("v{number:04}");
        let mut made = value(schema, dice);
        mend(&mut made, dice);
        let object = DynamicObject::new(&name, resource).data(json!({ "spec": made }));
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => accepted.push(name),
            Err(kube::Error::Api(answer)) => assert_eq!(answer.code, 422, "{made}: {answer:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    let least = usize::try_from(count / 15).unwrap();
    assert!(accepted.len() > least && accepted.len() < usize::try_from(count).unwrap(), "{}", accepted.len());
    accepted
}

async fn secrets_of_all_names(lab: &Lab) {
    for name in WORDS.iter().filter(|word| word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-' | b'.'))) {
        lab.secret(name, &[("key", CANARY), ("a", CANARY), ("KEY_1", CANARY)]).await;
    }
}

/// It goes on working, and nothing in it was given up.
async fn is_well(lab: &Lab) {
    lab.operator.as_ref().unwrap().until_readyz(200).await;
    assert!(!lab.log().contains("no end after"));
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn what_the_api_server_accepts_is_settled_or_answered() {
    let (count, seed) = (number("TOOLZZ_SCHEMA_VALUES", 300), number("TOOLZZ_SEED", 1));
    let lab = Lab::start("schema").await;
    secrets_of_all_names(&lab).await;
    let schema = schema_of_spec(&lab, "toolzzcredentials.toolzz.com.br").await;
    let resource = ApiResource::erase::<ToolzzCredential>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(lab.client.clone(), &lab.namespace, &resource);
    // One of two, and mostly the integration that there is.
    let mend = |made: &mut Value, _: &mut Dice| {
        if made.get("integrationId").is_none() == made.get("integrationRef").is_none() {
            made.as_object_mut().unwrap().remove("integrationRef");
            made["integrationId"] = json!(toolzz_simulator::OPENAI.to_string());
        }
    };
    let accepted = accepted(&api, &resource, &schema, (count, &mut Dice(seed)), mend).await;
    for name in &accepted {
        lab.until(name, "answered", |object| {
            object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation)
                && ready(object).is_some_and(|(_, reason, message)| reason != "Pending" && !message.is_empty())
        })
        .await;
    }
    is_well(&lab).await;
    for name in &accepted {
        lab.delete(name).await;
    }
    for name in &accepted {
        lab.until_gone(name).await;
    }
    proof("schema-values", &format!("{} of {count} values accepted, every one answered and let go", accepted.len()));
}

/// Both kinds of connections. Who looks at those of the cluster looks at all of it.
#[tokio::test]
async fn connections_that_the_api_server_accepts_are_answered() {
    let (count, seed) = (number("TOOLZZ_SCHEMA_VALUES", 300) / 3, number("TOOLZZ_SEED", 1));
    let mut lab = Lab::on(plane_of_ones_own().await, "schemas").await;
    super::chart::start_as_chart(&mut lab, "rateLimit=0,allowedHosts={127.0.0.1}").await;
    secrets_of_all_names(&lab).await;
    let urls = [
        &lab.simulator.url(),
        "http://127.0.0.1:9/x",
        "https://127.0.0.1:9",
        "https://[::1]/",
        "http://a.b",
        "ftp://a",
    ];
    // Few words are addresses.
    let mend = |made: &mut Value, dice: &mut Dice| made["url"] = json!(urls[dice.below(6) as usize]);
    let (mut dice, mut figures) = (Dice(seed), Vec::new());
    for (resource, definition) in [
        (ApiResource::erase::<ToolzzConnection>(&()), "toolzzconnections.toolzz.com.br"),
        (ApiResource::erase::<ClusterToolzzConnection>(&()), "clustertoolzzconnections.toolzz.com.br"),
    ] {
        let api: Api<DynamicObject> = match resource.kind.as_str() {
            "ToolzzConnection" => Api::namespaced_with(lab.client.clone(), &lab.namespace, &resource),
            _ => Api::all_with(lab.client.clone(), &resource),
        };
        let schema = schema_of_spec(&lab, definition).await;
        let accepted = accepted(&api, &resource, &schema, (count, &mut dice), mend).await;
        for name in &accepted {
            let answered = await_condition(api.clone(), name, |object: Option<&DynamicObject>| {
                let status = object.map(|object| &object.data["status"]);
                status.is_some_and(|status| {
                    status["conditions"].as_array().into_iter().flatten().any(|one| {
                        one["type"] == "Ready" && one["reason"] != "Pending" && one["message"].as_str() != Some("")
                    })
                })
            });
            let answered = tokio::time::timeout(std::time::Duration::from_secs(60), answered).await;
            assert!(answered.is_ok(), "{name}: {:?}\n{}", api.get(name).await.unwrap().data, lab.log());
        }
        is_well(&lab).await;
        figures.push(format!("{} of {count} of {}", accepted.len(), resource.kind));
    }
    proof("schema-connections", &format!("{} accepted, every one answered", figures.join(", ")));
}
