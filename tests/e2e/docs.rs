//! What stands in the documentation, and where it leads. Its commands are run in `commands`, the examples in `no_diff`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::{Value, json};
use test_controlplane::tool;
use toolzz_operator::api::Reason;

use super::{chart::CHART, install::flux_definitions, support::*};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The pages with YAML that is no object but a field of one, and that field. Below, each is taken for what it is a part of.
const PARTS: [(&str, &str); 4] = [
    ("docs/argocd.md", "configMapGenerator"),
    ("docs/connections.md", "spec"),
    ("docs/flux.md", "verify"),
    ("docs/monitoring.md", "extraEnv"),
];

pub fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = PathBuf::from(ROOT).join(directory);
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// Every file of this kind in the repository, from its root.
pub fn everywhere(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with('.') || ["target", "dist"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|of| of == extension) {
                found.push(path.strip_prefix(ROOT).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// All Markdown there is.
pub fn pages() -> Vec<Page> {
    everywhere("md").into_iter().map(Page::read).collect()
}

pub struct Page {
    /// From the root of the repository.
    pub path: PathBuf,
    pub text: String,
    /// The lines that are in no block, by their number.
    prose: Vec<(usize, String)>,
    pub blocks: Vec<Block>,
}

/// What stands between two fences.
pub struct Block {
    /// Number of the first fence's line.
    pub line: usize,
    /// What stands behind that fence.
    pub kind: String,
    pub text: String,
    /// The last line before it that is not empty.
    before: String,
}

impl Page {
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let whole = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap();
        let (mut prose, mut blocks) = (Vec::new(), Vec::new());
        let mut open: Option<(&str, Block)> = None;
        let mut before = "";
        for (index, text) in whole.lines().enumerate() {
            let (line, bare) = (index + 1, text.trim_start());
            match (open.take(), bare.strip_prefix("```")) {
                (Some((_, block)), Some(_)) => {
                    blocks.push(block);
                    before = "";
                }
                (Some((indent, mut block)), None) => {
                    block.text.push_str(text.strip_prefix(indent).unwrap_or(bare));
                    block.text.push('\n');
                    open = Some((indent, block));
                }
                (None, Some(kind)) => {
                    let kind = kind.trim().to_owned();
                    let block = Block { line, kind, text: String::new(), before: before.to_owned() };
                    open = Some((&text[..text.len() - bare.len()], block));
                }
                (None, None) => {
                    prose.push((line, text.to_owned()));
                    if !bare.is_empty() {
                        before = bare;
                    }
                }
            }
        }
        assert!(open.is_none(), "{}: a block without an end", path.display());
        Self { path, text: whole, prose, blocks }
    }

    /// What is wrong with a link.
    fn against_link(&self, link: &str) -> Option<&'static str> {
        if link.contains("://") {
            // What is elsewhere cannot be asked for here.
            let is_https = reqwest::Url::parse(link).is_ok_and(|url| url.scheme() == "https");
            return (!is_https).then_some("is no https URL");
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let here = Path::new(ROOT).join(&self.path);
        let target = if path.is_empty() { here } else { here.parent().unwrap().join(path) };
        let Ok(target) = target.canonicalize() else { return Some("is dead") };
        let root = Path::new(ROOT).canonicalize().unwrap();
        let Ok(target) = target.strip_prefix(root) else { return Some("leaves the repository") };
        // There are no other pages in the book.
        if self.path.starts_with("docs") && !target.starts_with("docs") {
            return Some("leaves the book");
        }
        (!anchor.is_empty() && !Self::read(target).anchors().contains(anchor)).then_some("names no heading")
    }

    /// What its headings are called, by Git hosts and in the book.
    fn anchors(&self) -> BTreeSet<String> {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        let headings = self.prose.iter().filter(|(_, text)| text.starts_with('#'));
        let anchor = |(_, text): &(usize, String)| {
            let letters = text.trim_start_matches('#').trim().chars().filter_map(|letter| match letter {
                ' ' => Some('-'),
                '-' | '_' => Some(letter),
                _ => letter.is_alphanumeric().then(|| letter.to_ascii_lowercase()),
            });
            let anchor: String = letters.collect();
            let before = times.entry(anchor.clone()).or_default();
            *before += 1;
            if *before == 1 { anchor } else { format!("{anchor}-{}", *before - 1) }
        };
        headings.map(anchor).collect()
    }

    /// Whether it is the name of a file, but of none that is there: from the root, the page, or the chart.
    fn is_missing(&self, name: &str) -> bool {
        let of_kind = ["md", "yaml", "rs", "json"].iter().any(|kind| name.ends_with(&format!(".{kind}")));
        let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_./-".contains(letter));
        let here = self.path.parent().unwrap();
        let from = [Path::new(""), here, Path::new("charts/toolzz-operator")];
        of_kind
            && plain
            && (name.contains('/') || name.ends_with(".md"))
            && !from.iter().any(|from| Path::new(ROOT).join(from).join(name).exists())
    }
}

#[tokio::test]
async fn every_manifest_in_the_documentation_is_accepted() {
    let lab = Lab::empty("docs").await;
    let mut found = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.kind == "yaml") {
            if !block.text.contains("apiVersion: toolzz.com.br") {
                continue;
            }
            found += 1;
            would_apply(&lab, &block.text);
        }
    }
    assert!(found >= 5, "{found}");
    let mut manifest = lab.manifest("part");
    for (field, value) in part("docs/connections.md", "spec").as_object().unwrap() {
        manifest["spec"][field] = value.clone();
    }
    would_apply(&lab, &manifest.to_string());
}

/// The API server accepts it, and keeps nothing of it.
fn would_apply(lab: &Lab, manifest: &str) {
    let file = lab.directory.join("block.yaml");
    fs::write(&file, manifest).unwrap();
    lab.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", file.to_str().unwrap()]);
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

/// What a page writes under this field, which is a part of an object.
fn part(page: &str, field: &str) -> Value {
    let blocks = Page::read(page).blocks;
    let of_yaml = blocks.iter().filter(|block| block.kind == "yaml");
    let mut parts = of_yaml.flat_map(|block| documents(&block.text)).filter(|document| document["kind"].is_null());
    parts.find_map(|document| document.get(field).cloned()).unwrap_or_else(|| panic!("{page}: no {field}"))
}

#[test]
fn every_yaml_is_an_object_with_a_name_or_a_part_that_is_known() {
    let mut parts = Vec::new();
    for page in pages() {
        let path = page.path.display().to_string();
        for block in page.blocks.iter().filter(|block| block.kind == "yaml") {
            let place = format!("{path}:{}", block.line);
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(!documents.is_empty(), "{place}");
            for document in documents {
                let is_text = |pointer| document.pointer(pointer).is_some_and(Value::is_string);
                if !["/apiVersion", "/kind", "/metadata/name"].into_iter().all(is_text) {
                    let fields = document.as_object().into_iter().flat_map(|fields| fields.keys().cloned());
                    parts.extend(fields.map(|field| (path.clone(), field)));
                }
            }
        }
    }
    parts.sort();
    assert_eq!(parts, PARTS.map(|(page, field)| (page.to_owned(), field.to_owned())));
}

#[test]
fn what_is_copied_beside_argo_cds_configuration_is_what_is_shipped() {
    let shipped = fs::read_to_string(Path::new(ROOT).join("integrations/argocd/kustomization.yaml")).unwrap();
    let shipped: Value = serde_saphyr::from_str(&shipped).unwrap();
    let copied = part("docs/argocd.md", "configMapGenerator");
    assert!(copied[0]["files"].is_array(), "{copied}");
    for field in ["name", "files"] {
        assert_eq!(copied[0][field], shipped["configMapGenerator"][0][field], "{field}");
    }
}

#[test]
fn the_chart_takes_the_values_of_the_page_about_monitoring() {
    let values = format!("extraEnv={}", part("docs/monitoring.md", "extraEnv"));
    let mut template = Command::new(tool("helm").unwrap());
    template.args(["template", "op", CHART, "--set-json", &values, "-f", &format!("{CHART}/ci/alone-values.yaml")]);
    let output = template.output().unwrap();
    let rendered = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(rendered.contains("name: OTEL_EXPORTER_OTLP_ENDPOINT"), "{rendered}");
}

/// Flux does not run here, but its definitions do: what the page says to copy, with what it says to add.
#[tokio::test]
async fn what_is_copied_for_flux_is_accepted_where_its_definitions_are() {
    let lab = Lab::on(bare_plane().await, "fluxpage").await;
    for definition in flux_definitions() {
        lab.kubectl(&["apply", "--server-side", "-f", definition.to_str().unwrap()]);
    }
    // The API server learns of a kind some moment after its definition was applied.
    let kinds = "ocirepositories.source.toolkit.fluxcd.io,kustomizations.kustomize.toolkit.fluxcd.io,\
                 helmreleases.helm.toolkit.fluxcd.io";
    let known = async {
        while !lab.plane.kubectl(["get", kinds, "-n", &lab.namespace]).output().unwrap().status.success() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), known).await.expect(kinds);

    let verify = part("docs/flux.md", "verify");
    let (mut objects, mut verified): (Vec<Value>, usize) = (Vec::new(), 0);
    for file in ["integrations/flux/toolzz.yaml", "integrations/flux/operator/operator.yaml"] {
        objects.extend(documents(&fs::read_to_string(Path::new(ROOT).join(file)).unwrap()));
    }
    for object in &mut objects {
        // The namespaces that the files name are not there.
        if object["metadata"]["namespace"].is_string() {
            object["metadata"]["namespace"] = json!(lab.namespace);
        }
        if object["kind"] == "OCIRepository" {
            object["spec"]["verify"] = verify.clone();
            verified += 1;
        }
        would_apply(&lab, &object.to_string());
    }
    assert_eq!((objects.len(), verified), (6, 1));
}

#[test]
fn every_runbook_is_of_an_alert_and_has_the_same_headings() {
    let alerts = fs::read_to_string(Path::new(ROOT).join("charts/toolzz-operator/files/alerts.yaml")).unwrap();
    let mut alerts: Vec<&str> = alerts.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    alerts.sort_unstable();
    let mut runbooks: Vec<String> = Vec::new();
    for file in files("docs/runbooks", "md") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        // The index, which is generated.
        if name == "README" {
            continue;
        }
        let page = Page::read(file);
        let headings = page.prose.iter().map(|(_, text)| text.as_str()).filter(|text| text.starts_with('#'));
        let title = format!("# {name}");
        let expected = [
            title.as_str(),
            "## What it means",
            "## What users notice",
            "## How to look",
            "## What to do",
            "## When it is over",
        ];
        assert_eq!(headings.collect::<Vec<_>>(), expected, "{name}");
        for below in page.text.split("\n## ").skip(1) {
            assert!(below.trim().contains('\n'), "{name}: nothing below {below}");
        }
        runbooks.push(name);
    }
    runbooks.sort_unstable();
    assert_eq!(runbooks, alerts);
}

#[test]
fn every_reason_has_its_advice() {
    let troubleshooting = fs::read_to_string(Path::new(ROOT).join("docs/troubleshooting.md")).unwrap();
    for reason in Reason::ALL {
        assert!(troubleshooting.contains(&format!("\n## {reason}\n")), "{reason}");
    }
}

#[test]
fn no_link_is_dead_and_every_file_that_is_named_is_there() {
    let mut wrong = Vec::new();
    for page in pages() {
        for (line, text) in &page.prose {
            let place = format!("{}:{line}", page.path.display());
            let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
            for link in links {
                wrong.extend(page.against_link(link).map(|what| format!("{place}: {link} {what}")));
            }
            let named = text.split('`').skip(1).step_by(2);
            wrong.extend(named.filter(|name| page.is_missing(name)).map(|name| format!("{place}: no file {name}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_book_once() {
    let summary = fs::read_to_string(Path::new(ROOT).join("docs/SUMMARY.md")).unwrap();
    for page in everywhere("md") {
        let Ok(page) = page.strip_prefix("docs") else { continue };
        let expected = usize::from(page != Path::new("SUMMARY.md"));
        let page = page.display();
        assert_eq!(summary.matches(&format!("]({page})")).count(), expected, "{page}");
    }
}

#[test]
fn every_block_is_of_a_known_kind_and_what_is_not_run_says_why() {
    for page in pages() {
        for block in &page.blocks {
            let place = format!("{}:{}: {}", page.path.display(), block.line, block.kind);
            assert!(["sh", "sh no-run", "yaml", "csv"].contains(&block.kind.as_str()), "{place}");
            let why = block.before.strip_prefix("<!-- no-run: ").and_then(|why| why.strip_suffix(" -->"));
            assert_eq!(block.kind == "sh no-run", why.is_some(), "{place}: the comment before it");
            if block.kind.starts_with("sh") {
                let said = Command::new("bash").args(["-n", "-c", &block.text]).output().unwrap();
                assert!(said.status.success(), "{place}: {}", String::from_utf8_lossy(&said.stderr));
            }
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let tests = everywhere("rs");
    let is_there = |name: &str| {
        let (file, test) = name.split_once("::").unwrap();
        let of_file = tests.iter().filter(|path| path.file_stem().is_some_and(|stem| stem == file));
        let written = format!("fn {test}(");
        of_file.map(|path| fs::read_to_string(Path::new(ROOT).join(path)).unwrap()).any(|text| text.contains(&written))
    };
    let mut named = 0;
    for (line, text) in Page::read("docs/security.md").prose {
        let names = text.split('`').skip(1).step_by(2);
        for name in names.filter(|name| name.contains("::") && *name != "file::test") {
            named += 1;
            assert!(is_there(name), "docs/security.md:{line}: {name}");
        }
    }
    assert!(named >= 30, "{named}");
}
