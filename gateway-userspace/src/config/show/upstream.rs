//! Upstreams, and checks of targets.

use serde_json::{Value, json};

use super::{listener, route::respond, share, share_or_off, some};
use crate::{
    config::{
        model::{Balance, Breaker, Eject, Fallback, Health, HealthCheck, StickyCookie, Target, Upstream},
        units::show_duration,
    },
    hex,
};

pub(super) fn upstream(upstream: &Upstream) -> Value {
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

pub(super) fn health(health: &Health) -> Value {
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
        _ => format!("hex:{}", hex::text(bytes)),
    }
}
