//! Nothing the remote side says, and nothing secret, is in what an outcome says.

use std::fmt::{Debug, Display};

use toolzz_operator::remote::{Outcome, TokenSource};
use toolzz_simulator::{CredentialsInAnswers, DEFAULT_TOKEN, Fault, Operation, Reply, Simulator, Times};

use crate::support::*;

/// What the remote side says and nobody may repeat.
const REMOTE_TEXT: &str = "remote-text-9f2c";

fn assert_silent(text: &str) {
    for secret in [KEY_MATERIAL, DEFAULT_TOKEN, REMOTE_TEXT] {
        assert!(!text.contains(secret), "{text}");
    }
}

fn assert_error_silent(error: &(impl Display + Debug)) {
    assert_silent(&format!("{error} {error:?}"));
}

fn check<T: Debug>(outcome: Outcome<T>) {
    assert_silent(&format!("{outcome:?}"));
    match outcome {
        Outcome::Done(_) => {}
        Outcome::NotDone(why) => assert_error_silent(&why),
        Outcome::Unknown(why) => assert_error_silent(&why),
    }
}

#[tokio::test]
async fn no_outcome_repeats_what_came_back() {
    let says = |status| {
        let headers =
            vec![("x-echo".to_owned(), REMOTE_TEXT.to_owned()), ("location".to_owned(), REMOTE_TEXT.to_owned())];
        let body = format!(r#"{{"message":"{REMOTE_TEXT}","credentials":"{KEY_MATERIAL}","token":"{DEFAULT_TOKEN}"}}"#);
        Fault::from(Reply::Status { status, headers, body })
    };
    for status in [200, 202, 302, 400, 401, 403, 404, 408, 409, 422, 429, 500, 503] {
        let simulator = Simulator::start();
        let connection = connect(&simulator);
        let row = done(create(&connection, "n").await);
        for operation in [Operation::Create, Operation::Update, Operation::List] {
            simulator.fault(operation, Times::Always, says(status));
        }
        check(create(&connection, "n").await);
        check(connection.update(&row.id, &row.fields, None).await);
        check(connection.list(&key()).await);
    }
}

#[tokio::test]
async fn a_server_that_echoes_the_request_or_the_token_is_not_repeated() {
    let simulator = Simulator::start();
    let connection = connect(&simulator);
    simulator.configure(|settings| {
        settings.max_name_length = Some(3);
        settings.credentials_in_answers = CredentialsInAnswers::Material;
    });
    check(create(&connection, "too long").await);
    let outcome = create(&connection, "n").await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    check(outcome);
    simulator.set_tokens(vec![]);
    check(connection.list(&key()).await);
    check(connection.list(&key()).await);
    assert_silent(&format!("{:?}", *connection.state().borrow()));
    assert_silent(&format!("{:?}", TokenSource::fixed(DEFAULT_TOKEN.into())));
}
