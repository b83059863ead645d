//! `[gateway]`, `[metrics]`, `[admin]`.

use std::net::{Ipv6Addr, SocketAddr};

use super::{file, tls};
use crate::config::{
    error::{Problem, ProblemKind, Problems},
    model::{Admin, AdminHttp, Alpn, Bind, Gateway, LimitState, Log, LogFormat, Metrics},
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
    Metrics { bind: fields.or_default::<Option<Bind>>("bind").map(address) }
}

fn address(bind: Bind) -> SocketAddr {
    match bind {
        Bind::Any(port) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
        Bind::Addr(addr) => addr,
    }
}

pub(super) fn admin(root: &Fields, problems: &mut Problems) -> Admin {
    let fields = root.table("admin");
    let audit = fields.node("audit").map(|_| file(&fields, "audit"));
    Admin { socket: file(&fields, "socket"), audit, http: http(&fields, root, problems) }
}

fn http(fields: &Fields, root: &Fields, problems: &mut Problems) -> Option<AdminHttp> {
    let at = fields.node("http")?.at.clone();
    let http = fields.table("http");
    let tls = tls::terminated("admin.http", &http, root, vec![Alpn::Http1], problems);
    let bind = address(http.get("bind")?);
    if !bind.ip().is_loopback() && http.node("tls").is_none() {
        let message = format!(
            "`admin.http`: at {bind} the token and all that it opens would cross the network in clear"
        );
        let problem = Problem::new(ProblemKind::Conflict, &http.place("bind"), message);
        problems.push(problem.hint("add tls = { cert = \"NAME\" }, or bind to 127.0.0.1".to_owned()));
    }
    http.node("token")?;
    let token = tls::secret("admin.http.token", &http.table("token"), problems)?;
    if let Some(tls) = &tls {
        tls::no_listener("admin.http", tls, &http, problems);
    }
    Some(AdminHttp { at: at.into(), bind, token, tls, dashboard: http.or_default("dashboard") })
}
