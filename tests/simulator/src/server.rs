//! The HTTP server: connections, and requests handed to the exchange or the control interface.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, mpsc as blocking};
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::api::Call;
use crate::body::{self, Body};
use crate::control;
use crate::exchange::{exchange, json};
use crate::state::Shared;

/// What a handle asks of the server; the sender gets a message once it is done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Close the port and every connection.
    Down(blocking::Sender<io::Result<()>>),
    /// Close the port, and each connection once the answer that is due on it is out.
    Leave(blocking::Sender<io::Result<()>>),
    /// Listen again on the same port.
    Up(blocking::Sender<io::Result<()>>),
    /// Close every connection.
    Disconnect(blocking::Sender<io::Result<()>>),
}

/// The connection is to be closed without an (or without another) answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed on purpose")]
struct Closed;

/// How many may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Serves until `commands` ends.
pub(crate) async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let (mut listener, mut held) = (Some(listener), None);
    let mut connections = JoinSet::new();
    let leave = watch::Sender::new(());
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                None => break,
                Some(Command::Down(done)) => {
                    listener = None;
                    held = hold(address).ok();
                    connections.shutdown().await;
                    let _ = done.send(Ok(()));
                }
                Some(Command::Leave(done)) => {
                    listener = None;
                    held = hold(address).ok();
                    leave.send_replace(());
                    // Until none is left that has not been told.
                    leave.closed().await;
                    let _ = done.send(Ok(()));
                }
                Some(Command::Up(done)) => {
                    let again = match (&listener, held.take()) {
                        (Some(_), _) => Ok(()),
                        (None, Some(socket)) => socket.listen(BACKLOG).map(|again| listener = Some(again)),
                        (None, None) => TcpListener::bind(address).await.map(|again| listener = Some(again)),
                    };
                    let _ = done.send(again);
                }
                Some(Command::Disconnect(done)) => {
                    connections.shutdown().await;
                    let _ = done.send(Ok(()));
                }
            },
            accepted = accept(listener.as_ref()) => match accepted {
                Ok(stream) => { connections.spawn(serve_connection(stream, Arc::clone(&shared), leave.subscribe())); }
                // Out of file descriptors, for instance: others must end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Keeps a port whose listener is gone: who connects is refused, and nobody else of this machine is given it meanwhile.
fn hold(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections that have just ended are still on it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, mut leave: watch::Receiver<()>) {
    // Small answers must not wait for each other; where it fails they only come later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| serve_request(request, Arc::clone(&shared)));
    // An error ends the connection, which is all there is to do: on purpose or because the client left.
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = leave.changed() => connection.as_mut().graceful_shutdown(),
    }
    // One on which no answer is due ends at once, and must have before anybody hears that the port is closed.
    if poll_fn(|context| Poll::Ready(connection.as_mut().poll(context))).await.is_ready() {
        return;
    }
    drop(leave);
    let _ = connection.await;
}

async fn serve_request(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Closed> {
    let (parts, incoming) = request.into_parts();
    let limit = shared.read(|state| state.settings.max_request_bytes);
    let raw = match Limited::new(incoming, limit).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(json(413, body::full(r#"{"statusCode":413,"message":"Payload Too Large"}"#)));
        }
        Err(_) => return Err(Closed),
    };
    let path = parts.uri.path().to_owned();
    if path == control::BASE || path.starts_with(control::BASE_SLASH) {
        return Ok(control::handle(&shared, &parts.method, &path, parts.uri.query(), &raw));
    }
    let authorization = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let call = Call::new(parts.method, path, authorization, raw);
    // Dropped with this future, when the client is gone; the exchange itself runs on.
    let (connected, client) = watch::channel(());
    let answer = tokio::spawn(exchange(shared, call, client)).await;
    drop(connected);
    answer.ok().flatten().ok_or(Closed)
}
