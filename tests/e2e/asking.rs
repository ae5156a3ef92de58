//! Pausing, asking, finding out: what a user says beside the credential itself.

use serde_json::json;
use toolzz_simulator::OPENAI;

use super::support::*;

#[tokio::test]
async fn a_suspended_resource_is_left_alone_until_it_is_not() {
    let lab = Lab::start("suspend").await;
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.edit("openai", json!({"suspend": true})).await;
    let object = lab.until_reason("openai", "Suspended").await;
    assert_eq!(ready(&object).unwrap().0, "True", "as ready as it was");
    lab.rotate("openai", "new").await;
    lab.edit("openai", json!({"name": "Renamed"})).await;
    lab.until("openai", "seen", |object| {
        object.status.as_ref().unwrap().observed_generation == object.metadata.generation
    })
    .await;
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 1));
    lab.edit("openai", json!({"suspend": false})).await;
    lab.until("openai", "resumed", |object| ready(object).unwrap().1 == "Rotated").await;
    assert_eq!(lab.materials("Renamed"), ["new"]);
    // Suspended, it can be deleted all the same.
    lab.edit("openai", json!({"suspend": true})).await;
    lab.until_reason("openai", "Suspended").await;
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    assert!(lab.simulator.active_named("Renamed").is_empty());
}

#[tokio::test]
async fn a_request_is_answered_by_a_look() {
    let lab = Lab::start("request").await;
    lab.credential("openai").await;
    let object = lab.until_ready("openai").await;
    let id = object.status.unwrap().id.unwrap();
    lab.simulator.edit(id.as_str().parse().unwrap(), |row| row.name = "changed by hand".into());
    lab.annotate("openai", "toolzz.com.br/reconcile-requested-at", "2026-11-24T00:00:00Z").await;
    lab.until("openai", "answered", |object| {
        object.status.as_ref().unwrap().last_handled_reconcile_at.as_deref() == Some("2026-11-24T00:00:00Z")
    })
    .await;
    assert_eq!(lab.simulator.active_named("openai").len(), 1, "put right long before the next resync");
}

#[tokio::test]
async fn without_a_list_of_integrations_every_listing_is_looked_at() {
    let lab = Lab::start("notype").await;
    lab.simulator.configure(|settings| settings.catalogue = false);
    lab.credential("openai").await;
    let object = lab.until_ready("openai").await;
    assert_eq!(object.status.unwrap().kind.map(|kind| kind.as_str()), Some("llm"));
    assert_eq!((lab.simulator.posts(), lab.simulator.puts()), (1, 1));
    lab.edit("openai", json!({"name": "Renamed"})).await;
    lab.until_reason("openai", "Updated").await;
    assert_eq!(lab.simulator.lists(), 6, "each listing once; by now it is known which it is");
}

#[tokio::test]
async fn an_integration_is_found_by_its_slug() {
    let lab = Lab::start("slug").await;
    let by_slug = |slug: &str| json!({"integrationRef": {"slug": slug}});
    for (name, slug) in [("known", "openai"), ("unknown", "opnai")] {
        lab.secret(name, &[("key", CANARY)]).await;
        let mut manifest = lab.manifest(name);
        manifest["spec"].as_object_mut().unwrap().remove("integrationId");
        manifest["spec"]["integrationRef"] = by_slug(slug)["integrationRef"].clone();
        lab.create(manifest).await.unwrap();
    }
    let object = lab.until_ready("known").await;
    let integration = object.status.unwrap().integration.unwrap();
    assert_eq!((integration.id.as_deref(), integration.slug.as_str()), (Some(OPENAI.to_string().as_str()), "openai"));
    assert_eq!(lab.simulator.active_named("known")[0].row.integration_id, OPENAI);
    let object = lab.until_reason("unknown", "InvalidSpec").await;
    assert!(ready(&object).unwrap().2.contains("\"opnai\""));
}

#[tokio::test]
async fn what_can_move_moves_and_what_cannot_says_so() {
    let lab = Lab::start("move").await;
    lab.credential("openai").await;
    let before = lab.until_ready("openai").await.status.unwrap();
    let user = "6f1c2d34-0000-4000-8000-00000000beef";
    lab.edit("openai", json!({"userId": user, "name": "Moved"})).await;
    let object = lab.until_reason("openai", "Updated").await;
    assert!(ready(&object).unwrap().2.contains("name, userId"), "{:?}", ready(&object));
    assert_eq!(lab.simulator.active_named("Moved")[0].row.user_id.to_string(), user);
    // Another Secret with other material is a rotation; with the same material it is none.
    lab.rotate("second", "openai").await;
    let reference = |name: &str| json!({"credentials": [{"api_key": {"secretKeyRef": {"name": name, "key": "key"}}}]});
    lab.edit("openai", reference("second")).await;
    lab.until_ready("openai").await;
    assert_eq!(lab.simulator.posts(), 1);
    lab.rotate("third", "third").await;
    lab.edit("openai", reference("third")).await;
    let after = lab.until_reason("openai", "Rotated").await.status.unwrap();
    assert_eq!((before.id, before.virtual_key), (after.id, after.virtual_key));
    assert_eq!(lab.materials("Moved"), ["third"]);
}
