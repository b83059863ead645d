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
}
