//! What uninstalling would do to what there is, and what to say of it.

use std::collections::BTreeSet;

use kube::{ResourceExt as _, core::ObjectMeta};

use super::{Error, Found, join};
use crate::{
    api::{ConnectionKey, DeletionPolicy, FINALIZER, LEDGER_ANNOTATION, ToolzzCredential, condition},
    secrets::KEY_SECRET,
};

const HOW: &str = "\
Marked with !: what would be lost or stuck.

Uninstalling the chart deletes no ToolzzCredential while the CustomResourceDefinitions are kept. The resources stay, with
their finalizers; their credentials stay at Toolzz as they are, and nobody manages them. That is harmless while the
installation key stays, and until somebody deletes such a resource, or its namespace, without an operator: then that hangs.

How to go:
  1. While the operator runs: delete the ToolzzCredentials and wait until they are gone, then their connections.
     Set deletionPolicy: Retain before, where a credential shall stay active.
  2. Uninstall the operator (helm uninstall).
  3. Delete the CustomResourceDefinitions.
";

/// A line of the table.
#[derive(Debug)]
struct Line {
    /// Something would be lost or stuck.
    problem: bool,
    what: String,
    state: String,
    deletion: String,
}

impl Line {
    /// Of something that is no problem by itself.
    fn of(what: String, state: impl Into<String>, deletion: impl Into<String>) -> Self {
        Self { problem: false, what, state: state.into(), deletion: deletion.into() }
    }
}

/// What uninstalling would do to each.
fn judge(found: &Found) -> Vec<Line> {
    let Found { credentials, connections, definitions, operators, .. } = found;
    let users = |key: &ConnectionKey| credentials.iter().filter(|object| ConnectionKey::of(object) == *key).count();
    let served = |object: &ToolzzCredential| found.is_served(&object.namespace().unwrap_or_default());
    let credentials = credentials.iter().map(|object| credential(object, served(object)));
    let connections = connections.iter().map(|key| connection(key, users(key)));
    let definitions = definitions.iter().map(|meta| definition(meta, found.may_have_resources()));
    let operators = operators.iter().map(|operator| {
        Line::of(operator.what.clone(), operator.state.clone(), "leaves deletions to nobody: they hang")
    });
    credentials.chain(connections).chain(definitions).chain(operators).collect()
}

fn credential(object: &ToolzzCredential, served: bool) -> Line {
    let (meta, status) = (&object.metadata, object.status.as_ref());
    let held = object.finalizers().iter().any(|one| one == FINALIZER);
    let id = status.and_then(|status| status.id.as_ref());
    let recorded = held || id.is_some() || object.annotations().contains_key(LEDGER_ANNOTATION);

    let mut state = match (id, status.and_then(|status| status.active)) {
        (Some(id), Some(false)) => format!("inactive, id {id}"),
        (Some(id), _) => format!("active, id {id}"),
        (None, _) if recorded => "being created".to_owned(),
        (None, _) => "nothing at Toolzz".to_owned(),
    };
    let superseded = status.map_or(0, |status| status.retiring.len());
    if superseded > 0 {
        state += &format!(", {superseded} superseded");
    }
    // Where Toolzz cannot be reached nothing is switched off.
    let ready = status.and_then(|status| condition(&status.conditions, "Ready"));
    if let Some(ready) = ready.filter(|ready| ready.status != "True") {
        state += &format!(", not ready: {}", ready.reason);
    }
    let deletion = match (meta.deletion_timestamp.is_some(), object.spec.deletion_policy.unwrap_or_default()) {
        (true, _) if held && served => "waits for the operator: stuck if that goes first".to_owned(),
        (true, _) if held => "waits for an operator, and none was seen: stuck".to_owned(),
        (true, _) => format!("waits for {}", object.finalizers().join(", ")),
        (false, _) if !recorded => "changes nothing at Toolzz".to_owned(),
        (false, DeletionPolicy::Deactivate) => "switches it off: what uses its virtual key stops".to_owned(),
        (false, DeletionPolicy::Retain) => "leaves it as it is: nobody manages it then".to_owned(),
    };
    if meta.deletion_timestamp.is_some() {
        state = format!("being deleted; {state}");
    }
    let what = format!("ToolzzCredential/{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    Line { problem: recorded, ..Line::of(what, state, deletion) }
}

fn connection(key: &ConnectionKey, users: usize) -> Line {
    let deletion = match users {
        0 => "changes nothing at Toolzz",
        _ => "leaves what uses it without a way to Toolzz: delete that first",
    };
    Line::of(key.to_string(), format!("used by {users}"), deletion)
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The Helm release it belongs to: namespace and name.
fn release(meta: &ObjectMeta) -> Option<(&str, &str)> {
    let name = annotation(meta, "meta.helm.sh/release-name")?;
    Some((annotation(meta, "meta.helm.sh/release-namespace").unwrap_or_default(), name))
}

fn is_annotated(meta: &ObjectMeta) -> bool {
    annotation(meta, "helm.sh/resource-policy") == Some("keep")
}

/// `used`: there may be resources that would go with it.
fn definition(meta: &ObjectMeta, used: bool) -> Line {
    let (state, problem) = match (&meta.deletion_timestamp, release(meta)) {
        (Some(_), _) => ("being deleted", used),
        (None, Some(_)) if is_annotated(meta) => ("annotated to be kept by helm uninstall", false),
        (None, Some(_)) => ("deleted by helm uninstall", used),
        (None, None) => ("of no Helm release", false),
    };
    let what = format!("CustomResourceDefinition/{}", meta.name.as_deref().unwrap_or_default());
    Line { problem, ..Line::of(what, state, "deletes all its resources in the cluster") }
}

/// How it is, and what to say.
pub(super) fn report(found: &Found, namespaces: &BTreeSet<String>) -> (Result<(), Error>, String) {
    let lines = judge(found);
    let problems = lines.iter().filter(|line| line.problem).count();
    let mut text = if lines.is_empty() { String::new() } else { table(&lines) + "\n" };
    let verdict = match problems {
        0 if found.unseen.is_empty() => Ok(()),
        0 => Err(Error::NotKnown),
        _ => Err(Error::Findings(problems)),
    };
    if problems > 0 {
        text += HOW;
        text += &unserved(found);
    } else if verdict.is_ok() && namespaces.is_empty() {
        text += "Nothing would be lost or stuck.\n";
    } else if verdict.is_ok() {
        text += &format!("Nothing would be lost or stuck in {}.\n", join(namespaces));
        text += "Resources of other namespaces are not named here, and uninstalling concerns them too.\n";
    }
    if !found.unseen.is_empty() {
        text += &format!("\nCould not be looked at, by lack of rights: {}.\n", join(&found.unseen));
    }
    if found.may_have_resources() {
        text += &kept(found);
    }
    (verdict, text)
}

/// Where nobody works who would let resources go.
fn unserved(found: &Found) -> String {
    let held = found.credentials.iter().filter(|object| credential(object, false).problem);
    let alone: BTreeSet<String> =
        held.filter_map(|object| object.namespace()).filter(|namespace| !found.is_served(namespace)).collect();
    let place = match found.operators.as_slice() {
        [] => String::new(),
        _ if alone.is_empty() => return String::new(),
        _ => format!(" that works in {}", join(&alone)),
    };
    format!(
        "\nNo operator at work was seen{place}. If there is none, every deletion of step 1 hangs: install it again first.\n"
    )
}

/// What the resources need that stay.
fn kept(found: &Found) -> String {
    let homes: BTreeSet<&str> = found.operators.iter().map(|operator| operator.home.as_str()).collect();
    let home = if homes.is_empty() { "the operator's namespace".to_owned() } else { join(&homes) };
    let mut text = format!(
        "\nThe installation key, the Secret {KEY_SECRET} in {home}, is not deleted by helm uninstall. Resources that are kept \
         need it: delete neither the key nor its namespace before them.\n"
    );
    let annotated = found.definitions.iter().filter(|meta| is_annotated(meta));
    let releases: BTreeSet<(&str, &str)> = annotated.filter_map(release).collect();
    for (namespace, name) in releases {
        text += &format!(
            "\nHelm goes by what its release says of the CustomResourceDefinitions, not by their annotations. To see it: \
             helm get manifest {name} -n {namespace} | grep resource-policy\n"
        );
    }
    text
}

fn table(lines: &[Line]) -> String {
    let mark = |line: &Line| if line.problem { "!" } else { " " };
    let mut rows = vec![[" ", "RESOURCE", "STATE", "DELETING IT"]];
    rows.extend(lines.iter().map(|line| [mark(line), line.what.as_str(), line.state.as_str(), line.deletion.as_str()]));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let (first, second) = (width(1), width(2));
    rows.iter()
        .map(|[mark, what, state, deletion]| format!("{mark} {what:first$}  {state:second$}  {deletion}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::uninstall::Operator;

    fn object(meta: Value, spec: Value, status: Value) -> ToolzzCredential {
        let mut object = json!({
            "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzCredential",
            "metadata": {"namespace": "ai", "name": "openai"},
            "spec": {"userId": "u", "unityId": "u", "credentials": []}, "status": status,
        });
        for (part, fields) in [("metadata", meta), ("spec", spec)] {
            object[part].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        }
        serde_json::from_value(object).unwrap()
    }

    fn held() -> Value {
        json!({"finalizers": [FINALIZER]})
    }

    fn deleted(finalizer: &str) -> Value {
        json!({"finalizers": [finalizer], "deletionTimestamp": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn what_is_at_toolzz_or_waits_for_the_operator_is_a_problem() {
        let none = || json!({});
        let active = || json!({"id": "one", "active": true});
        for (meta, spec, status, served, problem, state, deletion) in [
            (none(), none(), none(), true, false, "nothing at Toolzz", "changes nothing"),
            (held(), none(), none(), true, true, "being created", "switches it off"),
            (held(), none(), active(), true, true, "active, id one", "switches it off"),
            (none(), none(), active(), true, true, "active, id one", "switches it off"),
            (held(), none(), json!({"id": "one", "active": false}), true, true, "inactive, id one", "switches it off"),
            (held(), json!({"deletionPolicy": "Retain"}), active(), true, true, "active, id one", "nobody manages it"),
            (deleted(FINALIZER), none(), active(), true, true, "being deleted; active", "if that goes first"),
            (deleted(FINALIZER), none(), active(), false, true, "being deleted; active", "none was seen: stuck"),
            (deleted("example.com/x"), none(), none(), false, false, "being deleted", "waits for example.com/x"),
        ] {
            let line = credential(&object(meta, spec, status), served);
            assert_eq!(line.what, "ToolzzCredential/ai/openai");
            assert_eq!(line.problem, problem, "{line:?}");
            assert!(line.state.starts_with(state) && line.deletion.contains(deletion), "{line:?}");
        }
        let retiring = json!({"id": "two", "active": true, "retiring": [{"id": "one"}]});
        assert_eq!(credential(&object(held(), none(), retiring), true).state, "active, id two, 1 superseded");
        let refused = json!({"id": "one", "active": true, "conditions": [{
            "type": "Ready", "status": "False", "reason": "Unauthorized", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        assert_eq!(credential(&object(held(), none(), refused), true).state, "active, id one, not ready: Unauthorized");
        let ledger = json!({"annotations": {LEDGER_ANNOTATION: "{}"}});
        assert!(credential(&object(ledger, none(), none()), true).problem);
    }

    #[test]
    fn a_definition_is_a_problem_where_it_takes_resources_along() {
        let keep = ("helm.sh/resource-policy", "keep");
        let helm = ("meta.helm.sh/release-name", "op");
        for (annotations, deleted, used, problem, state) in [
            (vec![helm, keep], false, true, false, "annotated to be kept by helm uninstall"),
            (vec![helm], false, true, true, "deleted by helm uninstall"),
            (vec![helm], false, false, false, "deleted by helm uninstall"),
            (vec![], false, true, false, "of no Helm release"),
            (vec![helm, keep], true, true, true, "being deleted"),
        ] {
            let annotations = annotations.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            let meta = ObjectMeta {
                annotations: Some(annotations.collect()),
                deletion_timestamp: deleted.then_some(Time(Timestamp::UNIX_EPOCH)),
                ..ObjectMeta::default()
            };
            let line = definition(&meta, used);
            assert_eq!((line.problem, line.state.as_str()), (problem, state));
        }
    }

    #[test]
    fn a_connection_is_counted_by_who_uses_it_and_an_operator_is_seen() {
        let by_own = json!({"connectionRef": {"kind": "ToolzzConnection", "name": "own"}});
        let mut found = Found {
            credentials: vec![object(held(), by_own, json!({"id": "one"}))],
            connections: vec![
                ConnectionKey { namespace: Some("ai".to_owned()), name: "own".to_owned() },
                ConnectionKey::default_of_cluster(),
            ],
            ..Found::default()
        };
        let lines = judge(&found);
        let states: Vec<&str> = lines.iter().map(|line| line.state.as_str()).collect();
        assert_eq!(states, ["active, id one", "used by 1", "used by 0"]);
        let (verdict, text) = report(&found, &BTreeSet::new());
        assert!(matches!(verdict, Err(Error::Findings(1))), "{verdict:?}");
        assert!(
            text.contains("! ToolzzCredential/ai/openai") && text.contains("No operator at work was seen"),
            "{text}"
        );
        assert!(text.contains("  ToolzzConnection/ai/own"), "{text}");

        found.operators.push(operator(&[]));
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(text.contains("Deployment/toolzz/op") && !text.contains("No operator at work"), "{text}");
    }

    fn operator(namespaces: &[&str]) -> Operator {
        Operator {
            what: "Deployment/toolzz/op".to_owned(),
            state: "an operator, 1 ready".to_owned(),
            home: "toolzz".to_owned(),
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn another_tenants_operator_lets_nothing_go() {
        let waiting = object(deleted(FINALIZER), json!({}), json!({"id": "one"}));
        for (namespaces, alone) in [(&["data"][..], true), (&["data", "ai"], false), (&[], false)] {
            let operators = vec![operator(namespaces)];
            let found = Found { credentials: vec![waiting.clone()], operators, ..Found::default() };
            let (_, text) = report(&found, &BTreeSet::new());
            assert_eq!(text.contains("none was seen: stuck"), alone, "{text}");
            assert_eq!(text.contains("No operator at work was seen that works in ai."), alone, "{text}");
        }
    }

    /// A definition of Helm's, with these annotations beside.
    fn of_helm(annotations: &[(&str, &str)]) -> ObjectMeta {
        let release = [("meta.helm.sh/release-name", "op"), ("meta.helm.sh/release-namespace", "toolzz")];
        let all = release.iter().chain(annotations).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ObjectMeta { annotations: Some(all.collect()), ..ObjectMeta::default() }
    }

    #[test]
    fn a_definition_that_goes_is_a_problem_also_where_the_named_namespaces_are_empty() {
        let named = BTreeSet::from(["ai".to_owned()]);
        for (there, expected) in [(Some(true), Some(1)), (None, Some(1)), (Some(false), None)] {
            let found = Found { definitions: vec![of_helm(&[])], any: there, ..Found::default() };
            let (verdict, text) = report(&found, &named);
            let problems = match verdict {
                Ok(()) => None,
                Err(Error::Findings(problems)) => Some(problems),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(problems, expected, "{there:?}: {text}");
        }
    }

    #[test]
    fn what_may_not_be_looked_at_is_named_and_no_good_news() {
        for named in [BTreeSet::new(), BTreeSet::from(["ai".to_owned()])] {
            let unseen = BTreeSet::from(["the CustomResourceDefinitions", "the Leases of all namespaces"]);
            let (verdict, text) = report(&Found { any: Some(false), unseen, ..Found::default() }, &named);
            assert!(matches!(verdict, Err(Error::NotKnown)), "{verdict:?}");
            let told = "by lack of rights: the CustomResourceDefinitions, the Leases of all namespaces.";
            assert!(text.contains(told) && !text.contains("Nothing would be lost"), "{text}");
        }
    }

    #[test]
    fn what_stays_is_told_what_it_needs_and_by_what_it_stays() {
        let keep = of_helm(&[("helm.sh/resource-policy", "keep")]);
        let mut found = Found { definitions: vec![keep.clone(), keep], any: Some(true), ..Found::default() };
        let (verdict, text) = report(&found, &BTreeSet::from(["ai".to_owned()]));
        assert!(verdict.is_ok(), "{text}");
        assert!(text.contains("the Secret toolzz-operator-installation-key in the operator's namespace"), "{text}");
        assert_eq!(text.matches("helm get manifest op -n toolzz").count(), 1, "{text}");
        found.operators.push(operator(&[]));
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(text.contains("the Secret toolzz-operator-installation-key in toolzz,"), "{text}");
        found.any = Some(false);
        let (_, text) = report(&found, &BTreeSet::new());
        assert!(!text.contains("installation-key") && !text.contains("helm get"), "{text}");
    }

    #[test]
    fn the_page_explains_what_is_said() {
        let all = [include_str!("judge.rs"), include_str!("look.rs")];
        let said = all.map(|text| text.split("#[cfg(test)]").next().unwrap()).concat();
        let rows = include_str!("../../../docs/uninstall.md").lines().filter_map(|line| line.strip_prefix("| `"));
        let quoted: Vec<&str> = rows.flat_map(|row| row.split(" | ").next().unwrap().split('`').step_by(2)).collect();
        assert!(quoted.len() > 8, "{quoted:?}");
        for text in quoted.into_iter().filter(|text| !text.is_empty()) {
            assert!(said.contains(text), "nobody says {text:?}");
        }
    }

    #[test]
    fn where_there_is_nothing_it_says_so_and_where_it_looked() {
        let none = Found { any: Some(false), ..Found::default() };
        let (verdict, text) = report(&none, &BTreeSet::new());
        assert!(verdict.is_ok() && text == "Nothing would be lost or stuck.\n", "{text}");
        let named = BTreeSet::from(["data".to_owned(), "ai".to_owned()]);
        let (verdict, text) = report(&none, &named);
        let told = "Nothing would be lost or stuck in ai, data.\nResources of other namespaces are not named here";
        assert!(verdict.is_ok() && text.starts_with(told), "{text}");
    }
}
