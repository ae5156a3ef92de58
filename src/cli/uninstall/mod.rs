//! `toolzz-operator uninstall --check`.

mod judge;
mod look;

use std::collections::BTreeSet;

use clap::builder::NonEmptyStringValueParser;
use kube::core::ObjectMeta;
use thiserror::Error;

use crate::{
    api::{ConnectionKey, ToolzzCredential},
    kubernetes::NoAccess,
};

/// What is said without `--check`.
pub(super) const ONLY_CHECKS: &str = "uninstall needs --check: it only says what an uninstallation would leave behind. \
    It deletes nothing and uninstalls nothing; that is for `kubectl delete` and `helm uninstall`";

/// Say what an uninstallation would leave behind. It only looks.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Says what an uninstallation would leave behind: what deleting each resource does at Toolzz, what waits to be \
        deleted, and what becomes of the CustomResourceDefinitions. It only looks, with the rights of KUBECONFIG to read.\n\n\
        Ends with 0 if nothing would be lost or stuck, with 1 if something would, or if it could not look at everything, and \
        with 2 if the arguments are wrong.",
    after_help = "Example:\n  toolzz-operator uninstall --check --namespace ai --namespace data"
)]
pub(super) struct UninstallArgs {
    /// Required, so that nobody takes this for the uninstallation.
    #[arg(long)]
    pub check: bool,
    /// Name the resources of this namespace only; can be given several times. Absent: of all namespaces. The
    /// CustomResourceDefinitions are everybody's, and are looked at in any case.
    #[arg(long, short, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: Vec<String>,
}

#[derive(Debug, Error)]
enum Error {
    #[error("{0}")]
    Kubernetes(#[from] NoAccess),
    #[error("{what} cannot be read: {why}")]
    Read { what: &'static str, why: String },
    #[error("standard output: {0}")]
    Output(#[from] std::io::Error),
    #[error("would be lost or stuck: {0}")]
    Findings(usize),
    #[error("whether anything would be lost or stuck is not known")]
    NotKnown,
}

pub(super) fn uninstall(arguments: UninstallArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let namespaces: BTreeSet<String> = arguments.namespace.into_iter().collect();
    let (verdict, text) = judge::report(&runtime.block_on(look::look(&namespaces))?, &namespaces);
    print(&text)?;
    Ok(verdict?)
}

fn print(text: &str) -> Result<(), Error> {
    use std::io::Write as _;
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// What there is.
#[derive(Default)]
struct Found {
    credentials: Vec<ToolzzCredential>,
    connections: Vec<ConnectionKey>,
    definitions: Vec<ObjectMeta>,
    operators: Vec<Operator>,
    /// Whether there is any resource in the cluster, also in namespaces that were not asked for. `None`: not known.
    any: Option<bool>,
    /// What may not be looked at.
    unseen: BTreeSet<&'static str>,
}

impl Found {
    fn is_served(&self, namespace: &str) -> bool {
        self.operators.iter().any(|operator| operator.works_in(namespace))
    }

    /// There are resources, or that is not known.
    fn may_have_resources(&self) -> bool {
        self.any != Some(false)
    }
}

/// An operator at work.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Operator {
    /// What shows it.
    what: String,
    state: String,
    /// Where it runs, and has its installation key.
    home: String,
    /// Where it works. Empty: everywhere, as far as can be seen.
    namespaces: BTreeSet<String>,
}

impl Operator {
    fn works_in(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

fn join(names: &BTreeSet<impl AsRef<str>>) -> String {
    names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}
