//! Data through L4 services comes whole, by every way of forwarding.

use std::net::UdpSocket;

use lab::{
    l4::{OWN_PORT, Rig, Service, Setup, at},
    prelude::*,
    transfer::{Echo, datagram, echoed, noise, sha256, there_and_back},
};

const BYTES: u64 = 100_000_000;

fn transfer(forward: &'static str, families: &[bool]) -> Result<()> {
    lab_test!();
    let setup = Setup { services: vec![Service::own("bulk", "tcp")], ..Setup::new(forward, 1) };
    let rig = Rig::new(shared()?, setup)?;
    let file = rig.gateway.file("noise");
    noise(&file, BYTES)?;
    let sent = sha256(std::fs::File::open(&file)?)?;
    for &v6 in families {
        let listen = rig.listen_at(1, OWN_PORT, v6);
        let (client, server) = (rig.net.client(1), rig.net.backend(1));
        let before = rig.packets("service")?;
        let came = there_and_back(client, at(OWN_PORT, v6), server, listen, &file)?;
        assert_eq!((&came.up, &came.down), (&sent, &sent), "{forward}, IPv6: {v6}");
        // 1448 bytes a segment at most: all of it went through the program.
        assert!(rig.packets("service")? - before > BYTES / 1448, "{forward}, IPv6: {v6}");
    }
    // Wrapped, a full segment does not fit the link: the client was told so.
    let told = rig.packets("too_big")?;
    assert_eq!(told > 0, matches!(forward, "ipip" | "gue"), "{told} times");
    Ok(())
}

#[test]
fn a_hundred_megabytes_there_and_back_by_nat() -> Result<()> {
    transfer("nat", &[false, true])
}

#[test]
fn a_hundred_megabytes_there_and_back_by_dsr() -> Result<()> {
    transfer("dsr", &[false, true])
}

#[test]
fn a_hundred_megabytes_there_and_back_by_ipip() -> Result<()> {
    transfer("ipip", &[false, true])
}

#[test]
fn a_hundred_megabytes_there_and_back_by_gue() -> Result<()> {
    transfer("gue", &[false, true])
}

/// Sockets of one client at ports which the services' hash, that has no seed, does not send to one target all.
fn sockets(rig: &Rig, v6: bool, n: u16) -> Result<Vec<UdpSocket>> {
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let open = |n: u16| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((any, 40_000 + n))?;
        socket.connect(at(OWN_PORT, v6))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    };
    Ok(rig.net.client(1).namespace.run(|| (0..n).map(open).collect::<std::io::Result<_>>())??)
}

/// Two thousand datagrams that fit and four hundred that do not, from eight ports.
fn datagrams(forward: &'static str) -> Result<()> {
    lab_test!();
    let setup = Setup { services: vec![Service::own("dgram", "udp")], ..Setup::new(forward, 2) };
    let rig = Rig::new(shared()?, setup)?;
    for v6 in [true, false] {
        let echo =
            |n: usize| Echo::start(rig.net.backend(n), rig.listen_at(n, OWN_PORT, v6), u8::try_from(n)?);
        let _echoes = [echo(1)?, echo(2)?];
        let mut all = BTreeSet::new();
        for socket in sockets(&rig, v6, 8)? {
            // Wrapped, the first does not fit, and the client learns what does.
            let learn = || Ok(echoed(&socket, &[datagram(0, 1440)]).is_ok());
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            eventually("full datagrams come back", learn)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut by = BTreeSet::new();
            for batch in 0..30u32 {
                let length = |i: u32| match batch < 25 {
                    true => 4 + ((batch * 10 + i) * 37 % 1400) as usize,
                    false => 1500 + ((batch * 10 + i) * 131 % 7000) as usize,
                };
                let sent: Vec<_> = (0..10).map(|i| datagram(batch * 10 + i, length(i))).collect();
                by.extend(echoed(&socket, &sent).with_context(|| format!("{forward}, IPv6: {v6}, {batch}"))?);
            }
            assert_eq!(by.len(), 1, "{forward}, IPv6: {v6}: one connection, one target");
            all.extend(by);
        }
        assert_eq!(all.len(), 2, "{forward}, IPv6: {v6}: both targets got some");
    }
    Ok(())
}

#[test]
fn datagrams_and_fragments_by_nat() -> Result<()> {
    datagrams("nat")
}

#[test]
fn datagrams_and_fragments_by_dsr() -> Result<()> {
    datagrams("dsr")
}

#[test]
fn datagrams_and_fragments_by_ipip() -> Result<()> {
    datagrams("ipip")
}

#[test]
fn datagrams_and_fragments_by_gue() -> Result<()> {
    datagrams("gue")
}
