//! Every shape an answer was seen to have, and shapes nobody wants to see.

use serde_json::{Value, json};

use super::*;
use crate::api::marked_name;

fn openai() -> Value {
    json!({"id": "i-1", "name": "OpenAI", "slug": "openai", "type": "llm", "status": true, "icon": {"size": 1, "numberWords": null},
           "form": [{"name": "api_key", "type": "password", "label": "API key", "maxLenght": "64", "required": true}]})
}

fn credential(id: &str) -> Value {
    json!({"id": id, "name": "n", "userId": "u", "unityId": "y", "integrationId": "i-1", "secretId": "s", "status": true,
           "virtualKey": "v", "createdAt": "2024-09-03T18:52:29.443Z", "updatedAt": "2024-09-03T18:52:29Z"})
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

fn read(body: &Value) -> Result<Listed, Unreadable> {
    rows(body.to_string().as_bytes())
}

#[test]
fn an_answer_is_read_whatever_stands_under_credentials() {
    let answer = with(credential("c"), "integration", openai());
    for credentials in [json!({}), json!([]), Value::Null, json!([{"api_key": "sk-1"}]), json!({"api_key": "sk-1"})] {
        let read = row(with(answer.clone(), "credentials", credentials).to_string().as_bytes()).unwrap();
        assert!(!format!("{read:?}").contains("sk-1"));
        assert_eq!(read.integration.unwrap().form[0].max_length, Some(64));
    }
    let bare = row(without(credential("c"), "virtualKey").to_string().as_bytes()).unwrap();
    assert_eq!((bare.virtual_key, bare.integration), (None, None));
}

#[test]
fn an_answer_that_is_not_the_documented_object_is_not_read() {
    let long = "x".repeat(254);
    for (body, problem) in [
        (json!({"message": "accepted"}), Unreadable::WrongShape),
        (json!([credential("c")]), Unreadable::WrongShape),
        (with(credential("c"), "status", json!("yes")), Unreadable::WrongShape),
        (with(credential("c"), "id", json!("")), Unreadable::WrongShape),
        (with(credential("c"), "id", json!(long)), Unreadable::WrongShape),
        (with(credential("c"), "secretId", json!(long)), Unreadable::WrongShape),
        // They are shown to people.
        (with(credential("c"), "id", json!("c\nWARN")), Unreadable::WrongShape),
        (with(credential("c"), "secretId", json!("s\u{202e}")), Unreadable::WrongShape),
        (with(credential("c"), "virtualKey", json!("v\u{1b}[2J")), Unreadable::WrongShape),
        (without(credential("c"), "secretId"), Unreadable::WrongShape),
    ] {
        assert_eq!(row(body.to_string().as_bytes()), Err(problem), "{body}");
    }
    for body in ["", "<html>", r#"{"id": "c""#, "\u{feff}{}"] {
        assert_eq!(row(body.as_bytes()), Err(Unreadable::NotJson), "{body:?}");
    }
    let deep = format!(r#"{{"x": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(row(deep.as_bytes()).is_err(), "read without end of the stack");
}

#[test]
fn every_shape_of_a_listing_is_the_same_listing() {
    let (one, two) = (credential("c1"), credential("c2"));
    let pair = |row: &Value| json!({"credentials": row, "integration": openai()});
    let flat = |row: &Value| with(row.clone(), "integration", openai());
    for body in [
        json!([pair(&one), pair(&two)]),
        json!([flat(&one), flat(&two)]),
        json!([with(flat(&one), "credentials", json!({})), flat(&two)]),
        json!({"items": [flat(&one), flat(&two)]}),
        json!({"items": [pair(&one), pair(&two)], "total": 2}),
        json!({"credentials": [one, two], "integration": [openai(), openai()]}),
        json!({"credentials": [one, two], "integration": [openai()]}),
    ] {
        let listed = read(&body).unwrap();
        assert!(listed.complete, "{body}");
        let ids: Vec<_> = listed.rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["c1", "c2"], "{body}");
        let integrations: Vec<_> = listed.rows.iter().map(|row| row.integration.as_ref().unwrap()).collect();
        assert_eq!(integrations[0].slug, "openai");
        assert!(Arc::ptr_eq(integrations[0], integrations[1]), "held once: {body}");
    }
    for empty in [json!([]), json!({"items": []}), json!({"credentials": [], "integration": []})] {
        let listed = read(&empty).unwrap();
        assert!(listed.complete && listed.rows.is_empty());
    }
}

#[test]
fn ten_thousand_rows_hold_their_integration_once() {
    let pairs: Vec<Value> = (0..10_000)
        .map(|number| json!({"credentials": credential(&format!("c{number}")), "integration": openai()}))
        .collect();
    let listed = read(&Value::Array(pairs)).unwrap();
    assert!(listed.complete && listed.rows.len() == 10_000);
    let first = listed.rows[0].integration.clone().unwrap();
    assert!(listed.rows.iter().all(|row| Arc::ptr_eq(row.integration.as_ref().unwrap(), &first)));
}

#[test]
fn a_bad_row_is_left_out_and_said() {
    let good = json!({"credentials": credential("c"), "integration": "odd"});
    for bad in [
        json!({"credentials": without(credential("b"), "id")}),
        json!({"credentials": {}, "integration": openai()}),
        json!({}),
        Value::Null,
        json!(1),
        json!([]),
    ] {
        let listed = read(&json!([bad, good])).unwrap();
        assert_eq!((listed.rows.len(), listed.complete, listed.unread.len()), (1, false, 0), "{bad}");
    }
    let marked = with(credential("b"), "name", json!(marked_name("n", "0f8fad5b-12345678")));
    for bad in [without(marked.clone(), "id"), with(marked.clone(), "secretId", Value::Null)] {
        for body in [json!([{"credentials": bad}]), json!({"credentials": [bad], "integration": []})] {
            assert_eq!(read(&body).unwrap().unread, ["0f8fad5b-12345678"], "{body}");
        }
    }
    assert!(read(&json!([{"credentials": marked}])).unwrap().unread.is_empty());
    assert!(read(&json!([good])).unwrap().complete, "a bad integration spoils no row");
}

#[test]
fn what_is_no_listing_is_not_an_empty_one() {
    for (body, problem) in [
        ("{}", Unreadable::WrongShape),
        (r#"{"message": "ok"}"#, Unreadable::WrongShape),
        (r#"{"items": {}}"#, Unreadable::WrongShape),
        (r#"{"items": [], "credentials": []}"#, Unreadable::WrongShape),
        ("null", Unreadable::WrongShape),
        ("1", Unreadable::WrongShape),
        ("", Unreadable::NotJson),
        ("[", Unreadable::NotJson),
        ("<html></html>", Unreadable::NotJson),
        ("[] []", Unreadable::NotJson),
    ] {
        assert_eq!(rows(body.as_bytes()).map(|listed| listed.rows.len()), Err(problem), "{body:?}");
    }
}

#[test]
fn a_form_is_read_tolerantly_or_not_at_all() {
    let length = |field: Value| {
        let read = integration(&json!({"id": "i", "form": [field]}).to_string()).unwrap();
        (read.form.len(), read.form.first().and_then(|field| field.max_length))
    };
    for (field, expected) in [
        (json!({"name": "k", "maxLenght": "64"}), (1, Some(64))),
        (json!({"name": "k", "maxLenght": 64}), (1, Some(64))),
        (json!({"name": "k", "maxLength": 64}), (1, Some(64))),
        (json!({"name": "k", "maxLength": 9, "maxLenght": " 64 "}), (1, Some(64))),
        (json!({"name": "k", "maxLenght": "", "maxLength": 64}), (1, Some(64))),
        (json!({"name": "k", "maxLenght": ""}), (1, None)),
        (json!({"name": "k", "maxLenght": null}), (1, None)),
        (json!({"name": "k", "maxLenght": 0}), (1, None)),
        (json!({"name": "k", "maxLenght": -1}), (1, None)),
        (json!({"name": "k", "maxLenght": 1.5}), (1, None)),
        (json!({"name": "k", "maxLenght": "many"}), (1, None)),
        (json!({"name": "k", "maxLenght": {"a": 1}}), (1, None)),
        (json!({"name": "k"}), (1, None)),
        (json!({"label": "nameless"}), (0, None)),
    ] {
        assert_eq!(length(field.clone()), expected, "{field}");
    }
    for (required, expected) in
        [(json!(true), true), (json!("true"), true), (json!(false), false), (json!("no"), false), (Value::Null, false)]
    {
        let text = json!({"id": "i", "form": [{"name": "k", "required": required}]}).to_string();
        assert_eq!(integration(&text).unwrap().form[0].required, expected, "{text}");
    }
    for form in [Value::Null, json!({}), json!("none"), json!([])] {
        assert!(integration(&json!({"id": "i", "form": form}).to_string()).unwrap().form.is_empty(), "{form}");
    }
}

#[test]
fn what_is_larger_than_anything_is_not_taken_in() {
    let bare = |elements: usize| format!("[{}0]", "0,".repeat(elements - 1));
    assert!(!rows(bare(MAX_ELEMENTS).as_bytes()).unwrap().complete);
    for body in [bare(MAX_ELEMENTS + 1), format!("{{\"items\": {}}}", bare(MAX_ELEMENTS + 1))] {
        assert_eq!(rows(body.as_bytes()).map(|listed| listed.complete), Err(Unreadable::WrongShape));
    }
    let form = |fields: usize, length: usize| {
        let field = |number: usize| json!({"name": format!("{number:0length$}")});
        let form: Vec<Value> = (0..fields).map(field).collect();
        integration(&json!({"id": "i", "form": form}).to_string()).unwrap().form.len()
    };
    assert_eq!((form(256, 128), form(257, 3), form(1, 129)), (256, 0, 0));
    let long = integration(&json!({"id": "i", "name": format!("a\nb\u{1b}{}", "c".repeat(2000))}).to_string()).unwrap();
    assert_eq!((long.name.len(), long.name.starts_with("abc")), (1024, true));
}

#[test]
fn a_type_nobody_documented_is_none() {
    for (kind, expected) in [
        (json!("llm"), Some(CredentialType::Llm)),
        (json!("LLM"), Some(CredentialType::Llm)),
        (json!("video"), None),
        (Value::Null, None),
    ] {
        assert_eq!(integration(&json!({"id": "i", "type": kind}).to_string()).unwrap().kind, expected, "{kind}");
    }
}

#[test]
fn the_catalogue_in_its_shapes() {
    for body in [
        json!([{"integrations": openai(), "icon": {}}]),
        json!([openai()]),
        json!({"items": [openai()]}),
        json!([{"integrations": openai()}, {"integrations": {"no": "id"}}, 7]),
    ] {
        assert_eq!(catalogue(body.to_string().as_bytes()).unwrap().len(), 1, "{body}");
    }
    assert!(catalogue(br#"{"message": "no"}"#).is_err());
}

#[test]
fn a_create_sends_the_key_material_as_it_is_and_never_an_active_credential() {
    let new = NewCredential { name: "\"q\"\u{1}", user_id: "u", unity_id: "y", integration_id: "i" };
    let body = create_body(&new, &r#"[{"api_key": "sk-\u0041"}]"#.into()).unwrap();
    let text = str::from_utf8(&body).unwrap();
    assert!(text.contains(r#"[{"api_key": "sk-\u0041"}]"#), "{text}");
    let sent: Value = serde_json::from_str(text).unwrap();
    assert_eq!(sent["status"], json!(false));
    assert_eq!(sent["name"], json!("\"q\"\u{1}"));
    for text in ["", "[", "[]}", r#"[{"api_key": "x"}], "status": true"#] {
        assert!(create_body(&new, &text.into()).is_err(), "{text}");
    }
}
