//! Watches: event by event, each held back while a lag says so.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use tokio::sync::{oneshot, watch};

use crate::{asked::Asked, state::Shared};

/// The body of every answer. An error closes the connection in the middle.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A watch being streamed; taken off the list when dropped.
struct Watching<B> {
    upstream: B,
    asked: Asked,
    shared: Arc<Shared>,
    id: u64,
    ends: oneshot::Receiver<()>,
    changed: watch::Receiver<()>,
    /// The beginning of a line that has not ended yet.
    rest: BytesMut,
    /// Whole lines, each one event.
    events: VecDeque<Bytes>,
    /// The API server has ended it.
    over: bool,
}

impl<B> Drop for Watching<B> {
    fn drop(&mut self) {
        self.shared.change(|state| state.end_watch(self.id));
    }
}

/// The events of a watch, as they may go.
pub(crate) fn watch<B>(upstream: B, asked: Asked, shared: Arc<Shared>) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    let (id, ends) = shared.change(|state| state.begin_watch(&asked));
    let changed = shared.changes();
    let watching = Watching {
        upstream,
        asked,
        shared,
        id,
        ends,
        changed,
        rest: BytesMut::new(),
        events: VecDeque::new(),
        over: false,
    };
    StreamBody::new(stream::unfold(watching, |mut watching| async move {
        let event = watching.next().await?;
        Some((Ok(Frame::data(event)), watching))
    }))
    .boxed_unsync()
}

impl<B> Watching<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    /// The next event that may go; `None`: the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.changed.mark_unchanged();
            // Bookmarks tell of no change, so they do not count; but they stay in their place.
            let count = self.events.iter().filter(|event| !is_bookmark(event)).count();
            if count > self.shared.read(|state| state.lag_of(&self.asked)) || count == 0 && !self.events.is_empty() {
                return self.events.pop_front();
            }
            if self.shared.read(|state| state.held_back_by(self.id)) != Some(count) {
                self.shared.change(|state| state.note_held_back(self.id, count));
            }
            if self.over && count == 0 {
                return None;
            }
            tokio::select! {
                _ = &mut self.ends => return None,
                _ = self.changed.changed() => {}
                frame = self.upstream.frame(), if !self.over => match frame {
                    Some(Ok(frame)) => self.take(frame.into_data().unwrap_or_default()),
                    Some(Err(_)) | None => self.over = true,
                },
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        self.rest.extend_from_slice(&data);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            self.events.push_back(self.rest.split_to(end + 1).freeze());
        }
    }
}

fn is_bookmark(event: &[u8]) -> bool {
    event.starts_with(br#"{"type":"BOOKMARK""#)
}
