//! A name that leads where a connection may not go gets nothing.

use std::sync::Arc;

use toolzz_operator::remote::{Addresses, Clock, Config, ConnectFailure, Connection, NotDone, Outcome, TokenSource};
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

#[tokio::test]
async fn ssrf_a_name_that_leads_to_loopback_gets_nothing() {
    let simulator = Simulator::start();
    match by_name(&simulator, Addresses::Public).list(&key()).await {
        Outcome::NotDone(NotDone::Unreachable { failure: ConnectFailure::AddressRefused, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(simulator.journal().is_empty());
    for addresses in [Addresses::PublicAndPrivate, Addresses::Any] {
        done(by_name(&simulator, addresses).list(&key()).await);
    }
}
