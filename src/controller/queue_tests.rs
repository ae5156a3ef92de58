use std::time::Duration;

use proptest::prelude::*;

use super::*;

type Q = Queue<u32, &'static str>;

fn place(tenant: &str) -> Place<&'static str> {
    Place { tenant: tenant.into(), connection: "c", is_there: false }
}

/// A queue whose time begins with it.
fn queue(workers: usize) -> (Q, Instant) {
    (Queue::new(workers), Instant::now())
}

/// All that begin when everybody is admitted, each ending at once.
fn drain(queue: &mut Q, now: Instant) -> Vec<u32> {
    let next = || {
        let (key, _) = queue.next(now, |_| true)?;
        queue.done(&key);
        Some(key)
    };
    std::iter::from_fn(next).collect()
}

/// All that begin, none of them ending.
fn begin(queue: &mut Q, now: Instant) -> Vec<u32> {
    std::iter::from_fn(|| Some(queue.next(now, |_| true)?.0)).collect()
}

#[test]
fn whoever_is_named_often_waits_once_for_the_earliest_time_and_the_urgent_lane() {
    let (mut queue, now) = queue(4);
    let later = now + Duration::from_secs(10);
    queue.add(1, Lane::Routine, place("a"), later + Duration::from_secs(9));
    queue.add(1, Lane::Routine, place("a"), later);
    queue.add(1, Lane::Routine, place("a"), later + Duration::from_secs(5));
    assert_eq!((queue.next(now, |_| true), queue.wakes(), queue.due(now).0), (None, Some(later), 0));
    assert_eq!(drain(&mut queue, later), [1]);
    queue.add(2, Lane::Routine, place("a"), now);
    assert!(queue.next(now, |_| false).is_none() && queue.is_held_up());
    queue.add(2, Lane::News, place("a"), later);
    assert_eq!(queue.next(now, |_| true), Some((2, Lane::News)));
    assert_eq!((queue.next(later, |_| true), queue.wakes()), (None, None));
}

#[test]
fn what_comes_during_a_pass_leads_to_one_more_after_it() {
    let (mut queue, now) = queue(4);
    queue.add(1, Lane::News, place("a"), now);
    assert_eq!(begin(&mut queue, now), [1]);
    queue.add(1, Lane::Routine, place("a"), now + Duration::from_secs(60));
    queue.add(1, Lane::News, place("a"), now);
    assert_eq!((queue.next(now, |_| true), queue.due(now).0), (None, 1));
    queue.done(&1);
    // What the pass itself asks for: known better already.
    queue.add(1, Lane::Routine, place("a"), now + Duration::from_secs(600));
    assert_eq!(drain(&mut queue, now), [1]);
    assert_eq!((queue.wakes(), queue.due(now)), (None, (0, None)));
}

#[test]
fn news_go_before_routine_but_do_not_shut_it_out() {
    let (mut queue, now) = queue(1);
    (0..100).for_each(|key| queue.add(key, Lane::Routine, place("a"), now));
    (100..130).for_each(|key| queue.add(key, Lane::News, place("a"), now));
    let order = drain(&mut queue, now);
    assert!(order[..7].iter().all(|key| *key >= 100), "{order:?}");
    assert_eq!(order[..32].iter().filter(|key| **key < 100).collect::<Vec<_>>(), [&0, &1, &2, &3]);
    assert_eq!(order.len(), 130);
    // Routine is in order.
    assert!(order.iter().filter(|key| **key < 100).is_sorted());
}

#[test]
fn news_that_are_tried_again_go_before_what_was_there_and_hold_up_no_newer_ones() {
    let (mut queue, now) = queue(1);
    let later = now + Duration::from_secs(1);
    (0..100).for_each(|key| queue.add(key, Lane::Found, place("a"), now));
    (100..103).for_each(|key| queue.add(key, Lane::News, place("a"), now));
    (200..203).for_each(|key| queue.add(key, Lane::Again, place("a"), later));
    assert_eq!(queue.next(now, |_| true), Some((102, Lane::News)));
    queue.done(&102);
    // In turns with those, and among themselves in order.
    assert_eq!(drain(&mut queue, later)[..6], [200, 100, 201, 101, 202, 0]);
}

#[test]
fn what_is_there_and_what_is_not_go_in_turns() {
    let (mut queue, now) = queue(1);
    (0..100).for_each(|key| queue.add(key, Lane::News, place("a"), now));
    queue.add(200, Lane::News, Place { is_there: true, ..place("a") }, now);
    (100..200).for_each(|key| queue.add(key, Lane::News, place("a"), now));
    let order = drain(&mut queue, now);
    assert!(order[..2].contains(&200), "{order:?}");
}

#[test]
fn who_came_last_and_who_waits_longest_go_in_turns() {
    let (mut queue, now) = queue(1);
    (0..5).for_each(|key| queue.add(key, Lane::News, place("a"), now));
    assert_eq!(drain(&mut queue, now), [4, 0, 3, 1, 2]);
}

#[test]
fn tenants_take_turns_and_so_do_the_connections_of_one() {
    let (mut queue, now) = queue(1);
    (0..50).for_each(|key| queue.add(key, Lane::Routine, place("a"), now));
    queue.add(100, Lane::Routine, Place { connection: "other", ..place("a") }, now);
    queue.add(200, Lane::Routine, place("b"), now);
    queue.add(201, Lane::Routine, place("b"), now);
    let order = drain(&mut queue, now);
    assert_eq!(order[..5], [0, 200, 100, 201, 1]);
}

#[test]
fn a_tenant_whose_passes_hang_leaves_workers_to_the_next_and_so_do_two() {
    let (mut queue, now) = queue(64);
    (0..1000).for_each(|key| queue.add(key, Lane::News, place("a"), now));
    assert_eq!(begin(&mut queue, now).len(), 48);
    (1000..2000).for_each(|key| queue.add(key, Lane::News, place("b"), now));
    assert_eq!(begin(&mut queue, now).len(), 12);
    queue.add(2000, Lane::Routine, place("c"), now);
    assert_eq!(begin(&mut queue, now), [2000]);
    // Small ones work as well.
    for (workers, alone) in [(1, 1), (2, 2), (4, 3)] {
        let (mut queue, now) = self::queue(workers);
        (0..9).for_each(|key| queue.add(key, Lane::News, place("a"), now));
        assert_eq!(begin(&mut queue, now).len(), alone);
    }
}

#[test]
fn a_connection_that_is_full_is_passed_over() {
    let (mut queue, now) = queue(8);
    let full = Place { connection: "full", ..place("a") };
    (0..9).for_each(|key| queue.add(key, Lane::News, full.clone(), now));
    queue.add(10, Lane::Routine, place("a"), now);
    assert_eq!(queue.next(now, |connection| *connection != "full"), Some((10, Lane::Routine)));
    assert_eq!(queue.next(now, |connection| *connection != "full"), None);
    assert_eq!(queue.due(now), (9, Some(now)));
    assert!(queue.is_held_up());
    assert_eq!(begin(&mut queue, now).len(), 5);
    // They wait for workers now, and whoever ends calls.
    assert!(queue.due(now).0 > 0 && !queue.is_held_up());
}

#[test]
fn a_connection_is_asked_once_for_all_its_tenants() {
    let (mut queue, now) = queue(8);
    for key in 0..100 {
        let lane = if key % 2 == 0 { Lane::News } else { Lane::Routine };
        queue.add(key, lane, Place { connection: "full", ..place(&format!("tenant-{key}")) }, now);
    }
    let asked = std::cell::Cell::new(0);
    let full = |_: &&str| {
        asked.set(asked.get() + 1);
        false
    };
    assert_eq!((queue.next(now, full), asked.get()), (None, 1));
    assert_eq!((queue.next(now, full), asked.get()), (None, 2), "it may have room by now");
    assert_eq!(drain(&mut queue, now).len(), 100);
}

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Event {
    Add {
        key: u32,
        news: bool,
        tenant: usize,
        after: u64,
    },
    Next {
        full: bool,
    },
    /// The pass of this number, of those that are under way.
    Done(usize),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..30_u32, any::<bool>(), 0..4_usize, 0..20_u64)
            .prop_map(|(key, news, tenant, after)| Event::Add { key, news, tenant, after }),
        4 => any::<bool>().prop_map(|full| Event::Next { full }),
        2 => (0..8_usize).prop_map(Event::Done),
        1 => (1..10_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    /// Against a list of what is asked for: nothing is lost, nothing comes twice or too early, never two passes of one.
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(workers in 1..6_usize, events in prop::collection::vec(event(), 1..200)) {
        let (mut queue, mut now) = queue(workers);
        let mut asked: HashMap<u32, (Instant, bool)> = HashMap::new();
        let mut at_work: Vec<u32> = Vec::new();
        for event in events {
            match event {
                Event::Add { key, news, tenant, after } => {
                    let at = now + Duration::from_secs(if news { 0 } else { after });
                    let lane = if news { Lane::News } else { Lane::Routine };
                    let tenant = ["a", "b", "c", "d"][tenant];
                    queue.add(key, lane, Place { tenant: tenant.into(), connection: ["x", "y"][key as usize % 2], is_there: key % 3 == 0 }, at);
                    asked.entry(key).and_modify(|known| *known = (at.min(known.0), news || known.1)).or_insert((at, news));
                }
                Event::Next { full } => {
                    if let Some((key, _)) = queue.next(now, |connection| !full || *connection == "x") {
                        prop_assert!(!at_work.contains(&key), "two passes of {key}");
                        prop_assert!(!full || key % 2 == 0, "over a full connection");
                        prop_assert!(asked.remove(&key).is_some_and(|(at, _)| at <= now), "{key} was not due");
                        at_work.push(key);
                        prop_assert!(at_work.len() <= workers);
                    }
                }
                Event::Done(which) => {
                    if which < at_work.len() {
                        queue.done(&at_work.remove(which));
                    }
                }
                Event::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            let due = asked.values().filter(|(at, news)| *at <= now && *news).map(|(at, _)| *at);
            prop_assert_eq!(queue.due(now), (due.clone().count(), due.min()));
        }
        // Everybody comes to his end, each once.
        at_work.iter().for_each(|key| queue.done(key));
        now += Duration::from_secs(100);
        let mut ended = drain(&mut queue, now);
        ended.sort_unstable();
        let mut expected: Vec<u32> = asked.into_keys().collect();
        expected.sort_unstable();
        prop_assert_eq!(ended, expected);
        prop_assert_eq!(queue.wakes(), None);
        prop_assert!(queue.by_tenant.is_empty() && queue.routine.is_empty() && queue.news.is_empty());
    }

    /// However much others ask for, and in whatever lane: with one worker, whoever waits begins after so many passes.
    #[test]
    fn nobody_is_passed_over_for_ever(news in any::<bool>(), others in 1..4_usize, ahead in 0..20_u32) {
        let (mut queue, now) = queue(1);
        let tenant = |number: usize| ["a", "b", "c", "d"][number];
        (0..ahead).for_each(|key| queue.add(key, Lane::News, place("mine"), now));
        let mine = 1_000_000;
        queue.add(mine, if news { Lane::News } else { Lane::Routine }, place("mine"), now);
        let mut passes = 0;
        let mut key = 100;
        loop {
            // Each of the others has something new all the time, and I have one more as well.
            for number in 0..others {
                queue.add(key, Lane::News, place(tenant(number)), now);
                key += 1;
            }
            queue.add(key, Lane::News, place("mine"), now);
            key += 1;
            let Some((next, _)) = queue.next(now, |_| true) else { panic!("there is something to do") };
            queue.done(&next);
            passes += 1;
            if next == mine {
                break;
            }
            prop_assert!(passes < 16 * (others + 1) * (ahead as usize + 2), "still waiting");
        }
    }
}
