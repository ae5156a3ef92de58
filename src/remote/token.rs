//! The bearer token: fixed, or read from a file that may change at any time.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// More than any token; a file of more is some other file.
const MAX_BYTES: u64 = 64 << 10;

/// Where a token comes from. It can be named, and its token neither printed nor serialised:
///
/// ```
/// let token = toolzz_operator::remote::TokenSource::fixed("hidden".to_owned().into());
/// assert!(!format!("{token} {token:?}").contains("hidden"));
/// ```
/// ```compile_fail,E0277
/// fn write(token: toolzz_operator::remote::TokenSource) { let _ = serde_json::to_string(&token); }
/// ```
pub struct TokenSource {
    origin: Origin,
    known: Mutex<Known>,
}

enum Origin {
    Fixed(SecretString),
    File(PathBuf),
}

/// What the last look found.
struct Known {
    found: Option<Result<SecretString, TokenError>>,
    generation: u64,
}

/// A token as it is now.
pub(super) struct Token {
    /// `Bearer <token>`, marked sensitive.
    pub(super) header: HeaderValue,
    /// Goes up with every change.
    pub(super) generation: u64,
}

/// There is no token to send. Names the file, never its content.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("the token file {path} cannot be read: {kind}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// Nothing, or only white space.
    #[error("{origin} is empty")]
    Empty {
        /// The file, or "the token".
        origin: String,
    },
    /// Not something a header can carry.
    #[error("{origin} holds no token: only visible ASCII characters, on one line, make one")]
    Malformed {
        /// The file, or "the token".
        origin: String,
    },
}

impl TokenSource {
    /// This token, for good.
    pub fn fixed(token: SecretString) -> Self {
        Self::new(Origin::Fixed(token))
    }

    /// The content of this file, without white space around it; read again at every use.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Origin::File(path.into()))
    }

    fn new(origin: Origin) -> Self {
        Self { origin, known: Mutex::new(Known { found: None, generation: 0 }) }
    }

    /// The token as it is now. A file is a few dozen bytes in memory or in the page cache: reading
    /// it each time is cheaper than any doubt about modification times.
    pub(super) fn current(&self) -> Result<Token, TokenError> {
        let found = self.look();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.is(&found) {
            known.generation += 1;
            known.found = Some(found.clone());
        }
        let generation = known.generation;
        drop(known);
        Ok(Token { header: self.header(&found?)?, generation })
    }

    /// Goes up with every change, also from or to having none.
    pub(super) fn generation(&self) -> u64 {
        // An error is remembered as well and changes the generation.
        let _ = self.current();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).generation
    }

    fn look(&self) -> Result<SecretString, TokenError> {
        let path = match &self.origin {
            Origin::Fixed(token) => return self.checked(token.expose_secret().trim()),
            Origin::File(path) => path,
        };
        let mut content = Zeroizing::new(Vec::new());
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
            .map_err(|error| TokenError::Unreadable { path: path.display().to_string(), kind: error.kind() })?;
        let text = str::from_utf8(&content).map_err(|_| self.malformed())?;
        self.checked(text.trim())
    }

    fn checked(&self, token: &str) -> Result<SecretString, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Empty { origin: self.to_string() });
        }
        if token.len() as u64 > MAX_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.malformed());
        }
        Ok(token.into())
    }

    fn malformed(&self) -> TokenError {
        TokenError::Malformed { origin: self.to_string() }
    }

    fn header(&self, token: &SecretString) -> Result<HeaderValue, TokenError> {
        let mut text = format!("Bearer {}", token.expose_secret());
        let header = HeaderValue::from_str(&text);
        text.zeroize();
        let mut header = header.map_err(|_| self.malformed())?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl Known {
    fn is(&self, found: &Result<SecretString, TokenError>) -> bool {
        match (&self.found, found) {
            (Some(Ok(known)), Ok(found)) => known.expose_secret() == found.expose_secret(),
            (Some(Err(known)), Err(found)) => known == found,
            _ => false,
        }
    }
}

/// Where the token comes from, never the token.
impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Fixed(_) => f.write_str("the token"),
            Origin::File(path) => write!(f, "the token file {}", path.display()),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSource({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_token() {
        for (text, good) in [("t0k.en", true), (" t0k.en\n", true), ("", false), (" \n", false), ("a b", false)] {
            let source = TokenSource::fixed(text.into());
            assert_eq!(source.current().is_ok(), good, "{text:?}");
            assert!(!format!("{source:?}").contains("t0k"));
        }
    }

    #[test]
    fn a_file_is_read_again_and_a_problem_names_it() {
        let path = std::env::temp_dir().join(format!("toolzz-token-{}", std::process::id()));
        let source = TokenSource::file(&path);
        let Err(missing) = source.current() else { panic!("there is no file") };
        assert!(missing.to_string().contains(path.to_str().unwrap()), "{missing}");
        let none = source.generation();

        std::fs::write(&path, "first\n").unwrap();
        let first = source.current().unwrap();
        assert!(first.generation > none);
        assert_eq!(first.header.to_str().unwrap(), "Bearer first");
        assert!(first.header.is_sensitive());
        assert_eq!(source.generation(), first.generation, "an unchanged file is no change");

        std::fs::write(&path, "second").unwrap();
        assert!(source.current().unwrap().generation > first.generation);
        std::fs::write(&path, "two lines\n of it").unwrap();
        let Err(malformed) = source.current() else { panic!("no token") };
        assert!(!malformed.to_string().contains("lines\n"), "{malformed}");
        std::fs::remove_file(&path).unwrap();
    }
}
