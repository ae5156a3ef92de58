//! A write is sent only by a process that may, and has ended when somebody else may begin.

use std::time::Duration;

use toolzz_operator::{
    api::Row,
    remote::{Connection, Lost, NotDone, Outcome, Tenure},
};
use toolzz_simulator::{DEFAULT_TOKEN, Operation, Point, Simulator};

use crate::support::*;

/// Longer than the tenures here, and soon over: a write that outlasts its tenure fails its test.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

fn connect_for(simulator: &Simulator, tenure: &Tenure) -> Connection {
    let token = toolzz_operator::remote::TokenSource::fixed(DEFAULT_TOKEN.into());
    connect_with(simulator, token, |config| {
        config.request_timeout = REQUEST_TIMEOUT;
        config.tenure = tenure.clone();
    })
    .0
}

async fn write(connection: &Connection, operation: Operation, row: &Row) -> Outcome<Row> {
    match operation {
        Operation::Create => create(connection, "another").await,
        _ => connection.update(&row.id, &fields("n", row.fields.secret_id.clone(), true), None).await,
    }
}

#[tokio::test]
async fn who_does_not_lead_reads_and_does_not_write() {
    let simulator = Simulator::start();
    let row = done(create(&connect(&simulator), "n").await);
    let tenure = Tenure::none();
    let connection = connect_for(&simulator, &tenure);
    let sent = simulator.journal().len();
    // Never, too short to begin, lost.
    for left in [None, Some(Duration::from_millis(999)), None] {
        match left {
            Some(left) => tenure.extend(connection.clock().now() + left),
            None => tenure.end(),
        }
        for operation in [Operation::Create, Operation::Update] {
            let outcome = write(&connection, operation, &row).await;
            assert!(matches!(outcome, Outcome::NotDone(NotDone::NotLeading { .. })), "{outcome:?}");
        }
    }
    assert_eq!(simulator.journal().len(), sent);
    assert_eq!(done(connection.list(&key()).await).rows.len(), 1);
}

#[tokio::test]
async fn a_write_is_given_up_when_the_tenure_ends() {
    let simulator = Simulator::start();
    let row = done(create(&connect(&simulator), "n").await);
    for operation in [Operation::Create, Operation::Update] {
        let tenure = Tenure::none();
        let connection = connect_for(&simulator, &tenure);
        let gate = simulator.hold(operation, Point::BeforeCommit);
        let left = Duration::from_millis(1200);
        tenure.extend(connection.clock().now() + left);
        match write(&connection, operation, &row).await {
            Outcome::Unknown(unknown) => match unknown.lost {
                Lost::TimedOut(limit) => assert!(limit <= left, "{limit:?}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
        gate.discard();
    }
}

#[tokio::test]
async fn a_write_on_its_way_when_the_lease_is_lost_goes_no_further() {
    let simulator = Simulator::start();
    let row = done(create(&connect(&simulator), "n").await);
    for operation in [Operation::Create, Operation::Update] {
        let tenure = Tenure::unlimited();
        let connection = connect_for(&simulator, &tenure);
        let gate = simulator.hold_next(1, operation, Point::AfterCommit);
        let lost = async {
            gate.until_held(1).await;
            tenure.end();
            gate.release();
        };
        let (outcome, ()) = tokio::join!(write(&connection, operation, &row), lost);
        let given_up = matches!(&outcome, Outcome::Unknown(unknown) if matches!(unknown.lost, Lost::TimedOut(_)));
        assert!(given_up, "{outcome:?}");
    }
}
