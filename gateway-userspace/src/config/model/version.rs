//! `[route.NAME.version]`.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{HostPattern, PathPattern, Route, Sticky};
use crate::config::units::{Moment, Percent, VersionName};

/// `[route.NAME.version]`: the versions of an API behind one route.
#[derive(Debug, Clone, PartialEq)]
pub struct Versions {
    /// Where a request may say which one it wants, in this order. At least one.
    pub from: Vec<VersionSource>,
    /// For requests that do not say; a key of `versions`. `None`: they must.
    pub default: Option<String>,
    /// Of sources that contradict each other the first one counts. Default: the request is refused.
    pub first_wins: bool,
    /// Other names, each of a key of `versions`.
    pub aliases: BTreeMap<String, String>,
    pub strip: Strip,
    /// The response field that says which version answered, in lower case. `None`: none does.
    pub header: Option<String>,
    /// The oldest first. At least one.
    pub versions: Vec<ApiVersion>,
    /// The route's path with the version in it; empty unless `from` has `path`.
    pub paths: Vec<PathPattern>,
    /// The segment of `paths` that is the version.
    pub segment: usize,
    /// The route's hosts with the version in front; empty unless `from` has `host`.
    pub hosts: Vec<HostPattern>,
}

/// What upstreams do not get to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strip {
    /// Default true.
    pub path: bool,
    /// Default false.
    pub query: bool,
    /// Default false.
    pub header: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum VersionSource {
    Path,
    Host,
    Accept,
    /// In lower case.
    Header(String),
    Query(String),
}

impl fmt::Display for VersionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionSource::Path => f.write_str("path"),
            VersionSource::Host => f.write_str("host"),
            VersionSource::Accept => f.write_str("accept"),
            VersionSource::Header(name) => write!(f, "header:{name}"),
            VersionSource::Query(name) => write!(f, "query:{name}"),
        }
    }
}

/// `[route.NAME.version.VERSION]`
#[derive(Debug, Clone, PartialEq)]
pub struct ApiVersion {
    pub name: VersionName,
    /// The route as it is for this version: what is not said for the version is the route's.
    pub route: Route,
    pub deprecated: Option<Deprecated>,
    pub sunset: Option<Sunset>,
    /// The version that comes after it, a key of `versions`.
    pub successor: Option<String>,
    pub brownouts: Vec<Brownout>,
    pub canary: Option<Canary>,
}

/// `deprecated = 2026-06-01`, or `{ at, link }` (RFC 9745)
#[derive(Debug, Clone, PartialEq)]
pub struct Deprecated {
    pub at: Moment,
    /// A page about it.
    pub link: Option<String>,
}

/// `sunset = 2027-01-31`, or `{ at, then, link }` (RFC 8594)
#[derive(Debug, Clone, PartialEq)]
pub struct Sunset {
    pub at: Moment,
    pub then: Afterwards,
    /// A page about it.
    pub link: Option<String>,
}

/// What becomes of requests after the sunset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// 410
    Gone,
    /// 308 to the successor.
    Redirect,
    /// Nothing changes.
    Serve,
}

impl Afterwards {
    pub fn word(self) -> &'static str {
        match self {
            Afterwards::Gone => "gone",
            Afterwards::Redirect => "redirect",
            Afterwards::Serve => "serve",
        }
    }
}

/// `{ at, for, every }`: a time in which a version does not answer, so that those who still call it notice.
#[derive(Debug, Clone, PartialEq)]
pub struct Brownout {
    pub at: Moment,
    pub lasts: Duration,
    /// Again after each of these, until the sunset.
    pub every: Option<Duration>,
}

/// `canary = { to, share, headers, tiers, sticky, named }`
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// A key of `versions`.
    pub to: String,
    /// 0..=1. Default 0%.
    pub share: Percent,
    /// Requests with this field go there; with `value`, only those where it has it.
    pub header: Option<(String, Option<String>)>,
    /// Consumers of these tiers go there.
    pub tiers: Vec<String>,
    /// What keeps a client with the same version.
    pub sticky: Sticky,
    /// Also requests that name the version themselves. Default false.
    pub named: bool,
}
