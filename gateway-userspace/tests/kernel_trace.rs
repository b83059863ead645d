//! One trace through both builds of the limiter: what the loaded program says of each packet is what the same code says here.
//!
//! The program reads the clock itself. What it read is between two readings here, so a bucket here is two words: the one
//! that it would have with the earliest times, and the one with the latest. Where both say the same, so must the program.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use std::time::{Duration, Instant};

use gateway_common::{bucket::Limit, verdict::Reason};
use kernel_support::{
    alone, bucket, config,
    frames::{SYN, tcp_from, udp_from},
    plane, verdict,
};

/// What a source sends, and after how long.
#[derive(Debug, Clone, Copy)]
struct Event {
    source: u8,
    new: bool,
    pause: Duration,
}

/// A trace of bursts, gaps of about a token, and times in which buckets fill.
fn trace(random: &mut fastrand::Rng, events: usize, token: Duration) -> Vec<Event> {
    (0..events)
        .map(|_| Event {
            source: random.u8(1..4),
            new: random.u8(0..3) == 0,
            pause: match random.u8(0..20) {
                0 => token.mul_f64(random.f64() * 4.0),
                1..4 => token.mul_f64(random.f64()),
                _ => Duration::ZERO,
            },
        })
        .collect()
}

/// CLOCK_MONOTONIC, as the program reads it.
fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time to where it is told.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A bucket of this build, as far as it can be known.
#[derive(Clone, Copy, Default)]
struct Bounds {
    least: u64,
    most: u64,
}

impl Bounds {
    /// What it must say of a token, asked for between two moments; `None`: that depends on which.
    fn decide(&self, limit: &Limit, between: (u64, u64)) -> Option<bool> {
        let at_worst = limit.decide(self.most, between.0).is_some();
        let at_best = limit.decide(self.least, between.1).is_some();
        (at_worst == at_best).then_some(at_best)
    }

    fn took(&mut self, limit: &Limit, between: (u64, u64)) {
        self.least = self.least.max(between.0) + limit.interval_ns;
        self.most = self.most.max(between.1) + limit.interval_ns;
    }
}

#[test]
fn one_trace_through_both_builds_has_the_same_verdicts() {
    needs_bpf!();
    let _alone = alone();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut decided, mut open, mut refused) = (0u32, 0u32, 0u32);
    // Exact clocks only: by jiffies it is a tick that is not known.
    for (packets, new) in [((200.0, 20), (50.0, 5)), ((1000.0, 3), (400.0, 2)), ((20.0, 8), (10.0, 1))] {
        let mut cfg = config();
        (cfg.limit.packets, cfg.limit.new) = (bucket(packets.0, packets.1), bucket(new.0, new.1));
        let plane = plane(&cfg);
        if plane.status().clock.source != "monotonic" && plane.status().clock.hz.is_some() {
            continue;
        }
        let limits = [Limit::per_second(packets.0, packets.1), Limit::per_second(new.0, new.1)];
        let mut words = [[Bounds::default(); 2]; 4];
        let until = Instant::now() + Duration::from_secs(15);
        for event in trace(&mut random, 400, Duration::from_secs_f64(1.0 / packets.0)) {
            if Instant::now() > until {
                break;
            }
            std::thread::sleep(event.pause);
            let source = [192, 0, 2, event.source];
            let frame = if event.new { tcp_from(source, SYN) } else { udp_from(source) };
            let before = now_ns();
            let said = verdict(&plane, &frame);
            let between = (before, now_ns());
            let [of_packets, of_new] = &mut words[usize::from(event.source)];
            let expected = match of_packets.decide(&limits[0], between) {
                Some(true) if event.new => match of_new.decide(&limits[1], between) {
                    Some(true) => Some(Reason::Ok),
                    Some(false) => Some(Reason::LimitNew),
                    None => None,
                },
                Some(true) => Some(Reason::Ok),
                Some(false) => Some(Reason::LimitPackets),
                None => None,
            };
            match expected {
                Some(reason) => {
                    assert_eq!(said, reason, "event {decided} of {packets:?}, {new:?}: {event:?}");
                    decided += 1;
                }
                None => open += 1,
            }
            refused += u32::from(said != Reason::Ok);
            // What other buckets gave is taken all the same.
            if said != Reason::LimitPackets {
                of_packets.took(&limits[0], between);
            }
            if event.new && said == Reason::Ok {
                of_new.took(&limits[1], between);
            }
        }
    }
    println!("{decided} verdicts the same, {refused} refused, {open} that hang on nanoseconds");
    assert!(decided >= 300, "{decided}");
    assert!(refused >= 50, "{refused}");
    assert!(open * 10 <= decided, "{open} of {decided} say nothing");
}
