//! From the workers' buffers to the writer thread.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, Cache};
use serde_json::Value;

use super::{Line, Notable, Rules, Stamp, notable::Ring, shape::Shape, sink::Sink};
use crate::{
    config::model::{self, LogTarget},
    observe::events,
    sync::Paced,
};

/// A started buffer waits no longer than this.
pub const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// To wake the writer costs as much as to write a hundred lines.
const FLUSH_AT: usize = 64 * 1024;
/// Batches that may wait for the writer.
const QUEUE: usize = 128;

/// How many lines met which end.
#[derive(Debug, Default)]
pub struct LineCounts {
    pub written: AtomicU64,
    pub dropped: AtomicU64,
    pub failed: AtomicU64,
    /// Left out, as `keep` says.
    pub sampled: AtomicU64,
    /// Nobody reads: lines need not be made.
    off: AtomicBool,
}

enum Message {
    Batch {
        bytes: Vec<u8>,
        lines: u64,
    },
    /// Look at the orders.
    Wake,
    Flush(SyncSender<()>),
}

/// What the writer is to do besides; told apart from the lines, as their queue may be full.
#[derive(Default)]
struct Orders {
    /// Lines go there from now on.
    config: Option<Box<model::AccessLog>>,
    reopen: bool,
}

/// A handle on the writer thread.
#[derive(Debug, Clone)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    orders: Arc<Mutex<Orders>>,
    rules: Arc<ArcSwap<Rules>>,
    pub counts: Arc<LineCounts>,
    pub notable: Arc<Notable>,
    /// Whether events are written too.
    events: Arc<AtomicBool>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Orders")
    }
}

impl AccessLog {
    /// Opens the target and starts the writer.
    pub fn start(config: &model::AccessLog) -> io::Result<AccessLog> {
        let counts = Arc::default();
        let sink = Sink::open(config, &counts)?;
        let (queue, messages) = sync_channel(QUEUE);
        let log = AccessLog {
            queue,
            orders: Arc::default(),
            rules: Arc::new(ArcSwap::from_pointee(Rules::new(config))),
            counts,
            notable: Arc::default(),
            events: Arc::new(AtomicBool::new(config.events)),
        };
        log.counts.off.store(config.to == LogTarget::Off, Relaxed);
        let writer =
            Writer { sink, config: config.clone(), orders: log.orders.clone(), counts: log.counts.clone() };
        std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run(messages))?;
        Ok(log)
    }

    /// From now on lines are as `config` says. It was opened once by the caller's check, so failure here is only logged.
    pub fn configure(&self, config: &model::AccessLog) {
        self.counts.off.store(config.to == LogTarget::Off, Relaxed);
        self.events.store(config.events, Relaxed);
        self.rules.store(Arc::new(Rules::new(config)));
        self.order(|orders| orders.config = Some(Box::new(config.clone())));
    }

    /// Opens the file anew (USR1, after rotation).
    pub fn reopen(&self) {
        self.order(|orders| orders.reopen = true);
    }

    fn order(&self, say: impl FnOnce(&mut Orders)) {
        say(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        // A full queue wakes it as well.
        let _ = self.queue.try_send(Message::Wake);
    }

    /// Waits until everything handed over so far is written, for two seconds at most.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        let end = Instant::now() + Duration::from_secs(2);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(same)) = self.queue.try_send(message) {
            if Instant::now() >= end {
                return;
            }
            message = same;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = wait.recv_timeout(end.saturating_duration_since(Instant::now()));
    }

    /// Writes an event as a line of its own, where the config wants that.
    pub fn event(&self, event: &Value) {
        if !self.events.load(Relaxed) || self.counts.off.load(Relaxed) {
            return;
        }
        let mut line = event.clone();
        if let Some(ts) = event["ts"].as_f64().and_then(|ts| Duration::try_from_secs_f64(ts).ok()) {
            let mut text = Vec::new();
            Stamp::default().write(&mut text, UNIX_EPOCH + ts);
            line["ts"] = String::from_utf8_lossy(&text).into();
        }
        let message = Message::Batch { bytes: format!("{line}\n").into_bytes(), lines: 1 };
        if self.queue.try_send(message).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    pub fn buffer(&self) -> Buffer {
        Buffer {
            log: self.clone(),
            rules: Cache::new(self.rules.clone()),
            ring: self.notable.ring(),
            bytes: Vec::with_capacity(FLUSH_AT + 4096),
            lines: 0,
            sampled: 0,
            stamp: Stamp::default(),
        }
    }
}

/// A worker's own buffer.
pub struct Buffer {
    log: AccessLog,
    rules: Cache<Arc<ArcSwap<Rules>>, Arc<Rules>>,
    ring: Arc<Ring>,
    bytes: Vec<u8>,
    lines: u64,
    sampled: u64,
    stamp: Stamp,
}

impl Buffer {
    /// Whether lines go anywhere.
    pub fn enabled(&self) -> bool {
        !self.log.counts.off.load(Relaxed) || events::requests_wanted()
    }

    pub fn rules(&mut self) -> &Rules {
        self.rules.load()
    }

    pub fn push(&mut self, line: &Line<'_>) {
        let rules = self.rules.load();
        let watched = events::requests_wanted();
        let notable = rules.notable(line);
        let kept = rules.keeps(line) && !self.log.counts.off.load(Relaxed);
        self.sampled += u64::from(!kept);
        if !kept && !notable && !watched {
            return;
        }
        let start = self.bytes.len();
        line.write(&mut self.bytes, &mut self.stamp);
        if notable {
            self.ring.push(&self.bytes[start..]);
        }
        if watched {
            events::tell_of_request(&self.bytes[start..]);
        }
        if !kept {
            return self.bytes.truncate(start);
        }
        self.lines += 1;
        if self.bytes.len() >= FLUSH_AT {
            self.flush();
        }
    }

    /// Hands what is there to the writer.
    pub fn flush(&mut self) {
        if self.sampled > 0 {
            self.log.counts.sampled.fetch_add(std::mem::take(&mut self.sampled), Relaxed);
        }
        if self.lines == 0 {
            return;
        }
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(FLUSH_AT + 4096));
        let lines = std::mem::take(&mut self.lines);
        if self.log.queue.try_send(Message::Batch { bytes, lines }).is_err() {
            self.log.counts.dropped.fetch_add(lines, Relaxed);
        }
    }
}

/// Whether lines can be written as `config` says; used before it is taken.
pub fn check(config: &model::AccessLog) -> io::Result<()> {
    Sink::open(config, &Arc::default()).map(drop)
}

struct Writer {
    sink: Sink,
    config: model::AccessLog,
    orders: Arc<Mutex<Orders>>,
    counts: Arc<LineCounts>,
}

impl Writer {
    fn run(mut self, messages: Receiver<Message>) {
        let mut messages = Paced::new(messages);
        while let Ok(message) = messages.recv_timeout(Duration::MAX) {
            self.obey();
            match message {
                Message::Batch { bytes, lines } => self.write(&bytes, lines),
                Message::Wake => {}
                Message::Flush(done) => {
                    self.sink.flush();
                    let _ = done.send(());
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8], lines: u64) {
        let shaped = match &self.config.shape {
            Shape::Json => bytes.into(),
            shape => shape.of(bytes),
        };
        let Some(failed) = self.sink.write(&shaped, lines).map(|failed| failed.min(lines)) else { return };
        self.counts.written.fetch_add(lines - failed, Relaxed);
        self.counts.failed.fetch_add(failed, Relaxed);
    }

    fn obey(&mut self) {
        let orders = std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        let reopen = orders.reopen || orders.config.is_some();
        if let Some(config) = orders.config {
            self.config = *config;
        }
        if !reopen || self.sink.goes_on(&self.config) {
            return;
        }
        match Sink::open(&self.config, &self.counts) {
            Ok(opened) => self.sink = opened,
            Err(error) => {
                let target = self.config.to.show();
                tracing::error!(%error, target, "cannot open the access log; lines keep going to the old one");
            }
        }
    }
}
