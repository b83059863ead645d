//! The thread that sends spans to collectors.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::{Collector, otlp::Spans};
use crate::observe::post::post;

/// Requests that may wait to be told of.
const QUEUE: usize = 4096;
/// Spans that are sent at once, and how long the first of them may wait.
const BATCH: u64 = 1024;
const SOON: Duration = Duration::from_secs(1);
/// How often a batch is sent, and the pause after the first time, doubled after each.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

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

enum Message {
    Spans(Arc<Collector>, Spans),
    Flush(SyncSender<()>),
}

/// One a process; it begins with the first request that is told of.
static QUEUE_OF_ALL: OnceLock<Option<SyncSender<Message>>> = OnceLock::new();

fn start() -> Option<SyncSender<Message>> {
    let (sender, messages) = sync_channel(QUEUE);
    let thread = std::thread::Builder::new().name("traces".into()).spawn(move || run(&messages));
    thread.inspect_err(|error| tracing::error!(%error, "no thread for traces")).ok().map(|_| sender)
}

/// Never waits.
pub fn send(collector: &Arc<Collector>, spans: Spans) {
    let count = spans.count;
    let sent = QUEUE_OF_ALL
        .get_or_init(start)
        .as_ref()
        .is_some_and(|queue| queue.try_send(Message::Spans(collector.clone(), spans)).is_ok());
    if !sent {
        COUNTS.dropped.fetch_add(count, Relaxed);
    }
}

/// Waits until what was handed over is sent, for two seconds at most.
pub fn flush() {
    if let Some(Some(queue)) = QUEUE_OF_ALL.get() {
        let (done, wait) = sync_channel(1);
        if queue.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(Duration::from_secs(2));
        }
    }
}

fn run(messages: &Receiver<Message>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "no runtime for traces"),
    };
    let mut batch = Batch::default();
    loop {
        let patience = batch
            .until
            .map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(Instant::now()));
        match messages.recv_timeout(patience) {
            Ok(Message::Spans(collector, spans)) => {
                // Another collector: those before go where they belong.
                if batch.collector.as_ref().is_some_and(|before| *before != collector) {
                    runtime.block_on(batch.send());
                }
                batch.until.get_or_insert_with(|| Instant::now() + SOON);
                batch.collector = Some(collector);
                batch.spans.append(&spans);
                if batch.spans.count >= BATCH {
                    runtime.block_on(batch.send());
                }
            }
            Ok(Message::Flush(done)) => {
                runtime.block_on(batch.send());
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => runtime.block_on(batch.send()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[derive(Default)]
struct Batch {
    collector: Option<Arc<Collector>>,
    spans: Spans,
    until: Option<Instant>,
    /// Told of once, until it works again.
    failing: bool,
}

impl Batch {
    async fn send(&mut self) {
        self.until = None;
        let spans = std::mem::take(&mut self.spans);
        let Some(collector) = self.collector.clone().filter(|_| spans.count > 0) else { return };
        let count = spans.count;
        let body = spans.request(&collector.instance);
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            match post(&collector.url, "application/json", body.clone()).await {
                Ok(()) => {
                    COUNTS.exported.fetch_add(count, Relaxed);
                    self.failing = false;
                    return;
                }
                Err(error) if error.passes() && attempt < TRIES => tokio::time::sleep(pause).await,
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "the collector takes no traces; trying on with later ones");
                    }
                    break;
                }
            }
            pause *= 2;
        }
        COUNTS.failed.fetch_add(count, Relaxed);
    }
}
