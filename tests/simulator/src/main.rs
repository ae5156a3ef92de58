//! The simulator as a program.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use toolzz_simulator::{DEFAULT_TOKEN, Settings, Simulator, Token};

/// A Toolzz-compatible HTTP server for tests and demonstrations.
///
/// The first line of its output is the base URL of the API. It keeps everything in memory and ends on Ctrl-C or SIGTERM.
#[derive(Parser)]
#[command(
    version,
    after_long_help = "\
Control it over HTTP under /_sim/ (no token needed: keep it on loopback).
With URL the line it printed:
  curl ${URL%/api/v1}/_sim/          the list of control endpoints
  curl ${URL%/api/v1}/_sim/table     what credentials there are

Lose the answer to the next create, which takes effect:
  curl ${URL%/api/v1}/_sim/faults -d \\
      '{\"on\": {\"operation\": \"create\"}, \"times\": {\"next\": 1}, \"fault\": {\"reply\": \"reset\"}}'

Example:
  toolzz-simulator --listen 127.0.0.1:8099 --settings '{\"latencyMs\": 50}'"
)]
struct Arguments {
    /// Address to listen on; port 0: any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// File that holds the bearer token clients must send; white space around it is ignored
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,

    /// The bearer token itself [default: simulator7c1f9e-token5b1f0c]
    #[arg(long, env = "TOOLZZ_SIMULATOR_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Settings as JSON, for instance {"latencyMs": 50, "listingFormat": "items"}; the crate's documentation names them all
    #[arg(long, value_name = "JSON", value_parser = parse_settings, default_value = "{}")]
    settings: Settings,

    /// How many requests the journal keeps, the latest ones
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    journal_limit: usize,

    /// End when the standard input closes: with the program that started this one
    #[arg(long)]
    until_stdin_closes: bool,
}

fn parse_settings(text: &str) -> Result<Settings, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Why it cannot start or go on.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read the token file {path}: {source}")]
    TokenFile { path: PathBuf, source: io::Error },
    #[error("the token is empty: put one into the file, or leave the argument out")]
    EmptyToken,
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot write the URL to the standard output: {0}")]
    Output(io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell where the standard error is closed.
            let _ = writeln!(io::stderr().lock(), "toolzz-simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let token = match (arguments.token_file, arguments.token) {
        (Some(path), _) => std::fs::read_to_string(&path).map_err(|source| Error::TokenFile { path, source })?,
        (None, Some(token)) => token,
        (None, None) => DEFAULT_TOKEN.to_owned(),
    };
    let token = token.trim();
    if token.is_empty() {
        return Err(Error::EmptyToken);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Signals)?;
    runtime.block_on(async {
        // Before the URL is printed: whoever reads it may send a signal at once.
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let simulator = Simulator::builder()
            .listen(arguments.listen)
            .settings(arguments.settings)
            .tokens(vec![Token::full("default", token)])
            .journal_limit(arguments.journal_limit)
            .start()
            .map_err(|source| Error::Listen { address: arguments.listen, source })?;
        print_line(&simulator.url()).map_err(Error::Output)?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stdin_closed(), if arguments.until_stdin_closes => {}
        }
        Ok(())
    })
}

fn print_line(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

/// A thread of its own reads: a read of the standard input cannot be cancelled, and must not keep the program from ending.
async fn stdin_closed() {
    let (sender, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while matches!(io::stdin().lock().read(&mut buffer), Ok(1..)) {}
        // Nobody waits any more where a signal came first.
        let _ = sender.send(());
    });
    let _ = closed.await;
}
