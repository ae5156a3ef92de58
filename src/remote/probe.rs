//! Is it this request that is forbidden, or the token? And when is a refused token good again?

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    client::{Connection, Operation},
    outcome::{Failure, NotDone, Refusal},
};
use crate::api::{ListingKey, Reason, Tick};

/// The longest pause between two probes of a refused connection.
const LONGEST: Duration = Duration::from_secs(300);
/// How often a refused connection looks whether its token was replaced.
const TOKEN_CHECK: Duration = Duration::from_secs(1);
/// How many listings that could be read are kept to ask for.
const MOST_READABLE: usize = 4;

/// One probe at a time, and what the last one found: a burst of refused calls asks once.
#[derive(Default)]
pub(super) struct Prober {
    last: tokio::sync::Mutex<Option<Finding>>,
    /// Listings that could be read, the last one first: a token may lose the right to one and keep it for others.
    readable: Mutex<Vec<ListingKey>>,
}

#[derive(Clone)]
struct Finding {
    began: Tick,
    /// The token it was about.
    generation: u64,
    verdict: Verdict,
}

#[derive(Clone)]
enum Verdict {
    /// The token is good for something.
    Accepted,
    Refused(Refusal),
    /// No answer that says anything of the token.
    Silent,
}

impl Prober {
    /// This listing could be read.
    pub(super) fn remember(&self, key: &ListingKey) {
        let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
        if readable.first() != Some(key) {
            readable.retain(|other| other != key);
            readable.insert(0, key.clone());
            readable.truncate(MOST_READABLE);
        }
    }

    fn readable(&self) -> Vec<ListingKey> {
        self.readable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Connection {
    /// A call that began then, with this token, was answered 401 or 403: what does it mean for the connection?
    pub(super) async fn refused(&self, operation: Operation, status: u16, generation: u64, began: Tick) -> NotDone {
        let finding = self.finding(began).await;
        match finding.verdict {
            Verdict::Accepted if finding.generation == generation => NotDone::Forbidden { operation, status },
            Verdict::Accepted => NotDone::TokenReplaced { operation, status },
            Verdict::Refused(refusal) => NotDone::Refused { operation, refusal },
            Verdict::Silent => NotDone::Unconfirmed { operation, status },
        }
    }

    /// Asks for something harmless, to find out how the connection is before anybody needs it.
    ///
    /// # Errors
    /// Why nothing can be done over it, as a reason and for people.
    pub async fn check(&self) -> Result<(), (Reason, String)> {
        match self.probe(None).await {
            Err(Failure::NotDone(NotDone::Forbidden { status: 401, .. })) => {
                self.refuse(Refusal::Unauthorized);
                Err((Reason::Unauthorized, Refusal::Unauthorized.to_string()))
            }
            // The integrations may be forbidden, or unknown, to a token that may do all else.
            Ok(()) | Err(Failure::NotDone(NotDone::Forbidden { .. } | NotDone::Rejected { .. })) => Ok(()),
            Err(Failure::NotDone(why)) => Err((why.reason(), why.to_string())),
            Err(Failure::Unknown(why)) => Err((Reason::ApiUnavailable, why.to_string())),
        }
    }

    /// What a probe found that began then or later, and the connection told of it.
    async fn finding(&self, since: Tick) -> Finding {
        let mut last = self.0.prober.last.lock().await;
        if let Some(finding) = last.as_ref().filter(|finding| finding.began >= since) {
            return finding.clone();
        }
        let (began, generation) = (self.0.clock.now(), self.0.token.generation());
        let finding = Finding { began, generation, verdict: self.ask().await };
        match &finding.verdict {
            Verdict::Accepted => self.0.gate.admit(),
            Verdict::Refused(refusal) => self.refuse(refusal.clone()),
            Verdict::Silent => {}
        }
        *last = Some(finding.clone());
        finding
    }

    async fn ask(&self) -> Verdict {
        let answer = self.probe(None).await;
        // The integrations may be forbidden to a token that may do all else; and where that endpoint does not exist,
        // the answer may come before anybody looks at the token.
        let says_little = match &answer {
            Err(Failure::NotDone(NotDone::Forbidden { status, .. })) => *status == 403,
            Err(Failure::NotDone(NotDone::Rejected { .. })) => true,
            _ => false,
        };
        if !says_little {
            return verdict(&answer);
        }
        // Where nothing could ever be read, what is forbidden may be all that was asked for.
        let mut found = Verdict::Silent;
        for key in self.0.prober.readable() {
            found = verdict(&self.probe(Some(&key)).await);
            if !matches!(found, Verdict::Refused(Refusal::Forbidden)) {
                break;
            }
        }
        found
    }

    /// Refuses every call until a probe in the background says otherwise.
    pub(super) fn refuse(&self, refusal: Refusal) {
        if !self.0.gate.refuse(refusal.clone()) {
            return;
        }
        tracing::error!(%refusal, "the connection to Toolzz is refused; probing until it is accepted again");
        let inner = Arc::downgrade(&self.0);
        let mut generation = self.0.token.generation();
        let (clock, mut wait) = (self.0.clock, self.0.config.probe_interval);
        tokio::spawn(async move {
            let mut next = clock.now() + wait;
            loop {
                tokio::time::sleep(TOKEN_CHECK.min(wait)).await;
                let Some(connection) = inner.upgrade().map(Connection) else { return };
                let current = connection.0.token.generation();
                if current == generation && clock.now() < next {
                    continue;
                }
                // A new token deserves the short pauses again.
                wait = if current == generation { (wait * 2).min(LONGEST) } else { connection.0.config.probe_interval };
                generation = current;
                // Published by itself, as is everything a probe finds.
                connection.finding(clock.now()).await;
                next = clock.now() + wait;
                if !connection.0.gate.is_refused() {
                    tracing::info!("the connection to Toolzz is accepted again");
                    return;
                }
            }
        });
    }

    /// Has the end of a pause published, also when nobody calls just then.
    pub(super) fn announce_end_of_pause(&self) {
        let inner = Arc::downgrade(&self.0);
        let clock = self.0.clock;
        let Some(mut until) = self.0.gate.paused_until() else { return };
        tokio::spawn(async move {
            loop {
                clock.until_after(until).await;
                let Some(inner) = inner.upgrade() else { return };
                match inner.gate.paused_until() {
                    Some(later) => until = later,
                    None => return,
                }
            }
        });
    }
}

fn verdict(answer: &Result<(), Failure>) -> Verdict {
    match answer {
        Ok(()) => Verdict::Accepted,
        Err(Failure::NotDone(NotDone::Forbidden { status: 401, .. })) => Verdict::Refused(Refusal::Unauthorized),
        Err(Failure::NotDone(NotDone::Forbidden { .. })) => Verdict::Refused(Refusal::Forbidden),
        Err(Failure::NotDone(NotDone::Refused { refusal, .. })) => Verdict::Refused(refusal.clone()),
        Err(_) => Verdict::Silent,
    }
}
