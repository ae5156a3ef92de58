//! A connection that goes through an HTTP proxy.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use secrecy::SecretString;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use toolzz_operator::{
    api::Reason,
    remote::{Addresses, Config, ConnectFailure, Connection, NotDone, Outcome, TokenSource},
};
use toolzz_simulator::{DEFAULT_TOKEN, Simulator};

use crate::{support::*, tls::certificate};

/// What a proxy says and nobody may repeat.
const PROXYS_TEXT: &str = "proxys-text-31c7";

/// Where something listens that gives every connection to `serve`.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A connection that breaks is the other side's to tell of.
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Something that speaks TLS for the one at this address: where it listens, and the certificate to trust.
async fn tls_before(inner: SocketAddr) -> (SocketAddr, String) {
    let (config, pem) = certificate();
    let acceptor = TlsAcceptor::from(config);
    let serve = move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut outer = acceptor.accept(stream).await?;
            copy_bidirectional(&mut outer, &mut TcpStream::connect(inner).await?).await.map(drop)
        }
    };
    (listen(serve).await, pem)
}

/// What came to a proxy before it passed on bytes: the head of each request.
type Asked = Arc<Mutex<Vec<String>>>;

/// A proxy that makes the connections it is asked for, or answers with this instead.
async fn proxy(answer: Option<String>) -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let journal = Arc::clone(&asked);
    let serve = move |mut stream: TcpStream| {
        let (journal, answer) = (Arc::clone(&journal), answer.clone());
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            journal.lock().unwrap().push(head);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await,
                None => {
                    let mut outer = TcpStream::connect(target).await?;
                    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                    copy_bidirectional(&mut stream, &mut outer).await.map(drop)
                }
            }
        }
    };
    (listen(serve).await, asked)
}

/// To what speaks TLS on this port of `localhost`, through this proxy.
fn through(proxy: &str, port: u16, pem: &str, simulator: &Simulator) -> Connection {
    connect_with(simulator, TokenSource::fixed(SecretString::from(DEFAULT_TOKEN)), |config: &mut Config| {
        config.base_url = format!("https://localhost:{port}/api/v1");
        config.ca_bundle = Some(pem.as_bytes().to_vec());
        config.proxy = Some(proxy.parse().unwrap());
        config.request_timeout = 10 * SHORT;
    })
    .0
}

#[tokio::test]
async fn a_create_goes_through_the_proxy_which_sees_the_host_and_nothing_else() {
    let simulator = Simulator::start();
    let (tls, pem) = tls_before(simulator.address()).await;
    let (proxy, asked) = proxy(None).await;
    let connection = through(&format!("http://{proxy}"), tls.port(), &pem, &simulator);
    let row = done(create(&connection, "n").await);
    assert_eq!(row.fields.name, "n");
    assert_eq!(simulator.posts(), 1);
    let asked = asked.lock().unwrap();
    let [head] = asked.as_slice() else { panic!("{asked:?}") };
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", tls.port())), "{head}");
    let names: Vec<String> =
        head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_lowercase())).collect();
    assert_eq!(names, ["host", "user-agent"]);
}

#[tokio::test]
async fn to_a_proxy_itself_one_may_speak_tls() {
    let simulator = Simulator::start();
    let (tls, pem) = tls_before(simulator.address()).await;
    let (plain, asked) = proxy(None).await;
    let (outer, proxys_pem) = tls_before(plain).await;
    let url = format!("https://localhost:{}", outer.port());
    done(create(&through(&url, tls.port(), &format!("{pem}{proxys_pem}"), &simulator), "n").await);
    assert_eq!((simulator.posts(), asked.lock().unwrap().len()), (1, 1));

    // One that nobody trusts gets no request.
    let stranger = through(&url, tls.port(), &pem, &simulator);
    assert_eq!(unreachable(&stranger).await, ConnectFailure::Certificate);
    assert!(told(&stranger).await.contains(&format!("the proxy localhost:{} cannot be reached", outer.port())));
    assert_eq!((simulator.posts(), asked.lock().unwrap().len()), (1, 1));
}

/// What is said of a create that came to nothing, which is tried again.
async fn told(connection: &Connection) -> String {
    match create(connection, "n").await {
        Outcome::NotDone(why @ NotDone::Unreachable { .. }) => {
            assert_eq!(why.reason(), Reason::ApiUnavailable);
            format!("{why} {why:?}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn where_the_proxy_makes_no_connection_nothing_is_sent_and_its_answer_is_not_repeated() {
    let simulator = Simulator::start();
    let (tls, pem) = tls_before(simulator.address()).await;
    let answer = |status: &str| {
        let body = format!("{{\"message\":\"{PROXYS_TEXT}\"}}");
        let headers = format!("proxy-authenticate: Basic realm=\"{PROXYS_TEXT}\"\r\nretry-after: 60");
        Some(format!("HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    };
    let refused = ConnectFailure::RefusedByProxy;
    for (answer, failure) in [
        (answer(&format!("407 {PROXYS_TEXT}")), ConnectFailure::LoginForProxy),
        (answer(&format!("403 {PROXYS_TEXT}")), refused),
        (answer("429 Too Many Requests"), refused),
        (answer("502 Bad Gateway"), refused),
        (answer("503 Service Unavailable"), refused),
        (Some(format!("{PROXYS_TEXT}\r\n\r\n")), refused),
        (Some(String::new()), refused),
    ] {
        let (proxy, asked) = proxy(answer).await;
        let connection = through(&format!("http://{proxy}"), tls.port(), &pem, &simulator);
        assert_eq!(unreachable(&connection).await, failure);
        let told = told(&connection).await;
        let place = format!("localhost:{} (through the proxy {proxy}) cannot be reached: the proxy ", tls.port());
        assert!(told.contains(&place) && !told.contains(PROXYS_TEXT), "{told}");
        assert!(!asked.lock().unwrap().is_empty());
    }
    assert!(simulator.journal().is_empty(), "{:?}", simulator.journal());
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_silent_is_named() {
    let simulator = Simulator::start();
    let (tls, pem) = tls_before(simulator.address()).await;
    let gone = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let connection = through(&format!("http://{gone}"), tls.port(), &pem, &simulator);
    assert_eq!(unreachable(&connection).await, ConnectFailure::Refused);
    let told = told(&connection).await;
    assert!(told.starts_with(&format!("create: the proxy {gone} cannot be reached: connection refused")), "{told}");

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let connection = through(&format!("http://{address}"), tls.port(), &pem, &simulator);
    let Outcome::NotDone(why) = create(&connection, "n").await else { panic!("nothing was sent") };
    assert!(
        why.to_string()
            .ends_with(&format!("(through the proxy {address}) cannot be reached: {}", ConnectFailure::TimedOut)),
        "{why}"
    );
    assert!(simulator.journal().is_empty());
}

#[tokio::test]
async fn what_is_behind_the_proxy_has_to_show_its_own_certificate() {
    let simulator = Simulator::start();
    let (tls, _) = tls_before(simulator.address()).await;
    let (_, strangers) = certificate();
    let (proxy, asked) = proxy(None).await;
    let connection = through(&format!("http://{proxy}"), tls.port(), &strangers, &simulator);
    assert_eq!(unreachable(&connection).await, ConnectFailure::Certificate);
    assert!(told(&connection).await.contains(&format!("localhost:{} (through the proxy {proxy})", tls.port())));
    assert!(simulator.journal().is_empty() && !asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ssrf_where_the_address_is_to_be_checked_no_proxy_chooses_it() {
    let simulator = Simulator::start();
    let (tls, pem) = tls_before(simulator.address()).await;
    let (proxy, asked) = proxy(None).await;
    let by_name = |addresses| {
        let token = TokenSource::fixed(SecretString::from(DEFAULT_TOKEN));
        let change = |config: &mut Config| {
            config.base_url = format!("https://localhost:{}/api/v1", tls.port());
            config.ca_bundle = Some(pem.as_bytes().to_vec());
            config.proxy = Some(format!("http://{proxy}").parse().unwrap());
            config.addresses = addresses;
        };
        connect_with(&simulator, token, change).0
    };
    done(create(&by_name(Addresses::PublicAndPrivate), "n").await);
    assert_eq!(unreachable(&by_name(Addresses::Public)).await, ConnectFailure::AddressRefused);
    assert_eq!((simulator.posts(), asked.lock().unwrap().len()), (1, 0));
}
