//! One request, from its arrival to its reply.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONNECTION, HOST, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING},
    http::request::Parts,
};
use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};

use crate::{
    asked::{Asked, Operation},
    faults::{Commit, Fault, Reply, status_object},
    gate::{Point, Verdict},
    state::Shared,
    stream::{self, Body, full},
};

/// A request as it was received.
pub(crate) struct Call {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
}

/// Handles a call. `None`: the connection is to be closed without an answer.
///
/// Runs on although the client gives up: what was sent is carried out. `client` is closed when the client is gone.
pub(crate) async fn exchange(
    shared: Arc<Shared>,
    upstream: kube::Client,
    call: Call,
    mut client: watch::Receiver<()>,
) -> Option<Response<Body>> {
    let asked = Asked::read(&call.parts.method, &call.parts.uri, &call.body);
    let (seq, fault) = shared.change(|state| state.receive(&asked));
    let fault = fault.unwrap_or(Fault { commit: Commit::Now, reply: Reply::Normal });
    let reply = {
        let mut responding = pin!(respond(&shared, upstream, call, &asked, seq, fault, client.clone()));
        tokio::select! {
            biased;
            reply = &mut responding => reply,
            () = gone(&mut client) => {
                shared.change(|state| state.entry(seq).map(|entry| entry.client_gone = true));
                responding.await
            }
        }
    };
    let gone = client.has_changed().is_err();
    let status = reply.as_ref().map(|reply| reply.status().as_u16());
    shared.change(|state| {
        if let Some(entry) = state.entry(seq) {
            entry.finished_at = Some(Timestamp::now());
            entry.status = status.filter(|_| !gone);
            entry.client_gone = gone;
        }
    });
    reply
}

/// Ends when the client is gone.
async fn gone(client: &mut watch::Receiver<()>) {
    while client.changed().await.is_ok() {}
}

async fn respond(
    shared: &Arc<Shared>,
    upstream: kube::Client,
    call: Call,
    asked: &Asked,
    seq: u64,
    fault: Fault,
    mut client: watch::Receiver<()>,
) -> Option<Response<Body>> {
    pass_gate(shared, asked, Point::BeforeSent).await?;
    let answer = match fault.commit {
        Commit::Never => None,
        Commit::Now => {
            let answer = forward(upstream, call).await;
            let status = answer.as_ref().map(|answer| answer.status().as_u16());
            shared.change(|state| state.entry(seq).map(|entry| entry.decided = status));
            answer
        }
    };
    pass_gate(shared, asked, Point::Committed).await?;
    match fault.reply {
        Reply::Normal => {
            let answer = answer?;
            let (parts, body) = answer.into_parts();
            let body = match asked.operation {
                Operation::Watch if parts.status.is_success() => stream::watch(body, asked.clone(), Arc::clone(shared)),
                _ => body.map_err(std::io::Error::other).boxed_unsync(),
            };
            Some(Response::from_parts(parts, body))
        }
        Reply::Status { code, reason, message, retry_after } => {
            let mut answer = json(code, &status_object(code, reason, &message));
            if let Some(seconds) = retry_after {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Some(answer)
        }
        Reply::Expired => {
            let event = serde_json::json!({"type": "ERROR", "object": status_object(410, "Expired", "too old resource version")});
            Some(json(200, &event))
        }
        Reply::Reset => None,
        Reply::Hang { at_most_ms } => {
            tokio::select! {
                () = gone(&mut client) => {}
                () = sleep(Duration::from_millis(at_most_ms)) => {}
            }
            None
        }
    }
}

/// Waits at a gate, if one stops this request. `None`: it ends here.
async fn pass_gate(shared: &Shared, asked: &Asked, point: Point) -> Option<()> {
    let Some(verdict) = shared.change(|state| state.stop_at_gate(asked, point)) else {
        return Some(());
    };
    match verdict.await {
        Ok(Verdict::Continue) => Some(()),
        Ok(Verdict::Discard) | Err(_) => None,
    }
}

/// The API server's answer; `None`: it gave none.
async fn forward(upstream: kube::Client, call: Call) -> Option<Response<kube::client::Body>> {
    let mut request = Request::from_parts(call.parts, kube::client::Body::from(call.body.to_vec()));
    let headers = request.headers_mut();
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, ACCEPT_ENCODING] {
        headers.remove(name);
    }
    let mut answer = upstream.send(request).await.ok()?;
    let headers = answer.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    Some(answer)
}

fn json(status: u16, content: &serde_json::Value) -> Response<Body> {
    // Watches are read line by line.
    let mut answer = Response::new(full(format!("{content}\n")));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    answer
}
