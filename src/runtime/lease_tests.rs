use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

fn lease(version: &str, holder: &str, seconds: i32) -> Lease {
    Lease {
        metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            acquire_time: Some(MicroTime(Timestamp::UNIX_EPOCH)),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        }),
    }
}

#[test]
fn a_lease_is_taken_when_it_is_free_or_its_holder_was_not_heard_of_for_all_of_it() {
    let wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(100);
    let other = |seconds| Some(lease("1", "other", seconds));
    let nobody = || {
        let mut lease = lease("1", "", 30);
        lease.spec.as_mut().unwrap().holder_identity = None;
        Some(lease)
    };
    // (what was found at one second each, when it is decided, the transitions written)
    for (found, now, transitions) in [
        (vec![(0, None)], 0, Some(0)),
        (vec![(0, Some(lease("1", "me", 30)))], 0, Some(4)),
        (vec![(0, Some(lease("1", "", 30)))], 0, Some(5)),
        (vec![(0, nobody())], 0, Some(5)),
        (vec![(0, other(30))], 0, None),
        (vec![(7, other(30)), (20, other(30))], 36, None),
        (vec![(7, other(30)), (20, other(30))], 37, Some(5)),
        // Renewed.
        (vec![(0, other(30)), (20, Some(lease("2", "other", 30)))], 49, None),
        (vec![(0, other(30)), (20, Some(lease("2", "other", 30)))], 50, Some(5)),
        // Deleted: still the other's, or one's own, as long as it would have been.
        (vec![(0, other(30)), (10, None), (20, None)], 29, None),
        (vec![(0, other(30)), (10, None), (20, None)], 30, Some(5)),
        (vec![(0, Some(lease("1", "me", 30))), (10, None)], 10, Some(4)),
        (vec![(0, nobody()), (10, None)], 10, Some(5)),
        (vec![(0, other(30)), (10, None), (20, Some(lease("3", "third", 30)))], 49, None),
        // Whose lease is longer is waited for longer; whose is shorter, as long as ours is.
        (vec![(0, other(60))], 59, None),
        (vec![(0, other(60))], 60, Some(5)),
        (vec![(0, other(5))], 29, None),
    ] {
        let label = format!("{found:?} {now}");
        let at = |second: u64| Tick(second * 1000);
        let mut found = found.into_iter();
        let (first, lease) = found.next().unwrap();
        let seen = found.fold(Seen::first(lease.as_ref(), at(first)), |seen, (second, lease)| {
            seen.then(lease.as_ref(), at(second))
        });
        let next = claim(&seen, at(now), "me", Duration::from_secs(30), wall);
        assert_eq!(next.as_ref().and_then(|spec| spec.lease_transitions), transitions, "{label}");
        let Some(next) = next else { continue };
        assert_eq!((next.holder_identity.as_deref(), &next.renew_time), (Some("me"), &Some(MicroTime(wall))));
        assert_eq!(next.lease_duration_seconds, Some(30), "{label}");
        let renewed = transitions == Some(4);
        assert_eq!(next.acquire_time == Some(MicroTime(wall)), !renewed, "{label}");
    }
}

#[test]
fn a_timing_must_leave_time_to_notice_and_to_try_again() {
    let given = |duration, deadline: Option<u64>, retry: Option<u64>| {
        let some = |millis: Option<u64>| millis.map(Duration::from_millis);
        Timing::new(Duration::from_millis(duration), some(deadline), some(retry))
            .map(|timing| (timing.renew_deadline.as_millis(), timing.retry_period.as_millis()))
            .map_err(|error| error.to_string())
    };
    assert_eq!(given(15_000, None, None), Ok((10_000, 2000)), "as everywhere");
    assert_eq!(given(3000, None, None), Ok((1700, 340)), "however short");
    assert_eq!(given(15_000, Some(12_500), Some(6250)), Ok((12_500, 6250)));
    for (duration, deadline, retry, words) in [
        (2999, None, None, ["--lease-duration (2.999s)", "3s"]),
        (15_000, Some(12_501), None, ["--lease-renew-deadline (12.501s)", "12.5s with --lease-duration 15s"]),
        (15_000, None, Some(5001), ["--lease-retry-period (5.001s)", "--lease-renew-deadline (10s)"]),
        (15_000, Some(2000), Some(2000), ["--lease-retry-period (2s)", "--lease-renew-deadline (2s)"]),
    ] {
        let told = given(duration, deadline, retry).unwrap_err();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    }
}

/// An API server that holds one Lease. It answers when this long has passed since it did what was asked.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Lease>,
    version: u64,
    delay: Duration,
    away: bool,
    conflict: bool,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let method = request.method().clone();
                    let body = request.into_body().collect_bytes().await.unwrap();
                    let (code, answer) = server.state().answer(&method, &body);
                    let delay = server.state().delay;
                    tokio::time::sleep(delay).await;
                    let answer = Body::from(answer.to_string().into_bytes());
                    Ok::<_, std::io::Error>(Response::builder().status(code).body(answer).unwrap())
                }
            }),
            "ns",
        )
    }

    fn holder(&self) -> Option<String> {
        self.state().lease.as_ref()?.spec.as_ref()?.holder_identity.clone()
    }

    fn hand_to(&self, holder: &str) {
        let mut state = self.state();
        state.version += 1;
        state.lease = Some(lease(&state.version.to_string(), holder, 15));
    }
}

impl State {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "status": "Failure", "message": "", "reason": reason, "code": code});
            (code, status)
        };
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        if self.away {
            return failure(500, "InternalError");
        }
        if *method == Method::GET {
            return self.lease.as_ref().map_or_else(|| failure(404, "NotFound"), |lease| (200, json!(lease)));
        }
        let mut written: Lease = serde_json::from_slice(body).unwrap();
        if self.conflict || version(&written) != self.lease.as_ref().and_then(version) {
            return failure(409, "Conflict");
        }
        self.version += 1;
        written.metadata.resource_version = Some(self.version.to_string());
        let answer = (200, json!(written));
        self.lease = Some(written);
        answer
    }
}

/// One with the usual timing, trying to take the lease again after this long.
fn candidate(server: &Server, identity: &str, retry: Option<Duration>) -> Election {
    let terms = Terms {
        client: server.client(),
        namespace: "ns".to_owned(),
        name: "n".to_owned(),
        identity: identity.to_owned(),
        timing: Timing::new(Duration::from_secs(15), None, retry).unwrap(),
    };
    Election::new(terms, Tenure::none(), Clock::start(), |_| ())
}

/// One that has just won.
async fn leader(server: &Server) -> Election {
    let mut election = candidate(server, "me", None);
    assert_eq!(election.attempt(Duration::MAX).await, Ok(true));
    election
}

impl Election {
    fn remaining(&self) -> Option<Duration> {
        self.tenure.remaining(self.clock.now())
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenure_is_counted_from_before_the_renewal_was_sent() {
    let server = Server::default();
    let mut election = leader(&server).await;
    assert_eq!(election.remaining(), Some(Duration::from_millis(13_500)), "nine tenths");
    // A read and a write.
    server.state().delay = Duration::from_secs(2);
    assert_eq!(election.attempt(Duration::MAX).await, Ok(true));
    assert_eq!(election.remaining(), Some(Duration::from_millis(9500)));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_has_lost_at_the_renew_deadline() {
    for (away, delay) in [(true, 0), (false, 3600)] {
        let server = Server::default();
        let mut election = leader(&server).await;
        server.state().away = away;
        server.state().delay = Duration::from_secs(delay);
        let Lost(why) = election.lost().await;
        assert!(why.contains("API server") || why.contains("in time"), "{why}");
        assert_eq!(election.clock.now() - Tick(0), Duration::from_secs(10), "{why}");
        assert_eq!(election.remaining(), None, "it was longer, and is not any more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_finds_another_has_lost_at_once() {
    let server = Server::default();
    let mut election = leader(&server).await;
    server.hand_to("other");
    let Lost(why) = election.lost().await;
    assert!(why.contains("\"other\""), "{why}");
    assert_eq!(election.clock.now() - Tick(0), Duration::from_secs(2));
    assert_eq!(election.remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_looked_at_again() {
    let server = Server::default();
    let mut election = leader(&server).await;
    server.state().conflict = true;
    assert_eq!(election.attempt(Duration::MAX).await, Ok(false));
    assert!(election.remaining().is_some(), "whoever wrote may have changed a label");
    server.state().conflict = false;
    assert_eq!(election.attempt(Duration::MAX).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn what_lapsed_does_not_come_back() {
    let server = Server::default();
    let mut election = leader(&server).await;
    for asleep in [9, 11] {
        tokio::time::advance(Duration::from_secs(asleep)).await;
        let held = election.attempt(Duration::MAX).await;
        assert_eq!((held.is_ok(), election.time_to_renew().is_some()), (asleep == 9, asleep == 9), "{held:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_up_at_the_end() {
    for (holder, left) in [(None, None), (Some("other"), Some("other"))] {
        let server = Server::default();
        let mut election = leader(&server).await;
        if let Some(holder) = holder {
            server.hand_to(holder);
        }
        election.release(None).await;
        assert_eq!(server.holder().as_deref(), left, "nothing is taken from another");
        assert_eq!(election.remaining(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_handed_over_is_nobody_elses_meanwhile() {
    let server = Server::default();
    let mut giver = leader(&server).await;
    let (mut heir, mut third) = (candidate(&server, "heir", None), candidate(&server, "third", None));
    assert_eq!(third.attempt(Duration::MAX).await, Ok(false));
    tokio::time::advance(Duration::from_secs(14)).await;
    giver.release(Some("heir".to_owned())).await;
    assert_eq!(giver.remaining(), None);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(third.attempt(Duration::MAX).await, Ok(false), "it waits anew");
    assert_eq!(giver.attempt(Duration::MAX).await, Ok(false), "it is not the giver's any more");
    assert_eq!(heir.attempt(Duration::MAX).await, Ok(true));
    assert_eq!(heir.remaining(), Some(Duration::from_millis(13_500)));
    // An heir that does not come is waited for as anybody.
    heir.release(Some("nobody".to_owned())).await;
    assert_eq!(third.attempt(Duration::MAX).await, Ok(false));
    tokio::time::advance(Duration::from_secs(15)).await;
    assert_eq!(third.attempt(Duration::MAX).await, Ok(true));
}

/// Processes of one number of shards hold the first lease together; one of another number waits until none of them is left.
#[tokio::test(start_paused = true)]
async fn who_share_an_identity_hold_a_lease_together() {
    let server = Server::default();
    let mut members = [candidate(&server, "3 shards", None), candidate(&server, "3 shards", None)];
    let mut other = candidate(&server, "me", None);
    for _ in 0..20 {
        for member in &mut members {
            assert_eq!(member.attempt(Duration::MAX).await, Ok(true));
        }
        assert_eq!(other.attempt(Duration::MAX).await, Ok(false));
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    // One of them is left.
    for _ in 0..10 {
        assert_eq!(members[0].attempt(Duration::MAX).await, Ok(true));
        assert_eq!(other.attempt(Duration::MAX).await, Ok(false));
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(members[1].remaining(), None, "it did not renew, whoever else did");
    tokio::time::advance(Duration::from_secs(12)).await;
    assert_eq!(other.attempt(Duration::MAX).await, Ok(false));
    assert_eq!(members[0].remaining(), None);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(other.attempt(Duration::MAX).await, Ok(true));
    assert_eq!(members[0].attempt(Duration::MAX).await, Ok(false));
}

#[tokio::test(start_paused = true)]
async fn a_look_takes_nothing_and_tells_who_is_alive() {
    let server = Server::default();
    let mut watcher = candidate(&server, "watcher", None);
    assert_eq!(watcher.look().await, Ok(None));
    let mut leader = leader(&server).await;
    assert_eq!(watcher.look().await, Ok(Some("me".to_owned())));
    assert_eq!(watcher.look().await, Ok(None), "not heard of since");
    assert_eq!(leader.attempt(Duration::MAX).await, Ok(true));
    assert_eq!(watcher.look().await, Ok(Some("me".to_owned())));
    // Who looks for the first time knows of nobody.
    assert_eq!(candidate(&server, "other", None).look().await, Ok(None));
    assert_eq!(server.holder().as_deref(), Some("me"));
}

/// A machine with a process in an election. Its clock, with every timer in it, goes at a rate of its own.
struct Machine {
    runtime: tokio::runtime::Runtime,
    /// Of its clock, to the true one, in hundredths.
    rate: u32,
    clock: Clock,
    tenure: Tenure,
    /// The process is stopped, and its clock is ahead of it by so much.
    asleep: Duration,
}

impl Machine {
    fn start(server: &Server, identity: &str, rate: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (clock, tenure) = runtime.block_on(async {
            let mut election = candidate(server, identity, Some(Duration::from_millis(100)));
            let told = (election.clock, election.tenure.clone());
            tokio::spawn(async move {
                if election.won(Shutdown::never()).await {
                    election.lost().await;
                }
            });
            told
        });
        Self { runtime, rate, clock, tenure, asleep: Duration::ZERO }
    }

    /// So many milliseconds of true time pass.
    fn live(&mut self, millis: u32) {
        self.sleep(millis);
        let own = std::mem::take(&mut self.asleep);
        self.runtime.block_on(async {
            tokio::time::advance(own).await;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// The same while the process is stopped.
    fn sleep(&mut self, millis: u32) {
        self.asleep += Duration::from_millis(millis.into()) * self.rate / 100;
    }

    /// Whether a write that it has begun could take effect now, by its own clock.
    fn may_write(&self) -> bool {
        let _within = self.runtime.enter();
        let a_tenure_ago = Tick(0) + (self.clock.now() + self.asleep - Tick(0)).saturating_sub(LEAST_TENURE);
        self.tenure.remaining(a_tenure_ago + Duration::from_millis(1)).is_some()
    }
}

/// A leader is stopped while it writes, with this much time between its looks at the lease and those of the other. Whether
/// its write could still take effect when the other begins.
fn meet(leaders_rate: u32, others_rate: u32, between: u32) -> bool {
    let server = Server::default();
    let mut leader = Machine::start(&server, "leader", leaders_rate);
    (0..10).for_each(|_| leader.live(100));
    leader.live(1 + between);
    let mut other = Machine::start(&server, "other", others_rate);
    for _ in 0..20 {
        leader.live(100);
        other.live(100);
        assert!(leader.may_write() && !other.may_write());
    }
    // It sees the last renewal soon; later, the moment matters at which it thinks that the lease is over.
    for millis in [vec![20; 20], vec![500; 23], vec![20; 500]].concat() {
        leader.sleep(millis);
        other.live(millis);
        if other.may_write() {
            return leader.may_write();
        }
    }
    panic!("nobody takes over: {leaders_rate} {others_rate}");
}

#[test]
fn clocks_whose_rates_differ_by_less_than_a_tenth_make_no_two_leaders_and_others_can() {
    for (leader, other) in [(100, 109), (92, 100), (96, 104), (109, 100)] {
        for between in [0, 30, 60] {
            assert!(!meet(leader, other, between), "two lead: {leader} {other} {between}");
        }
    }
    // So that this test is known to see it.
    for (leader, other) in [(100, 115), (85, 100)] {
        assert!([0, 30, 60].into_iter().any(|between| meet(leader, other, between)), "{leader} {other}");
    }
}
