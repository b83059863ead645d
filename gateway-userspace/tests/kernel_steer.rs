//! Steering real connections over the loopback of a namespace: one client, one worker.
#![allow(clippy::unwrap_used)]

mod kernel_support;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};

use gateway::{
    config::model::{Bind, Kernel, Steer},
    kernel::{KernelPlane, SteerListener},
};
use kernel_support::{
    config,
    lab::{self, listeners},
};
use socket2::{Domain, Socket, Type};

fn start(cfg: &Kernel) -> KernelPlane {
    KernelPlane::start(cfg).unwrap_or_else(|error| panic!("{error}"))
}

/// Connects from an address: the worker that got it.
fn worker_of(from: IpAddr, to: SocketAddr, sockets: &[TcpListener]) -> usize {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect_timeout(&to.into(), Duration::from_secs(2)).unwrap();
    let client: TcpStream = socket.into();
    for _ in 0..2000 {
        for (worker, listener) in sockets.iter().enumerate() {
            if let Ok((_, peer)) = listener.accept() {
                assert_eq!(peer.port(), client.local_addr().unwrap().port());
                return worker;
            }
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    panic!("nobody accepted the connection from {from}");
}

fn clients() -> impl Iterator<Item = IpAddr> {
    (1..=64).map(|host| Ipv4Addr::new(127, 0, 1, host).into())
}

#[test]
fn one_client_always_reaches_the_same_worker_and_all_workers_get_some() {
    needs_bpf!();
    lab::inside(|lab| {
        let plane = start(&Kernel { steer: Steer::IpHash, pin: lab.pin(), ..config() });
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let sockets = listeners(bind.parse().unwrap(), 4);
            let addr = sockets[0].local_addr().unwrap();
            let bind = match addr.ip() {
                IpAddr::V6(_) => Bind::Any(addr.port()),
                IpAddr::V4(_) => Bind::Addr(addr),
            };
            plane
                .steer(&[SteerListener { bind, sockets: sockets.iter().map(|s| s.as_fd()).collect() }])
                .unwrap();
            assert!(plane.status().steering.on);
            let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port());
            let mut spread = HashMap::new();
            for client in clients() {
                let worker = worker_of(client, to, &sockets);
                *spread.entry(worker).or_insert(0) += 1;
                for _ in 0..4 {
                    assert_eq!(worker_of(client, to, &sockets), worker, "{client} to {bind:?}");
                }
            }
            assert_eq!(spread.len(), 4, "{spread:?}");
            assert!(spread.values().all(|clients| (4..=32).contains(clients)), "{spread:?}");
            if addr.is_ipv6() {
                let v6 = "::1".parse().unwrap();
                let worker = worker_of(v6, SocketAddr::new(v6, addr.port()), &sockets);
                (0..4).for_each(|_| {
                    assert_eq!(worker_of(v6, SocketAddr::new(v6, addr.port()), &sockets), worker)
                });
            }
        }
        plane.stop();
        assert!(!plane.status().steering.on);
    });
}

#[test]
fn listeners_change_by_reload_and_closed_ones_are_looked_up_as_ever() {
    needs_bpf!();
    lab::inside(|lab| {
        let plane = start(&Kernel { steer: Steer::IpHash, pin: lab.pin(), ..config() });
        let first = listeners("127.0.0.1:0".parse().unwrap(), 2);
        let second = listeners("127.0.0.1:0".parse().unwrap(), 3);
        let entry = |sockets: &[TcpListener]| Bind::Addr(sockets[0].local_addr().unwrap());
        let steer = |sets: &[&[TcpListener]]| {
            let of = |set: &&[TcpListener]| entry(set);
            let listeners: Vec<_> = sets
                .iter()
                .map(|set| SteerListener { bind: of(set), sockets: set.iter().map(|s| s.as_fd()).collect() })
                .collect();
            plane.steer(&listeners).unwrap();
        };
        steer(&[&first]);
        let client = Ipv4Addr::new(127, 0, 1, 9).into();
        let to = first[0].local_addr().unwrap();
        let worker = worker_of(client, to, &first);
        for _ in 0..3 {
            steer(&[&first, &second]);
            assert_eq!(worker_of(client, to, &first), worker, "adding a listener moves nobody");
            steer(&[&first]);
        }
        assert_eq!(plane.status().steering.listeners, 1);
        let used = plane.maps().into_iter().find(|map| map.name == "SOCKETS").unwrap();
        assert_eq!(used.entries, 2, "sockets of removed listeners are let go");
        // The second is no longer steered but still served.
        worker_of(client, second[0].local_addr().unwrap(), &second);
        drop(first);
        let again = listeners(to, 1);
        assert_eq!(worker_of(client, to, &again), 0, "steering to sockets that are gone does not refuse");
    });
}
