//! Response bodies, the broken ones included.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

/// The body of every answer. An error closes the connection in the middle.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// These bytes, then a broken connection.
pub(crate) fn cut(bytes: Vec<u8>) -> Body {
    let frames = [Ok(Frame::data(Bytes::from(bytes))), Err(io::Error::from(io::ErrorKind::ConnectionAborted))];
    // One frame at a time, or the server may see the end before it sent the beginning.
    let frames = stream::unfold(frames.into_iter(), |mut frames| async move {
        tokio::task::yield_now().await;
        frames.next().map(|frame| (frame, frames))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A few bytes at a time.
pub(crate) fn drip(whole: Bytes, at_a_time: usize, every: Duration) -> Body {
    let frames = stream::unfold(whole, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(every).await;
        let next = rest.split_to(at_a_time.clamp(1, rest.len()));
        Some((Ok(Frame::data(next)), rest))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A JSON object of exactly so many bytes (at least the few an empty one needs).
pub(crate) fn huge(bytes: u64) -> Body {
    const START: &[u8] = b"{\"padding\":\"";
    const END: &[u8] = b"\"}";
    static FILLING: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    enum Part {
        Start,
        Filling(u64),
        Done,
    }
    let filling = bytes.saturating_sub((START.len() + END.len()) as u64);
    let frames = stream::unfold(Part::Start, move |part| async move {
        let (chunk, next) = match part {
            Part::Start => (START, Part::Filling(filling)),
            Part::Filling(0) => (END, Part::Done),
            Part::Filling(left) => {
                let size = usize::try_from(left).map_or(FILLING.len(), |left| left.min(FILLING.len()));
                (&FILLING[..size], Part::Filling(left - size as u64))
            }
            Part::Done => return None,
        };
        Some((Ok(Frame::data(Bytes::from_static(chunk))), next))
    });
    StreamBody::new(frames).boxed_unsync()
}
