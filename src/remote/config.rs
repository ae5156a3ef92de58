//! What a connection is made from, and what of it is refused.

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::{Url, dns::Resolve, header};
use thiserror::Error;

use super::{
    Proxy, Tenure,
    address::{Addresses, Checked, SystemResolver},
};

/// Time to make a connection, so that a host that does not answer at all is told from a lost answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Kept shorter than servers usually keep theirs: a request on a connection just closed is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The most that is read of a listing: some 50,000 rows.
const LISTING_LIMIT: usize = 64 << 20;

/// How to reach one account at Toolzz. Not printable: a URL not checked yet may hold a password.
#[derive(Clone)]
pub struct Config {
    /// With the path and without a slash at the end: `https://chat.api.toolzz.com.br/api/v1`.
    pub base_url: String,
    /// For a request and its answer, to the last byte of the body. Waiting for the rate limit does not count.
    pub request_timeout: Duration,
    /// Requests per second; `None`: no limit of ours.
    pub rate_limit: Option<std::num::NonZeroU32>,
    /// Among how many the rate limit is divided.
    pub shares: std::num::NonZeroU16,
    /// `http://` also where it is not loopback.
    pub allow_insecure_http: bool,
    /// Hosts (`name` or `name:port`) the URL may have; empty: any. Who configures the operator may
    /// have any host: the list is for the URLs of tenants.
    pub allowed_hosts: Vec<String>,
    /// Which addresses the host may have.
    pub addresses: Addresses,
    /// What resolves names where addresses are checked; any other than the default is for tests.
    pub resolver: Arc<dyn Resolve>,
    /// What the connection goes through, where the host may have any address: see [`Self::by_proxy`].
    pub proxy: Option<Proxy>,
    /// Sent as `User-Agent`.
    pub user_agent: String,
    /// How long the integrations are kept once read; a failure is kept for a tenth of it.
    pub catalogue_ttl: Duration,
    /// Between the first probes of a refused connection; doubles up to five minutes.
    pub probe_interval: Duration,
    /// The most that is read of a listing, in bytes.
    pub listing_limit: usize,
    /// Until when this process may write.
    pub tenure: Tenure,
    /// PEM certificates to trust beside those of the system.
    pub ca_bundle: Option<Vec<u8>>,
}

impl Config {
    /// The defaults for this URL: 30 s per request, no rate limit, HTTPS only, any host.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            request_timeout: Duration::from_secs(30),
            rate_limit: None,
            shares: std::num::NonZeroU16::MIN,
            allow_insecure_http: false,
            allowed_hosts: Vec::new(),
            addresses: Addresses::Any,
            resolver: Arc::new(SystemResolver),
            proxy: None,
            user_agent: concat!("toolzz-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
            catalogue_ttl: Duration::from_secs(600),
            probe_interval: Duration::from_secs(5),
            listing_limit: LISTING_LIMIT,
            tenure: Tenure::unlimited(),
            ca_bundle: None,
        }
    }

    /// The proxy, where the operator need not see which address the host has: a proxy would choose it.
    pub fn by_proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| self.addresses == Addresses::Any)
    }

    /// The URL, if it is one that may be used.
    ///
    /// # Errors
    /// Says what is wrong with it, without repeating what may be a password.
    pub fn checked_url(&self) -> Result<Url, ConfigError> {
        let url = Url::parse(&self.base_url).map_err(|_| ConfigError::NotAUrl)?;
        let host = match (url.scheme(), url.host_str()) {
            ("http" | "https", Some(host)) => host,
            _ => return Err(ConfigError::NotAUrl),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ConfigError::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ConfigError::QueryOrFragment);
        }
        if url.scheme() == "http" && !self.allow_insecure_http && !is_loopback(host) {
            return Err(ConfigError::Insecure { host: host.to_owned() });
        }
        if url.scheme() == "http" && self.by_proxy().is_some() {
            return Err(ConfigError::InsecureByProxy);
        }
        let at = host_and_port(&url);
        let allowed = |entry: &String| entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(&at);
        if !self.allowed_hosts.is_empty() && !self.allowed_hosts.iter().any(allowed) {
            return Err(ConfigError::HostNotAllowed { host: host.to_owned() });
        }
        // The parser turns every way of writing an IPv4 address into the usual one.
        if let Some(address) = literal(host)
            && !self.addresses.permit(address)
            && !self.allowed_hosts.iter().any(allowed)
        {
            return Err(ConfigError::AddressNotAllowed { address });
        }
        Ok(url)
    }

    /// Host and port of the URL.
    ///
    /// # Errors
    /// It is not one that may be used.
    pub fn host_and_port(&self) -> Result<String, ConfigError> {
        self.checked_url().map(|url| host_and_port(&url))
    }

    pub(super) fn http_client(&self, url: &Url) -> Result<reqwest::Client, ConfigError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // The HTTP library would panic.
            return Err(ConfigError::NoCryptoProvider);
        }
        let mut headers = header::HeaderMap::new();
        headers.insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            // What is sent again, and when, is decided elsewhere.
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT.min(self.request_timeout / 2))
            .pool_idle_timeout(IDLE_TIMEOUT);
        if self.addresses != Addresses::Any {
            builder = builder.dns_resolver(Checked { addresses: self.addresses, resolver: Arc::clone(&self.resolver) });
        }
        let client = |source| ConfigError::Client { source: Arc::new(source) };
        if let Some(proxy) = self.by_proxy() {
            builder = builder.proxy(reqwest::Proxy::https(proxy.url()).map_err(client)?);
        }
        builder = if url.scheme() == "http" {
            // No TLS at all then: must work also where the system has no root certificates.
            builder.tls_certs_only([])
        } else {
            let bundle = self.ca_bundle.as_deref().unwrap_or_default();
            let extra = reqwest::Certificate::from_pem_bundle(bundle).map_err(|_| ConfigError::BadCaBundle)?;
            if self.ca_bundle.is_some() && extra.is_empty() {
                return Err(ConfigError::BadCaBundle);
            }
            builder.https_only(true).tls_certs_merge(extra)
        };
        builder.build().map_err(client)
    }
}

/// Host and port, the port also where it is the scheme's own.
pub(super) fn host_and_port(url: &Url) -> String {
    // A name with a dot at its end is the same.
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}

/// The address, where a URL's host is one.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || literal(host).is_some_and(|address| address.is_loopback())
}

/// Why there can be no connection of this configuration.
#[derive(Clone, Debug, Error)]
pub enum ConfigError {
    /// Not an absolute `http` or `https` URL.
    #[error("the API URL is not an absolute https:// URL")]
    NotAUrl,
    /// `user:password@`.
    #[error("the API URL must not contain a user name or password: the token goes into its own Secret or file")]
    UserInfo,
    /// `?…` or `#…`.
    #[error("the API URL must not have a query or fragment")]
    QueryOrFragment,
    /// `http://` elsewhere than on loopback.
    #[error(
        "the API URL must begin with https://: the token and all key material would be readable on the way to {host} (see --allow-insecure-http)"
    )]
    Insecure {
        /// The host.
        host: String,
    },
    /// `http://` through a proxy.
    #[error(
        "with --api-proxy the API URL must begin with https://: the proxy would read the token and all key material"
    )]
    InsecureByProxy,
    /// Not on the list.
    #[error("the host {host} is not among the allowed hosts (see --allowed-hosts)")]
    HostNotAllowed {
        /// The host.
        host: String,
    },
    /// Loopback, private, link-local or the like.
    #[error("{address} is not an address of the public Internet (see --allowed-hosts and --allow-private-addresses)")]
    AddressNotAllowed {
        /// The address.
        address: IpAddr,
    },
    /// Neither readable nor at least one certificate.
    #[error("the CA bundle holds no readable PEM certificate")]
    BadCaBundle,
    /// The process installed none.
    #[error("no TLS provider is installed in this process")]
    NoCryptoProvider,
    /// Anything else the HTTP library refuses; usually that there are no root certificates at all.
    #[error(
        "no HTTPS client: does the system have root certificates (SSL_CERT_FILE or SSL_CERT_DIR names them), or is a CA bundle given?"
    )]
    Client {
        /// What it says; about this process only.
        source: Arc<reqwest::Error>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(url: &str, change: impl FnOnce(&mut Config)) -> Result<String, String> {
        let mut config = Config::new(url);
        change(&mut config);
        config.checked_url().map(|url| url.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_urls_that_keep_the_token_safe_are_taken() {
        for url in [
            "https://chat.api.toolzz.com.br/api/v1",
            "http://127.0.0.1:8080/api/v1",
            "http://[::1]:8080",
            "http://localhost",
        ] {
            assert!(checked(url, |_| {}).is_ok(), "{url}");
        }
        for (url, word) in [
            ("", "absolute"),
            ("chat.api.toolzz.com.br", "absolute"),
            ("ftp://chat.api.toolzz.com.br", "absolute"),
            ("https://anna:hunter2@api.example", "user name"),
            ("https://hunter2@api.example", "user name"),
            ("https://api.example?token=hunter2", "query"),
            ("https://api.example#hunter2", "fragment"),
            ("http://api.example", "https://"),
            ("http://127.0.0.1.api.example", "https://"),
            ("http://localhost.api.example", "https://"),
        ] {
            let error = checked(url, |_| {}).unwrap_err();
            assert!(error.contains(word) && !error.contains("hunter2"), "{url}: {error}");
        }
        assert!(checked("http://api.example", |config| config.allow_insecure_http = true).is_ok());
    }

    #[test]
    fn a_proxy_gets_what_it_cannot_read_and_no_choice_of_addresses() {
        let by_proxy = |addresses| {
            move |config: &mut Config| {
                config.proxy = Some("http://proxy.example:3128".parse().unwrap());
                config.allow_insecure_http = true;
                config.addresses = addresses;
            }
        };
        assert!(checked("https://api.example", by_proxy(Addresses::Any)).is_ok());
        for url in ["http://api.example", "http://127.0.0.1:8080"] {
            let error = checked(url, by_proxy(Addresses::Any)).unwrap_err();
            assert!(error.contains("--api-proxy"), "{url}: {error}");
        }
        for addresses in [Addresses::Public, Addresses::PublicAndPrivate] {
            assert!(checked("http://api.example", by_proxy(addresses)).is_ok(), "it is no proxy's");
        }
    }

    #[test]
    fn a_list_of_hosts_is_obeyed() {
        for (entry, url, allowed) in [
            ("api.example", "https://API.example/v1", true),
            ("api.example", "https://api.example:8443/v1", true),
            ("api.example:443", "https://api.example/v1", true),
            ("api.example:443", "https://api.example:8443/v1", false),
            ("example", "https://api.example", false),
            ("api.example", "https://api.example.evil", false),
        ] {
            let result = checked(url, |config| config.allowed_hosts = vec![entry.to_owned()]);
            assert_eq!(result.is_ok(), allowed, "{entry} {url}");
        }
    }

    #[test]
    fn an_address_in_a_url_must_be_public_or_on_the_list() {
        let public = |list: &'static [&'static str]| {
            move |config: &mut Config| {
                config.addresses = Addresses::Public;
                config.allow_insecure_http = true;
                config.allowed_hosts = list.iter().map(|entry| (*entry).to_owned()).collect();
            }
        };
        for url in [
            "https://127.0.0.1/v1",
            "https://127.1",
            "https://2130706433",
            "https://0x7f.0.0.1",
            "https://0177.0.0.1",
            "https://127.0.0.1.",
            "https://１２７.0.0.1",
            "https://[::1]",
            "https://[::ffff:127.0.0.1]",
            "https://[::ffff:7f00:1]",
            "https://169.254.169.254",
            "https://[fe80::1]",
            "https://10.0.0.1",
            "http://0.0.0.0:8080",
        ] {
            let error = checked(url, public(&[])).unwrap_err();
            assert!(error.contains("public Internet"), "{url}: {error}");
            let error = checked(url, public(&["api.example"])).unwrap_err();
            assert!(error.contains("not among"), "{url}: {error}");
        }
        assert!(checked("https://1.1.1.1/v1", public(&[])).is_ok());
        assert!(checked("http://127.0.0.1:8080/v1", public(&["127.0.0.1"])).is_ok());
        assert!(checked("http://127.0.0.1:8080/v1", public(&["127.0.0.1:8080"])).is_ok());
        assert!(checked("http://[::1]:8080/v1", public(&["[::1]"])).is_ok());
        assert!(checked("http://127.0.0.1:8081/v1", public(&["127.0.0.1:8080"])).is_err());
    }
}
