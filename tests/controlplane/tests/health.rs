//! The judge of health runs Argo CD's scripts as Argo CD does, and asks kstatus itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "clippy does not take the helpers of tests for tests")]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use test_controlplane::tool;

/// Runs `health COMMAND… --lua` with this script and standard input.
fn health(command: &[&str], script: &str, input: &Value) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("script.lua");
    std::fs::write(&file, script).unwrap();
    let mut child = Command::new(tool("health").unwrap())
        .args(command)
        .arg("--lua")
        .arg(Path::new("script.lua"))
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn object(spec: &Value, status: &Value) -> Value {
    let metadata = json!({"name": "one", "namespace": "default", "generation": 2});
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": metadata, "spec": spec, "status": status})
}

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Because", "message": format!("{kind} is {status}")})
}

#[test]
fn every_object_is_judged_by_both_in_order() {
    let script = r#"
        hs = {status = "Progressing", message = "waiting"}
        if obj.status ~= nil and obj.status.observedGeneration == obj.metadata.generation then
          for i, condition in ipairs(obj.status.conditions) do
            hs.message = i .. ": " .. condition.message
            if condition.type == "Ready" and condition.status == "True" then hs.status = "Healthy" end
            if condition.type == "Stalled" and condition.status == "True" then hs.status = "Degraded" end
          end
        end
        return hs
    "#;
    let status =
        |generation: u32, condition: Value| json!({"observedGeneration": generation, "conditions": [condition]});
    let objects = json!([
        object(&json!({}), &status(2, condition("Ready", "True"))),
        object(&json!({}), &status(1, condition("Ready", "True"))),
        object(&json!({}), &status(2, condition("Stalled", "True"))),
    ]);
    let verdicts = answer(&health(&[], script, &objects));
    let statuses: Vec<_> = verdicts
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| (verdict["kstatus"]["status"].as_str().unwrap(), verdict["argo"]["status"].as_str().unwrap()))
        .collect();
    assert_eq!(statuses, [("Current", "Healthy"), ("InProgress", "Progressing"), ("Failed", "Degraded")]);
    assert_eq!(verdicts[0]["argo"]["message"], "1: Ready is True");
    assert_eq!(verdicts[2]["kstatus"]["message"], "Stalled is True");
}

#[test]
fn a_script_has_the_libraries_that_argo_cd_gives_it() {
    let script = r#"
        local clock = require("os")
        local names = {}
        for name in pairs(clock) do table.insert(names, name) end
        table.sort(names)
        local missing = {}
        for _, name in ipairs({"string", "io", "os", "math", "debug", "coroutine", "channel"}) do
          if _G[name] == nil then table.insert(missing, name) end
        end
        print("for a person to read")
        return {status = "Healthy", message = table.concat(names, " ") .. "; " .. table.concat(missing, " ")}
    "#;
    let verdicts = answer(&health(&[], script, &json!([object(&json!({}), &json!({}))])));
    assert_eq!(verdicts[0]["argo"]["message"], "date time; string io os math debug coroutine channel");
    let methods = health(&[], r#"return {status = ("healthy"):upper()}"#, &json!([object(&json!({}), &json!({}))]));
    assert!(complaint(&methods).contains("upper"));
}

#[test]
fn what_argo_cd_does_not_understand_is_unknown_or_an_error_that_names_the_script() {
    let objects = json!([object(&json!({}), &json!({}))]);
    let verdicts = answer(&health(&[], r#"return {status = "Fine"}"#, &objects));
    assert_eq!(verdicts[0]["argo"]["status"], "Unknown");
    for wrong in ["return {status = ", "return obj.status.a.b", "return nil", "return {}", "error('no')"] {
        let complaint = complaint(&health(&[], wrong, &objects));
        assert!(complaint.contains("script.lua"), "{wrong}: {complaint}");
    }
}

#[test]
fn a_script_that_does_not_end_is_ended() {
    let output = health(&[], "while true do end", &json!([object(&json!({}), &json!({}))]));
    assert!(complaint(&output).contains("not done after"));
}

#[test]
fn an_action_changes_the_object_and_nothing_else_of_it() {
    let script = r#"
        local os = require("os")
        if obj.metadata.annotations == nil then obj.metadata.annotations = {} end
        obj.metadata.annotations["example.com/at"] = os.date("!%Y-%m-%dT%XZ", 0)
        obj.spec.suspend = true
        return obj
    "#;
    let spec =
        json!({"nothing": {}, "list": [{"nothing": {}}, {}], "none": [], "number": 12_345_678_901_i64, "text": "1"});
    let before = object(&spec, &json!({}));
    let mut after = answer(&health(&["action"], script, &before));
    let at = after["metadata"]["annotations"]["example.com/at"].take();
    assert_eq!(at, "1970-01-01T00:00:00Z");
    let mut expected = before;
    expected["metadata"]["annotations"] = json!({"example.com/at": null});
    expected["spec"]["suspend"] = json!(true);
    assert_eq!(after, expected);
    assert!(complaint(&health(&["action"], "return {obj}", &expected)).contains("script.lua"));
}

#[test]
fn the_offered_actions_are_told_by_name() {
    let script = r#"
        local actions = {resume = {}, suspend = {disabled = obj.spec.suspend, displayName = "Suspend"}}
        return actions
    "#;
    let actions = answer(&health(&["discovery"], script, &object(&json!({"suspend": true}), &json!({}))));
    let expected = json!({"resume": {"disabled": false}, "suspend": {"disabled": true, "displayName": "Suspend"}});
    assert_eq!(actions, expected);
    assert_eq!(answer(&health(&["discovery"], "return {}", &object(&json!({}), &json!({})))), json!({}));
}
