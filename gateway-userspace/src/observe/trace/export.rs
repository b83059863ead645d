//! The thread that sends spans to collectors.

use std::sync::{Arc, LazyLock, OnceLock};

use super::otlp::Spans;
use crate::observe::{
    collector::{Collector, Fate, Parcel, Sender},
    metrics::Counter,
};

/// How many spans met which end.
static COUNTS: LazyLock<Counter<3>> = LazyLock::new(|| {
    let help = "Spans by what became of them";
    Counter::new("trace_spans_total", help, "result", ["exported", "dropped", "failed"])
});

fn place(fate: Fate) -> usize {
    match fate {
        Fate::Exported => 0,
        // The collector did not keep up.
        Fate::Dropped => 1,
        // It was not there, or refused them.
        Fate::Failed => 2,
    }
}

/// Has them on the page before there are any.
pub fn begin_counts() {
    LazyLock::force(&COUNTS);
}

/// Spans that did not get to their collector.
pub fn lost() -> u64 {
    [Fate::Dropped, Fate::Failed].into_iter().map(|fate| COUNTS.get(place(fate))).sum()
}

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
        COUNTS.add(place(fate), records);
    }
}

/// One a process; it begins with the first request that is told of.
static SENDER: OnceLock<Option<Sender<Spans>>> = OnceLock::new();

/// Never waits.
pub fn send(collector: &Arc<Collector>, spans: Spans) {
    let start = || Sender::start().inspect_err(|error| tracing::error!(%error, "no thread for traces")).ok();
    match SENDER.get_or_init(start) {
        Some(sender) => sender.send(collector, spans),
        None => COUNTS.add(place(Fate::Dropped), spans.count),
    }
}

/// Waits until what was handed over is sent, for two seconds at most.
pub fn flush() {
    if let Some(Some(sender)) = SENDER.get() {
        sender.flush();
    }
}
