//! etcd behind the API server's back, by its JSON gateway.
//! Source: <https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/>

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use k8s_openapi::ByteString;
use serde_json::json;

use crate::Error;

const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Deletes a key.
pub(crate) fn delete(socket: &Path, key: &str) -> Result<(), Error> {
    let failed = |source: std::io::Error| Error::Store { key: key.to_owned(), problem: source.to_string() };
    let body = json!({ "key": ByteString(key.as_bytes().to_vec()) }).to_string();
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(TIME_LIMIT)).map_err(failed)?;
    write!(
        stream,
        "POST /v3/kv/deleterange HTTP/1.1\r\nHost: etcd\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    if answer.contains("\"deleted\":\"1\"") {
        return Ok(());
    }
    let problem = answer.lines().next().unwrap_or("no answer").to_owned();
    Err(Error::Store { key: key.to_owned(), problem: format!("nothing was deleted: {problem}") })
}
