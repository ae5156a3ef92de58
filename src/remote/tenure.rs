//! Until when this process may write.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use super::Clock;
use crate::api::Tick;

/// Too short to begin anything in.
pub const LEAST_TENURE: Duration = Duration::from_secs(1);

/// Until when this process may write. Copies share it. It is asked at the point of effect: a process that was stopped
/// and wakes after its time finds that it is over, however far it was.
#[derive(Clone, Debug)]
pub struct Tenure {
    own: Arc<AtomicU64>,
    /// Of another one, that this one ends with.
    within: Option<Arc<AtomicU64>>,
}

impl Tenure {
    /// For a process that is alone by other means.
    pub fn unlimited() -> Self {
        Self { own: Arc::new(AtomicU64::new(u64::MAX)), within: None }
    }

    /// Not yet.
    pub fn none() -> Self {
        Self { own: Arc::default(), within: None }
    }

    /// Not yet, and never for longer than this one.
    pub fn within(&self) -> Self {
        Self { own: Arc::default(), within: Some(Arc::clone(&self.own)) }
    }

    /// Until then.
    pub fn extend(&self, until: Tick) {
        self.own.store(until.0, Ordering::SeqCst);
    }

    /// No longer.
    pub fn end(&self) {
        self.extend(Tick(0));
    }

    /// The time that is left: no write may take longer. `None`: it is over, or as good as over.
    pub fn remaining(&self, now: Tick) -> Option<Duration> {
        Some(self.until() - now).filter(|left| *left >= LEAST_TENURE)
    }

    /// Does this as long as there is time left; `None`: it was left undone.
    ///
    /// Time limits look at the clock after a step, and a process that was stopped takes one more step when it wakes:
    /// here the clock is asked before each.
    pub async fn during<T>(&self, clock: Clock, effect: impl Future<Output = T>) -> Option<T> {
        let mut effect = pin!(effect);
        poll_fn(|context| {
            if clock.now() >= self.until() {
                return Poll::Ready(None);
            }
            effect.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// The body of a request that is to be sent as long as there is time left.
    ///
    /// A request is written by its connection's own task, which may run long after the request was given to it: on a busy
    /// machine, or where the process is stopped in between. It asks for the body when it writes; without one there is no request.
    pub(super) fn body(&self, clock: Clock, bytes: Bytes) -> reqwest::Body {
        reqwest::Body::wrap(WhileHeld { bytes: Some(bytes), tenure: self.clone(), clock })
    }

    fn until(&self) -> Tick {
        let until = |one: &AtomicU64| one.load(Ordering::SeqCst);
        Tick(until(&self.own).min(self.within.as_deref().map_or(u64::MAX, until)))
    }
}

/// See [`Tenure::body`].
struct WhileHeld {
    /// `None`: it was asked for.
    bytes: Option<Bytes>,
    tenure: Tenure,
    clock: Clock,
}

/// There was no time left when the body was asked for.
#[derive(Debug, Error)]
#[error("not sent, this process does not lead")]
struct Over;

impl Body for WhileHeld {
    type Data = Bytes;
    type Error = Over;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let held = self.clock.now() < self.tenure.until();
        Poll::Ready(self.bytes.take().map(|bytes| if held { Ok(Frame::data(bytes)) } else { Err(Over) }))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[test]
    fn ends_a_second_before_its_time() {
        let tenure = Tenure::none();
        assert_eq!(tenure.remaining(Tick(0)), None);
        tenure.extend(Tick(5000));
        for (now, left) in [(0, Some(5000)), (4000, Some(1000)), (4001, None), (5000, None), (9000, None)] {
            assert_eq!(tenure.remaining(Tick(now)), left.map(Duration::from_millis), "{now}");
        }
        tenure.end();
        assert_eq!(tenure.remaining(Tick(0)), None);
        assert!(Tenure::unlimited().remaining(Tick(1 << 40)).is_some());
    }

    #[test]
    fn ends_with_the_one_it_is_within() {
        let outer = Tenure::none();
        let (inner, sibling) = (outer.within(), outer.within());
        let left = || [&outer, &inner, &sibling].map(|one| one.remaining(Tick(0)).map(|left| left.as_millis()));
        inner.extend(Tick(9000));
        assert_eq!(left(), [None; 3]);
        outer.extend(Tick(5000));
        assert_eq!(left(), [Some(5000), Some(5000), None]);
        inner.extend(Tick(3000));
        assert_eq!(left(), [Some(5000), Some(3000), None]);
        inner.end();
        assert_eq!(left(), [Some(5000), None, None], "the outer one goes on");
        inner.extend(Tick(9000));
        outer.end();
        assert_eq!(left(), [None; 3]);
    }

    /// A process that is stopped and wakes late, seen from within: time passes, and no timer is looked at in between.
    #[tokio::test(start_paused = true)]
    async fn takes_no_further_step_when_it_wakes_too_late() {
        let (clock, tenure) = (Clock::start(), Tenure::none());
        tenure.extend(Tick(5000));
        for (slept, steps) in [(4999, 2), (5000, 1), (9000, 1)] {
            let mut taken = 0;
            let clock = Clock::start();
            let effect = poll_fn(|context| {
                taken += 1;
                context.waker().wake_by_ref();
                if taken == 2 { Poll::Ready(()) } else { Poll::Pending }
            });
            let asleep = tokio::time::advance(Duration::from_millis(slept));
            let (done, ()) = tokio::join!(tenure.during(clock, effect), asleep);
            assert_eq!((taken, done.is_some()), (steps, steps == 2), "{slept}");
        }
        assert_eq!(Tenure::unlimited().during(clock, async { 1 }).await, Some(1));
        assert_eq!(Tenure::none().during(clock, async { 1 }).await, None);
    }

    /// The connection's task, when it comes to write what it was given.
    #[tokio::test(start_paused = true)]
    async fn a_body_is_not_handed_out_when_the_time_is_over() {
        let (clock, tenure) = (Clock::start(), Tenure::none());
        tenure.extend(Tick(5000));
        let body = || WhileHeld { bytes: Some(Bytes::from_static(b"{}")), tenure: tenure.clone(), clock };
        let handed_out = async |mut body: WhileHeld| {
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
            frame.expect("a frame").is_ok()
        };
        tokio::time::advance(Duration::from_millis(4999)).await;
        assert!(handed_out(body()).await);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!handed_out(body()).await);
    }

    #[tokio::test]
    async fn of_a_request_without_its_body_nothing_is_sent() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (clock, client) = (Clock::start(), reqwest::Client::new());
        for (tenure, sent) in [(Tenure::none(), false), (Tenure::unlimited(), true)] {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", server.local_addr().unwrap());
            let received = async {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut bytes = vec![0; 1000];
                let count = stream.read(&mut bytes).await.unwrap();
                String::from_utf8(bytes[..count].to_vec()).unwrap()
            };
            let request = client.put(url).body(tenure.body(clock, Bytes::from_static(b"{}"))).send();
            let (result, received) = tokio::join!(request, received);
            assert!(result.is_err(), "nobody answers");
            assert_eq!(received.ends_with("{}"), sent, "{received}");
            assert_eq!(received.contains("content-length: 2\r\n"), sent, "{received}");
        }
    }
}
