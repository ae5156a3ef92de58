//! Who is trusted: the system's certificates and those of the bundle, nobody else.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use toolzz_operator::remote::{Clock, Config, ConfigError, ConnectFailure, Connection, TokenSource};
use toolzz_simulator::Simulator;

use crate::support::*;

/// A certificate of its own making for `localhost`: for who has it, and for who is to trust it.
pub fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    install_tls();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), made.cert.pem())
}

/// Answers every request with an empty listing, over TLS with a certificate of its own making. Ends with the process.
fn tls_server() -> (SocketAddr, String) {
    let (config, pem) = certificate();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(session, stream);
            let mut request = [0; 4096];
            // Fails where the certificate is not trusted: that is what it is for.
            if tls.read(&mut request).is_ok() {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n[]");
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    (address, pem)
}

fn connection(url: String, bundle: Option<String>) -> Result<Connection, ConfigError> {
    let mut config = Config::new(url);
    config.ca_bundle = bundle.map(String::into_bytes);
    Connection::new(config, TokenSource::fixed("t".into()), Clock::start(), Arc::new(Recorder::default()))
}

#[tokio::test]
async fn a_certificate_is_trusted_by_the_bundle_only() {
    let (address, pem) = tls_server();
    let (_, strangers) = tls_server();
    let url = |host: &str| format!("https://{host}:{}/api/v1", address.port());
    let trusting = connection(url("localhost"), Some(pem.clone())).unwrap();
    assert!(done(trusting.list(&key()).await).rows.is_empty());
    // The bundle of somebody else, so that the test needs no system certificates.
    let other = connection(url("localhost"), Some(strangers)).unwrap();
    assert_eq!(unreachable(&other).await, ConnectFailure::Certificate);
    let other_name = connection(url("127.0.0.1"), Some(pem)).unwrap();
    assert_eq!(unreachable(&other_name).await, ConnectFailure::Certificate);
}

#[tokio::test]
async fn plain_http_on_an_https_port_is_no_tls_connection() {
    let simulator = Simulator::start();
    let (_, pem) = tls_server();
    let connection = connection(format!("https://{}", simulator.address()), Some(pem)).unwrap();
    assert_eq!(unreachable(&connection).await, ConnectFailure::Tls);
    assert!(simulator.journal().is_empty());
}

#[test]
fn a_bundle_without_certificates_is_refused() {
    install_tls();
    for bundle in ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let result = connection("https://localhost".to_owned(), Some(bundle.to_owned()));
        assert!(result.is_err(), "{bundle:?}");
    }
}
