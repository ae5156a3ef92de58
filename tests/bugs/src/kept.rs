//! The kills that are kept, so that a proof can be made in parts.

use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use crate::{Error, bugs::Bug, read, write};

/// What every kill rests on, from the root of the repository.
const ALL: [&str; 7] = ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml", "src", "crds", "charts", "tests"];
/// No part of that.
const APART: [&str; 3] = ["tests/bench", "tests/bugs", "tests/model"];
/// No part of what unit tests rest on.
const NOT_OF_UNIT_TESTS: [&str; 2] = ["tests/e2e", "tests/remote"];

/// Which test killed which bug, each under a hash of the bug and what the kill rests on.
pub struct Kept {
    path: Option<PathBuf>,
    /// Of what unit tests rest on, and of what others do.
    sources: [u64; 2],
    killers: HashMap<String, String>,
}

impl Kept {
    /// The kills in a directory. Without one none are kept.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(directory: Option<&Path>, root: &Path) -> Result<Self, Error> {
        let path = directory.map(|directory| directory.join("killed"));
        let text = path.as_deref().filter(|path| path.exists()).map(read).transpose()?.unwrap_or_default();
        let killers = text.lines().filter_map(|line| line.split_once(' ')).map(|(hash, by)| (hash.into(), by.into()));
        let unit = [&APART[..], &NOT_OF_UNIT_TESTS].concat();
        Ok(Self { killers: killers.collect(), path, sources: [sources(root, &unit)?, sources(root, &APART)?] })
    }

    /// The test that killed this bug when everything was as it is.
    pub fn killer(&self, bug: &Bug) -> Option<String> {
        self.path.as_ref()?;
        self.killers.get(&self.hash(bug)).cloned()
    }

    /// Keeps a kill.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&mut self, bug: &Bug, by: &str) -> Result<(), Error> {
        let Some(path) = &self.path else { return Ok(()) };
        self.killers.insert(self.hash(bug), by.to_owned());
        let mut lines: Vec<String> = self.killers.iter().map(|(hash, by)| format!("{hash} {by}\n")).collect();
        lines.sort();
        write(path, &lines.concat())
    }

    fn hash(&self, bug: &Bug) -> String {
        let [unit, all] = self.sources;
        let mut hasher = DefaultHasher::new();
        (bug, if bug.test.starts_with("--lib") { unit } else { all }).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

fn sources(root: &Path, apart: &[&str]) -> Result<u64, Error> {
    let mut hasher = DefaultHasher::new();
    for path in ALL {
        add(&mut hasher, root, path, apart)?;
    }
    Ok(hasher.finish())
}

/// Adds a file, or all files of a directory.
fn add(hasher: &mut DefaultHasher, root: &Path, path: &str, apart: &[&str]) -> Result<(), Error> {
    if apart.contains(&path) {
        return Ok(());
    }
    let whole = root.join(path);
    let at = |source| Error::File { path: whole.clone(), source };
    if whole.is_dir() {
        let entries: Result<Vec<fs::DirEntry>, _> = fs::read_dir(&whole).map_err(at)?.collect();
        let mut names: Vec<_> = entries.map_err(at)?.iter().map(fs::DirEntry::file_name).collect();
        names.sort();
        names.iter().try_for_each(|name| add(hasher, root, &format!("{path}/{}", name.to_string_lossy()), apart))
    } else {
        (path, fs::read(&whole).map_err(at)?).hash(hasher);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_kill_holds_until_something_changes_that_it_rests_on() {
        let root = &std::env::temp_dir().join(format!("kills-{}", std::process::id()));
        for path in ALL {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::create_dir(root.join("tests/e2e")).unwrap();
        let bugs = crate::bugs::read().unwrap();
        let of = |tests| bugs.iter().find(|bug| bug.test.starts_with(tests)).unwrap();
        let (unit, other) = (of("--lib"), of("--test e2e"));
        let read = || Kept::read(Some(root), root).unwrap();
        let killed = |kept: &Kept| [unit, other].map(|bug| kept.killer(bug).is_some());

        read().keep(unit, "one").unwrap();
        assert_eq!(killed(&read()), [true, false]);
        read().keep(other, "another").unwrap();
        assert_eq!((read().killer(unit).as_deref(), read().killer(other).as_deref()), (Some("one"), Some("another")));

        fs::write(root.join("tests/e2e/shell.rs"), "").unwrap();
        assert_eq!(killed(&read()), [true, false]);
        fs::write(root.join("src/lib.rs"), "").unwrap();
        assert_eq!(killed(&read()), [false, false]);
        fs::remove_dir_all(root).unwrap();
    }
}
