//! What a service manager passes and is told: O4, O5, O16.

use std::{net::TcpListener, os::fd::OwnedFd, sync::Arc};

use lab::{
    backend::{start_all, targets},
    gateway::{Options, simple_config},
    prelude::*,
};

fn open(net: &Net, addr: &str) -> Result<Arc<OwnedFd>> {
    Ok(Arc::new(net.gateway.run(|| TcpListener::bind(addr))??.into()))
}

// O5
#[test]
fn sockets_of_the_service_manager_are_used_by_name_or_address_and_bound_by_nobody_else() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[gateway]\nworkers = 3\n[listener.web]\nbind = \":80\"\n[listener.other]\nbind = \"{VIP4}:81\"\n\
         [listener.own]\nbind = \":82\"\n[route.all]\nto = {}\n",
        targets(&backends)
    );
    let activated = vec![
        ("unknown".to_owned(), open(&net, &format!("{VIP4}:81"))?),
        // In IPv4 only, though the listener would have both.
        ("web".to_owned(), open(&net, "0.0.0.0:80")?),
        ("spare".to_owned(), open(&net, "127.0.0.1:83")?),
    ];
    // What connects before the gateway runs waits for it.
    let mut early = Client::connect(net.client(1), (VIP4, 80))?;
    early.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")?;
    let options = Options { activated, ..Options::default() };
    let mut gateway = Gateway::start_with(&net, &config, options)?;
    assert_eq!(early.response()?.status, 200);
    for port in [80, 81, 82] {
        // Every worker serves.
        for n in 0..12 {
            let from = net.client(1).many_v4(n).into();
            assert_eq!(http::get_from(net.client(1), (VIP4, port), from, "/")?.status, 200, "port {port}");
        }
    }
    assert!(net.client(1).connect((VIP6, 80).into(), None).is_err(), "a socket of its own");
    gateway.says("spare (127.0.0.1:83)")?;
    // They outlive the process, as the manager has them; and an upgrade passes them on.
    gateway.upgrade(&[])?.ok()?;
    assert_eq!(http::get(net.client(1), (VIP4, 80), "/")?.status, 200);
    assert_eq!(gateway.stop()?.code(), Some(0));
    let mut waiting = Client::connect(net.client(1), (VIP4, 80))?;
    waiting.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")?;
    gateway.run()?;
    assert_eq!(waiting.response()?.status, 200);
    Ok(())
}

#[test]
fn what_is_no_listening_tcp_socket_is_refused() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let udp: OwnedFd = net.gateway.run(|| std::net::UdpSocket::bind("127.0.0.1:80"))??.into();
    let options = Options { activated: vec![("web".to_owned(), Arc::new(udp))], ..Options::default() };
    let mut gateway = Gateway::prepare(&net, &simple_config(&backends), options)?;
    let (status, said) = gateway.run_to_end()?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("socket activation") && said.contains("web"), "{said}");
    Ok(())
}

// O4
#[test]
fn the_service_manager_is_told_of_start_reload_and_stop_and_that_it_lives_if_it_asks() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let mut gateway = Gateway::start(&net, &simple_config(&backends))?;
    gateway.cli(&["reload"])?.ok()?;
    let reloading = gateway.tells("RELOADING=1")?;
    let at: u64 = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC=")?.parse().ok())
        .with_context(|| format!("no time: {reloading}"))?;
    let now = std::fs::read_to_string("/proc/uptime")?;
    let now: f64 = now.split(' ').next().context("no uptime")?.parse()?;
    assert!((now - at as f64 / 1e6).abs() < 30.0, "at {at}, now {now}");
    eventually("it is ready again", || {
        Ok(gateway.told().iter().filter(|told| told.contains("READY=1")).count() == 2)
    })?;
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!gateway.told().iter().any(|told| told.contains("WATCHDOG=1")), "nobody asked");
    assert_eq!(gateway.stop()?.code(), Some(0));
    gateway.tells("STOPPING=1")?;

    let variables = vec![("WATCHDOG_USEC".to_owned(), "400000".to_owned())];
    let options = Options { variables, ..Options::default() };
    let mut gateway = Gateway::start_with(&net, &simple_config(&backends), options)?;
    let beats = |gateway: &Gateway| gateway.told().iter().filter(|told| told.contains("WATCHDOG=1")).count();
    within(Duration::from_secs(3), "five signs of life", || Ok((beats(&gateway) >= 5).then_some(())))?;
    // The one that takes its place goes on with it.
    gateway.upgrade(&[])?.ok()?;
    gateway.predecessor_ends(Duration::from_secs(5))?;
    let before = beats(&gateway);
    within(Duration::from_secs(3), "more of them", || Ok((beats(&gateway) >= before + 5).then_some(())))?;
    Ok(())
}
