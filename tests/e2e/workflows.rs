//! What the workflows may do, and whose code they run. They cannot be run here.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::docs::{ROOT, files};

/// The jobs that may write: they run nothing of the sources.
const PUBLISHING: [&str; 1] = ["release.yml publish"];

/// Jobs of a release, each with the one it needs and what it does, in this order: the beginnings of lines and actions.
const RELEASE: [(&str, &str, &[&str]); 2] = [
    ("build", "test", &["make release", "actions/upload-artifact dist/"]),
    (
        "publish",
        "build",
        &[
            "actions/download-artifact dist",
            "sha256sum --check --strict SHA256SUMS",
            "sigstore/cosign-installer",
            "skopeo copy --preserve-digests --digestfile image.digest",
            "helm push dist/*.tgz",
            "cosign sign --yes \"$REGISTRY/toolzz-operator@$image\"",
            "cosign sign --yes \"$REGISTRY/charts/toolzz-operator@$chart\"",
            "cosign attest --yes --type cyclonedx --predicate dist/*.cdx.json \"$REGISTRY/toolzz-operator@$image\"",
            "actions/attest-build-provenance ${{ vars.REGISTRY }}/toolzz-operator",
            "actions/attest-build-provenance ${{ vars.REGISTRY }}/charts/toolzz-operator",
            "cosign sign-blob --yes --new-bundle-format --bundle dist/SHA256SUMS.sigstore.json dist/SHA256SUMS",
            "actions/attest-build-provenance dist/*",
            "gh release create \"$TAG\" --draft",
        ],
    ),
];

fn workflows() -> Vec<(String, String)> {
    let read = |path: &std::path::PathBuf| {
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
    };
    files(".github/workflows", "yml").iter().map(read).collect()
}

fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn jobs(workflow: &Value) -> impl Iterator<Item = (&String, &Value)> {
    workflow["jobs"].as_object().unwrap().iter()
}

fn steps(job: &Value) -> impl Iterator<Item = &Value> {
    job["steps"].as_array().into_iter().flatten()
}

/// Of this repository, or one commit of another: a tag can be moved.
fn is_pinned(action: &str) -> bool {
    let commit = action.split_once('@').map(|(_, commit)| commit);
    action.starts_with("./")
        || commit.is_some_and(|commit| commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit()))
}

/// What a workflow does that it should not.
fn faults(name: &str, text: &str) -> Vec<String> {
    let workflow = parsed(text);
    let mut faults = Vec::new();
    if workflow["permissions"] != json!({}) {
        faults.push("a job has rights without naming them".to_owned());
    }
    for (job, of) in jobs(&workflow) {
        let actions = steps(of).chain([of]).filter_map(|step| step["uses"].as_str());
        faults.extend(actions.filter(|action| !is_pinned(action)).map(|action| format!("{action} is not pinned")));
        // Whoever chooses a value would choose the command: values come by the environment.
        let commands = steps(of).filter_map(|step| step["run"].as_str()).filter(|command| command.contains("${{"));
        faults.extend(commands.map(|command| format!("{job} has a value in a command: {command}")));
        // `write-all` is no map.
        let writes = of["permissions"].to_string().contains("write");
        if writes && !PUBLISHING.contains(&format!("{name} {job}").as_str()) {
            faults.push(format!("{job} may write"));
        }
    }
    faults
}

#[test]
fn every_action_is_pinned_and_only_who_publishes_may_write() {
    let workflows = workflows();
    assert!(workflows.len() > 1);
    for (name, text) in &workflows {
        assert_eq!(faults(name, text), [""; 0], "{name}");
    }
    let (name, text) = workflows.iter().find(|(name, _)| name == "ci.yml").unwrap();
    let action = text.lines().find_map(|line| line.trim().strip_prefix("- uses: ")).unwrap();
    let action = action.split(' ').next().unwrap();
    let (repository, commit) = action.split_once('@').unwrap();
    for (from, to, fault) in [
        (action, format!("{repository}@v4"), "is not pinned"),
        (action, format!("{repository}@{}", &commit[..39]), "is not pinned"),
        (action, repository.to_owned(), "is not pinned"),
        ("permissions: {}", "permissions: {contents: read}".to_owned(), "without naming them"),
        ("\npermissions: {}", String::new(), "without naming them"),
        ("run: make test", "run: make ${{ github.ref_name }}".to_owned(), "test has a value in a command"),
        ("contents: read", "contents: write".to_owned(), "test may write"),
        ("permissions:\n      contents: read", "permissions: write-all".to_owned(), "test may write"),
    ] {
        let changed = text.replacen(from, &to, 1);
        let found = faults(name, &changed);
        assert!(found.iter().any(|found| found.contains(fault)), "{from} -> {to}: {found:?}");
    }
}

/// The lines of a job's commands, and its actions without their commits, each with what it is about.
fn deeds(job: &Value) -> Vec<String> {
    let mut deeds = Vec::new();
    for step in steps(job) {
        if let Some(action) = step["uses"].as_str() {
            let about = ["subject-name", "subject-path", "path"].iter().find_map(|input| step["with"][input].as_str());
            deeds.push(format!("{} {}", action.split('@').next().unwrap(), about.unwrap_or_default()));
        }
        deeds.extend(step["run"].as_str().unwrap_or_default().lines().map(|line| line.trim().to_owned()));
    }
    deeds
}

/// The first of these that is not done after all before it.
fn missing<'a>(deeds: &[String], wanted: &[&'a str]) -> Option<&'a str> {
    let mut deeds = deeds.iter();
    wanted.iter().copied().find(|one| !deeds.any(|deed| deed.starts_with(one)))
}

#[test]
fn a_release_is_of_what_was_tested_and_is_signed_and_attested_before_it_is_made() {
    let text = fs::read_to_string(Path::new(ROOT).join(".github/workflows/release.yml")).unwrap();
    let release = parsed(&text);
    assert!(!text.contains("continue-on-error"));
    assert_eq!(release["jobs"]["test"]["uses"], "./.github/workflows/ci.yml");
    for (job, needs, wanted) in RELEASE {
        let of = &release["jobs"][job];
        assert_eq!(of["needs"], needs, "{job}");
        for step in steps(of).chain([of]).filter(|step| !step["if"].is_null()) {
            // Where there is no registry nothing goes there. All else is always done.
            let about_registry = format!("{}{}", step["run"], step["with"]).contains("REGISTRY");
            assert!(about_registry && step["if"] == "vars.REGISTRY != ''", "{job}: {step}");
        }
        let deeds = deeds(of);
        assert_eq!(missing(&deeds, wanted), None, "{job}: {deeds:#?}");
        assert!(deeds.iter().all(|deed| !deed.contains("||")), "{job}: what fails ends it: {deeds:#?}");
        for one in wanted {
            let others: Vec<String> = deeds.iter().filter(|deed| !deed.starts_with(one)).cloned().collect();
            assert_eq!(missing(&others, wanted), Some(*one), "{job}");
        }
        let backwards: Vec<String> = deeds.into_iter().rev().collect();
        assert!(missing(&backwards, wanted).is_some(), "{job}: the order");
    }
}

#[test]
fn a_release_is_tried_before_its_tag_and_holes_are_looked_for_without_a_change() {
    let ci = parsed(&fs::read_to_string(Path::new(ROOT).join(".github/workflows/ci.yml")).unwrap());
    // The job that runs this, and when.
    let job = |command: &str| {
        let runs = |of: &&Value| steps(of).any(|step| step["run"] == command);
        let condition = |of: &Value| of["if"].as_str().unwrap_or_default().to_owned();
        jobs(&ci).map(|(_, of)| of).find(runs).map(condition)
    };
    assert!(ci["on"]["schedule"][0]["cron"].is_string(), "{}", ci["on"]);
    assert_eq!(job("make advisories").as_deref(), Some(""), "always, also when it is time");
    assert!(job("make test").is_some());
    assert!(job("make release").is_some_and(|condition| !condition.contains("pull_request")));
}
