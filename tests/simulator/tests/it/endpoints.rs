//! Each endpoint, each switch, each refusal.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use toolzz_simulator::{
    CredentialsInAnswers, Effect, ListingFormat, Operation, Simulator, TWILIO, Timestamps, Token, TokenSeen,
    fingerprint,
};
use uuid::Uuid;

use crate::client::{Client, UNITY, elsewhere, list_path, row, staged};

fn uuid(value: &Value) -> Uuid {
    value.as_str().expect("text").parse().expect("a UUID")
}

#[tokio::test]
async fn create_answers_the_documented_object_and_keeps_the_material_in_the_vault() {
    let simulator = Simulator::start();
    let (status, answer) = Client::new(&simulator).create(&staged("a")).await;
    assert_eq!(status, StatusCode::CREATED);
    for field in [
        "message",
        "id",
        "name",
        "userId",
        "unityId",
        "integrationId",
        "secretId",
        "virtualKey",
        "createdAt",
        "updatedAt",
    ] {
        assert!(answer[field].is_string(), "{field}: {answer}");
    }
    assert_eq!((&answer["status"], &answer["credentials"]), (&json!(false), &json!({})));
    let integration = &answer["integration"];
    assert_eq!((&integration["slug"], &integration["form"][0]["maxLenght"]), (&json!("openai"), &json!("200")));
    assert!(integration["icon"].as_object().expect("an icon")["numberWords"].is_null());
    let credential = simulator.credential(uuid(&answer["id"])).expect("in the oracle");
    assert!(!credential.was_ever_active());
    assert_eq!(simulator.material_of(credential.row.secret_id), Some(json!([{"api_key": "sk-very-secret"}])));
    assert!(!answer.to_string().contains("sk-very-secret"));
}

#[tokio::test]
async fn a_create_without_status_starts_active() {
    let simulator = Simulator::start();
    let mut body = staged("a");
    body.as_object_mut().expect("an object").remove("status");
    assert_eq!(Client::new(&simulator).create(&body).await.1["status"], true);
    assert_eq!(simulator.active_named("a").len(), 1);
}

#[tokio::test]
async fn update_changes_the_row_repoints_and_keeps_the_virtual_key() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let (_, first) = client.create(&staged("a")).await;
    let (_, second) = client.create(&staged("b")).await;
    let mut body = row("c", true);
    body["secretId"] = second["secretId"].clone();
    body["credentials"] = json!([{"api_key": "sk-ignored"}]);
    let (status, answer) = client.put(&first["id"], &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&answer["name"], &answer["status"]), (&json!("c"), &json!(true)));
    assert_eq!((&answer["secretId"], &answer["virtualKey"]), (&second["secretId"], &first["virtualKey"]));
    let material = simulator.material_of(uuid(&answer["secretId"])).expect("material");
    assert_eq!(material, json!([{"api_key": "sk-very-secret"}]), "a PUT carries no material");
    let history = simulator.credential(uuid(&first["id"])).expect("known").history;
    assert_eq!(
        history.iter().map(|change| change.row.as_ref().is_some_and(|row| row.active)).collect::<Vec<_>>(),
        [false, true]
    );
}

#[tokio::test]
async fn update_follows_its_switches() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let (_, first) = client.create(&staged("a")).await;
    let (_, second) = client.create(&staged("b")).await;
    simulator.configure(|settings| {
        settings.ignore_secret_id = true;
        settings.regenerate_virtual_key = true;
        settings.replace_material_in_place = true;
    });
    let mut body = row("a", true);
    body["secretId"] = second["secretId"].clone();
    body["credentials"] = json!([{"api_key": "sk-new"}]);
    let (_, answer) = client.put(&first["id"], &body).await;
    assert_eq!(answer["secretId"], first["secretId"]);
    assert_ne!(answer["virtualKey"], first["virtualKey"]);
    assert_eq!(simulator.material_of(uuid(&first["secretId"])), Some(json!([{"api_key": "sk-new"}])));
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_and_changes_nothing() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let (_, known) = client.create(&staged("a")).await;
    let point = simulator.point();
    let with = |mut body: Value, field: &str, value: Value| {
        body[field] = value;
        body
    };
    for field in ["name", "userId", "unityId", "integrationId", "credentials"] {
        let (status, answer) = client.create(&with(staged("b"), field, Value::Null)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field}");
        assert!(answer["message"][0].as_str().expect("a message").starts_with(field), "{answer}");
    }
    for field in ["name", "userId", "unityId", "integrationId", "status"] {
        assert_eq!(
            client.put(&known["id"], &with(row("a", true), field, Value::Null)).await.0,
            StatusCode::BAD_REQUEST,
            "{field}"
        );
    }
    let (status, answer) = client.create(&with(staged("b"), "unityId", json!("x"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(answer.to_string().contains("sk-very-secret"), "the body is repeated, so that leaks show");
    for (body, expected) in [
        (with(staged("b"), "integrationId", json!(Uuid::new_v4())), StatusCode::UNPROCESSABLE_ENTITY),
        (with(staged("b"), "credentials", json!([])), StatusCode::BAD_REQUEST),
        (json!("text"), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(client.create(&body).await.0, expected);
    }
    let unknown_secret = with(row("a", true), "secretId", json!(Uuid::new_v4()));
    assert_eq!(client.put(&known["id"], &unknown_secret).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(client.put(&json!(Uuid::new_v4()), &row("a", true)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.json(Method::DELETE, "/credential/x", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.json(Method::GET, &list_path("llms"), None).await.0, StatusCode::BAD_REQUEST);
    simulator.configure(|settings| {
        settings.unique_names = true;
        settings.max_name_length = Some(3);
    });
    assert_eq!(client.create(&staged("a")).await.0, StatusCode::CONFLICT);
    assert_eq!(client.create(&staged("abcd")).await.0, StatusCode::BAD_REQUEST);
    simulator.configure(|settings| settings.max_request_bytes = 10);
    assert_eq!(client.create(&staged("b")).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(simulator.point(), point, "nothing changed");
}

#[tokio::test]
async fn tokens_are_checked_and_can_be_changed() {
    let simulator = Simulator::start();
    let mut client = Client::new(&simulator);
    simulator.set_tokens(vec![Token::full("new", "t-new"), Token::forbidden("poor", "t-poor")]);
    assert_eq!(client.create(&staged("a")).await.0, StatusCode::UNAUTHORIZED);
    client.token = "t-poor".to_owned();
    assert_eq!(client.create(&staged("a")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(simulator.credentials().len(), 0);
    client.token = "t-new".to_owned();
    assert_eq!(client.create(&staged("a")).await.0, StatusCode::CREATED);
    let seen: Vec<TokenSeen> = simulator.journal().into_iter().map(|entry| entry.token).collect();
    assert_eq!(seen, [TokenSeen::Unknown, TokenSeen::Forbidden("poor".to_owned()), TokenSeen::Full("new".to_owned())]);
    assert!(!format!("{:?} {:?}", simulator.journal(), Token::full("new", "t-new")).contains("t-new"));
}

#[tokio::test]
async fn listings_come_in_three_formats() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let ids = ["a", "b"].map(|name| simulator.insert(elsewhere(name, true)));
    let removed = simulator.insert(elsewhere("c", true));
    assert!(simulator.remove(removed));
    let (_, documented) = client.list().await;
    assert_eq!(documented.as_array().expect("an array").len(), 2);
    assert_eq!(documented[0]["credentials"]["id"], json!(ids[0]));
    assert_eq!(
        (&documented[1]["credentials"]["name"], &documented[1]["integration"]["type"]),
        (&json!("b"), &json!("llm"))
    );
    simulator.configure(|settings| settings.listing_format = ListingFormat::Older);
    let (_, older) = client.list().await;
    assert_eq!(
        (older["credentials"].as_array().map(Vec::len), older["integration"].as_array().map(Vec::len)),
        (Some(2), Some(1))
    );
    assert_eq!(older["credentials"][0], documented[0]["credentials"]);
    simulator.configure(|settings| settings.listing_format = ListingFormat::Items);
    let (_, items) = client.list().await;
    assert_eq!(
        (&items["items"][1]["id"], &items["items"][1]["integration"]["slug"]),
        (&json!(ids[1]), &json!("openai"))
    );
    assert_eq!(client.json(Method::GET, &list_path("voice"), None).await.1, json!({"items": []}));
    assert_eq!(simulator.journal()[0].rows, Some(2));
}

#[tokio::test]
async fn listings_can_hide_the_inactive() {
    let simulator = Simulator::start();
    simulator.insert(elsewhere("a", true));
    simulator.insert(elsewhere("b", false));
    let client = Client::new(&simulator);
    assert_eq!(client.list().await.1.as_array().map(Vec::len), Some(2));
    simulator.configure(|settings| settings.listings_show_inactive = false);
    assert_eq!(client.list().await.1.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn the_catalogue_shows_its_oddities_and_can_be_absent() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    let (_, catalogue) = client.json(Method::GET, "/integration/status", None).await;
    let limits: Vec<Option<Value>> = catalogue
        .as_array()
        .expect("an array")
        .iter()
        .flat_map(|entry| entry["integrations"]["form"].as_array().expect("a form"))
        .map(|field| field.get("maxLenght").or(field.get("maxLength")).cloned())
        .collect();
    let expected = [Some(json!("200")), Some(json!(64)), Some(json!("")), None, Some(json!("64")), Some(json!(64))];
    assert_eq!(limits, expected);
    assert!(catalogue[0]["icon"]["size"].is_number() && catalogue[0]["integrations"].get("icon").is_none());
    simulator.put_integration(json!({"id": TWILIO, "type": "phone", "form": []})).expect("an integration");
    let (_, catalogue) = client.json(Method::GET, "/integration/status", None).await;
    assert_eq!(catalogue[3], json!({"integrations": {"id": TWILIO, "type": "phone", "form": []}, "icon": null}));
    simulator.configure(|settings| settings.catalogue = false);
    assert_eq!(client.json(Method::GET, "/integration/status", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn answers_vary_as_documented() {
    let simulator = Simulator::start();
    let client = Client::new(&simulator);
    for (shape, expected) in [
        (CredentialsInAnswers::Array, Some(json!([]))),
        (CredentialsInAnswers::Null, Some(Value::Null)),
        (CredentialsInAnswers::Absent, None),
        (CredentialsInAnswers::Material, Some(json!([{"api_key": "sk-very-secret"}]))),
    ] {
        simulator.configure(|settings| settings.credentials_in_answers = shape);
        assert_eq!(client.create(&staged("a")).await.1.get("credentials").cloned(), expected);
    }
    for (times, created, updated) in
        [(Timestamps::Fraction, true, true), (Timestamps::NoFraction, false, false), (Timestamps::Varied, true, false)]
    {
        simulator.configure(|settings| settings.timestamps = times);
        let (_, answer) = client.create(&staged("a")).await;
        let has_fraction = |field: &str| answer[field].as_str().expect("a time").contains('.');
        assert_eq!((has_fraction("createdAt"), has_fraction("updatedAt")), (created, updated));
    }
}

#[tokio::test]
async fn the_journal_tells_what_was_asked_without_the_material() {
    let simulator = Simulator::builder().journal_limit(2).start().expect("a simulator");
    let client = Client::new(&simulator);
    client.list().await;
    let (_, created) = client.create(&staged("a")).await;
    client.put(&created["id"], &row("", true)).await;
    let journal = simulator.journal();
    assert_eq!(journal.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [2, 3], "only the latest are kept");
    let [create, update] = journal.as_slice() else { panic!("two entries") };
    assert_eq!((create.operation, create.status, create.decided), (Operation::Create, Some(201), Some(201)));
    assert!(
        matches!(create.effect, Effect::Committed { credential, change: 1, .. } if json!(credential) == created["id"])
    );
    let kept = create.body.as_ref().expect("a body");
    assert_eq!(kept["credentials"][0]["api_key"], json!(fingerprint(&json!("sk-very-secret"))));
    assert!(create.finished_at.is_some_and(|finished| finished >= create.started_at));
    assert_eq!((update.effect, update.status), (Effect::None, Some(400)));
    assert_eq!((simulator.posts(), simulator.puts(), simulator.lists()), (1, 1, 1), "counts are of all");
    let counts = simulator.counts(Operation::Update);
    assert_eq!((counts.committed, counts.answered_2xx), (0, 0));
}

#[tokio::test]
async fn ids_are_answered_in_lower_case() {
    let simulator = Simulator::start();
    let mut body = staged("a");
    let upper = "ABCDEFAB-0000-4000-8000-00000000000A";
    body["userId"] = json!(upper);
    assert_eq!(Client::new(&simulator).create(&body).await.1["userId"], json!(upper.to_lowercase()));
    assert_eq!(simulator.credentials()[0].row.unity_id, UNITY);
}
