//! `toolzz-operator ready`.

use std::time::{Duration, Instant};

use thiserror::Error;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest part of an answer that is shown, in bytes.
const SHOWN: usize = 1024;

/// Ask a running operator whether it is ready, until it is.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Asks a running operator whether it is ready, once a second, and ends when it says so: for `helm test`, and \
        for images without a shell.\n\n\
        Ready means: the API server can be reached, the CustomResourceDefinition is served, the caches are filled. One \
        that stands by is ready when it could take over.",
    after_help = "Example:\n  toolzz-operator ready --url http://toolzz-operator-metrics.toolzz.svc:8080/readyz --timeout 1m"
)]
pub(super) struct ReadyArgs {
    /// Where it answers.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/readyz")]
    url: reqwest::Url,
    /// How long to ask.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    timeout: Duration,
}

#[derive(Debug, Error)]
#[error("not ready after {timeout:?}: {url} {last}")]
struct NotReady {
    timeout: Duration,
    url: reqwest::Url,
    /// What it said last.
    last: String,
}

pub(super) fn ready(arguments: &ReadyArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    if arguments.url.scheme() == "http" {
        // No TLS at all then: works also where the system has no root certificates.
        client = client.tls_certs_only([]);
    }
    let client = client.build()?;
    Ok(runtime.block_on(until_ready(&client, arguments))?)
}

async fn until_ready(client: &reqwest::Client, arguments: &ReadyArgs) -> Result<(), NotReady> {
    let ReadyArgs { url, timeout } = arguments;
    let begun = Instant::now();
    let mut last = String::new();
    while let Some(left) = timeout.checked_sub(begun.elapsed()) {
        match tokio::time::timeout(left, ask(client, url)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(answer)) => last = answer,
            // Of an answer that does not come in time nothing is known but what was said before.
            Err(_) if last.is_empty() => last = "does not answer".to_owned(),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(NotReady { timeout: *timeout, url: url.clone(), last })
}

/// What it says if it is not ready.
async fn ask(client: &reqwest::Client, url: &reqwest::Url) -> Result<(), String> {
    let mut answer = client.get(url.clone()).send().await.map_err(|_| "cannot be reached".to_owned())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let mut said = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await
        && said.len() < SHOWN
    {
        said.extend_from_slice(&part);
    }
    said.truncate(SHOWN);
    let said: String = String::from_utf8_lossy(&said).lines().collect::<Vec<_>>().join(", ");
    Err(format!("answers {}: {said}", answer.status().as_u16()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, http::StatusCode};

    use super::*;

    /// Answers 503 so many times, then 200.
    async fn operator(busy: usize) -> reqwest::Url {
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let answer = move || {
            let ready = asked.fetch_add(1, Ordering::Relaxed) >= busy;
            async move {
                if ready {
                    (StatusCode::OK, "ok")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "[-]crd not yet\n[+]x ok\n")
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(axum::serve(listener, Router::new().fallback(answer)).into_future());
        url
    }

    async fn asked(url: reqwest::Url) -> Result<(), String> {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let arguments = ReadyArgs { url, timeout: Duration::from_millis(1500) };
        until_ready(&client, &arguments).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn asks_until_the_operator_is_ready_and_says_otherwise_why_not() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        assert_eq!(asked(operator(1).await).await, Ok(()));
        let told = asked(operator(usize::MAX).await).await.unwrap_err();
        assert!(told.ends_with("answers 503: [-]crd not yet, [+]x ok"), "{told}");
        let told = asked("http://127.0.0.1:1/readyz".parse().unwrap()).await.unwrap_err();
        assert!(told.ends_with("cannot be reached"), "{told}");
    }
}
