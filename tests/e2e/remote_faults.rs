//! Every fault of the remote side at every call, one at a time, and in pairs by seed.
//!
//! Each case has a connection and a simulator of its own, and lives through a create, a rotation with a new name, and a
//! deletion. The fault meets the first such call in each of them. `TOOLZZ_FAULT_PAIRS` says how many pairs (40),
//! `TOOLZZ_SEED` where to begin.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::json;
use toolzz_simulator::{Commit, Fault, Operation, Reply, Simulator, Times};

use super::{
    connections::{reference, service},
    sequences::{Dice, number},
    support::*,
};

/// Longer than every retry of two faults after each other takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many live at a time: other tests want their share of the machine.
const AT_ONCE: usize = 24;
const CALLS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::List, Operation::Catalogue];

#[derive(Clone)]
struct Kind {
    name: &'static str,
    fault: Fault,
    /// For how many calls.
    times: u64,
    /// Makes sense for listings only.
    listing: bool,
}

/// What a server says in words must not be repeated.
fn status(status: u16) -> Fault {
    let body = format!(r#"{{"statusCode":{status},"message":"{CANARY} is no good"}}"#);
    Fault::new(Commit::Never, Reply::Status { status, headers: vec![], body })
}

fn kinds() -> Vec<Kind> {
    let once = |name, fault| Kind { name, fault, times: 1, listing: false };
    let listing = |name, reply: Reply| Kind { name, fault: reply.into(), times: 1, listing: true };
    let late = |ms, reply| Fault::new(Commit::After { ms }, reply);
    let body = |body: String| Fault::new(Commit::Now, Reply::Status { status: 200, headers: vec![], body });
    let dated = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(30);
    let mut kinds = vec![
        once("reset before commit", Fault::reset_before_commit()),
        once("reset after commit", Fault::reset_after_commit()),
        once("time-out before commit", Fault::hang_before(Commit::Never)),
        once("time-out after commit", Fault::lost_answer()),
        Kind { times: 2, ..once("time-out, and the retry too", Fault::lost_answer()) },
        once("429, seconds", Fault::retry_after_seconds(429, 1)),
        once("429, date", Fault::retry_after_date(429, dated)),
        once("503, seconds", Fault::retry_after_seconds(503, 1)),
        once("500 before commit", status(500)),
        once("500 after commit", Fault { commit: Commit::Now, ..status(500) }),
        once("HTML", Reply::Html.into()),
        once("truncated", Reply::Truncated.into()),
        once("cut JSON", Reply::Garbled.into()),
        once("wrong shape", Reply::WrongShape.into()),
        once("slow drip", Reply::Drip { bytes: 1, every_ms: 50 }.into()),
        once("1 GiB", Reply::Huge { bytes: 1 << 30 }.into()),
        once("deep JSON", body("[".repeat(100_000))),
        once("redirect", Reply::Redirect { status: 307, location: "http://127.0.0.1:9/".into() }.into()),
        once("delivered twice", Fault::delivered_twice()),
        once("late commit, reset", late(1000, Reply::Reset)),
        once("late commit, time-out", late(2500, Reply::Hang { at_most_ms: 10_000 })),
        listing("stale listing", Reply::Stale { as_of: 0 }),
        listing("partial listing", Reply::Partial { every: 1 }),
        listing("empty listing", Reply::Empty),
    ];
    kinds.extend(
        [(400, "400"), (401, "401"), (403, "403"), (404, "404"), (409, "409"), (413, "413"), (422, "422")]
            .map(|(code, name)| once(name, status(code))),
    );
    kinds
}

/// One life of one credential, and what meets it.
struct Case {
    name: String,
    label: String,
    simulator: Simulator,
    meets: Vec<(Operation, Kind)>,
}

impl Case {
    fn new(number: usize, meets: Vec<(Operation, Kind)>) -> Self {
        let label: Vec<String> = meets.iter().map(|(call, kind)| format!("{} at {call:?}", kind.name)).collect();
        let name = format!("f{number:03}");
        Self { simulator: service(&name), name, label: label.join(" and "), meets }
    }

    fn arm(&self) {
        for (call, kind) in &self.meets {
            self.simulator.fault(*call, Times::Next(kind.times), kind.fault.clone());
        }
    }

    async fn live(&self, lab: &Lab) {
        // A connection that works to begin with: what it makes of faults at its own probes is another test's.
        lab.connect(&self.name, &self.simulator.url(), &self.name).await;
        self.arm();
        lab.credential_with(&self.name, reference("ToolzzConnection", &self.name)).await;
        self.until_as_wished(lab, &self.name, &self.name).await;
        self.arm();
        let renamed = format!("{} renamed", self.name);
        lab.rotate(&self.name, "new").await;
        lab.edit(&self.name, json!({"name": renamed})).await;
        self.until_as_wished(lab, &renamed, "new").await;
        self.arm();
        lab.delete(&self.name).await;
        let gone = async {
            while lab.api().get_opt(&self.name).await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{}: stuck", self.label));
    }

    /// Ready, and one active credential of this name with this material; the user's part is done on the way.
    async fn until_as_wished(&self, lab: &Lab, remote: &str, material: &str) {
        let begun = std::time::Instant::now();
        let mut asked = 0;
        loop {
            let object = lab.api().get(&self.name).await.unwrap();
            let told = object.status.as_ref().and_then(|status| status.observed_generation);
            if let Some((is_ready, ..)) = ready(&object)
                && told == object.metadata.generation
            {
                if is_ready == "True" && self.holds(remote, material) {
                    return;
                }
                // A single answer is final for the operator where the API says so: the user asks again.
                if has_condition(&object, "Stalled") {
                    asked += 1;
                    lab.annotate(&self.name, "toolzz.com.br/reconcile-requested-at", &asked.to_string()).await;
                }
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{}: {:?}\n{:#?}",
                self.label,
                ready(&object),
                self.simulator.journal().iter().rev().take(5).collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    fn holds(&self, remote: &str, material: &str) -> bool {
        let wanted = json!([{"api_key": format!("{CANARY}-{material}")}]);
        matches!(self.simulator.active_named(remote).as_slice(),
            [one] if self.simulator.material_of(one.row.secret_id) == Some(wanted))
    }

    /// How many credentials there are beyond the two that the life takes, and whether each is accounted for.
    fn strays(&self) -> usize {
        let all = self.simulator.credentials();
        assert!(all.iter().all(|one| !one.is_active()), "{}: left active", self.label);
        assert!(self.simulator.read(|state| state.ever_active_while_marked().is_empty()), "{}", self.label);
        let once = self.simulator.max_simultaneously_active(&self.name);
        assert_eq!(once, 1, "{}: more than one active", self.label);
        let strays = all.len() - 2;
        // Only what the network itself doubled, or what two listings in a row hid.
        let delivered =
            self.meets.iter().filter(|(call, kind)| *call == Operation::Create && kind.fault.commit == Commit::Twice);
        assert!(strays <= 2 * delivered.count(), "{}: {strays} strays", self.label);
        strays
    }
}

/// All at once, by one operator; what it came to, for people.
async fn live_through(prefix: &str, cases: Vec<Case>) -> (usize, usize) {
    let mut lab = Lab::empty(prefix).await;
    lab.flags = [
        "--settle-period=4s",
        "--request-timeout=2s",
        "--resync-interval=3s",
        "--allowed-hosts=127.0.0.1",
        "--concurrency=64",
    ]
    .map(str::to_owned)
    .to_vec();
    lab.start_operator();
    // Most of a life is waiting, but not all of it.
    stream::iter(&cases).for_each_concurrent(AT_ONCE, |case| case.live(&lab)).await;
    lab.assert_no_leak().await;
    (cases.len(), cases.iter().map(Case::strays).sum())
}

#[tokio::test]
async fn every_fault_at_every_call_ends_in_agreement() {
    let kinds = kinds();
    let fits = |call: Operation, kind: &Kind| !kind.listing || call == Operation::List;
    let all = CALLS
        .into_iter()
        .flat_map(|call| kinds.iter().filter(move |kind| fits(call, kind)).map(move |kind| (call, kind)));
    let cases: Vec<Case> =
        all.enumerate().map(|(number, (call, kind))| Case::new(number, vec![(call, kind.clone())])).collect();
    let (cases, strays) = live_through("faults", cases).await;
    proof(
        "remote-faults",
        &format!("{} faults, {} calls, {cases} lives, {strays} strays that the network made", kinds.len(), CALLS.len()),
    );
}

#[tokio::test]
async fn pairs_of_faults_end_in_agreement() {
    let (count, seed) = (number("TOOLZZ_FAULT_PAIRS", 40), number("TOOLZZ_SEED", 1));
    let kinds = kinds();
    let mut dice = Dice(seed);
    let mut pick = || loop {
        let call = CALLS[dice.below(CALLS.len() as u64) as usize];
        let kind = &kinds[dice.below(kinds.len() as u64) as usize];
        if !kind.listing || call == Operation::List {
            return (call, kind.clone());
        }
    };
    let cases = (0..count as usize).map(|number| Case::new(number, vec![pick(), pick()])).collect();
    let (cases, strays) = live_through("pairs", cases).await;
    proof("remote-fault-pairs", &format!("{cases} pairs from seed {seed}, {strays} strays that the network made"));
}
