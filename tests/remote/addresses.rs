//! A name that leads where a connection may not go gets nothing.

use std::{
    error::Error,
    fmt::Debug,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use toolzz_operator::remote::{
    Addresses, Clock, Config, ConfigError, ConnectFailure, Connection, NotDone, Outcome, TokenSource,
};
use toolzz_simulator::{DEFAULT_TOKEN, Simulator};

use crate::support::*;

/// A connection to the simulator by the name `localhost`, which leads to loopback.
fn by_name(simulator: &Simulator, addresses: Addresses) -> Connection {
    install_tls();
    let url = format!("http://localhost:{}/api/v1", simulator.address().port());
    let config = Config { addresses, allowed_hosts: vec!["localhost".to_owned()], ..Config::new(url) };
    let token = TokenSource::fixed(DEFAULT_TOKEN.into());
    Connection::new(config, token, Clock::start(), Arc::new(Recorder::default())).unwrap()
}

fn assert_address_refused<T: Debug>(outcome: Outcome<T>) {
    match outcome {
        Outcome::NotDone(NotDone::Unreachable { failure: ConnectFailure::AddressRefused, .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// Answers with loopback once, and from then on with one that is kept for documentation, which is nobody's.
#[derive(Default)]
struct Changing(AtomicUsize);

impl Resolve for Changing {
    fn resolve(&self, _: Name) -> Resolving {
        let address = match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Ipv4Addr::LOCALHOST,
            _ => Ipv4Addr::new(192, 0, 2, 1),
        };
        let found = std::iter::once(SocketAddr::from((address, 0)));
        Box::pin(async move { Ok::<Addrs, Box<dyn Error + Send + Sync>>(Box::new(found)) })
    }
}

#[tokio::test]
async fn cve_2020_8562_a_name_that_answers_otherwise_the_second_time_leads_nowhere_else() {
    install_tls();
    let simulator = Simulator::start();
    let names = Arc::new(Changing::default());
    // Each has a client of its own, without an open connection.
    let connection = || {
        let url = format!("http://toolzz.example:{}/api/v1", simulator.address().port());
        let config = Config {
            addresses: Addresses::PublicAndPrivate,
            allow_insecure_http: true,
            resolver: Arc::clone(&names) as _,
            ..Config::new(url)
        };
        let token = TokenSource::fixed(DEFAULT_TOKEN.into());
        Connection::new(config, token, Clock::start(), Arc::new(Recorder::default())).unwrap()
    };
    done(connection().list(&key()).await);
    assert_eq!(names.0.load(Ordering::SeqCst), 1, "what was checked is what is connected to");
    let journal = simulator.journal().len();
    assert_address_refused(connection().list(&key()).await);
    assert_eq!(simulator.journal().len(), journal);
}

#[tokio::test]
async fn a_name_on_the_list_that_leads_to_loopback_gets_nothing() {
    let simulator = Simulator::start();
    assert_address_refused(by_name(&simulator, Addresses::Public).list(&key()).await);
    assert!(simulator.journal().is_empty());
    for addresses in [Addresses::PublicAndPrivate, Addresses::Any] {
        done(by_name(&simulator, addresses).list(&key()).await);
    }
}

/// What becomes of a connection to this host, as a URL may name it.
fn of_host(host: &str, addresses: Addresses) -> Result<Connection, ConfigError> {
    install_tls();
    let url = format!("http://{host}/api/v1");
    let config = Config { addresses, allow_insecure_http: true, ..Config::new(url) };
    Connection::new(config, TokenSource::fixed("t".into()), Clock::start(), Arc::new(Recorder::default()))
}

fn is_refused(host: &str, addresses: Addresses) -> bool {
    matches!(of_host(host, addresses), Err(ConfigError::AddressNotAllowed { .. }))
}

#[test]
fn cve_2026_32828_where_clouds_give_out_credentials_no_connection_leads_also_with_private_addresses() {
    for host in ["169.254.169.254", "169.254.170.2", "100.100.100.200", "[fd00:ec2::254]", "[fe80::1]", "0xa9fea9fe"] {
        assert!(is_refused(host, Addresses::PublicAndPrivate), "{host}");
        assert!(is_refused(host, Addresses::Public), "{host}");
    }
    assert!(of_host("10.0.0.1", Addresses::PublicAndPrivate).is_ok());
}

#[test]
fn ghsa_7h65_4p22_39j6_an_ipv4_address_written_as_ipv6_is_never_public() {
    for inner in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"] {
        let bits = u32::from(inner.parse::<Ipv4Addr>().unwrap());
        let (high, low) = (bits >> 16, bits & 0xffff);
        for outer in [
            format!("::ffff:{inner}"),
            format!("::{inner}"),
            format!("64:ff9b::{inner}"),
            format!("2002:{high:x}:{low:x}::1"),
        ] {
            let address: IpAddr = outer.parse().unwrap();
            assert!(!Addresses::Public.permit(address), "{outer}");
            assert!(is_refused(&format!("[{outer}]"), Addresses::Public), "{outer}");
            let anywhere_private = Addresses::PublicAndPrivate.permit(address);
            assert!(!anywhere_private || !inner.starts_with("169.254"), "{outer}");
        }
    }
}
