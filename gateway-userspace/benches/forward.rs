//! Nanoseconds a packet of an L4 service takes in the XDP program, by BPF_PROG_TEST_RUN: the minimum of 15 rounds in which
//! all ways take turns, net of the harness that puts the packet back after every round (`gateway-ebpf/src/bench.rs`).
//!
//! `cargo bench -p gateway-userspace --bench forward -- [--quick] [--json FILE] [--only CASE] [--plot FILE]`; with a plot
//! it is measured how the cost grows with flows, sources, services and targets.
#![allow(clippy::unwrap_used, reason = "a bench that fails may panic")]

#[path = "../tests/kernel_support/mod.rs"]
mod kernel_support;
mod plot;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use gateway::{
    config::{
        model::{Bind, Forward, Kernel, L4Balance, L4Protocol, Service, ServiceLimit},
        units::Place,
    },
    kernel::{KernelPlane, Runner, ServiceSpec, TargetSpec, TargetState},
};
use gateway_common::{maps::Wrap, verdict::Reason};
use kernel_support::{
    bucket, config, count,
    frames::{ACK, SYN, TCP, ethernet, padded, tcp, udp},
    lab, pin_to,
};
use serde_json::json;

const ROUNDS: usize = 15;
const VIP4: &str = "192.0.2.1";
const VIP6: &str = "2001:db8:2::1";
const LENGTH: usize = 80;

/// What to measure.
struct Case {
    name: String,
    forward: Option<Forward>,
    remembered: bool,
    v6: bool,
    protocol: L4Protocol,
    flows: u32,
    services: u16,
    targets: u16,
    limits: bool,
    /// Instead of a service: a program of the harness itself.
    program: &'static str,
    /// Nanoseconds above the harness that must not be exceeded.
    goal: Option<f64>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let (json, only, plot) = (after("--json"), after("--only"), after("--plot"));
    if let Some(why) = kernel_support::unavailable() {
        println!("the kernel half cannot be measured here: {why}");
        return;
    }
    lab::inside(|lab| {
        lab.veth("gw0", "gw1");
        for command in [
            "addr add 10.1.0.254/16 dev gw0",
            "addr add 2001:db8:1::fe/64 dev gw0 nodad",
            "route add default via 10.1.0.1",
            "-6 route add default via 2001:db8:1::1",
        ] {
            lab::ip(&command.split(' ').collect::<Vec<_>>());
        }
        for n in 1..=10 {
            let mac = format!("02:00:00:00:01:{n:02x}");
            lab::ip(&["neigh", "add", &format!("10.1.0.{n}"), "lladdr", &mac, "dev", "gw0"]);
            lab::ip(&["neigh", "add", &format!("2001:db8:1::{n:x}"), "lladdr", &mac, "dev", "gw0"]);
        }
        for family in ["ipv4", "ipv6"] {
            std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").unwrap();
        }
        match plot {
            Some(file) => grow(quick, &file),
            None => run(quick, json.as_deref(), only.as_deref()),
        }
    });
}

fn case(name: &str, forward: Option<Forward>, remembered: bool, flows: u32, goal: Option<f64>) -> Case {
    Case {
        name: format!("{name}, {flows} flows"),
        forward,
        remembered,
        v6: false,
        protocol: L4Protocol::Tcp,
        flows,
        services: 1,
        targets: 10,
        limits: true,
        program: "xdp_gateway",
        goal,
    }
}

fn cases(quick: bool) -> Vec<Case> {
    let bare = |program: &'static str| Case {
        name: program.to_owned(),
        forward: None,
        program,
        ..case("", None, false, 1, None)
    };
    let ipip = Some(Forward::Ipip);
    let mut cases = vec![bare("bench_drop"), bare("bench_adjust")];
    cases.extend([
        case("IPIP", ipip, true, 1, Some(80.0)),
        case("IPIP", ipip, true, 32_768, Some(95.0)),
        Case { limits: false, ..case("IPIP without limits", ipip, true, 1, None) },
        Case { limits: false, ..case("IPIP without limits", ipip, true, 32_768, None) },
        case("IPIP without flow table", ipip, false, 1, Some(55.0)),
        case("IPIP without flow table", ipip, false, 32_768, None),
        Case { limits: false, ..case("IPIP without flow table and limits", ipip, false, 1, None) },
        Case { v6: true, ..case("IPIP, IPv6", ipip, true, 1, None) },
        Case { protocol: L4Protocol::Udp, ..case("IPIP, UDP", ipip, true, 1, None) },
        case("GUE", Some(Forward::Gue), true, 1, None),
        case("DSR", Some(Forward::Dsr), true, 1, None),
        case("NAT", Some(Forward::Nat), true, 1, None),
        case("NAT", Some(Forward::Nat), true, 32_768, None),
        Case { v6: true, ..case("NAT, IPv6", Some(Forward::Nat), true, 1, None) },
    ]);
    if !quick {
        cases.push(case("IPIP", ipip, true, 1_000_000, None));
        cases.push(case("NAT", Some(Forward::Nat), true, 200_000, None));
    }
    cases
}

/// How the cost grows with what is held.
fn grow(quick: bool, file: &str) {
    pin_to(0);
    let at = lab::ifindex("gw0");
    let ipip = Some(Forward::Ipip);
    let harness = |program| Case { forward: None, program, ..case("", None, false, 1, None) };
    type Series<'a> = (&'a str, &'a [u32], &'a dyn Fn(u32) -> Case);
    let series: [Series<'_>; 5] = [
        ("flows", &FLOWS, &|n| case("flows", ipip, true, n, None)),
        ("sources, no service", &FLOWS, &|n| case("sources", None, false, n, None)),
        ("services", &[1, 10, 100, 1000], &|n| Case {
            services: n as u16,
            ..case("services", ipip, true, 1, None)
        }),
        ("targets", &[2, 10, 100, 1000], &|n| Case {
            targets: n as u16,
            ..case("targets", ipip, true, 1, None)
        }),
        ("one memory access a flow", &FLOWS, &|n| Case {
            program: "bench_touch",
            ..case("touch", None, false, n, None)
        }),
    ];
    let repeat = if quick { 20_000 } else { 200_000 };
    let measure = |case: Case| {
        let mut ready = prepare(case);
        for _ in 0..ROUNDS {
            ready.best = ready.best.min(ready.runner.run_at(at, &[0; LENGTH], repeat).unwrap().1);
        }
        ready.best.as_nanos() as f64
    };
    let (drop, adjust) = (measure(harness("bench_drop")), measure(harness("bench_adjust")));
    let mut lines = Vec::new();
    for (name, counts, case) in series {
        let mut points = Vec::new();
        for n in counts {
            let case = case(*n);
            let floor = if case.forward.is_some() { adjust } else { drop };
            let net = measure(case) - floor;
            println!("{name}: {n:>8} {net:>6.0} ns");
            points.push((f64::from(*n), net));
        }
        lines.push(plot::Line { name: name.into(), points });
    }
    let title = "Cost of a packet as state grows (IPIP, flow table and limits on)";
    std::fs::write(file, plot::svg(title, "how many", "ns above the harness", &lines)).unwrap();
}

const FLOWS: [u32; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];

struct Ready {
    case: Case,
    /// Its maps and programs live as long as it does.
    _plane: KernelPlane,
    runner: Runner,
    best: Duration,
}

fn run(quick: bool, json: Option<&str>, only: Option<&str>) {
    pin_to(0);
    // Packets leave where they came in.
    let at = lab::ifindex("gw0");
    let wanted = |case: &Case| case.forward.is_none() || only.is_none_or(|only| case.name == only);
    let mut ready: Vec<Ready> = cases(quick).into_iter().filter(wanted).map(prepare).collect();
    let repeat = if quick { 20_000 } else { 200_000 };
    for _ in 0..ROUNDS {
        for case in &mut ready {
            // The other cases have been there: once round all connections before it counts.
            case.runner.run_at(at, &[0; LENGTH], case.case.flows).unwrap();
            let packets = repeat.max(2 * case.case.flows);
            case.best = case.best.min(case.runner.run_at(at, &[0; LENGTH], packets).unwrap().1);
        }
    }
    let (drop, adjust) = (ready[0].best, ready[1].best);
    println!("{:44} {:>6} {:>6} {:>6}", "the packet is put back before every round", "ns", "net", "goal");
    let mut rows = Vec::new();
    for case in &ready {
        let wrapped = matches!(case.case.forward, Some(Forward::Ipip | Forward::Gue));
        let floor = if wrapped { adjust } else { drop };
        let (gross, net) =
            (case.best.as_nanos() as f64, case.best.as_nanos() as f64 - floor.as_nanos() as f64);
        let goal = case.case.goal.map_or(String::new(), |goal| format!("{goal:.0}"));
        println!("{:44} {gross:>6} {net:>6} {goal:>6}", case.case.name);
        rows.push(json!({ "case": case.case.name, "ns": gross, "net_ns": net, "goal_ns": case.case.goal }));
    }
    if let Some(file) = json {
        let report = json!({ "rounds": ROUNDS, "repeat": repeat, "cases": rows });
        std::fs::write(file, serde_json::to_string_pretty(&report).unwrap()).unwrap();
    }
}

fn prepare(case: Case) -> Ready {
    let mut cfg: Kernel = config();
    cfg.flows = 1 << 20;
    if case.limits {
        cfg.limit.packets = bucket(1e9, 1_000_000_000);
        cfg.limit.new = bucket(1e9, 1_000_000_000);
    }
    let plane = KernelPlane::start_detached(&cfg).unwrap();
    if let Some(forward) = case.forward {
        let vip: IpAddr = if case.v6 { VIP6 } else { VIP4 }.parse().unwrap();
        let service = |n: u16| Service {
            at: Place { file: std::sync::Arc::new("bench".into()), line: 0, column: 0 }.into(),
            binds: vec![Bind::Addr(SocketAddr::new(vip, 80 + n))],
            protocol: case.protocol,
            targets: Vec::new(),
            forward,
            balance: L4Balance::Maglev,
            flows: case.remembered,
            quic: false,
            health: None,
            limit: ServiceLimit::default(),
            splice: None,
        };
        // The first ten addresses have neighbours, further targets are at other ports of theirs.
        let targets: Vec<TargetSpec> = (0..case.targets)
            .map(|n| {
                let host = n % 10 + 1;
                let text = if case.v6 { format!("2001:db8:1::{host:x}") } else { format!("10.1.0.{host}") };
                let addr = SocketAddr::new(text.parse().unwrap(), 80 + n / 10);
                TargetSpec { addr, weight: 1, server_id: None, state: TargetState::Up }
            })
            .collect();
        let services: Vec<(String, Service)> =
            (0..case.services).map(|n| (format!("bench{n}"), service(n))).collect();
        let spec = |(name, config)| ServiceSpec { name, config, targets: targets.clone() };
        let specs: Vec<ServiceSpec<'_>> =
            services.iter().map(|(name, config)| spec((name.as_str(), config))).collect();
        plane.set_services(&specs).unwrap();
    }
    // Every flow begins.
    wrap(&plane, &case, SYN);
    let runner = plane.runner("bench_wrap").unwrap();
    runner.run(&[0; LENGTH], case.flows.max(100)).unwrap();
    wrap(&plane, &case, ACK);
    runner.run(&[0; LENGTH], 20_000.max(case.flows)).unwrap();
    if case.forward.is_some() {
        let reasons: BTreeMap<_, _> =
            [Reason::Service, Reason::ServiceUnpinned].map(|r| (r.name(), count(&plane, r))).into();
        assert!(reasons["service"] > 20_000, "{}: {reasons:?} {:?}", case.name, plane.counters());
    }
    Ready { case, _plane: plane, runner, best: Duration::MAX }
}

/// Sets up the harness: a packet of this case, its client's address changing.
fn wrap(plane: &KernelPlane, case: &Case, flags: u8) {
    let mut frame = template(case, flags);
    frame.resize(LENGTH, 0);
    let mut words = [0; 10];
    for (word, bytes) in words.iter_mut().zip(frame.chunks(8)) {
        *word = u64::from_ne_bytes(bytes.try_into().unwrap());
    }
    let wrap = Wrap {
        template: words,
        length: LENGTH as u32,
        flows: case.flows,
        round: 0,
        source: if case.v6 { 34 } else { 26 },
        first: 0x0b00_0000,
        _pad: 0,
    };
    plane.wrap(case.program, wrap).unwrap();
}

fn template(case: &Case, flags: u8) -> Vec<u8> {
    let (protocol, segment) = match case.protocol {
        L4Protocol::Tcp => (TCP, tcp(flags)),
        L4Protocol::Udp => (17, {
            let mut datagram = udp(b"hello hello");
            datagram[2..4].copy_from_slice(&80u16.to_be_bytes());
            datagram
        }),
    };
    let vip: IpAddr = if case.v6 { VIP6 } else { VIP4 }.parse().unwrap();
    let (kind, mut packet) = match vip {
        IpAddr::V4(v4) => {
            let mut packet = kernel_support::frames::ipv4([11, 0, 0, 0], protocol, &[], 0, &segment);
            packet[16..20].copy_from_slice(&v4.octets());
            // "Don't fragment", as nearly all TCP has it.
            packet[6] |= 0x40;
            (0x0800, packet)
        }
        IpAddr::V6(v6) => {
            let mut packet = kernel_support::frames::ipv6("2001:db8:3::", protocol, &segment);
            packet[24..40].copy_from_slice(&v6.octets());
            (0x86dd, packet)
        }
    };
    packet.truncate(LENGTH - 14);
    padded(ethernet(&[], kind, &packet))
}
