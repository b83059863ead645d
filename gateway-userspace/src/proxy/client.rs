//! Who is at the other end of a connection, and how it came: what its requests have in common.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
};

use http::HeaderValue;

use super::headers::About;
use crate::observe::access_log::ConnectionText;

pub struct Client {
    /// IPv4-mapped IPv6 taken as IPv4.
    pub addr: IpAddr,
    pub text: HeaderValue,
    /// It speaks HTTP/2.
    pub http2: bool,
    /// "http" or "https".
    pub scheme: &'static str,
    /// What upstreams are told of it, kept for the host it was made for.
    pub about: RefCell<Option<About>>,
    /// This connection's part of every log line.
    pub log_text: ConnectionText,
}

/// How a client speaks to us.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// "h1"
    pub protocol: &'static str,
    /// "1.3"; `None`: in clear.
    pub tls: Option<&'static str>,
}

impl Manner {
    pub const PLAIN_HTTP1: Manner = Manner { protocol: "h1", tls: None };
}

impl Client {
    pub fn new(listener: &str, peer: SocketAddr, manner: Manner) -> Self {
        let addr = peer.ip().to_canonical();
        let peer = SocketAddr::new(addr, peer.port());
        Client {
            addr,
            text: HeaderValue::from_maybe_shared(bytes::Bytes::from(addr.to_string()))
                .unwrap_or(HeaderValue::from_static("unknown")),
            http2: manner.protocol == "h2",
            scheme: if manner.tls.is_some() { "https" } else { "http" },
            about: RefCell::default(),
            log_text: ConnectionText::new(listener, addr, peer, manner.protocol, manner.tls),
        }
    }
}
