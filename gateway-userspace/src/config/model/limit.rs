//! `[limit.NAME]`.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

use super::{LimitKeyPart, Secret};
use crate::config::{
    balancing::is_token,
    units::{Prefix, Quota, UnitError, quote},
};
use crate::limit::Target;

/// `[limit.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    pub mode: Overrun,
    /// Empty: one quota for everybody.
    pub key: Vec<KeyPart>,
    pub measure: Measure,
    /// Default: 1, or with tokens `/usage/total_tokens` of a JSON answer.
    pub cost: CostOf,
    /// With bytes: what is sent waits for its turn.
    pub pace: bool,
    /// For connections in the kernel half too.
    pub kernel: bool,
    /// Over all gateways of `[shared]`. Default true.
    pub shared: bool,
    pub dry_run: bool,
    pub ban: Option<BanRule>,
    pub headers: Headers,
    /// Bits. Default 32.
    pub ipv4_prefix: u8,
    /// Bits. Default 64.
    pub ipv6_prefix: u8,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Overrun {
    Hard,
    /// `shed`: from so much of the rate on it is hard; `None`: never. `delay`: how long a request may wait for its turn.
    Soft {
        shed: Option<f64>,
        delay: Option<Duration>,
    },
    /// `priority`: tiers, the most important first; `fair`: who shares it evenly.
    Dynamic {
        target: Target,
        priority: Vec<String>,
        fair: Vec<LimitKeyPart>,
    },
}

/// `ban = { after, within, for, where }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanRule {
    pub after: u32,
    pub within: Duration,
    /// The first time.
    pub duration: Duration,
    /// Rather than at L7.
    pub kernel: bool,
}

/// `[shared]`
#[derive(Debug, Clone, PartialEq)]
pub struct Shared {
    pub redis: StoreUrl,
    /// Whom its certificate is from. `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
    pub budget: Duration,
    pub on_error: OnStoreError,
    /// What keys begin with.
    pub name: String,
}

/// What becomes of requests with shared limits when the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum OnStoreError {
    /// This gateway counts for itself.
    #[default]
    Local,
    /// They go on: it fails open.
    Pass,
    /// They are refused: it fails closed.
    Refuse,
}

impl OnStoreError {
    pub const ALL: [OnStoreError; 3] = [OnStoreError::Local, OnStoreError::Pass, OnStoreError::Refuse];

    pub fn word(self) -> &'static str {
        match self {
            OnStoreError::Local => "local",
            OnStoreError::Pass => "pass",
            OnStoreError::Refuse => "refuse",
        }
    }
}

/// Where a store is: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://` with TLS.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreUrl {
    /// Without a secret in it.
    Plain(String),
    Secret(Secret),
}

impl StoreUrl {
    /// # Errors
    /// Why there is none, without what it says.
    pub fn url(&self) -> Result<Zeroizing<String>, String> {
        let url = match self {
            StoreUrl::Plain(url) => Zeroizing::new(url.clone()),
            StoreUrl::Secret(place) => {
                let bytes = crate::seal::read(place).map_err(|error| error.to_string())?;
                let text = str::from_utf8(&bytes).map_err(|_| "the store's URL is no text".to_owned())?;
                Zeroizing::new(text.trim().to_owned())
            }
        };
        check_store(&url)?;
        Ok(url)
    }
}

/// What is wrong with a store's URL, without what it says.
pub(crate) fn check_store(url: &str) -> Result<(), String> {
    if !url.starts_with("redis://") && !url.starts_with("rediss://") {
        return Err("it begins with redis://, or rediss:// with TLS".into());
    }
    let wrong = |_| "it is redis://HOST:PORT or redis://HOST:PORT/DATABASE".to_owned();
    redis::IntoConnectionInfo::into_connection_info(url).map(drop).map_err(wrong)
}

/// `[penalty]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Penalty {
    pub threshold: u64,
    pub within: Duration,
    pub duration: Duration,
    pub kernel: bool,
    pub exempt: Vec<Prefix>,
    /// Points.
    pub login: u64,
    pub malformed: u64,
    pub slow: u64,
    pub flood: u64,
}

/// What is counted, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// Things in time.
    Rate {
        unit: Unit,
        algorithm: Algorithm,
        quota: Quota,
        /// A dynamic limit's least; `quota` is its most.
        from: Option<Quota>,
        /// Of a token bucket; `None`: the quota's amount.
        burst: Option<u64>,
        /// By tier.
        per: BTreeMap<String, Quota>,
    },
    /// Requests at once.
    /// `from`: a dynamic limit's least.
    Connections { max: u32, from: Option<u32> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Requests,
    Bytes,
    Tokens,
}

impl Unit {
    pub fn word(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Bytes => "bytes",
            Unit::Tokens => "tokens",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    TokenBucket,
    SlidingWindow,
    FixedWindow,
}

impl Algorithm {
    pub fn word(self) -> &'static str {
        match self {
            Algorithm::TokenBucket => "token-bucket",
            Algorithm::SlidingWindow => "sliding-window",
            Algorithm::FixedWindow => "fixed-window",
        }
    }
}

/// Which fields answers get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers {
    pub ratelimit: bool,
    pub x_ratelimit: bool,
}

/// What one request costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostOf {
    Fixed(u64),
    /// 1 for methods that are not there.
    Method(BTreeMap<String, u64>),
    /// A field of the answer, in lower case.
    Header(String),
    /// A JSON pointer (RFC 6901) into the answer's body.
    Json(String),
}

impl CostOf {
    pub(crate) fn parse(text: &str) -> Result<CostOf, UnitError> {
        let wrong = || {
            UnitError::new(format!("expected a field of the answer, found {}", quote(text)))
                .hint("it is \"header:x-cost\" or \"json:/usage/total_tokens\"")
        };
        match text.split_once(':') {
            Some(("header", name)) if is_token(name) => Ok(CostOf::Header(name.to_ascii_lowercase())),
            Some(("json", pointer)) if pointer.is_empty() || pointer.starts_with('/') => {
                Ok(CostOf::Json(pointer.into()))
            }
            _ => Err(wrong()),
        }
    }

    /// Known only when the answer is.
    pub fn is_in_answer(&self) -> bool {
        matches!(self, CostOf::Header(_) | CostOf::Json(_))
    }
}

/// A part of what has a quota of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPart {
    Ip,
    /// Without one, the client's address.
    Consumer,
    Route,
    Host,
    Version,
    Method,
    Path,
    /// In lower case.
    Header(String),
    Query(String),
    Cookie(String),
    Claim(String),
}

impl KeyPart {
    pub(crate) fn parse(text: &str) -> Result<KeyPart, UnitError> {
        let wrong = || {
            UnitError::new(format!("expected a part of a key, found {}", quote(text))).hint(
                "it is ip, consumer, route, host, version, method, path, header:NAME, query:NAME, cookie:NAME or claim:NAME",
            )
        };
        let named = text.split_once(':').filter(|(_, name)| !name.is_empty());
        Ok(match (text, named) {
            ("ip", _) => KeyPart::Ip,
            ("consumer", _) => KeyPart::Consumer,
            ("route", _) => KeyPart::Route,
            ("host", _) => KeyPart::Host,
            ("version", _) => KeyPart::Version,
            ("method", _) => KeyPart::Method,
            ("path", _) => KeyPart::Path,
            (_, Some(("header", name))) if is_token(name) => KeyPart::Header(name.to_ascii_lowercase()),
            (_, Some(("cookie", name))) if is_token(name) => KeyPart::Cookie(name.into()),
            (_, Some(("query", name))) => KeyPart::Query(name.into()),
            (_, Some(("claim", name))) => KeyPart::Claim(name.into()),
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyPart::Ip => f.write_str("ip"),
            KeyPart::Consumer => f.write_str("consumer"),
            KeyPart::Route => f.write_str("route"),
            KeyPart::Host => f.write_str("host"),
            KeyPart::Version => f.write_str("version"),
            KeyPart::Method => f.write_str("method"),
            KeyPart::Path => f.write_str("path"),
            KeyPart::Header(name) => write!(f, "header:{name}"),
            KeyPart::Query(name) => write!(f, "query:{name}"),
            KeyPart::Cookie(name) => write!(f, "cookie:{name}"),
            KeyPart::Claim(name) => write!(f, "claim:{name}"),
        }
    }
}
