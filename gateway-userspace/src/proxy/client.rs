//! Who is at the other end of a connection, and how it came: what its requests have in common.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use super::headers::About;
use crate::{
    config::model::CertMark,
    net::{canonical, put_ip},
    observe::access_log::ConnectionText,
    proxy_protocol::{self, Version},
    tls::{self, Shaken},
};

pub struct Client {
    /// Whose requests these are, by all that is believed. IPv4-mapped IPv6 taken as IPv4.
    pub addr: IpAddr,
    /// Its port; 0: not known, as of one that a header names.
    pub port: u16,
    pub origin: Origin,
    pub manner: Manner,
    pub text: HeaderValue,
    /// It speaks HTTP/2.
    pub http2: bool,
    /// "http" or "https".
    pub scheme: &'static str,
    /// What a trusted proxy says of the request at hand.
    pub told: Option<Box<Told>>,
    /// Of its certificate, if it has shown one.
    pub marks: Option<Rc<[CertMark]>>,
    /// By which of its listener's rules for client certificates its handshake was.
    pub rules: tls::Rules,
    /// Its TLS handshake, until the first request's trace tells of it.
    pub shaken: Cell<Option<Box<Shaken>>>,
    /// How long that took, until the first request's log line tells of it.
    pub shook: Cell<Option<Duration>>,
    /// What upstreams are told of it, kept for the host it was made for.
    pub about: RefCell<Option<About>>,
    /// This connection's part of every log line, once there is one.
    log_text: OnceCell<ConnectionText>,
}

/// What a trusted proxy says of a request besides the client's address.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `X-Forwarded-For`, which goes on.
    pub chain: Option<String>,
    /// `Forwarded`, which goes on where it is the header that is believed.
    pub forwarded: Option<String>,
    /// "http" or "https".
    pub scheme: Option<&'static str>,
    /// The host that was asked for.
    pub host: Option<String>,
    /// What goes on as it came.
    pub more: Vec<(HeaderName, HeaderValue)>,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Who made the connection, as the PROXY protocol tells; else the peer.
    pub source: SocketAddr,
    /// Where it was made to, if that is known: upstreams may be told.
    pub destination: Option<SocketAddr>,
}

impl Origin {
    pub fn peer(peer: SocketAddr) -> Self {
        let peer = canonical(peer);
        Origin { peer, source: peer, destination: None }
    }
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

    pub fn scheme(self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

impl Client {
    pub fn new(origin: Origin, manner: Manner) -> Self {
        let addr = origin.source.ip();
        Client {
            addr,
            port: origin.source.port(),
            origin,
            manner,
            text: text(addr),
            http2: manner.protocol == "h2",
            scheme: manner.scheme(),
            told: None,
            marks: None,
            rules: tls::Rules::default(),
            shaken: Cell::default(),
            shook: Cell::default(),
            about: RefCell::default(),
            log_text: OnceCell::new(),
        }
    }

    /// Its part of a log line.
    pub fn log_text(&self, listener: &str) -> &ConnectionText {
        let Manner { protocol, tls } = self.manner;
        self.log_text
            .get_or_init(|| ConnectionText::new(listener, self.addr, self.origin.peer, protocol, tls))
    }

    /// Its connection is its own: no proxy that speaks for others stands between.
    pub fn is_direct(&self) -> bool {
        self.addr == self.origin.peer.ip()
    }

    /// What upstreams are told of the connection by the PROXY protocol.
    pub fn proxy_header(&self, version: Version) -> Vec<u8> {
        let source = SocketAddr::new(self.addr, self.port);
        // Not known of connections from before a reload.
        let unspecified = || SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        proxy_protocol::write(version, source, self.origin.destination.unwrap_or_else(unspecified))
    }

    /// As of a connection, but for one request, of which a trusted proxy says who sent it: another address, perhaps
    /// with a port, and another scheme.
    pub fn behind(&self, (addr, port): (IpAddr, u16), told: Told) -> Self {
        let Client { origin, manner, .. } = *self;
        Client {
            addr,
            port,
            origin,
            manner,
            text: text(addr),
            http2: self.http2,
            scheme: told.scheme.unwrap_or(manner.scheme()),
            told: Some(Box::new(told)),
            marks: self.marks.clone(),
            rules: self.rules,
            shaken: Cell::new(self.shaken.take()),
            shook: Cell::new(self.shook.take()),
            about: RefCell::default(),
            log_text: OnceCell::new(),
        }
    }
}

fn text(addr: IpAddr) -> HeaderValue {
    let mut text = Vec::with_capacity(40);
    put_ip(&mut text, addr);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static("unknown"))
}
