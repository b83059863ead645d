//! What is seen from outside.

use serde_json::{Value, json};

use super::{share, some};
use crate::config::{
    model::{AccessLog, Tracing},
    units::{ByteSize, show_duration},
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
    ])
}

pub(super) fn tracing(tracing: &Tracing) -> Value {
    json!({
        "otlp": tracing.otlp,
        "share": share(tracing.share),
        "trust_parent": tracing.trust_parent,
        "server_timing": tracing.server_timing,
    })
}
