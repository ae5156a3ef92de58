//! What the API server was asked, by its own count: a proxy in between would cost what is to be measured.

use std::{collections::BTreeMap, ops::Sub};

use crate::{error::Result, kubernetes::Kubernetes};

const GROUP: &str = "toolzz.com.br";

/// What a request was for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    verb: String,
    group: String,
    resource: String,
}

/// How often the API server was asked for what, whatever it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<Kind, u64>);

impl Requests {
    /// Everything since the API server began.
    pub async fn count(admin: &Kubernetes) -> Result<Self> {
        Ok(Self::read(&admin.text("/metrics").await?))
    }

    fn read(metrics: &str) -> Self {
        let mut all = BTreeMap::new();
        for line in metrics.lines() {
            if let Some((kind, count)) = line.strip_prefix("apiserver_request_total{").and_then(read_line) {
                *all.entry(kind).or_default() += count;
            }
        }
        Self(all)
    }

    fn sum(&self, of: impl Fn(&str, &str, &str) -> bool) -> u64 {
        self.0.iter().filter(|(kind, _)| of(&kind.verb, &kind.group, &kind.resource)).map(|(_, count)| count).sum()
    }

    /// Writes to the resources themselves: the record, the status, the finalizer. Nobody else patches them while it is
    /// counted.
    pub fn writes(&self) -> u64 {
        self.sum(|verb, group, _| verb == "PATCH" && group == GROUP)
    }

    /// Events written.
    pub fn events(&self) -> u64 {
        self.sum(|verb, group, _| verb == "POST" && group == "events.k8s.io")
    }

    /// Secrets read by name: watches and lists of their metadata do not count.
    pub fn secrets_read(&self) -> u64 {
        self.sum(|verb, _, resource| verb == "GET" && resource == "secrets")
    }

    /// Pages of lists, of the operator's own kinds and of Secrets.
    pub fn lists(&self) -> u64 {
        self.sum(|verb, group, resource| verb == "LIST" && (group == GROUP || resource == "secrets"))
    }

    /// Everything the operator asks for: reads of its kinds and of Secrets, writes, events. The lease does not count:
    /// it goes with time.
    pub fn of_the_operator(&self) -> u64 {
        let gets = self.sum(|verb, group, _| verb == "GET" && group == GROUP);
        gets + self.secrets_read() + self.lists() + self.writes() + self.events()
    }
}

impl Sub for &Requests {
    type Output = Requests;

    fn sub(self, earlier: Self) -> Requests {
        let since = |(kind, count): (&Kind, &u64)| {
            let before = earlier.0.get(kind).copied().unwrap_or_default();
            (kind.clone(), count.saturating_sub(before))
        };
        Requests(self.0.iter().map(since).collect())
    }
}

/// The labels and the count of a line, after the opening brace.
fn read_line(line: &str) -> Option<(Kind, u64)> {
    let (labels, count) = line.rsplit_once("} ")?;
    let mut kind = Kind::default();
    // No value of these labels has a comma or a quote in it.
    for label in labels.split(',') {
        let (name, value) = label.split_once('=')?;
        let value = value.trim_matches('"').to_owned();
        match name {
            "verb" => kind.verb = value,
            "group" => kind.group = value,
            "resource" => kind.resource = value,
            _ => {}
        }
    }
    // Large counts are written as 1.234e+06.
    Some((kind, count.trim().parse::<f64>().ok()? as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"
# HELP apiserver_request_total Counter of apiserver requests
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="secrets",scope="resource",subresource="",verb="GET",version="v1"} 12
apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="secrets",scope="resource",subresource="",verb="GET",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="secrets",scope="cluster",subresource="",verb="LIST",version="v1"} 2
apiserver_request_total{code="200",component="apiserver",dry_run="",group="toolzz.com.br",resource="toolzzcredentials",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 1.5e+03
apiserver_request_total{code="200",component="apiserver",dry_run="",group="toolzz.com.br",resource="toolzzcredentials",scope="resource",subresource="",verb="PATCH",version="v1alpha1"} 1000
apiserver_request_total{code="201",component="apiserver",dry_run="",group="events.k8s.io",resource="events",scope="resource",subresource="",verb="POST",version="v1"} 7
apiserver_request_total{code="201",component="apiserver",dry_run="",group="toolzz.com.br",resource="toolzzcredentials",scope="resource",subresource="",verb="POST",version="v1alpha1"} 99
apiserver_request_total{code="200",component="apiserver",dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="PUT",version="v1"} 50
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="secrets",scope="resource",subresource="",verb="PATCH",version="v1"} 400
apiserver_request_terminations_total{code="200",verb="GET"} 5
"#;

    #[test]
    fn what_was_asked_is_read_from_the_metrics() {
        let all = Requests::read(METRICS);
        assert_eq!((all.secrets_read(), all.lists(), all.writes(), all.events()), (15, 2, 2500, 7));
        assert_eq!(all.of_the_operator(), 15 + 2 + 2500 + 7, "neither the lease nor what others create and change");
    }

    #[test]
    fn between_two_counts_is_their_difference() {
        let (before, after) = (Requests::read(""), Requests::read(METRICS));
        assert_eq!((&after - &before).writes(), 2500);
        assert_eq!((&after - &after).of_the_operator(), 0);
    }
}
