//! Traces, as a collector gets them.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};

use super::support::*;

/// A collector on a free port of loopback, and all it was sent.
async fn collector(answer: StatusCode) -> (String, Arc<Mutex<Vec<u8>>>) {
    let got = Arc::<Mutex<Vec<u8>>>::default();
    let kept = Arc::clone(&got);
    let take = move |body: Bytes| {
        kept.lock().unwrap().extend_from_slice(&body);
        async move { answer }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, got)
}

#[tokio::test]
async fn spans_of_the_operator_go_to_the_collector_that_the_variables_name() {
    let (url, got) = collector(StatusCode::OK).await;
    let mut lab = Lab::empty("traces").await;
    lab.environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=named-by-attribute,deployment.environment=of-the-test".to_owned()),
    ];
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    assert_eq!(
        tokio::task::spawn_blocking({
            let operator = lab.operator.take().unwrap();
            move || operator.terminate()
        })
        .await
        .unwrap(),
        Some(0)
    );
    let text = String::from_utf8_lossy(&got.lock().unwrap()).into_owned();
    let words = ["named-by-attribute", "of-the-test", "reconcile", "openai", "operation", "create", "outcome", "done"];
    for word in words.into_iter().chain([lab.namespace.as_str()]) {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("kube_client") && !text.contains("hyper"), "{text}");
    crate::leaks::search("the traces", &text);
}

#[tokio::test]
async fn there_are_no_traces_where_the_variables_say_so() {
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let (url, got) = collector(StatusCode::OK).await;
        let mut lab = Lab::empty("disabled").await;
        lab.environment = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", url), (name, value.to_owned())];
        lab.start_operator();
        lab.credential("openai").await;
        lab.until_ready("openai").await;
        let operator = lab.operator.take().unwrap();
        assert_eq!(tokio::task::spawn_blocking(move || operator.terminate()).await.unwrap(), Some(0));
        assert!(got.lock().unwrap().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_collector_that_takes_nothing_is_told_of_and_is_in_nobodys_way() {
    let (url, _) = collector(StatusCode::SERVICE_UNAVAILABLE).await;
    let mut lab = Lab::empty("untraced").await;
    lab.environment = vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{url}/v1/traces"))];
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    let operator = lab.operator.take().unwrap();
    assert_eq!(tokio::task::spawn_blocking(move || operator.terminate()).await.unwrap(), Some(0));
    assert_eq!(lab.log().matches("the collector does not take traces").count(), 1);
}
