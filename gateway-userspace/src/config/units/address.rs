//! Where listeners bind and where upstreams' targets are.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use super::{UnitError, quote};
use crate::config::model::Bind;

impl FromStr for Bind {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(format!("expected an address such as \":80\", found {}", quote(text)));
        if let Some(port) = text.strip_prefix(':').and_then(port) {
            return Ok(Bind::Any(port));
        }
        if let Some(port) = port(text).or_else(|| text.strip_prefix("*:").and_then(port)) {
            return Err(wrong().hint(format!("write \":{port}\" for every address of the host")));
        }
        if let Some(port) = text.strip_prefix("localhost:").and_then(port) {
            return Ok(Bind::Addr(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
        }
        if let Ok(addr) = text.parse::<Ipv4Addr>() {
            return Err(wrong().hint(format!("add the port: \"{addr}:80\"")));
        }
        match text.parse() {
            Ok(addr) => Ok(Bind::Addr(canonical(addr))),
            Err(_) if looks_like_bare_v6(text) => {
                Err(wrong().hint("put the IPv6 address in brackets: \"[::1]:80\""))
            }
            Err(_) => Err(wrong().hint("write \":80\", \"127.0.0.1:80\" or \"[::1]:80\"")),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Any(port) => write!(f, ":{port}"),
            Bind::Addr(addr) => write!(f, "{addr}"),
        }
    }
}

impl Bind {
    pub fn port(self) -> u16 {
        match self {
            Bind::Any(port) => port,
            Bind::Addr(addr) => addr.port(),
        }
    }

    /// Whether some address and port belongs to both. Port 0 is a fresh port each time; `[::]` is dual stack, as `Any`.
    pub fn overlaps(self, other: Bind) -> bool {
        let everything = |bind| match bind {
            Bind::Any(_) => true,
            Bind::Addr(addr) => addr.ip() == Ipv6Addr::UNSPECIFIED,
        };
        let same_ip = match (self, other) {
            _ if everything(self) || everything(other) => true,
            (Bind::Addr(a), Bind::Addr(b)) if a.is_ipv4() && b.is_ipv4() => {
                a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified()
            }
            (a, b) => a == b,
        };
        same_ip && self.port() == other.port() && self.port() != 0
    }
}

/// Whether a target is written with https://, and so is spoken to by TLS.
pub fn is_https(target: &str) -> bool {
    target.starts_with("https://")
}

/// A target of an upstream: "10.0.0.1:8080", "http://10.0.0.1:8080" or "https://10.0.0.1:8443"; "localhost" is
/// 127.0.0.1.
pub fn parse_target(text: &str) -> Result<SocketAddr, UnitError> {
    let wrong =
        || UnitError::new(format!("expected a target such as \"10.0.0.1:8080\", found {}", quote(text)));
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    match scheme {
        "" | "http" | "https" => {}
        "h2c" => return Err(wrong().hint("write \"10.0.0.1:8080\", and protocol = \"h2\" beside it")),
        _ => return Err(wrong().hint("write \"10.0.0.1:8080\" or \"http://10.0.0.1:8080\"")),
    }
    if text.starts_with("unix:") {
        return Err(UnitError::not_supported("a target on a unix socket"));
    }
    let authority = rest.strip_suffix('/').filter(|_| !scheme.is_empty()).unwrap_or(rest);
    if authority.contains('/') {
        return Err(wrong().hint("a target is an address and a port, without a path"));
    }
    let default = if scheme == "https" { 443 } else { 80 };
    let with_port = match authority.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, default).to_string(),
        Err(_) => format!("{authority}:{default}"),
    };
    if let Ok(addr) = authority.replace("localhost:", "127.0.0.1:").parse::<SocketAddr>() {
        return check_target(canonical(addr), text);
    }
    let bare = authority.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if bare || authority == "localhost" {
        // A URL has a default port, an address has none.
        return match scheme {
            "http" | "https" => parse_target(&with_port.replace("localhost", "127.0.0.1")),
            _ => Err(wrong().hint(format!("add the port: \"{with_port}\""))),
        };
    }
    if looks_like_bare_v6(authority) {
        return Err(wrong().hint("put the IPv6 address in brackets: \"[::1]:8080\""));
    }
    if looks_like_name(authority) {
        let error = UnitError::not_supported(format!("the host name {} as a target", quote(authority)));
        return Err(error.hint("give an IP address, such as \"10.0.0.1:8080\""));
    }
    Err(wrong())
}

fn check_target(addr: SocketAddr, text: &str) -> Result<SocketAddr, UnitError> {
    if addr.port() == 0 {
        return Err(UnitError::new(format!("the target {} has port 0", quote(text)))
            .hint("give the port it listens on"));
    }
    if addr.ip().is_unspecified() || addr.ip().is_multicast() {
        let hint = format!("for this host write \"127.0.0.1:{}\"", addr.port());
        return Err(UnitError::new(format!("{} is no host's address", quote(text))).hint(hint));
    }
    Ok(addr)
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// "::1:80": an address without brackets, whose port cannot be told from its last group.
fn looks_like_bare_v6(text: &str) -> bool {
    text.matches(':').count() > 1 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.')
}

/// "app", "app:8080", "app.internal:8080".
fn looks_like_name(text: &str) -> bool {
    let (host, tail) = text.split_once(':').unwrap_or((text, "80"));
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    port(tail).is_some() && host.split('.').all(label) && host.bytes().any(|b| b.is_ascii_alphabetic())
}
