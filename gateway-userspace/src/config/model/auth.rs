//! Who may call: `[auth.NAME]`, `[consumer.NAME]`, and what routes ask for.

use std::{fmt, path::PathBuf, time::Duration};

use http::HeaderName;

use super::Secret;
use crate::{
    auth::Algorithm,
    config::units::{At, Moment},
    hex,
};

/// `[auth.NAME]`: a way to tell who calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    pub at: At,
    pub kind: AuthKind,
    /// Credentials go on to the upstream. Default false.
    pub keep: bool,
    /// In challenges. Without `"` and `\`.
    pub realm: String,
}

#[derive(Debug, Clone, PartialEq)]
pub enum AuthKind {
    ApiKey {
        /// Where a key is looked for. Not empty.
        from: Vec<Whence>,
    },
    Jwt(Box<JwtAuth>),
    /// RFC 7617.
    Basic,
    /// The client's certificate.
    Mtls,
    /// RFC 9421, hmac-sha256.
    Hmac {
        /// How old a signature may be.
        window: Duration,
    },
    Forward(Box<ForwardAuth>),
}

/// `type = "forward"`
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardAuth {
    /// A key of `Config::upstreams`.
    pub to: String,
    /// Path and query.
    pub path: String,
    /// In lower case.
    pub send: Vec<String>,
    /// In lower case.
    pub copy: Vec<String>,
    /// The field of the answer that names the consumer. In lower case.
    pub consumer: String,
    pub timeout: Duration,
    /// Without an answer the request goes on.
    pub open: bool,
}

/// `type = "jwt"`
#[derive(Debug, Clone, PartialEq)]
pub struct JwtAuth {
    /// Not empty.
    pub from: Vec<Whence>,
    pub issuer: String,
    /// Any one of them; not empty.
    pub audience: Vec<String>,
    pub keys: JwtKeys,
    /// Not empty; symmetric ones only with a secret, others only without.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the consumer.
    pub consumer: String,
    /// Only consumers of the config.
    pub known: bool,
    pub skew: Duration,
    /// In lower case.
    pub kind: Option<String>,
}

/// What tokens are checked with.
#[derive(Debug, Clone, PartialEq)]
pub enum JwtKeys {
    Url {
        url: String,
        /// PEM. Absolute.
        ca: Option<PathBuf>,
        every: Duration,
    },
    /// A JWK set. Absolute.
    File(PathBuf),
    Secret(Secret),
}

impl AuthKind {
    /// As the config writes it.
    pub fn word(&self) -> &'static str {
        match self {
            AuthKind::ApiKey { .. } => "api-key",
            AuthKind::Jwt(_) => "jwt",
            AuthKind::Basic => "basic",
            AuthKind::Mtls => "mtls",
            AuthKind::Hmac { .. } => "hmac",
            AuthKind::Forward(_) => "forward",
        }
    }
}

/// Where in a request a credential is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whence {
    /// `Authorization: Bearer` (RFC 6750 section 2.1).
    Bearer,
    /// In lower case.
    Header(String),
    /// The decoded name of a query parameter.
    Query(String),
    Cookie(String),
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whence::Bearer => f.write_str("bearer"),
            Whence::Header(name) => write!(f, "header:{name}"),
            Whence::Query(name) => write!(f, "query:{name}"),
            Whence::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

impl Whence {
    /// The field that it is taken out of.
    pub fn field(&self) -> Option<HeaderName> {
        match self {
            Whence::Bearer => Some(http::header::AUTHORIZATION),
            Whence::Header(name) => HeaderName::from_bytes(name.as_bytes()).ok(),
            Whence::Cookie(_) => Some(http::header::COOKIE),
            Whence::Query(_) => None,
        }
    }
}

/// `[consumer.NAME]`: who may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Consumer {
    pub at: At,
    pub tier: Option<String>,
    /// Sorted, each once.
    pub grants: Vec<String>,
    pub keys: Vec<ConsumerKey>,
    /// Any one of these, as argon2id hashes (PHC). For Basic.
    pub passwords: Vec<String>,
    /// What its certificates have, as [`CertMark`] writes it.
    pub certs: Vec<CertMark>,
    pub secrets: Vec<ConsumerSecret>,
}

/// `{ id, secret, until }`
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerSecret {
    /// `keyid` is the consumer's name, a slash, and this.
    pub id: String,
    pub secret: Secret,
    pub until: Option<Moment>,
}

/// Something of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertMark {
    /// The whole subject, as `gateway cert list` shows them.
    Subject(String),
    /// Alternative names.
    Dns(String),
    /// SPIFFE ids are such.
    Uri(String),
    Email(String),
    /// SHA-256 of the certificate (DER), hexadecimal, in lower case.
    Sha256(String),
}

impl fmt::Display for CertMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CertMark::Subject(subject) => write!(f, "subject:{subject}"),
            CertMark::Dns(name) => write!(f, "dns:{name}"),
            CertMark::Uri(uri) => write!(f, "uri:{uri}"),
            CertMark::Email(email) => write!(f, "email:{email}"),
            CertMark::Sha256(sum) => write!(f, "sha256:{sum}"),
        }
    }
}

/// `{ id, hash, until }`
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerKey {
    /// Of all of its consumer's keys only this one has it.
    pub id: String,
    pub hash: KeyHash,
    /// From then on it is no good.
    pub until: Option<Moment>,
}

/// `blake3:HEX`: BLAKE3 of the key's bytes, 32 bytes long.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::text(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `auth = [..]` of a route: names of `Config::auths`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteAuth {
    /// Not empty.
    pub names: Vec<String>,
    /// Every one of them, rather than any.
    pub all: bool,
}

/// `allow = …` of a route.
#[derive(Debug, Clone, PartialEq)]
pub enum Allow {
    Always(Demand),
    /// By method; a method that is not named is not allowed.
    ByMethod(Vec<(String, Demand)>),
}

/// What a caller must have.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// None: any caller will do.
    pub rights: Vec<Right>,
    /// Every one of them, rather than any.
    pub all: bool,
}

/// One of the words of `allow`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// A grant of the consumer's, or a scope of its token's.
    Grant(String),
    Tier(String),
    Consumer(String),
    /// A scope of the token's, whatever the consumer's grants.
    Scope(String),
    /// A claim of the token's with this text, or with it among its texts.
    Claim(String, String),
}

impl Right {
    /// What the words that are no grants begin with.
    pub const PREFIXES: [&str; 4] = ["tier:", "consumer:", "scope:", "claim:"];
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Right::Grant(grant) => f.write_str(grant),
            Right::Tier(tier) => write!(f, "tier:{tier}"),
            Right::Consumer(name) => write!(f, "consumer:{name}"),
            Right::Scope(scope) => write!(f, "scope:{scope}"),
            Right::Claim(name, value) => write!(f, "claim:{name}={value}"),
        }
    }
}
