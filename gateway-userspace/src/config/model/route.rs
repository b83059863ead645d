//! `[route.NAME]`.

use std::{fmt, time::Duration};

use super::{Allow, ClientCache, RouteAuth, RouteRetry, Versions};
use crate::config::units::{At, Date, Number, Percent, Prefixes, Template, VersionForm, VersionName};

/// `[route.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub at: At,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Default `/*`. Without the segment for the version, if there is one.
    pub path: PathPattern,
    pub when: Predicates,
    pub to: Destination,
    pub rewrite: Rewrite,
    pub mirror: Option<Mirror>,
    pub cors: Option<Cors>,
    pub compress: Option<Compress>,
    /// A key of `Config::caches`.
    pub cache: Option<String>,
    pub client_cache: Option<ClientCache>,
    /// `upgrade = ["websocket"]`: lower-case protocol names that may be upgraded to. Default: none.
    pub upgrade: Vec<String>,
    /// Pass 103 (Early Hints) on to the client. Default false.
    pub early_hints: bool,
    /// Keys of `Config::limits`.
    pub limits: Vec<String>,
    /// gRPC-Web is translated to gRPC. Default false.
    pub grpc_web: bool,
    pub timeout: RouteTimeout,
    pub retry: RouteRetry,
    pub guard: Guard,
    pub security_headers: Option<SecurityHeaders>,
    /// Who may call. `None`: anyone.
    pub auth: Option<RouteAuth>,
    /// What callers must have. Only with `auth`; `None`: every caller that is known may.
    pub allow: Option<Allow>,
    pub versions: Option<Box<Versions>>,
}

impl Route {
    /// Also those of versions.
    pub fn all_hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.hosts.iter().chain(self.versions.iter().flat_map(|versions| &versions.hosts))
    }

    /// Also those of versions.
    pub fn all_paths(&self) -> impl Iterator<Item = &PathPattern> {
        std::iter::once(&self.path).chain(self.versions.iter().flat_map(|versions| &versions.paths))
    }
}

/// What a route takes, whoever sends it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Guard {
    /// `None`: from anywhere.
    pub allow_from: Option<Prefixes>,
    pub deny_from: Option<Prefixes>,
    /// Bytes of a head.
    pub header: Option<usize>,
    /// Bytes of a body.
    pub body: Option<u64>,
    /// In lower case: `text/html`, `text/*`. `None`: any.
    pub content_types: Option<Vec<String>>,
    /// `%2F` and `%5C` in a path.
    pub encoded_slash: bool,
    /// Of bodies that are JSON, or may be taken for it.
    pub json: Option<JsonLimits>,
    /// Pages of other sites change nothing, but those of these origins.
    pub csrf: Option<Vec<Origin>>,
}

/// `max = { json_depth, json_items }`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Brackets within brackets. Default 64.
    pub depth: u16,
    /// Values in all. `None`: as many as there are.
    pub items: Option<u64>,
}

/// `security_headers = true`, or a table: values of fields, `None` for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityHeaders {
    /// `X-Frame-Options`. Default DENY.
    pub frame: Option<String>,
    /// `Referrer-Policy`. Default strict-origin-when-cross-origin.
    pub referrer: Option<String>,
    /// `Content-Security-Policy`.
    pub csp: Option<String>,
    /// `Permissions-Policy`.
    pub permissions: Option<String>,
}

/// `timeout = { first_byte, idle, total }`: what is there counts in place of the upstream's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteTimeout {
    pub first_byte: Option<Duration>,
    pub idle: Option<Duration>,
    /// `Some(None)`: none.
    pub total: Option<Option<Duration>>,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// A key of `Config::upstreams`: for `to = [..]` an anonymous upstream is added there, named as the route.
    Upstream(String),
    Split(Split),
    Respond(Respond),
    Redirect(Redirect),
    /// Each version says it for itself.
    Versions,
}

impl Destination {
    /// Those that requests may go to.
    pub fn upstreams(&self) -> Vec<&str> {
        match self {
            Destination::Upstream(name) => vec![name],
            Destination::Split(split) => split.shares.iter().map(|(name, _)| name.as_str()).collect(),
            Destination::Respond(_) | Destination::Redirect(_) | Destination::Versions => Vec::new(),
        }
    }
}

/// `to = { a = 95, b = 5 }`
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Keys of `Config::upstreams` and their weights, 0..=1000, of which one is not 0.
    pub shares: Vec<(String, u32)>,
    pub sticky: Option<Sticky>,
}

/// `sticky`: what keeps a client with the same upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    Ip,
    /// Of a canary, which may wait until it is known who calls.
    Consumer,
    Cookie(String),
    /// In lower case.
    Header(String),
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sticky::Ip => f.write_str("ip"),
            Sticky::Consumer => f.write_str("consumer"),
            Sticky::Cookie(name) => write!(f, "cookie:{name}"),
            Sticky::Header(name) => write!(f, "header:{name}"),
        }
    }
}

/// `mirror = { to, share, body, queue }`
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    /// A key of `Config::upstreams`.
    pub to: String,
    /// 0..=1. Default 100%.
    pub share: Percent,
    /// Bytes of a body. Default 64 KiB.
    pub body: usize,
    /// Copies at once. Default 100.
    pub queue: usize,
    /// The version whose upstream `to` is.
    pub version: Option<Box<MirrorVersion>>,
    pub compare: Option<Compare>,
}

/// `mirror.version`: how that version's upstream would get the request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MirrorVersion {
    pub name: String,
    pub rewrite: Rewrite,
    /// The segment of the path that the version is sent in, if it is.
    pub segment: Option<usize>,
    /// What names another version: query parameters …
    pub query: Vec<String>,
    /// … and header fields.
    pub headers: Vec<String>,
}

/// `mirror.compare = true`, or `{ ignore, headers, body }`
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    /// JSON pointers; `*` stands for any name or index.
    pub ignore: Vec<String>,
    /// In lower case. Default `content-type`.
    pub headers: Vec<String>,
    /// Bytes. Default 64 KiB.
    pub body: usize,
}

/// `cors = { origins, methods, headers, expose, credentials, max_age }`
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// At least one. Not `Any` with `credentials`.
    pub origins: Vec<Origin>,
    /// Default GET, HEAD, POST.
    pub methods: Vec<String>,
    /// In lower case; "*": any. Default: none but those that need no leave.
    pub headers: Vec<String>,
    /// In lower case. Default: none.
    pub expose: Vec<String>,
    /// Default false.
    pub credentials: bool,
    /// How long a preflight holds. Default 10 min.
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Any,
    /// In lower case, without a slash at the end.
    Exact(String),
    /// `https://*.example.com`: any origin of that scheme under the name. `scheme` has its `://`.
    Under {
        scheme: String,
        suffix: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Any => f.write_str("*"),
            Origin::Exact(origin) => f.write_str(origin),
            Origin::Under { scheme, suffix } => write!(f, "{scheme}*.{suffix}"),
        }
    }
}

/// `compress = true`, or `{ codings, min, types }`
#[derive(Debug, Clone, PartialEq)]
pub struct Compress {
    /// The preferred first. Default zstd, br, gzip.
    pub codings: Vec<Coding>,
    /// Bytes of an answer whose length is known. Default 1 KiB.
    pub min: u64,
    /// In lower case: `text/html`, `text/*`, `*+json`.
    pub types: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coding {
    Zstd,
    Brotli,
    Gzip,
}

impl Coding {
    /// As HTTP and the config write it.
    pub fn word(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// `respond = { status, body, headers }`
#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    /// 200..=599. Default 200.
    pub status: u16,
    pub body: String,
    /// By lower-case name.
    pub headers: Vec<(String, Template)>,
}

/// `redirect = "https://new.example${uri}"`, or `{ to, status }`
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    pub to: Template,
    /// 301, 302, 303, 307 or 308. Default 307.
    pub status: u16,
}

/// `rewrite = { path, set, add, remove, json, response }`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    pub path: Option<PathRewrite>,
    pub request: FieldRewrite,
    pub response: FieldRewrite,
    /// Of the request's body.
    pub json: Option<Box<JsonMap>>,
    pub response_json: Option<Box<JsonMap>>,
    /// Taken out of both.
    pub remove: Vec<String>,
}

/// `json = { remove, rename, set, max }`: what becomes of a body's members, by JSON pointers, in which `*` stands for any
/// name or index.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonMap {
    pub remove: Vec<String>,
    /// From where, and where to. To the last `*` both are the same.
    pub rename: Vec<(String, String)>,
    pub set: Vec<(String, JsonSet)>,
    /// Bytes of a body. Default 1 MiB.
    pub max: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum JsonSet {
    Text(Template),
    /// JSON as it is written.
    Json(String),
}

#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// `path = "/internal/*"`
    To(Template),
    /// `path = { regex, to }`: the first match is replaced.
    Replace { regex: Pattern, to: Template },
}

/// What becomes of header fields, by lower-case name: first `remove`, then `set`, then `add`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FieldRewrite {
    pub set: Vec<(String, Template)>,
    pub add: Vec<(String, Template)>,
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Lower case, without a port.
    Exact(String),
    /// `*.example.com` is kept as `example.com`: matches any number of labels before it, at least one.
    Wildcard(String),
}

/// A path as written: `/items`, `/items/{id}`, `/items/*`. See [`crate::route`] for how it matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    pub segments: Vec<Segment>,
    /// Ends in `*`: `/items/*` matches `/items` and everything under `/items/`.
    pub rest: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    Literal(String),
    Parameter(String),
    /// Whatever looks like a version.
    Version(Shape),
}

/// What a version looks like in a path: `v1` or `v1.2` always, the rest where a version is called so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// `1`, `1.2`
    pub numbers: bool,
    /// `2026-06-01`
    pub dates: bool,
}

impl Shape {
    pub fn of(names: &[VersionName]) -> Self {
        let bare = |name: &VersionName| !name.as_str().starts_with(['v', 'V']);
        Shape {
            numbers: names.iter().any(|name| matches!(name.form, VersionForm::Number(_)) && bare(name)),
            dates: names.iter().any(|name| matches!(name.form, VersionForm::Date(_))),
        }
    }

    pub fn takes(self, segment: &str) -> bool {
        match segment.as_bytes() {
            [b'v' | b'V', ..] => Number::parse(segment).is_some(),
            [b'0'..=b'9', ..] => {
                self.numbers && Number::parse(segment).is_some()
                    || self.dates && Date::parse(segment).is_some()
            }
            _ => false,
        }
    }

    pub fn or(self, other: Shape) -> Shape {
        Shape { numbers: self.numbers || other.numbers, dates: self.dates || other.dates }
    }
}

/// `methods`, `headers` and `query`: what must hold beside host and path. All of them must.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predicates {
    /// Any of these; GET takes HEAD too. Empty: any method.
    pub methods: Vec<String>,
    /// By lower-case field name.
    pub headers: Vec<(String, Matcher)>,
    /// By decoded name.
    pub query: Vec<(String, Matcher)>,
}

impl Predicates {
    /// How many there are: of routes with the same host and path, the one with more is asked first.
    pub fn count(&self) -> usize {
        usize::from(!self.methods.is_empty()) + self.headers.len() + self.query.len()
    }

    /// Whether no request meets both.
    pub fn excludes(&self, other: &Predicates) -> bool {
        let methods_meet = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        let apart = |ours: &[(String, Matcher)], theirs: &[(String, Matcher)]| {
            ours.iter()
                .any(|(name, one)| theirs.iter().any(|(other, two)| name == other && one.excludes(two)))
        };
        !methods_meet || apart(&self.headers, &other.headers) || apart(&self.query, &other.query)
    }
}

/// What a header field or a query parameter must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Matcher {
    Is(String),
    /// `true`: it is there.
    Present,
    /// `false`: it is not there.
    Absent,
    /// `{ regex = "…" }`
    Like(Pattern),
}

impl Matcher {
    /// Of a name that is sent once.
    fn excludes(&self, other: &Matcher) -> bool {
        match (self, other) {
            (Matcher::Absent, Matcher::Absent) => false,
            (Matcher::Absent, _) | (_, Matcher::Absent) => true,
            (Matcher::Is(one), Matcher::Is(two)) => one != two,
            (Matcher::Is(value), Matcher::Like(pattern)) | (Matcher::Like(pattern), Matcher::Is(value)) => {
                !pattern.regex.is_match(value.as_bytes())
            }
            _ => false,
        }
    }
}

/// A regular expression, compiled once. Matching takes time linear in the text.
#[derive(Debug, Clone)]
pub struct Pattern {
    pub regex: regex::bytes::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.regex.as_str())
    }
}
