//! The lab itself: if these fail, no other test means anything.

use lab::{flood::Flood, net::Node, packet, prelude::*, wrk};

#[test]
fn a_client_reaches_the_gateway_namespace_over_v4_and_v6() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::of(1, 1, 1)?;
    for to in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
        let to = SocketAddr::new(to, 8080);
        let listener = net.gateway.run(|| std::net::TcpListener::bind(to))??;
        let from: IpAddr =
            if to.is_ipv4() { net.client(1).many_v4(7).into() } else { net.client(1).many_v6(7).into() };
        let _client = net.client(1).connect(to, Some(from))?;
        assert_eq!(listener.accept()?.1.ip(), from);
    }
    Ok(())
}

#[test]
fn a_backend_answers_and_counts_and_can_be_taken_down_and_up() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backend = Backend::start(net.backend(1))?;
    let from_gateway = || -> Result<Response> {
        let stream = net.gateway.run(|| std::net::TcpStream::connect(backend.addr))??;
        Client::over(stream)?.get("/")
    };
    let answer = from_gateway()?;
    assert_eq!((answer.status, answer.backend(), answer.body.len()), (200, "b1", 128));
    assert_eq!(backend.stats()?.requests, 1);
    backend.down()?;
    assert!(from_gateway().is_err());
    backend.up()?;
    assert_eq!(from_gateway()?.status, 200);
    Ok(())
}

#[test]
fn frames_of_a_sender_arrive_as_they_were_made() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::of(1, 1, 0)?;
    let to = SocketAddr::from((VIP4, 9999));
    let socket = net.gateway.run(|| std::net::UdpSocket::bind(to))??;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let attacker = net.attacker();
    let from = SocketAddr::from((attacker.many_v4(3), 1234));
    packet::Sender::open(attacker)?.send(&packet::Frame::udp(attacker, from, to))?;
    assert_eq!(socket.recv_from(&mut [0; 64])?, (18, from));
    Ok(())
}

#[test]
fn a_flood_of_live_frames_is_fast() -> Result<()> {
    lab_test!();
    let _turn = alone()?;
    let net = Net::of(1, 1, 0)?;
    let _drop = lab::flood::attach_bare(&net.gateway, "atk", lab::flood::Bare::Drop)?;
    let flood = Flood::new(net.attacker(), (VIP4, 80), Duration::from_secs(1));
    let sent = flood.run(net.attacker())?;
    ensure!(sent.rate() > 200_000.0, "{sent:?}");
    let counted = net.gateway.output("ip", &["-s", "-j", "link", "show", "atk"])?;
    let counted: Value = serde_json::from_str(&counted)?;
    eprintln!("{sent:?} {}", counted[0]["stats64"]["rx"]);
    Ok(())
}

#[test]
fn wrk_measures_a_backend_over_a_link() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::of(0, 0, 1)?;
    let node = net.backend(1);
    let backend = Backend::start(node)?;
    let outcome = wrk::Wrk::run(node, backend.addr, &wrk::Load::new(4, Duration::from_secs(1)))?;
    ensure!(outcome.requests > 100 && outcome.errors == 0, "{outcome:?}");
    Ok(())
}

#[test]
fn a_network_leaves_nothing_behind() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let paths: Vec<_> = net.nodes().iter().map(|node: &Node| node.namespace.path()).collect();
    drop(net);
    for path in paths {
        assert!(!path.exists(), "{}", path.display());
    }
    Ok(())
}
