//! UDP sockets that know which of the host's addresses a datagram came to, and answer from it.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::canonical;
use crate::config::model::Bind;

/// Datagrams (or, where the kernel has put equal ones of a sender together, runs of them) that are taken at once.
const BATCH: usize = 8;
/// A run is no longer than the longest datagram.
const MOST: usize = 64 * 1024;

/// One non-blocking socket a worker, all of one address: a client's datagrams all come to the same. As
/// [`super::bind_all`] otherwise, but an address of another gateway of the same user is shared: one that takes another
/// one's place (upgrade) needs it at once, and there are no connections to be handed over.
pub fn bind_datagrams(bind: Bind, workers: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    let group = |addr| (0..workers.max(1)).map(|_| open(addr)).collect::<io::Result<Vec<_>>>();
    match bind {
        Bind::Addr(addr) => group(addr),
        Bind::Any(port) => match group(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                group(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            }
            result => result,
        },
    }
}

fn open(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A socket of a connection to `target`: what comes from others is not received, and "port unreachable" is an error.
pub fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

pub struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// The ends of a datagram's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// As the socket tells it: IPv4-mapped on one of both versions.
    pub client: SocketAddr,
    /// The host's address. `None`: the one that the socket is bound to.
    pub local: Option<IpAddr>,
}

impl Datagrams {
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        fragment(&socket)?;
        Ok(Datagrams { socket: UdpSocket::from_std(socket)?, state })
    }

    /// Waits for datagrams and shows each. `buffer` is made when first needed.
    pub async fn receive(&self, buffer: &mut Vec<u8>, mut each: impl FnMut(Ends, &[u8])) -> io::Result<()> {
        buffer.resize(BATCH * MOST, 0);
        let mut metas = [RecvMeta::default(); BATCH];
        loop {
            self.socket.readable().await?;
            let mut parts: Vec<IoSliceMut<'_>> = buffer.chunks_mut(MOST).map(IoSliceMut::new).collect();
            let received = self.socket.try_io(Interest::READABLE, || {
                self.state.recv(UdpSockRef::from(&self.socket), &mut parts, &mut metas)
            });
            let n = match received {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            drop(parts);
            for (meta, part) in metas.iter().zip(buffer.chunks(MOST)).take(n) {
                let ends = Ends { client: meta.addr, local: meta.dst_ip };
                let run = part.get(..meta.len).unwrap_or_default();
                if run.is_empty() {
                    each(ends, run);
                }
                run.chunks(meta.stride.max(1)).for_each(|datagram| each(ends, datagram));
            }
            return Ok(());
        }
    }

    /// A socket for the datagrams between these ends alone. It is connected, and so the kernel prefers it to those that
    /// everybody's datagrams come to, of whatever process.
    pub fn between(&self, ends: Ends) -> io::Result<UdpSocket> {
        let at = self.socket.local_addr()?;
        let local = SocketAddr::new(ends.local.unwrap_or(at.ip()), at.port());
        let socket = open(canonical(local))?;
        fragment(&socket)?;
        socket.connect(canonical(ends.client))?;
        UdpSocket::from_std(socket)
    }

    /// Sends from the address that the client's datagrams came to. One that the socket does not take at once is an error,
    /// and lost: that is what UDP is like.
    pub fn send(&self, ends: Ends, datagram: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: ends.client,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: ends.local,
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

/// As [`Datagrams::send`], on a connected socket. Not asked before is whether it can be written to: of a new one that
/// is not known yet.
pub fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<()> {
    socket2::SockRef::from(socket).send(datagram).map(drop)
}

/// What is larger than a link takes is sent in fragments, as from any other socket: quinn-udp forbids it, because QUIC
/// finds out by itself how much fits.
fn fragment(socket: &std::net::UdpSocket) -> io::Result<()> {
    let six = socket.local_addr()?.is_ipv6();
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_WANT)?;
    if six {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
    }
    Ok(())
}

fn set(
    socket: &std::net::UdpSocket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads exactly the int that `value`
    // is, for as long as the call takes.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_from_the_address_that_was_asked() {
        let [socket] = <[_; 1]>::try_from(bind_datagrams(Bind::Any(0), 1).unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = Datagrams::new(socket).unwrap();
        let mut buffer = Vec::new();
        // Empty ones are datagrams too, and large ones go in fragments.
        for (to, bytes) in [
            ("127.0.0.1", vec![1]),
            ("127.0.0.2", vec![]),
            ("::1", vec![7; 60_000]),
            ("127.0.0.3", vec![9; 60_000]),
        ] {
            let client = connected(SocketAddr::new(to.parse().unwrap(), port)).unwrap();
            client.send(&bytes).await.unwrap();
            let mut got = Vec::new();
            server.receive(&mut buffer, |ends, datagram| got.push((ends, datagram.to_vec()))).await.unwrap();
            assert_eq!(got.len(), 1);
            assert_eq!(got[0].1, bytes);
            server.send(got[0].0, b"answer").unwrap();
            server.send(got[0].0, &bytes).unwrap();
            // A connected socket takes nothing from other addresses.
            let mut answer = vec![0; 70_000];
            assert_eq!(client.recv(&mut answer).await.unwrap(), 6, "{to}");
            assert_eq!(client.recv(&mut answer).await.unwrap(), bytes.len(), "{to}");
        }
    }

    #[tokio::test]
    async fn many_datagrams_of_a_sender_stay_apart() {
        let [socket] =
            <[_; 1]>::try_from(bind_datagrams(Bind::Addr(([127, 0, 0, 1], 0).into()), 1).unwrap()).unwrap();
        let client = connected(socket.local_addr().unwrap()).unwrap();
        let server = Datagrams::new(socket).unwrap();
        for n in 0..20u8 {
            client.send(&vec![n; usize::from(n)]).await.unwrap();
        }
        let (mut buffer, mut got) = (Vec::new(), Vec::new());
        while got.len() < 20 {
            server.receive(&mut buffer, |_, datagram| got.push(datagram.to_vec())).await.unwrap();
        }
        let sent: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; usize::from(n)]).collect();
        assert_eq!(got, sent);
    }
}
