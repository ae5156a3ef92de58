//! Conditions: kstatus rules, one place that knows them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What the conditions of a resource shall say: type, status, reason, message.
/// `lastTransitionTime` and `observedGeneration` are added by [`Conditions::merge`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(Vec<(&'static str, Option<bool>, String, String)>);

impl Conditions {
    /// No condition yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition; `status` `None` is Unknown.
    #[must_use]
    pub fn with(
        mut self,
        kind: &'static str,
        status: Option<bool>,
        reason: impl ToString,
        message: impl Into<String>,
    ) -> Self {
        self.0.push((kind, status, reason.to_string(), message.into()));
        self
    }

    /// The conditions to write, given those there are: a transition time is kept while the status is the same,
    /// and conditions of ours that are not listed are dropped.
    /// Source: <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties>
    pub fn merge(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
        self.0
            .into_iter()
            .map(|(kind, status, reason, message)| {
                let status = match status {
                    Some(true) => "True",
                    Some(false) => "False",
                    None => "Unknown",
                };
                let since = condition(before, kind)
                    .filter(|old| old.status == status)
                    .map_or(Time(now), |old| old.last_transition_time.clone());
                Condition {
                    last_transition_time: since,
                    message,
                    observed_generation: generation,
                    reason,
                    status: status.to_owned(),
                    type_: kind.to_owned(),
                }
            })
            .collect()
    }
}

/// The condition of this type, if there is one.
pub fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}
