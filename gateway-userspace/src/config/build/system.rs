//! `[gateway]`, `[kernel]`, `[access_log]`, `[metrics]`, `[admin]`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{distinct, file};
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    include::{absolute, beside},
    model::{
        AccessLog, Admin, Bind, Bucket, Gateway, Kernel, KernelBlock, KernelLimit, KernelMode, LimitMode,
        Log, LogFormat, LogTarget, Metrics, Steer,
    },
    node::{Fields, Value},
    source::{read_text, unreadable},
    table::is_name,
    units::{Place, Prefix, Rate},
};

pub(super) fn gateway(fields: &Fields) -> Gateway {
    let log = fields.table("log");
    Gateway {
        name: fields.get("name").unwrap_or_else(host_name),
        workers: fields.or_default("workers"),
        drain: fields.or_default("drain"),
        log: Log {
            level: log.or_default::<&'static str>("level").to_owned(),
            format: match log.or_default("format") {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => LogFormat::Auto,
            },
        },
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| is_name(&format!("x{c}"))).take(63).collect();
    if is_name(&name) { name } else { "gateway".into() }
}

pub(super) fn kernel(fields: &Fields, problems: &mut Problems) -> Kernel {
    let limit = fields.table("limit");
    let interfaces =
        distinct(fields, "interfaces", fields.or_default("interfaces"), problems, |name: &String| {
            format!("interface \"{name}\"")
        });
    Kernel {
        interfaces,
        mode: match fields.or_default("mode") {
            "native" => KernelMode::Native,
            "generic" => KernelMode::Generic,
            "off" => KernelMode::Off,
            _ => KernelMode::Auto,
        },
        steer: match fields.or_default("steer") {
            "off" => Steer::Off,
            _ => Steer::IpHash,
        },
        required: fields.or_default("required"),
        pin: file(fields, "pin"),
        limit: KernelLimit {
            packets: bucket(&limit, "packets"),
            new: bucket(&limit, "new"),
            bytes: None,
            mode: LimitMode::Hard,
            exempt: prefixes(&limit, "exempt"),
            ipv6_prefix: limit.or_default("ipv6_prefix"),
        },
        classes: BTreeMap::new(),
        flows: 262_144,
        syn_cookies: None,
        block: block(&fields.table("block"), problems),
    }
}

fn bucket(fields: &Fields, key: &str) -> Option<Bucket> {
    let (rate, burst): (Rate, Option<u64>) = match &fields.node(key)?.value {
        Value::Table(bucket) => (bucket.get("rate")?, bucket.get("burst")),
        Value::Rate(rate) => (*rate, None),
        _ => return None,
    };
    // Float to integer saturates, and a rate is positive and finite.
    let burst = burst.unwrap_or((rate.per_second.ceil() as u64).clamp(1, 1_000_000_000));
    Some(Bucket { rate, burst })
}

/// Sorted, without those that are there twice: harmless, and lists are often put together from others.
fn prefixes(fields: &Fields, key: &str) -> Vec<Prefix> {
    fields.or_default::<Vec<Prefix>>(key).into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn block(fields: &Fields, problems: &mut Problems) -> KernelBlock {
    let cidrs = prefixes(fields, "cidrs");
    let mut all: BTreeSet<Prefix> = cidrs.iter().copied().collect();
    let mut files: Vec<PathBuf> = Vec::new();
    if let Some(Value::List(nodes)) = fields.node("files").map(|node| &node.value) {
        for node in nodes {
            let Value::Text(name) = &node.value else { continue };
            let path = beside(&node.at, name);
            if !files.contains(&absolute(&path)) {
                files.push(absolute(&path));
                read_block_file(&path, &mut all, problems);
            }
        }
    }
    KernelBlock { cidrs, prefixes: all.into_iter().collect(), except: prefixes(fields, "except"), files }
}

/// One prefix a line, `#` starts a comment.
fn read_block_file(path: &Path, into: &mut BTreeSet<Prefix>, problems: &mut Problems) {
    let bytes = match read_text(path) {
        Ok(bytes) => bytes,
        Err(error) => return problems.push(unreadable(path, &error)),
    };
    let file = Arc::new(path.to_owned());
    for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
        let written = line.split('#').next().unwrap_or_default();
        match written.trim() {
            "" => {}
            text => match text.parse() {
                Ok(prefix) => {
                    into.insert(prefix);
                }
                Err(error) => {
                    let column = written.chars().take_while(|c| c.is_whitespace()).count() + 1;
                    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                    let at = Place { file: file.clone(), line: number(index + 1), column: number(column) };
                    let error: crate::config::units::UnitError = error;
                    problems.push(Problem::new(ProblemKind::Value, &at, error.message).hint(error.hint));
                }
            },
        }
    }
}

pub(super) fn access_log(fields: &Fields) -> AccessLog {
    let to = match fields.get::<PathBuf>("to") {
        Some(_) => LogTarget::File(file(fields, "to")),
        None => match fields.or_default("to") {
            "off" => LogTarget::Off,
            "stderr" => LogTarget::Stderr,
            _ => LogTarget::Stdout,
        },
    };
    AccessLog { to }
}

pub(super) fn metrics(fields: &Fields) -> Metrics {
    let bind = fields.or_default::<Option<Bind>>("bind").map(|bind| match bind {
        Bind::Any(port) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        Bind::Addr(addr) => addr,
    });
    Metrics { bind }
}

pub(super) fn admin(fields: &Fields) -> Admin {
    Admin { socket: file(fields, "socket") }
}
