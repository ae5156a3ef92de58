//! Why there was no connection, told from the client's errors without their text.

use std::{error::Error as StdError, io};

use thiserror::Error;

use super::address::Refused;

/// What the HTTP library says of the way to a proxy and through it. Its errors have no public type.
const TO_PROXY: [&str; 2] =
    ["tunnel error: failed to create underlying connection", "tunnel error: io error establishing tunnel"];
const PROXY_WANTS_LOGIN: &str = "tunnel error: proxy authorization required";
const BY_PROXY: &str = "tunnel error: ";

/// Why there was no connection to send a request over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConnectFailure {
    /// The name has no address.
    #[error("the host name cannot be resolved")]
    Dns,
    /// The name leads only to addresses that may not be used.
    #[error("the host name leads to an address that is not allowed (see --allow-private-addresses)")]
    AddressRefused,
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No connection within the time for it.
    #[error("no connection within the time limit")]
    TimedOut,
    /// The certificate is not from anybody trusted, expired, or for another name.
    #[error("certificate not trusted")]
    Certificate,
    /// Any other problem of TLS.
    #[error("no TLS connection")]
    Tls,
    /// The proxy answered `CONNECT`, and not that it is done.
    #[error("the proxy makes no connection to it")]
    RefusedByProxy,
    /// The proxy wants to know who asks: 407.
    #[error("the proxy wants a login, and the operator has none for it")]
    LoginForProxy,
    /// Anything else, an unreachable network for instance.
    #[error("no connection ({0})")]
    Other(io::ErrorKind),
}

impl ConnectFailure {
    /// What failed, if this error says that there was no connection.
    pub(super) fn of(error: &reqwest::Error) -> Option<Self> {
        error.is_connect().then(|| {
            if error.is_timeout() {
                return Self::TimedOut;
            }
            let (mut kind, mut dns) = (None, false);
            let mut next: Option<&(dyn StdError + 'static)> = error.source();
            while let Some(source) = next {
                if source.is::<Refused>() {
                    return Self::AddressRefused;
                }
                if let Some(tls) = source.downcast_ref::<rustls::Error>() {
                    return Self::of_tls(tls);
                }
                if let Some(io) = source.downcast_ref::<io::Error>() {
                    kind = Some(io.kind());
                    if let Some(wrapped) = io.get_ref() {
                        // Its source would be the wrapped error's source, not the wrapped error.
                        next = Some(wrapped);
                        continue;
                    }
                }
                // Nor has the connector's; this is the text it gives that stage.
                match source.to_string().as_str() {
                    "dns error" => dns = true,
                    PROXY_WANTS_LOGIN => return Self::LoginForProxy,
                    stage if stage.starts_with(BY_PROXY) && !TO_PROXY.contains(&stage) => return Self::RefusedByProxy,
                    _ => {}
                }
                next = source.source();
            }
            match kind {
                _ if dns => Self::Dns,
                Some(io::ErrorKind::ConnectionRefused) => Self::Refused,
                Some(io::ErrorKind::TimedOut) => Self::TimedOut,
                Some(kind) => Self::Other(kind),
                None => Self::Other(io::ErrorKind::Other),
            }
        })
    }

    /// Whether the proxy is what could not be reached.
    pub(super) fn is_on_the_way_to_proxy(error: &reqwest::Error) -> bool {
        let mut sources = std::iter::successors(error.source(), |source| (*source).source());
        sources.any(|source| TO_PROXY.contains(&source.to_string().as_str()))
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_) => Self::Certificate,
            _ => Self::Tls,
        }
    }
}
