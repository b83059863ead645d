//! Listening sockets: one a worker, all bound to the same address (SO_REUSEPORT).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::model::Bind;

/// Connections that may wait to be accepted, a socket. The kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// One non-blocking listening socket a worker. `Bind::Any` is dual stack, or IPv4 only where the host has no IPv6.
/// An address that another process listens on is refused (EADDRINUSE), though SO_REUSEPORT alone would share it.
pub fn bind_all(bind: Bind, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let addr = match bind {
        Bind::Addr(addr) => addr,
        Bind::Any(port) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    match bind_group(addr, workers) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && matches!(bind, Bind::Any(_)) => {
            bind_group(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())), workers)
        }
        result => result,
    }
}

/// Sockets that another process has opened, and as many more as give every worker one: of their own where they share
/// their address (SO_REUSEPORT), else the same ones again.
pub fn extend(
    mut sockets: Vec<std::net::TcpListener>,
    workers: usize,
) -> io::Result<Vec<std::net::TcpListener>> {
    let theirs = sockets.len();
    let Some(first) = sockets.first() else { return Ok(sockets) };
    let addr = first.local_addr()?;
    let shares = |socket: &std::net::TcpListener| {
        let shared = socket2::SockRef::from(socket).reuse_port().unwrap_or(false);
        shared && socket.local_addr().is_ok_and(|other| other == addr)
    };
    let all_share = sockets.iter().all(shares);
    for place in theirs..workers {
        let another = if all_share { listen(addr, true)? } else { sockets[place % theirs].try_clone()? };
        sockets.push(another);
    }
    Ok(sockets)
}

fn bind_group(addr: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    drop(listen(addr, false)?);
    (0..workers.max(1)).map(|_| listen(addr, true)).collect()
}

fn listen(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket =
        Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets have it from here: a system call less for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_send_small_answers_at_once() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = listen(loopback, true).unwrap();
        socket.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "TCP_NODELAY is inherited");
    }

    #[test]
    fn sockets_of_another_process_are_joined_by_more_or_shared() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        for shared in [true, false] {
            let theirs = listen(loopback, shared).unwrap();
            let addr = theirs.local_addr().unwrap();
            let all = extend(vec![theirs], 3).unwrap();
            assert!(all.len() == 3 && all.iter().all(|socket| socket.local_addr().unwrap() == addr));
            // Of more than there are workers, none is lost.
            assert_eq!(extend(all, 2).unwrap().len(), 3);
        }
    }
}
