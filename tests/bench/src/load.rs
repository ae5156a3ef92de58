//! Many things at once, but not too many.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::error::{Error, Result};

/// As many as the operator works on at a time by default.
pub const IN_FLIGHT: usize = 64;

/// Between two looks at what is waited for.
pub const LOOK: Duration = Duration::from_millis(50);

/// Longer than anything takes that is done for so many resources: ten a second.
pub fn limit(size: usize) -> Duration {
    Duration::from_secs(300) + Duration::from_millis(100) * u32::try_from(size).unwrap_or(u32::MAX)
}

/// Does this for every number, so many at a time. The first error ends it, and so does the time for it.
pub async fn each<F, W>(numbers: Range<usize>, in_flight: usize, work: F) -> Result<()>
where
    F: Fn(usize) -> W + Clone + Send + 'static,
    W: Future<Output = Result<()>> + Send + 'static,
{
    let (next, end) = (Arc::new(AtomicUsize::new(numbers.start)), numbers.end);
    let mut workers = JoinSet::new();
    for _ in 0..in_flight.min(numbers.len()) {
        let (next, work) = (Arc::clone(&next), work.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<(), Error>(());
                }
                work(number).await?;
            }
        });
    }
    let all = async {
        while let Some(ended) = workers.join_next().await {
            ended.map_err(|_| Error::Wrong("a worker ended before its work".to_owned()))??;
        }
        Ok::<(), Error>(())
    };
    within("a load", limit(numbers.len()), all).await?
}

/// Waits until there is something, at most so long.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if begun.elapsed() > limit {
            return Err(Error::TooLate { what: what.to_owned(), limit });
        }
        tokio::time::sleep(pause).await;
    }
}

/// Waits for something that comes by itself, at most so long.
pub async fn within<T>(what: &str, limit: Duration, it: impl Future<Output = T>) -> Result<T> {
    let late = |_| Error::TooLate { what: what.to_owned(), limit };
    tokio::time::timeout(limit, it).await.map_err(late)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_is_done_once_and_not_too_much_at_a_time() {
        let (done, now, most) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&done), now, Arc::clone(&most));
        let work = move |number: usize| {
            let (done, now, most) = counts.clone();
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::Relaxed);
                done.fetch_add(number, Ordering::Relaxed);
                Ok(())
            }
        };
        each(5..105, 8, work).await.unwrap();
        assert_eq!(done.load(Ordering::Relaxed), (5..105).sum::<usize>());
        assert!((2..=8).contains(&most.load(Ordering::Relaxed)));
    }

    #[tokio::test]
    async fn an_error_ends_it() {
        let work = |number| async move { if number == 3 { Err(Error::Wrong("three".to_owned())) } else { Ok(()) } };
        assert!(each(0..10, 2, work).await.is_err());
        assert!(each(0..0, 2, work).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_has_an_end() {
        let waited = until("never", Duration::from_secs(3), LOOK, async || Ok(None::<()>)).await;
        assert!(matches!(waited, Err(Error::TooLate { .. })));
    }
}
