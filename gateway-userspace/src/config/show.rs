//! The config in effect, every default written out: as JSON, and as TOML that loads to the same config.

mod auth;
mod cache;
mod kernel;
mod limit;
mod listener;
mod route;
mod seeing;
mod service;
mod upstream;
mod version;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    flags::toml_string,
    model::{Config, LimitState, LogFormat},
    table::{Kind, ROOT, Section},
    units::show_duration,
};

/// The config in effect, with the names and forms of the file.
pub fn to_json(config: &Config) -> Value {
    shown(config, None)
}

/// As [`to_json`], but for the routes, upstreams and consumers that are the same in `other`: most, of a large config.
pub fn unlike(config: &Config, other: &Config) -> Value {
    shown(config, Some(other))
}

fn shown(config: &Config, other: Option<&Config>) -> Value {
    let mut all = json!({
        "gateway": {
            "name": config.gateway.name,
            "workers": config.gateway.workers.map_or(json!("auto"), |n| json!(n)),
            "drain": show_duration(config.gateway.drain),
            "log": {
                "level": config.gateway.log.level,
                "format": match config.gateway.log.format {
                    LogFormat::Auto => "auto",
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                },
            },
        },
        "kernel": kernel::kernel(&config.kernel),
        "listener": by_name(&config.listeners, listener::listener),
        "cert": config.certs.iter().filter(|(_, cert)| cert.issued.is_none())
            .map(|(name, cert)| (name.clone(), listener::cert(cert))).collect::<Value>(),
        "upstream": by_name_unlike(&config.upstreams, other.map(|other| &other.upstreams), upstream::upstream),
        "route": by_name_unlike(&config.routes, other.map(|other| &other.routes), route::route),
        "cache": by_name(&config.caches, cache::cache),
        "limit": by_name(&config.limits, limit::limit),
        "auth": by_name(&config.auths, auth::auth),
        "consumer": by_name_unlike(&config.consumers, other.map(|other| &other.consumers), auth::consumer),
        "service": by_name(&config.services, service::service),
        "access_log": seeing::access_log(&config.access_log),
        "metrics": { "bind": config.metrics.bind.map_or("off".into(), |addr| addr.to_string()) },
        "state": auth::state(&config.state),
        "admin": { "socket": config.admin.socket.to_string_lossy() },
    });
    if let Some(audit) = &config.admin.audit {
        all["admin"]["audit"] = json!(audit.to_string_lossy());
    }
    if let Some(http) = &config.admin.http {
        all["admin"]["http"] = listener::admin_http(http);
    }
    if let Some(acme) = &config.acme {
        all["acme"] = listener::acme(acme);
    }
    if let Some(tracing) = &config.tracing {
        all["tracing"] = seeing::tracing(tracing);
    }
    all["alert"] = by_name(&config.alerts, seeing::alert);
    all["notify"] = by_name(&config.notify, seeing::notify);
    all["gateway"]["resolver"] = json!(config.gateway.resolver);
    if let Some(shared) = &config.shared {
        all["shared"] = limit::shared(shared);
    }
    if let Some(penalty) = &config.penalty {
        all["penalty"] = limit::penalty(penalty);
    }
    all["gateway"]["limit_keys"] = json!(config.gateway.limit_keys);
    match &config.gateway.limit_state {
        LimitState::Default => {}
        LimitState::Off => all["gateway"]["limit_state"] = json!("off"),
        LimitState::File(file) => all["gateway"]["limit_state"] = json!(file.to_string_lossy()),
    }
    if let Some(zone) = &config.gateway.zone {
        all["gateway"]["zone"] = json!(zone);
    }
    all
}

fn by_name<T>(entries: &BTreeMap<String, T>, one: fn(&T) -> Value) -> Value {
    entries.iter().map(|(name, entry)| (name.clone(), one(entry))).collect()
}

fn by_name_unlike<T: PartialEq>(
    entries: &BTreeMap<String, T>,
    others: Option<&BTreeMap<String, T>>,
    one: fn(&T) -> Value,
) -> Value {
    let same = |name: &str, entry: &T| others.and_then(|others| others.get(name)) == Some(entry);
    let unlike = entries.iter().filter(|(name, entry)| !same(name, entry));
    unlike.map(|(name, entry)| (name.clone(), one(entry))).collect()
}

/// A fraction as a percentage, without what binary fractions add.
fn share(fraction: f64) -> Value {
    json!(format!("{}%", (fraction * 1e8).round() / 1e6))
}

fn share_or_off(fraction: Option<f64>) -> Value {
    fraction.map_or(json!("off"), share)
}

/// An object of what is there, in this order.
fn some<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let present = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

/// The config in effect as TOML. An upstream that a route made is shown as one of its own.
pub fn show(config: &Config) -> String {
    let root = to_json(config);
    let mut out = String::new();
    for (key, value) in root.as_object().into_iter().flatten() {
        let (Some(known), Some(object)) = (ROOT.key(key), value.as_object()) else { continue };
        match &known.kind {
            Kind::Named(section) => {
                for (name, entry) in object {
                    table(&mut out, &format!("{key}.{}", toml_key(name)), section, entry);
                }
            }
            Kind::Table(section) => table(&mut out, key, section, value),
            _ => {}
        }
    }
    out
}

fn table(out: &mut String, header: &str, section: &Section, value: &Value) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("[{header}]\n"));
    for (key, value) in value.as_object().into_iter().flatten() {
        let restart = section.key(key).is_some_and(|key| key.restart);
        let mark = if restart { "  # [restart]" } else { "" };
        out.push_str(&format!("{key} = {}{mark}\n", toml_value(value)));
    }
}

pub(super) fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml_string(text),
        Value::Array(list) => format!("[{}]", list.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if map.is_empty() => "{}".into(),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{} = {}", toml_key(key), toml_value(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        plain => plain.to_string(),
    }
}

fn toml_key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { name.to_owned() } else { toml_string(name) }
}
