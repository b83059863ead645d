//! The config in effect, every default written out: as JSON, and as TOML that loads to the same config.

mod auth;
mod cache;
mod limit;
mod listener;
mod seeing;
mod service;
mod version;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    flags::toml_string,
    model::{
        Adapt, Balance, Breaker, Bucket, Compress, Config, Cors, Destination, Eject, Fallback, Health,
        HealthCheck, JsonMap, JsonSet, Kernel, KernelClass, KernelMode, LimitMode, LimitState, LogFormat,
        Matcher, Mirror, PathRewrite, Respond, Rewrite, Route, RouteRetry, RouteTimeout, Steer, StickyCookie,
        Target, Upstream,
    },
    table::{Kind, ROOT, Section},
    units::{ByteSize, Template, show_byte_rate, show_duration},
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
        "kernel": kernel(&config.kernel),
        "listener": by_name(&config.listeners, listener::listener),
        "cert": config.certs.iter().filter(|(_, cert)| cert.issued.is_none())
            .map(|(name, cert)| (name.clone(), listener::cert(cert))).collect::<Value>(),
        "upstream": by_name_unlike(&config.upstreams, other.map(|other| &other.upstreams), upstream),
        "route": by_name_unlike(&config.routes, other.map(|other| &other.routes), route),
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

fn kernel(kernel: &Kernel) -> Value {
    json!({
        "interfaces": kernel.interfaces,
        "mode": match kernel.mode {
            KernelMode::Auto => "auto",
            KernelMode::Native => "native",
            KernelMode::Generic => "generic",
            KernelMode::Off => "off",
        },
        "steer": match kernel.steer {
            Steer::IpHash => "ip-hash",
            Steer::Off => "off",
        },
        "required": kernel.required,
        "pin": kernel.pin.to_string_lossy(),
        "limit": some([
            ("packets", kernel.limit.packets.map(bucket)),
            ("new", kernel.limit.new.map(bucket)),
            ("bytes", kernel.limit.bytes.map(byte_bucket)),
            ("mode", Some(json!(mode(kernel.limit.mode)))),
            ("exempt", Some(json!(kernel.limit.exempt))),
            ("ipv6_prefix", Some(json!(kernel.limit.ipv6_prefix))),
        ]),
        "block": {
            "cidrs": kernel.block.cidrs,
            "except": kernel.block.except,
            "files": kernel.block.files.iter().map(|file| file.to_string_lossy()).collect::<Vec<_>>(),
        },
        "class": by_name(&kernel.classes, class),
        "flows": kernel.flows,
        "adapt": kernel.adapt.map_or(json!("off"), adapt),
        "syn_cookies": kernel.syn_cookies.map_or(json!("off"), |above| json!({ "above": above })),
    })
}

fn adapt(adapt: Adapt) -> Value {
    some([
        ("cpu", adapt.cpu.map(share)),
        ("p99", adapt.p99.map(|p99| json!(show_duration(p99)))),
        ("errors", adapt.errors.map(share)),
        ("queue", adapt.queue.map(|queue| json!(queue))),
        ("from", Some(share(adapt.from))),
    ])
}

fn mode(mode: LimitMode) -> &'static str {
    match mode {
        LimitMode::Hard => "hard",
        LimitMode::Soft => "soft",
    }
}

fn class(class: &KernelClass) -> Value {
    some([
        ("from", Some(json!(class.from))),
        ("packets", class.packets.map(bucket)),
        ("new", class.new.map(bucket)),
        ("bytes", class.bytes.map(byte_bucket)),
        ("mode", Some(json!(mode(class.mode)))),
    ])
}

fn bucket(bucket: Bucket) -> Value {
    json!({ "rate": bucket.rate, "burst": bucket.burst })
}

fn byte_bucket(bucket: Bucket) -> Value {
    json!({ "rate": show_byte_rate(bucket.rate), "burst": ByteSize(bucket.burst) })
}

fn upstream(upstream: &Upstream) -> Value {
    some([
        ("to", upstream.dns.is_none().then(|| to(upstream))),
        ("dns", upstream.dns.as_ref().map(|lookup| json!(lookup.to_string()))),
        ("balance", Some(json!(upstream.balance.word()))),
        ("bounded_load", Some(upstream.bounded_load.map_or(json!("off"), |factor| json!(factor)))),
        ("health", upstream.health.as_ref().map(health)),
        (
            "retry",
            Some(json!({
                "on": if upstream.retry.tries == 0 { vec![] } else { upstream.retry.on.words() },
                "tries": upstream.retry.tries,
                "budget": share_or_off(upstream.retry.budget),
                "per_try": upstream.retry.per_try.map_or("off".into(), show_duration),
            })),
        ),
        (
            "timeout",
            Some(json!({
                "connect": show_duration(upstream.timeout.connect),
                "first_byte": show_duration(upstream.timeout.first_byte),
                "idle": show_duration(upstream.timeout.idle),
                "total": upstream.timeout.total.map_or("off".into(), show_duration),
            })),
        ),
        (
            "pool",
            Some(some([
                ("idle", Some(json!(upstream.pool.idle))),
                ("idle_for", Some(json!(show_duration(upstream.pool.idle_for)))),
                ("max", Some(upstream.pool.max.map_or(json!("off"), |max| json!(max)))),
                ("queue", upstream.capped().then(|| json!(upstream.pool.queue))),
                (
                    "queue_timeout",
                    upstream.capped().then(|| json!(show_duration(upstream.pool.queue_timeout))),
                ),
            ])),
        ),
        (
            "hash_on",
            (upstream.balance == Balance::Maglev)
                .then(|| upstream.hash_on.iter().map(|on| json!(on.show())).collect()),
        ),
        ("sticky", upstream.sticky.as_ref().map(sticky)),
        ("slow_start", Some(json!(upstream.slow_start.map_or("off".into(), show_duration)))),
        ("spill", Some(share(upstream.spill))),
        ("panic", Some(share_or_off(upstream.panic))),
        ("eject", upstream.eject.as_ref().map(eject)),
        ("breaker", upstream.breaker.as_ref().map(breaker)),
        ("fallback", upstream.fallback.as_ref().map(fallback)),
        ("protocol", Some(json!(upstream.protocol.word()))),
        ("proxy_protocol", upstream.proxy_protocol.map(|version| json!(version.word()))),
        ("tls", upstream.tls.as_ref().map(listener::upstream_tls)),
    ])
}

fn sticky(sticky: &StickyCookie) -> Value {
    json!({
        "cookie": sticky.cookie,
        "lasts": sticky.lasts.map_or("off".into(), show_duration),
        "same_site": sticky.same_site,
        "secure": sticky.secure,
    })
}

fn eject(eject: &Eject) -> Value {
    json!({
        "errors": eject.errors,
        "within": show_duration(eject.within),
        "for": show_duration(eject.base),
        "at_most": share(eject.at_most),
    })
}

fn breaker(breaker: &Breaker) -> Value {
    some([
        ("errors", Some(share(breaker.errors))),
        ("least", Some(json!(breaker.least))),
        ("within", Some(json!(show_duration(breaker.within)))),
        ("open_for", Some(json!(show_duration(breaker.open_for)))),
        ("probes", Some(json!(breaker.probes))),
        ("slow", breaker.slow.map(|slow| json!(show_duration(slow)))),
    ])
}

fn fallback(fallback: &Fallback) -> Value {
    some([
        ("on", Some(json!(fallback.on.words()))),
        ("to", fallback.to.as_ref().map(|to| json!(to))),
        ("respond", fallback.respond.as_ref().map(respond)),
    ])
}

fn respond(fixed: &Respond) -> Value {
    some([
        ("status", Some(json!(fixed.status))),
        ("body", Some(json!(fixed.body))),
        ("headers", templates(&fixed.headers)),
    ])
}

/// A fraction as a percentage, without what binary fractions add.
fn share(fraction: f64) -> Value {
    json!(format!("{}%", (fraction * 1e8).round() / 1e6))
}

fn share_or_off(fraction: Option<f64>) -> Value {
    fraction.map_or(json!("off"), share)
}

fn to(upstream: &Upstream) -> Value {
    let addresses = upstream.targets.iter().map(|at| target(json!(at.addr), at));
    let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let names = upstream.names.iter();
    let names = names.map(|name| target(json!(name.lookup.to_string()), &name.target(nowhere)));
    addresses.chain(names).collect()
}

fn target(at: Value, target: &Target) -> Value {
    if *target == (Target { addr: target.addr, weight: 1, zone: None, priority: 0, max: None }) {
        return at;
    }
    some([
        ("addr", Some(at)),
        ("weight", (target.weight != 1).then(|| json!(target.weight))),
        ("zone", target.zone.as_ref().map(|zone| json!(zone))),
        ("priority", (target.priority != 0).then(|| json!(target.priority))),
        ("max", target.max.map(|max| json!(max))),
    ])
}

fn health(health: &Health) -> Value {
    let (mut path, mut expect, mut tcp, mut udp, mut sent, mut answered) =
        (None, None, None, None, None, None);
    let mut grpc = None;
    match &health.check {
        HealthCheck::Tcp => tcp = Some(json!(true)),
        HealthCheck::Udp { send, answer } => {
            udp = Some(json!(true));
            sent = Some(json!(datagram(send)));
            answered = Some(json!(answer));
        }
        HealthCheck::Grpc { service } if service.is_empty() => grpc = Some(json!(true)),
        HealthCheck::Grpc { service } => grpc = Some(json!(service)),
        HealthCheck::Http { path: asked, expect: codes } => {
            path = Some(json!(asked));
            expect = Some(json!(codes));
        }
    }
    some([
        ("path", path),
        ("tcp", tcp),
        ("grpc", grpc),
        ("udp", udp),
        ("send", sent),
        ("answer", answered),
        ("every", Some(json!(show_duration(health.every)))),
        ("timeout", Some(json!(show_duration(health.timeout)))),
        ("rise", Some(json!(health.rise))),
        ("fall", Some(json!(health.fall))),
        ("expect", expect),
    ])
}

/// As text where it is text.
fn datagram(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("hex:") => text.to_owned(),
        _ => format!("hex:{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

fn route(route: &Route) -> Value {
    let hosts: Vec<String> = route.hosts.iter().map(ToString::to_string).collect();
    let (mut to, mut sticky, mut respond, mut redirect) = (None, None, None, None);
    match &route.to {
        Destination::Upstream(name) => to = Some(json!(name)),
        Destination::Split(split) => {
            to = Some(split.shares.iter().map(|(name, weight)| (name.clone(), json!(weight))).collect());
            sticky = split.sticky.as_ref().map(|sticky| json!(sticky.to_string()));
        }
        Destination::Respond(fixed) => {
            respond = Some(self::respond(fixed));
        }
        Destination::Redirect(there) => {
            redirect = Some(json!({ "to": there.to.to_string(), "status": there.status }))
        }
        Destination::Versions => {}
    }
    // With the segment for the version, where it does not come first.
    let with_version = route.versions.as_ref().filter(|versions| versions.segment > 0);
    let path = with_version.and_then(|versions| versions.paths.first()).unwrap_or(&route.path);
    let [allow_from, deny_from, max, content_types, encoded_slash, csrf] = auth::guard(&route.guard);
    some([
        ("host", (!hosts.is_empty()).then(|| json!(hosts))),
        ("path", Some(json!(path.to_string()))),
        ("methods", (!route.when.methods.is_empty()).then(|| json!(route.when.methods))),
        ("headers", matchers(&route.when.headers)),
        ("query", matchers(&route.when.query)),
        ("to", to),
        ("sticky", sticky),
        ("respond", respond),
        ("redirect", redirect),
        ("rewrite", rewrite(&route.rewrite)),
        ("cors", route.cors.as_ref().map(cors)),
        ("client_cache", route.client_cache.as_ref().map(cache::client)),
        ("cache", route.cache.as_ref().map(|name| json!(name))),
        ("compress", route.compress.as_ref().map(compress)),
        ("mirror", route.mirror.as_ref().map(mirror)),
        ("limit", (!route.limits.is_empty()).then(|| json!(route.limits))),
        ("upgrade", Some(json!(route.upgrade))),
        ("early_hints", Some(json!(route.early_hints))),
        ("grpc_web", Some(json!(route.grpc_web))),
        ("timeout", route_timeout(&route.timeout)),
        ("retry", route_retry(&route.retry)),
        ("auth", route.auth.as_ref().map(auth::route_auth)),
        ("allow", route.allow.as_ref().map(auth::allow)),
        allow_from,
        deny_from,
        max,
        content_types,
        encoded_slash,
        csrf,
        ("security_headers", route.security_headers.as_ref().map(auth::security_headers)),
        ("version", route.versions.as_deref().map(version::versions)),
    ])
}

fn cors(cors: &Cors) -> Value {
    json!({
        "origins": cors.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "methods": cors.methods,
        "headers": cors.headers,
        "expose": cors.expose,
        "credentials": cors.credentials,
        "max_age": show_duration(cors.max_age),
    })
}

fn compress(compress: &Compress) -> Value {
    let codings: Vec<_> = compress.codings.iter().map(|coding| coding.word()).collect();
    json!({ "codings": codings, "min": ByteSize(compress.min), "types": compress.types })
}

fn mirror(mirror: &Mirror) -> Value {
    let body = ByteSize(mirror.body as u64);
    let compare = mirror.compare.as_ref().map(|compare| {
        let body = ByteSize(compare.body as u64);
        json!({ "ignore": compare.ignore, "headers": compare.headers, "body": body })
    });
    some([
        ("to", mirror.version.is_none().then(|| json!(mirror.to))),
        ("version", mirror.version.as_ref().map(|version| json!(version.name))),
        ("share", Some(json!(mirror.share))),
        ("body", Some(json!(body))),
        ("queue", Some(json!(mirror.queue))),
        ("compare", Some(compare.unwrap_or(json!(false)))),
    ])
}

fn rewrite(rewrite: &Rewrite) -> Option<Value> {
    let path = rewrite.path.as_ref().map(|path| match path {
        PathRewrite::To(to) => json!(to.to_string()),
        PathRewrite::Replace { regex, to } => json!({ "regex": regex.to_string(), "to": to.to_string() }),
    });
    let names = |names: &[String]| (!names.is_empty()).then(|| json!(names));
    let response = some([
        ("set", templates(&rewrite.response.set)),
        ("add", templates(&rewrite.response.add)),
        ("remove", names(&rewrite.response.remove)),
        ("json", rewrite.response_json.as_deref().map(json_map)),
    ]);
    let shown = some([
        ("path", path),
        ("set", templates(&rewrite.request.set)),
        ("add", templates(&rewrite.request.add)),
        ("remove", names(&rewrite.remove)),
        ("json", rewrite.json.as_deref().map(json_map)),
        (
            "response",
            Some(response).filter(|response| response.as_object().is_some_and(|all| !all.is_empty())),
        ),
    ]);
    Some(shown).filter(|shown| shown.as_object().is_some_and(|all| !all.is_empty()))
}

fn json_map(map: &JsonMap) -> Value {
    let value = |set: &JsonSet| match set {
        JsonSet::Text(template) => json!(template.to_string()),
        JsonSet::Json(text) => match serde_json::from_str(text) {
            Ok(plain @ Value::Bool(_)) => plain,
            Ok(Value::Number(number)) if number.as_i64().is_some_and(|number| number >= 0) => number.into(),
            _ => json!({ "json": text }),
        },
    };
    some([
        ("remove", (!map.remove.is_empty()).then(|| json!(map.remove))),
        (
            "rename",
            (!map.rename.is_empty())
                .then(|| map.rename.iter().map(|(from, to)| (from.clone(), json!(to))).collect()),
        ),
        (
            "set",
            (!map.set.is_empty())
                .then(|| map.set.iter().map(|(pointer, set)| (pointer.clone(), value(set))).collect()),
        ),
        ("max", Some(json!(ByteSize(map.max as u64)))),
    ])
}

fn templates(all: &[(String, Template)]) -> Option<Value> {
    let entries = || all.iter().map(|(name, template)| (name.clone(), json!(template.to_string())));
    (!all.is_empty()).then(|| Value::Object(entries().collect()))
}

fn matchers(all: &[(String, Matcher)]) -> Option<Value> {
    let one = |matcher: &Matcher| match matcher {
        Matcher::Is(text) => json!(text),
        Matcher::Present => json!(true),
        Matcher::Absent => json!(false),
        Matcher::Like(pattern) => json!({ "regex": pattern.to_string() }),
    };
    (!all.is_empty()).then(|| all.iter().map(|(name, matcher)| (name.clone(), one(matcher))).collect())
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

fn route_retry(retry: &RouteRetry) -> Option<Value> {
    let shown = some([
        ("on", retry.on.map(|on| json!(on.words()))),
        ("tries", retry.tries.map(|tries| json!(tries))),
        (
            "per_try",
            retry.per_try.map(|limit| limit.map_or(json!("off"), |limit| json!(show_duration(limit)))),
        ),
    ]);
    (*retry != RouteRetry::default()).then_some(shown)
}

fn route_timeout(timeout: &RouteTimeout) -> Option<Value> {
    let shown = some([
        ("first_byte", timeout.first_byte.map(|limit| json!(show_duration(limit)))),
        ("idle", timeout.idle.map(|limit| json!(show_duration(limit)))),
        ("total", timeout.total.map(|limit| limit.map_or(json!("off"), |limit| json!(show_duration(limit))))),
    ]);
    (*timeout != RouteTimeout::default()).then_some(shown)
}
