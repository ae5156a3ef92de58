//! Several operators share the namespaces: each shard has a Lease and one holder, whoever comes and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    time::{Duration, Instant},
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use toolzz_operator::runtime::Share;
use toolzz_simulator::{Gate, Operation, Point};

use super::{
    leader::{LEASE, lab},
    support::*,
};

const SHARDS: u16 = 3;
/// Far beyond what taking and handing over takes.
const PATIENCE: Duration = Duration::from_secs(90);
/// What a takeover may take beyond the lease of who is gone: some tries to take it, on a busy machine.
const TAKEOVER: Duration = Duration::from_secs(15);

/// A room with namespaces of every shard; `--namespaces` of its operators names them all.
struct Shards {
    lab: Lab,
    namespaces: Vec<String>,
}

fn all() -> impl Iterator<Item = Share> {
    Share::all(NonZeroU16::new(SHARDS).unwrap())
}

impl Shards {
    async fn new(prefix: &str) -> Self {
        let mut lab = lab(prefix).await;
        let mut namespaces = Vec::new();
        // Two of each.
        let missing = |namespaces: &[String]| {
            all().any(|share| namespaces.iter().filter(|namespace| share.has(namespace)).count() < 2)
        };
        while missing(&namespaces) {
            namespaces.push(lab.plane.unique_namespace(prefix).await.unwrap());
        }
        lab.environment.push(("TOOLZZ_SHARDS", SHARDS.to_string()));
        lab.scope = Some(namespaces.clone());
        Self { lab, namespaces }
    }

    /// A credential of this name in every namespace, under names that Toolzz can tell apart.
    async fn create(&mut self, name: &str) {
        for namespace in &self.namespaces {
            self.lab.namespace.clone_from(namespace);
            self.lab.credential_with(name, json!({"name": format!("{namespace}-{name}")})).await;
        }
    }

    /// Waits until all of this name are ready; each was created once, and none ever twice active.
    async fn until_ready(&mut self, name: &str) {
        for namespace in &self.namespaces {
            self.lab.namespace.clone_from(namespace);
            self.lab.until_ready(name).await;
            self.lab.assert_one_active(&format!("{namespace}-{name}"));
        }
    }

    /// Who holds each shard.
    async fn holders(&self) -> Vec<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.lab.client.clone(), &self.lab.home);
        let mut holders = Vec::new();
        for share in all() {
            let lease = leases.get_opt(&format!("toolzz-operator-{}", share.shard())).await.unwrap();
            holders.push(lease.and_then(|lease| lease.spec?.holder_identity));
        }
        holders
    }

    /// Waits until somebody has asked for a shard so many times, one after the other.
    async fn until_asked(&self, times: usize) {
        let leases: Api<Lease> = Api::namespaced(self.lab.client.clone(), &self.lab.home);
        let asked = async {
            let mut versions = BTreeSet::new();
            while versions.len() < times {
                let lease = leases.get_opt("toolzz-operator-asking").await.unwrap();
                let asking =
                    lease.filter(|lease| lease.spec.as_ref().is_some_and(|spec| spec.holder_identity.is_some()));
                versions.extend(asking.and_then(|lease| lease.metadata.resource_version));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("nobody asks for a shard");
    }

    /// Waits until these share the shards evenly, and nobody that is gone has any; all the time no two of them work on one.
    async fn until_shared_by(&self, operators: &[&Operator], gone: &[String]) -> Vec<String> {
        let count = operators.len();
        let shared = async {
            loop {
                self.assert_no_two(operators);
                let holders = self.holders().await;
                let mut each: BTreeMap<String, usize> = BTreeMap::new();
                holders.iter().flatten().for_each(|holder| *each.entry(holder.clone()).or_default() += 1);
                let even = each.values().max().unwrap_or(&0) - each.values().min().unwrap_or(&0) < 2;
                let held = holders.iter().all(Option::is_some);
                if held && even && each.len() == count && !gone.iter().any(|gone| each.contains_key(gone)) {
                    return holders.into_iter().flatten().collect();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, shared).await.unwrap_or_else(|_| panic!("not shared by {count}"))
    }

    /// No two of these work on one shard, by their own word.
    fn assert_no_two(&self, operators: &[&Operator]) {
        let work_on = |share: Share, among: &[&Operator]| -> usize {
            let line = format!("toolzz_operator_shard{{shard=\"{}\"}} 1", share.shard());
            among.iter().filter(|one| one.get("/metrics").1.lines().any(|each| each == line)).count()
        };
        for share in all() {
            // They are asked one after another: between the answers one may have handed it over, but not twice.
            let two = work_on(share, operators) > 1 && work_on(share, operators) > 1;
            assert!(!two, "two work on shard {}", share.shard());
        }
    }
}

#[tokio::test]
async fn three_share_the_work_and_one_that_comes_or_goes_doubles_nothing() {
    let _turn = turn().await;
    let mut room = Shards::new("shards").await;
    let first = room.lab.another_operator();
    let alone = room.until_shared_by(&[&first], &[]).await;
    room.create("a").await;
    room.until_ready("a").await;
    // One comes, and another: each gets its part, handed over in order.
    let second = room.lab.another_operator();
    let mut third = room.lab.another_operator();
    room.create("b").await;
    let three = room.until_shared_by(&[&first, &second, &third], &[]).await;
    assert!(three.contains(&alone[0]));
    room.until_ready("b").await;
    // One is killed: its shard is taken over within the lease.
    let before = room.holders().await;
    third.kill();
    let killed = Instant::now();
    room.create("c").await;
    let two = room.until_shared_by(&[&first, &second], &[]).await;
    assert!(killed.elapsed() < LEASE + TAKEOVER, "{:?}", killed.elapsed());
    assert!(two.iter().zip(before).filter(|(now, before)| Some((*now).clone()) != *before).count() == 1);
    room.until_ready("c").await;
    // One ends: at once.
    assert_eq!(second.terminate(), Some(0));
    room.create("d").await;
    room.until_shared_by(&[&first], &[]).await;
    room.until_ready("d").await;
    let created = 4 * room.namespaces.len() as u64;
    assert_eq!((room.lab.simulator.posts(), room.lab.simulator.puts()), (created, created));
    assert_eq!(first.terminate(), Some(0));
    assert_eq!(room.holders().await, [const { None }; SHARDS as usize]);
}

#[tokio::test]
async fn one_that_sleeps_through_its_lease_writes_nothing_when_it_wakes() {
    let _turn = turn().await;
    // Stopped in the middle of a write of its own: it has more to do, and wakes after the takeover.
    for (operation, point) in [(Operation::Create, Point::AfterCommit), (Operation::Update, Point::BeforeCommit)] {
        let label = format!("{operation:?} {point:?}");
        let mut room = Shards::new("slept").await;
        let mut sleeper = room.lab.another_operator();
        let gone = room.until_shared_by(&[&sleeper], &[]).await;
        let gate = room.lab.simulator.hold_next(1, operation, point);
        room.create("a").await;
        sleeper.sleeps_in_a_write(gate, point).await;
        let (second, third) = (room.lab.another_operator(), room.lab.another_operator());
        room.until_shared_by(&[&second, &third], &gone[..1]).await;
        room.until_ready("a").await;
        sleeper.wakes_and_writes_nothing(&room.lab.simulator, &label).await;
        assert_eq!(room.lab.simulator.credentials().len(), room.namespaces.len(), "{label}");
    }
}

impl Shards {
    /// One has all shards, and a call for that one which it gives first is under way.
    async fn at_work(&mut self, operation: Operation, point: Point) -> (Operator, Gate) {
        self.lab.drop_flags(&["--request-timeout", "--settle-period"]);
        let first = self.lab.another_operator();
        self.until_shared_by(&[&first], &[]).await;
        self.lab.namespace = self.namespace_of(SHARDS - 1);
        let gate = self.lab.simulator.hold_next(1, operation, point);
        self.lab.credential("openai").await;
        held(&gate).await;
        (first, gate)
    }

    fn namespace_of(&self, shard: u16) -> String {
        let share = all().find(|share| share.shard() == shard).unwrap();
        self.namespaces.iter().find(|namespace| share.has(namespace)).unwrap().clone()
    }

    /// A create of the shard that an operator with all of them gives first is under way, when another asks for one.
    async fn asked_for_while_at_work(&mut self) -> (Operator, Operator, Gate) {
        // Nothing ends by itself meanwhile.
        self.lab.drop_flags(&["--lease-duration"]);
        self.lab.flags.extend(["--lease-duration=5m".to_owned(), "--lease-retry-period=500ms".to_owned()]);
        let (first, gate) = self.at_work(Operation::Create, Point::AfterCommit).await;
        let holders = self.holders().await;
        let second = self.lab.another_operator();
        self.until_asked(4).await;
        assert_eq!(self.holders().await, holders);
        (first, second, gate)
    }
}

/// What is under way ends before: who gets the shard begins where it was left.
#[tokio::test]
async fn a_shard_is_handed_over_when_what_is_under_way_has_ended() {
    let mut room = Shards::new("handed").await;
    let (first, second, gate) = room.asked_for_while_at_work().await;
    gate.release();
    room.until_shared_by(&[&first, &second], &[]).await;
    room.lab.until_ready("openai").await;
    room.lab.assert_one_active("openai");
    assert_eq!((room.lab.simulator.posts(), room.lab.simulator.puts()), (1, 1));
}

/// Who asks is heard of again and again meanwhile.
#[tokio::test]
async fn a_shard_that_is_handed_over_is_renewed_until_the_work_has_ended() {
    let mut room = Shards::new("renewed").await;
    // A listing is waited for as long as the request timeout: longer than the lease.
    let (mut first, gate) = room.at_work(Operation::List, Point::BeforeCommit).await;
    let second = room.lab.another_operator();
    room.until_asked(usize::try_from(LEASE.as_secs() * 2).unwrap()).await;
    assert_eq!(first.ended(), None);
    gate.release();
    room.until_shared_by(&[&first, &second], &[]).await;
    room.lab.until_ready("openai").await;
}

/// It would work on nothing for a whole lease.
#[tokio::test]
async fn a_shard_is_not_handed_to_who_is_gone() {
    let mut room = Shards::new("heir").await;
    let (first, second, gate) = room.asked_for_while_at_work().await;
    drop(second);
    // Four rounds, in which nothing is heard of who asked.
    tokio::time::sleep(Duration::from_secs(3)).await;
    gate.release();
    room.lab.until_ready("openai").await;
    room.until_shared_by(&[&first], &[]).await;
    room.create("a").await;
    room.until_ready("a").await;
}

/// One credential has one resource, also between shards.
#[tokio::test]
async fn what_another_shard_holds_is_not_taken_over() {
    let mut room = Shards::new("held").await;
    let all_three = [room.lab.another_operator(), room.lab.another_operator(), room.lab.another_operator()];
    room.until_shared_by(&all_three.each_ref(), &[]).await;
    let (mine, theirs) = (room.namespace_of(0), room.namespace_of(1));
    // Whoever has just come to work on a shard may see what comes in its first list.
    for namespace in [&mine, &theirs] {
        room.lab.namespace.clone_from(namespace);
        room.lab.credential_with("before", json!({"name": format!("{namespace}-before")})).await;
        room.lab.until_ready("before").await;
    }
    room.lab.namespace = mine;
    room.lab.credential("openai").await;
    let id = room.lab.until_ready("openai").await.status.unwrap().id.unwrap();
    room.lab.namespace = theirs;
    room.lab.credential_with("other", json!({"externalId": id})).await;
    room.lab.until_reason("other", "NameConflict").await;
    assert_eq!(room.lab.simulator.posts(), 3);
}

/// Processes of another number of shards wait until none of the first is left.
#[tokio::test]
async fn another_number_of_shards_waits() {
    let mut room = Shards::new("number").await;
    let one = room.lab.another_operator();
    room.until_shared_by(&[&one], &[]).await;
    room.lab.environment.retain(|(name, _)| *name != "TOOLZZ_SHARDS");
    let whole = room.lab.another_operator();
    assert_eq!(whole.until_readyz(200).await, "[+]standby ok\n");
    room.create("a").await;
    room.until_ready("a").await;
    assert!(!whole.get("/metrics").1.contains("remote_calls_total{"));
    assert_eq!(one.terminate(), Some(0));
    whole.until_metric("toolzz_operator_leader 1").await;
    room.create("b").await;
    room.until_ready("b").await;
    assert_eq!(room.lab.simulator.posts(), 2 * room.namespaces.len() as u64);
}
