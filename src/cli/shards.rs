//! Who works, and on what: one shard or several, each by a Lease of its own.
//!
//! With several shards the Lease of the given name is held by all processes of one number of shards together, under an
//! identity that says the number. A process of another number, also one that knows nothing of shards, is kept out by it as
//! any second process is by a leader. Each shard has a Lease beside, and its tenure ends with that of the first one.
//! So nobody works on a shard whose namespaces somebody else counts to another.

use std::{convert::Infallible, num::NonZeroU16, pin::pin, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::run::Error;
use crate::{
    controller,
    remote::{Connection, Tenure},
    runtime::{Balance, Election, Metrics, Readiness, Share, Shutdown, Standing, Timing},
};

/// What the processes of one number of shards call themselves together.
pub(super) fn together(shards: NonZeroU16) -> String {
    format!("{shards} shards")
}

/// The Lease of a shard.
pub(super) fn lease_of(name: &str, shard: u16) -> String {
    format!("{name}-{shard}")
}

/// The Lease of who asks for a shard.
pub(super) fn lease_of_who_asks(name: &str) -> String {
    format!("{name}-asking")
}

/// A process's place at one shard: taken when its lease is held.
pub(super) struct Seat {
    pub share: Share,
    pub tenure: Tenure,
    pub client: kube::Client,
    pub connection: Option<Connection>,
    pub readiness: Arc<Readiness>,
}

impl Seat {
    /// What there is to tell of an election for it.
    pub fn teller(&self, metrics: Arc<Metrics>) -> impl Fn(Standing) + Send + Sync + use<> {
        let (share, readiness) = (self.share, Arc::clone(&self.readiness));
        let leading = move |so| {
            if share == Share::WHOLE { metrics.leading(so) } else { metrics.shard(share.shard(), so) }
        };
        move |standing| match standing {
            Standing::Waiting { reads } => {
                // Also of a shard that nobody has worked on yet there is something to ask for.
                leading(false);
                readiness.stand_by(Some(reads));
            }
            Standing::Leading => {
                leading(true);
                readiness.stand_by(None);
            }
            Standing::Ended => leading(false),
        }
    }

    /// Works whenever it holds the lease, until the shutdown. Who is `asked` for gets the lease when the work has ended, if he
    /// still asks then.
    pub async fn serve<W>(
        self,
        mut election: Election,
        mut asked: watch::Receiver<Option<String>>,
        work: impl Fn(&Self, Shutdown) -> W,
        shutdown: Shutdown,
    ) -> Result<(), Error>
    where
        W: Future<Output = Result<(), controller::Error>>,
    {
        while election.won(shutdown.clone()).await {
            // What was asked of an earlier term.
            asked.mark_unchanged();
            let (end, ended) = shutdown.before();
            let mut is_asked = false;
            let result = {
                let mut work = pin!(work(&self, ended));
                // One for the whole term: a renewal must not be given up for a message.
                let mut lost = pin!(election.lost());
                loop {
                    tokio::select! {
                        result = &mut work => break result,
                        lost = &mut lost => return Err(lost.into()),
                        Ok(()) = asked.changed(), if !is_asked => {
                            let next = asked.borrow_and_update().clone();
                            is_asked = next.is_some();
                            if is_asked {
                                tracing::info!(shard = self.share.shard(), to = next, "handing the shard over");
                                end.send_replace(true);
                            }
                        }
                    }
                }
            };
            let heir = asked.borrow().clone().filter(|_| is_asked && result.is_ok());
            election.release(heir).await;
            result?;
            if shutdown.is_requested() {
                break;
            }
        }
        Ok(())
    }
}

/// The elections that several shards take.
pub(super) struct Elections {
    pub identity: String,
    pub timing: Timing,
    /// For the lease that is held together.
    pub together: Election,
    /// For the lease of who asks.
    pub asking: Election,
    /// Of the process: each seat is a part of it.
    pub readiness: Arc<Readiness>,
    /// For each seat.
    pub seats: Vec<(Seat, Election)>,
}

/// Takes part in the work on all shards until the shutdown.
pub(super) async fn take_part<W>(
    elections: Elections,
    work: impl Fn(&Seat, Shutdown) -> W + Clone + Send + Sync + 'static,
    shutdown: Shutdown,
) -> Result<(), Error>
where
    W: Future<Output = Result<(), controller::Error>> + Send + 'static,
{
    let Elections { identity, timing, mut together, mut asking, readiness, seats } = elections;
    if !together.won(shutdown.clone()).await {
        return Ok(());
    }
    let (end, ended) = shutdown.before();
    let (mut holders, mut asks, mut tasks) = (Vec::new(), Vec::new(), JoinSet::new());
    for (seat, election) in seats {
        // Not before: who waits for those of another number to go is ready.
        readiness.part(format!("shard-{}", seat.share.shard()), Arc::clone(&seat.readiness));
        holders.push(election.leader());
        let (ask, asked) = watch::channel(None);
        asks.push(ask);
        tasks.spawn(seat.serve(election, asked, work.clone(), ended.clone()));
    }
    let all = async {
        let mut first = Ok(());
        while let Some(result) = tasks.join_next().await {
            let result = result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            if first.is_ok() && result.is_err() {
                // The others are given up in order.
                first = result;
                end.send_replace(true);
            }
        }
        first
    };
    let result = tokio::select! {
        result = all => result,
        lost = together.lost() => Err(lost.into()),
        never = keep_balance(&identity, timing, &mut asking, &holders, &asks, &ended) => match never {},
    };
    if asking.holds() {
        asking.release(None).await;
    }
    result
}

/// Asks for a shard where others have more, and gives one to who asks, until the end.
async fn keep_balance(
    identity: &str,
    timing: Timing,
    asking: &mut Election,
    holders: &[watch::Receiver<Option<String>>],
    asks: &[watch::Sender<Option<String>>],
    ended: &Shutdown,
) -> Infallible {
    let mut was_asked = false;
    loop {
        tokio::time::sleep(timing.retry_period()).await;
        if ended.is_requested() {
            // Nothing is for this process any more.
            if asking.holds() {
                asking.release(None).await;
            }
            return std::future::pending().await;
        }
        let asks_now = match asking.look().await {
            Ok(asks_now) => asks_now,
            Err(why) => {
                tracing::warn!(why, "who asks for a shard cannot be read; trying again");
                continue;
            }
        };
        // Between two looks he may have been a little late.
        let is_asked = asks_now.is_some();
        if !is_asked && !was_asked {
            asks.iter().filter(|ask| ask.borrow().is_some()).for_each(|ask| drop(ask.send_replace(None)));
        }
        was_asked = is_asked;
        let known: Vec<Option<String>> = holders.iter().map(|holder| holder.borrow().clone()).collect();
        match Balance::of(identity, &known, asks_now.as_deref()) {
            Balance::Ask => {
                // Whether it is who asks, the next round tells.
                if let Err(why) = asking.attempt(Duration::MAX).await {
                    tracing::warn!(why, "a shard cannot be asked for; trying again");
                }
            }
            Balance::Give { shard, to } => {
                asks[shard].send_replace(Some(to));
            }
            Balance::Rest if asking.holds() => asking.release(None).await,
            Balance::Rest => {}
        }
    }
}
