//! The thread that sends spans to collectors.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::otlp::Spans;
use crate::observe::collector::{Collector, Fate, Parcel, Sender};

/// How many spans met which end.
pub struct Counts {
    pub exported: AtomicU64,
    /// The collector did not keep up.
    pub dropped: AtomicU64,
    /// The collector was not there, or refused them.
    pub failed: AtomicU64,
}

pub static COUNTS: Counts =
    Counts { exported: AtomicU64::new(0), dropped: AtomicU64::new(0), failed: AtomicU64::new(0) };

impl Parcel for Spans {
    const WHAT: &'static str = "traces";
    const QUEUE: usize = 4096;
    const BATCH: u64 = 1024;
    const NAMES: [&'static str; 4] = ["resourceSpans", "scopeSpans", "spans", "rejectedSpans"];

    fn count(&self) -> u64 {
        self.count
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.json);
    }

    fn note(&self, fate: Fate, records: u64) {
        let count = match fate {
            Fate::Exported => &COUNTS.exported,
            Fate::Dropped => &COUNTS.dropped,
            Fate::Failed => &COUNTS.failed,
        };
        count.fetch_add(records, Relaxed);
    }
}

/// One a process; it begins with the first request that is told of.
static SENDER: OnceLock<Option<Sender<Spans>>> = OnceLock::new();

/// Never waits.
pub fn send(collector: &Arc<Collector>, spans: Spans) {
    let start = || Sender::start().inspect_err(|error| tracing::error!(%error, "no thread for traces")).ok();
    match SENDER.get_or_init(start) {
        Some(sender) => sender.send(collector, spans),
        None => drop(COUNTS.dropped.fetch_add(spans.count, Relaxed)),
    }
}

/// Waits until what was handed over is sent, for two seconds at most.
pub fn flush() {
    if let Some(Some(sender)) = SENDER.get() {
        sender.flush();
    }
}
