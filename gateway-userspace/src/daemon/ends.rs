//! Where the gateway is asked about itself: the admin socket and the metrics port.

use std::{io, net::SocketAddr, path::PathBuf};

use super::{start::StartError, takeover::Takeover};
use crate::{admin, config::model::Config};

/// Both sockets, kept so that a successor can have them.
pub struct Ends {
    pub admin: (PathBuf, std::os::unix::net::UnixListener),
    /// `None`: metrics.bind is "off".
    pub metrics: Option<(SocketAddr, std::net::TcpListener)>,
}

impl Ends {
    /// Those of the process before, where the config still wants them, else new ones.
    pub fn open(config: &Config, before: Option<&mut Takeover>) -> Result<Ends, StartError> {
        let (admin, metrics) = match before {
            Some(before) => (before.admin.take(), before.metrics.take()),
            None => (None, None),
        };
        let path = &config.admin.socket;
        let admin = match admin.filter(|(old, _)| old == path) {
            Some(same) => same,
            None => (path.clone(), admin::bind(path).map_err(StartError::Admin)?),
        };
        let Some(addr) = config.metrics.bind else { return Ok(Ends { admin, metrics: None }) };
        let metrics = match metrics.filter(|(old, _)| *old == addr) {
            Some(same) => same,
            None => (addr, listen(addr).map_err(|error| StartError::Metrics { addr, error })?),
        };
        Ok(Ends { admin, metrics: Some(metrics) })
    }

    /// For the runtime.
    pub fn listeners(&self) -> io::Result<(tokio::net::UnixListener, Option<tokio::net::TcpListener>)> {
        let admin = tokio::net::UnixListener::from_std(self.admin.1.try_clone()?)?;
        let metrics = match &self.metrics {
            Some((_, socket)) => Some(tokio::net::TcpListener::from_std(socket.try_clone()?)?),
            None => None,
        };
        Ok((admin, metrics))
    }
}

fn listen(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = std::net::TcpListener::bind(addr)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
