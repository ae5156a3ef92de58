//! A proxy that makes the connections of others.

use std::{fmt, str::FromStr};

use reqwest::Url;
use thiserror::Error;

use super::host_and_port;

/// An HTTP proxy that knows `CONNECT`: it is told the host, and passes on bytes that it cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy(Url);

impl Proxy {
    pub(super) fn url(&self) -> Url {
        self.0.clone()
    }
}

/// Host and port.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_and_port(&self.0))
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let url = Url::parse(text).map_err(|_| ProxyError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(ProxyError::NotAUrl);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ProxyError::UserInfo);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(ProxyError::MoreThanAHost);
        }
        Ok(Self(url))
    }
}

/// Why it is no proxy. Repeats nothing: what was given may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// Not an absolute `http` or `https` URL.
    #[error("not an absolute URL of an HTTP proxy, such as http://proxy.example:3128")]
    NotAUrl,
    /// `user:password@`.
    #[error(
        "the proxy's URL must not contain a user name or password: everybody can read arguments and the environment. \
         Let the proxy know the operator by its address"
    )]
    UserInfo,
    /// A path, a query or a fragment.
    #[error("the proxy's URL must be scheme, host and port, and no more")]
    MoreThanAHost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_scheme_host_and_port_and_no_password() {
        for (text, shown) in [
            ("http://proxy.example:3128", "proxy.example:3128"),
            ("http://proxy.example", "proxy.example:80"),
            ("https://proxy.example/", "proxy.example:443"),
            ("http://[fd12::1]:3128", "[fd12::1]:3128"),
        ] {
            assert_eq!(text.parse::<Proxy>().map(|proxy| proxy.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for (text, error) in [
            ("", ProxyError::NotAUrl),
            ("proxy.example:3128", ProxyError::NotAUrl),
            ("socks5://proxy.example:1080", ProxyError::NotAUrl),
            ("http://anna:hunter2@[proxy", ProxyError::NotAUrl),
            ("http://anna:hunter2@proxy.example:3128", ProxyError::UserInfo),
            ("http://hunter2@proxy.example:3128", ProxyError::UserInfo),
            ("http://proxy.example:3128/hunter2", ProxyError::MoreThanAHost),
            ("http://proxy.example:3128?key=hunter2", ProxyError::MoreThanAHost),
            ("http://proxy.example:3128#hunter2", ProxyError::MoreThanAHost),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(error), "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
