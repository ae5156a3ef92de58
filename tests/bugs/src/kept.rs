//! The kills that are kept, so that a proof can be made in parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use crate::{Error, bugs::Bug, read, write};

/// What every kill rests on, from the root of the repository: also on what counts as one.
const ALL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "rust-toolchain.toml",
    "src",
    "crds",
    "charts/toolzz-operator",
    "tests/bugs/src/main.rs",
    "tests/controlplane",
    "tests/kubeproxy",
    "tests/simulator",
];
/// The tests that are no unit tests. A kill by one rests on its module and on those that it names, and on those that it
/// need not name to use them: `main`, and who adds to what all of them use.
const SUITES: [&str; 2] = ["tests/e2e", "tests/remote"];

/// Which test killed which bug, and a hash of the bug and what the kill rests on.
pub struct Kept {
    path: Option<PathBuf>,
    root: PathBuf,
    /// Of what all kills rest on.
    all: u64,
    /// By the bug's name.
    kills: BTreeMap<String, (String, String)>,
}

impl Kept {
    /// The kills in a directory. Without one none are kept.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(directory: Option<&Path>, root: &Path) -> Result<Self, Error> {
        let path = directory.map(|directory| directory.join("killed"));
        let text = path.as_deref().filter(|path| path.exists()).map(read).transpose()?.unwrap_or_default();
        let kill = |line: &str| {
            let (hash, rest) = line.split_once(' ')?;
            let (by, name) = rest.split_once(' ')?;
            Some((name.to_owned(), (hash.to_owned(), by.to_owned())))
        };
        let mut hasher = DefaultHasher::new();
        ALL.iter().try_for_each(|path| add(&mut hasher, root, path))?;
        Ok(Self { kills: text.lines().filter_map(kill).collect(), all: hasher.finish(), root: root.to_owned(), path })
    }

    /// The test that killed this bug when everything was as it is.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn killer(&self, bug: &Bug) -> Result<Option<String>, Error> {
        let Some((hash, by)) = self.kills.get(&bug.name) else { return Ok(None) };
        Ok((*hash == self.hash(bug, by)?).then(|| by.clone()))
    }

    /// Keeps a kill.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn keep(&mut self, bug: &Bug, by: &str) -> Result<(), Error> {
        let Some(path) = &self.path else { return Ok(()) };
        let kill = (self.hash(bug, by)?, by.to_owned());
        self.kills.insert(bug.name.clone(), kill);
        let lines = self.kills.iter().map(|(name, (hash, by))| format!("{hash} {by} {name}\n"));
        // Who is ended meanwhile leaves the kills of hours.
        let new = path.with_extension("new");
        write(&new, &lines.collect::<String>())?;
        fs::rename(&new, path).map_err(|source| Error::File { path: path.clone(), source })
    }

    fn hash(&self, bug: &Bug, by: &str) -> Result<String, Error> {
        let mut hasher = DefaultHasher::new();
        (bug, self.all).hash(&mut hasher);
        let module = by.split("::").next().unwrap_or_default();
        for suite in SUITES.iter().filter(|suite| bug.test.contains(&suite.replace("tests/", "--test "))) {
            for path in modules(&self.root, suite, module)? {
                add(&mut hasher, &self.root, &path)?;
            }
        }
        Ok(format!("{:016x}", hasher.finish()))
    }
}

/// The files of a module, of those that everybody uses, of those that they name, and so on.
fn modules(root: &Path, suite: &str, module: &str) -> Result<BTreeSet<String>, Error> {
    let names: Vec<String> =
        list(&root.join(suite))?.iter().filter_map(|name| name.strip_suffix(".rs")).map(str::to_owned).collect();
    let path = |name: &str| format!("{suite}/{name}.rs");
    let (mut found, mut open) = (BTreeSet::new(), vec![module, "main"]);
    for name in &names {
        let text = read(&root.join(path(name)))?;
        if ["\nimpl Lab {", "\nimpl Operator {"].iter().any(|adds| text.contains(adds)) {
            open.push(name);
        }
    }
    while let Some(name) = open.pop() {
        if found.insert(path(name)) {
            let text = read(&root.join(path(name)))?;
            open.extend(names.iter().filter(|other| text.contains(&format!("{other}::"))).map(String::as_str));
        }
    }
    Ok(found)
}

/// Adds a file, or all files of a directory.
fn add(hasher: &mut DefaultHasher, root: &Path, path: &str) -> Result<(), Error> {
    let whole = root.join(path);
    if whole.is_dir() {
        list(&whole)?.iter().try_for_each(|name| add(hasher, root, &format!("{path}/{name}")))
    } else {
        let content = fs::read(&whole).map_err(|source| Error::File { path: whole, source })?;
        (path, content).hash(hasher);
        Ok(())
    }
}

/// The names in a directory, in order.
fn list(directory: &Path) -> Result<Vec<String>, Error> {
    let at = |source| Error::File { path: directory.to_owned(), source };
    let entries: Result<Vec<fs::DirEntry>, _> = fs::read_dir(directory).map_err(at)?.collect();
    let mut names: Vec<String> =
        entries.map_err(at)?.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_kill_holds_until_something_changes_that_it_rests_on() {
        let root = &std::env::temp_dir().join(format!("kills-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        ALL.iter().for_each(|path| put(path, ""));
        let adds = "use super::*;\nimpl Lab {";
        for (module, text) in
            [("main", ""), ("shell", "use super::support::*;"), ("support", ""), ("shards", ""), ("leader", adds)]
        {
            put(&format!("tests/e2e/{module}.rs"), text);
        }
        let bugs = crate::bugs::read().unwrap();
        let of = |tests| bugs.iter().find(|bug| bug.test.starts_with(tests)).unwrap();
        let (unit, other) = (of("--lib"), of("--test e2e"));
        let read = || Kept::read(Some(root), root).unwrap();
        let killers = || [unit, other].map(|bug| read().killer(bug).unwrap());

        read().keep(unit, "plan::tests::one").unwrap();
        assert_eq!(killers(), [Some("plan::tests::one".to_owned()), None]);
        read().keep(other, "shell::another").unwrap();
        let both = [Some("plan::tests::one".to_owned()), Some("shell::another".to_owned())];
        assert_eq!(killers(), both);
        put("tests/e2e/shards.rs", "fn other() {}");
        assert_eq!(killers(), both);
        for module in ["support", "leader"] {
            read().keep(other, "shell::another").unwrap();
            assert_eq!(killers(), both);
            put(&format!("tests/e2e/{module}.rs"), "fn other() {}\nimpl Lab {");
            assert_eq!(killers(), [both[0].clone(), None], "{module}");
        }
        put("src", "fn other() {}");
        assert_eq!(killers(), [None, None]);
        fs::remove_dir_all(root).unwrap();
    }
}
