//! Spans as OTLP's JSON has them (opentelemetry-proto 1.x, "JSON Protobuf Encoding"), with the names of OpenTelemetry's
//! semantic conventions for HTTP. They are written as text at once: a tree of values costs a hundred times what the
//! request's other bookkeeping does.

use std::{
    borrow::Cow,
    io::Write as _,
    net::IpAddr,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::{
    Ending, Facts, Said, Told,
    context::{SpanId, TraceId},
};
use crate::{hex, observe::json, request::named_port};

/// `SpanKind`
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `StatusCode`
const ERROR: u64 = 2;

/// Some spans, as the elements of a JSON array without its brackets.
#[derive(Debug, Default)]
pub struct Spans {
    pub json: Vec<u8>,
    pub count: u64,
}

struct Span<'a> {
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    name: Cow<'a, str>,
    kind: u8,
    /// Nanoseconds since 1970.
    times: (u64, u64),
    attributes: Vec<Attribute<'a>>,
    first_byte: Option<u64>,
    failed: bool,
}

struct Attribute<'a> {
    /// Nothing in it has to be escaped.
    key: &'static str,
    value: Value<'a>,
}

enum Value<'a> {
    Text(&'a str),
    Address(IpAddr),
    /// A code, which is no number to reckon with.
    Code(u16),
    Number(u64),
    Flag(bool),
}

impl Span<'_> {
    /// Numbers of 64 bits are texts in protobuf's JSON.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"traceId\":\"");
        hex::push(out, self.trace.to_be_bytes());
        out.extend_from_slice(b"\",\"spanId\":\"");
        hex::push(out, self.id.to_be_bytes());
        if let Some(parent) = self.parent {
            out.extend_from_slice(b"\",\"parentSpanId\":\"");
            hex::push(out, parent.to_be_bytes());
        }
        json::text(out, b"\",\"name\":", self.name.as_bytes());
        json::number(out, b",\"kind\":", self.kind.into());
        json::number(out, b",\"startTimeUnixNano\":\"", self.times.0);
        json::number(out, b"\",\"endTimeUnixNano\":\"", self.times.1);
        out.extend_from_slice(b"\",\"attributes\":[");
        for (at, attribute) in self.attributes.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            attribute.write(out);
        }
        out.push(b']');
        if let Some(at) = self.first_byte {
            json::number(out, b",\"events\":[{\"timeUnixNano\":\"", at);
            out.extend_from_slice(b"\",\"name\":\"first byte\"}]");
        }
        if self.failed {
            json::number(out, b",\"status\":{\"code\":", ERROR);
            out.push(b'}');
        }
        out.push(b'}');
    }
}

impl Attribute<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"key\":\"");
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(b"\",\"value\":{");
        match self.value {
            Value::Text(text) => json::text(out, b"\"stringValue\":", text.as_bytes()),
            Value::Address(address) => {
                // A Vec takes every write.
                let _ = write!(out, "\"stringValue\":\"{address}\"");
            }
            Value::Code(code) => {
                json::number(out, b"\"stringValue\":\"", code.into());
                out.push(b'"');
            }
            Value::Number(number) => {
                json::number(out, b"\"intValue\":\"", number);
                out.push(b'"');
            }
            Value::Flag(true) => out.extend_from_slice(b"\"boolValue\":true"),
            Value::Flag(false) => out.extend_from_slice(b"\"boolValue\":false"),
        }
        out.extend_from_slice(b"}}");
    }
}

impl Spans {
    pub fn of(trace: TraceId, told: &Told, ending: &Ending<'_>) -> Spans {
        let mut all = Spans { json: Vec::with_capacity(2048), count: 0 };
        let moments = Moments { trace, told, ending };
        all.add(&server(&moments));
        for span in waits(&moments) {
            all.add(&span);
        }
        if let (Some(upstream), Some(sent)) = (ending.upstream, ending.sent) {
            all.add(&client(&moments, upstream, sent));
        }
        all
    }

    fn add(&mut self, span: &Span<'_>) {
        if self.count > 0 {
            self.json.push(b',');
        }
        span.write(&mut self.json);
        self.count += 1;
    }
}

/// The request's times, and whose they are.
struct Moments<'a> {
    trace: TraceId,
    told: &'a Told,
    ending: &'a Ending<'a>,
}

impl<'a> Moments<'a> {
    /// In nanoseconds since 1970.
    fn clock(&self, at: Instant) -> u64 {
        let started = self.ending.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = match at.checked_duration_since(self.ending.started) {
            Some(since) => started + since,
            // The handshake was before the request.
            None => started.saturating_sub(self.ending.started.saturating_duration_since(at)),
        };
        nanos.as_nanos().try_into().unwrap_or(u64::MAX)
    }

    fn span(
        &self,
        (id, parent): (SpanId, Option<SpanId>),
        name: Cow<'a, str>,
        kind: u8,
        (from, to): (Instant, Instant),
        attributes: Vec<Attribute<'a>>,
    ) -> Span<'a> {
        Span {
            trace: self.trace,
            id,
            parent,
            name,
            kind,
            times: (self.clock(from), self.clock(to)),
            attributes,
            first_byte: None,
            failed: false,
        }
    }

    /// Of what we did ourselves.
    fn internal(&self, name: &'static str, from: Instant, to: Instant) -> Span<'a> {
        let ids = (fastrand::u64(1..), Some(self.told.span));
        self.span(ids, name.into(), INTERNAL, (from, to), Vec::new())
    }
}

fn server<'a>(moments: &Moments<'a>) -> Span<'a> {
    let (told, ending) = (moments.told, moments.ending);
    let name = format!("{} {}", told.facts.method, ending.route.unwrap_or("-")).into();
    let times = (ending.started, ending.now);
    let mut span = moments.span((told.span, told.parent), name, SERVER, times, about(&told.facts, ending));
    span.failed = ending.status >= 500;
    span
}

/// For what the request waited before it went upstream.
fn waits<'a>(moments: &Moments<'a>) -> impl Iterator<Item = Span<'a>> {
    let (told, ending) = (moments.told, moments.ending);
    let waited = |name, end: Option<Instant>, took: Option<Duration>| {
        let (end, took) = (end?, took?);
        let from = end.checked_sub(took).unwrap_or(end).max(ending.started);
        Some(moments.internal(name, from, end))
    };
    let steps = told.steps.iter().map(|step| {
        let mut span = moments.internal(step.name, step.from, step.to);
        span.attributes.extend(step.attributes.iter().map(|(key, said)| said_so(key, *said)));
        span
    });
    let queue = waited("queue", told.queued, ending.queued);
    let connect = waited("connect", told.connected, ending.connect);
    steps.chain([queue, connect].into_iter().flatten())
}

fn client<'a>(moments: &Moments<'a>, upstream: &'a str, sent: Instant) -> Span<'a> {
    let (told, ending) = (moments.told, moments.ending);
    let mut attributes = vec![
        text("http.request.method", &told.facts.method),
        text("gateway.upstream", upstream),
        number("http.request.resend_count", u64::from(ending.tries.saturating_sub(1))),
    ];
    if ending.first_byte.is_some() {
        attributes.push(number("http.response.status_code", u64::from(ending.status)));
    }
    if ending.first_byte.is_none() || ending.status >= 500 {
        attributes.push(error(ending));
    }
    attributes.extend(ending.target.into_iter().flat_map(asked));
    let name = format!("{} {upstream}", told.facts.method).into();
    let ids = (told.client_span, Some(told.span));
    let mut span = moments.span(ids, name, CLIENT, (sent, ending.now), attributes);
    span.first_byte = ending.first_byte.map(|at| moments.clock(at));
    span.failed = ending.first_byte.is_none() || ending.status >= 500;
    span
}

fn about<'a>(facts: &'a Facts, ending: &Ending<'a>) -> Vec<Attribute<'a>> {
    let mut all = Vec::with_capacity(20);
    all.extend([
        text("http.request.method", &facts.method),
        text("url.scheme", ending.scheme),
        text("url.path", &facts.path),
        number("http.response.status_code", u64::from(ending.status)),
        text("network.protocol.name", "http"),
        text("network.protocol.version", if facts.http2 { "2" } else { "1.1" }),
        Attribute { key: "client.address", value: Value::Address(ending.client) },
        number("http.request.body.size", ending.bytes_in),
        number("http.response.body.size", ending.bytes_out),
        text("gateway.listener", ending.listener),
        text("gateway.request.id", ending.id),
    ]);
    for (name, value) in [
        ("url.query", facts.query.as_deref()),
        ("user_agent.original", facts.user_agent.as_deref()),
        ("gateway.route", ending.route),
        ("gateway.version", ending.version),
        ("gateway.consumer", ending.consumer),
        ("gateway.cache", ending.cache),
        ("gateway.limit", ending.limit),
    ] {
        all.extend(value.map(|value| text(name, value)));
    }
    if ending.why.is_some() || ending.status >= 500 {
        all.push(error(ending));
    }
    all.extend(facts.host.as_deref().into_iter().flat_map(asked));
    all
}

/// Who was asked, by name or address, with a port or without.
fn asked(authority: &str) -> impl Iterator<Item = Attribute<'_>> {
    let (name, port) = named_port(authority);
    let port = port.map(|port| number("server.port", port.into()));
    [Some(text("server.address", name)), port].into_iter().flatten()
}

/// What went wrong: our word for it, or the status.
fn error<'a>(ending: &Ending<'_>) -> Attribute<'a> {
    let status = Value::Code(ending.status);
    Attribute { key: "error.type", value: ending.why.map_or(status, |why| Value::Text(why.name())) }
}

fn said_so(key: &'static str, said: Said) -> Attribute<'static> {
    let value = match said {
        Said::Word(word) => Value::Text(word),
        Said::Flag(flag) => Value::Flag(flag),
    };
    Attribute { key, value }
}

fn text<'a>(key: &'static str, value: &'a str) -> Attribute<'a> {
    Attribute { key, value: Value::Text(value) }
}

fn number<'a>(key: &'static str, value: u64) -> Attribute<'a> {
    Attribute { key, value: Value::Number(value) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json(write: impl FnOnce(&mut Vec<u8>)) -> serde_json::Value {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn attributes_are_json_that_protobuf_understands() {
        let address = Attribute { key: "a", value: Value::Address("::1".parse().unwrap()) };
        for (attribute, value) in [
            (number("a", u64::MAX), json!({ "intValue": "18446744073709551615" })),
            (text("a", "\"\n\u{fffd}"), json!({ "stringValue": "\"\n\u{fffd}" })),
            (address, json!({ "stringValue": "::1" })),
            (Attribute { key: "a", value: Value::Code(502) }, json!({ "stringValue": "502" })),
            (said_so("a", Said::Flag(true)), json!({ "boolValue": true })),
        ] {
            assert_eq!(json(|out| attribute.write(out)), json!({ "key": "a", "value": value }));
        }
    }

    #[test]
    fn a_span_has_what_it_has() {
        let mut span = Span {
            trace: 0xab,
            id: 0xcd,
            parent: None,
            name: "GET \"a".into(),
            kind: SERVER,
            times: (1, u64::MAX),
            attributes: Vec::new(),
            first_byte: None,
            failed: false,
        };
        let least = json!({
            "traceId": "000000000000000000000000000000ab", "spanId": "00000000000000cd", "name": "GET \"a",
            "kind": 2, "startTimeUnixNano": "1", "endTimeUnixNano": "18446744073709551615", "attributes": [],
        });
        assert_eq!(json(|out| span.write(out)), least);
        span.parent = Some(1);
        span.attributes = vec![number("n", 1), text("t", "x")];
        (span.first_byte, span.failed) = (Some(7), true);
        let all = json(|out| span.write(out));
        assert_eq!(all["parentSpanId"], "0000000000000001");
        assert_eq!(all["attributes"].as_array().map(Vec::len), Some(2));
        assert_eq!(all["events"], json!([{ "timeUnixNano": "7", "name": "first byte" }]));
        assert_eq!(all["status"], json!({ "code": 2 }));
    }
}
