//! Faults: how often, and what they do.

use serde_json::json;

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// The next so many matching requests.
    Next(u64),
    /// Every matching request.
    Always,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(pub(crate) u64);

/// What happens to a request: whether the API server gets it, and what the client gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the API server gets it.
    pub commit: Commit,
    /// What the client gets.
    pub reply: Reply,
}

/// Whether the API server gets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// Yes.
    Now,
    /// Never.
    Never,
}

/// What the client gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The API server's answer.
    Normal,
    /// A `Status` object as API servers, their webhooks and what stands in front of them send it.
    Status {
        /// HTTP status.
        code: u16,
        /// Machine-readable reason, `Conflict` for instance.
        reason: &'static str,
        /// For people.
        message: String,
        /// Seconds in a `Retry-After` header.
        retry_after: Option<u32>,
    },
    /// A watch that begins and says at once that its resourceVersion is too old.
    Expired,
    /// The connection is closed without an answer.
    Reset,
    /// No answer until the client gives up, at most so many milliseconds; then the connection is closed.
    Hang {
        /// Milliseconds.
        at_most_ms: u64,
    },
}

/// Longest time [`Fault::lost_answer`] keeps a client waiting.
const HANG_MS: u64 = 120_000;

impl Fault {
    /// A fault.
    #[must_use]
    pub fn new(commit: Commit, reply: Reply) -> Self {
        Self { commit, reply }
    }

    /// An answer instead of the API server's, which gets nothing.
    #[must_use]
    pub fn status(code: u16, reason: &'static str, message: &str) -> Self {
        let message = message.to_owned();
        Self::new(Commit::Never, Reply::Status { code, reason, message, retry_after: None })
    }

    /// 409: somebody else wrote meanwhile.
    #[must_use]
    pub fn conflict() -> Self {
        Self::status(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
    }

    /// 409: there is one of that name.
    #[must_use]
    pub fn already_exists() -> Self {
        Self::status(409, "AlreadyExists", "already exists")
    }

    /// The status code it answers, if it answers one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.reply {
            Reply::Status { code, .. } => Some(code),
            _ => None,
        }
    }

    /// 403 as RBAC says it.
    #[must_use]
    pub fn forbidden() -> Self {
        Self::status(403, "Forbidden", "is forbidden: User \"system:serviceaccount:a:b\" cannot do this")
    }

    /// 403 as it is said of a namespace that is being deleted.
    #[must_use]
    pub fn namespace_terminating() -> Self {
        Self::status(403, "Forbidden", "unable to create new content in namespace a because it is being terminated")
    }

    /// 422 as an admission webhook says no.
    #[must_use]
    pub fn refused_by_webhook() -> Self {
        Self::status(422, "Invalid", "admission webhook \"policy.example.com\" denied the request: not today")
    }

    /// 500 as a webhook that cannot be reached has it.
    #[must_use]
    pub fn internal_error() -> Self {
        Self::status(500, "InternalError", "failed calling webhook \"policy.example.com\": no endpoints available")
    }

    /// 429 with so many seconds to wait.
    #[must_use]
    pub fn too_many_requests(retry_after: u32) -> Self {
        let message = "too many requests, please try again later".to_owned();
        let reply = Reply::Status { code: 429, reason: "TooManyRequests", message, retry_after: Some(retry_after) };
        Self::new(Commit::Never, reply)
    }

    /// 410 to a list or a watch that cannot go on where it was.
    #[must_use]
    pub fn gone() -> Self {
        Self::status(410, "Expired", "too old resource version")
    }

    /// A watch that is told, once begun, that its resourceVersion is too old.
    #[must_use]
    pub fn expired() -> Self {
        Self::new(Commit::Never, Reply::Expired)
    }

    /// The connection breaks, nothing is done.
    #[must_use]
    pub fn reset_before_commit() -> Self {
        Self::new(Commit::Never, Reply::Reset)
    }

    /// It is done, then the connection breaks.
    #[must_use]
    pub fn reset_after_commit() -> Self {
        Self::new(Commit::Now, Reply::Reset)
    }

    /// It is done, and no answer comes.
    #[must_use]
    pub fn lost_answer() -> Self {
        Self::new(Commit::Now, Reply::Hang { at_most_ms: HANG_MS })
    }

    /// It is done, and what stands in front answers 504.
    #[must_use]
    pub fn timeout_after_commit() -> Self {
        Self {
            commit: Commit::Now,
            ..Self::status(504, "Timeout", "request did not complete within the allotted timeout")
        }
    }
}

/// The `Status` object of the API.
pub(crate) fn status_object(code: u16, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}
