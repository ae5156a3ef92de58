//! Logs, to standard error.

use super::Traces;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{ParseError, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// What a panic logs, with its place and without its own words, which may quote a value.
pub const PANIC: &str = "panic: please report this as a bug, with the place";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    Json,
    /// For people.
    Text,
}

/// Starts logging, and the traces. `level` is a level or a filter such as `info,toolzz_operator=debug`.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(format: LogFormat, level: &str, traces: Option<&Traces>) -> Result<(), ParseError> {
    let registry = tracing_subscriber::registry().with(filter(level)?).with(traces.map(Traces::layer));
    let layer = fmt::layer().with_writer(std::io::stderr);
    // Failing means that somebody has started logging before; then that stays.
    let _ = match format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => {
            registry.with(layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
        }
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "{PANIC}");
    }));
    Ok(())
}

/// What is logged. A layer of its own keeps out what must not be: directives of `level` that name a span go before those
/// that name none.
fn filter<S: Subscriber>(level: &str) -> Result<impl Layer<S>, ParseError> {
    // A bare level is meant for the operator; libraries say less.
    let level =
        if level.chars().all(char::is_alphabetic) { format!("warn,toolzz_operator={level}") } else { level.to_owned() };
    Ok(EnvFilter::try_new(level)?.and_then(filter_fn(quotes_nothing)))
}

/// At warn and below Kubernetes' client logs whole answers it cannot read, and Secrets are among what it reads.
fn quotes_nothing(event: &Metadata<'_>) -> bool {
    *event.level() == Level::ERROR || !event.target().starts_with("kube_client::client")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// The targets of what is logged.
    #[derive(Clone, Default)]
    struct Logged(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Logged {
        fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target().to_owned());
        }
    }

    #[test]
    fn no_filter_lets_an_answer_of_kubernetes_into_the_log() {
        for level in ["trace", "trace,kube_client::client=trace", "[reconcile]=trace", "[{credential}]=trace"] {
            let logged = Logged::default();
            let registry = tracing_subscriber::registry().with(filter(level).unwrap()).with(logged.clone());
            tracing::subscriber::with_default(registry, || {
                let _span = tracing::error_span!("reconcile", credential = "one").entered();
                tracing::warn!(target: "kube_client::client", "the answer");
                tracing::error!(target: "kube_client::client", "no answer");
                tracing::error!(target: "toolzz_operator", "ours");
            });
            assert_eq!(*logged.0.lock().unwrap(), ["kube_client::client", "toolzz_operator"], "{level}");
        }
    }
}
