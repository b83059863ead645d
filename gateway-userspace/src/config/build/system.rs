//! `[gateway]`, `[metrics]`, `[admin]`.

use std::net::{Ipv6Addr, SocketAddr};

use super::file;
use crate::config::{
    model::{Admin, Bind, Gateway, LimitState, Log, LogFormat, Metrics},
    node::{Fields, Value},
    table::is_name,
};

pub(super) fn gateway(fields: &Fields) -> Gateway {
    let log = fields.table("log");
    Gateway {
        name: fields.get("name").unwrap_or_else(host_name),
        workers: fields.or_default("workers"),
        drain: fields.or_default("drain"),
        zone: fields.get("zone"),
        limit_keys: fields.or_default::<u32>("limit_keys").next_power_of_two(),
        limit_state: limit_state(fields),
        resolver: fields.or_default("resolver"),
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

fn limit_state(fields: &Fields) -> LimitState {
    match fields.node("limit_state").map(|node| &node.value) {
        None => LimitState::Default,
        Some(Value::Word(_)) => LimitState::Off,
        Some(_) => LimitState::File(file(fields, "limit_state")),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|c| is_name(&format!("x{c}"))).take(63).collect();
    if is_name(&name) { name } else { "gateway".into() }
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
