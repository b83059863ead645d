//! Limits of services in the loaded program, beside those for everything.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use gateway::{
    config::{self, model::Kernel},
    kernel::{KernelPlane, ServiceSpec, TargetSpec, TargetState},
};
use gateway_common::verdict::Reason;
use kernel_support::{
    bucket, config as plain, count,
    frames::{SYN, ethernet, ipv6, padded, tcp, tcp_from, udp, udp_from, udp_from_v6},
    lab::{self, ip},
    send, verdict,
};

const SERVICES: &str = r#"
[service.dns]
bind = "10.0.0.99:53"
protocol = "udp"
to = "198.51.100.2:53"
limit = { packets = { rate = "1/h", burst = 7 } }

[service.dns6]
bind = "[2001:db8::99]:53"
protocol = "udp"
to = "[2001:db8:1::2]:53"
limit = { packets = { rate = "1/h", burst = 7 } }

[service.web]
bind = "10.0.0.99:80"
to = "198.51.100.2:80"
limit = { new = { rate = "1/h", burst = 3 } }

[service.free]
bind = "[2001:db8::99]:80"
to = "[2001:db8:1::2]:80"
"#;

/// Makes the services of a config those of the plane.
fn set(plane: &KernelPlane, text: &str) {
    let text = format!("[listener.web]\nbind = \":8080\"\n[route.all]\nto = [\"127.0.0.1:3000\"]\n{text}");
    let config = config::parse(&text, std::path::Path::new("gateway.toml")).unwrap();
    let spec = |(name, config): (&'static str, _)| {
        let config: &gateway::config::model::Service = config;
        let target = |target: &gateway::config::model::ServiceTarget| TargetSpec {
            addr: target.addr,
            weight: 1,
            server_id: None,
            state: TargetState::Up,
        };
        let targets = config.targets.iter().map(target).collect();
        ServiceSpec { name, config, targets }
    };
    let names = ["dns", "dns6", "free", "web"];
    let specs: Vec<_> =
        names.into_iter().filter_map(|n| Some((n, config.services.get(n)?))).map(spec).collect();
    plane.set_services(&specs).unwrap();
}

/// A kernel half with `SERVICES` on a veth, its targets behind it.
fn with_services(kernel: &Kernel, test: impl FnOnce(&KernelPlane, &Kernel) + Send) {
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        ip(&["address", "add", "198.51.100.1/24", "dev", "gw0"]);
        ip(&["address", "add", "2001:db8:1::1/64", "dev", "gw0", "nodad"]);
        let cfg = Kernel { interfaces: vec!["gw0".into()], pin: lab.pin(), ..kernel.clone() };
        let plane = KernelPlane::start(&cfg).unwrap();
        set(&plane, SERVICES);
        test(&plane, &cfg);
        plane.stop();
    });
}

/// How many of 100 packets are not refused by `over`.
fn passed(plane: &KernelPlane, frame: &[u8], over: Reason) -> u64 {
    let before = count(plane, over);
    send(plane, frame, 100);
    100 - (count(plane, over) - before)
}

#[test]
fn every_service_has_its_own_buckets_beside_those_for_everything() {
    needs_bpf!();
    let mut cfg = plain();
    cfg.limit.packets = bucket(0.01, 1000);
    with_services(&cfg, |plane, _| {
        let (here, there) = ([192, 0, 2, 1], [192, 0, 2, 2]);
        assert_eq!(passed(plane, &udp_from(here), Reason::LimitPackets), 7);
        assert_eq!(passed(plane, &udp_from(there), Reason::LimitPackets), 7);
        assert_eq!(passed(plane, &tcp_from(here, SYN), Reason::LimitNew), 3);
        assert_eq!(passed(plane, &udp_from_v6("2001:db8:7::1"), Reason::LimitPackets), 7);
        let free = padded(ethernet(&[], 0x86dd, &ipv6("2001:db8:7::1", 6, &tcp(SYN))));
        assert_eq!(passed(plane, &free, Reason::LimitNew), 100, "no limit of its own");
        let left = plane.source("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!((left.packets_left, left.service), (Some(800), None), "both judge every packet");
        let rows = plane.sources(10);
        let of = |source: &str, service: &str| {
            let found = rows.iter().find(|r| r.source == source && r.service.as_deref() == Some(service));
            found.unwrap_or_else(|| panic!("{source} at {service}: {rows:?}"))
        };
        assert_eq!((of("192.0.2.1", "dns").dropped, of("192.0.2.1", "dns").packets_left), (93, Some(0)));
        assert_eq!((of("192.0.2.1", "web").dropped, of("192.0.2.1", "web").new_left), (97, Some(0)));
        assert_eq!(of("2001:db8:7::/64", "dns6").dropped, 93);
    });
}

#[test]
fn limits_of_services_follow_reloads_and_the_load_and_survive_a_restart() {
    needs_bpf!();
    with_services(&plain(), |plane, cfg| {
        let frame = udp_from([192, 0, 2, 1]);
        let refused = |plane: &KernelPlane| verdict(plane, &frame) == Reason::LimitPackets;
        assert_eq!(passed(plane, &frame, Reason::LimitPackets), 7);
        plane.set_load_factor(0.2).unwrap();
        assert!(refused(plane));
        assert_eq!(passed(plane, &udp_from([192, 0, 2, 9]), Reason::LimitPackets), 1);
        set(plane, &SERVICES.replace("burst = 7", "burst = 20"));
        assert_eq!(passed(plane, &udp_from([192, 0, 2, 10]), Reason::LimitPackets), 4, "scaled too");
        plane.set_load_factor(1.0).unwrap();
        assert_eq!(passed(plane, &udp_from([192, 0, 2, 11]), Reason::LimitPackets), 20);
        set(plane, &SERVICES.replace("limit = { packets", "# limit = { packets"));
        assert!(!refused(plane));
        set(plane, SERVICES);
        assert!(refused(plane));
        plane.stop();
        let again = KernelPlane::start(cfg).unwrap();
        set(&again, SERVICES);
        assert!(again.status().adopted && refused(&again));
        again.stop();
    });
}

#[test]
fn packets_to_no_service_are_not_judged_by_one() {
    needs_bpf!();
    with_services(&plain(), |plane, _| {
        let mut frame = padded(ethernet(
            &[],
            0x0800,
            &kernel_support::frames::ipv4([192, 0, 2, 1], kernel_support::frames::UDP, &[], 0, &udp(b"hi")),
        ));
        frame[37] = 54;
        assert_eq!(passed(plane, &frame, Reason::LimitPackets), 100);
        assert!(plane.source("192.0.2.1".parse().unwrap()).is_none());
    });
}
