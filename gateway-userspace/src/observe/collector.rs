//! Threads that tell OpenTelemetry collectors what there is to tell: OTLP over HTTP, in JSON (opentelemetry-proto 1.x,
//! "JSON Protobuf Encoding").
//!
//! Who has something hands it over without waiting; what does not fit in the queue is dropped. A batch that fails is
//! tried again a few times.

use std::{
    io::Write,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::post::post;
use crate::sync::Paced;

/// How long the first of a batch may wait.
const SOON: Duration = Duration::from_secs(1);
/// How often a batch is sent, and the pause after the first time, doubled after each.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// How long [`Sender::flush`] waits.
const FLUSH: Duration = Duration::from_secs(2);

/// Where something is sent, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    pub url: String,
    /// This gateway's name.
    pub instance: String,
}

/// What became of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Exported,
    /// The collector did not keep up.
    Dropped,
    /// The collector was not there, or refused them.
    Failed,
}

/// Records that are handed over at once.
pub trait Parcel: Send + 'static {
    /// In the words of an operator; the thread's name too.
    const WHAT: &'static str;
    /// Parcels that may wait.
    const QUEUE: usize;
    /// Records that are sent at once.
    const BATCH: u64;
    /// What OTLP calls the lists of resources, of scopes and of records, and the count of those that were refused.
    const NAMES: [&'static str; 4];

    /// Records in it.
    fn count(&self) -> u64;
    /// Writes them as JSON, with commas between them.
    fn put(&self, out: &mut Vec<u8>);
    /// So many of them, or of their batch, met this fate.
    fn note(&self, fate: Fate, records: u64);
}

enum Message<P> {
    Parcel(Arc<Collector>, P),
    Flush(SyncSender<()>),
}

/// A handle on a thread, which ends with the last handle, when it has sent what there is.
#[derive(Debug)]
pub struct Sender<P>(SyncSender<Message<P>>);

impl<P: Parcel> Sender<P> {
    pub fn start() -> std::io::Result<Self> {
        let (sender, messages) = sync_channel(P::QUEUE);
        let thread = std::thread::Builder::new().name(P::WHAT.replace(' ', "-"));
        thread.spawn(move || run(messages)).map(|_| Sender(sender))
    }

    /// Never waits.
    pub fn send(&self, collector: &Arc<Collector>, parcel: P) {
        if let Err(error) = self.0.try_send(Message::Parcel(collector.clone(), parcel))
            && let Message::Parcel(_, parcel) = message_of(error)
        {
            parcel.note(Fate::Dropped, parcel.count());
        }
    }

    /// Waits until what was handed over is sent, for two seconds at most.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH);
        }
    }
}

fn message_of<T>(error: std::sync::mpsc::TrySendError<T>) -> T {
    match error {
        std::sync::mpsc::TrySendError::Full(message) => message,
        std::sync::mpsc::TrySendError::Disconnected(message) => message,
    }
}

fn run<P: Parcel>(messages: Receiver<Message<P>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime for {}", P::WHAT),
    };
    let mut messages = Paced::new(messages);
    let mut batch = Batch { collector: None, parcels: Vec::new(), records: 0, until: None, failing: false };
    loop {
        let patience = batch
            .until
            .map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
        match messages.recv_timeout(patience) {
            Ok(Message::Parcel(collector, parcel)) => {
                // Another collector: those before go where they belong.
                if batch.collector.as_ref().is_some_and(|before| *before != collector) {
                    runtime.block_on(batch.send());
                }
                batch.until.get_or_insert_with(|| Instant::now() + SOON);
                batch.collector = Some(collector);
                batch.records += parcel.count();
                batch.parcels.push(parcel);
                if batch.records >= P::BATCH {
                    runtime.block_on(batch.send());
                }
            }
            Ok(Message::Flush(done)) => {
                runtime.block_on(batch.send());
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => runtime.block_on(batch.send()),
            Err(RecvTimeoutError::Disconnected) => return runtime.block_on(batch.send()),
        }
    }
}

struct Batch<P> {
    collector: Option<Arc<Collector>>,
    parcels: Vec<P>,
    records: u64,
    until: Option<Instant>,
    /// Told of once, until it works again.
    failing: bool,
}

impl<P: Parcel> Batch<P> {
    async fn send(&mut self) {
        self.until = None;
        let (parcels, records) = (std::mem::take(&mut self.parcels), std::mem::take(&mut self.records));
        let (Some(collector), Some(first)) = (self.collector.clone(), parcels.first()) else { return };
        let body = envelope(&collector.instance, &parcels);
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            match post(&collector.url, "application/json", body.clone()).await {
                Ok(answer) => {
                    let refused = refused::<P>(&answer).min(records);
                    first.note(Fate::Failed, refused);
                    first.note(Fate::Exported, records - refused);
                    self.failing = false;
                    return;
                }
                Err(error) if error.passes() && attempt < TRIES => tokio::time::sleep(pause).await,
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "the collector takes no {}; trying on with later ones", P::WHAT);
                    }
                    break;
                }
            }
            pause *= 2;
        }
        first.note(Fate::Failed, records);
    }
}

/// An `Export…ServiceRequest`.
fn envelope<P: Parcel>(instance: &str, parcels: &[P]) -> Vec<u8> {
    let [resources, scopes, records, _] = P::NAMES;
    let about = json!([
        text("service.name", "gateway"),
        text("service.instance.id", instance),
        text("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    let mut out = Vec::new();
    // A Vec takes every write.
    let _ = write!(
        out,
        "{{\"{resources}\":[{{\"resource\":{{\"attributes\":{about}}},\"{scopes}\":[{{\"scope\":{{\"name\":\"gateway\"}},\
         \"{records}\":["
    );
    for (place, parcel) in parcels.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        parcel.put(&mut out);
    }
    out.extend_from_slice(b"]}]}]}");
    out
}

/// What the collector took it all but for (`partial_success`), which is not to be sent again.
fn refused<P: Parcel>(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let refused = &answer["partialSuccess"][P::NAMES[3]];
    // 64-bit numbers are texts in protobuf's JSON, and are read as numbers too.
    refused.as_str().and_then(|count| count.parse().ok()).or(refused.as_u64()).unwrap_or(0)
}

/// A `KeyValue`.
pub fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// JSON as an `AnyValue`.
pub fn any(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(value) => match value.as_i64() {
            Some(value) => json!({ "intValue": value.to_string() }),
            None => json!({ "doubleValue": value }),
        },
        Value::String(value) => json!({ "stringValue": value }),
        Value::Array(values) => {
            json!({ "arrayValue": { "values": values.iter().map(any).collect::<Vec<_>>() } })
        }
        Value::Object(fields) => {
            let values = fields.iter().map(|(key, value)| json!({ "key": key, "value": any(value) }));
            json!({ "kvlistValue": { "values": values.collect::<Vec<_>>() } })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers(Vec<u32>);

    impl Parcel for Numbers {
        const WHAT: &'static str = "numbers";
        const QUEUE: usize = 1;
        const BATCH: u64 = 10;
        const NAMES: [&'static str; 4] = ["resourceNumbers", "scopeNumbers", "numbers", "rejectedNumbers"];

        fn count(&self) -> u64 {
            self.0.len() as u64
        }

        fn put(&self, out: &mut Vec<u8>) {
            let all: Vec<String> = self.0.iter().map(u32::to_string).collect();
            out.extend_from_slice(all.join(",").as_bytes());
        }

        fn note(&self, _: Fate, _: u64) {}
    }

    #[test]
    fn records_of_several_parcels_are_one_list() {
        let body = envelope("here", &[Numbers(vec![1, 2]), Numbers(vec![3])]);
        let body: Value = serde_json::from_slice(&body).unwrap();
        let resource = &body["resourceNumbers"][0];
        assert_eq!(resource["scopeNumbers"][0]["numbers"], json!([1, 2, 3]));
        assert_eq!(resource["resource"]["attributes"][1], text("service.instance.id", "here"));
    }

    #[test]
    fn what_a_collector_refuses_is_read_in_both_ways() {
        for (answer, refused_are) in [
            (r#"{"partialSuccess":{"rejectedNumbers":"7","errorMessage":"no"}}"#, 7),
            (r#"{"partialSuccess":{"rejectedNumbers":7}}"#, 7),
            (r#"{"partialSuccess":{}}"#, 0),
            ("{}", 0),
            ("nonsense", 0),
            ("", 0),
        ] {
            assert_eq!(refused::<Numbers>(answer.as_bytes()), refused_are, "{answer}");
        }
    }

    #[test]
    fn json_is_any_value() {
        let value = json!({ "a": [1, -2.5, true, null, "x"] });
        assert_eq!(
            any(&value),
            json!({ "kvlistValue": { "values": [{ "key": "a", "value": { "arrayValue": { "values": [
                { "intValue": "1" }, { "doubleValue": -2.5 }, { "boolValue": true }, {}, { "stringValue": "x" },
            ] } } }] } })
        );
    }
}
