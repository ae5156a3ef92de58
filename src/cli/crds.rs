//! `toolzz-operator crds`.

use super::files::Destination;
use crate::api::crds_yaml;

/// Print the CustomResourceDefinitions as YAML, or write them to files.
#[derive(Debug, clap::Args)]
pub(super) struct CrdsArgs {
    #[command(flatten)]
    destination: Destination,
}

pub(super) fn crds(arguments: &CrdsArgs) -> Result<(), Box<dyn std::error::Error>> {
    Ok(arguments.destination.put(crds_yaml()?, "---\n")?)
}
