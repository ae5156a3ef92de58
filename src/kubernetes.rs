//! What every room that calls the Kubernetes API shares.

use std::{error::Error as _, io, time::Duration};

use axum::http::{Method, Request};
use kube::{
    Client,
    client::{Body, ClientBuilder},
    config::{InferConfigError, KubeconfigError},
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

/// Why there is no access to Kubernetes. The libraries' own words quote what they read: lines of a kubeconfig with its
/// token, the output of a login program, a proxy's URL with its password.
#[derive(Debug, Error)]
pub(crate) enum NoAccess {
    #[error("no access to Kubernetes: {0}. Set KUBECONFIG, or run in a cluster")]
    Config(String),
    #[error("the Kubernetes client: {0}")]
    Client(&'static str),
}

impl From<InferConfigError> for NoAccess {
    fn from(error: InferConfigError) -> Self {
        let kubeconfig = error.source().and_then(|source| source.downcast_ref()).map(config_told).unwrap_or_default();
        // Asked again: the library tells why only beside what it quotes.
        let in_cluster = kube::Config::incluster().err().map(|error| error.to_string()).unwrap_or_default();
        Self::Config(format!("by the cluster: {in_cluster}; by a kubeconfig: {kubeconfig}"))
    }
}

fn config_told(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(wrong) => {
            let place = wrong.location().map(|place| format!(", line {}", place.line())).unwrap_or_default();
            format!("the kubeconfig cannot be read{place}")
        }
        other => other.to_string(),
    }
}

impl From<kube::Error> for NoAccess {
    fn from(error: kube::Error) -> Self {
        Self::Client(match error {
            kube::Error::ProxyProtocolDisabled { .. } | kube::Error::ProxyProtocolUnsupported { .. } => {
                "HTTPS_PROXY or the kubeconfig names a proxy, and the operator uses none for Kubernetes"
            }
            kube::Error::Auth(_) => "the user that the kubeconfig names cannot be used",
            _ => "the certificates or keys of the kubeconfig or the cluster cannot be used",
        })
    }
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
    async fn why_there_is_no_access_quotes_nothing() {
        const SECRET: &str = "cut7f3aCanary";
        let user = |user: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- {{name: c, cluster: {{server: \"https://127.0.0.1:1\"}}}}\n\
                 contexts:\n- {{name: c, context: {{cluster: c, user: u}}}}\nusers:\n- name: u\n  user:\n{user}\n"
            )
        };
        // What the library says of it, which quotes.
        let wrong = user(&format!("    token: {SECRET}\n    as-groups: {SECRET}"));
        let error = kube::config::Kubeconfig::from_yaml(&wrong).unwrap_err();
        assert!(error.to_string().contains(SECRET), "{error}");
        let told = config_told(&error);
        assert!(!told.contains(SECRET) && told.contains("line 1"), "{told}");

        let mut proxied = kube::Config::new("https://127.0.0.1:1".parse().unwrap());
        proxied.proxy_url = Some(format!("http://anna:{SECRET}@proxy.example:1").parse().unwrap());
        let script = format!(
            "    exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [\"-c\", \"echo {SECRET}; exit 1\"]}}"
        );
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&user(&script)).unwrap();
        let by_program = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        for (config, says) in [(proxied, "proxy"), (by_program, "user")] {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let Err(error) = client(config, Tenure::unlimited(), Clock::start()) else { panic!("{says}") };
            assert!(error.to_string().contains(SECRET), "{error}");
            let told = NoAccess::from(error);
            assert!(!format!("{told} {told:?}").contains(SECRET) && told.to_string().contains(says), "{told}");
        }
    }

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
