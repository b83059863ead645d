//! `[upstream.NAME]`.

use std::net::SocketAddr;

use super::{
    balancing::{breaker, eject, fallback, hash_on, retry, share, share_or_off, sticky},
    health::health,
    tls,
};
use crate::{
    config::{
        error::{Problem, ProblemKind, Problems},
        model::{Balance, Named, Pool, Target, Upstream, UpstreamProtocol, UpstreamTimeout},
        node::{Fields, Node, Value},
        units::{Lookup, Percent, Place},
    },
    proxy_protocol::Version,
};

pub(super) fn upstream(name: &str, fields: &Fields, problems: &mut Problems) -> Option<Upstream> {
    let balance = balance(fields);
    let timeout = fields.table("timeout");
    let health = health(&format!("upstream.{name}"), fields, problems);
    let bounded_load = bounded_load(name, fields, balance, problems);
    let secure = secure(name, fields, problems);
    shared_and_told(name, fields, problems);
    let dns: Option<Lookup> = fields.get("dns");
    if dns.is_some() && fields.node("to").is_some() {
        let message = format!("`upstream.{name}` has both `to` and `dns`");
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("dns"), message);
        problems.push(problem.hint("write the name among `to`, or drop one of them".to_owned()));
    }
    if fields.node("to").is_none() && dns.is_none() {
        return None;
    }
    let (targets, names) = fields.node("to").map(|to| targets(to, problems)).unwrap_or_default();
    Some(Upstream {
        at: fields.at.clone().into(),
        pool: pool(name, fields, &targets, &names, problems),
        targets,
        names,
        balance,
        bounded_load,
        health,
        retry: retry(name, fields, problems),
        timeout: UpstreamTimeout {
            connect: timeout.or_default("connect"),
            first_byte: timeout.or_default("first_byte"),
            idle: timeout.or_default("idle"),
            total: timeout.or_default("total"),
        },
        hash_on: hash_on(name, fields, balance, problems),
        sticky: sticky(name, fields, problems),
        slow_start: fields.or_default("slow_start"),
        spill: share(fields, "spill", &format!("upstream.{name}.spill"), problems),
        panic: share_or_off(fields, "panic", &format!("upstream.{name}.panic"), problems),
        eject: eject(name, fields, problems),
        breaker: breaker(name, fields, problems),
        fallback: fallback(name, fields, problems),
        proxy_protocol: proxy_version(fields, "proxy_protocol"),
        tls: secure.then(|| {
            let mut tls = tls::upstream(fields);
            // The name that is looked up is the one that its certificate has.
            if let (None, Some(Lookup::Host { name, .. })) = (&tls.sni, &dns) {
                tls.sni = Some(name.trim_end_matches('.').to_owned());
            }
            tls
        }),
        dns,
        protocol: protocol(name, fields, secure, problems),
    })
}

/// What connections to targets begin with, also of a service's.
pub(super) fn proxy_version(fields: &Fields, key: &str) -> Option<Version> {
    match fields.get(key)? {
        "v1" => Some(Version::V1),
        _ => Some(Version::V2),
    }
}

fn pool(name: &str, parent: &Fields, targets: &[Target], names: &[Named], problems: &mut Problems) -> Pool {
    let fields = parent.table("pool");
    let max: Option<u32> = fields.or_default("max");
    let capped = max.is_some()
        || targets.iter().any(|target| target.max.is_some())
        || names.iter().any(|name| name.max.is_some());
    for key in ["queue", "queue_timeout"] {
        if fields.node(key).is_some() && !capped && !fields.broken && !parent.broken {
            let message = format!("`upstream.{name}.pool.{key}`: nobody waits where nothing is limited");
            let problem = Problem::new(ProblemKind::Conflict, &fields.place(key), message);
            problems.push(problem.hint("add `max`, here or to a target".to_owned()));
        }
    }
    Pool {
        idle: fields.or_default("idle"),
        idle_for: fields.or_default("idle_for"),
        max,
        queue: fields.or_default("queue"),
        queue_timeout: fields.or_default("queue_timeout"),
    }
}

/// What a route's `to = ["ip:port", …]` makes: an upstream with every default.
pub(super) fn anonymous(
    to: &Node,
    section: &'static crate::config::table::Section,
    problems: &mut Problems,
) -> Option<Upstream> {
    let mut fields = Fields::empty(section, to.at.clone());
    fields.map.insert("to", to.clone());
    upstream("", &fields, problems)
}

fn protocol(name: &str, fields: &Fields, secure: bool, problems: &mut Problems) -> UpstreamProtocol {
    match fields.or_default("protocol") {
        "h2" => UpstreamProtocol::Http2,
        "auto" => {
            if !secure {
                let message =
                    format!("`upstream.{name}.protocol` = \"auto\" needs TLS, where targets choose by ALPN");
                let problem = Problem::new(ProblemKind::Conflict, &fields.place("protocol"), message);
                problems.push(problem.hint("write \"h1\" or \"h2\", or add `tls`".to_owned()));
            }
            UpstreamProtocol::Auto
        }
        _ => UpstreamProtocol::Http1,
    }
}

/// A connection that begins with one client's address cannot be shared.
fn shared_and_told(name: &str, fields: &Fields, problems: &mut Problems) {
    if fields.node("proxy_protocol").is_some() && fields.or_default::<&str>("protocol") != "h1" {
        let message = format!(
            "`upstream.{name}.proxy_protocol` tells of one client, and HTTP/2 connections are shared by many"
        );
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("proxy_protocol"), message);
        problems
            .push(problem.hint("drop it (upstreams get `Forwarded`), or write protocol = \"h1\"".to_owned()));
    }
}

/// Whether the targets are spoken to by TLS: all of them, or none.
fn secure(name: &str, fields: &Fields, problems: &mut Problems) -> bool {
    let tls = fields.node("tls").is_some();
    let Some(Value::List(nodes)) = fields.node("to").map(|node| &node.value) else { return tls };
    let address = |node: &Node| match &node.value {
        Value::Table(target) => target.node("addr").cloned(),
        _ => Some(node.clone()),
    };
    let written: Vec<Node> = nodes.iter().filter_map(address).collect();
    let is_https = |node: &Node| matches!(node.value, Value::SecureTarget(_) | Value::SecureLookup(_));
    let https = written.iter().any(is_https);
    if https
        && !tls
        && let Some(other) = written.iter().find(|node| !is_https(node))
    {
        let owner = if name.is_empty() { "to".to_owned() } else { format!("upstream.{name}.to") };
        let message = format!("`{owner}`: some targets have https:// and this one has not");
        let problem = Problem::new(ProblemKind::Conflict, &other.at, message);
        problems.push(problem.hint("write https:// before each, or make two upstreams".to_owned()));
    }
    tls || https
}

/// The targets of a list, which may be addresses, names or tables; the same twice is a problem.
fn targets(to: &Node, problems: &mut Problems) -> (Vec<Target>, Vec<Named>) {
    let Value::List(nodes) = &to.value else { return Default::default() };
    let mut seen: std::collections::BTreeMap<String, &Place> = std::collections::BTreeMap::new();
    let (mut targets, mut names) = (Vec::with_capacity(nodes.len()), Vec::new());
    for node in nodes {
        let Some((at, said)) = target(node, problems) else { continue };
        let text = match &at {
            At::Addr(addr) => addr.to_string(),
            At::Name(lookup) => lookup.to_string(),
        };
        if let Some(first) = seen.insert(text.clone(), &node.at) {
            let message = format!("target \"{text}\" is there twice, first at {first}");
            let hint = format!("to send it more, give it a weight: {{ addr = \"{text}\", weight = 2 }}");
            problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message).hint(hint));
        }
        match at {
            At::Addr(addr) => targets.push(said.target(addr)),
            At::Name(lookup) => names.push(Named { lookup, ..said }),
        }
    }
    (targets, names)
}

/// Where a target is.
enum At {
    Addr(SocketAddr),
    Name(Lookup),
}

impl At {
    fn of(value: &Value) -> Option<At> {
        match value {
            Value::Target(addr) | Value::SecureTarget(addr) => Some(At::Addr(*addr)),
            Value::Lookup(lookup) | Value::SecureLookup(lookup) => Some(At::Name(lookup.clone())),
            _ => None,
        }
    }
}

/// Where it is, and what else is said of it; what that looks up counts for nothing.
fn target(node: &Node, problems: &mut Problems) -> Option<(At, Named)> {
    let plain = Named::plain(Lookup::Srv(String::new()));
    let fields = match &node.value {
        Value::Table(fields) => fields,
        other => return Some((At::of(other)?, plain)),
    };
    let backup: bool = fields.or_default("backup");
    if backup && fields.node("priority").is_some() {
        let message = "`backup` and `priority` of a target say the same";
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("priority"), message);
        problems.push(problem.hint("keep one: backup = true is priority = 1".to_owned()));
    }
    let said = Named {
        weight: fields.or_default("weight"),
        zone: fields.get("zone"),
        priority: if backup { 1 } else { fields.or_default("priority") },
        max: fields.get("max"),
        ..plain
    };
    Some((At::of(&fields.node("addr")?.value)?, said))
}

fn balance(fields: &Fields) -> Balance {
    match fields.or_default::<&'static str>("balance") {
        "least-conn" => Balance::LeastConn,
        "ip-hash" => Balance::IpHash,
        "p2c" => Balance::P2c,
        "maglev" => Balance::Maglev,
        "random" => Balance::Random,
        _ => Balance::RoundRobin,
    }
}

fn bounded_load(name: &str, fields: &Fields, balance: Balance, problems: &mut Problems) -> Option<f64> {
    let percent = fields.get::<Percent>("bounded_load");
    let factor = match percent {
        Some(percent) => Some(percent.0),
        None => fields.or_default::<Option<f64>>("bounded_load"),
    }?;
    let at = fields.place("bounded_load");
    if factor <= 1.0 || factor > 100.0 {
        let message = format!("`upstream.{name}.bounded_load`: must be above 100%, at most 10000%");
        problems.push(Problem::new(ProblemKind::Value, &at, message));
    } else if !matches!(balance, Balance::IpHash | Balance::Maglev) {
        let message =
            format!("`upstream.{name}.bounded_load` only works with balance = \"ip-hash\" or \"maglev\"");
        problems.push(Problem::new(ProblemKind::Conflict, &at, message));
    }
    Some(factor)
}
