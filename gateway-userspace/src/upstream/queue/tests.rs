use std::{
    net::Ipv4Addr,
    sync::{
        Barrier,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::Wake,
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::{config, observe::stats::Registry};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Targets that take `max` each.
fn upstream(max: &[u32], queue: u32) -> Upstream {
    let targets: Vec<String> = max
        .iter()
        .enumerate()
        .map(|(i, max)| format!("{{ addr = \"10.0.{}.{}:80\", max = {max} }}", i / 256, i % 256))
        .collect();
    let text = format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"pool\"\n[upstream.pool]\nto = [{}]\npool = {{ queue = {queue} }}\n",
        targets.join(", ")
    );
    let config = config::parse(&text, std::path::Path::new("/test.toml")).unwrap();
    Upstream::new("pool", &config.upstreams["pool"], &Default::default(), None, None, None, &Registry::new(1))
}

fn wanted() -> Wanted {
    Wanted { client: CLIENT, key: None, stuck: None, tried: Tried::default() }
}

/// Notes that it was woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

fn poll(turn: &mut Turn<'_>, woken: &Arc<Woken>) -> Option<Result<(usize, Active), Why>> {
    match Pin::new(turn).poll(&mut Context::from_waker(&Waker::from(woken.clone()))) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Polls whoever was woken until nobody is, as a runtime does.
fn settle<'a>(waiting: &mut Vec<(Turn<'a>, Arc<Woken>, usize)>, into: &mut Vec<(usize, usize, Active)>) {
    while let Some(place) = waiting.iter().position(|(_, woken, _)| woken.0.swap(0, Relaxed) > 0) {
        let (turn, woken, who) = &mut waiting[place];
        let who = *who;
        if let Some(result) = poll(turn, woken) {
            let (index, active) = result.unwrap();
            into.push((who, index, active));
            waiting.remove(place);
        }
    }
}

#[test]
fn the_one_over_the_cap_waits_and_they_come_in_their_order() {
    let upstream = upstream(&[1, 1], 3);
    let queue = upstream.queue().unwrap();
    let woken = Arc::new(Woken::default());
    let take = || poll(&mut upstream.turn(queue, wanted()), &woken);
    let (first, second) = (take().unwrap().unwrap(), take().unwrap().unwrap());
    assert_ne!(first.0, second.0);
    let mut waiting: Vec<_> = (0..3).map(|_| (upstream.turn(queue, wanted()), Arc::default())).collect();
    assert!(waiting.iter_mut().all(|(turn, woken)| poll(turn, woken).is_none()));
    assert_eq!(queue.len(), 3);
    assert_eq!(take().unwrap().err(), Some(Why::UpstreamQueueFull));
    assert!(upstream.pick_now(CLIENT).is_none());

    drop(second.1);
    // Who comes now does not overtake those who wait, though there is room.
    assert!(upstream.pick_now(CLIENT).is_none());
    let woken_now: Vec<u32> = waiting.iter().map(|(_, woken)| woken.0.swap(0, Relaxed)).collect();
    assert_eq!(woken_now, [1, 0, 0]);
    let (turn, woken_one) = &mut waiting[0];
    let (index, third) = poll(turn, woken_one).unwrap().unwrap();
    assert_eq!(index, second.0);
    // One leaves while it has an offer: the next one gets it.
    drop(third);
    assert_eq!(waiting[1].1.0.load(Relaxed), 1);
    drop(waiting.remove(1));
    let (turn, woken_last) = &mut waiting[1];
    assert_eq!(woken_last.0.load(Relaxed), 1);
    assert!(poll(turn, woken_last).unwrap().is_ok());
    assert!(queue.is_empty());
}

#[test]
fn a_retry_does_not_keep_others_from_the_target_that_it_has_tried() {
    let upstream = upstream(&[1, 1], 8);
    let queue = upstream.queue().unwrap();
    let woken = Arc::new(Woken::default());
    let take = || poll(&mut upstream.turn(queue, wanted()), &woken).unwrap().unwrap();
    let (one, other) = (take(), take());
    let mut tried = Tried::default();
    tried.add(one.0);
    let mut retry = (upstream.turn(queue, Wanted { tried, ..wanted() }), Arc::new(Woken::default()));
    let mut fresh = (upstream.turn(queue, wanted()), Arc::new(Woken::default()));
    assert!(poll(&mut retry.0, &retry.1).is_none() && poll(&mut fresh.0, &fresh.1).is_none());
    drop(one.1);
    assert!(poll(&mut retry.0, &retry.1).is_none(), "it was there");
    let held = poll(&mut fresh.0, &fresh.1).unwrap().unwrap();
    assert_eq!(held.0, one.0);
    drop(other.1);
    assert_eq!(poll(&mut retry.0, &retry.1).unwrap().unwrap().0, other.0);
}

#[test]
fn without_any_healthy_target_nobody_waits_for_one() {
    let upstream = upstream(&[1], 8);
    let queue = upstream.queue().unwrap();
    let woken = Arc::new(Woken::default());
    let held = poll(&mut upstream.turn(queue, wanted()), &woken).unwrap().unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| (upstream.turn(queue, wanted()), Arc::default())).collect();
    assert!(waiting.iter_mut().all(|(turn, woken)| poll(turn, woken).is_none()));
    upstream.set_healthy(0, false);
    for (turn, woken) in &mut waiting {
        assert_eq!(woken.0.load(Relaxed), 1);
        assert_eq!(poll(turn, woken).unwrap().err(), Some(Why::NoHealthyTarget));
    }
    assert_eq!(poll(&mut upstream.turn(queue, wanted()), &woken).unwrap().err(), Some(Why::NoHealthyTarget));
    drop(held);
}

#[test]
fn more_targets_than_a_request_remembers_are_all_used() {
    let upstream = upstream(&[1; 70], 8);
    let queue = upstream.queue().unwrap();
    let woken = Arc::new(Woken::default());
    let held: Vec<_> =
        (0..70).map(|_| poll(&mut upstream.turn(queue, wanted()), &woken).unwrap().unwrap()).collect();
    let used: std::collections::BTreeSet<usize> = held.iter().map(|(index, _)| *index).collect();
    assert_eq!(used.len(), 70);
    assert!(poll(&mut upstream.turn(queue, wanted()), &woken).is_none());
}

#[derive(Debug, Clone)]
enum Step {
    Come,
    /// The n-th of those in flight ends.
    End(usize),
    /// The n-th of those who wait goes away.
    Leave(usize),
}

proptest! {
    /// Whatever happens in whatever order: no cap is passed, nobody overtakes, and nobody waits while there is room.
    #[test]
    fn caps_hold_and_nobody_is_forgotten(
        caps in proptest::collection::vec(1u32..4, 1..4),
        steps in proptest::collection::vec(
            prop_oneof![
                3 => Just(Step::Come),
                2 => (0usize..16).prop_map(Step::End),
                1 => (0usize..16).prop_map(Step::Leave),
            ],
            1..200,
        ),
    ) {
        let upstream = upstream(&caps, 1000);
        let queue = upstream.queue().unwrap();
        let (mut waiting, mut in_flight) = (Vec::new(), Vec::new());
        let mut last = None;
        for (who, step) in steps.into_iter().enumerate() {
            let before = in_flight.len();
            match step {
                Step::Come => {
                    let (mut turn, woken) = (upstream.turn(queue, wanted()), Arc::new(Woken::default()));
                    match poll(&mut turn, &woken) {
                        Some(result) => {
                            let (index, active) = result.unwrap();
                            in_flight.push((who, index, active));
                        }
                        None => waiting.push((turn, woken, who)),
                    }
                }
                Step::End(n) if !in_flight.is_empty() => drop(in_flight.swap_remove(n % before)),
                Step::Leave(n) if !waiting.is_empty() => drop(waiting.remove(n % waiting.len())),
                _ => {}
            }
            let mut served = Vec::new();
            settle(&mut waiting, &mut served);
            for (who, ..) in &served {
                prop_assert!(last.is_none_or(|last| last < *who), "{} overtook", who);
                last = Some(*who);
            }
            in_flight.extend(served);
            for (index, cap) in caps.iter().enumerate() {
                let on_it = in_flight.iter().filter(|(_, target, _)| *target == index).count() as u32;
                prop_assert!(on_it <= *cap);
                prop_assert_eq!(on_it, upstream.members[index].target.active());
            }
            let room = caps.iter().sum::<u32>() as usize - in_flight.len();
            prop_assert!(room == 0 || waiting.is_empty(), "{} wait, though there is room for {}", waiting.len(), room);
        }
    }
}

/// Wakes a thread.
struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn workers_never_pass_a_cap_and_never_wait_for_ever() {
    const WORKERS: usize = 8;
    const EACH: usize = 3000;
    let upstream = upstream(&[1, 2], 100);
    let queue = upstream.queue().unwrap();
    let (served, gave_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let most = [AtomicU32::new(0), AtomicU32::new(0)];
    let start = Barrier::new(WORKERS);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (upstream, served, gave_up, most, start) = (&upstream, &served, &gave_up, &most, &start);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(worker as u64);
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                start.wait();
                for _ in 0..EACH {
                    let mut turn = upstream.turn(queue, wanted());
                    let patience = random.bool().then(|| random.u64(1..200));
                    let began = Instant::now();
                    loop {
                        if let Poll::Ready(result) =
                            Pin::new(&mut turn).poll(&mut Context::from_waker(&waker))
                        {
                            let (index, active) = result.unwrap();
                            most[index].fetch_max(active.target().active(), Relaxed);
                            served.fetch_add(1, Relaxed);
                            if random.u8(..) < 20 {
                                thread::yield_now();
                            }
                            break;
                        }
                        match patience {
                            Some(us) if began.elapsed() > Duration::from_micros(us) => {
                                gave_up.fetch_add(1, Relaxed);
                                break;
                            }
                            Some(us) => thread::park_timeout(Duration::from_micros(us)),
                            None => {
                                thread::park_timeout(Duration::from_secs(20));
                                assert!(began.elapsed() < Duration::from_secs(20), "forgotten");
                            }
                        }
                    }
                }
            });
        }
    });
    assert_eq!(served.into_inner() + gave_up.into_inner(), WORKERS * EACH);
    assert!(most[0].load(Relaxed) <= 1 && most[1].load(Relaxed) <= 2);
    assert!(queue.is_empty() && upstream.members.iter().all(|member| member.target.active() == 0));
}
