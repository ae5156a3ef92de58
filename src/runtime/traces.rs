//! Traces, to an OpenTelemetry collector, where the standard variables name one.
//! Source: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use thiserror::Error;
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

const NAME: &str = "toolzz-operator";
/// How long the end of the process waits for the last spans.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time limit of one delivery.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there are no traces.
#[derive(Debug, Error)]
pub enum Error {
    /// A variable is wrong. What it says is not repeated: a URL may hold a password.
    #[error("{variable} cannot be used")]
    Variable {
        /// Its name.
        variable: String,
    },
    /// There is no HTTP client.
    #[error(
        "no HTTPS client for traces: does the system have root certificates (SSL_CERT_FILE or SSL_CERT_DIR names them)?"
    )]
    Client(#[from] reqwest::Error),
}

/// What sends the spans that are ended.
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Where the variables name a collector: `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, unless
    /// `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER=none`. To be called within the runtime.
    ///
    /// # Errors
    /// When they name one that cannot be.
    pub fn by_environment() -> Result<Option<Self>, Error> {
        let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|text| text.eq_ignore_ascii_case(value));
        let named = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty());
        let endpoint = named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| named("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint else { return Ok(None) };
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let mut client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        if endpoint.to_string_lossy().starts_with("http://") {
            // No TLS at all then: works also where the system has no root certificates.
            client = client.tls_certs_only([]);
        }
        let client = client.build()?;
        let sender = Sender { client, runtime: Handle::current(), failing: AtomicBool::new(false) };
        let exporter =
            SpanExporter::builder().with_http().with_http_client(sender).build().map_err(|error| wrong(&error))?;
        // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before these.
        let resource = Resource::builder().with_service_name(name()).build();
        Ok(Some(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())))
    }

    /// Spans and events of the operator itself: nothing that libraries say leaves the process.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(NAME))
            .with_location(false)
            .with_threads(false)
            .with_filter(filter_fn(of_the_operator))
    }

    /// Sends what is left.
    pub fn end(self) {
        // Nobody is left to be told.
        let _ = self.0.shutdown_with_timeout(PATIENCE);
    }
}

fn of_the_operator(said: &Metadata<'_>) -> bool {
    said.target().starts_with("toolzz_operator") && *said.level() <= Level::INFO
}

/// Which variable it is about: of the library's words only its name.
fn wrong(error: &ExporterBuildError) -> Error {
    let words = error.to_string();
    let mut words = words.split(|letter: char| !(letter.is_ascii_uppercase() || letter == '_'));
    Error::Variable {
        variable: words.find(|word| word.starts_with("OTEL_")).unwrap_or("OTEL_EXPORTER_OTLP_…").to_owned(),
    }
}

fn name() -> String {
    std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| NAME.to_owned())
}

/// The exporter has a thread of its own; the client needs the runtime.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
    failing: AtomicBool,
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            // Of the answer nothing but this is looked at.
            Response::builder().status(answer.status().as_u16()).body(Bytes::new()).map_err(HttpError::from)
        });
        let answer = sent.await?;
        let failing = !answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        if failing && !self.failing.swap(failing, Ordering::Relaxed) {
            let status = answer.as_ref().ok().map(|answer| answer.status().as_u16());
            tracing::warn!(status, "the collector does not take traces; they are lost until it does");
        } else if !failing {
            self.failing.store(false, Ordering::Relaxed);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::{layer::SubscriberExt as _, registry};

    use super::*;

    /// The words of what comes through.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().unwrap().push(format!("{} {}", event.metadata().target(), event.metadata().level()));
        }
    }

    #[test]
    fn what_libraries_say_and_what_is_for_developers_stays_in_the_process() {
        let heard = Heard::default();
        let subscriber = registry().with(heard.clone().with_filter(filter_fn(of_the_operator)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "kube_client::client", "an answer");
            tracing::info!(target: "hyper_util", "a request");
            tracing::debug!(target: "toolzz_operator::controller", "a step");
            tracing::info!(target: "toolzz_operator::controller", "a status");
        });
        assert_eq!(*heard.0.lock().unwrap(), ["toolzz_operator::controller INFO"]);
    }

    #[test]
    fn a_variable_that_is_wrong_is_named_and_not_repeated() {
        let words = "OTEL_EXPORTER_OTLP_ENDPOINT: invalid endpoint 'https://anna:hunter2@[x': invalid authority";
        let error = wrong(&ExporterBuildError::InvalidConfiguration(words.to_owned()));
        assert_eq!(error.to_string(), "OTEL_EXPORTER_OTLP_ENDPOINT cannot be used");
        let error = wrong(&ExporterBuildError::InternalFailure("https://anna:hunter2@x".to_owned()));
        assert_eq!(format!("{error} {error:?}").matches("hunter2").count(), 0);
    }
}
