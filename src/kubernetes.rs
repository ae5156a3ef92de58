//! What every room that calls the Kubernetes API shares.

use std::{io, time::Duration};

/// The longest one call may take, the client's own retries included. A connection that is half open answers never.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The call, with a time limit.
pub(crate) async fn timed<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    tokio::time::timeout(TIME_LIMIT, call)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service(io::Error::from(io::ErrorKind::TimedOut).into())))
}

/// An error without its text, which may quote what was sent.
pub(crate) fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(answer) => format!("{} {}", answer.code, answer.reason),
        kube::Error::HyperError(_) | kube::Error::Service(_) => "no connection".to_owned(),
        _ => "request failed".to_owned(),
    }
}

/// Whether the API server answered with this status code.
pub(crate) fn answered(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.code == code)
}
