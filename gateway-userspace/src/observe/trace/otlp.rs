//! Spans as OTLP's JSON has them (opentelemetry-proto 1.x, "JSON Protobuf Encoding"), with the names of OpenTelemetry's
//! semantic conventions for HTTP. They are written as text at once: a tree of values costs a hundred times what the
//! request's other bookkeeping does.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    time::{Duration, Instant, UNIX_EPOCH},
};

use serde::{Serialize, Serializer};

use super::{
    Ending, Facts, Said, Traced,
    context::{SpanId, TraceId},
};

/// `SpanKind`
const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// `StatusCode`
const ERROR: Status = Status { code: 2 };

/// Some spans, as the elements of a JSON array without its brackets.
#[derive(Debug, Default)]
pub struct Spans {
    pub json: Vec<u8>,
    pub count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: Hex<TraceId>,
    span_id: Hex<SpanId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<Hex<SpanId>>,
    name: Cow<'a, str>,
    kind: u8,
    start_time_unix_nano: Number,
    end_time_unix_nano: Number,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<[Event; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    time_unix_nano: Number,
    name: &'static str,
}

#[derive(Serialize)]
struct Status {
    code: u8,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
enum Value<'a> {
    #[serde(rename = "stringValue")]
    Text(&'a str),
    #[serde(rename = "stringValue")]
    Address(IpAddr),
    /// A code, which is no number to reckon with.
    #[serde(rename = "stringValue")]
    Digits(Number),
    #[serde(rename = "intValue")]
    Number(Number),
    #[serde(rename = "boolValue")]
    Flag(bool),
}

/// 64-bit numbers are texts in protobuf's JSON.
struct Number(u64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(itoa::Buffer::new().format(self.0))
    }
}

/// With all its digits.
struct Hex<T>(T);

impl<T: fmt::LowerHex> Serialize for Hex<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:0width$x}", self.0, width = 2 * size_of::<T>()))
    }
}

impl Spans {
    pub fn of(traced: &Traced, facts: &Facts, ending: &Ending<'_>) -> Spans {
        let mut all = Spans { json: Vec::with_capacity(2048), count: 0 };
        let moments = Moments { traced, ending };
        all.add(&server(&moments, facts));
        for span in waits(&moments) {
            all.add(&span);
        }
        if let (Some(upstream), Some(sent)) = (ending.upstream, ending.sent) {
            all.add(&client(&moments, facts, upstream, sent));
        }
        all
    }

    fn add(&mut self, span: &Span<'_>) {
        if self.count > 0 {
            self.json.push(b',');
        }
        // A Vec takes every write, and nothing here fails to be JSON.
        let _ = serde_json::to_writer(&mut self.json, span);
        self.count += 1;
    }
}

/// The request's times, and whose they are.
struct Moments<'a> {
    traced: &'a Traced,
    ending: &'a Ending<'a>,
}

impl<'a> Moments<'a> {
    fn clock(&self, at: Instant) -> Number {
        let started = self.ending.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = match at.checked_duration_since(self.ending.started) {
            Some(since) => started + since,
            // The handshake was before the request.
            None => started.saturating_sub(self.ending.started.saturating_duration_since(at)),
        };
        Number(nanos.as_nanos().try_into().unwrap_or(u64::MAX))
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
            trace_id: Hex(self.traced.trace),
            span_id: Hex(id),
            parent_span_id: parent.map(Hex),
            name,
            kind,
            start_time_unix_nano: self.clock(from),
            end_time_unix_nano: self.clock(to),
            attributes,
            events: None,
            status: None,
        }
    }

    /// Of what we did ourselves.
    fn internal(&self, name: &'static str, from: Instant, to: Instant) -> Span<'a> {
        let ids = (fastrand::u64(1..), Some(self.traced.span));
        self.span(ids, name.into(), INTERNAL, (from, to), Vec::new())
    }
}

fn server<'a>(moments: &Moments<'a>, facts: &'a Facts) -> Span<'a> {
    let (traced, ending) = (moments.traced, moments.ending);
    let name = format!("{} {}", facts.method, ending.route.unwrap_or("-")).into();
    let times = (ending.started, ending.now);
    let mut span = moments.span((traced.span, traced.parent), name, SERVER, times, about(facts, ending));
    span.status = (ending.status >= 500).then_some(ERROR);
    span
}

/// For what the request waited before it went upstream.
fn waits<'a>(moments: &Moments<'a>) -> impl Iterator<Item = Span<'a>> {
    let (traced, ending) = (moments.traced, moments.ending);
    let waited = |name, end: Option<Instant>, took: Option<Duration>| {
        let (end, took) = (end?, took?);
        let from = end.checked_sub(took).unwrap_or(end).max(ending.started);
        Some(moments.internal(name, from, end))
    };
    let steps = traced.steps.iter().map(|step| {
        let mut span = moments.internal(step.name, step.from, step.to);
        span.attributes.extend(step.attributes.iter().map(|(key, said)| said_so(key, *said)));
        span
    });
    let queue = waited("queue", traced.queued, ending.queued);
    let connect = waited("connect", traced.connected, ending.connect);
    steps.chain([queue, connect].into_iter().flatten())
}

fn client<'a>(moments: &Moments<'a>, facts: &'a Facts, upstream: &'a str, sent: Instant) -> Span<'a> {
    let (traced, ending) = (moments.traced, moments.ending);
    let mut attributes = vec![
        text("http.request.method", &facts.method),
        text("gateway.upstream", upstream),
        number("http.request.resend_count", u64::from(ending.tries.saturating_sub(1))),
    ];
    if ending.first_byte.is_some() {
        attributes.push(number("http.response.status_code", u64::from(ending.status)));
    }
    if ending.first_byte.is_none() || ending.status >= 500 {
        attributes.push(error(ending));
    }
    if let Some((address, port)) = ending.target.and_then(|target| target.rsplit_once(':')) {
        attributes.push(text("server.address", address.trim_matches(['[', ']'])));
        attributes.extend(port.parse().ok().map(|port| number("server.port", port)));
    }
    let name = format!("{} {upstream}", facts.method).into();
    let ids = (traced.client_span, Some(traced.span));
    let mut span = moments.span(ids, name, CLIENT, (sent, ending.now), attributes);
    span.events =
        ending.first_byte.map(|at| [Event { time_unix_nano: moments.clock(at), name: "first byte" }]);
    span.status = (ending.first_byte.is_none() || ending.status >= 500).then_some(ERROR);
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
    if let Some(host) = facts.host.as_deref() {
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => {
                (name, port.parse().ok())
            }
            _ => (host, None),
        };
        all.push(text("server.address", name.trim_matches(['[', ']'])));
        all.extend(port.map(|port| number("server.port", port)));
    }
    all
}

/// What went wrong: our word for it, or the status.
fn error<'a>(ending: &Ending<'_>) -> Attribute<'a> {
    let status = Value::Digits(Number(ending.status.into()));
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
    Attribute { key, value: Value::Number(Number(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_json_that_protobuf_understands() {
        let attribute = |attribute: Attribute<'_>| serde_json::to_value(attribute).unwrap();
        assert_eq!(
            attribute(number("n", u64::MAX)),
            serde_json::json!({ "key": "n", "value": { "intValue": "18446744073709551615" } })
        );
        let address = Attribute { key: "a", value: Value::Address("::1".parse().unwrap()) };
        assert_eq!(attribute(address), serde_json::json!({ "key": "a", "value": { "stringValue": "::1" } }));
        assert_eq!(serde_json::to_string(&Hex(0xab_u64)).unwrap(), "\"00000000000000ab\"");
    }
}
