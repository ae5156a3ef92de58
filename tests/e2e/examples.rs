//! What a user copies: the examples and the manifests in the documentation.

use std::{fs, path::PathBuf};

use toolzz_operator::api::{Reason, ToolzzCredential};

use super::support::*;

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn kubectl(lab: &Lab, args: &[&str]) -> String {
    let output = lab.plane.kubectl(args.iter().chain(&["-n", &lab.namespace])).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The credential of a file, and the reason its header promises.
fn promised(text: &str) -> (String, &str) {
    let name = text.split("kind: ToolzzCredential").nth(1).unwrap().split("name: ").nth(1).unwrap();
    let name = name.split_whitespace().next().unwrap().to_owned();
    let becomes = text.lines().find_map(|line| line.strip_prefix("# Becomes: ")).unwrap_or("Created");
    (name, becomes)
}

#[tokio::test]
async fn every_example_becomes_what_it_says_and_is_unchanged_when_applied_again() {
    for how in [&["apply", "-f"][..], &["apply", "--server-side", "-f"]] {
        let lab = Lab::start("examples").await;
        let mut files: Vec<PathBuf> = files("examples", "yaml");
        files.extend(self::files("examples/features", "yaml"));
        // Connections lead to the real Toolzz.
        files.retain(|file| !file.file_name().unwrap().to_string_lossy().starts_with("connection-"));
        assert!(files.len() >= 16, "{files:?}");
        for file in &files {
            let file = file.to_str().unwrap();
            let apply = |file| kubectl(&lab, &[how, &[file]].concat());
            apply(file);
            let text = fs::read_to_string(file).unwrap();
            let (name, becomes) = promised(&text);
            let before: ToolzzCredential = lab.until_reason(&name, becomes).await;
            let again = apply(file);
            if how.len() == 2 {
                assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{file}: {again}");
            }
            let after = lab.api().get(&name).await.unwrap();
            assert_eq!(before.spec, after.spec, "{file}");
            assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "{file}");
        }
    }
}

#[tokio::test]
async fn every_manifest_in_the_documentation_is_accepted() {
    let lab = Lab::empty("docs").await;
    let mut found = 0;
    let mut pages = files("docs", "md");
    pages.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            if !block.contains("apiVersion: toolzz.com.br") {
                continue;
            }
            found += 1;
            let file = lab.directory.join("block.yaml");
            fs::write(&file, block).unwrap();
            kubectl(&lab, &["apply", "--server-side", "--dry-run=server", "-f", file.to_str().unwrap()]);
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
    for page in files("docs", "md") {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if !link.contains("://") {
                assert!(docs.join(link).exists(), "{}: {link}", page.display());
            }
        }
    }
}
