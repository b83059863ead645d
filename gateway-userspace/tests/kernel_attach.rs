//! Attaching, pinning and stopping, on interfaces and a bpffs that each test makes for itself.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use std::{io::ErrorKind, net::UdpSocket, os::fd::AsFd as _, time::Duration};

use gateway::{
    config::model::{Bind, Kernel, KernelMode, Steer},
    kernel::{self, KernelError, KernelPlane, SteerListener},
};
use gateway_common::{maps, service};
use kernel_support::{
    bucket, config,
    lab::{self, Lab, Neighbour, ip, listeners},
    prefix,
};

fn on(lab: &Lab, interface: &str) -> Kernel {
    Kernel { interfaces: vec![interface.into()], pin: lab.pin(), ..config() }
}

fn start(cfg: &Kernel) -> KernelPlane {
    KernelPlane::start(cfg).unwrap_or_else(|error| panic!("{error}"))
}

fn mode(plane: &KernelPlane) -> &'static str {
    plane.status().interfaces[0].mode
}

#[test]
fn each_mode_is_what_status_says_or_an_error() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        for (asked, got) in
            [(KernelMode::Auto, "native"), (KernelMode::Native, "native"), (KernelMode::Generic, "generic")]
        {
            let plane = start(&Kernel { mode: asked, ..on(lab, "gw0") });
            assert_eq!(mode(&plane), got, "{:?}", plane.status());
            assert_eq!(lab.programs_on("gw0").len(), 1);
            plane.stop();
            assert!(lab.is_free("gw0"));
        }
        // The loopback has no driver mode: auto says why it is generic, native is refused.
        let plane = start(&on(lab, "lo"));
        assert_eq!(mode(&plane), "generic");
        let status = plane.status();
        assert!(status.warnings[0].contains("no native mode: its driver has none"), "{:?}", status.warnings);
        assert!(status.summary().contains("XDP generic on lo"), "{}", status.summary());
        plane.stop();
        let refused = KernelPlane::start(&Kernel { mode: KernelMode::Native, ..on(lab, "lo") });
        assert!(matches!(refused, Err(KernelError::Mode { .. })));
        assert!(lab.is_free("lo"));
    });
}

#[test]
fn an_interface_that_is_not_there_is_an_error_where_it_is_insisted_on() {
    needs_bpf!();
    lab::inside(|lab| {
        let plane = start(&on(lab, "nosuch0"));
        assert_eq!(mode(&plane), "off");
        assert!(plane.status().warnings[0].contains("no such interface"));
        assert!(matches!(plane.ban(prefix("192.0.2.1/32"), None, ""), Err(KernelError::Off { .. })));
        plane.stop();
        for cfg in [
            Kernel { mode: KernelMode::Native, ..on(lab, "nosuch0") },
            Kernel { required: true, ..on(lab, "nosuch0") },
        ] {
            assert!(KernelPlane::start(&cfg).is_err());
        }
    });
}

#[test]
fn another_program_on_the_interface_is_named_and_left_alone() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let other = start(&on(lab, "gw0"));
        let theirs = lab.programs_on("gw0");
        let pin = lab.pin().join("second");
        let plane = start(&Kernel { pin: pin.clone(), ..on(lab, "gw0") });
        assert_eq!(mode(&plane), "off");
        let warnings = plane.status().warnings;
        let named = format!("another XDP program is attached to gw0 (\"xdp_gateway\", id {})", theirs[0]);
        assert!(warnings[0].contains(&named), "{warnings:?}");
        let checks = kernel::doctor(&["gw0".into()]);
        assert!(checks.iter().any(|check| check.name == "interface gw0"), "{checks:?}");
        plane.stop();
        let refused = KernelPlane::start(&Kernel { pin, mode: KernelMode::Native, ..on(lab, "gw0") });
        let Err(error @ KernelError::Busy { .. }) = refused else { panic!("not refused as busy") };
        assert!(error.to_string().contains("another XDP program is attached to gw0"), "{error}");
        assert_eq!(lab.programs_on("gw0"), theirs);
        other.stop();
    });
}

#[test]
fn interfaces_that_come_go_and_come_back_are_attached_within_a_tick() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let both = Kernel { interfaces: vec!["gw0".into(), "gw2".into()], ..on(lab, "gw0") };
        let plane = start(&both);
        let modes = || plane.status().interfaces.iter().map(|i| i.mode).collect::<Vec<_>>();
        assert_eq!(modes(), ["native", "off"]);
        assert!(plane.status().warnings[0].contains("it is attached to when it comes"));
        lab.veth("gw2", "gw3");
        plane.tick();
        assert_eq!(modes(), ["native", "native"]);
        assert_eq!(lab.programs_on("gw2").len(), 1);
        assert!(plane.counters().iter().any(|row| row.interface == "gw2"));
        ip(&["link", "del", "gw0"]);
        plane.tick();
        assert_eq!(modes(), ["off", "native"]);
        lab.veth("gw0", "gw1");
        plane.tick();
        assert_eq!(modes(), ["native", "native"], "{:?}", plane.status());
        for state in ["down", "up"] {
            ip(&["link", "set", "gw0", state]);
            plane.tick();
            assert_eq!((modes(), lab.programs_on("gw0").len()), (vec!["native", "native"], 1));
        }
        // Made anew between two ticks.
        ip(&["link", "del", "gw2"]);
        lab.veth("gw2", "gw3");
        plane.tick();
        assert_eq!((modes(), lab.programs_on("gw2").len()), (vec!["native", "native"], 1));
        plane.stop();
        assert!(lab.is_free("gw0") && lab.is_free("gw2"));
    });
}

#[test]
fn an_interface_with_jumbo_frames_is_attached_natively() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        ip(&["link", "set", "gw0", "mtu", "9000"]);
        ip(&["link", "set", "gw1", "mtu", "9000"]);
        let plane = start(&on(lab, "gw0"));
        assert_eq!((mode(&plane), lab.programs_on("gw0").len()), ("native", 1), "{:?}", plane.status());
        plane.stop();
    });
}

#[test]
fn after_a_crash_one_program_goes_on_and_the_next_start_takes_it_over() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let mut cfg = on(lab, "gw0");
        cfg.limit.packets = bucket(1e6, 1_000_000);
        cfg.block.prefixes = vec![prefix("10.0.0.0/8")];
        let plane = start(&cfg);
        assert!(!plane.status().adopted);
        plane.ban(prefix("192.0.2.1/32"), None, "for ever").unwrap();
        plane.ban(prefix("198.51.100.0/24"), Some(Duration::from_secs(600)), "a while").unwrap();
        plane.ban(prefix("2001:db8::/64"), None, "").unwrap();
        let first = lab.programs_on("gw0");
        // Nobody says goodbye, as after kill -9: descriptors are closed, pins stay.
        drop(plane);
        assert_eq!(lab.programs_on("gw0"), first, "the program goes on");

        let plane = start(&cfg);
        let second = lab.programs_on("gw0");
        assert_eq!(second.len(), 1);
        assert_ne!(second, first, "by the new program");
        assert!(plane.status().adopted);
        let bans = plane.bans();
        let cidrs: Vec<String> = bans.iter().map(|ban| ban.cidr.to_string()).collect();
        assert_eq!(
            cidrs,
            ["192.0.2.1/32", "198.51.100.0/24", "2001:db8::/64"].map(|c| prefix(c).to_string())
        );
        assert!(bans[1].left_seconds.is_some_and(|left| (590..=600).contains(&left)));
        assert_eq!(plane.plan(&cfg).unwrap(), Default::default(), "the block list was there already");
        plane.stop();
        assert!(lab.is_free("gw0"));

        // A clean stop keeps bans too; an interface that left the config is freed.
        drop(start(&cfg));
        lab.veth("gw2", "gw3");
        let plane = start(&Kernel { interfaces: vec!["gw2".into()], ..cfg });
        assert!(lab.is_free("gw0"));
        assert_eq!(lab.programs_on("gw2").len(), 1);
        assert_eq!(plane.bans().len(), 3);
    });
}

#[test]
fn detach_removes_everything_a_crash_left() {
    needs_bpf!();
    lab::inside(|lab| {
        assert_eq!(kernel::detach(&lab.pin()).unwrap(), Default::default());
        lab.veth("gw0", "gw1");
        lab.veth("eth0.100", "gw3");
        let mut cfg = Kernel { steer: Steer::IpHash, ..on(lab, "gw0") };
        cfg.interfaces.push("eth0.100".into());
        let plane = start(&cfg);
        let sockets = listeners("127.0.0.1:0".parse().unwrap(), 2);
        let bind = Bind::Addr(sockets[0].local_addr().unwrap());
        plane.steer(&[SteerListener { bind, sockets: sockets.iter().map(|s| s.as_fd()).collect() }]).unwrap();
        drop(plane);
        assert_eq!(lab.programs_on("eth0.100").len(), 1);
        let report = kernel::detach(&lab.pin()).unwrap();
        assert_eq!(report.links, ["steer", "xdp native eth0.100", "xdp native gw0"]);
        assert_eq!(report.maps.len(), maps::name::PINNED.len() + service::name::PINNED.len());
        assert!(lab.is_free("gw0") && lab.is_free("eth0.100"));
        assert!(!lab.pin().exists());
        assert_eq!(kernel::detach(&lab.pin()).unwrap().to_string(), "nothing was attached or pinned");
        assert!(!start(&on(lab, "gw0")).status().adopted);
    });
}

#[test]
fn an_interface_made_anew_under_its_old_name_is_attached_again() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        drop(start(&on(lab, "gw0")));
        ip(&["link", "del", "gw0"]);
        lab.veth("gw0", "gw1");
        let plane = start(&on(lab, "gw0"));
        assert_eq!((mode(&plane), lab.programs_on("gw0").len()), ("native", 1));
    });
}

#[test]
fn interfaces_come_and_go_by_reload_and_counters_follow_them() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        lab.veth("gw2", "gw3");
        let plane = start(&on(lab, "gw0"));
        let both = Kernel { interfaces: vec!["gw0".into(), "gw2".into()], ..on(lab, "gw0") };
        assert_eq!(plane.plan(&both).unwrap().interfaces_changed, 1);
        plane.sync(&both).unwrap();
        assert_eq!((lab.programs_on("gw0").len(), lab.programs_on("gw2").len()), (1, 1));
        plane.sync(&on(lab, "gw2")).unwrap();
        assert!(lab.is_free("gw0"));
        assert_eq!(lab.programs_on("gw2").len(), 1);
        assert!(plane.counters().iter().all(|row| row.interface != "gw0"));
        assert!(plane.counters().iter().any(|row| row.interface == "gw2" && row.reason == "ok"));
        plane.stop();
    });
}

#[test]
fn a_reload_that_cannot_attach_changes_nothing() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let cfg = Kernel { mode: KernelMode::Native, ..on(lab, "gw0") };
        let plane = start(&cfg);
        let mut next = Kernel { interfaces: vec!["gw1".into(), "lo".into()], ..cfg.clone() };
        next.block.prefixes = vec![prefix("10.0.0.0/8")];
        assert!(matches!(plane.sync(&next), Err(KernelError::Mode { .. })));
        assert!(lab.is_free("gw1") && lab.programs_on("gw0").len() == 1);
        assert_eq!(plane.plan(&cfg).unwrap(), Default::default());
        plane.stop();
    });
}

#[test]
fn without_a_bpffs_it_runs_unpinned_and_says_so() {
    needs_bpf!();
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let plane = start(&Kernel { pin: lab.no_bpffs(), ..on(lab, "gw0") });
        let status = plane.status();
        assert_eq!((mode(&plane), status.pin), ("native", None));
        assert!(status.warnings[0].contains("is not on a bpffs"), "{:?}", status.warnings);
        drop(plane);
        assert!(lab.is_free("gw0"), "nothing outlives it");
    });
}

#[test]
fn real_packets_are_dropped_and_let_in_again() {
    needs_bpf!();
    lab::inside(|lab| {
        for generic in [false, true] {
            let neighbour = Neighbour::new();
            ip(&["link", "add", "gw0", "type", "veth", "peer", "name", "gw1"]);
            neighbour.takes("gw1");
            ip(&["addr", "add", "10.7.0.1/24", "dev", "gw0"]);
            ip(&["link", "set", "gw0", "up"]);
            neighbour.run(|| {
                ip(&["addr", "add", "10.7.0.2/24", "dev", "gw1"]);
                ip(&["link", "set", "gw1", "up"]);
            });
            let mode = if generic { KernelMode::Generic } else { KernelMode::Native };
            let plane = start(&Kernel { mode, ..on(lab, "gw0") });
            let server = UdpSocket::bind("10.7.0.1:7000").unwrap();
            server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let arrives = || {
                neighbour.run(|| {
                    UdpSocket::bind("10.7.0.2:0").unwrap().send_to(b"hello", "10.7.0.1:7000").unwrap();
                });
                match server.recv(&mut [0; 16]) {
                    Ok(_) => true,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        false
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            assert!((0..20).any(|_| arrives()));
            plane.ban(prefix("10.7.0.2/32"), Some(Duration::from_millis(600)), "").unwrap();
            assert!(!arrives());
            let rows = plane.counters();
            let banned = rows.iter().find(|row| row.interface == "gw0" && row.reason == "banned").unwrap();
            assert!(banned.packets >= 1 && banned.action == "drop");
            let sample = plane.samples().into_iter().find(|sample| sample.reason == "banned").unwrap();
            assert_eq!((sample.interface.as_str(), sample.destination_port), ("gw0", Some(7000)));
            std::thread::sleep(Duration::from_millis(600));
            assert!(arrives());
            plane.stop();
            ip(&["link", "del", "gw0"]);
        }
    });
}

#[test]
fn three_capabilities_are_enough_and_without_them_it_says_what_is_missing() {
    needs_bpf!();
    const NEEDED: u64 = (1 << 12) | (1 << 38) | (1 << 39);
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let cfg = Kernel { steer: Steer::IpHash, ..on(lab, "gw0") };
        lab::keep_capabilities(NEEDED);
        let plane = start(&cfg);
        assert_eq!(mode(&plane), "native", "{:?}", plane.status());
        assert!(plane.status().pin.is_some(), "{:?}", plane.status());
        plane.ban(prefix("192.0.2.1/32"), None, "").unwrap();
        let sockets = listeners("127.0.0.1:0".parse().unwrap(), 2);
        let bind = Bind::Addr(sockets[0].local_addr().unwrap());
        plane.steer(&[SteerListener { bind, sockets: sockets.iter().map(|s| s.as_fd()).collect() }]).unwrap();
        assert!(plane.status().steering.on);
        plane.tick();
        plane.stop();
    });
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        let cfg = Kernel { steer: Steer::IpHash, ..on(lab, "gw0") };
        lab::keep_capabilities(0);
        let plane = start(&cfg);
        let status = plane.status();
        assert_eq!(mode(&plane), "off");
        assert!(
            status.warnings[0].contains("CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing"),
            "{:?}",
            status.warnings
        );
        assert!(plane.bans().is_empty() && plane.counters().is_empty());
        let refused = KernelPlane::start(&Kernel { required: true, ..cfg });
        let Err(error @ KernelError::Required { .. }) = refused else { panic!("not refused") };
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
    });
}
