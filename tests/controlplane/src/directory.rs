//! The directory of one control plane.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

/// Directories among the temporary files begin so.
const PREFIX: &str = "toolzz-control-plane-";
/// Held by the owner of the directory while it lives.
const LOCK: &str = "lock";
/// A directory this young may be about to be locked by its owner.
const SETTLED: Duration = Duration::from_secs(60);
/// A helm or kubectl of a test may be writing yet when the directory goes.
const REMOVALS: u32 = 5;

/// Removed when dropped, unless it is to be kept.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    keep: bool,
    _lock: File,
}

impl Directory {
    /// The given directory, which has to be absent or empty, or a new one among the temporary files.
    pub(crate) fn create(given: Option<&Path>, keep: bool) -> io::Result<Self> {
        let path = match given {
            Some(path) => {
                fs::create_dir_all(path)?;
                if fs::read_dir(path)?.next().is_some() {
                    return Err(io::Error::new(
                        io::ErrorKind::DirectoryNotEmpty,
                        "not empty: name a directory that is absent or empty",
                    ));
                }
                // The servers run in it and their arguments name files in it.
                fs::canonicalize(path)?
            }
            None => {
                remove_abandoned(&std::env::temp_dir());
                tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep()
            }
        };
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock()?;
        let directory = Self { path, keep, _lock: lock };
        for name in ["home", "logs", "pki"] {
            fs::create_dir(directory.path.join(name))?;
        }
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            if self.keep || fs::remove_dir_all(&self.path).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Removes the directories whose owner was killed before it could. A best effort: those of other users stay.
fn remove_abandoned(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && is_settled(&path.join(LOCK)) && File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn is_settled(lock: &Path) -> bool {
    let modified = fs::metadata(lock).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > SETTLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_directories_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, age: Duration| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            let lock = File::create(path.join(LOCK)).unwrap();
            lock.set_modified(SystemTime::now() - age).unwrap();
            (path, lock)
        };
        let hour = Duration::from_secs(3600);
        let (abandoned, _) = make("toolzz-control-plane-abandoned", hour);
        let (alive, lock) = make("toolzz-control-plane-alive", hour);
        lock.try_lock().unwrap();
        let (young, _) = make("toolzz-control-plane-young", Duration::ZERO);
        let (foreign, _) = make("foreign", hour);

        remove_abandoned(folder.path());

        assert!(!abandoned.exists());
        assert!(alive.exists() && young.exists() && foreign.exists());
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis"), "years of work").unwrap();
        Directory::create(Some(folder.path()), false).unwrap_err();
        assert!(folder.path().join("thesis").exists());
    }
}
