//! SYN floods through the loaded program: what is counted, answered and believed.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use std::net::TcpListener;

use gateway::{
    config::{
        model::{Bind, Kernel},
        units::Rate,
    },
    kernel::{KernelPlane, SteerListener},
};
use gateway_common::verdict::Reason;
use kernel_support::{
    bucket, config,
    frames::{SYN, ethernet, ipv4, ipv6, tcp},
    plane, verdict,
};

/// In the frames of these tests.
const PORT: u16 = 80;

fn guarded(per_second: f64) -> Kernel {
    Kernel { syn_cookies: Some(Rate { per_second }), ..config() }
}

fn syn(n: u32) -> Vec<u8> {
    ethernet(&[], 0x0800, &ipv4((0x0a00_0000 + n).to_be_bytes(), 6, &[], 0, &tcp(SYN)))
}

/// Tells the plane of a listener at the port that the frames go to.
fn listening(plane: &KernelPlane) {
    use std::os::fd::AsFd as _;
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let listener = SteerListener { bind: Bind::Any(PORT), sockets: vec![socket.as_fd()] };
    // Nobody listens there in truth, so that nothing is learnt of it: the test says it of itself.
    plane.steer(&[listener]).unwrap();
    plane.know_listener(PORT, 7);
}

#[test]
fn syns_are_answered_above_the_threshold_only() {
    let plane = plane(&guarded(100.0));
    listening(&plane);
    let reasons: Vec<Reason> = (0..300).map(|n| verdict(&plane, &syn(n))).collect();
    assert!(reasons[..100].iter().all(|reason| *reason == Reason::Ok), "{:?}", &reasons[..100]);
    assert!(reasons[200..].iter().all(|reason| *reason == Reason::SynCookie), "{:?}", &reasons[200..]);
    let status = plane.status().syn;
    assert!(status.on && status.attack, "{status:?}");
    let v6 = ethernet(&[], 0x86dd, &ipv6("2001:db8::1", 6, &tcp(SYN)));
    assert_eq!(verdict(&plane, &v6), Reason::SynCookie);
    // Options of IP would be lost on the way back.
    let with_options = ipv4([10, 9, 9, 9], 6, &[1, 1, 1, 0], 0, &tcp(SYN));
    assert_eq!(verdict(&plane, &ethernet(&[], 0x0800, &with_options)), Reason::NoRoom);
}

#[test]
fn what_nobody_listens_for_is_left_alone() {
    let plane = plane(&guarded(1.0));
    assert!((0..50).all(|n| verdict(&plane, &syn(n)) == Reason::Ok));
    assert!(!plane.status().syn.attack);
}

#[test]
fn a_source_over_its_own_limit_is_not_answered() {
    let mut cfg = guarded(10.0);
    cfg.limit.new = bucket(0.01, 2);
    let plane = plane(&cfg);
    listening(&plane);
    // It has its buckets before the attack.
    let first = [verdict(&plane, &syn(1)), verdict(&plane, &syn(1)), verdict(&plane, &syn(1))];
    assert_eq!(first, [Reason::Ok, Reason::Ok, Reason::LimitNew]);
    assert!((100..200).any(|n| verdict(&plane, &syn(n)) == Reason::SynCookie));
    assert_eq!(verdict(&plane, &syn(300)), Reason::SynCookie);
    assert_eq!(verdict(&plane, &syn(1)), Reason::LimitNew);
}
