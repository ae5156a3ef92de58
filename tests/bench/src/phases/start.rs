//! What is shipped: its size, how soon it is ready, and how long a decision takes.

use std::{fs, path::Path};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    figures::{Row, Unit, percentile},
    run::Run,
};

const STARTS: usize = 5;

pub async fn start(run: &mut Run<'_>, image: Option<&Path>) -> Result<()> {
    run.say("size and start");
    let program = run.programs.operator.clone();
    let mut sizes = vec![("release binary", program.as_path())];
    sizes.extend(image.map(|image| ("image, as an archive", image)));
    for (what, path) in sizes {
        let bytes = fs::metadata(path).map_err(Error::file(path))?.len();
        run.row(Row::new(None, what, bytes as f64 / 1e6, Unit::Megabytes));
    }
    let world = run.world().await?;
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let mut operator = world.operator(&[])?;
        took.push(operator.until_working().await?);
        operator.end().await?;
    }
    let time = percentile(&took, 50).unwrap_or_default();
    run.row(Row::seconds(None, "from exec to ready, without any resource", time));
    Ok(())
}

/// What criterion says of one decision.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The time of a decision, from the files that criterion left.
pub fn plan(run: &mut Run<'_>, criterion: &Path) -> Result<()> {
    let folder = criterion.join("plan");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map_err(Error::file(&folder))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names {
        let path = folder.join(&name).join("new/estimates.json");
        // A folder of criterion's own.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let estimates: Estimates = serde_json::from_str(&text)?;
        run.row(Row::new(None, format!("plan::next, {name}"), estimates.median.point_estimate, Unit::Nanoseconds));
    }
    Ok(())
}
