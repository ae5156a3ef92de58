//! Faults: which requests they meet, how often, and what they do.

use hyper::Method;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde::{Deserialize, Serialize};

use crate::journal::Operation;
use crate::marker::final_name;

/// Which requests a fault or a gate meets: every field that is set must agree. Empty: all requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Matching {
    /// The operation.
    pub operation: Option<Operation>,
    /// The method, upper case.
    pub method: Option<String>,
    /// The whole path (`/api/v1/…`); `*` stands for any run of characters.
    pub path: Option<String>,
    /// The name in the body, without the operator's marker.
    pub name: Option<String>,
    /// The `status` in the body.
    pub active: Option<bool>,
}

impl Matching {
    /// Requests of this operation that carry this name, with or without marker.
    #[must_use]
    pub fn named(operation: Operation, name: &str) -> Self {
        Self { operation: Some(operation), name: Some(name.to_owned()), ..Self::default() }
    }

    /// Requests of this method whose path fits the pattern (`*` is any run of characters).
    #[must_use]
    pub fn path(method: &str, pattern: &str) -> Self {
        Self { method: Some(method.to_owned()), path: Some(pattern.to_owned()), ..Self::default() }
    }

    pub(crate) fn matches(&self, request: &Seen<'_>) -> bool {
        self.operation.is_none_or(|operation| operation == request.operation)
            && self.method.as_deref().is_none_or(|method| method == request.method.as_str())
            && self.path.as_deref().is_none_or(|pattern| glob(pattern, request.path))
            && self.name.as_deref().is_none_or(|name| request.name.is_some_and(|seen| final_name(seen) == name))
            && self.active.is_none_or(|active| request.active == Some(active))
    }
}

impl From<Operation> for Matching {
    fn from(operation: Operation) -> Self {
        Self { operation: Some(operation), ..Self::default() }
    }
}

/// What of a request can be matched.
pub(crate) struct Seen<'a> {
    pub(crate) operation: Operation,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) name: Option<&'a str>,
    pub(crate) active: Option<bool>,
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Times {
    /// The next so many matching requests.
    Next(u64),
    /// Every matching request.
    Always,
    /// Each matching request with this probability; the seed makes the sequence repeatable.
    Chance {
        /// Between 0 and 1.
        probability: f64,
        /// Start of the pseudo-random sequence.
        seed: u64,
    },
}

/// A fault with where and how often it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    #[serde(default)]
    pub on: Matching,
    /// How often.
    pub times: Times,
    /// So many matching requests pass first.
    #[serde(default)]
    pub skip: u64,
    /// What happens.
    pub fault: Fault,
}

/// Names a rule that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u64);

/// What happens to a request: whether its effect takes place, and what the client gets to see.
///
/// Authentication and validation still apply: a request that would be refused commits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// Whether and when the effect takes place.
    pub commit: Commit,
    /// What the client gets.
    pub reply: Reply,
    /// Milliseconds between receiving the request and its effect.
    pub delay_before_ms: u64,
    /// Milliseconds between the effect and the reply.
    pub delay_after_ms: u64,
}

/// Whether and when the effect of a request takes place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Commit {
    /// Before the reply, as it should.
    #[default]
    Now,
    /// Never.
    Never,
    /// Before the reply, and once more after it: something between client and server delivered the request again.
    Twice,
    /// So many milliseconds after it should have; `release_late` brings it forward.
    After {
        /// Milliseconds.
        ms: u64,
    },
    /// When `release_late` is called.
    OnRelease,
}

/// What the client gets to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Reply {
    /// The right answer. Where the effect did not take place yet, `202 {"message": "accepted"}`.
    #[default]
    Normal,
    /// This answer instead of the right one.
    Status {
        /// HTTP status.
        status: u16,
        /// Further headers.
        #[serde(default)]
        headers: Vec<(String, String)>,
        /// The body as it is.
        #[serde(default)]
        body: String,
    },
    /// The connection is closed without an answer.
    Reset,
    /// No answer until the client gives up, at most so many milliseconds; then the connection is closed.
    Hang {
        /// Milliseconds.
        at_most_ms: u64,
    },
    /// The right status, with the first half of the right body, its length consistent: broken JSON.
    Garbled,
    /// The right status and headers; the connection is closed halfway through the body.
    Truncated,
    /// 200 with a page of HTML.
    Html,
    /// 200 with JSON that is no documented answer.
    WrongShape,
    /// The right answer, a few bytes at a time.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// Milliseconds between them.
        every_ms: u64,
    },
    /// 200 with one JSON object of this many bytes.
    Huge {
        /// Bytes.
        bytes: u64,
    },
    /// A redirect.
    Redirect {
        /// HTTP status, 302 for instance.
        status: u16,
        /// Where to.
        location: String,
    },
    /// A listing as it was at an earlier point (`Simulator::point`).
    Stale {
        /// The last change it shows.
        as_of: u64,
    },
    /// A listing without every nth row.
    Partial {
        /// n; 1 leaves out every row.
        every: usize,
    },
    /// A listing without rows.
    Empty,
}

/// Longest time `Fault::lost_answer` keeps a client waiting.
const HANG_MS: u64 = 600_000;

impl Fault {
    /// This commit with this reply.
    #[must_use]
    pub fn new(commit: Commit, reply: Reply) -> Self {
        Self { commit, reply, ..Self::default() }
    }

    /// Refused with this status, nothing done.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let body = format!(r#"{{"statusCode":{status},"message":"simulated"}}"#);
        Self::new(Commit::Never, Reply::Status { status, headers: vec![], body })
    }

    /// Done, but answered with this status.
    #[must_use]
    pub fn status_after_commit(status: u16) -> Self {
        Self { commit: Commit::Now, ..Self::status(status) }
    }

    /// With one more header; only where the reply is `Reply::Status`.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Reply::Status { headers, .. } = &mut self.reply {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Refused with this status and a `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after_seconds(status: u16, seconds: u64) -> Self {
        Self::status(status).with_header("retry-after", &seconds.to_string())
    }

    /// Refused with this status and a `Retry-After` as an HTTP date (whole seconds).
    #[must_use]
    pub fn retry_after_date(status: u16, when: Timestamp) -> Self {
        // Only a year beyond 9999 cannot be written.
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&when).unwrap_or_default();
        Self::status(status).with_header("retry-after", &date)
    }

    /// Connection closed, nothing done.
    #[must_use]
    pub fn reset_before_commit() -> Self {
        Self::new(Commit::Never, Reply::Reset)
    }

    /// Done, but the connection is closed without an answer.
    #[must_use]
    pub fn reset_after_commit() -> Self {
        Self::new(Commit::Now, Reply::Reset)
    }

    /// Done, but no answer until the client gives up (ten minutes at most).
    #[must_use]
    pub fn lost_answer() -> Self {
        Self::new(Commit::Now, Reply::Hang { at_most_ms: HANG_MS })
    }

    /// No answer until the client gives up (ten minutes at most); with `Commit::OnRelease` the effect may still come.
    #[must_use]
    pub fn hang_before(commit: Commit) -> Self {
        Self::new(commit, Reply::Hang { at_most_ms: HANG_MS })
    }

    /// Connection closed now, done when `release_late` is called.
    #[must_use]
    pub fn late_commit() -> Self {
        Self::new(Commit::OnRelease, Reply::Reset)
    }

    /// Delivered twice: done twice.
    #[must_use]
    pub fn delivered_twice() -> Self {
        Self::new(Commit::Twice, Reply::Normal)
    }

    /// The right answer so many milliseconds later.
    #[must_use]
    pub fn slow(ms: u64) -> Self {
        Self { delay_before_ms: ms, ..Self::default() }
    }
}

impl From<Reply> for Fault {
    /// The effect takes place; the client gets this.
    fn from(reply: Reply) -> Self {
        Self::new(Commit::Now, reply)
    }
}

/// A rule at work.
#[derive(Clone, Debug)]
pub(crate) struct ActiveRule {
    pub(crate) id: RuleId,
    pub(crate) rule: Rule,
    pub(crate) hits: u64,
    seen: u64,
    random: u64,
}

impl ActiveRule {
    pub(crate) fn new(id: RuleId, rule: Rule) -> Self {
        let random = if let Times::Chance { seed, .. } = rule.times { seed } else { 0 };
        Self { id, rule, hits: 0, seen: 0, random }
    }

    /// Whether this request meets the fault; counts it either way.
    pub(crate) fn meets(&mut self, request: &Seen<'_>) -> bool {
        if !self.rule.on.matches(request) {
            return false;
        }
        self.seen += 1;
        if self.seen <= self.rule.skip {
            return false;
        }
        let met = match self.rule.times {
            Times::Next(count) => self.hits < count,
            Times::Always => true,
            Times::Chance { probability, .. } => self.next_random() < probability,
        };
        self.hits += u64::from(met);
        met
    }

    /// SplitMix64, scaled to [0, 1).
    fn next_random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create<'a>() -> Seen<'a> {
        Seen {
            operation: Operation::Create,
            method: &Method::POST,
            path: "/api/v1/credential",
            name: Some("a [toolzz-operator 00000000-ffffffff]"),
            active: Some(false),
        }
    }

    #[test]
    fn stars_stand_for_any_run_of_characters() {
        for (pattern, text, expected) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/bc", false),
            ("/a/*", "/a/", true),
            ("*/type/*", "/unity/x/type/llm", true),
            ("/unity/*/type/llm", "/unity/x/type/llm", true),
            ("/unity/*/type/llm", "/unity/x/type/voice", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn every_field_of_a_matching_counts() {
        assert!(Matching::default().matches(&create()));
        assert!(Matching::named(Operation::Create, "a").matches(&create()));
        assert!(!Matching::named(Operation::Create, "b").matches(&create()));
        assert!(!Matching::from(Operation::List).matches(&create()));
        assert!(Matching::path("POST", "*/credential").matches(&create()));
        assert!(!Matching::path("PUT", "*/credential").matches(&create()));
        assert!(!Matching { active: Some(true), ..Matching::default() }.matches(&create()));
    }

    #[test]
    fn counts_and_chances_are_kept() {
        let rule = |times, skip| {
            ActiveRule::new(RuleId(1), Rule { on: Matching::default(), times, skip, fault: Fault::slow(1) })
        };
        let run = |mut rule: ActiveRule, n: usize| (0..n).map(|_| rule.meets(&create())).collect::<Vec<_>>();
        assert_eq!(run(rule(Times::Next(2), 1), 4), [false, true, true, false]);
        let third = Times::Chance { probability: 1.0 / 3.0, seed: 7 };
        let first = run(rule(third, 0), 3000);
        assert_eq!(first, run(rule(third, 0), 3000), "the same seed gives the same faults");
        let met = first.iter().filter(|met| **met).count();
        assert!((900..1100).contains(&met), "{met} of 3000");
    }
}
