//! What every room that calls the Kubernetes API shares.

use std::{io, time::Duration};

use axum::http::{Method, Request};
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use thiserror::Error;
use tower::filter::FilterLayer;

use crate::remote::{Clock, Tenure};

/// The longest one call may take. A connection that is half open answers never.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// For how long nothing may come over a connection: more than a watch on which nothing happens lasts (290 s). It ends what has
/// no limit of its own, as the lists of the watches.
const SILENCE_LIMIT: Duration = Duration::from_secs(360);

/// Why a write was not sent to the API server.
#[derive(Debug, Error)]
#[error("not sent, this process does not lead")]
struct NotLeading;

/// Access to Kubernetes that writes only while this process may: it is asked where the request is sent, also for one that
/// was decided long before.
///
/// Nothing is sent again by itself: that would be past the question, and of a write that took effect the answer would be lost.
pub(crate) fn client(mut config: kube::Config, tenure: Tenure, clock: Clock) -> kube::Result<Client> {
    let only_while_leading = move |request: Request<Body>| {
        let may = request.method() == Method::GET || tenure.remaining(clock.now()).is_some();
        may.then_some(request).ok_or(NotLeading)
    };
    config.default_retry = false;
    config.read_timeout = Some(SILENCE_LIMIT);
    // A pooled connection was silent before, too.
    config.reset_reader_on_write = true;
    Ok(ClientBuilder::try_from(config)?.with_layer(&FilterLayer::new(only_while_leading)).build())
}

/// The call, with a time limit.
pub(crate) async fn timed<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(TIME_LIMIT, call)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service(io::Error::from(io::ErrorKind::TimedOut).into())))
}

/// An error without its text, which may quote what was sent.
pub(crate) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => format!("{} {}", answer.code, answer.reason),
        kube::Error::Service(source) if source.is::<NotLeading>() => NotLeading.to_string(),
        kube::Error::HyperError(_) | kube::Error::Service(_) => "no connection".to_owned(),
        _ => "request failed".to_owned(),
    }
}

/// Whether the API server answered with this status code.
pub(crate) fn answered(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.code == code)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::http::StatusCode;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{
        Api,
        api::{DeleteParams, Patch, PatchParams, PostParams},
    };

    use super::*;
    use crate::api::Tick;

    #[tokio::test]
    async fn writes_are_sent_only_while_this_process_leads() {
        // Nobody listens there: what was sent is told by the error.
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let (clock, tenure) = (Clock::start(), Tenure::none());
        let api: Api<ConfigMap> = Api::namespaced(client(config, tenure.clone(), clock).unwrap(), "n");
        let patch = Patch::Merge(serde_json::json!({}));
        for (until, told) in [(0, "does not lead"), (60_000, "no connection"), (500, "does not lead")] {
            tenure.extend(Tick(until));
            let writes = [
                api.create(&PostParams::default(), &ConfigMap::default()).await.map(drop),
                api.replace("n", &PostParams::default(), &ConfigMap::default()).await.map(drop),
                api.patch("n", &PatchParams::default(), &patch).await.map(drop),
                api.delete("n", &DeleteParams::default()).await.map(drop),
            ];
            for write in writes {
                let why = brief(&write.unwrap_err());
                assert!(why.contains(told), "{until}: {why}");
            }
            assert_eq!(brief(&api.get("n").await.unwrap_err()), "no connection", "reading is free");
        }
    }

    #[tokio::test]
    async fn a_write_is_sent_once_whatever_the_answer() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = kube::Config::new(format!("http://{}", server.local_addr().unwrap()).parse().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let busy = axum::Router::new().fallback(move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "")
        });
        tokio::spawn(axum::serve(server, busy).into_future());
        let (clock, tenure) = (Clock::start(), Tenure::unlimited());
        let api: Api<ConfigMap> = Api::namespaced(client(config, tenure, clock).unwrap(), "n");
        let answer = api.create(&PostParams::default(), &ConfigMap::default()).await.unwrap_err();
        assert!(answered(&answer, 503), "{answer}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
