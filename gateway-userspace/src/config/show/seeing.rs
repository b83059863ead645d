//! What is seen from outside.

use serde_json::{Value, json};

use super::{listener::secret, share, some};
use crate::config::{
    model::{AccessLog, AlertKind, AlertRule, LogTarget, NotifyRule, Tracing, Webhook},
    units::{ByteSize, Rate, show_duration},
};

pub(super) fn access_log(log: &AccessLog) -> Value {
    let headers = log.redact.headers.iter().map(|name| format!("header:{name}"));
    let redact: Vec<String> =
        headers.chain(log.redact.query.iter().map(|name| format!("query:{name}"))).collect();
    some([
        ("to", Some(json!(log.to.show()))),
        ("format", Some(json!(log.shape.show()))),
        (
            "keep",
            log.keep.as_ref().map(|keep| json!({ "ok": share(keep.ok), "slow": show_duration(keep.slow) })),
        ),
        ("redact", Some(json!(redact))),
        ("rotate", log.rotate.as_ref().map(|r| json!({ "size": ByteSize(r.size), "files": r.files }))),
        ("events", Some(json!(log.events))),
        ("kafka", kafka(&log.to)),
    ])
}

fn kafka(to: &LogTarget) -> Option<Value> {
    let LogTarget::Kafka(kafka) = to else { return None };
    Some(some([
        ("tls", Some(json!(kafka.tls))),
        ("ca", kafka.ca.as_ref().map(|file| json!(file.to_string_lossy()))),
        ("user", kafka.user.as_ref().map(|user| json!(user))),
        ("password", kafka.password.as_ref().map(secret)),
        ("buffer", Some(json!(ByteSize(kafka.buffer)))),
    ]))
}

pub(super) fn tracing(tracing: &Tracing) -> Value {
    json!({
        "otlp": tracing.otlp,
        "share": share(tracing.share),
        "trust_parent": tracing.trust_parent,
        "server_timing": tracing.server_timing,
    })
}

pub(super) fn alert(rule: &AlertRule) -> Value {
    let measured = |value: f64| match rule.kind {
        AlertKind::Errors | AlertKind::UpstreamDown | AlertKind::MapFill => Some(share(value)),
        AlertKind::Latency | AlertKind::CertExpiry => {
            Some(json!(show_duration(std::time::Duration::from_secs_f64(value))))
        }
        AlertKind::Limited | AlertKind::KernelDrops => Some(json!(Rate { per_second: value })),
        AlertKind::ConfigRefused | AlertKind::KernelOff | AlertKind::DeadMan => None,
    };
    let (above, below) = match rule.kind {
        AlertKind::CertExpiry => (None, measured(rule.threshold)),
        _ => (measured(rule.threshold), None),
    };
    let of =
        |kinds: &[AlertKind]| rule.of.as_ref().filter(|_| kinds.contains(&rule.kind)).map(|of| json!(of));
    some([
        ("when", Some(json!(rule.kind.word()))),
        ("route", of(&[AlertKind::Errors, AlertKind::Latency])),
        ("upstream", of(&[AlertKind::UpstreamDown])),
        ("cert", of(&[AlertKind::CertExpiry])),
        ("above", above),
        ("below", below),
        ("clear", measured(rule.clear)),
        ("over", Some(json!(show_duration(rule.window)))),
        ("quantile", Some(json!(format!("p{:.0}", rule.quantile * 100.0)))),
        ("least", Some(json!(rule.least))),
        ("for", Some(json!(show_duration(rule.lasts)))),
        ("resolve_after", Some(json!(show_duration(rule.resolve_after)))),
        ("repeat", Some(json!(show_duration(rule.repeat)))),
        ("severity", Some(json!(rule.severity))),
        ("notify", Some(json!(rule.notify))),
    ])
}

pub(super) fn notify(rule: &NotifyRule) -> Value {
    let webhook = match &rule.webhook {
        Webhook::Plain(url) => json!(url),
        Webhook::Secret(place) => secret(place),
    };
    json!({ "webhook": webhook, "format": rule.format.word() })
}
