//! Packets a second through one CPU: the kernel half beside nftables and bare XDP programs.
//!
//! A node floods UDP from one address and 64 ports by live frames on one CPU; all that receives, judges and forwards runs
//! on the other, a kernel thread of its own. What is counted is what arrives at the targets, or for limiters what comes
//! in at the gateway. Where the generator cannot keep that CPU busy, the rate by the second of CPU time is what counts.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{
    flood::{Bare, Flood, attach_bare},
    gateway::{Gateway, Options},
    net::{Namespace, Net, Node},
    process::{Process, cpu_time},
};
use serde_json::{Value, json};

use crate::{Effort, MEASURED_CPU, OTHER_CPU, show, stats::Rounds};

const VIP: &str = "10.98.0.5";
const PORT: u16 = 8080;
const INTERFACE: &str = "atk";

/// What handles the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    Bare(Bare),
    /// A way of forwarding.
    Service(&'static str),
    NftBalance,
    Limit,
    NftLimit,
}

/// Where packets are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Gateway,
    Targets,
    /// Back where they came from.
    Sender,
}

#[derive(Debug)]
struct Case {
    name: &'static str,
    key: &'static str,
    front: Front,
    at: At,
    rate: Rounds,
    /// By the second of CPU time.
    per_cpu: Rounds,
}

fn case(name: &'static str, key: &'static str, front: Front, at: At) -> Case {
    Case { name, key, front, at, rate: Rounds::default(), per_cpu: Rounds::default() }
}

pub fn run(effort: Effort) -> Result<Value> {
    let net = Net::of(0, 1, 2)?;
    net.for_forwarding()?;
    net.gateway.set_sysctl("net/ipv4/ip_forward", "1")?;
    // Whatever arrives is counted and gone.
    let _ends: Vec<Process> = net
        .nodes()
        .iter()
        .map(|node| attach_bare(&node.namespace, Node::INTERFACE, Bare::Drop))
        .collect::<Result<_>>()?;
    let mut cases = [
        case("bare XDP_DROP", "bare_drop", Front::Bare(Bare::Drop), At::Gateway),
        case("gateway, source over its limit", "limit", Front::Limit, At::Gateway),
        case("nftables, source over its limit", "nft_limit", Front::NftLimit, At::Gateway),
        case("bare XDP_TX", "bare_tx", Front::Bare(Bare::Tx), At::Sender),
        case("gateway, NAT", "nat", Front::Service("nat"), At::Targets),
        case("gateway, DSR", "dsr", Front::Service("dsr"), At::Targets),
        case("gateway, IPIP", "ipip", Front::Service("ipip"), At::Targets),
        case("gateway, GUE", "gue", Front::Service("gue"), At::Targets),
        case("nftables, dnat to jhash", "nft_balance", Front::NftBalance, At::Targets),
    ];
    for _ in 0..effort.rounds {
        for case in &mut cases {
            let (rate, busy) = once(&net, case, effort.round).with_context(|| case.name)?;
            case.rate.push(rate);
            case.per_cpu.push(rate / busy.max(0.01));
        }
    }
    Ok(report(&cases, effort))
}

/// Packets a second, and how much CPU time a second receiving and all that follows from it took.
fn once(net: &Net, case: &Case, duration: Duration) -> Result<(f64, f64)> {
    let running = start(net, case.front)?;
    let threads = net.thread_receive(INTERFACE, MEASURED_CPU)?;
    let spent = || threads.iter().map(|tid| cpu_time(*tid)).sum::<Result<Duration>>();
    let to = SocketAddr::new(VIP.parse()?, PORT);
    let flood = Flood::new(net.attacker(), to, duration + Duration::from_millis(1500));
    let flood = Flood { syn: false, cpu: Some(OTHER_CPU), ..flood }.start(net.attacker())?;
    thread::sleep(Duration::from_millis(700));
    let (before, busy, began) = (arrived(net, case.at)?, spent()?, Instant::now());
    thread::sleep(duration);
    let (after, busy_after, took) = (arrived(net, case.at)?, spent()?, began.elapsed());
    flood.finish()?;
    drop(running);
    let seconds = took.as_secs_f64();
    Ok(((after - before) as f64 / seconds, (busy_after - busy).as_secs_f64() / seconds))
}

fn arrived(net: &Net, at: At) -> Result<u64> {
    match at {
        At::Gateway => received(&net.gateway, INTERFACE),
        At::Sender => received(&net.attacker().namespace, Node::INTERFACE),
        At::Targets => [1, 2].iter().map(|n| received(&net.backend(*n).namespace, Node::INTERFACE)).sum(),
    }
}

fn received(namespace: &Namespace, interface: &str) -> Result<u64> {
    let text = namespace.output("ip", &["-s", "-j", "link", "show", "dev", interface])?;
    let links: Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["rx"]["packets"].as_u64().context("no counter of packets")
}

/// What runs in front, for as long as it is measured.
enum Running<'a> {
    Gateway(Box<Gateway>),
    Bare(Process),
    Nft(&'a Net, Process),
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        match self {
            Running::Gateway(gateway) => _ = gateway.stop(),
            Running::Bare(process) => process.kill(),
            Running::Nft(net, process) => {
                let _ = net.gateway.output("nft", &["flush", "ruleset"]);
                process.kill();
            }
        }
    }
}

fn start(net: &Net, front: Front) -> Result<Running<'_>> {
    let targets = [1, 2].map(|n| net.backend(n).at(PORT));
    let config = match front {
        Front::Bare(bare) => return Ok(Running::Bare(attach_bare(&net.gateway, INTERFACE, bare)?)),
        Front::NftBalance => return nft(net, &nft_balance(targets)),
        Front::NftLimit => return nft(net, &nft_limit()),
        Front::Service(forward) => service(net, targets, forward, ""),
        Front::Limit => {
            service(net, targets, "nat", "limit = { packets = { rate = \"1k/s\", burst = 1000 } }")
        }
    };
    let options = Options { cpu: Some(OTHER_CPU), quiet: true, ..Options::default() };
    Ok(Running::Gateway(Box::new(Gateway::start_with(net, &config, options)?)))
}

fn service(net: &Net, [one, two]: [SocketAddr; 2], forward: &str, limit: &str) -> String {
    format!(
        "[kernel]\ninterfaces = {}\n{limit}\n[service.bench]\nbind = \"{VIP}:{PORT}\"\nprotocol = \"udp\"\n\
         to = [\"{one}\", \"{two}\"]\nforward = \"{forward}\"\n",
        net.all_interfaces()
    )
}

/// Live frames need a program on the receiving end: it passes everything to nftables.
fn nft<'a>(net: &'a Net, rules: &str) -> Result<Running<'a>> {
    let pass = attach_bare(&net.gateway, INTERFACE, Bare::Pass)?;
    net.gateway.output("nft", &[rules])?;
    Ok(Running::Nft(net, pass))
}

fn nft_balance([one, two]: [SocketAddr; 2]) -> String {
    format!(
        "table ip lb {{ chain pre {{ type nat hook prerouting priority dstnat; ip daddr {VIP} udp dport {PORT} \
         dnat to jhash ip saddr . udp sport mod 2 map {{ 0 : {}, 1 : {} }}; }}; }}",
        one.ip(),
        two.ip()
    )
}

fn nft_limit() -> String {
    format!(
        "table netdev f {{ set sources {{ type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10s; }}; \
         chain in {{ type filter hook ingress device {INTERFACE} priority 0; \
         update @sources {{ ip saddr limit rate over 1000/second burst 1000 packets }} drop; }}; }}"
    )
}

fn report(cases: &[Case], effort: Effort) -> Value {
    println!(
        "\n{}  {}",
        show::bold("L4 packets a second"),
        show::dim(&format!("one CPU; median of {} x {} s", effort.rounds, effort.round.as_secs()))
    );
    let rate = |key: &str| cases.iter().find(|c| c.key == key).map_or(0.0, |c| c.per_cpu.median());
    let share = |case: &Case| {
        let bare = if case.at == At::Gateway { "bare_drop" } else { "bare_tx" };
        format!("{:.0} %", 100.0 * case.per_cpu.median() / rate(bare).max(1.0))
    };
    let row = |c: &Case| {
        let rates = [&c.rate, &c.per_cpu].map(|rate| show::grouped(rate.median()));
        [vec![c.name.to_owned()], rates.to_vec(), vec![share(c)]].concat()
    };
    let rows: Vec<Vec<String>> = cases.iter().map(row).collect();
    println!("{}", show::table(&["", "packets/s", "by CPU second", "of bare XDP"], &rows));
    let ratios = [
        ("balancing", rate("nat") / rate("nft_balance").max(1.0), 4.0),
        ("limiting", rate("limit") / rate("nft_limit").max(1.0), 2.5),
    ];
    for (what, ratio, goal) in ratios {
        let text = format!("{what}: {ratio:.1} times the packets of nftables by CPU second (goal: {goal})");
        println!("  {}", if ratio >= goal { show::good(&text) } else { show::bad(&text) });
    }
    let cases = cases.iter().map(|c| {
        (
            c.key.to_owned(),
            json!({ "name": c.name, "packets_per_second": c.rate.json(),
            "packets_per_cpu_second": c.per_cpu.json() }),
        )
    });
    json!({
        "rounds": effort.rounds, "round_seconds": effort.round.as_secs(),
        "balancing_times_nftables": ratios[0].1, "limiting_times_nftables": ratios[1].1,
        "cases": cases.collect::<serde_json::Map<_, _>>(),
    })
}
