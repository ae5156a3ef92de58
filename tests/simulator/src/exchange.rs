//! One request from receipt to reply, with the faults and gates that meet it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::StatusCode;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::api::{Call, Performed};
use crate::body::{self, Body};
use crate::faults::{Commit, Fault, Reply};
use crate::gate::{Point, Verdict};
use crate::journal::{Effect, Entry, without_material};
use crate::state::{Shared, State};

/// Handles a call. `None`: the connection is to be closed without an answer.
///
/// Runs on although the client gives up: a server that received a request does what it says. `client` is closed when
/// the client is gone.
pub(crate) async fn exchange(
    shared: Arc<Shared>,
    mut call: Call,
    mut client: watch::Receiver<()>,
) -> Option<Response<Body>> {
    let (fault, latency) = shared.change(|state| (receive(state, &mut call), state.settings.latency_ms));
    let (seq, operation) = (call.seq, call.operation);
    let reply = {
        let mut responding = pin!(respond(&shared, call, fault, latency, client.clone()));
        tokio::select! {
            biased;
            reply = &mut responding => reply,
            () = gone(&mut client) => {
                shared.change(|state| state.journal.client_gone(seq));
                responding.await
            }
        }
    };
    let status = reply.as_ref().map(|reply| reply.status().as_u16());
    let gone = client.has_changed().is_err();
    shared.change(|state| state.journal.close(seq, operation, status, gone));
    reply
}

/// Ends when the client is gone.
async fn gone(client: &mut watch::Receiver<()>) {
    while client.changed().await.is_ok() {}
}

/// Enters the call in the journal and finds the fault that meets it.
fn receive(state: &mut State, call: &mut Call) -> Fault {
    call.token = state.token_seen(call.bearer());
    let picked = state.pick_fault(&call.seen());
    let entry = Entry {
        seq: 0,
        started_at: Timestamp::now(),
        finished_at: None,
        method: call.method.to_string(),
        path: call.path.clone(),
        operation: call.operation,
        body: call.body.clone().map(without_material),
        token: call.token.clone(),
        rule: picked.as_ref().map(|(id, _)| *id),
        fault: picked.as_ref().map(|(_, fault)| fault.clone()),
        effect: Effect::None,
        decided: None,
        status: None,
        client_gone: false,
        rows: None,
    };
    call.seq = state.journal.open(entry);
    picked.map(|(_, fault)| fault).unwrap_or_default()
}

async fn respond(
    shared: &Arc<Shared>,
    call: Call,
    fault: Fault,
    latency_ms: u64,
    client: watch::Receiver<()>,
) -> Option<Response<Body>> {
    pause(latency_ms.saturating_add(fault.delay_before_ms)).await;
    pass_gate(shared, &call, Point::BeforeCommit).await?;
    let performed = match fault.commit {
        Commit::Now | Commit::Twice => Some(shared.change(|state| state.perform(&call, &fault.reply))),
        Commit::Never | Commit::After { .. } | Commit::OnRelease => None,
    };
    pass_gate(shared, &call, Point::AfterCommit).await?;
    match fault.commit {
        Commit::Now | Commit::Never => {}
        Commit::Twice => {
            shared.change(|state| {
                let seq = call.seq;
                state.postpone(call);
                state.perform_late(seq);
            });
        }
        Commit::OnRelease => shared.change(|state| state.postpone(call)),
        Commit::After { ms } => {
            let (shared, seq) = (Arc::clone(shared), call.seq);
            shared.change(|state| state.postpone(call));
            tokio::spawn(async move {
                pause(ms).await;
                shared.change(|state| state.perform_late(seq));
            });
        }
    }
    pause(fault.delay_after_ms).await;
    make_reply(performed, fault.reply, client).await
}

async fn pause(ms: u64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}

/// Waits at a gate, if one stops this call. `None`: the call ends here.
async fn pass_gate(shared: &Shared, call: &Call, point: Point) -> Option<()> {
    let Some(verdict) = shared.change(|state| state.stop_at_gate(&call.seen(), point)) else {
        return Some(());
    };
    match verdict.await {
        Ok(Verdict::Continue) => Some(()),
        Ok(Verdict::Discard) | Err(_) => None,
    }
}

async fn make_reply(
    performed: Option<Performed>,
    reply: Reply,
    mut client: watch::Receiver<()>,
) -> Option<Response<Body>> {
    let right = || match performed {
        Some(performed) => performed.render(),
        None => (202, br#"{"message":"accepted"}"#.to_vec()),
    };
    Some(match reply {
        Reply::Normal | Reply::Stale { .. } | Reply::Partial { .. } | Reply::Empty => {
            let (status, body) = right();
            json(status, body::full(body))
        }
        Reply::Status { status, headers, body } => {
            let mut answer = json(status, body::full(body));
            for (name, value) in headers {
                // A header that cannot be sent is left out: the rule was made by hand.
                if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                    answer.headers_mut().append(name, value);
                }
            }
            answer
        }
        Reply::Reset => return None,
        Reply::Hang { at_most_ms } => {
            tokio::select! {
                () = gone(&mut client) => {}
                () = pause(at_most_ms) => {}
            }
            return None;
        }
        Reply::Garbled => {
            let (status, mut body) = right();
            body.truncate(body.len() / 2);
            json(status, body::full(body))
        }
        Reply::Truncated => {
            let (status, mut bytes) = right();
            let promised = bytes.len().max(2);
            bytes.truncate(promised / 2);
            let mut answer = json(status, body::cut(bytes));
            answer.headers_mut().insert("content-length", HeaderValue::from(promised));
            answer
        }
        Reply::Html => {
            let page = "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>";
            answer(200, "text/html; charset=utf-8", body::full(page))
        }
        Reply::WrongShape => json(200, body::full(r#"{"ok":true,"data":[1,"two",null]}"#)),
        Reply::Drip { bytes, every_ms } => {
            let (status, whole) = right();
            json(status, body::drip(whole.into(), bytes, Duration::from_millis(every_ms)))
        }
        Reply::Huge { bytes } => json(200, body::huge(bytes)),
        Reply::Redirect { status, location } => {
            let mut answer = json(status, body::full(""));
            if let Ok(location) = location.parse::<HeaderValue>() {
                answer.headers_mut().insert("location", location);
            }
            answer
        }
    })
}

pub(crate) fn json(status: u16, body: Body) -> Response<Body> {
    answer(status, "application/json; charset=utf-8", body)
}

pub(crate) fn answer(status: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    answer
}
