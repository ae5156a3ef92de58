//! What goes wrong, what is said of it, and how it heals.

use serde_json::json;
use toolzz_simulator::{DEFAULT_TOKEN, Fault, Matching, NewCredential, OPENAI, Operation, Times, Token};

use super::support::*;

#[tokio::test]
async fn a_missing_secret_or_key_is_waited_for() {
    let lab = Lab::start("missing").await;
    lab.create(lab.manifest("openai")).await.unwrap();
    let object = lab.until_reason("openai", "SecretNotFound").await;
    assert!(ready(&object).unwrap().2.contains("spec.credentials[0].api_key"), "{:?}", ready(&object));
    assert!(has_condition(&object, "Reconciling") && !has_condition(&object, "Stalled"));
    lab.secret("openai", &[("other", CANARY)]).await;
    lab.until_reason("openai", "SecretKeyMissing").await;
    lab.secret("openai", &[("key", CANARY)]).await;
    lab.until_ready("openai").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn what_the_form_refuses_is_not_sent() {
    let lab = Lab::start("form").await;
    lab.secret("openai", &[("key", &format!("{CANARY}{}", "x".repeat(4096)))]).await;
    lab.create(lab.manifest("openai")).await.unwrap();
    let object = lab.until_reason("openai", "InvalidSpec").await;
    assert!(ready(&object).unwrap().2.contains("characters"), "{:?}", ready(&object));

    let mut manifest = lab.manifest("unknown-field");
    manifest["spec"]["credentials"] = json!([{"apikey": {"secretKeyRef": {"name": "openai", "key": "key"}}}]);
    lab.create(manifest).await.unwrap();
    let object = lab.until_reason("unknown-field", "InvalidSpec").await;
    let message = ready(&object).unwrap().2;
    assert!(message.contains("no such field") && message.contains("api_key"), "{message}");
    assert_eq!(lab.simulator.posts(), 0);
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn a_rejected_create_is_not_sent_again_also_after_a_restart() {
    let mut lab = Lab::start("rejected").await;
    lab.simulator.fault(Matching::named(Operation::Create, "bad"), Times::Always, Fault::status(422));
    lab.credential("bad").await;
    let object = lab.until_reason("bad", "RejectedByApi").await;
    assert!(has_condition(&object, "Stalled"));
    assert!(ready(&object).unwrap().2.contains("422"));
    // Events are written in the background: a kill may lose the last ones.
    lab.until_event("RejectedByApi").await;
    lab.kill_operator();
    lab.start_operator();
    // One poisoned resource does not slow the others.
    lab.credential("good").await;
    lab.until_ready("good").await;
    assert_eq!(lab.simulator.posts(), 2);
    lab.simulator.clear_faults();
    lab.secret("bad", &[("key", &format!("{CANARY}-better"))]).await;
    lab.until_ready("bad").await;
    lab.assert_no_leak().await;
}

#[tokio::test]
async fn a_refused_token_stops_everything_with_one_probe_and_everybody_is_told() {
    let mut lab = Lab::empty("token").await;
    let file = lab.directory.join("token");
    std::fs::write(&file, DEFAULT_TOKEN).unwrap();
    lab.flags.push(format!("--api-token-file={}", file.display()));
    lab.start_operator();
    lab.credential("settled").await;
    lab.until_ready("settled").await;
    lab.simulator.set_tokens(vec![Token::full("next", "another7c1f9e-token5b1f0c")]);
    lab.credential("fresh").await;
    for name in ["fresh", "settled"] {
        let object = lab.until_reason(name, "Unauthorized").await;
        assert!(has_condition(&object, "Stalled"));
    }
    assert_eq!(lab.simulator.posts(), 1, "no create went out with a refused token");
    std::fs::write(&file, "another7c1f9e-token5b1f0c\n").unwrap();
    for name in ["fresh", "settled"] {
        lab.until_ready(name).await;
    }
}

#[tokio::test]
async fn what_is_forbidden_for_one_is_told_to_that_one_only() {
    let lab = Lab::start("forbidden").await;
    lab.simulator.fault(Matching::named(Operation::Create, "bad"), Times::Always, Fault::status(403));
    lab.credential("bad").await;
    let object = lab.until_reason("bad", "Forbidden").await;
    assert!(has_condition(&object, "Stalled"));
    lab.credential("good").await;
    lab.until_ready("good").await;
    assert_eq!(lab.simulator.posts(), 2);
}

#[tokio::test]
async fn retry_after_pauses_the_connection() {
    futures::join!(
        retry_after_is_kept(429, false),
        retry_after_is_kept(503, false),
        retry_after_is_kept(429, true),
        retry_after_is_kept(503, true),
    );
}

/// Nothing is sent, for whatever resource, before the moment that the answer named. How long after it is nobody's promise.
async fn retry_after_is_kept(status: u16, dated: bool) {
    const PAUSE: i64 = 3;
    let lab = Lab::start("throttle").await;
    let pause = jiff::SignedDuration::from_secs(PAUSE);
    // A date has whole seconds.
    let date = jiff::Timestamp::from_second((jiff::Timestamp::now() + 2 * pause).as_second()).unwrap();
    let fault = match dated {
        true => Fault::retry_after_date(status, date),
        false => Fault::retry_after_seconds(status, PAUSE.unsigned_abs()),
    };
    let rule = lab.simulator.fault(Operation::Create, Times::Next(1), fault);
    lab.credential("a").await;
    lab.until_remote(|state| state.hits(rule) == 1).await;
    lab.credential("b").await;
    lab.until_event(if status == 429 { "RateLimited" } else { "ApiUnavailable" }).await;
    lab.until_ready("a").await;
    lab.until_ready("b").await;
    let journal = lab.simulator.journal();
    let throttled = journal.iter().position(|entry| entry.rule == Some(rule)).unwrap();
    // The operator counts from when it was told, in whole milliseconds.
    let tick = jiff::SignedDuration::from_millis(20);
    let earliest = if dated { date } else { journal[throttled].started_at + pause } - tick;
    let next = &journal[throttled + 1];
    assert!(next.started_at >= earliest, "{status}, as a date: {dated}: {next:?} before {earliest}");
}

#[tokio::test]
async fn an_api_that_is_down_is_waited_for() {
    let lab = Lab::start("down").await;
    lab.simulator.go_down();
    lab.secret("openai", &[("key", CANARY)]).await;
    let mut manifest = lab.manifest("openai");
    manifest["spec"]["type"] = json!("llm");
    lab.create(manifest).await.unwrap();
    let object = lab.until_reason("openai", "ApiUnavailable").await;
    assert!(ready(&object).unwrap().2.contains("connection refused"), "{:?}", ready(&object));
    lab.simulator.come_up().unwrap();
    lab.until_ready("openai").await;
    assert_eq!(lab.simulator.posts(), 1);
}

#[tokio::test]
async fn a_namesake_is_neither_taken_over_nor_doubled() {
    let lab = Lab::start("namesake").await;
    let id = lab.simulator.insert(NewCredential {
        name: "openai".into(),
        user_id: USER.parse().unwrap(),
        unity_id: UNITY.parse().unwrap(),
        integration_id: OPENAI,
        active: true,
        material: json!([]),
    });
    lab.credential("openai").await;
    let object = lab.until_reason("openai", "NameConflict").await;
    assert!(ready(&object).unwrap().2.contains(&id.to_string()));
    assert_eq!(lab.simulator.posts(), 0);
    lab.edit("openai", json!({"onConflict": "CreateNew"})).await;
    lab.until_ready("openai").await;
    assert_eq!(lab.simulator.active_named("openai").len(), 2);
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_ever() {
    let mut lab = Lab::empty("deadline").await;
    lab.flags.push("--deletion-deadline=3s".into());
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    lab.simulator.go_down();
    lab.delete("openai").await;
    lab.until_gone("openai").await;
    lab.operator.as_ref().unwrap().until_metric("toolzz_operator_orphaned_active_credentials_total 1").await;
    lab.until_event("DeletionBlocked").await;
}
