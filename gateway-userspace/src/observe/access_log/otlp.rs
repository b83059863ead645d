//! Lines as log records of OpenTelemetry, with the names of its semantic conventions.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use serde_json::{Map, Value, json};

use super::LineCounts;
use crate::{
    config::units::Moment,
    observe::collector::{Collector, Fate, Parcel, Sender, any, text},
    request::named_port,
};

/// Tells a collector of lines, and counts what became of them.
pub struct Exporter {
    collector: Arc<Collector>,
    counts: Arc<LineCounts>,
    /// It begins with the first line.
    sender: Option<Sender<Lines>>,
}

impl Exporter {
    pub fn new(collector: &Collector, counts: &Arc<LineCounts>) -> Self {
        Exporter { collector: Arc::new(collector.clone()), counts: counts.clone(), sender: None }
    }

    /// Whether it goes on as it is with this collector.
    pub fn is_of(&self, collector: &Collector) -> bool {
        *self.collector == *collector
    }

    /// Never waits.
    pub fn write(&mut self, bytes: &[u8], count: u64) {
        if self.sender.is_none() {
            let started = Sender::start();
            self.sender =
                started.inspect_err(|error| tracing::error!(%error, "no thread for log records")).ok();
        }
        let lines = Lines { bytes: bytes.to_vec(), count, counts: self.counts.clone() };
        match &self.sender {
            Some(sender) => sender.send(&self.collector, lines),
            None => lines.note(Fate::Dropped, count),
        }
    }

    /// Waits until what was handed over is sent, for two seconds at most.
    pub fn flush(&self) {
        if let Some(sender) = &self.sender {
            sender.flush();
        }
    }
}

/// JSON lines, as workers write them.
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    counts: Arc<LineCounts>,
}

impl Parcel for Lines {
    const WHAT: &'static str = "log records";
    const QUEUE: usize = 256;
    const BATCH: u64 = 2048;
    const NAMES: [&'static str; 4] = ["resourceLogs", "scopeLogs", "logRecords", "rejectedLogRecords"];

    fn count(&self) -> u64 {
        self.count
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut between = false;
        for line in self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // Our own lines are objects.
            let Ok(Value::Object(fields)) = serde_json::from_slice(line) else { continue };
            if std::mem::replace(&mut between, true) {
                out.push(b',');
            }
            // A Vec takes every write, and a value is always JSON.
            let _ = serde_json::to_writer(&mut *out, &record(fields));
        }
    }

    fn note(&self, fate: Fate, records: u64) {
        let count = match fate {
            Fate::Exported => &self.counts.written,
            Fate::Dropped => &self.counts.dropped,
            Fate::Failed => &self.counts.failed,
        };
        count.fetch_add(records, Relaxed);
    }
}

/// `SeverityNumber`
const INFO: u8 = 9;
const WARN: u8 = 13;
const ERROR: u8 = 17;

/// What the conventions call our fields; others are `gateway.NAME`.
const NAMES: [(&str, &str); 12] = [
    ("id", "gateway.request.id"),
    ("client", "client.address"),
    ("tls", "tls.protocol.version"),
    ("method", "http.request.method"),
    ("path", "url.path"),
    ("query", "url.query"),
    ("status", "http.response.status_code"),
    ("why", "error.type"),
    ("bytes_in", "http.request.body.size"),
    ("bytes_out", "http.response.body.size"),
    ("ua", "user_agent.original"),
    ("ref", "http.request.header.referer"),
];

/// A `LogRecord`.
fn record(fields: Map<String, Value>) -> Value {
    let of = |name: &str| fields.get(name).and_then(Value::as_str);
    let status = fields.get("status").and_then(Value::as_u64);
    let (severity, word) = match status {
        Some(500..) => (ERROR, "ERROR"),
        Some(400..) => (WARN, "WARN"),
        _ if fields.contains_key("why") => (WARN, "WARN"),
        _ => (INFO, "INFO"),
    };
    let body = match (of("event"), of("method"), status) {
        (Some(event), _, _) => event.to_owned(),
        (None, Some(method), Some(status)) => format!("{method} {} {status}", of("path").unwrap_or("-")),
        (None, _, Some(status)) => format!("- {status}"),
        _ => "connection".to_owned(),
    };
    let mut all = json!({
        "timeUnixNano": of("ts").and_then(nanos).unwrap_or(0).to_string(),
        "severityNumber": severity,
        "severityText": word,
        "body": { "stringValue": body },
    });
    if let Some(trace) = of("trace") {
        all["traceId"] = trace.into();
    }
    if let Some(event) = of("event") {
        all["eventName"] = format!("gateway.{event}").into();
    }
    let attributes = fields.iter().flat_map(|(name, value)| attributes(name, value)).collect();
    all["attributes"] = Value::Array(attributes);
    all
}

fn attributes(name: &str, value: &Value) -> Vec<Value> {
    let named = |name: &str, value: &Value| json!({ "key": name, "value": any(value) });
    let split = |address: &str, port: &str| {
        let (host, number) = named_port(value.as_str().unwrap_or_default());
        let number = number.map(|number| named(port, &number.into()));
        [text(address, host)].into_iter().chain(number).collect()
    };
    match name {
        "ts" | "trace" | "event" => Vec::new(),
        "peer" => split("network.peer.address", "network.peer.port"),
        "host" => split("server.address", "server.port"),
        "proto" => {
            let version = match value.as_str() {
                Some("h1") => "1.1",
                Some("h2") => "2",
                _ => return vec![named("network.transport", value)],
            };
            vec![text("network.protocol.name", "http"), text("network.protocol.version", version)]
        }
        _ => match NAMES.iter().find(|(ours, _)| *ours == name) {
            Some((_, theirs)) => vec![named(theirs, value)],
            None => vec![named(&format!("gateway.{name}"), value)],
        },
    }
}

/// Since 1970, of a line's `ts`.
fn nanos(ts: &str) -> Option<u128> {
    let second: Moment = format!("{}Z", ts.get(..19)?).parse().ok()?;
    let millis: u32 = ts.get(20..23)?.parse().ok()?;
    Some(u128::from(second.seconds) * 1_000_000_000 + u128::from(millis) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: Value) -> Value {
        let Value::Object(fields) = line else { panic!("no object") };
        record(fields)
    }

    fn attribute<'a>(record: &'a Value, key: &str) -> Option<&'a Value> {
        record["attributes"].as_array()?.iter().find(|one| one["key"] == key).map(|one| &one["value"])
    }

    #[test]
    fn a_line_is_a_record_with_the_names_of_the_conventions() {
        let record = of(json!({
            "ts": "2023-11-14T22:13:20.007Z", "id": "x", "trace": "ab", "peer": "[::1]:4000", "proto": "h2",
            "host": "a.test:8443", "method": "GET", "path": "/a", "status": 503, "why": "no_healthy_target", "us": 7,
        }));
        assert_eq!(record["timeUnixNano"], "1700000000007000000");
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(17), &json!("ERROR")));
        assert_eq!(
            (&record["body"]["stringValue"], &record["traceId"]),
            (&json!("GET /a 503"), &json!("ab"))
        );
        for (key, value) in [
            ("gateway.request.id", json!({ "stringValue": "x" })),
            ("network.peer.address", json!({ "stringValue": "::1" })),
            ("network.peer.port", json!({ "intValue": "4000" })),
            ("network.protocol.version", json!({ "stringValue": "2" })),
            ("server.address", json!({ "stringValue": "a.test" })),
            ("server.port", json!({ "intValue": "8443" })),
            ("http.response.status_code", json!({ "intValue": "503" })),
            ("error.type", json!({ "stringValue": "no_healthy_target" })),
            ("gateway.us", json!({ "intValue": "7" })),
        ] {
            assert_eq!(attribute(&record, key), Some(&value), "{key} in {record}");
        }
        assert_eq!(attribute(&record, "gateway.ts"), None);
    }

    #[test]
    fn an_event_has_its_name_and_a_connection_is_no_request() {
        let ban = of(json!({ "ts": "2023-11-14T22:13:20.007Z", "event": "ban", "cidr": "192.0.2.7/32" }));
        assert_eq!((&ban["eventName"], &ban["severityNumber"]), (&json!("gateway.ban"), &json!(9)));
        assert_eq!(attribute(&ban, "gateway.cidr"), Some(&json!({ "stringValue": "192.0.2.7/32" })));
        let connection = of(json!({ "ts": "what", "service": "db", "proto": "tcp", "host": "db" }));
        assert_eq!(
            (&connection["body"]["stringValue"], &connection["timeUnixNano"]),
            (&json!("connection"), &json!("0"))
        );
        assert_eq!(attribute(&connection, "server.address"), Some(&json!({ "stringValue": "db" })));
    }
}
