//! The bugs.

use thiserror::Error;

/// A bug to plant, and the tests that must find it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Bug {
    /// What it does.
    pub name: String,
    /// Where, from the root of the repository.
    pub file: String,
    /// Arguments of `cargo test`, after variables of its environment.
    pub test: String,
    /// The tests do not end: that is what the bug does.
    pub hangs: bool,
    there: String,
    instead: String,
}

/// What is wrong with the list.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("bugs.txt, before line {line}: {problem}")]
    Form { line: usize, problem: &'static str },
    #[error("{name:?}: the text stands {times} times in {file}, not once")]
    Fits { name: String, file: String, times: usize },
}

impl Bug {
    /// The file with the bug in it.
    ///
    /// # Errors
    /// What is to be replaced is not there, or not only once.
    pub fn plant(&self, whole: &str) -> Result<String, Error> {
        match whole.matches(&self.there).count() {
            1 => Ok(whole.replacen(&self.there, &self.instead, 1)),
            times => Err(Error::Fits { name: self.name.clone(), file: self.file.clone(), times }),
        }
    }
}

/// All bugs.
///
/// # Errors
/// The list cannot be read.
pub fn read() -> Result<Vec<Bug>, Error> {
    parse(include_str!("../bugs.txt"))
}

/// `== name`, `file: …`, `test: …`, `hangs` where they do, then what is there, a line `->`, and what is put there. Lines before the first
/// `==` explain the list.
fn parse(text: &str) -> Result<Vec<Bug>, Error> {
    let mut bugs = Vec::new();
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !line.starts_with("== ")).peekable();
    while let Some((number, line)) = lines.next() {
        let form = |problem| Error::Form { line: number + 2, problem };
        let mut field = |name: &str, problem| {
            let line = lines.next().and_then(|(_, line)| line.strip_prefix(name));
            line.map(str::to_owned).ok_or_else(|| form(problem))
        };
        let file = field("file: ", "a line `file:` is missing")?;
        let test = field("test: ", "a line `test:` is missing")?;
        let hangs = lines.next_if(|(_, line)| *line == "hangs").is_some();
        let mut body = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("== ")) {
            body.push(line);
        }
        let body = body.join("\n");
        let (there, instead) = body.split_once("\n->").ok_or_else(|| form("a line `->` is missing"))?;
        bugs.push(Bug {
            name: line.trim_start_matches("== ").to_owned(),
            file,
            test,
            hangs,
            there: there.to_owned(),
            instead: instead.trim_start_matches('\n').trim_end_matches('\n').to_owned(),
        });
    }
    Ok(bugs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;

    #[test]
    fn every_bug_still_fits_the_code() {
        let bugs = read().unwrap();
        assert!(bugs.len() >= 30, "{}", bugs.len());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for bug in bugs {
            let whole = std::fs::read_to_string(root.join(&bug.file)).unwrap();
            assert_ne!(bug.plant(&whole).unwrap(), whole, "{}", bug.name);
        }
    }

    #[test]
    fn a_list_is_read_and_what_does_not_fit_is_told() {
        let text =
            "words\n== one\nfile: f\ntest: --lib x\na\n b\n->\nc\n\n== two\nfile: g\ntest: A=1 t\nhangs\nd\n->\n";
        let bugs = parse(text).unwrap();
        assert_eq!((bugs.len(), bugs[0].test.as_str(), bugs[0].hangs), (2, "--lib x", false));
        assert_eq!((bugs[1].test.as_str(), bugs[1].hangs), ("A=1 t", true));
        assert_eq!(bugs[0].plant("x a\n b y").unwrap(), "x c y");
        assert_eq!(bugs[1].plant("d").unwrap(), "");
        assert!(matches!(bugs[1].plant("dd"), Err(Error::Fits { times: 2, .. })));
        assert_eq!(
            parse("== one\nfile: f\nx").unwrap_err().to_string(),
            "bugs.txt, before line 2: a line `test:` is missing"
        );
    }
}
