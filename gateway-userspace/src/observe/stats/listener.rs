//! What is counted of listeners.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use super::{Count, Counts, Level, Sharded};
use crate::{
    observe::Why,
    proxy_protocol::{Header, Malformed, Refused, Says},
};

/// What one worker counted for one listener.
#[derive(Debug, Default)]
pub struct ListenerShard {
    pub accepted: Count,
    pub over_limit: Count,
    pub active_requests: Level,
    /// Connections that came to speak it.
    pub http1: Count,
    pub http2: Count,
    pub(super) handshakes: [[Count; Handshake::ALL.len()]; TlsVersion::ALL.len()],
    pub(super) proxy_headers: [Count; ProxyHeader::ALL.len()],
    /// Connections by why they were cut or refused as such.
    errors: Counts<{ Why::COUNT }>,
}

impl ListenerShard {
    pub fn handshake(&self, version: TlsVersion, result: Handshake) {
        self.handshakes[version as usize][result as usize].add(1);
    }

    pub fn handshakes(&self, version: TlsVersion, result: Handshake) -> u64 {
        self.handshakes[version as usize][result as usize].get()
    }

    pub fn error(&self, why: Why) {
        self.errors.0[why.index()].add(1);
    }

    pub fn errors(&self, why: Why) -> u64 {
        self.errors.0[why.index()].get()
    }

    pub fn proxy_header(&self, result: ProxyHeader) {
        self.proxy_headers[result as usize].add(1);
    }

    pub fn proxy_headers(&self, result: ProxyHeader) -> u64 {
        self.proxy_headers[result as usize].get()
    }
}

/// What became of the PROXY header that a connection had to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    Ok,
    /// The proxy's own connection.
    Local,
    Absent,
    Malformed,
    Timeout,
    /// The connection ended before it was whole.
    Gone,
}

impl ProxyHeader {
    pub const ALL: [(ProxyHeader, &'static str); 6] = [
        (ProxyHeader::Ok, "ok"),
        (ProxyHeader::Local, "local"),
        (ProxyHeader::Absent, "absent"),
        (ProxyHeader::Malformed, "malformed"),
        (ProxyHeader::Timeout, "timeout"),
        (ProxyHeader::Gone, "gone"),
    ];

    /// Of one that came to something in time.
    pub fn of(read: &Result<Header, Refused>) -> ProxyHeader {
        match read {
            Ok(Header { says: Says::Local, .. }) => ProxyHeader::Local,
            Ok(_) => ProxyHeader::Ok,
            Err(Refused::Malformed(Malformed::Absent)) => ProxyHeader::Absent,
            Err(Refused::Malformed(_)) => ProxyHeader::Malformed,
            Err(Refused::Ended | Refused::Io(_)) => ProxyHeader::Gone,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
    /// The handshake failed.
    Unknown,
}

impl TlsVersion {
    pub const ALL: [TlsVersion; 3] = [TlsVersion::V12, TlsVersion::V13, TlsVersion::Unknown];

    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
            TlsVersion::Unknown => "-",
        }
    }

    /// Of a handshake that is done.
    pub fn of(connection: &ServerConnection) -> Self {
        match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V12,
            _ => TlsVersion::V13,
        }
    }
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    Ok,
    Resumed,
    Failed,
    Timeout,
    /// Its source had made too many.
    Limited,
}

impl Handshake {
    pub const ALL: [(Handshake, &'static str); 5] = [
        (Handshake::Ok, "ok"),
        (Handshake::Resumed, "resumed"),
        (Handshake::Failed, "failed"),
        (Handshake::Timeout, "timeout"),
        (Handshake::Limited, "limited"),
    ];

    /// Of one that is done.
    pub fn of(connection: &ServerConnection) -> Self {
        match connection.handshake_kind() {
            Some(HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Ok,
        }
    }
}

#[derive(Debug)]
pub struct ListenerStats {
    pub shards: Sharded<ListenerShard>,
    /// Open connections over all workers: shared, because `max.connections` bounds it; touched once a connection.
    pub(super) connections: AtomicU32,
}

impl ListenerStats {
    /// Open connections.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Takes a place among `most` connections, for a worker; [`ListenerStats::leave`] gives it back. Who gets none is
    /// counted.
    pub fn admit(&self, most: u32, worker: usize) -> bool {
        if self.connections.fetch_add(1, Relaxed) < most {
            return true;
        }
        self.leave();
        self.shards.of(worker).over_limit.add(1);
        false
    }

    /// One that could not even be taken.
    pub fn turned_away(&self, worker: usize) {
        self.shards.of(worker).over_limit.add(1);
    }

    pub fn leave(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}
