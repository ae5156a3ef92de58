//! The program: its first line, its help, its ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

struct Program {
    child: Child,
    url: String,
}

impl Program {
    fn start(arguments: &[&str], token: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolzz-simulator"));
        command.args(arguments).env("TOOLZZ_SIMULATOR_TOKEN", token).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut url).expect("a line");
        Self { child, url: url.trim().to_owned() }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().expect("its end")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It ended already where this is an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_prints_its_url_and_ends_on_signals_and_with_its_parent() {
    for name in ["TERM", "INT"] {
        let program = Program::start(&[], "t");
        assert!(program.url.starts_with("http://127.0.0.1:") && program.url.ends_with("/api/v1"), "{}", program.url);
        program.signal(name);
        assert!(program.end().success());
    }
    assert!(Program::start(&["--until-stdin-closes"], "t").end().success());
}

#[tokio::test]
async fn it_takes_its_token_and_settings() {
    let program = Program::start(&["--settings", r#"{"catalogue": false}"#], " t\n");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    for (token, expected) in [("t", 404), ("simulator7c1f9e-token5b1f0c", 401)] {
        let request = client
            .get(format!("{}/integration/status", program.url))
            .header("authorization", format!("Bearer {token}"));
        assert_eq!(request.send().await.expect("an answer").status().as_u16(), expected);
    }
}

#[test]
fn it_says_what_is_wrong() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolzz-simulator"));
        command.args(arguments).env_remove("TOOLZZ_SIMULATOR_TOKEN").output().expect("it runs")
    };
    let missing = run(&["--token-file", "/nonexistent/token"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("cannot read the token file /nonexistent/token"));
    assert!(!run(&["--settings", "{\"nonsense\": 1}"]).status.success());
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("/_sim/faults"));
}
