//! The table for people.

use crate::state::State;
use crate::store::fingerprint;

const HEAD: [&str; 6] = ["ID", "NAME", "ACTIVE", "VIRTUAL-KEY", "SECRET-ID", "MATERIAL"];

/// One line for each credential, removed ones last seen as they were; never the material, only its fingerprint.
pub(crate) fn render(state: &State) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(state.credentials().iter().map(|credential| {
        let row = &credential.row;
        let active = match (credential.removed, row.active) {
            (true, _) => "removed",
            (false, true) => "yes",
            (false, false) => "no",
        };
        let material = state.material_of(row.secret_id).map_or_else(|| "-".to_owned(), fingerprint);
        // A name can hold anything: no control character reaches a terminal.
        let name = row.name.chars().map(|each| if each.is_control() { '\u{fffd}' } else { each }).collect();
        [
            credential.id.to_string(),
            name,
            active.to_owned(),
            row.virtual_key.clone(),
            row.secret_id.to_string(),
            material,
        ]
    }));
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}
