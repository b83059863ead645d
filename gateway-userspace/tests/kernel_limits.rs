//! Buckets in the loaded program: exact, one a source, and out of reach of spoofed floods.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use gateway::{
    config::{
        model::{Kernel, KernelClass, LimitMode},
        units::Place,
    },
    kernel::KernelPlane,
};
use gateway_common::{bucket::Limit, verdict::Reason};
use kernel_support::{
    accuracy, alone, attached, bucket, config, count,
    frames::{ACK, SYN, tcp_from, udp_from, udp_from_v6},
    plane, prefixes, send, verdict,
};

/// What the program returns for a packet that passes.
const XDP_PASS: u32 = 2;

fn limited(per_second: f64, burst: u64) -> Kernel {
    let mut cfg = config();
    cfg.limit.packets = bucket(per_second, burst);
    cfg
}

#[test]
fn refill_is_exact_to_one_percent_over_five_seconds() {
    needs_bpf!();
    let _alone = alone();
    // By jiffies where the burst spans ten ticks, else by the exact clock: both kinds.
    for (rate, burst, clock) in
        [(200.0, 200, "jiffies"), (2000.0, 50, "monotonic"), (50_000.0, 25_000, "jiffies")]
    {
        let cfg = limited(rate, burst);
        let status = plane(&cfg).status();
        assert!(status.clock.source == clock || status.clock.hz.is_none(), "{status:?}");
        let (ratio, pause) = accuracy(&cfg, 1, Duration::from_secs(5));
        println!("{rate}/s, burst {burst}: {ratio:.4} of what is allowed; longest pause {pause:?}");
        assert!((0.99..1.01).contains(&ratio), "{rate}/s, burst {burst}: {ratio:.4}; {pause:?}");
    }
}

#[test]
fn a_full_bucket_passes_its_burst_at_once_and_no_more() {
    needs_bpf!();
    let plane = plane(&limited(1.0, 37));
    send(&plane, &udp_from([192, 0, 2, 1]), 5000);
    let passed = count(&plane, Reason::Ok);
    assert!((37..=38).contains(&passed), "{passed}");
    assert_eq!(count(&plane, Reason::LimitPackets), 5000 - passed);
}

#[test]
fn one_source_does_not_touch_another() {
    needs_bpf!();
    let plane = plane(&limited(0.01, 10));
    send(&plane, &udp_from([192, 0, 2, 1]), 100_000);
    assert_eq!(verdict(&plane, &udp_from([192, 0, 2, 1])), Reason::LimitPackets);
    for host in 2..60 {
        assert_eq!(verdict(&plane, &udp_from([192, 0, 2, host])), Reason::Ok, "host {host}");
    }
}

#[test]
fn addresses_of_one_ipv6_prefix_share_a_bucket() {
    needs_bpf!();
    for (bits, neighbour, alone) in
        [(64, "2001:db8:0:1::", "2001:db8:0:2::1"), (48, "2001:db8:0:9::", "2001:db8:1::1")]
    {
        let mut cfg = limited(0.01, 100);
        cfg.limit.ipv6_prefix = bits;
        let plane = plane(&cfg);
        for host in 0..4096 {
            send(&plane, &udp_from_v6(&format!("2001:db8:0:1::{host:x}")), 1);
        }
        assert_eq!(count(&plane, Reason::Ok), 100, "/{bits}");
        assert_eq!(
            verdict(&plane, &udp_from_v6(&format!("{neighbour}ffff"))),
            Reason::LimitPackets,
            "/{bits}"
        );
        assert_eq!(verdict(&plane, &udp_from_v6(alone)), Reason::Ok, "/{bits}");
    }
}

#[test]
fn link_local_neighbours_have_buckets_of_their_own() {
    needs_bpf!();
    let plane = plane(&limited(0.01, 5));
    send(&plane, &udp_from_v6("fe80::1"), 100);
    assert_eq!(verdict(&plane, &udp_from_v6("fe80::1")), Reason::LimitPackets);
    assert_eq!(verdict(&plane, &udp_from_v6("fe80::2")), Reason::Ok);
}

#[test]
fn new_connections_have_a_bucket_of_their_own() {
    needs_bpf!();
    let mut cfg = config();
    cfg.limit.new = bucket(0.01, 5);
    let plane = plane(&cfg);
    let source = [192, 0, 2, 1];
    send(&plane, &tcp_from(source, SYN), 100);
    assert_eq!((count(&plane, Reason::Ok), count(&plane, Reason::LimitNew)), (5, 95));
    for other in [tcp_from(source, ACK), tcp_from(source, SYN | ACK), udp_from(source)] {
        assert_eq!(verdict(&plane, &other), Reason::Ok);
    }
    assert_eq!(verdict(&plane, &tcp_from([192, 0, 2, 2], SYN)), Reason::Ok);
    let row = plane.source("192.0.2.1".parse().unwrap()).unwrap();
    assert_eq!((row.packets_left, row.new_left, row.dropped), (None, Some(0), 95));
}

#[test]
fn exempt_sources_are_not_limited() {
    needs_bpf!();
    let mut cfg = limited(0.01, 5);
    cfg.limit.exempt = kernel_support::prefixes(&["192.0.2.0/24", "2001:db8::/32"]);
    let plane = plane(&cfg);
    send(&plane, &udp_from([192, 0, 2, 1]), 500);
    send(&plane, &udp_from_v6("2001:db8::1"), 500);
    assert_eq!(count(&plane, Reason::Exempt), 1000);
    assert!(plane.sources(10).is_empty(), "nobody counts them either");
}

#[test]
fn two_cpus_on_one_bucket_get_what_one_would() {
    needs_bpf!();
    let _alone = alone();
    for (rate, burst) in [(10.0, 20), (1000.0, 40), (100_000.0, 10_000), (1e6, 100_000)] {
        let (ratio, pause) = accuracy(&limited(rate, burst), 2, Duration::from_secs(3));
        println!("{rate}/s from two CPUs: {ratio:.4} of what is allowed; longest pause {pause:?}");
        assert!((0.97..1.02).contains(&ratio), "{rate}/s: {ratio:.4}; {pause:?}");
    }
}

#[test]
fn spoofed_floods_neither_fill_the_table_nor_reset_a_bucket() {
    needs_bpf!();
    let _alone = alone();
    attached(&limited(0.01, 5), |plane| {
        let greedy = udp_from([192, 0, 2, 1]);
        send(plane, &greedy, 1000);
        let runner = plane.runner("xdp_gateway").unwrap();
        let began = Instant::now();
        let mut spoofed = 0u32;
        // Two packets from each address: what makes a plain LRU table forget everybody else.
        while began.elapsed() < Duration::from_secs(4) {
            let [a, b, c, d] = spoofed.wrapping_mul(7919).wrapping_add(0x2000_0000).to_be_bytes();
            runner.run(&udp_from([a, b, c, d]), 2).unwrap();
            spoofed += 1;
        }
        let before = count(plane, Reason::LimitPackets);
        send(plane, &greedy, 1000);
        assert!(count(plane, Reason::LimitPackets) >= before + 999, "its bucket is still empty");
        println!("{spoofed} spoofed sources");
        assert!(spoofed > 20_000, "{spoofed} are no flood");
    });
}

#[test]
fn sources_are_listed_by_what_was_refused_and_can_be_reset() {
    needs_bpf!();
    let plane = plane(&limited(0.01, 10));
    for (host, packets) in [(1, 4), (2, 400), (3, 40)] {
        send(&plane, &udp_from([192, 0, 2, host]), packets);
    }
    let rows = plane.sources(2);
    assert_eq!(rows.iter().map(|row| row.source.as_str()).collect::<Vec<_>>(), ["192.0.2.2", "192.0.2.3"]);
    assert_eq!((rows[0].dropped, rows[0].packets_left), (390, Some(0)));
    let quiet = plane.source("192.0.2.1".parse().unwrap()).unwrap();
    assert_eq!((quiet.dropped, quiet.packets_left), (0, Some(6)));
    assert!(quiet.idle_seconds < 60.0);

    let source = "192.0.2.2".parse().unwrap();
    plane.reset(source).unwrap();
    assert!(plane.source(source).is_none());
    assert_eq!(verdict(&plane, &udp_from([192, 0, 2, 2])), Reason::Ok);
    plane.reset("203.0.113.1".parse().unwrap()).unwrap();
    let buckets = plane.maps().into_iter().find(|map| map.name == "BUCKETS").unwrap();
    assert_eq!((buckets.entries, buckets.capacity), (3, 262_144));
}

#[test]
fn a_reload_changes_the_limit_of_sources_that_were_blocked_by_the_old_one() {
    needs_bpf!();
    let plane: KernelPlane = plane(&limited(1.0 / 3600.0, 1000));
    let frame = udp_from([192, 0, 2, 1]);
    send(&plane, &frame, 2000);
    assert_eq!(verdict(&plane, &frame), Reason::LimitPackets);
    let report = plane.sync(&limited(1000.0, 1000)).unwrap();
    assert_eq!(report.settings_changed, 1);
    assert_eq!(verdict(&plane, &frame), Reason::Ok);
    plane.sync(&config()).unwrap();
    send(&plane, &frame, 5000);
    assert_eq!(verdict(&plane, &frame), Reason::Ok, "no limit is left");
    assert_eq!(plane.plan(&config()).unwrap(), Default::default());
}

/// A class of `from` with these packets.
fn class(from: &[&str], per_second: f64, burst: u64) -> KernelClass {
    let at = Place { file: std::sync::Arc::new("gateway.toml".into()), line: 1, column: 1 };
    let packets = bucket(per_second, burst);
    KernelClass {
        at: at.into(),
        from: prefixes(from),
        packets,
        new: None,
        bytes: None,
        mode: LimitMode::Hard,
    }
}

#[test]
fn sources_of_a_class_have_its_limits_and_what_is_blocked_or_exempt_in_it_stays_so() {
    needs_bpf!();
    let mut cfg = limited(0.01, 5);
    cfg.classes.insert("wide".into(), class(&["192.0.0.0/16", "2001:db8::/32"], 0.01, 50));
    cfg.classes.insert("within".into(), class(&["192.0.3.0/24"], 0.01, 9));
    cfg.limit.exempt = prefixes(&["192.0.4.0/24"]);
    cfg.block.prefixes = prefixes(&["192.0.5.0/24"]);
    cfg.block.except = prefixes(&["192.0.5.7/32"]);
    let plane = plane(&cfg);
    let passes = |frame: &[u8]| {
        let before = count(&plane, Reason::Ok);
        send(&plane, frame, 200);
        count(&plane, Reason::Ok) - before
    };
    assert_eq!(passes(&udp_from([198, 51, 100, 1])), 5, "no class");
    assert_eq!(passes(&udp_from([192, 0, 2, 1])), 50);
    assert_eq!(passes(&udp_from([192, 0, 3, 1])), 9);
    assert_eq!(passes(&udp_from([192, 0, 5, 7])), 50, "a hole in a block");
    assert_eq!(passes(&udp_from_v6("2001:db8::1")), 50);
    assert_eq!(verdict(&plane, &udp_from([192, 0, 4, 1])), Reason::Exempt);
    assert_eq!(verdict(&plane, &udp_from([192, 0, 5, 1])), Reason::Blocked);
    let left = |source: &str| plane.source(source.parse().unwrap()).unwrap().packets_left;
    assert_eq!((left("192.0.2.1"), left("198.51.100.1")), (Some(0), Some(0)));

    plane.sync(&limited(0.01, 5)).unwrap();
    assert_eq!(passes(&udp_from([192, 0, 3, 2])), 5, "the class is gone");
}

#[test]
fn bytes_are_limited_by_the_length_of_whole_frames() {
    needs_bpf!();
    let mut cfg = config();
    cfg.limit.bytes = bucket(0.01, 6400);
    let plane = plane(&cfg);
    let frame = udp_from([192, 0, 2, 1]);
    send(&plane, &frame, 1000);
    let passed = 6400 / frame.len() as u64;
    assert_eq!((count(&plane, Reason::Ok), count(&plane, Reason::LimitBytes)), (passed, 1000 - passed));
    let row = plane.source("192.0.2.1".parse().unwrap()).unwrap();
    assert!(row.bytes_left.unwrap() < frame.len() as u64, "{row:?}");
    assert_eq!((row.dropped, row.packets_left), (1000 - passed, None));
    assert!(row.drops_per_second > 0.0);
    assert_eq!(verdict(&plane, &udp_from([192, 0, 2, 2])), Reason::Ok);
}

#[test]
fn a_soft_limit_only_counts_until_there_is_overload() {
    needs_bpf!();
    let mut cfg = limited(0.01, 5);
    cfg.limit.mode = LimitMode::Soft;
    let plane = plane(&cfg);
    let frame = udp_from([192, 0, 2, 1]);
    send(&plane, &frame, 100);
    assert_eq!((count(&plane, Reason::Ok), count(&plane, Reason::OkSoft)), (5, 95));
    plane.set_load_factor(0.5).unwrap();
    assert_eq!(verdict(&plane, &frame), Reason::LimitPackets);
    plane.sync(&cfg).unwrap();
    assert_eq!(verdict(&plane, &frame), Reason::LimitPackets, "a reload does not end the overload");
    plane.set_load_factor(1.0).unwrap();
    assert_eq!(verdict(&plane, &frame), Reason::OkSoft);
}

#[test]
fn the_load_factor_slows_every_limit_down() {
    needs_bpf!();
    let _alone = alone();
    let mut cfg = limited(10_000.0, 1000);
    cfg.classes.insert("office".into(), class(&["198.51.100.0/24"], 2000.0, 200));
    attached(&cfg, |plane| {
        for factor in [0.1, 0.5, 1.0] {
            plane.set_load_factor(factor).unwrap();
            for (source, rate, burst) in
                [([192, 0, 2, 1], 10_000.0, 1000.0), ([198, 51, 100, 1], 2000.0, 200.0)]
            {
                let frame = udp_from(source);
                send(plane, &frame, 5000);
                let got = kernel_support::flood(plane, &frame, Duration::from_secs(1));
                let allowed = rate * factor * got.took.as_secs_f64();
                // The first flood may leave a bucket that fills until the second begins.
                let most = allowed * 1.03 + burst * 0.2 + 5.0;
                assert!((got.passed as f64) < most, "{factor}: {} of {allowed}", got.passed);
                let least = allowed * 0.9 - 5.0;
                assert!(
                    got.passed as f64 > least || got.pause > Duration::from_millis(80),
                    "{factor}: {}",
                    got.passed
                );
            }
        }
    });
}

/// Floods with `frame` from ever other sources while `meanwhile` runs: how many packets a second.
fn spoofed<T>(plane: &KernelPlane, frame: &[u8], meanwhile: impl FnOnce() -> T) -> (f64, T) {
    let (runner, done) = (plane.runner("bench_spoofed").unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let (began, mut sent) = (Instant::now(), 0u32);
            while !done.load(Relaxed) {
                let mut frame = frame.to_vec();
                frame[27..30].copy_from_slice(&sent.to_be_bytes()[1..]);
                runner.run(&frame, 20_000).unwrap();
                sent += 20_000;
            }
            f64::from(sent) / began.elapsed().as_secs_f64()
        });
        let result = meanwhile();
        done.store(true, Relaxed);
        (flood.join().unwrap(), result)
    })
}

#[test]
fn an_honest_source_loses_nothing_in_a_spoofed_flood() {
    needs_bpf!();
    let _alone = alone();
    attached(&limited(200.0, 20), |plane| {
        let (honest, runner) = (udp_from([192, 0, 2, 1]), plane.runner("xdp_gateway").unwrap());
        let (rate, lost) = spoofed(plane, &udp_from([10, 0, 0, 1]), || {
            let lost = |_: &u32| {
                std::thread::sleep(Duration::from_millis(10));
                runner.run(&honest, 1).unwrap().0 != XDP_PASS
            };
            (0..300u32).filter(lost).count()
        });
        println!("{rate:.0} spoofed sources a second");
        assert_eq!(lost, 0, "{rate} spoofed sources a second");
        assert!(rate > 200_000.0, "{rate} are no flood");
    });
}

#[test]
fn pairs_of_spoofed_packets_do_not_win_a_greedy_source_more_than_its_limit() {
    needs_bpf!();
    let _alone = alone();
    attached(&limited(10.0, 20), |plane| {
        let (greedy, runner) = (udp_from([192, 0, 2, 1]), plane.runner("xdp_gateway").unwrap());
        let mut pairs = udp_from([10, 0, 0, 1]);
        pairs[15] = 1;
        let began = Instant::now();
        let (rate, passed) = spoofed(plane, &pairs, || {
            let mut passed = 0;
            while began.elapsed() < Duration::from_secs(3) {
                passed += u32::from(runner.run(&greedy, 1).unwrap().0 == XDP_PASS);
            }
            passed
        });
        let allowed = 20.0 + 10.0 * began.elapsed().as_secs_f64();
        println!("{passed} of {allowed:.0} passed beside {rate:.0} spoofed packets a second");
        assert!(f64::from(passed) <= 2.0 * allowed, "{passed} of {allowed}");
    });
}

/// What the program must say, by the arithmetic of the host and a table without limits of its own.
#[derive(Default)]
struct Model {
    buckets: std::collections::HashMap<u64, [u64; 3]>,
}

impl Model {
    fn judge(&mut self, limits: &[Limit; 3], source: u64, new: bool, bytes: u64, now: u64) -> Reason {
        let tats = self.buckets.entry(source).or_default();
        let [packets, connections, length] = limits;
        let costs = [packets.interval_ns, connections.interval_ns, length.cost_of_bytes(bytes)];
        let reasons = [Reason::LimitPackets, Reason::LimitNew, Reason::LimitBytes];
        for (at, limit) in limits.iter().enumerate() {
            if !limit.is_on() || (at == 1 && !new) {
                continue;
            }
            match limit.decide_cost(tats[at], now, costs[at]) {
                Some(next) => tats[at] = next,
                None => return reasons[at],
            }
        }
        Reason::Ok
    }
}

#[test]
fn the_program_decides_as_the_arithmetic_on_the_host_does() {
    needs_bpf!();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        seed = gateway_common::hash::mix(seed.wrapping_add(0x9e37_79b9));
        seed % below
    };
    for _ in 0..6 {
        // So slow that no token comes back meanwhile.
        let rate = 1.0 / 86_400.0;
        let mut cfg = config();
        let bursts = [random(40) + 1, random(10) + 1, random(2000) + 200];
        let on = random(7) + 1;
        let wanted = |at: usize| if on >> at & 1 != 0 { bucket(rate, bursts[at]) } else { None };
        (cfg.limit.packets, cfg.limit.new) = (wanted(0), wanted(1));
        cfg.limit.bytes = if on & 4 != 0 { bucket(60.0 / 64.0, bursts[2]) } else { None };
        cfg.limit.bytes =
            cfg.limit.bytes.map(|b| gateway::config::model::Bucket { burst: b.burst * 1000, ..b });
        let off = |limit: Option<_>, made: Limit| if limit.is_some() { made } else { Limit::OFF };
        let limits = [
            off(cfg.limit.packets, Limit::per_second(rate, bursts[0])),
            off(cfg.limit.new, Limit::per_second(rate, bursts[1])),
            off(cfg.limit.bytes, Limit::bytes_per_second(60.0 / 64.0, bursts[2] * 1000)),
        ];
        let (plane, mut model) = (plane(&cfg), Model::default());
        for _ in 0..600 {
            let host = random(12) as u8;
            let (v6, new) = (random(3) == 0, random(2) == 0);
            let address = format!("2001:db8:0:{host:x}::{:x}", random(1000));
            let mut frame = match (v6, new) {
                (true, _) => udp_from_v6(&address),
                (false, true) => tcp_from([192, 0, 2, host], SYN),
                (false, false) => udp_from([192, 0, 2, host]),
            };
            // The wire may add padding, which counts.
            frame.resize(frame.len() + random(1400) as usize, 0);
            let source = u64::from(host) | u64::from(v6) << 32;
            let expected = model.judge(&limits, source, new && !v6, frame.len() as u64, 1 << 40);
            assert_eq!(verdict(&plane, &frame), expected, "{limits:?}, {address}, {} bytes", frame.len());
        }
    }
}

#[test]
fn buckets_survive_a_restart() {
    needs_bpf!();
    kernel_support::lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let cfg = Kernel { interfaces: vec!["gw0".into()], pin: lab.pin(), ..limited(0.01, 50) };
        let frame = udp_from([192, 0, 2, 1]);
        let before = KernelPlane::start(&cfg).unwrap();
        send(&before, &frame, 200);
        before.stop();
        drop(before);
        let after = KernelPlane::start(&cfg).unwrap();
        assert!(after.status().adopted);
        assert_eq!(verdict(&after, &frame), Reason::LimitPackets, "the same bucket, by the pinned seed");
        let row = after.source("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!((row.dropped, row.packets_left), (151, Some(0)));
        assert_eq!(verdict(&after, &udp_from([192, 0, 2, 2])), Reason::Ok);
        after.stop();
    });
}
