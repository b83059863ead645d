//! The disk tier: what is stored is also written to segments, from which it comes back when memory no longer has it, also
//! after a restart.
//!
//! Workers only look at the [`index`] in memory. One thread a cache ([`writer`]) writes, in the order in which things
//! happened: responses, which of them are no longer good, purges. Reads are on tokio's threads for what blocks. What is
//! to be written waits in a queue; what finds no room there is not written, and counted.

mod codec;
mod guard;
mod index;
pub mod place;
mod read;
mod record;
mod segment;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use http::HeaderMap;

pub use self::{
    index::At,
    place::{Disks, Wanted},
    read::Asked,
};
use self::{index::Index, read::Reading, segment::Segment};
use super::{
    entry::Entry,
    key::KeyParts,
    purge::{Noted, Purges},
    store::Store,
    vary::Selected,
};
use crate::sync::lock;
use writer::Op;

/// Bytes that wait to be written.
const QUEUE: u64 = 32 << 20;
/// … and how many things, however small. More is no longer kept apart: all goes.
const MOST_WAITING: usize = 1 << 17;
/// How long the end waits for what is still to be written.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// … and a purge until it is on disk.
const DURABLE: Duration = Duration::from_secs(10);

/// What a tier is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Another process has the directory.
    Waiting,
    /// Finds out what is there.
    Loading,
    Ready,
    Closed,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Loading => "loading",
            State::Ready => "ready",
            State::Closed => "closed",
        }
    }
}

/// What happened, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Answers that came from here.
    pub hits: AtomicU64,
    pub written: AtomicU64,
    /// Not written, because too much was to be.
    pub dropped: AtomicU64,
    /// Found to be something else than what was written, and not used.
    pub damaged: AtomicU64,
    /// Reads and writes that failed.
    pub failed: AtomicU64,
    /// Had to go for others.
    pub evicted: AtomicU64,
    /// Too many reads were under way.
    pub busy: AtomicU64,
}

/// What workers, readers and the writer share.
#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    state: AtomicU8,
    index: Index,
    segments: Mutex<BTreeMap<u32, Arc<Segment>>>,
    store: Arc<Store>,
    purges: Arc<Purges>,
    parts: Mutex<Arc<KeyParts>>,
    counts: Counts,
    /// The most that all segments take.
    size: AtomicU64,
    /// … and one.
    segment: AtomicU64,
    queued: AtomicU64,
    waiting: AtomicUsize,
    /// Something that is no longer good could not be noted.
    lost: AtomicBool,
    reads: Mutex<HashMap<At, Reading>>,
}

/// The disk tier of a cache.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    wanted: Wanted,
    queue: mpsc::Sender<Op>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Disk {
    /// Begins to find out what is there, and to write.
    pub fn start(
        name: &Arc<str>,
        wanted: &Wanted,
        store: &Arc<Store>,
        purges: &Arc<Purges>,
        parts: &KeyParts,
        variants: usize,
    ) -> Disk {
        purges.keep_for_disk();
        let shared = Arc::new(Shared {
            name: name.clone(),
            state: AtomicU8::new(State::Waiting as u8),
            index: Index::new(variants),
            segments: Mutex::default(),
            store: store.clone(),
            purges: purges.clone(),
            parts: Mutex::new(Arc::new(parts.clone())),
            counts: Counts::default(),
            size: AtomicU64::new(wanted.size),
            segment: AtomicU64::new(wanted.segment),
            queued: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            reads: Mutex::default(),
        });
        let (queue, ops) = mpsc::channel();
        let (over, ended) = mpsc::channel();
        let writer = writer::Writer::new(shared.clone(), wanted, ops);
        let run = move || {
            writer.run();
            drop(over);
        };
        if let Err(error) = std::thread::Builder::new().name("cache-disk".into()).spawn(run) {
            tracing::error!(cache = &**name, %error, "the disk tier does not work: no thread can be started");
            shared.enter(State::Closed);
        }
        Disk { shared, wanted: wanted.clone(), queue, ended: Mutex::new(ended) }
    }

    /// Whether it goes on as this; then with these settings.
    pub fn goes_on(&self, wanted: &Wanted, parts: &KeyParts, variants: usize) -> bool {
        if !self.wanted.is_there(wanted) || self.state() == State::Closed {
            return false;
        }
        self.shared.size.store(wanted.size, Relaxed);
        self.shared.segment.store(wanted.segment, Relaxed);
        self.shared.index.set_variants(variants);
        *lock(&self.shared.parts) = Arc::new(parts.clone());
        true
    }

    pub fn state(&self) -> State {
        self.shared.state()
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub fn directory(&self) -> &PathBuf {
        &self.wanted.directory
    }

    pub fn is_sealed(&self) -> bool {
        self.wanted.vault.sealer().is_some()
    }

    /// The most that it takes.
    pub fn size(&self) -> u64 {
        self.shared.size.load(Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.shared.bytes()
    }

    pub fn entries(&self) -> u64 {
        self.shared.index.entries()
    }

    /// Where the response is that a request selects. Nothing is read for it.
    pub fn find(&self, hash: u128, request: &HeaderMap) -> Option<At> {
        self.shared.index.find(hash, request)
    }

    /// Reads a response into memory.
    pub async fn load(&self, asked: Asked) -> Option<Arc<Entry>> {
        read::load(&self.shared, asked).await
    }

    /// Writes a response, in place of the one for the same requests.
    pub fn store(&self, entry: &Arc<Entry>, hash: u128, began: u64) {
        let shared = &self.shared;
        if shared.state() == State::Closed {
            return;
        }
        // The one before must not come back, whatever becomes of this one.
        let replaced = shared.index.forget(hash, Some(&entry.vary)) || shared.state() != State::Ready;
        let size = entry.size as u64;
        let queued = shared.queued.load(Relaxed);
        let room = size < shared.segment.load(Relaxed) && (queued == 0 || queued + size <= QUEUE);
        if room {
            shared.queued.fetch_add(size, Relaxed);
            self.tell(Op::Store { entry: entry.clone(), hash, began, replaced });
        } else {
            shared.counts.dropped.fetch_add(1, Relaxed);
            if replaced {
                self.tell(Op::Forget { hash, vary: Some(entry.vary.clone()) });
            }
        }
    }

    /// A response is no longer good; `None`: in any variant.
    pub fn forget(&self, hash: u128, vary: Option<&[Selected]>) {
        if self.shared.index.forget(hash, vary) || self.state() != State::Ready {
            self.tell(Op::Forget { hash, vary: vary.map(Box::from) });
        }
    }

    /// Notes a purge; what it takes is found out when it is read.
    pub fn purge(&self, noted: Noted) {
        self.tell(Op::Purge { noted, durable: None });
    }

    /// As [`Disk::purge`], and waits until it is on disk; false: it is not.
    pub fn purge_durably(&self, noted: Noted) -> bool {
        let (durable, told) = mpsc::channel();
        let closed = self.state() == State::Closed;
        self.tell(Op::Purge { noted, durable: Some(durable) });
        // While another process has the directory it is kept until that ends.
        closed || self.state() == State::Waiting || told.recv_timeout(DURABLE).is_ok()
    }

    fn tell(&self, op: Op) {
        if self.shared.waiting.fetch_add(1, Relaxed) >= MOST_WAITING {
            self.shared.lost.store(true, Relaxed);
            self.shared.waiting.fetch_sub(1, Relaxed);
            return;
        }
        // Nobody is there at the end only.
        let _ = self.queue.send(op);
    }

    /// Writes what is to be written, and lets go of the directory: soon.
    pub fn end(&self) {
        let _ = self.queue.send(Op::Close);
    }

    /// As [`Disk::end`], and waits for it.
    pub fn close(&self) {
        self.end();
        let _ = lock(&self.ended).recv_timeout(LAST_WRITES);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn state(&self) -> State {
        match self.state.load(Relaxed) {
            0 => State::Waiting,
            1 => State::Loading,
            2 => State::Ready,
            _ => State::Closed,
        }
    }

    fn enter(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    fn bytes(&self) -> u64 {
        lock(&self.segments).values().map(|segment| segment.length.load(Relaxed)).sum()
    }
}

/// What can be read is what is written of it.
#[cfg(test)]
pub(crate) fn fuzz(kind: u8, bytes: &[u8]) {
    use self::{codec, record};

    let span = record::Span { offset: 64, meta: 16, body: 0 };
    let mut rows: Vec<_> = record::Row::of_record(kind, bytes, span).into_iter().collect();
    let mut reader = codec::Reader(bytes);
    rows.extend(std::iter::from_fn(|| record::Row::read(&mut reader)));
    for row in rows {
        let mut written = codec::Writer::default();
        row.write(&mut written);
        assert_eq!(record::Row::read(&mut codec::Reader(&written.0)), Some(row));
    }
    if let Some(kept) = record::Kept::read(bytes) {
        let (began, entry) = (kept.began, kept.entry(super::entry::Body::default()));
        let mut written = codec::Writer::default();
        record::write_entry(&entry, 1, began, &mut written);
        assert!(record::Kept::read(&written.0).is_some_and(|again| *again.key == *entry.key));
    }
}

#[cfg(test)]
mod tests;
