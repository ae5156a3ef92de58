//! Alerts and dashboard, against the metrics and reasons that there really are.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use toolzz_operator::api::{Class, Reason};

use super::docs::{Page, ROOT, pages};

/// Every expression of the alerts and of the dashboard's panels, with where it stands.
fn expressions() -> Vec<(String, String)> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/toolzz-operator/files");
    let alerts: Value =
        serde_saphyr::from_str(&fs::read_to_string(files.join("alerts.yaml")).unwrap()).expect("alerts.yaml");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(files.join("dashboard.json")).unwrap()).expect("dashboard.json");
    let rules = alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let mut all: Vec<_> = rules
        .map(|rule| (rule["alert"].as_str().unwrap().to_owned(), rule["expr"].as_str().unwrap().to_owned()))
        .collect();
    find(&dashboard, "expr", &mut all);
    assert!(all.len() > 30, "{all:?}");
    all
}

/// Every text under this key, however deep.
fn find(value: &Value, key: &str, all: &mut Vec<(String, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| find(item, key, all)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if name == key => all.push(("a panel".to_owned(), text.to_owned())),
                    _ => find(field, key, all),
                }
            }
        }
        _ => {}
    }
}

/// The words of an expression that begin so.
fn words<'a>(expression: &'a str, beginning: &str) -> impl Iterator<Item = &'a str> {
    let word = |one: char| one.is_ascii_alphanumeric() || one == '_';
    expression.split(move |one| !word(one)).filter(move |one| one.starts_with(beginning))
}

/// The values that a label is compared with: `a` and `b` of `reason=~"a|b"`.
fn values<'a>(expression: &'a str, label: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    for (at, _) in expression.match_indices(label) {
        let rest = expression[at + label.len()..].trim_start_matches(['=', '~', '!', ' ']);
        if let Some((inner, _)) = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
            all.extend(inner.split('|'));
        }
    }
    all
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    // With shards it has every metric.
    let mut lab = super::leader::lab("monitoring").await;
    lab.environment.push(("TOOLZZ_SHARDS", "2".to_owned()));
    lab.start_operator();
    lab.credential("openai").await;
    lab.until_ready("openai").await;
    // What counts passes is there when the first has ended.
    lab.operator.as_ref().unwrap().until_metric("toolzz_operator_reconciles_running 0").await;
    let (_, metrics) = lab.operator.as_ref().unwrap().get("/metrics");
    let families: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let is_there = |name: &str| {
        let family = ["_total", "_bucket", "_count", "_sum", "_info"].iter().find_map(|end| name.strip_suffix(end));
        families.contains(name) || family.is_some_and(|family| families.contains(family))
    };
    for (place, expression) in expressions() {
        for name in words(&expression, "toolzz_operator_") {
            assert!(is_there(name), "{place}: there is no metric {name} among {families:?}");
        }
        for reason in values(&expression, "reason") {
            assert!(Reason::from_name(reason).is_some(), "{place}: there is no reason {reason}");
        }
    }
    // The page names what there is, and no page anything else.
    let list = fs::read_to_string(Path::new(ROOT).join("docs/monitoring.md")).unwrap();
    for family in &families {
        assert!(list.contains(&format!("| `{family}")), "docs/monitoring.md: {family}");
    }
    for page in pages() {
        for name in words(&page.text, "toolzz_operator_") {
            assert!(is_there(name), "{}: there is no metric {name}", page.path.display());
        }
    }
    for line in ["toolzz_operator_ready 1", "toolzz_operator_leader 1"] {
        assert!(metrics.lines().any(|one| one == line), "{line}");
    }
}

#[test]
fn the_panel_of_leaders_asks_what_the_alerts_ask() {
    let bare = |text: &str| -> String {
        text.replace(r#"{namespace=~"$namespace", job=~"$job"}"#, "").split_whitespace().collect()
    };
    let all: Vec<_> = expressions().into_iter().map(|(place, expression)| (place, bare(&expression))).collect();
    for alert in ["ToolzzOperatorLeaderMissing", "ToolzzOperatorSeveralLeaders"] {
        let (_, asked) = all.iter().find(|(place, _)| place == alert).unwrap();
        let mut panels = all.iter().filter(|(place, _)| place == "a panel");
        assert!(panels.any(|(_, panel)| panel.contains(asked)), "{alert}: no panel asks for {asked}");
    }
}

#[test]
fn what_an_alert_asks_for_is_shown_by_a_panel() {
    let all = expressions();
    let (panels, alerts): (Vec<_>, Vec<_>) = all.iter().partition(|(place, _)| place == "a panel");
    let shown: BTreeSet<&str> =
        panels.iter().flat_map(|(_, expression)| words(expression, "toolzz_operator_")).collect();
    assert!(alerts.len() >= 18, "{alerts:?}");
    for (alert, expression) in alerts {
        for name in words(expression, "toolzz_operator_") {
            assert!(shown.contains(name), "{alert}: no panel shows {name}");
        }
    }
}

#[test]
fn panels_of_what_waits_and_of_what_is_stalled_name_every_such_reason() {
    let of = |class: Class| -> BTreeSet<&str> {
        Reason::ALL.iter().filter(|reason| reason.class() == class).map(|reason| reason.as_str()).collect()
    };
    let classes = [of(Class::Waiting), of(Class::Stalled)];
    let all = expressions();
    let panels = all.iter().filter(|(place, _)| place == "a panel");
    let lists = panels.map(|(_, expression)| values(expression, "reason").into_iter().collect::<BTreeSet<_>>());
    let lists: Vec<_> = lists.filter(|list| list.len() > 1).collect();
    for list in &lists {
        assert!(classes.contains(list), "a panel asks for some reasons of a kind, or of several: {list:?}");
    }
    for class in &classes {
        assert!(lists.contains(class), "no panel asks for {class:?}");
    }
}

/// Of a unity that several shards read, each sees the same strays.
#[test]
fn strays_are_not_added_up_over_the_pods_of_an_installation() {
    let (name, mut seen) = ("toolzz_operator_stray_credentials", 0);
    for (place, expression) in expressions() {
        for (at, _) in expression.match_indices(name) {
            seen += 1;
            let before = &expression[..at];
            let ways = ["max by (namespace, job) (", "max by (namespace, job) (max_over_time("];
            assert!(ways.iter().any(|way| before.ends_with(way)), "{place}: {expression}");
        }
    }
    assert_eq!(seen, 3);
}

/// Every text between quotes in the sources: values of labels, and what is logged.
fn literals() -> String {
    let sources = super::docs::everywhere("rs").into_iter().filter(|path| path.starts_with("src"));
    sources.map(|path| fs::read_to_string(Path::new(ROOT).join(path)).unwrap()).collect()
}

#[test]
fn alerts_and_dashboard_compare_labels_with_what_they_can_be() {
    let sources = literals();
    let mut compared = 0;
    for (place, expression) in expressions() {
        for value in ["outcome", "operation"].iter().flat_map(|label| values(&expression, label)) {
            compared += 1;
            assert!(sources.contains(&format!("\"{value}\"")), "{place}: nothing is {value}");
        }
    }
    assert!(compared >= 4, "{compared}");
}

#[test]
fn runbooks_look_for_what_the_operator_logs() {
    let sources = literals();
    let mut looked = 0;
    for page in pages().iter().filter(|page| page.path.starts_with("docs/runbooks")) {
        let lines = page.blocks.iter().flat_map(|block| block.text.lines());
        for line in lines.filter(|line| line.contains(" logs ")) {
            let Some((_, sought)) = line.split_once("grep '") else { continue };
            let sought = sought.trim_end_matches('\'');
            looked += 1;
            assert!(sources.contains(sought), "{}: nothing logs {sought}", page.path.display());
        }
    }
    assert!(looked >= 5, "{looked}");
}

#[test]
fn every_outcome_of_a_call_is_on_its_page() {
    let page = Page::read("docs/monitoring.md").text;
    let source = fs::read_to_string(Path::new(ROOT).join("src/remote/outcome.rs")).unwrap();
    let labels = source.lines().filter_map(|line| line.split_once("=> \"")?.1.strip_suffix("\","));
    let mut named = 0;
    for label in labels.filter(|label| *label != "not_sent") {
        named += 1;
        assert!(page.contains(&format!("`{label}`")), "{label}");
    }
    assert!(named >= 10, "{named}");
}

#[test]
fn every_reason_that_somebody_must_know_of_is_in_an_alert() {
    let expressions = expressions();
    let told: BTreeSet<&str> = expressions
        .iter()
        .filter(|(place, _)| place.starts_with("Toolzz"))
        .flat_map(|(_, expression)| values(expression, "reason"))
        .collect();
    for reason in Reason::ALL.iter().filter(|reason| matches!(reason.class(), Class::Waiting | Class::Stalled)) {
        assert!(told.contains(reason.as_str()), "{reason} is in no alert");
    }
}
