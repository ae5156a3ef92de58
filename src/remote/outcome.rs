//! How a call went. Nothing here holds a byte of what the remote side sent but the status code.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use super::{client::Operation, connect::ConnectFailure, token::TokenError};
use crate::api::{Reason, Tick};

/// What became of a call. See the design, "Outcomes of a remote call".
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// A 2xx with the documented object.
    Done(T),
    /// It certainly had no effect: nothing was sent, or a 4xx says so.
    NotDone(NotDone),
    /// It may have had its effect, now or later.
    Unknown(Unknown),
}

impl<T> Outcome<T> {
    /// The outcome with what it brought made into something else.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Done(value) => Outcome::Done(make(value)),
            Self::NotDone(why) => Outcome::NotDone(why),
            Self::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// What it brought, if it is done.
    pub fn done(self) -> Option<T> {
        match self {
            Self::Done(value) => Some(value),
            Self::NotDone(_) | Self::Unknown(_) => None,
        }
    }
}

/// Why a call certainly had no effect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotDone {
    /// There was no connection to send it over.
    #[error("{operation}: {at} cannot be reached: {failure}")]
    Unreachable {
        /// The call.
        operation: Operation,
        /// Host and port, and of a proxy where there is one.
        at: Arc<str>,
        /// What failed.
        failure: ConnectFailure,
    },
    /// The API asked for a pause that is not over; nothing was sent.
    #[error("{operation}: not sent, the API asked for a pause")]
    Paused {
        /// The call.
        operation: Operation,
        /// When the pause is over.
        until: Tick,
        /// `RateLimited` or `ApiUnavailable`.
        reason: Reason,
    },
    /// This call was the one to be told: 429.
    #[error("{operation}: answered 429, the API asks for a pause")]
    Throttled {
        /// The call.
        operation: Operation,
        /// When the pause is over.
        until: Tick,
    },
    /// The connection as a whole is refused, which a probe confirmed.
    #[error("{operation}: {refusal}")]
    Refused {
        /// The call.
        operation: Operation,
        /// Why.
        refusal: Refusal,
    },
    /// Answered 401 or 403, and whether the whole connection is refused could not be found out.
    #[error("{operation}: answered {status}; whether the token is good for anything else is not known")]
    Unconfirmed {
        /// The call.
        operation: Operation,
        /// 401 or 403.
        status: u16,
    },
    /// Answered 401 or 403 with a token that has been replaced since.
    #[error("{operation}: answered {status}, but the token was replaced meanwhile")]
    TokenReplaced {
        /// The call.
        operation: Operation,
        /// 401 or 403.
        status: u16,
    },
    /// Answered 401 or 403 although the token is good for other things.
    #[error("{operation}: answered {status}: the token is accepted, but may not do this")]
    Forbidden {
        /// The call.
        operation: Operation,
        /// 401 or 403.
        status: u16,
    },
    /// The credential to update does not exist: 404.
    #[error("{operation}: answered 404: there is no credential of this id")]
    Gone {
        /// The call.
        operation: Operation,
    },
    /// A 4xx that is about the moment, not about the request.
    #[error("{operation}: answered {status}: not now")]
    NotNow {
        /// The call.
        operation: Operation,
        /// The status code.
        status: u16,
    },
    /// Any other 4xx.
    #[error("{operation}: rejected with {status}")]
    Rejected {
        /// The call.
        operation: Operation,
        /// The status code.
        status: u16,
    },
    /// This process may not write, or not for long enough: nothing was sent.
    #[error("{operation}: not sent, this process does not lead")]
    NotLeading {
        /// The call.
        operation: Operation,
    },
    /// It could not be put into a request.
    #[error("{operation}: cannot be sent: {problem}")]
    Unsendable {
        /// The call.
        operation: Operation,
        /// Why.
        problem: &'static str,
    },
}

impl NotDone {
    /// The reason to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unconfirmed { status: 403, .. } => Reason::Forbidden,
            Self::Unreachable { .. }
            | Self::Unconfirmed { .. }
            | Self::NotNow { .. }
            | Self::TokenReplaced { .. }
            | Self::NotLeading { .. } => Reason::ApiUnavailable,
            Self::Paused { reason, .. } => *reason,
            Self::Throttled { .. } => Reason::RateLimited,
            Self::Refused { refusal, .. } => refusal.reason(),
            Self::Forbidden { .. } => Reason::Forbidden,
            // One 404 is no proof: a second look decides.
            Self::Gone { .. } => Reason::VerifyingLoss,
            Self::Rejected { .. } => Reason::RejectedByApi,
            Self::Unsendable { .. } => Reason::InvalidSpec,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Forbidden { .. } => "forbidden",
            Self::Gone { .. } => "gone",
            Self::NotNow { .. } => "not_now",
            Self::Rejected { .. } => "rejected",
            // Nothing was sent, or what was sent is counted as what it was answered; so nobody counts these.
            Self::Paused { .. }
            | Self::Refused { .. }
            | Self::Unconfirmed { .. }
            | Self::TokenReplaced { .. }
            | Self::NotLeading { .. }
            | Self::Unsendable { .. } => "not_sent",
        }
    }
}

/// Why a connection as a whole is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// 401, also for the probe.
    #[error("the API refuses the token (401)")]
    Unauthorized,
    /// 403, also for the probe.
    #[error("the API forbids the token everything (403)")]
    Forbidden,
    /// There is no token to send.
    #[error(transparent)]
    NoToken(TokenError),
}

impl Refusal {
    /// The reason to show.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unauthorized | Self::NoToken(_) => Reason::Unauthorized,
            Self::Forbidden => Reason::Forbidden,
        }
    }
}

/// A call that may have had its effect, or may still have it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{operation} at {at}: {lost}")]
pub struct Unknown {
    /// The call.
    pub operation: Operation,
    /// Host and port, and of a proxy where there is one.
    pub at: Arc<str>,
    /// How its answer was lost.
    pub lost: Lost,
}

impl Unknown {
    /// The reason to show: only the effect of a create has to be looked for.
    pub fn reason(&self) -> Reason {
        match self.operation {
            Operation::Create => Reason::OutcomeUnknown,
            _ => Reason::ApiUnavailable,
        }
    }
}

/// How an answer was lost.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Lost {
    /// No complete answer within the time limit.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The connection ended before the answer did.
    #[error("connection lost before the answer was complete")]
    Disconnected,
    /// A 5xx, or 408.
    #[error("answered {0}")]
    ServerError(u16),
    /// A 3xx: redirects are not followed.
    #[error("answered {0}, a redirect, which is not followed")]
    Redirected(u16),
    /// A 2xx without the documented object.
    #[error("answered {status}, but {problem}")]
    Unreadable {
        /// The status code.
        status: u16,
        /// What is wrong with it.
        problem: Unreadable,
    },
}

impl Lost {
    fn label(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "timed_out",
            Self::Disconnected => "disconnected",
            Self::ServerError(_) => "server_error",
            Self::Redirected(_) => "redirected",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// What is wrong with the body of a 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// Not JSON, or not all of it.
    #[error("the answer is not JSON")]
    NotJson,
    /// JSON, but no documented answer.
    #[error("the answer has not the documented shape")]
    WrongShape,
    /// More than is read.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// In bytes.
        limit: usize,
    },
    /// A credential, but not the one that was asked for.
    #[error("the answer is about another credential")]
    AnotherCredential,
}

/// Why a call is not done, within this room: what `?` carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    NotDone(NotDone),
    Unknown(Unknown),
}

impl Failure {
    /// In a word, for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::NotDone(why) => why.label(),
            Self::Unknown(why) => why.lost.label(),
        }
    }
}

impl<T> From<Result<T, Failure>> for Outcome<T> {
    fn from(result: Result<T, Failure>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(Failure::NotDone(why)) => Self::NotDone(why),
            Err(Failure::Unknown(why)) => Self::Unknown(why),
        }
    }
}
