//! Which target an L4 service chooses: by the client's address as an upstream does, and by QUIC's connection ids.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use lab::{
    backend::PORT,
    l4::{OWN_PORT, Rig, Service, Setup, at},
    prelude::*,
    transfer::{Echo, echoed},
};

const CLIENTS: u16 = 200;

#[test]
fn by_ip_hash_a_service_and_an_upstream_send_a_client_to_the_same_endpoint() -> Result<()> {
    lab_test!();
    let mut setup = Setup::new("nat", 4);
    setup.services = vec![Service::web().with("balance = \"ip-hash\"")];
    // Backends have the same addresses in every network, and the services' own order of them.
    let to: Vec<String> = (2..=5).map(|i| format!("\"10.77.{i}.2:{PORT}\"")).collect();
    setup.more = format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = \"all\"\n\
         [upstream.all]\nto = [{}]\nbalance = \"ip-hash\"\n",
        to.join(", ")
    );
    let rig = Rig::new(shared()?, setup)?;
    let client = rig.net.client(1);
    let mut by: BTreeMap<String, u32> = BTreeMap::new();
    for n in 0..CLIENTS {
        let from = IpAddr::from(client.many_v4(n * 131));
        let by_service = http::get_from(client, at(PORT, false), from, "/")?;
        let by_upstream = http::get_from(client, rig.gateway.at4(), from, "/")?;
        assert_eq!(by_service.backend(), by_upstream.backend(), "{from}");
        *by.entry(by_service.backend().to_owned()).or_default() += 1;
    }
    // 50 each, give or take five standard deviations.
    assert!(by.len() == 4 && by.values().all(|n| (20..=80).contains(n)), "{by:?}");
    assert!(rig.packets("reply")? > u64::from(CLIENTS), "the services' were forwarded in the kernel");
    Ok(())
}

/// A QUIC packet with a short header, or a long one of this type, whose connection id holds the server's.
fn quic(long: Option<u8>, server: u16, serial: u8) -> Vec<u8> {
    let [high, low] = server.to_be_bytes();
    // 01, the sixteen bits of the id, and the rest is the server's own.
    let id = [0x40 | high >> 2, high << 6 | low >> 2, low << 6, serial, 5, 6, 7, 8];
    let head = match long {
        Some(kind) => vec![0xc0 | kind << 4, 0, 0, 0, 1, 8],
        None => vec![0x40],
    };
    [head, id.to_vec(), vec![serial; 40]].concat()
}

/// Who answers a packet from a port that was never used before.
fn from_another_port(rig: &Rig, v6: bool, packet: &[u8]) -> Result<u8> {
    static PORT: AtomicU16 = AtomicU16::new(20_000);

    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = rig.net.client(1).namespace.run(|| -> std::io::Result<_> {
        let socket = UdpSocket::bind((any, PORT.fetch_add(1, Relaxed)))?;
        socket.connect(at(OWN_PORT, v6))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        Ok(socket)
    })??;
    echoed(&socket, &[packet.to_vec()])?.pop_first().context("nobody answered")
}

#[test]
fn quic_follows_the_server_id_from_any_port() -> Result<()> {
    lab_test!();
    const HANDSHAKE: Option<u8> = Some(2);
    const INITIAL: Option<u8> = Some(0);
    for (forward, v6) in [("nat", false), ("dsr", true)] {
        let mut setup = Setup::new(forward, 4);
        let ids = |n: usize| 0x0101 * n as u16;
        let target = |n: usize| {
            let addr = if v6 { format!("[fd77:0:0:{}::2]", n + 1) } else { format!("10.77.{}.2", n + 1) };
            format!("{{ addr = \"{addr}:{OWN_PORT}\", server_id = {} }}", ids(n))
        };
        let to: Vec<String> = (1..=4).map(target).collect();
        setup.more = format!(
            "[service.quic]\nbind = \"{}\"\nprotocol = \"udp\"\nquic = true\nforward = \"{forward}\"\nto = [{}]\n",
            at(OWN_PORT, v6),
            to.join(", ")
        );
        let rig = Rig::new(shared()?, setup)?;
        let echo =
            |n: usize| Echo::start(rig.net.backend(n), rig.listen_at(n, OWN_PORT, v6), u8::try_from(n)?);
        let _echoes = (1..=4).map(echo).collect::<Result<Vec<_>>>()?;
        let mut spread = BTreeSet::new();
        for serial in 0..20 {
            for n in 1..=4 {
                let [short, handshake] = [None, HANDSHAKE].map(|long| quic(long, ids(n), serial));
                assert_eq!(usize::from(from_another_port(&rig, v6, &short)?), n, "{forward}");
                assert_eq!(usize::from(from_another_port(&rig, v6, &handshake)?), n, "{forward}");
            }
            // Its id is the client's invention.
            spread.insert(from_another_port(&rig, v6, &quic(INITIAL, ids(1), serial))?);
        }
        assert!(spread.len() > 2, "{forward}: {spread:?}");
    }
    Ok(())
}

#[test]
fn a_service_on_a_port_of_every_address_is_reached_at_each_and_nowhere_else() -> Result<()> {
    lab_test!();
    let mut setup = Setup::new("nat", 2);
    setup.services.clear();
    setup.more =
        format!("[service.any]\nbind = \":{PORT}\"\nto = [\"10.77.2.2:{PORT}\", \"10.77.3.2:{PORT}\"]\n");
    let rig = Rig::new(shared()?, setup)?;
    let client = rig.net.client(1);
    for i in 1..=3 {
        let own = SocketAddr::from((Ipv4Addr::new(10, 77, i, 1), PORT));
        assert!(["b1", "b2"].contains(&http::get(client, own, "/")?.backend()), "{own}");
    }
    let before = rig.packets("service")?;
    // A backend's own address is none of ours: what goes there is routed and not spread.
    for n in 1..=2 {
        let direct = http::get(client, rig.net.backend(n).at(PORT), "/")?;
        assert_eq!(direct.backend(), format!("b{n}"));
    }
    assert_eq!(rig.packets("service")?, before);
    Ok(())
}
