//! `gateway explain packet`: what it says of packets, that they then fare so, and that asking changes nothing.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::Command,
};

use lab::{
    packet::{ACK, Frame, Inside, SYN, Sender},
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

/// Frames of every kind that reach the first client's interface, and what is to become of them: in this order, for a
/// connection goes on with its second packet.
fn frames(rig: &Rig) -> Result<Vec<(&'static str, Vec<u8>, &'static str)>> {
    let own = &*rig.gateway.at4().ip().to_string();
    let (udp, ping) = (Inside::Udp { payload: vec![b'u'; 32] }, Inside::Icmp);
    let (syn, ack) = (Inside::tcp(SYN), Inside::tcp(ACK));
    let frame = |from: &str, to: &str, inside: &Inside| rig.frame(from, to, inside.clone());
    let to_own = |from: &str, inside: &Inside| frame(from, &format!("{own}:80"), inside);
    let at = |vip: &str| if vip.contains(':') { format!("[{vip}]:8080") } else { format!("{vip}:8080") };
    let to = |from: &str, vip: &str, inside: &Inside| frame(from, &at(vip), inside);
    let changed = |frame: Frame, at: usize, bytes: &[u8]| {
        let mut all = frame.bytes();
        all.splice(at..at + bytes.len(), bytes.iter().copied());
        all
    };
    // Where headers begin in an untagged frame.
    const IP: usize = 14;
    const INSIDE: usize = IP + 20;
    let mut arp = [[0xff; 6], rig.net.client(1).mac()].concat();
    arp.extend([8, 6]);
    arp.resize(60, 0);
    Ok(vec![
        ("blocked", to_own("198.51.100.7", &syn)?.bytes(), "blocked"),
        ("blocked, UDP", to_own("198.51.100.7", &udp)?.bytes(), "blocked"),
        ("blocked, ping", frame("198.51.100.7", own, &ping)?.bytes(), "blocked"),
        ("blocked, VLAN", Frame { vlans: vec![5], ..to_own("198.51.100.7", &syn)? }.bytes(), "blocked"),
        ("blocked, VLANs", Frame { vlans: vec![5, 6], ..to_own("198.51.100.7", &syn)? }.bytes(), "blocked"),
        (
            "blocked, options",
            Frame { options: vec![1; 8], ..to_own("198.51.100.7", &syn)? }.bytes(),
            "blocked",
        ),
        ("blocked, fragment", Frame { fragment: 64, ..to_own("198.51.100.7", &udp)? }.bytes(), "blocked"),
        ("blocked, IPv6", to("[2001:db8:bad::1]:9", NAT6, &udp)?.bytes(), "blocked"),
        ("a hole in a block", to_own("198.51.100.9", &syn)?.bytes(), "ok"),
        ("banned", to_own("192.0.2.9", &syn)?.bytes(), "banned"),
        ("banned, ping", frame("192.0.2.9", own, &ping)?.bytes(), "banned"),
        ("banned at a service", to("192.0.2.9", NAT, &syn)?.bytes(), "banned"),
        ("in a banned prefix", to_own("192.0.2.200", &udp)?.bytes(), "banned"),
        ("beside a banned prefix", to_own("192.0.2.100", &udp)?.bytes(), "ok"),
        ("exempt", to_own("10.1.2.3", &syn)?.bytes(), "exempt"),
        ("exempt, UDP", to_own("10.1.2.3", &udp)?.bytes(), "exempt"),
        ("over its limit", to_own(BUSY, &syn)?.bytes(), "limit_new"),
        ("over its limit, VLAN", Frame { vlans: vec![5], ..to_own(BUSY, &syn)? }.bytes(), "limit_new"),
        ("over its limit at a service", to(BUSY, IPIP, &syn)?.bytes(), "limit_new"),
        ("nothing new", to_own(BUSY, &ack)?.bytes(), "ok"),
        ("within its limit", to_own("203.0.113.6", &syn)?.bytes(), "ok"),
        ("a closed port", frame("203.0.113.6", &format!("{own}:9999"), &udp)?.bytes(), "ok"),
        ("SYN with FIN", to_own("203.0.113.7", &Inside::tcp(SYN | 1))?.bytes(), "bad_tcp_flags"),
        ("no flags", to_own("203.0.113.7", &Inside::tcp(0))?.bytes(), "bad_tcp_flags"),
        ("from the loopback", to_own("127.0.0.1", &syn)?.bytes(), "martian_source"),
        ("from this network", to_own("0.1.2.3", &udp)?.bytes(), "martian_source"),
        ("from a group", to_own("224.0.0.5", &udp)?.bytes(), "martian_source"),
        ("from a group, IPv6", to("[ff02::5]:9", NAT6, &udp)?.bytes(), "martian_source"),
        ("IPv4-mapped", to("[::ffff:192.0.2.77]:9", NAT6, &udp)?.bytes(), "martian_source"),
        ("cut off", to_own("203.0.113.7", &udp)?.bytes()[..IP + 12].to_vec(), "truncated"),
        ("version 5", changed(to_own("203.0.113.7", &udp)?, IP, &[0x55]), "bad_ip_header"),
        ("beyond the frame", changed(to_own("203.0.113.7", &udp)?, IP + 2, &[9, 0]), "bad_ip_length"),
        ("tiny fragment", Frame { fragment: 1, ..to_own("203.0.113.7", &syn)? }.bytes(), "bad_fragment"),
        (
            "three VLANs",
            Frame { vlans: vec![1, 2, 3], ..to_own("203.0.113.7", &syn)? }.bytes(),
            "too_many_headers",
        ),
        ("short TCP header", changed(to_own("203.0.113.7", &ack)?, INSIDE + 12, &[0x40]), "bad_tcp_header"),
        ("long datagram", changed(to_own("203.0.113.7", &udp)?, INSIDE + 4, &[1, 0]), "bad_udp_length"),
        ("ARP", arp, "not_ip"),
        ("ping of the host", frame("203.0.113.8", own, &ping)?.bytes(), "ok"),
        ("ping of a service", frame("203.0.113.8", NAT, &ping)?.bytes(), "echo"),
        ("ping of a service, IPv6", frame("[fd77::77]:9", &format!("[{NAT6}]:9"), &ping)?.bytes(), "echo"),
        ("the middle of nothing", to("203.0.113.9", NAT, &ack)?.bytes(), "no_flow"),
        ("a connection begins", to("203.0.113.9", NAT, &syn)?.bytes(), "service"),
        ("the connection goes on", to("203.0.113.9", NAT, &ack)?.bytes(), "service"),
        ("its time is over", changed(to("203.0.113.9", NAT, &ack)?, IP + 8, &[1]), "ttl_expired"),
        ("NAT, IPv6", to("[fd77::77]:9", NAT6, &syn)?.bytes(), "service"),
        ("IPIP", to("203.0.113.9", IPIP, &syn)?.bytes(), "service"),
        ("GUE", to("203.0.113.9", GUE, &syn)?.bytes(), "service"),
        ("DSR", frame("203.0.113.9", &format!("{DSR}:53"), &udp)?.bytes(), "service"),
        ("another port of a service", frame("203.0.113.9", &format!("{DSR}:54"), &udp)?.bytes(), "ok"),
        ("no target", frame("203.0.113.9", &format!("{EMPTY}:80"), &syn)?.bytes(), "no_target"),
    ])
}

/// Packets of the first client's interface by reason.
fn judged(rig: &Rig) -> Result<BTreeMap<String, f64>> {
    let interface = &*rig.net.client(1).role;
    Ok(rig.gateway.metrics()?.by("kernel_packets_total", "reason", &[("interface", interface)]))
}

// Idea 8, O15
#[test]
fn fifty_real_packets_fare_as_explained() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    rig.spend_connections()?;
    let client = rig.net.client(1).v4();
    eventually("the targets' MAC addresses are known", || {
        let known = |told: Value| told["reason"] == "service";
        let nat = |n: u16| known(rig.explain(&format!("tcp 203.0.113.{n} {NAT}:8080")).unwrap_or_default());
        Ok((9..19).all(nat)
            && known(rig.explain(&format!("tcp {client} {IPIP}:8080"))?)
            && known(rig.explain(&format!("tcp {client} {GUE}:8080"))?)
            && known(rig.explain(&format!("udp {client} {DSR}:53"))?)
            && known(rig.explain(&format!("tcp fd77::77 [{NAT6}]:8080"))?))
    })?;
    let sender = Sender::open(rig.net.client(1))?;
    let table = frames(&rig)?;
    assert_eq!(table.len(), 50);
    for (name, bytes, expected) in table {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let told = rig.explain(&format!("--hex {hex} --interface {}", rig.net.client(1).role))?;
        assert_eq!(told["reason"], expected, "{name}: {told}");
        let before = judged(&rig)?;
        sender.send_all(&[bytes])?;
        let what = format!("{name}: {expected}");
        let more = |now: &BTreeMap<String, f64>, reason: &str| {
            now.get(reason).unwrap_or(&0.0) - before.get(reason).unwrap_or(&0.0)
        };
        eventually(&what, || Ok(more(&judged(&rig)?, expected) > 0.0))?;
        let now = judged(&rig)?;
        // What hosts say to each other unasked is ARP and ICMPv6.
        for reason in now.keys().filter(|reason| !["ok", "not_ip"].contains(&reason.as_str())) {
            let wanted = if reason == expected { 1.0 } else { 0.0 };
            assert_eq!(more(&now, reason), wanted, "{name}: {reason}");
        }
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
