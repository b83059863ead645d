//! Spans as OTLP's JSON has them (opentelemetry-proto 1.x, "JSON Protobuf Encoding"), with the names of OpenTelemetry's
//! semantic conventions for HTTP.

use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{Ending, Facts, Traced, context::SpanId};
use crate::observe::collector::{number, text};

/// `SpanKind`
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `StatusCode`
const ERROR: u8 = 2;

pub fn spans(traced: &Traced, facts: &Facts, ending: &Ending<'_>) -> Vec<Value> {
    let clock = |at: Instant| {
        let since = at.saturating_duration_since(ending.started);
        let nanos = ending.at.duration_since(UNIX_EPOCH).unwrap_or_default() + since;
        // 64-bit numbers are texts in protobuf's JSON.
        nanos.as_nanos().to_string()
    };
    let span = |id: SpanId,
                parent: Option<SpanId>,
                name: String,
                kind: u8,
                from: Instant,
                to: Instant,
                rest: Value| {
        let mut all = json!({
            "traceId": format!("{:032x}", traced.trace),
            "spanId": format!("{id:016x}"),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": clock(from),
            "endTimeUnixNano": clock(to),
            "attributes": rest,
        });
        if let Some(parent) = parent {
            all["parentSpanId"] = format!("{parent:016x}").into();
        }
        all
    };
    let mut server = span(
        traced.span,
        traced.parent,
        format!("{} {}", facts.method, ending.route.unwrap_or("-")),
        SERVER,
        ending.started,
        ending.now,
        about(facts, ending),
    );
    if ending.status >= 500 {
        server["status"] = json!({ "code": ERROR });
    }
    let mut all = vec![server];
    if let Some((from, to)) = traced.auth {
        let id = fastrand::u64(1..);
        all.push(span(id, Some(traced.span), "auth".into(), INTERNAL, from, to, json!([])));
    }
    let mut waited = |name: &str, end: Option<Instant>, took: Option<Duration>| {
        if let (Some(end), Some(took)) = (end, took) {
            let from = end.checked_sub(took).unwrap_or(end).max(ending.started);
            let id = fastrand::u64(1..);
            all.push(span(id, Some(traced.span), name.to_owned(), INTERNAL, from, end, json!([])));
        }
    };
    waited("queue", traced.queued, ending.queued);
    waited("connect", traced.connected, ending.connect);
    if let (Some(upstream), Some(sent)) = (ending.upstream, ending.sent) {
        let mut attributes = vec![
            text("http.request.method", &facts.method),
            text("gateway.upstream", upstream),
            number("http.request.resend_count", i64::from(ending.tries.saturating_sub(1))),
        ];
        if let Some((address, port)) = ending.target.and_then(|target| target.rsplit_once(':')) {
            attributes.push(text("server.address", address.trim_matches(['[', ']'])));
            attributes.extend(port.parse().ok().map(|port| number("server.port", port)));
        }
        let end = ending.first_byte.map_or(ending.now, |_| ending.now);
        let name = format!("{} {upstream}", facts.method);
        let mut client =
            span(traced.client_span, Some(traced.span), name, CLIENT, sent, end, Value::Array(attributes));
        if let Some(at) = ending.first_byte {
            client["events"] = json!([{ "timeUnixNano": clock(at), "name": "first byte" }]);
        }
        if ending.first_byte.is_none() || ending.status >= 500 {
            client["status"] = json!({ "code": ERROR });
        }
        all.push(client);
    }
    all
}

fn about(facts: &Facts, ending: &Ending<'_>) -> Value {
    let mut all = vec![
        text("http.request.method", &facts.method),
        text("url.scheme", ending.scheme),
        text("url.path", &facts.path),
        number("http.response.status_code", i64::from(ending.status)),
        text("network.protocol.version", if facts.http2 { "2" } else { "1.1" }),
        text("client.address", &ending.client.to_string()),
        number("http.request.body.size", ending.bytes_in.try_into().unwrap_or(i64::MAX)),
        number("http.response.body.size", ending.bytes_out.try_into().unwrap_or(i64::MAX)),
        text("gateway.listener", ending.listener),
        text("gateway.request.id", ending.id),
    ];
    for (name, value) in [
        ("url.query", facts.query.as_deref()),
        ("server.address", facts.host.as_deref()),
        ("user_agent.original", facts.user_agent.as_deref()),
        ("gateway.route", ending.route),
        ("gateway.version", ending.version),
        ("gateway.consumer", ending.consumer),
        ("gateway.cache", ending.cache),
        ("gateway.limit", ending.limit),
        ("error.type", ending.why.map(super::Why::name)),
    ] {
        all.extend(value.map(|value| text(name, value)));
    }
    Value::Array(all)
}
