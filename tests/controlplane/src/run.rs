//! `controlplane run`.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use test_controlplane::protocol::{Command, Event};

use crate::{
    builder,
    inbox::{Inbox, Message},
    plane::{self, Plane},
};

/// Between two looks whether all processes are alive.
const TICK: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the files go: a directory that is absent or empty [default: a new one among the temporary files]
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Leave the directory, with logs and data, at the end
    #[arg(long)]
    pub(crate) keep: bool,
    /// Do without garbage collection, deletion of namespaces and default ServiceAccounts
    #[arg(long)]
    pub(crate) no_controller_manager: bool,
    /// One more argument for kube-apiserver, such as --api-server-arg=--audit-log-path=/tmp/audit
    #[arg(long = "api-server-arg", value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) api_server_args: Vec<String>,
    /// Fail if a tool is missing, instead of building it
    #[arg(long)]
    pub(crate) no_build: bool,
    /// End also when standard input is closed, so at the latest when its writer ends
    #[arg(long)]
    until_stdin_closes: bool,
    /// Speak the protocol of the Rust library: commands on standard input, until it is closed; events on standard output
    #[arg(long)]
    json: bool,
}

/// Why a control plane ended other than by request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Builder(#[from] builder::Error),
    #[error(transparent)]
    Plane(#[from] plane::Error),
    #[error("cannot talk to whoever started this")]
    Talk(#[from] io::Error),
}

/// Runs a control plane until it is told to stop.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Error> {
    if !arguments.no_build {
        builder::build_missing(&plane::TOOLS)?;
    }
    let inbox = Inbox::open(arguments.json || arguments.until_stdin_closes)?;
    let mut plane = match Plane::start(arguments, &inbox) {
        Ok(plane) => plane,
        Err(plane::Error::Stopped) => return Ok(()),
        // Whoever started this shows the message; once is enough.
        Err(error) if arguments.json => return send(&failed(&error)),
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        send(&Event::Ready(plane.endpoints().clone()))?;
    } else {
        let kubeconfig = plane.endpoints().kubeconfig.display();
        writeln!(io::stdout().lock(), "{kubeconfig}")?;
        writeln!(io::stderr().lock(), "ready; export KUBECONFIG={kubeconfig}; Ctrl-C ends it")?;
    }
    loop {
        match inbox.next(TICK) {
            Some(Message::Stop) => return Ok(()),
            Some(Message::Line(line)) if arguments.json => send(&obey(&mut plane, &line, &inbox))?,
            Some(Message::Line(_)) | None => plane.check()?,
        }
    }
}

fn obey(plane: &mut Plane, line: &str, inbox: &Inbox) -> Event {
    let result = match serde_json::from_str(line) {
        Ok(Command::StopApiServer) => {
            plane.stop_api_server();
            Ok(())
        }
        Ok(Command::StartApiServer) => plane.start_api_server(inbox),
        Err(error) => {
            return Event::Failed { message: format!("not a command: {error}") };
        }
    };
    match result {
        Ok(()) => Event::Done,
        Err(error) => failed(&error),
    }
}

fn failed(error: &plane::Error) -> Event {
    Event::Failed { message: crate::describe(error) }
}

fn send(event: &Event) -> Result<(), Error> {
    let mut line = serde_json::to_vec(event).map_err(io::Error::from)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()?;
    Ok(())
}
