//! TLS at listeners and to upstreams.

use std::{path::PathBuf, time::Duration};

use crate::config::units::Place;

/// `[listener.NAME] tls = { … }`
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Names of certificates, at least one; the first is for clients that none fits.
    pub certs: Vec<String>,
    pub min: TlsVersion,
    /// What is offered, the preferred one first.
    pub alpn: Vec<Alpn>,
    /// "auto" rather than a list.
    pub alpn_auto: bool,
    pub client: Option<ClientAuth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V12,
    V13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    Http2,
    Http1,
}

impl Alpn {
    /// As IANA registers it.
    pub fn name(self) -> &'static str {
        match self {
            Alpn::Http2 => "h2",
            Alpn::Http1 => "http/1.1",
        }
    }
}

/// `client_ca` and `client`
#[derive(Debug, Clone, PartialEq)]
pub struct ClientAuth {
    /// PEM. Absolute.
    pub ca: PathBuf,
    /// Whether clients must show a certificate.
    pub required: bool,
}

/// `[upstream.NAME] tls = { … }`
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamTls {
    /// A host name or an address. Default: the target's address.
    pub sni: Option<String>,
    /// PEM. Absolute. Default: the system's authorities.
    pub ca: Option<PathBuf>,
    /// The name of a certificate.
    pub cert: Option<String>,
    pub verify: bool,
    pub min: TlsVersion,
}

/// `hsts = …`
#[derive(Debug, Clone, PartialEq)]
pub struct Hsts {
    pub max_age: Duration,
    pub subdomains: bool,
    pub preload: bool,
}

impl Hsts {
    /// The field's value (RFC 6797 section 6.1).
    pub fn value(&self) -> String {
        let mut value = format!("max-age={}", self.max_age.as_secs());
        if self.subdomains {
            value.push_str("; includeSubDomains");
        }
        if self.preload {
            value.push_str("; preload");
        }
        value
    }
}

/// `[cert.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Cert {
    pub at: Place,
    /// PEM. Absolute.
    pub chain: PathBuf,
    pub key: Secret,
}

/// Where a secret is. Never the secret itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Secret {
    /// Absolute.
    File(PathBuf),
    Env(String),
    Credential(String),
}
