//! Blocked prefixes, bans, and the shapes of packets: K4, K5, K10.

use lab::{
    backend::start_all,
    gateway::simple_config,
    packet::{Frame, Inside, SYN, Sender},
    prelude::*,
};

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

fn rig(kernel: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    let backends = start_all(&net)?;
    let gateway = Gateway::start(&net, &format!("{}[kernel]\n{kernel}\n", simple_config(&backends)))?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    fn reload(&self, kernel: &str) -> Result<()> {
        self.gateway.write(&format!("{}[kernel]\n{kernel}\n", simple_config(&self.backends)))?;
        self.gateway.cli(&["reload"])?.ok().map(drop)
    }

    fn packets(&self, reason: &str) -> Result<u64> {
        Ok(self.gateway.metrics()?.packets(reason))
    }

    /// Whether the first client is let in from one of its addresses.
    fn lets_in(&self, from: impl Into<IpAddr>) -> Result<bool> {
        let from = from.into();
        let to = if from.is_ipv4() { self.gateway.at4() } else { self.gateway.at6() };
        self.net.client(1).gets_through(to, from)
    }
}

// K4
#[test]
fn the_longest_prefix_decides_between_blocked_and_not() -> Result<()> {
    lab_test!();
    let rig = rig(
        "block = { cidrs = [\"10.101.0.0/16\", \"fd78:0:0:1::/64\"], except = [\"10.101.2.3/32\", \"fd78:0:0:1::5/128\"] }",
    )?;
    let client = rig.net.client(1);
    assert!(!rig.lets_in(client.many_v4(0x0204))?);
    assert!(rig.lets_in(client.many_v4(0x0203))?);
    assert!(!rig.lets_in(client.many_v6(4))?);
    assert!(rig.lets_in(client.many_v6(5))?);
    assert!(rig.lets_in(client.v4())?);
    assert!(rig.packets("blocked")? >= 2);
    Ok(())
}

// K4
#[test]
fn a_changed_block_list_counts_for_the_next_packet() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let from = rig.net.client(1).many_v4(1);
    for _ in 0..3 {
        assert!(rig.lets_in(from)?);
        rig.reload("block = { cidrs = [\"10.101.0.1\"] }")?;
        assert!(!rig.lets_in(from)?);
        rig.reload("")?;
    }
    Ok(())
}

// K4
#[test]
fn a_million_prefixes_load_from_a_file() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let list: String = (0..1_000_000u32)
        .map(|i| format!("{}/32\n", Ipv4Addr::from(0xc000_0000 | i << 6)))
        .chain(["10.101.0.1\n".into(), "# a comment\n".into()])
        .collect();
    std::fs::write(rig.gateway.file("list.txt"), &list)?;
    let began = Instant::now();
    rig.reload("block = { files = [\"list.txt\"] }")?;
    eprintln!("a million prefixes took {:?}", began.elapsed());
    assert!(!rig.lets_in(rig.net.client(1).many_v4(1))?);
    assert!(rig.lets_in(rig.net.client(1).many_v4(2))?);
    let entries = rig.gateway.metrics()?;
    let most = entries.all("kernel_map_entries", &[]).map(|sample| sample.value).fold(0.0, f64::max);
    assert!(most >= 1_000_000.0, "{most}");
    // The file is watched.
    std::fs::write(rig.gateway.file("list.txt"), list + "10.101.0.2\n")?;
    let limit = Duration::from_secs(30);
    lab::wait::within(limit, "the new line counts", || {
        Ok((!rig.lets_in(rig.net.client(1).many_v4(2))?).then_some(()))
    })?;
    Ok(())
}

// K5
#[test]
fn a_ban_holds_until_it_expires_and_needs_no_userspace_for_that() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let client = rig.net.client(1);
    let probe = rig.net.gateway.run(|| std::net::UdpSocket::bind((VIP4, 9999)))??;
    probe.set_read_timeout(Some(Duration::from_millis(40)))?;
    let sender = Sender::open(client)?;
    let passes = |from: Ipv4Addr| -> Result<bool> {
        sender.send(&Frame::udp(client, (from, 5), (VIP4, 9999)))?;
        Ok(probe.recv(&mut [0; 64]).is_ok())
    };
    let (banned, other) = (client.many_v4(7), client.many_v4(8));
    assert!(passes(banned)?);
    let before = Instant::now();
    rig.gateway.cli(&["ban", "add", &banned.to_string(), "--for", "5s"])?.ok()?;
    let after = Instant::now();
    rig.gateway.signal(libc::SIGSTOP)?;
    assert!(!passes(banned)? && passes(other)?);
    let until = |at: Instant| std::thread::sleep(at.saturating_duration_since(Instant::now()));
    // These are moments, not events.
    until(before + Duration::from_millis(4900));
    let early = passes(banned)?;
    until(after + Duration::from_millis(5100));
    let late = passes(banned)?;
    rig.gateway.signal(libc::SIGCONT)?;
    assert_eq!((early, late), (false, true));
    eventually("it is off the list", || {
        Ok(rig.gateway.cli(&["ban", "list", "-o", "json"])?.json()? == json!([]))
    })?;
    assert_eq!(rig.packets("banned")?, 2);
    Ok(())
}

// K5
#[test]
fn bans_are_added_listed_and_lifted_for_addresses_and_prefixes_of_both_families() -> Result<()> {
    lab_test!();
    let rig = rig("")?;
    let client = rig.net.client(1);
    for (cidr, inside, outside) in [
        ("10.101.3.0/24", IpAddr::from(client.many_v4(0x0307)), IpAddr::from(client.many_v4(0x0407))),
        ("fd78:0:0:1:8000::/65", client.many_v6(1 << 63).into(), client.many_v6(1).into()),
    ] {
        rig.gateway.cli(&["ban", "add", cidr, "--for", "1h"])?.ok()?;
        assert!(!rig.lets_in(inside)?, "{inside}");
        assert!(rig.lets_in(outside)?, "{outside}");
        let listed = rig.gateway.cli(&["ban", "list", "-o", "json"])?.json()?;
        assert_eq!(listed[0]["cidr"], cidr, "{listed}");
        assert_eq!(rig.gateway.metrics()?.sum("kernel_bans", &[]), 1.0);
        rig.gateway.cli(&["ban", "del", cidr])?.ok()?;
        assert!(rig.lets_in(inside)?, "{inside} after lifting");
    }
    Ok(())
}

// K5
#[test]
fn exempt_sources_cannot_be_banned() -> Result<()> {
    lab_test!();
    let rig = rig("limit = { exempt = [\"10.101.0.0/16\"] }")?;
    let from = rig.net.client(1).many_v4(1);
    // Refused, or without effect: either way the source gets in.
    rig.gateway.cli(&["ban", "add", &from.to_string(), "--for", "1h"])?;
    assert!(rig.lets_in(from)?);
    Ok(())
}

/// Every shape of a packet from one source; `tcp` tells those in which a SYN can be seen.
fn shapes(rig: &Rig, v4: Ipv4Addr, v6: Ipv6Addr) -> Vec<(&'static str, bool, Frame)> {
    let node = rig.net.attacker();
    let tcp = Inside::tcp(SYN);
    // All fragments but the last are multiples of eight bytes long.
    let padded = Inside::Tcp { flags: SYN, payload: vec![0; 4] };
    let four = |inside: &Inside| Frame::new(node, (v4, 1000), (VIP4, 9), inside.clone());
    let six = |inside: &Inside| Frame::new(node, (v6, 1000), (VIP6, 9), inside.clone());
    let (hop_by_hop, destination, routing) = ((0, vec![]), (60, vec![0; 16]), (43, vec![]));
    let first = (44, vec![0, 0, 0, 1, 0, 0, 0, 9]);
    let later = (44, vec![0, 0, 1, 0, 0, 0, 0, 9]);
    let udp = Inside::Udp { payload: vec![0; 32] };
    vec![
        ("IPv4 TCP", true, four(&tcp)),
        ("IPv4 UDP", false, four(&udp)),
        ("IPv4 ICMP", false, four(&Inside::Icmp)),
        ("IPv4 with options", true, Frame { options: vec![1; 12], ..four(&tcp) }),
        ("IPv4 in a VLAN", true, Frame { vlans: vec![7], ..four(&tcp) }),
        ("IPv4 in two VLANs", true, Frame { vlans: vec![7, 8], ..four(&tcp) }),
        ("IPv4 first fragment", true, Frame { fragment: 0x2000, ..four(&padded) }),
        ("IPv4 later fragment", false, Frame { fragment: 0x0040, ..four(&tcp) }),
        ("IPv6 TCP", true, six(&tcp)),
        ("IPv6 UDP", false, six(&udp)),
        ("IPv6 ICMP", false, six(&Inside::Icmp)),
        ("IPv6 in a VLAN", true, Frame { vlans: vec![7], ..six(&tcp) }),
        (
            "IPv6 with extension headers",
            true,
            Frame { extensions: vec![hop_by_hop, routing, destination], ..six(&tcp) },
        ),
        ("IPv6 first fragment", true, Frame { extensions: vec![first], ..six(&padded) }),
        ("IPv6 later fragment", false, Frame { extensions: vec![later], ..six(&tcp) }),
    ]
}

// K10
#[test]
fn every_shape_of_packet_is_read_as_far_as_its_source() -> Result<()> {
    lab_test!();
    let rig = rig("block = { cidrs = [\"10.102.9.0/24\", \"fd78:0:0:2::/64\"] }")?;
    let node = rig.net.attacker();
    let sender = Sender::open(node)?;
    for (shape, _, frame) in shapes(&rig, node.many_v4(0x0901), node.many_v6(1)) {
        let before = rig.packets("blocked")?;
        sender.send(&frame)?;
        eventually(&format!("{shape} is blocked"), || Ok(rig.packets("blocked")? == before + 1))?;
    }
    for (shape, _, frame) in shapes(&rig, node.many_v4(0x0a01), Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 1)) {
        let before = rig.packets("blocked")?;
        let passed =
            rig.gateway.metrics()?.sum("kernel_packets_total", &[("interface", "atk"), ("action", "pass")]);
        sender.send(&frame)?;
        eventually(&format!("{shape} from elsewhere passes"), || {
            let now = rig
                .gateway
                .metrics()?
                .sum("kernel_packets_total", &[("interface", "atk"), ("action", "pass")]);
            Ok(now > passed)
        })?;
        assert_eq!(rig.packets("blocked")?, before, "{shape}");
    }
    let mut arp = vec![0xff; 6];
    arp.extend(node.mac());
    arp.extend([8, 6]);
    arp.resize(60, 0);
    let before = rig.packets("not_ip")?;
    sender.send_all(&[arp])?;
    eventually("ARP is not ours to judge", || Ok(rig.packets("not_ip")? == before + 1))
}

// K10
#[test]
fn a_syn_is_seen_in_every_shape_and_never_in_a_later_fragment() -> Result<()> {
    lab_test!();
    let rig = rig("limit = { new = { rate = \"1/h\", burst = 1 } }")?;
    let node = rig.net.attacker();
    let sender = Sender::open(node)?;
    for n in 0..15u16 {
        let v6 = Ipv6Addr::new(0xfd79, 0, 0, n, 0, 0, 0, 1);
        let all = shapes(&rig, node.many_v4(n), v6);
        let (shape, syn, frame) = &all[usize::from(n)];
        let judged = || {
            Ok::<_, anyhow::Error>(
                rig.gateway.metrics()?.sum("kernel_packets_total", &[("interface", "atk")]),
            )
        };
        let (before, seen) = (rig.packets("limit_new")?, judged()?);
        sender.send_all(&[frame.bytes(), frame.bytes(), frame.bytes()])?;
        eventually(&format!("{shape} was judged"), || Ok(judged()? >= seen + 3.0))?;
        let over = rig.packets("limit_new")? - before;
        assert_eq!(over, if *syn { 2 } else { 0 }, "{shape}");
    }
    Ok(())
}
