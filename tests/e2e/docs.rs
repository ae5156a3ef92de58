//! What stands in the documentation, and where it leads. Its commands are run in `commands`, the examples in `no_diff`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use toolzz_operator::api::Reason;

use super::support::*;

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

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
            let file = lab.directory.join("block.yaml");
            fs::write(&file, &block.text).unwrap();
            lab.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", file.to_str().unwrap()]);
        }
    }
    assert!(found >= 5, "{found}");
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
            for link in links.filter(|link| !link.contains("://")) {
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
