//! TLS at listeners and to upstreams.

use std::{path::PathBuf, time::Duration};

use super::HostPattern;
use crate::config::units::At;

/// `[listener.NAME] tls = { … }`
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// Names of certificates, at least one; the first is for clients that none fits. Those by ACME come last.
    pub certs: Vec<String>,
    /// Those by ACME are among them.
    pub auto: bool,
    pub min: TlsVersion,
    /// What is offered, the preferred one first.
    pub alpn: Vec<Alpn>,
    /// "auto" rather than a list.
    pub alpn_auto: bool,
    pub client: Option<ClientAuth>,
    /// Of those who ask for these names, in place of it.
    pub clients: Vec<(HostPattern, ClientAuth)>,
    /// How long session tickets are sealed with one key.
    pub ticket_rotation: Duration,
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
    /// Of certificates that count no more, PEM. Absolute.
    pub crl: Option<PathBuf>,
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
    pub at: At,
    /// PEM. Absolute.
    pub chain: PathBuf,
    pub key: Secret,
    /// Got by ACME, for this host name: the file need not be there yet.
    pub issued: Option<String>,
}

impl Cert {
    /// What the names of those by ACME begin with. No other name does: it has a colon.
    pub const ISSUED: &str = "acme:";
}

/// `[acme]`
#[derive(Debug, Clone, PartialEq)]
pub struct Acme {
    pub at: At,
    pub email: Option<String>,
    /// https.
    pub directory: String,
    pub challenge: AcmeChallenge,
    /// Besides those of routes.
    pub names: Vec<HostPattern>,
    /// Absolute.
    pub storage: PathBuf,
    /// PEM. Absolute. Default: the system's.
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcmeChallenge {
    TlsAlpn01,
    Http01,
}

impl AcmeChallenge {
    /// As the config and RFC 8555 write it.
    pub fn word(self) -> &'static str {
        match self {
            AcmeChallenge::TlsAlpn01 => "tls-alpn-01",
            AcmeChallenge::Http01 => "http-01",
        }
    }
}

/// Where a secret is. Never the secret itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Secret {
    /// Absolute.
    File(PathBuf),
    Env(String),
    Credential(String),
}
