//! `[upstream.NAME]`.

use std::net::SocketAddr;

use super::{
    balancing::{breaker, eject, hash_on, retry, share, share_or_off, sticky},
    health::health,
    tls,
};
use crate::{
    config::{
        error::{Problem, ProblemKind, Problems},
        model::{Balance, Pool, Target, Upstream, UpstreamProtocol, UpstreamTimeout},
        node::{Fields, Node, Value},
        units::{Percent, Place},
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
    let targets = targets(fields.node("to")?, problems);
    Some(Upstream {
        at: fields.at.clone(),
        pool: pool(name, fields, &targets, problems),
        targets,
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
        proxy_protocol: proxy_version(fields, "proxy_protocol"),
        tls: secure.then(|| tls::upstream(fields)),
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

fn pool(name: &str, parent: &Fields, targets: &[Target], problems: &mut Problems) -> Pool {
    let fields = parent.table("pool");
    let max: Option<u32> = fields.or_default("max");
    let capped = max.is_some() || targets.iter().any(|target| target.max.is_some());
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
    let is_https = |node: &Node| matches!(node.value, Value::SecureTarget(_));
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

/// The targets of a list, which may be addresses or tables; the same address twice is a problem.
fn targets(to: &Node, problems: &mut Problems) -> Vec<Target> {
    let Value::List(nodes) = &to.value else { return Vec::new() };
    let mut seen: std::collections::BTreeMap<SocketAddr, &Place> = std::collections::BTreeMap::new();
    let mut targets = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(target) = target(node, problems) else { continue };
        let addr = target.addr;
        if let Some(first) = seen.insert(addr, &node.at) {
            let message = format!("target \"{addr}\" is there twice, first at {first}");
            let hint = format!("to send it more, give it a weight: {{ addr = \"{addr}\", weight = 2 }}");
            problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message).hint(hint));
        }
        targets.push(target);
    }
    targets
}

fn target(node: &Node, problems: &mut Problems) -> Option<Target> {
    let fields = match &node.value {
        Value::Target(addr) | Value::SecureTarget(addr) => {
            return Some(Target { addr: *addr, weight: 1, zone: None, priority: 0, max: None });
        }
        Value::Table(fields) => fields,
        _ => return None,
    };
    let backup: bool = fields.or_default("backup");
    if backup && fields.node("priority").is_some() {
        let message = "`backup` and `priority` of a target say the same";
        let problem = Problem::new(ProblemKind::Conflict, &fields.place("priority"), message);
        problems.push(problem.hint("keep one: backup = true is priority = 1".to_owned()));
    }
    Some(Target {
        addr: fields.get("addr")?,
        weight: fields.or_default("weight"),
        zone: fields.get("zone"),
        priority: if backup { 1 } else { fields.or_default("priority") },
        max: fields.get("max"),
    })
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
