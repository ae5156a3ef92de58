//! An HTTP client for what stands beside the operator: its own health, a collector.

use reqwest::{Client, ClientBuilder, redirect::Policy};

/// A client that asks the one who is named here: by no proxy, and whoever is meant instead is not followed to.
pub fn direct_client(url: &str) -> ClientBuilder {
    let client = Client::builder().no_proxy().redirect(Policy::none());
    // No TLS at all then: works also where the system has no root certificates.
    if url.starts_with("http://") { client.tls_certs_only([]) } else { client }
}
