//! `[cache.NAME]`.

use std::{fmt, path::PathBuf, time::Duration};

use http::HeaderName;

use crate::config::units::At;

/// `[cache.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    pub at: At,
    /// Bytes, with all that an entry costs. Default 64 MiB.
    pub memory: u64,
    /// Default: none.
    pub disk: Option<CacheDisk>,
    /// Where the upstream says nothing of freshness. Default: not stored.
    pub ttl: Option<Duration>,
    /// `ttl` holds whatever the upstream says of freshness. Default false.
    pub override_ttl: bool,
    /// As `ttl`, of 404, 405, 410, 414 and 501. Default: not stored.
    pub negative: Option<Duration>,
    /// RFC 9111 section 4.2.2. Default false.
    pub heuristic: bool,
    /// `stale`, where neither the upstream says otherwise nor forbids it. Default: not at all.
    pub while_revalidate: Duration,
    pub if_error: Duration,
    /// Default host, path, query.
    pub key: Vec<KeyPart>,
    /// Whose answers are stored: GET, with which HEAD goes, POST, QUERY. Default GET.
    pub methods: Vec<&'static str>,
    /// Bytes of a request's body that is in the key. Default 64 KiB.
    pub max_request: u64,
    /// Requests that have one of these go past the cache.
    pub bypass: Vec<KeyPart>,
    /// One fetch for many waiting clients. Default true.
    pub coalesce: bool,
    /// Bytes of a body. Default 4 MiB.
    pub max_body: u64,
    /// Responses of one key that differ by `Vary`. Default 32.
    pub variants: usize,
    /// Default false.
    pub store_set_cookie: bool,
}

/// `disk = { path, size }` of a cache
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheDisk {
    pub at: At,
    /// The cache has a folder of its name in it.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: u64,
}

/// `client_cache = { control, override, etag, max }` of a route
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCache {
    /// `Cache-Control`, where the upstream says nothing of it.
    pub control: Option<String>,
    /// … and where it does. Default false.
    pub over: bool,
    /// Default false.
    pub etag: bool,
    /// Bytes of a body that gets a tag. Default 1 MiB.
    pub max: u64,
}

/// What tells requests apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    Host,
    Path,
    Query,
    Parameter(String),
    Header(HeaderName),
    Cookie(String),
    Consumer,
    /// The request's, by its hash, with its type.
    Body,
}

impl KeyPart {
    pub fn parse(text: &str) -> Option<Self> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        Some(match text.split_once(':') {
            Some(("query", name)) => KeyPart::Parameter(named(name)?),
            Some(("header", name)) => KeyPart::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            Some(("cookie", name)) => KeyPart::Cookie(named(name)?),
            Some(_) => return None,
            None => match text {
                "host" => KeyPart::Host,
                "path" => KeyPart::Path,
                "query" => KeyPart::Query,
                "consumer" => KeyPart::Consumer,
                "body" => KeyPart::Body,
                _ => return None,
            },
        })
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyPart::Host => f.write_str("host"),
            KeyPart::Path => f.write_str("path"),
            KeyPart::Query => f.write_str("query"),
            KeyPart::Parameter(name) => write!(f, "query:{name}"),
            KeyPart::Header(name) => write!(f, "header:{name}"),
            KeyPart::Cookie(name) => write!(f, "cookie:{name}"),
            KeyPart::Consumer => f.write_str("consumer"),
            KeyPart::Body => f.write_str("body"),
        }
    }
}
