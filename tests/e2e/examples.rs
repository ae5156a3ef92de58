//! What a user copies from the documentation, and where it leads. The examples are in `no_diff`.

use std::{fs, path::PathBuf};

use toolzz_operator::api::Reason;

use super::support::*;

pub fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn pages() -> impl Iterator<Item = PathBuf> {
    ["docs", "integrations/argocd", "integrations/flux"].into_iter().flat_map(|directory| files(directory, "md"))
}

#[tokio::test]
async fn every_manifest_in_the_documentation_is_accepted() {
    let lab = Lab::empty("docs").await;
    let mut found = 0;
    for page in pages().chain(files(".", "md")) {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            if !block.contains("apiVersion: toolzz.com.br") {
                continue;
            }
            found += 1;
            let file = lab.directory.join("block.yaml");
            fs::write(&file, block).unwrap();
            lab.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", file.to_str().unwrap()]);
        }
    }
    assert!(found >= 5, "{found}");
}

#[test]
fn every_reason_has_its_advice_and_no_link_is_dead() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    let troubleshooting = fs::read_to_string(docs.join("troubleshooting.md")).unwrap();
    for reason in Reason::ALL {
        assert!(troubleshooting.contains(&format!("\n## {reason}\n")), "{reason}");
    }
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if !link.contains("://") {
                assert!(page.parent().unwrap().join(link).exists(), "{}: {link}", page.display());
            }
        }
    }
}
