//! Blocked, exempt and banned prefixes in the loaded program.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use gateway::{
    config::{model::Kernel, units::Prefix},
    kernel::KernelError,
};
use gateway_common::verdict::Reason;
use kernel_support::{
    alone, bucket, config, count,
    frames::{udp_from, udp_from_v6},
    plane, prefix, prefixes, verdict,
};

fn blocked(block: &[&str], except: &[&str]) -> Kernel {
    let mut cfg = config();
    cfg.block.prefixes = prefixes(block);
    cfg.block.except = prefixes(except);
    cfg
}

#[test]
fn the_longest_prefix_wins_in_both_families() {
    needs_bpf!();
    let plane = plane(&blocked(
        &["10.0.0.0/8", "10.1.2.128/25", "2001:db8::/32"],
        &["10.1.2.0/24", "2001:db8:1::/48", "2001:db8::7/128"],
    ));
    for (source, reason) in [
        ([10, 0, 0, 1], Reason::Blocked),
        ([10, 1, 2, 3], Reason::Ok),
        ([10, 1, 2, 200], Reason::Blocked),
        ([10, 1, 3, 3], Reason::Blocked),
        ([11, 0, 0, 1], Reason::Ok),
    ] {
        assert_eq!(verdict(&plane, &udp_from(source)), reason, "{source:?}");
    }
    for (source, reason) in [
        ("2001:db8::1", Reason::Blocked),
        ("2001:db8:1::1", Reason::Ok),
        ("2001:db8::7", Reason::Ok),
        ("2001:db9::1", Reason::Ok),
    ] {
        assert_eq!(verdict(&plane, &udp_from_v6(source)), reason, "{source}");
    }
}

#[test]
fn a_change_of_the_lists_holds_for_the_next_packet() {
    needs_bpf!();
    let plane = plane(&config());
    let frame = udp_from([10, 1, 2, 3]);
    assert_eq!(verdict(&plane, &frame), Reason::Ok);
    let report = plane.sync(&blocked(&["10.0.0.0/8"], &[])).unwrap();
    assert_eq!((report.prefixes_added, report.prefixes_removed), (1, 0));
    assert_eq!(verdict(&plane, &frame), Reason::Blocked);
    let next = blocked(&["10.0.0.0/8"], &["10.1.2.3/32"]);
    assert_eq!(plane.plan(&next).unwrap().prefixes_added, 1);
    assert_eq!(verdict(&plane, &frame), Reason::Blocked, "planning changes nothing");
    plane.sync(&next).unwrap();
    assert_eq!(verdict(&plane, &frame), Reason::Ok);
    let report = plane.sync(&config()).unwrap();
    assert_eq!((report.prefixes_added, report.prefixes_removed), (0, 2));
    assert_eq!(verdict(&plane, &udp_from([10, 0, 0, 1])), Reason::Ok);
}

#[test]
fn reloads_never_open_what_both_configs_block_nor_shut_what_both_let_in() {
    needs_bpf!();
    let mut one = blocked(&["0.0.0.0/0"], &["192.0.2.0/24", "198.51.100.0/24"]);
    let mut two = blocked(&["10.0.0.0/9", "10.128.0.0/9", "11.0.0.0/8"], &["10.9.0.0/16"]);
    one.limit.packets = bucket(1e6, 1_000_000);
    two.limit.packets = bucket(2e6, 1_000_000);
    let plane = plane(&one);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (plane, done) = (&plane, &done);
        for (frame, reason) in
            [(udp_from([10, 1, 2, 3]), Reason::Blocked), (udp_from([192, 0, 2, 1]), Reason::Ok)]
        {
            scope.spawn(move || {
                let passes = reason == Reason::Ok;
                let runner = plane.runner("xdp_gateway").unwrap();
                while !done.load(Relaxed) {
                    let (action, _) = runner.run(&frame, 2000).unwrap();
                    assert_eq!(action == 2, passes);
                }
            });
        }
        for _ in 0..40 {
            plane.sync(&two).unwrap();
            plane.sync(&one).unwrap();
        }
        done.store(true, Relaxed);
    });
    assert_eq!(count(&plane, Reason::Blocked) % 2000, 0, "every single packet of the one was dropped");
    assert_eq!(count(&plane, Reason::Ok) % 2000, 0, "and none of the other");
}

#[test]
fn a_hundred_thousand_prefixes_load_within_two_seconds_and_change_by_what_differs() {
    needs_bpf!();
    let _alone = alone();
    let mut cfg = config();
    let network = |i: u32| Prefix { addr: Ipv4Addr::from(0x0b00_0000 + (i << 8)).into(), len: 24 };
    cfg.block.prefixes = (0..100_000).map(network).collect();
    let began = Instant::now();
    let plane = plane(&cfg);
    println!("loaded in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "loaded in {:?}", began.elapsed());
    assert_eq!(verdict(&plane, &udp_from([11, 0, 7, 1])), Reason::Blocked);
    assert_eq!(verdict(&plane, &udp_from([10, 255, 255, 1])), Reason::Ok);

    cfg.block.prefixes.pop();
    cfg.block.prefixes.push(prefix("203.0.113.0/24"));
    let began = Instant::now();
    let report = plane.sync(&cfg).unwrap();
    println!("changed in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "changed in {:?}", began.elapsed());
    assert_eq!((report.prefixes_added, report.prefixes_removed, report.prefixes_changed), (1, 1, 0));
    assert_eq!(verdict(&plane, &udp_from([203, 0, 113, 1])), Reason::Blocked);
    let row = plane.maps().into_iter().find(|map| map.name == "ACCESS_V4").unwrap();
    assert_eq!(row.entries, 100_000);
}

#[test]
fn a_banned_source_is_dropped_until_its_time_is_over_with_no_help() {
    needs_bpf!();
    let plane = plane(&config());
    let sources = [
        ("192.0.2.1/32", udp_from([192, 0, 2, 1])),
        ("192.0.2.128/25", udp_from([192, 0, 2, 200])),
        ("2001:db8::/64", udp_from_v6("2001:db8::1")),
        ("2001:db8:1::5/128", udp_from_v6("2001:db8:1::5")),
    ];
    let time = Duration::from_millis(700);
    for (cidr, frame) in &sources {
        assert_eq!(verdict(&plane, frame), Reason::Ok, "{cidr}");
    }
    let began = Instant::now();
    for (cidr, _) in &sources {
        let ban = plane.ban(prefix(cidr), Some(time), "a test").unwrap();
        assert_eq!((ban.left_seconds, ban.why.as_str()), (Some(1), "a test"));
    }
    assert_eq!(plane.bans().len(), 4);
    while began.elapsed() < time.mul_f64(0.9) {
        for (cidr, frame) in &sources {
            assert_eq!(verdict(&plane, frame), Reason::Banned, "{cidr} after {:?}", began.elapsed());
        }
    }
    std::thread::sleep((began + time.mul_f64(1.1)).saturating_duration_since(Instant::now()));
    for (cidr, frame) in &sources {
        assert_eq!(verdict(&plane, frame), Reason::Ok, "{cidr}");
    }
    assert!(plane.bans().is_empty());
    plane.tick();
    let used: u64 = plane
        .maps()
        .iter()
        .filter(|map| ["BANS", "ACCESS_V4", "ACCESS_V6"].contains(&map.name))
        .map(|map| map.entries)
        .sum();
    assert_eq!(used, 0, "the sweep left nothing");
}

#[test]
fn neighbours_of_a_banned_source_pass() {
    needs_bpf!();
    let plane = plane(&config());
    plane.ban(prefix("192.0.2.1/32"), None, "").unwrap();
    plane.ban(prefix("2001:db8::5/128"), None, "").unwrap();
    assert_eq!(verdict(&plane, &udp_from([192, 0, 2, 1])), Reason::Banned);
    assert_eq!(verdict(&plane, &udp_from([192, 0, 2, 2])), Reason::Ok);
    assert_eq!(verdict(&plane, &udp_from_v6("2001:db8::5")), Reason::Banned);
    assert_eq!(verdict(&plane, &udp_from_v6("2001:db8::6")), Reason::Ok);
    assert!(plane.unban(prefix("192.0.2.1/32")).unwrap());
    assert!(plane.unban(prefix("2001:db8::5/128")).unwrap());
    assert!(!plane.unban(prefix("192.0.2.1/32")).unwrap());
    assert_eq!(verdict(&plane, &udp_from([192, 0, 2, 1])), Reason::Ok);
    assert_eq!(verdict(&plane, &udp_from_v6("2001:db8::5")), Reason::Ok);
}

#[test]
fn a_prefix_ban_that_is_over_leaves_the_rule_around_it() {
    needs_bpf!();
    let mut cfg = blocked(&["10.0.0.0/8"], &["10.1.0.0/16"]);
    cfg.limit.exempt = prefixes(&["10.1.5.0/24"]);
    let plane = plane(&cfg);
    let hole = udp_from([10, 1, 2, 3]);
    assert_eq!(verdict(&plane, &hole), Reason::Ok);
    plane.ban(prefix("10.1.0.0/17"), Some(Duration::from_millis(300)), "").unwrap();
    assert_eq!(verdict(&plane, &hole), Reason::Banned);
    assert_eq!(verdict(&plane, &udp_from([10, 1, 5, 1])), Reason::Exempt, "exempt inside the ban");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(verdict(&plane, &hole), Reason::Ok);
    assert_eq!(verdict(&plane, &udp_from([10, 2, 0, 1])), Reason::Blocked);
}

#[test]
fn bans_that_make_no_sense_are_refused_with_the_reason() {
    needs_bpf!();
    let mut cfg = blocked(&["10.0.0.0/8"], &[]);
    cfg.limit.exempt = prefixes(&["192.0.2.0/24"]);
    let plane = plane(&cfg);
    plane.ban(prefix("198.51.100.0/24"), None, "").unwrap();
    for (cidr, why) in [
        ("192.0.2.1/32", "kernel.limit.exempt has 192.0.2.0/24"),
        ("10.1.2.3/32", "kernel.block has 10.0.0.0/8 already"),
        ("198.51.100.7/32", "198.51.100.0/24 is banned already"),
        ("0.0.0.0/0", "everybody"),
    ] {
        let refused = plane.ban(prefix(cidr), Some(Duration::from_secs(9)), "");
        assert!(matches!(&refused, Err(KernelError::BanRefused { .. })), "{cidr}");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }
    let again = plane.ban(prefix("198.51.100.0/24"), Some(Duration::from_secs(60)), "shorter").unwrap();
    assert_eq!(again.left_seconds, Some(60));
    assert_eq!(plane.bans().len(), 1);
}

#[test]
fn bans_survive_reloads_and_a_source_that_becomes_exempt_is_let_in() {
    needs_bpf!();
    let plane = plane(&config());
    let frame = udp_from([192, 0, 2, 1]);
    plane.ban(prefix("192.0.2.1/32"), None, "").unwrap();
    plane.sync(&blocked(&["10.0.0.0/8"], &[])).unwrap();
    assert_eq!(verdict(&plane, &frame), Reason::Banned);
    let mut cfg = config();
    cfg.limit.exempt = prefixes(&["192.0.2.0/24"]);
    plane.sync(&cfg).unwrap();
    assert_eq!(verdict(&plane, &frame), Reason::Exempt);
}
