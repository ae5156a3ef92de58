//! Logs, to standard error.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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

/// Starts logging. `level` is a level or a filter such as `info,toolzz_operator=debug`.
///
/// # Errors
/// When the filter cannot be read.
pub fn start(format: LogFormat, level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    // A bare level is meant for the operator; libraries say less.
    let filter =
        if level.chars().all(char::is_alphabetic) { format!("warn,toolzz_operator={level}") } else { level.to_owned() };
    // At warn and below it logs whole answers it cannot read, and Secrets are among what it reads.
    let filter = EnvFilter::try_new(filter)?.add_directive("kube_client::client=error".parse()?);
    let registry = tracing_subscriber::registry().with(filter);
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
