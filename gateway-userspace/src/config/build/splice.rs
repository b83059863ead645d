//! `[service.NAME] path = "splice"`.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{listener, service::targets, tls, upstream::proxy_version};
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{HostPattern, L4Balance, L4Protocol, ServiceTarget, Splice, SpliceTimeout},
    node::{Fields, Value},
};

/// Keys that only mean something with the one path, or with the other.
const KERNEL_ONLY: [&str; 4] = ["forward", "flows", "quic", "limit"];
const SPLICE_ONLY: [&str; 5] = ["sni", "proxy_protocol", "tls", "timeout", "max"];
/// Of TCP.
const STREAM_ONLY: [&str; 3] = ["sni", "proxy_protocol", "tls"];

pub(super) fn is_spliced(fields: &Fields) -> bool {
    fields.or_default::<&str>("path") == "splice"
}

pub(super) fn splice(
    name: &str,
    fields: &Fields,
    root: &Fields,
    protocol: L4Protocol,
    problems: &mut Problems,
) -> Splice {
    let timeout = fields.table("timeout");
    let proxy = match fields.node("proxy_protocol").map(|node| &node.value) {
        Some(Value::Table(proxy)) => Some(proxy),
        _ => None,
    };
    Splice {
        to: fields.node("to").map(|to| targets(to, problems)).unwrap_or_default(),
        sni: sni(fields, problems),
        proxy_protocol: proxy.and_then(listener::from),
        announce: match proxy {
            Some(proxy) => proxy_version(proxy, "send"),
            None => proxy_version(fields, "proxy_protocol"),
        },
        tls: tls::of_service(name, fields, root, problems),
        timeout: SpliceTimeout {
            connect: timeout.or_default("connect"),
            header: timeout.or_default("header"),
            idle: match timeout.get::<Option<Duration>>("idle") {
                Some(idle) => idle,
                None => Some(SpliceTimeout::default_idle(protocol)),
            },
        },
        connections: fields.table("max").or_default("connections"),
    }
}

fn sni(fields: &Fields, problems: &mut Problems) -> Vec<(HostPattern, Vec<ServiceTarget>)> {
    let all = fields.map("sni").into_iter();
    all.map(|(name, node)| (HostPattern::named(name), targets(&node, problems))).collect()
}

/// Every address that connections may go to, each once.
pub(super) fn all(splice: &Splice) -> Vec<ServiceTarget> {
    let lists = std::iter::once(&splice.to).chain(splice.sni.iter().map(|(_, targets)| targets));
    let mut seen: BTreeMap<SocketAddr, ()> = BTreeMap::new();
    lists.flatten().filter(|target| seen.insert(target.addr, ()).is_none()).cloned().collect()
}

/// That all keys are of the path that is taken.
pub(super) fn keys(
    name: &str,
    fields: &Fields,
    protocol: L4Protocol,
    balance: L4Balance,
    problems: &mut Problems,
) {
    if fields.broken {
        return;
    }
    let mut conflict = |key: &str, message: &str, hint: &str| {
        let message = format!("`service.{name}.{key}`{message}");
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message).hint(hint.to_owned()));
    };
    let there = |keys: &[&'static str]| -> Vec<&'static str> {
        keys.iter().copied().filter(|key| fields.node(key).is_some()).collect()
    };
    let timeout_off = matches!(fields.table("timeout").get::<Option<Duration>>("idle"), Some(None));
    if is_spliced(fields) {
        for key in there(&KERNEL_ONLY) {
            conflict(key, " is of the kernel's path", "drop it, or path = \"splice\"");
        }
        if protocol == L4Protocol::Udp {
            if timeout_off {
                conflict(
                    "timeout",
                    ": nothing else than `idle` ends a UDP session",
                    "give `idle` a duration",
                );
            }
            for key in there(&STREAM_ONLY) {
                conflict(key, " is of TCP", "drop it, or protocol = \"udp\"");
            }
        }
    } else {
        for key in there(&SPLICE_ONLY) {
            conflict(key, " needs userspace", "add path = \"splice\", or drop it");
        }
        if !matches!(balance, L4Balance::Maglev | L4Balance::IpHash) {
            let message = format!(": the kernel cannot choose by {}", balance.word());
            conflict("balance", &message, "add path = \"splice\", or use \"maglev\" or \"ip-hash\"");
        }
    }
}
