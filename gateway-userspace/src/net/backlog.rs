//! How full a listening socket's queue is.

use std::{io, net::TcpListener, os::fd::AsRawFd};

/// Of connections that nobody has accepted yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    pub waiting: u32,
    /// How many may wait.
    pub most: u32,
    /// Those that found no room, since the socket was opened. The kernel drops them without a word, and their clients
    /// try again after a second.
    pub dropped: u32,
}

/// Index of `SK_MEMINFO_DROPS` (linux/sock_diag.h).
const DROPS: usize = 8;

pub fn backlog(socket: &TcpListener) -> io::Result<Backlog> {
    // Of a listening socket, these two are its queue (net/ipv4/tcp.c, tcp_get_info).
    let mut info = [0u32; 16];
    let words = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    // Behind 8 bytes: rto, ato, snd_mss, rcv_mss, unacked, sacked.
    const UNACKED: usize = 6;
    let (waiting, most) = if words > UNACKED + 1 { (info[UNACKED], info[UNACKED + 1]) } else { (0, 0) };
    let mut memory = [0u32; 16];
    let words = option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut memory)?;
    Ok(Backlog { waiting, most, dropped: if words > DROPS { memory[DROPS] } else { 0 } })
}

/// How many words of it the kernel told.
fn option(socket: &TcpListener, level: i32, name: i32, into: &mut [u32; 16]) -> io::Result<usize> {
    let mut length = size_of_val(into) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel writes at most `length` bytes to
    // `into`, which has so many and may hold any.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, into.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(length as usize / size_of::<u32>()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, time::Duration};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn connections_that_wait_and_those_that_find_no_room_are_told() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(2).unwrap();
        let listener: TcpListener = socket.into();
        let addr = listener.local_addr().unwrap();
        assert_eq!(backlog(&listener).unwrap(), Backlog { waiting: 0, most: 2, dropped: 0 });
        let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(300));
        // One more than may wait does (`sk_acceptq_is_full` is `>`).
        let kept: Vec<_> = (0..3).map(|_| connect().unwrap()).collect();
        assert_eq!(backlog(&listener).unwrap(), Backlog { waiting: 3, most: 2, dropped: 0 });
        assert!(connect().is_err());
        assert!(backlog(&listener).unwrap().dropped > 0);
        drop(kept);
    }
}
