//! Descriptors that go from one process to another: over a unix socket (unix(7), SCM_RIGHTS), or from a service manager
//! at start (sd_listen_fds(3)).

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The kernel takes 253 in one message.
pub const BATCH: usize = 128;

/// Sends at most [`BATCH`] descriptors, with one byte.
pub fn send_fds(socket: impl AsFd, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(b"f")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// What [`send_fds`] sent; they are closed on exec.
pub fn receive_fds(socket: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let messages = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(messages.flatten().collect())
}

/// The unix socket that the process was started with in place of its standard input, which is /dev/null from now on.
pub fn take_stdin() -> io::Result<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let stream = UnixStream::from(socket);
    // Fails on what is no socket.
    stream.peer_addr()?;
    Ok(stream)
}

/// A listening TCP socket, made ready for the workers.
pub fn listener(fd: OwnedFd) -> io::Result<TcpListener> {
    let socket = socket2::Socket::from(fd);
    if socket.r#type()? != socket2::Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening TCP socket"));
    }
    if socket.local_addr()?.as_socket().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no TCP socket"));
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Takes what the service manager has opened for this process, each with its name; nothing the second time.
///
/// # Errors
/// LISTEN_FDS or LISTEN_FDNAMES makes no sense.
pub fn from_manager() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Ok(Vec::new());
    }
    let fds = sd_notify::listen_fds_with_names(false)?;
    // SAFETY: they were open when the process began, as whoever started it (LISTEN_PID names us) says and as setting
    // close-on-exec has shown, so that nothing in here has opened them; and they are taken only once.
    Ok(fds.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_arrive_in_order_and_are_the_same() {
        let (here, there) = UnixStream::pair().unwrap();
        let sockets: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        send_fds(&here, &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        let received = receive_fds(&there).unwrap();
        assert_eq!(received.len(), 3);
        for (fd, sent) in received.into_iter().zip(&sockets) {
            let flags = rustix::io::fcntl_getfd(&fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(listener(fd).unwrap().local_addr().unwrap(), sent.local_addr().unwrap());
        }
        drop(here);
        assert_eq!(receive_fds(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn only_listening_tcp_sockets_will_do() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = UnixStream::pair().unwrap().0;
        let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        for fd in [OwnedFd::from(udp), OwnedFd::from(unix), OwnedFd::from(bound)] {
            assert!(listener(fd).is_err());
        }
    }
}
