//! The new process's side of an upgrade in place; see [`super::handover`].

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    handover::{self, FromNew, FromOld, Handed, Sockets, VARIABLE, VERSION},
    inherited::Inherited,
};
use crate::{net::pass, observe::stats::Registry};

/// The old process answers at once, but may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The place of a running gateway, to be taken.
pub struct Takeover {
    stream: UnixStream,
    pub old: u32,
    pub listeners: Inherited,
    pub metrics: Option<(SocketAddr, TcpListener)>,
    pub admin: Option<(PathBuf, UnixListener)>,
    pub admin_http: Option<(SocketAddr, TcpListener)>,
}

impl Takeover {
    /// `None`: this process was started for itself.
    ///
    /// # Errors
    /// It was not, and whoever started it does not say what it should.
    pub fn begin() -> io::Result<Option<Takeover>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let stream = pass::take_stdin()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let FromOld::Sockets(sockets) = receive(&stream)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the old process does not begin"));
        };
        if sockets.version != VERSION {
            let why = format!("the old process hands over by version {}, not {VERSION}", sockets.version);
            let failed = FromNew::Failed { why: why.clone() };
            send(&stream, &failed)?;
            return Err(io::Error::other(why));
        }
        Takeover::with_sockets(stream, sockets).map(Some)
    }

    fn with_sockets(stream: UnixStream, sockets: Sockets) -> io::Result<Takeover> {
        let mut fds = Vec::new();
        let wanted = sockets.listeners.len()
            + usize::from(sockets.metrics.is_some())
            + usize::from(sockets.admin.is_some())
            + usize::from(sockets.admin_http.is_some());
        while fds.len() < wanted {
            fds.extend(pass::receive_fds(&stream)?);
        }
        let mut fds = fds.into_iter();
        let mut next = || -> io::Result<OwnedFd> {
            fds.next().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let mut listeners = Inherited::default();
        for bind in &sockets.listeners {
            listeners.add_bound(bind, pass::listener(next()?)?);
        }
        let metrics = match sockets.metrics {
            Some(addr) => Some((addr, pass::listener(next()?)?)),
            None => None,
        };
        let admin = match sockets.admin {
            Some(path) => Some((path, UnixListener::from(next()?))),
            None => None,
        };
        let admin_http = match sockets.admin_http {
            Some(addr) => Some((addr, pass::listener(next()?)?)),
            None => None,
        };
        Ok(Takeover { stream, old: sockets.pid, listeners, metrics, admin, admin_http })
    }

    /// Makes the old process let go of the kernel half.
    pub fn claim(&self) -> io::Result<Handed> {
        send(&self.stream, &FromNew::Claim)?;
        match receive(&self.stream)? {
            FromOld::Handed(handed) => Ok(*handed),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the old process hands nothing over")),
        }
    }

    /// This process will not do.
    pub fn fail(&self, why: &str) {
        // If the old one is gone, nobody wants to know.
        let _ = send(&self.stream, &FromNew::Failed { why: why.to_owned() });
    }

    /// This process serves. Returns when the old one is about to stop, or is gone.
    pub fn ready(&self) {
        let told = send(&self.stream, &FromNew::Ready).and_then(|()| receive(&self.stream));
        if !matches!(told, Ok(FromOld::Go)) {
            tracing::warn!("the old process ended without a word");
        }
    }

    /// Adds what the old process still counts while it drains. The thread ends with that process.
    pub fn follow(self, registry: Arc<Registry>) -> io::Result<()> {
        self.stream.set_read_timeout(None)?;
        let follow = move || {
            while let Ok(FromOld::Counts { counts }) = receive(&self.stream) {
                registry.carry(&counts);
            }
            tracing::info!(pid = self.old, "the old process has ended");
        };
        std::thread::Builder::new().name("old-process".into()).spawn(follow).map(drop)
    }
}

fn send(mut stream: &UnixStream, message: &FromNew) -> io::Result<()> {
    stream.write_all(&handover::encode(message)?)
}

fn receive(mut stream: &UnixStream) -> io::Result<FromOld> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut json = vec![0; handover::length(prefix)?];
    stream.read_exact(&mut json)?;
    handover::decode(&json)
}
