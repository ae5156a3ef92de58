//! The commands.

mod crds;
mod docs;
mod files;
mod ready;
mod run;
mod shards;
mod uninstall;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

/// Keeps provider credentials in Toolzz in step with Kubernetes Secrets.
#[derive(Debug, Parser)]
#[command(
    name = "toolzz-operator",
    version,
    about,
    long_about = "Keeps provider credentials in Toolzz in step with Kubernetes Secrets.\n\n\
        A ToolzzCredential says which credential should exist and which Secrets hold its key material. The operator \
        creates and updates it at Toolzz and writes its id and virtual key to the resource's status.",
    after_help = "Examples:\n  \
        toolzz-operator crds | kubectl apply --server-side -f -\n  \
        TOOLZZ_API_TOKEN=... toolzz-operator run --log-format text"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: in a cluster, or against the one that KUBECONFIG names.
    Run(Box<run::RunArgs>),
    /// Ask a running operator whether it is ready, until it is.
    Ready(ready::ReadyArgs),
    /// Say what an uninstallation would leave behind (--check). It only looks.
    Uninstall(uninstall::UninstallArgs),
    /// Print the CustomResourceDefinitions as YAML, or write them to files.
    Crds(crds::CrdsArgs),
    /// Print the reference of fields and reasons as Markdown, or write it to files.
    Docs(docs::DocsArgs),
}

/// Does what the arguments say. Exit codes: 0 done, 1 failed, 2 wrong arguments.
pub fn main() -> ExitCode {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Ready(arguments) => ready::ready(&arguments),
        Command::Uninstall(arguments) if !arguments.check => {
            Arguments::command().error(ErrorKind::MissingRequiredArgument, uninstall::ONLY_CHECKS).exit()
        }
        Command::Uninstall(arguments) => uninstall::uninstall(arguments),
        Command::Crds(arguments) => crds::crds(&arguments),
        Command::Docs(arguments) => docs::docs(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text.parse().map_err(|error| format!("{error}"))?;
    if parsed.is_negative() || Duration::from(parsed).is_zero() {
        return Err("must be more than zero".to_owned());
    }
    Ok(parsed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_flag_of_run_has_an_environment_variable_and_a_help() {
        let command = Arguments::command();
        let run = command.find_subcommand("run").unwrap();
        for argument in
            run.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        {
            let id = argument.get_id();
            assert!(argument.get_env().is_some(), "{id} has no environment variable");
            assert!(argument.get_help().is_some(), "{id} has no help");
        }
    }

    #[test]
    fn the_token_is_no_argument() {
        assert!(Arguments::try_parse_from(["toolzz-operator", "run", "--api-token", "x"]).is_err());
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        for (flag, value) in
            [("--resync-interval", "soon"), ("--concurrency", "0"), ("--log-format", "xml"), ("--http-addr", "x")]
        {
            let error = Arguments::try_parse_from(["toolzz-operator", "run", flag, value]).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }
}
