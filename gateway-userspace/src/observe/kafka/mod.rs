//! Lines as records of a Kafka topic.
//!
//! Who has lines hands them over without waiting; what does not fit in the buffer is dropped and counted. A thread sends
//! them, a batch at a time, and tries again until the broker has it. Each batch is numbered (an idempotent producer), so
//! one that is sent again because its answer was lost is not there twice. All lines of a gateway go to one partition, by
//! its name as their key: they stay in order.

mod batch;
mod connection;
mod producer;
mod scram;
mod wire;

#[cfg(test)]
pub(crate) use self::{
    connection::{Metadata, Produced, sasl_mechanisms},
    scram::challenge,
    wire::Reader,
};

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel, sync_channel},
    },
    time::{Duration, Instant},
};

use self::{
    batch::Lines,
    producer::{Producer, SendError},
};
use super::access_log::LineCounts;
use crate::config::model::Kafka;

/// Bytes of lines that are sent at once; a broker takes 1 MiB unless it is told otherwise.
const BATCH: usize = 512 << 10;
/// Before a batch is tried again: at first, and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long [`Exporter::flush`] waits.
const FLUSH: Duration = Duration::from_secs(2);
/// How long what is left is still tried after a reload to another place.
const FAREWELL: Duration = Duration::from_secs(30);

/// `kafka://HOST:PORT,HOST:PORT/TOPIC`: the brokers, and the topic.
///
/// # Errors
/// What is wrong with it.
pub fn parse(url: &str) -> Result<(Vec<String>, String), &'static str> {
    let (brokers, topic) =
        url.strip_prefix("kafka://").and_then(|rest| rest.split_once('/')).ok_or("there is no topic")?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if topic.is_empty() || topic.len() > 249 || !topic.bytes().all(legal) || matches!(topic, "." | "..") {
        return Err("a topic's name is 1 to 249 letters, digits, `.`, `_` and `-`");
    }
    let brokers: Option<Vec<String>> = brokers.split(',').map(broker).collect();
    Ok((brokers.ok_or("a broker is a host, and a port unless that is 9092")?, topic.into()))
}

fn broker(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, 9092u16),
    };
    let name = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let legal = match name {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    (legal && !host.is_empty() && port > 0).then(|| format!("{host}:{port}"))
}

/// Tells brokers of lines, and counts what became of them.
pub struct Exporter {
    config: Kafka,
    counts: Arc<LineCounts>,
    /// It begins with the first line.
    sender: Option<Handle>,
}

enum Message {
    Lines(Lines),
    Flush(std::sync::mpsc::SyncSender<()>),
}

/// A handle on the thread, which ends with it, when it has sent what there is.
struct Handle {
    messages: Sender<Message>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes that wait, or are on their way.
    waiting: AtomicU64,
    /// Nothing more comes.
    over: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
    }
}

impl Exporter {
    pub fn new(config: &Kafka, counts: &Arc<LineCounts>) -> Self {
        Exporter { config: config.clone(), counts: counts.clone(), sender: None }
    }

    /// Whether it goes on as it is with this config.
    pub fn is_of(&self, config: &Kafka) -> bool {
        self.config == *config
    }

    /// Never waits.
    pub fn write(&mut self, bytes: &[u8], count: u64) {
        if self.sender.is_none() {
            let started = start(&self.config, &self.counts);
            self.sender = started.inspect_err(|error| tracing::error!(%error, "no thread for Kafka")).ok();
        }
        if !self.sender.as_ref().is_some_and(|sender| sender.take(bytes, count, self.config.buffer)) {
            self.counts.dropped.fetch_add(count, Relaxed);
        }
    }

    /// Waits until what was handed over is there, for two seconds at most.
    pub fn flush(&self) {
        let Some(sender) = &self.sender else { return };
        let (done, wait) = sync_channel(1);
        let sent = sender.messages.send(Message::Flush(done)).is_ok();
        if !sent || wait.recv_timeout(FLUSH).is_err() {
            let bytes = sender.shared.waiting.load(Relaxed);
            tracing::warn!(bytes, "lines of the access log wait for Kafka and may be lost");
        }
    }
}

impl Handle {
    /// Whether there is room for so many lines.
    fn take(&self, bytes: &[u8], count: u64, room: u64) -> bool {
        let length = bytes.len() as u64;
        // Only the writer adds to it.
        if self.shared.waiting.load(Relaxed) + length > room {
            return false;
        }
        self.shared.waiting.fetch_add(length, Relaxed);
        self.messages.send(Message::Lines(Lines { bytes: bytes.to_vec(), count })).is_ok()
    }
}

fn start(config: &Kafka, counts: &Arc<LineCounts>) -> std::io::Result<Handle> {
    let (messages, received) = channel();
    let shared = Arc::new(Shared::default());
    let sending = Sending {
        producer: Producer::new(config.clone()),
        counts: counts.clone(),
        shared: shared.clone(),
        failing: false,
    };
    std::thread::Builder::new().name("kafka".into()).spawn(move || sending.run(&received))?;
    Ok(Handle { messages, shared })
}

struct Sending {
    producer: Producer,
    counts: Arc<LineCounts>,
    shared: Arc<Shared>,
    /// Told of once, until it works again.
    failing: bool,
}

impl Sending {
    fn run(mut self, messages: &Receiver<Message>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "no runtime for Kafka"),
        };
        while let Ok(message) = messages.recv() {
            let mut next = Some(message);
            while let Some(message) = next.take() {
                match message {
                    Message::Lines(first) => {
                        let (batch, other) = gather(first, messages);
                        runtime.block_on(self.deliver(&batch));
                        next = other;
                    }
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        }
    }

    /// Tries until it is there, or never can be.
    async fn deliver(&mut self, batch: &[Lines]) {
        let count = batch.iter().map(|lines| lines.count).sum();
        let mut pause = PAUSE;
        let mut last_try = None;
        let written = loop {
            match self.producer.send(batch).await {
                Ok(()) => break true,
                Err(SendError::Refused(error)) => {
                    tracing::warn!(%error, lines = count, "Kafka refuses lines of the access log");
                    break false;
                }
                Err(SendError::Again(error)) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(%error, "Kafka does not take the access log's lines; trying on");
                    }
                }
            }
            if self.shared.over.load(Relaxed)
                && *last_try.get_or_insert_with(|| Instant::now() + FAREWELL) < Instant::now()
            {
                break false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        self.failing &= !written;
        let told = if written { &self.counts.written } else { &self.counts.failed };
        told.fetch_add(count, Relaxed);
        let bytes = batch.iter().map(|lines| lines.bytes.len() as u64).sum();
        self.shared.waiting.fetch_sub(bytes, Relaxed);
    }
}

/// What is there already goes with it, as far as it fits. What else came after that.
fn gather(first: Lines, messages: &Receiver<Message>) -> (Vec<Lines>, Option<Message>) {
    let mut bytes = first.bytes.len();
    let mut batch = vec![first];
    loop {
        match messages.try_recv() {
            Ok(Message::Lines(lines)) if bytes + lines.bytes.len() <= BATCH => {
                bytes += lines.bytes.len();
                batch.push(lines);
            }
            Ok(other) => return (batch, Some(other)),
            Err(_) => return (batch, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_brokers_and_a_topic() {
        assert_eq!(
            parse("kafka://10.0.0.1:9093,b.test,[2001:db8::1]:19092/access-log"),
            Ok((
                vec!["10.0.0.1:9093".into(), "b.test:9092".into(), "[2001:db8::1]:19092".into()],
                "access-log".into()
            ))
        );
        for wrong in [
            "kafka://a",
            "kafka://a/",
            "kafka:///t",
            "kafka://a:0/t",
            "kafka://a:x/t",
            "kafka://a/b/c",
            "kafka://a/t?x=1",
            "kafka://a,/t",
            "kafka://user:pass@a/t",
            "kafka://2001:db8::1/t",
            "kafka://a/..",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_waits_together_goes_together_up_to_a_size() {
        let (sender, messages) = channel();
        let lines = |size: usize| Lines { bytes: vec![b'x'; size], count: 1 };
        for size in [10, 20, BATCH] {
            sender.send(Message::Lines(lines(size))).unwrap();
        }
        let (batch, other) = gather(lines(5), &messages);
        assert_eq!(batch.iter().map(|lines| lines.bytes.len()).collect::<Vec<_>>(), [5, 10, 20]);
        assert!(matches!(other, Some(Message::Lines(lines)) if lines.bytes.len() == BATCH));
    }
}
