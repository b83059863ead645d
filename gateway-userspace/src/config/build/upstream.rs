//! `[upstream.NAME]`.

use std::net::SocketAddr;

use super::health::health;
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Balance, Pool, Retry, Target, Upstream, UpstreamTimeout},
    node::{Fields, Node, Value},
    units::{Percent, Place},
};

pub(super) fn upstream(name: &str, fields: &Fields, problems: &mut Problems) -> Option<Upstream> {
    let balance = balance(fields);
    let retry = fields.table("retry");
    let timeout = fields.table("timeout");
    let pool = fields.table("pool");
    let health = health(&format!("upstream.{name}"), fields, problems);
    let bounded_load = bounded_load(name, fields, balance, problems);
    Some(Upstream {
        at: fields.at.clone(),
        targets: targets(fields.node("to")?, problems),
        balance,
        bounded_load,
        health,
        retry: Retry {
            tries: match retry.or_default::<Vec<&'static str>>("on").is_empty() {
                true => 0,
                false => retry.or_default("tries"),
            },
        },
        timeout: UpstreamTimeout {
            connect: timeout.or_default("connect"),
            first_byte: timeout.or_default("first_byte"),
            idle: timeout.or_default("idle"),
            total: timeout.or_default("total"),
        },
        pool: Pool { idle: pool.or_default("idle"), idle_for: pool.or_default("idle_for") },
    })
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

/// The targets of a list, which may be addresses or tables; the same address twice is a problem.
fn targets(to: &Node, problems: &mut Problems) -> Vec<Target> {
    let Value::List(nodes) = &to.value else { return Vec::new() };
    let mut seen: std::collections::BTreeMap<SocketAddr, &Place> = std::collections::BTreeMap::new();
    let mut targets = Vec::with_capacity(nodes.len());
    for node in nodes {
        let (addr, weight) = match &node.value {
            Value::Target(addr) => (Some(*addr), 1),
            Value::Table(fields) => (fields.get("addr"), fields.or_default("weight")),
            _ => (None, 1),
        };
        let Some(addr) = addr else { continue };
        if let Some(first) = seen.insert(addr, &node.at) {
            let message = format!("target \"{addr}\" is there twice, first at {first}");
            let hint = format!("to send it more, give it a weight: {{ addr = \"{addr}\", weight = 2 }}");
            problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message).hint(hint));
        }
        targets.push(Target { addr, weight });
    }
    targets
}

fn balance(fields: &Fields) -> Balance {
    match fields.or_default::<&'static str>("balance") {
        "least-conn" => Balance::LeastConn,
        "ip-hash" => Balance::IpHash,
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
    } else if balance != Balance::IpHash {
        let message = format!("`upstream.{name}.bounded_load` only works with balance = \"ip-hash\"");
        problems.push(Problem::new(ProblemKind::Conflict, &at, message));
    }
    Some(factor)
}
