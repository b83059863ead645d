//! L4 services.

use serde_json::{Value, json};

use super::{
    kernel::{bucket, byte_bucket},
    listener, some,
    upstream::health,
};
use crate::config::{
    model::{Service, ServiceTarget, Splice},
    units::show_duration,
};

pub(super) fn service(service: &Service) -> Value {
    match &service.splice {
        None => forwarded(service),
        Some(splice) => spliced(service, splice),
    }
}

fn binds(service: &Service) -> Value {
    service.binds.iter().map(|bind| json!(bind.to_string())).collect()
}

fn targets(targets: &[ServiceTarget]) -> Value {
    targets.iter().map(target).collect()
}

fn forwarded(service: &Service) -> Value {
    let limit = some([
        ("packets", service.limit.packets.map(bucket)),
        ("new", service.limit.new.map(bucket)),
        ("bytes", service.limit.bytes.map(byte_bucket)),
    ]);
    some([
        ("bind", Some(binds(service))),
        ("protocol", Some(json!(service.protocol.word()))),
        ("to", Some(targets(&service.targets))),
        ("forward", Some(json!(service.forward.word()))),
        ("balance", Some(json!(service.balance.word()))),
        ("flows", Some(json!(service.flows))),
        ("quic", Some(json!(service.quic))),
        ("health", service.health.as_ref().map(health)),
        ("limit", Some(limit)),
    ])
}

fn spliced(service: &Service, splice: &Splice) -> Value {
    let sni = splice.sni.iter().map(|(name, list)| (name.to_string(), targets(list)));
    let proxy = some([
        ("from", splice.proxy_protocol.as_ref().map(|proxy| json!(proxy.from.listed()))),
        ("send", splice.announce.map(|version| json!(version.word()))),
    ]);
    some([
        ("bind", Some(binds(service))),
        ("protocol", Some(json!(service.protocol.word()))),
        ("path", Some(json!("splice"))),
        ("to", (!splice.to.is_empty()).then(|| targets(&splice.to))),
        ("sni", (!splice.sni.is_empty()).then(|| sni.collect())),
        ("balance", Some(json!(service.balance.word()))),
        ("health", service.health.as_ref().map(health)),
        ("proxy_protocol", Some(proxy).filter(|proxy| proxy.as_object().is_some_and(|all| !all.is_empty()))),
        ("tls", splice.tls.as_ref().map(listener::tls)),
        (
            "timeout",
            Some(json!({
                "connect": show_duration(splice.timeout.connect),
                "header": show_duration(splice.timeout.header),
                "idle": splice.timeout.idle.map_or("off".into(), show_duration),
            })),
        ),
        ("max", Some(json!({ "connections": splice.connections }))),
    ])
}

fn target(target: &ServiceTarget) -> Value {
    if target.weight == 1 && target.server_id.is_none() {
        return json!(target.addr);
    }
    some([
        ("addr", Some(json!(target.addr))),
        ("weight", (target.weight != 1).then(|| json!(target.weight))),
        ("server_id", target.server_id.map(|id| json!(id))),
    ])
}
