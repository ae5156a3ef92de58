//! Whatever the remote side answers, reading it ends, and says no more than it says.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fuzz::config;

/// Any JSON, with the keys that mean something here among its keys.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![".{0,40}", "true", "-?[0-9]{1,25}", "[0-9a-f]{8}-[0-9a-f]{4}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "id",
            "name",
            "userId",
            "unityId",
            "integrationId",
            "secretId",
            "status",
            "virtualKey",
            "integration",
            "integrations",
            "credentials",
            "items",
            "type",
            "slug",
            "form",
            "maxLenght",
            "maxLength",
            "required",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn good_row() -> Value {
    json!({
        "id": "c", "name": "n", "userId": "u", "unityId": "o", "integrationId": "i", "secretId": "s", "status": true,
        "virtualKey": "vk",
    })
}

fn read_all(body: &[u8]) {
    let _ = row(body);
    let _ = catalogue(body);
    if let Ok(listed) = rows(body) {
        for row in listed.rows {
            assert!(!row.id.as_str().is_empty() && row.id.as_str().len() <= MAX_ID);
            assert!(row.id.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            assert!(!row.fields.secret_id.as_str().is_empty() && row.fields.secret_id.as_str().len() <= MAX_ID);
            assert!(row.virtual_key.is_none_or(|key| !key.is_empty() && key.len() <= MAX_VIRTUAL_KEY));
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_read_to_an_end(body in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&body);
    }

    #[test]
    fn any_json_is_read_to_an_end(value in any_json()) {
        read_all(value.to_string().as_bytes());
    }

    #[test]
    fn an_answer_cut_or_changed_anywhere_is_read_to_an_end(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let listing = json!([{"credentials": good_row(), "integration": {"id": "i", "form": [{"name": "f"}]}}]);
        for whole in [good_row().to_string(), listing.to_string()] {
            let mut body = whole.into_bytes();
            let at = at.index(body.len());
            if cut { body.truncate(at) } else { body[at] = byte }
            read_all(&body);
        }
    }

    #[test]
    fn one_bad_row_is_one_bad_row(bad in any_json(), at in 0usize..4) {
        let mut elements = vec![json!({"credentials": good_row()}); 3];
        elements.insert(at, bad);
        let listed = rows(Value::from(elements).to_string().as_bytes()).unwrap();
        prop_assert!(listed.rows.len() >= 3);
        prop_assert!(listed.complete || listed.rows.len() == 3);
    }

    #[test]
    fn what_is_sent_is_json_with_the_names_as_they_are(name in ".{0,300}", secret in ".{0,300}") {
        let new = NewCredential { name: &name, user_id: "u", unity_id: "o", integration_id: "i" };
        let material = SecretString::from(json!([{"api_key": secret}]).to_string());
        let body: Value = serde_json::from_slice(&create_body(&new, &material).unwrap()).unwrap();
        prop_assert_eq!(&body["name"], &json!(name));
        prop_assert_eq!(&body["credentials"][0]["api_key"], &json!(secret));
        prop_assert_eq!(&body["status"], &json!(false));
    }
}
