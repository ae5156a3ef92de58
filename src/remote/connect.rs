//! Why there was no connection, told from the client's errors without their text.

use std::{error::Error as StdError, io};

use thiserror::Error;

use super::address::Refused;

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
                // The connector's error has no public type; this is the text it gives that stage.
                dns |= source.to_string() == "dns error";
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

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(_) => Self::Certificate,
            _ => Self::Tls,
        }
    }
}
