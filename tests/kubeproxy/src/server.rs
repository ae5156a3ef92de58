//! The HTTP server: connections, and requests handed to the exchange.

use std::{
    sync::{Arc, mpsc as blocking},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    exchange::{Call, exchange},
    state::Shared,
    stream::Body,
};

/// What a handle asks of the server; the sender gets a message once it is done.
#[derive(Debug)]
pub(crate) enum Command {
    /// Close every connection, and those to come as soon as they are there.
    Down(blocking::Sender<()>),
    /// Serve again.
    Up(blocking::Sender<()>),
    /// Close every connection.
    Disconnect(blocking::Sender<()>),
}

/// The connection is to be closed without an (or without another) answer.
#[derive(Debug, thiserror::Error)]
#[error("connection closed on purpose")]
struct Closed;

/// Serves until `commands` ends.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    upstream: kube::Client,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    // While it is down the port stays bound: another process could take it otherwise.
    let mut up = true;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => {
                let done = match command {
                    None => break,
                    Some(Command::Up(done)) => {
                        up = true;
                        done
                    }
                    Some(Command::Down(done)) => {
                        up = false;
                        connections.shutdown().await;
                        done
                    }
                    Some(Command::Disconnect(done)) => {
                        connections.shutdown().await;
                        done
                    }
                };
                // Nobody waits for it any more where this is an error.
                let _ = done.send(());
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if up => {
                    connections.spawn(serve_connection(stream, Arc::clone(&shared), upstream.clone()));
                }
                Ok((stream, _)) => drop(stream),
                // Out of file descriptors, for instance: others must end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, upstream: kube::Client) {
    // Small answers must not wait for each other; where it fails they only come later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| serve_request(request, Arc::clone(&shared), upstream.clone()));
    // An error ends the connection, which is all there is to do: on purpose or because the client left.
    let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn serve_request(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    upstream: kube::Client,
) -> Result<Response<Body>, Closed> {
    let (parts, incoming) = request.into_parts();
    let body = incoming.collect().await.map_err(|_| Closed)?.to_bytes();
    // Dropped with this future, when the client is gone; the exchange itself runs on.
    let (connected, client) = watch::channel(());
    let answer = tokio::spawn(exchange(shared, upstream, Call { parts, body }, client)).await;
    drop(connected);
    answer.ok().flatten().ok_or(Closed)
}
