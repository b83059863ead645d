//! Where the gateway is asked about itself: the admin socket, the same over TCP, and the metrics port.

use std::{io, net::SocketAddr, path::PathBuf};

use super::{start::StartError, takeover::Takeover};
use crate::{admin, config::model::Config};

/// The sockets, kept so that a successor can have them.
pub struct Ends {
    pub admin: (PathBuf, std::os::unix::net::UnixListener),
    /// `None`: there is no admin.http.
    pub http: Option<(SocketAddr, std::net::TcpListener)>,
    /// `None`: metrics.bind is "off".
    pub metrics: Option<(SocketAddr, std::net::TcpListener)>,
}

impl Ends {
    /// Those of the process before, where the config still wants them, else new ones.
    pub fn open(config: &Config, before: Option<&mut Takeover>) -> Result<Ends, StartError> {
        let (admin, http, metrics) = match before {
            Some(before) => (before.admin.take(), before.admin_http.take(), before.metrics.take()),
            None => (None, None, None),
        };
        let path = &config.admin.socket;
        let admin = match admin.filter(|(old, _)| old == path) {
            Some(same) => same,
            None => (path.clone(), admin::bind(path).map_err(StartError::Admin)?),
        };
        let http = over_tcp(config.admin.http.as_ref().map(|http| http.bind), http)
            .map_err(|(addr, error)| StartError::AdminHttp { addr, error })?;
        let metrics = over_tcp(config.metrics.bind, metrics)
            .map_err(|(addr, error)| StartError::Metrics { addr, error })?;
        Ok(Ends { admin, http, metrics })
    }

    pub fn admin(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.admin.1.try_clone()?)
    }
}

/// For the runtime.
pub fn listener(
    end: &Option<(SocketAddr, std::net::TcpListener)>,
) -> io::Result<Option<tokio::net::TcpListener>> {
    let Some((_, socket)) = end else { return Ok(None) };
    tokio::net::TcpListener::from_std(socket.try_clone()?).map(Some)
}

/// The socket that is wanted at `addr`: that of before, if it is there.
fn over_tcp(
    addr: Option<SocketAddr>,
    before: Option<(SocketAddr, std::net::TcpListener)>,
) -> Result<Option<(SocketAddr, std::net::TcpListener)>, (SocketAddr, io::Error)> {
    let Some(addr) = addr else { return Ok(None) };
    if let Some(same) = before.filter(|(old, _)| *old == addr) {
        return Ok(Some(same));
    }
    let socket = listen(addr).map_err(|error| (addr, error))?;
    Ok(Some((addr, socket)))
}

fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(addr)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
