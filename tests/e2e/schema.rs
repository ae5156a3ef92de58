//! Values made from the definition's own schema: what the API server accepts, the operator settles or says why not.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
};
use serde_json::{Map, Value, json};

use super::{
    sequences::{Dice, number},
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

#[tokio::test]
async fn what_the_api_server_accepts_is_settled_or_answered() {
    let (count, seed) = (number("TOOLZZ_SCHEMA_VALUES", 300), number("TOOLZZ_SEED", 1));
    let lab = Lab::start("schema").await;
    for name in WORDS.iter().filter(|word| word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-' | b'.'))) {
        lab.secret(name, &[("key", CANARY), ("a", CANARY), ("KEY_1", CANARY)]).await;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(lab.client.clone());
    let definition = definitions.get("toolzzcredentials.toolzz.com.br").await.unwrap();
    let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
    let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
    let resource = ApiResource::erase::<toolzz_operator::api::ToolzzCredential>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(lab.client.clone(), &lab.namespace, &resource);
    let mut dice = Dice(seed);
    let mut accepted = Vec::new();
    for number in 0..count {
        let name = format!("v{number:04}");
        let mut made = value(spec, &mut dice);
        // One of two, and mostly the integration that there is.
        if made.get("integrationId").is_none() == made.get("integrationRef").is_none() {
            made.as_object_mut().unwrap().remove("integrationRef");
            made["integrationId"] = json!(toolzz_simulator::OPENAI.to_string());
        }
        let object = DynamicObject::new(&name, &resource).data(json!({ "spec": made }));
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => accepted.push(name),
            Err(kube::Error::Api(answer)) => assert_eq!(answer.code, 422, "{made}: {answer:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(accepted.len() > 20 && accepted.len() < usize::try_from(count).unwrap(), "{}", accepted.len());
    for name in &accepted {
        lab.until(name, "answered", |object| {
            object.status.as_ref().is_some_and(|status| status.observed_generation == object.metadata.generation)
                && ready(object).is_some_and(|(_, reason, message)| reason != "Pending" && !message.is_empty())
        })
        .await;
    }
    assert_eq!(lab.operator.as_ref().unwrap().get("/readyz").0, 200);
    for word in ["panicked", "no end after"] {
        assert!(!lab.log().contains(word), "{word}");
    }
    lab.assert_no_leak().await;
    for name in &accepted {
        lab.delete(name).await;
    }
    for name in &accepted {
        lab.until_gone(name).await;
    }
    proof("schema-values", &format!("{} of {count} values accepted, every one answered and let go", accepted.len()));
}
