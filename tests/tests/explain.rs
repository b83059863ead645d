//! `gateway explain packet`: what it says of packets, that they then fare so, and that asking changes nothing.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
};

use lab::{
    packet::{Frame, Inside, SYN, Sender},
    prelude::*,
};

const NAT: &str = "10.98.0.5";
const NAT6: &str = "fd98::5";
const DSR: &str = "10.98.0.6";
const IPIP: &str = "10.98.0.7";
const GUE: &str = "10.98.0.8";
const EMPTY: &str = "10.98.0.9";
/// It has used up its new connections.
const BUSY: &str = "203.0.113.5";

struct Rig {
    gateway: Gateway,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig() -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(2)?;
    net.for_forwarding()?;
    let (first, second) = (net.backend(1), net.backend(2));
    let mut config = format!(
        "[kernel]\ninterfaces = {}\nflows = 1024\n\
         block = {{ cidrs = [\"198.51.100.0/24\", \"2001:db8:bad::/48\"], except = [\"198.51.100.9/32\"] }}\n\
         limit = {{ new = {{ rate = \"1/m\", burst = 5 }}, exempt = [\"10.1.0.0/16\"] }}\n",
        net.all_interfaces(),
    );
    let mut service = |name: &str, at: &str, to: String, more: &str| {
        config += &format!("[service.{name}]\nbind = \"{at}\"\nto = {to}\n{more}\n");
    };
    let both = format!("[\"{}\", \"{}\"]", first.at(80), second.at(80));
    service("nat", &format!("{NAT}:8080"), both.clone(), "");
    service("six", &format!("[{NAT6}]:8080"), format!("\"[{}]:80\"", first.v6()), "");
    service(
        "dsr",
        &format!("{DSR}:53"),
        format!("\"{}\"", second.at(53)),
        "forward = \"dsr\"\nprotocol = \"udp\"",
    );
    service("ipip", &format!("{IPIP}:8080"), format!("\"{}\"", first.at(8080)), "forward = \"ipip\"");
    service("gue", &format!("{GUE}:8080"), format!("\"{}\"", first.at(8080)), "forward = \"gue\"");
    service("empty", &format!("{EMPTY}:80"), both, "");
    let gateway = Gateway::start(&net, &config)?;
    for target in [first, second] {
        gateway.cli(&["target", "down", &format!("empty/{}", target.at(80))])?.ok()?;
    }
    gateway.cli(&["ban", "add", "192.0.2.9", "--why", "scraping"])?.ok()?;
    gateway.cli(&["ban", "add", "192.0.2.128/25"])?.ok()?;
    Ok(Rig { gateway, net, _turn: turn })
}

impl Rig {
    fn explain(&self, packet: &str) -> Result<Value> {
        let mut arguments = vec!["explain", "packet", "-o", "json"];
        arguments.extend(packet.split_whitespace());
        self.gateway.cli(&arguments)?.ok()?.json()
    }

    fn send(&self, frames: &[Frame]) -> Result<()> {
        let bytes: Vec<Vec<u8>> = frames.iter().map(Frame::bytes).collect();
        Sender::open(self.net.client(1))?.send_all(&bytes)
    }

    /// From an address that the client pretends to have.
    fn frame(&self, from: &str, to: &str, inside: Inside) -> Result<Frame> {
        let port = |text: &str| if text.contains(':') { text.to_owned() } else { format!("{text}:40000") };
        let (from, to): (SocketAddr, SocketAddr) = (port(from).parse()?, port(to).parse()?);
        Ok(Frame::new(self.net.client(1), from, to, inside))
    }

    fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }

    fn spend_connections(&self) -> Result<()> {
        let before = self.packets("limit_new")?;
        let syn = self.frame(BUSY, "10.77.0.1:81", Inside::tcp(SYN))?;
        self.send(&vec![syn; 8])?;
        eventually("its connections are used up", || Ok(self.packets("limit_new")? >= before + 3))
    }
}

#[test]
fn every_kind_of_packet_is_explained() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    rig.spend_connections()?;
    let (client, own) = (rig.net.client(1).v4(), rig.gateway.at4().ip());
    let (b1, b1_6) = (rig.net.backend(1).v4(), rig.net.backend(1).v6());
    // Neighbours that the kernel does not know yet are "unresolved".
    eventually("the targets' MAC addresses are known", || {
        let known = |told: Value| told["reason"] == "service";
        Ok(known(rig.explain(&format!("tcp {client} {IPIP}:8080"))?)
            && known(rig.explain(&format!("udp {client} {DSR}:53"))?)
            && known(rig.explain(&format!("tcp fd77::77 [{NAT6}]:8080"))?))
    })?;
    let table = [
        (format!("tcp 198.51.100.7 {own}:80"), "drop", "blocked", "kernel.block has 198.51.100.0/24"),
        (format!("tcp 198.51.100.7 {own}:80 --vlan 5"), "drop", "blocked", "vlan 5"),
        (format!("tcp 198.51.100.7 {own}:80 --vlan 7 --vlan 8"), "drop", "blocked", "vlan 8"),
        (format!("tcp 198.51.100.9 {own}:80"), "pass", "ok", ""),
        (format!("udp 2001:db8:bad::1 [{NAT6}]:53"), "drop", "blocked", "2001:db8:bad::/48"),
        (format!("tcp 192.0.2.9 {own}:80"), "drop", "banned", "192.0.2.9/32 is banned: scraping"),
        (format!("udp 192.0.2.200 {own}:80"), "drop", "banned", "192.0.2.128/25 is banned"),
        (format!("tcp 10.1.2.3 {own}:80"), "pass", "exempt", "kernel.limit.exempt has 10.1.0.0/16"),
        (format!("tcp {BUSY} {own}:80"), "drop", "limit_new", "\"new_left\":0"),
        (format!("tcp {BUSY} {own}:80 --ack"), "pass", "ok", "\"new_left\":0"),
        (format!("tcp 203.0.113.6 {own}:80"), "pass", "ok", "\"new_left\":5"),
        (format!("tcp {client} {own}:80 --flags syn,fin"), "drop", "bad_tcp_flags", "SYN with FIN"),
        (format!("tcp 127.0.0.1 {own}:80"), "drop", "martian_source", ""),
        ("--hex 0200000000020200000000010800".into(), "drop", "truncated", ""),
        ("--hex ffffffffffff02000000000108060001".into(), "pass", "not_ip", "type 0x0806"),
        (format!("tcp {client} {own}:9999"), "pass", "ok", ""),
        (format!("icmp {client} {own}"), "pass", "ok", "icmp type 8"),
        (format!("icmp {client} {NAT}"), "tx", "echo", "icmp type 0"),
        (format!("tcp {client}:4000 {NAT}:8080"), "forward", "service", "Maglev table"),
        (format!("tcp {client} {NAT}:8080 --ack"), "drop", "no_flow", ""),
        (format!("tcp {client} {NAT}:8080 --ttl 1"), "drop", "ttl_expired", ""),
        (format!("tcp {client} {NAT}:8080 --length 9000"), "tx", "too_big", "icmp type 3 code 4"),
        (format!("tcp fd77::77 [{NAT6}]:8080"), "forward", "service", &*format!(" > {b1_6} hops 63")),
        (
            format!("udp {client} {DSR}:53 --length 700"),
            "forward",
            "service",
            "> 10.98.0.6 ttl 63 length 700",
        ),
        (format!("tcp {client} {IPIP}:8080"), "forward", "service", &*format!(" > {b1} ttl 64 length 60")),
        (format!("tcp {client} {GUE}:8080"), "forward", "service", " > 6080\""),
        (format!("tcp {client} {EMPTY}:80"), "drop", "no_target", "A service without a usable target"),
    ];
    for (packet, verdict, reason, says) in &table {
        let told = rig.explain(packet)?;
        let found = (told["verdict"].as_str(), told["reason"].as_str());
        assert_eq!(found, (Some(*verdict), Some(*reason)), "{packet}: {told}");
        assert!(told.to_string().contains(says), "{packet}: {says:?} in {told}");
    }
    let text =
        rig.gateway.cli(&["explain", "packet", "tcp", &client.to_string(), &format!("{NAT}:8080")])?.ok()?;
    assert!(
        text.stdout.starts_with("forward: service\n") && text.stdout.contains("next hop "),
        "{}",
        text.stdout
    );
    let bad = rig.gateway.cli(&["explain", "packet", "tcp", "192.0.2.1", "192.0.2.2"])?;
    assert!(bad.code == 2 && bad.stderr.contains("needs a port"), "{bad:?}");
    let elsewhere =
        rig.gateway.cli(&["explain", "packet", "icmp", "192.0.2.1", "192.0.2.2", "--interface", "lo"])?;
    assert!(elsewhere.code == 5 && elsewhere.stderr.contains("not attached to lo"), "{elsewhere:?}");
    Ok(())
}

#[test]
fn a_connection_and_its_replies_are_recognised() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let client = rig.net.client(1).v4();
    let begun = rig.frame(&format!("{client}:4000"), &format!("{NAT}:8080"), Inside::tcp(SYN))?;
    eventually("the connection is known", || {
        rig.send(std::slice::from_ref(&begun))?;
        let told = rig.explain(&format!("tcp {client}:4000 {NAT}:8080 --ack"))?;
        Ok(told["chosen_by"] == "its connection is known" && told["reason"] == "service")
    })?;
    let told = rig.explain(&format!("tcp {client}:4000 {NAT}:8080 --ack"))?;
    let after: Vec<&str> = told["after"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let word = |line: usize, n: usize| {
        after.get(line).and_then(|line| line.split(' ').nth(n)).context("no such word")
    };
    // "ipv4 US > TARGET …", "tcp OURS > 80 …"
    let (us, target, port) = (word(1, 1)?, word(1, 3)?, word(2, 1)?);
    assert_eq!(told["target"], format!("{target}:80"));
    let interface = &told["next_hop"]["interface"].as_str().context("no interface")?;
    let reply =
        rig.explain(&format!("tcp {target}:80 {us}:{port} --flags syn,ack --interface {interface}"))?;
    assert_eq!((&reply["verdict"], &reply["reason"]), (&json!("forward"), &json!("reply")), "{reply}");
    assert_eq!(reply["after"][1], format!("ipv4 {NAT} > {client} ttl 63 length 40"), "{reply}");
    assert_eq!(reply["next_hop"]["interface"], told["interface"]);
    let stranger =
        rig.explain(&format!("tcp {target}:81 {us}:{port} --flags syn,ack --interface {interface}"))?;
    assert_eq!(stranger["reason"], "ok", "{stranger}");
    Ok(())
}

#[test]
fn real_packets_fare_as_explained() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    rig.spend_connections()?;
    let (client, own) = (rig.net.client(1).v4(), rig.gateway.at4().ip());
    let ready = format!("tcp {client} {IPIP}:8080");
    eventually("the target's MAC address is known", || Ok(rig.explain(&ready)?["reason"] == "service"))?;
    for (from, to, inside, packet) in [
        ("198.51.100.7", format!("{own}:80"), Inside::tcp(SYN), "tcp"),
        ("192.0.2.9", format!("{own}:80"), Inside::tcp(SYN), "tcp"),
        ("192.0.2.200", format!("{own}:80"), Inside::tcp(SYN), "tcp"),
        ("10.1.2.3", format!("{own}:80"), Inside::tcp(SYN), "tcp"),
        (BUSY, format!("{own}:80"), Inside::tcp(SYN), "tcp"),
        ("127.0.0.1", format!("{own}:80"), Inside::tcp(SYN), "tcp"),
        (&*client.to_string(), format!("{own}:80"), Inside::tcp(0x03), "tcp --flags syn,fin"),
        (&*client.to_string(), format!("{IPIP}:8080"), Inside::tcp(SYN), "tcp"),
        (&*client.to_string(), format!("{NAT}:8080"), Inside::tcp(0x10), "tcp --ack"),
        (&*client.to_string(), format!("{EMPTY}:80"), Inside::tcp(SYN), "tcp"),
        (&*client.to_string(), NAT.to_owned(), Inside::Icmp, "icmp"),
    ] {
        let told = rig.explain(&format!("{packet} {from} {to}"))?;
        let reason = told["reason"].as_str().context("no reason")?.to_owned();
        let before = rig.packets(&reason)?;
        rig.send(&[rig.frame(from, &to, inside)?])?;
        eventually(&format!("{packet} {from} {to} is {reason}"), || Ok(rig.packets(&reason)? == before + 1))?;
    }
    Ok(())
}

/// Asks the admin API a thousand times over one connection.
fn ask(gateway: &Gateway, times: usize, body: &str) -> Result<()> {
    let mut socket = UnixStream::connect(gateway.socket())?;
    let request = format!(
        "POST /v1/explain HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..times {
        socket.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 8192];
        // All that is said of a packet is one JSON object.
        while !answer.ends_with(b"}") {
            let n = socket.read(&mut buffer)?;
            ensure!(n > 0, "the gateway hung up");
            answer.extend_from_slice(buffer.get(..n).unwrap_or(&[]));
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

#[test]
fn asking_a_thousand_times_changes_nothing() -> Result<()> {
    lab_test!();
    if lab::tools::missing("bpftool") {
        lab::skip("explain", "`bpftool` is not installed");
        return Ok(());
    }
    let rig = rig()?;
    rig.spend_connections()?;
    let client = rig.net.client(1).v4();
    let begun = rig.frame(&format!("{client}:4000"), &format!("{NAT}:8080"), Inside::tcp(SYN))?;
    rig.send(&[begun])?;
    let version = std::fs::read_dir(rig.gateway.pin())?.flatten().next().context("nothing is pinned")?.path();
    let dump = |map: &str| -> Result<Vec<u8>> {
        let output =
            Command::new("bpftool").args(["map", "dump", "pinned"]).arg(version.join(map)).output()?;
        ensure!(output.status.success(), "bpftool: {output:?}");
        Ok(output.stdout)
    };
    let maps = ["BUCKETS", "FLOWS", "REPLIES", "TARGET_COUNTERS"];
    // Of reasons that nothing but our own packets has.
    let reasons = ["service", "unresolved", "blocked", "limit_new", "no_flow", "echo"];
    let state = || -> Result<(Vec<Vec<u8>>, Vec<u64>)> {
        let maps = maps.iter().map(|map| dump(map)).collect::<Result<_>>()?;
        Ok((maps, reasons.iter().map(|reason| rig.packets(reason)).collect::<Result<_>>()?))
    };
    let began = |port: u32| format!("{client}:{port}");
    let before = state()?;
    for (n, (protocol, source, destination)) in [
        ("tcp", began(4000), format!("{NAT}:8080")),
        ("tcp", began(4001), format!("{NAT}:8080")),
        ("tcp", "203.0.113.77".into(), "10.77.0.1:81".to_owned()),
        ("tcp", BUSY.into(), "10.77.0.1:81".to_owned()),
        ("icmp", client.to_string(), NAT.to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let packet = json!({ "protocol": protocol, "source": source, "destination": destination });
        ask(&rig.gateway, 200, &json!({ "packet": packet }).to_string())
            .with_context(|| format!("packet {n}"))?;
    }
    let after = state()?;
    for (map, (before, after)) in maps.iter().zip(before.0.iter().zip(&after.0)) {
        assert!(before == after, "{map} has changed");
    }
    assert_eq!(before.1, after.1, "{reasons:?}");
    Ok(())
}
