//! `controlplane`: builds the pinned Kubernetes tools, and runs a control plane of them on loopback.

mod builder;
mod cache;
mod certificates;
mod directory;
mod inbox;
mod plane;
mod process;
mod readiness;
mod run;
mod tools;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use test_controlplane::schemas;

const ABOUT: &str = "A real Kubernetes control plane on loopback, for tests, the demo and the benchmark.

The tools (etcd, kube-apiserver, kube-controller-manager, kubectl, helm, and what checks manifests, charts, alerts and \
health) are built once from their Go modules, in the versions pinned in tests/controlplane/tools, into the cache folder of \
the user. This needs Go and takes a quarter of an hour on two cores, ten minutes of it for the control plane. Tools found \
in the directory KUBEBUILDER_ASSETS are used as they are.";

#[derive(Parser)]
#[command(name = "controlplane", about = ABOUT)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the tools that are missing
    Build {
        /// Tools, such as kubectl; all of them if absent
        tools: Vec<String>,
    },
    /// Print where the tools are, or where one of them is
    Path {
        /// A tool, such as kubectl; all of them if absent
        tool: Option<String>,
    },
    /// Run a control plane until Ctrl-C or SIGTERM
    ///
    /// Prints the path of a kubeconfig for an administrator when it is ready. Everything is below one directory,
    /// which is removed at the end unless --keep is given.
    Run(run::Arguments),
    /// Write JSON schemas for kubeconform, of what an API server serves and of CustomResourceDefinitions
    ///
    /// They are strict: unknown fields are refused. Prints what to give kubeconform as its -schema-location.
    Schemas {
        /// Kubeconfig of the API server
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: PathBuf,
        /// Where the schemas go
        #[arg(long)]
        directory: PathBuf,
        /// YAML files with CustomResourceDefinitions, which need not be installed
        definitions: Vec<PathBuf>,
    },
    /// Become another program that dies with its parent (used by `run` and `build` for what they start)
    #[command(hide = true)]
    Tied {
        /// Process id of the parent
        parent: i32,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(io::stderr().lock(), "controlplane: {}", describe(&*error));
            ExitCode::FAILURE
        }
    }
}

fn perform(action: Action) -> Result<(), Box<dyn std::error::Error>> {
    match action {
        Action::Build { tools } => builder::build_missing(&tools)?,
        Action::Path { tool: Some(name) } => writeln!(io::stdout().lock(), "{}", cache::locate(&name)?.display())?,
        Action::Path { tool: None } => {
            for tool in tools::all() {
                let path = cache::locate(tool.name)?;
                writeln!(io::stdout().lock(), "{}\t{}", tool.name, path.display())?;
            }
        }
        Action::Run(arguments) => run::run(&arguments)?,
        Action::Schemas { kubeconfig, directory, definitions } => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
                let client = test_controlplane::connect(&kubeconfig).await?;
                schemas::write(&client, &definitions, &directory).await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            })?;
            writeln!(io::stdout().lock(), "{}", schemas::location(&directory))?;
        }
        Action::Tied { parent, command } => {
            return Err(process::become_tied(parent, &command).into());
        }
    }
    Ok(())
}

/// The error and its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
