//! The one thread that writes to a tier's directory.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Relaxed},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    At, Shared, State, Wanted,
    codec::Writer as Buffer,
    lock, place, read,
    record::{self, ENTRY, FORGET, PURGE, Row},
    segment::{self, Found, Growing, OpenError, PREFIX, Segment},
};
use crate::{
    cache::{
        entry::Entry,
        purge::{Noted, Purge, Taken},
        vary::Selected,
    },
    seal::Vault,
};

/// How long what is no longer good may not be on disk yet.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// After an error nothing is written for so long.
const PAUSE: Duration = Duration::from_secs(10);
const LOCK_EVERY: Duration = Duration::from_millis(100);
/// Of a segment's size: so much of what goes with an old one may stay.
const STAYS: u64 = 4;

pub enum Op {
    /// `replaced`: there may be one before it.
    Store {
        entry: Arc<Entry>,
        hash: u128,
        began: u64,
        replaced: bool,
    },
    Forget {
        hash: u128,
        vary: Option<Box<[Selected]>>,
    },
    Purge {
        noted: Noted,
        durable: Option<Sender<()>>,
    },
    Close,
}

pub struct Writer {
    shared: Arc<Shared>,
    directory: PathBuf,
    vault: Arc<Vault>,
    ops: Receiver<Op>,
    open: Option<Growing>,
    next: u32,
    unsynced: Option<Instant>,
    pause: Option<Instant>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, wanted: &Wanted, ops: Receiver<Op>) -> Self {
        let (directory, vault) = (wanted.directory.clone(), wanted.vault.clone());
        Writer { shared, directory, vault, ops, open: None, next: 1, unsynced: None, pause: None }
    }

    pub fn run(mut self) {
        let waiting = self.wait_for_directory();
        let Some((held, before)) = waiting else {
            self.shared.enter(State::Closed);
            return;
        };
        self.shared.enter(State::Loading);
        let began = Instant::now();
        self.load();
        self.shared.enter(State::Ready);
        tracing::info!(
            cache = &*self.shared.name,
            entries = self.shared.index.entries(),
            bytes = self.shared.bytes(),
            took = ?began.elapsed(),
            "the disk tier is ready"
        );
        let closed = before.into_iter().all(|op| self.act(op));
        while closed
            && let Some(op) = self.next_op()
            && self.act(op)
        {}
        self.shared.enter(State::Closed);
        self.finish_open();
        lock(&self.shared.segments).clear();
        self.shared.index.clear();
        drop(held);
    }

    /// One process at a time. What comes meanwhile is kept; `None`: the end came.
    fn wait_for_directory(&mut self) -> Option<(File, Vec<Op>)> {
        let path = self.directory.join("lock");
        let mut kept = Vec::new();
        let mut told = false;
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
            match file
                .map_err(|error| error.to_string())
                .and_then(|file| file.try_lock().map_err(|error| error.to_string()).map(|()| file))
            {
                Ok(file) => return Some((file, kept)),
                Err(error) if !told => {
                    let (cache, path) = (&*self.shared.name, path.display());
                    tracing::info!(cache, %path, error, "waits for the directory of the disk tier");
                    told = true;
                }
                Err(_) => {}
            }
            match self.ops.recv_timeout(LOCK_EVERY) {
                Ok(Op::Close) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(op) => kept.push(op),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn next_op(&mut self) -> Option<Op> {
        loop {
            let Some(since) = self.unsynced else { return self.ops.recv().ok() };
            let left = SYNC_EVERY.saturating_sub(since.elapsed());
            match self.ops.recv_timeout(left) {
                Ok(op) if !left.is_zero() => return Some(op),
                Ok(op) => {
                    self.sync();
                    return Some(op);
                }
                Err(RecvTimeoutError::Timeout) => drop(self.sync()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// False: that was the last.
    fn act(&mut self, op: Op) -> bool {
        self.shared.waiting.fetch_sub(usize::from(!matches!(op, Op::Close)), Relaxed);
        if self.shared.lost.swap(false, AcqRel) {
            tracing::warn!(cache = &*self.shared.name, "the disk cannot follow: the tier starts anew");
            self.clear();
        }
        match op {
            Op::Store { entry, hash, began, replaced } => self.store(&entry, hash, began, replaced),
            Op::Forget { hash, vary } => self.forget(hash, vary),
            Op::Purge { noted, durable } => {
                self.purge(noted, durable.is_some());
                if let Some(durable) = durable {
                    let _ = durable.send(());
                }
            }
            Op::Close => return false,
        }
        true
    }

    fn store(&mut self, entry: &Arc<Entry>, hash: u128, began: u64, replaced: bool) {
        let shared = self.shared.clone();
        shared.queued.fetch_sub(entry.size as u64, Relaxed);
        let parts = lock(&shared.parts).clone();
        let purged = || shared.purges.took(began, &parts, &entry.key, &entry.tags);
        let at = if purged() { None } else { self.write_entry(entry, hash, began) };
        let Some(at) = at else {
            if replaced {
                self.forget(hash, Some(entry.vary.clone()));
            }
            return;
        };
        // A purge notes itself before it looks, so one of both sees the other.
        if !shared.index.insert(hash, &entry.vary, at, purged) {
            return self.forget(hash, Some(entry.vary.clone()));
        }
        shared.counts.written.fetch_add(1, Relaxed);
    }

    fn write_entry(&mut self, entry: &Entry, hash: u128, began: u64) -> Option<At> {
        let mut meta = Buffer::default();
        record::write_entry(entry, hash, began, &mut meta);
        let at = self.append(ENTRY, &meta.0, &entry.body.pieces)?;
        self.row(&Row::Entry { hash, at: at.span, vary: entry.vary.clone() });
        Some(at)
    }

    fn forget(&mut self, hash: u128, vary: Option<Box<[Selected]>>) {
        self.shared.index.forget(hash, vary.as_deref());
        if lock(&self.shared.segments).is_empty() {
            return;
        }
        let mut meta = Buffer::default();
        record::write_forget(hash, vary.as_deref(), &mut meta);
        match self.append(FORGET, &meta.0, &[]) {
            Some(_) => {
                self.row(&Row::Forget { hash, vary });
                self.unsynced.get_or_insert_with(Instant::now);
            }
            None => self.clear(),
        }
    }

    /// `durable`: somebody waits until it is on disk; else it is soon.
    fn purge(&mut self, noted: Noted, durable: bool) {
        if noted.purge == Purge::All && noted.soft.is_none() {
            return self.clear();
        }
        if lock(&self.shared.segments).is_empty() {
            return;
        }
        let mut meta = Buffer::default();
        record::write_purge(&noted, &mut meta);
        let written = self.append(PURGE, &meta.0, &[]).is_some();
        self.row(&Row::Purge(noted));
        self.unsynced.get_or_insert_with(Instant::now);
        if !written || durable && !self.sync() {
            // What cannot be noted must not come back.
            self.clear();
        }
    }

    fn row(&mut self, row: &Row) {
        if let Some(open) = &mut self.open {
            open.row(row);
        }
    }

    /// Adds a record to the open segment, or to a new one. `None`: it cannot be.
    fn append(&mut self, kind: u8, meta: &[u8], body: &[Bytes]) -> Option<At> {
        if self.pause.is_some_and(|until| Instant::now() < until) {
            self.shared.counts.failed.fetch_add(1, Relaxed);
            return None;
        }
        self.pause = None;
        let length = PREFIX + meta.len() + body.iter().map(Bytes::len).sum::<usize>() + 64;
        let most = self.shared.segment.load(Relaxed);
        let full = self.open.as_ref().is_none_or(|open| open.size() + length as u64 > most);
        for last in [false, true] {
            let written = match full && !last || self.open.is_none() {
                true => self.begin_segment(),
                false => Ok(()),
            };
            let written = written.and_then(|()| match &mut self.open {
                Some(open) => {
                    let (segment, span) = (open.segment.number, open.append(kind, meta, body)?);
                    Ok(At { segment, span })
                }
                None => Err(io::Error::other("no segment is open")),
            });
            match written {
                Ok(at) => return Some(at),
                Err(error) => {
                    self.finish_open();
                    let full = error.kind() == io::ErrorKind::StorageFull;
                    if !full || last || self.drop_oldest().is_none() {
                        self.fail("cannot write", &error);
                        return None;
                    }
                }
            }
        }
        None
    }

    fn fail(&mut self, what: &str, error: &io::Error) {
        self.shared.counts.failed.fetch_add(1, Relaxed);
        self.pause = Some(Instant::now() + PAUSE);
        let (cache, path) = (&*self.shared.name, self.directory.display());
        tracing::error!(cache, %path, %error, "the disk tier: {what}; nothing is written to it for {PAUSE:?}");
    }

    /// Its index is written; if not, records are looked for at the next start.
    fn finish_open(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.finish()
        {
            tracing::warn!(cache = &*self.shared.name, %error, "a segment stays without an index");
        }
        self.unsynced = None;
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.finish_open();
        let (size, most) = (self.shared.size.load(Relaxed), self.shared.segment.load(Relaxed));
        let mut stays = Vec::new();
        while self.shared.bytes() + most > size
            && let Some(more) = self.drop_oldest()
        {
            stays.extend(more);
        }
        let made = Segment::create(&self.directory, self.next, self.vault.sealer());
        // A name is used once.
        self.next = self.next.wrapping_add(1);
        let segment = Arc::new(made?);
        File::open(&self.directory)?.sync_all()?;
        lock(&self.shared.segments).insert(segment.number, segment.clone());
        self.open = Some(Growing::new(segment));
        let mut room = most / STAYS;
        for (hash, entry, began) in stays {
            let Some(left) = room.checked_sub(entry.size as u64) else { continue };
            room = left;
            self.write_again(hash, &entry, began)?;
        }
        Ok(())
    }

    fn write_again(&mut self, hash: u128, entry: &Entry, began: u64) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut meta = Buffer::default();
        record::write_entry(entry, hash, began, &mut meta);
        let span = open.append(ENTRY, &meta.0, &entry.body.pieces)?;
        open.row(&Row::Entry { hash, at: span, vary: entry.vary.clone() });
        let at = At { segment: open.segment.number, span };
        let parts = lock(&self.shared.parts).clone();
        let purged = || self.shared.purges.took(began, &parts, &entry.key, &entry.tags);
        if !self.shared.index.insert(hash, &entry.vary, at, purged) {
            self.forget(hash, Some(entry.vary.clone()));
        }
        Ok(())
    }

    /// Deletes the oldest segment; what of it is in use. `None`: there is none.
    fn drop_oldest(&mut self) -> Option<Vec<(u128, Entry, u64)>> {
        let (number, segment) = lock(&self.shared.segments).iter().next().map(|(n, s)| (*n, s.clone()))?;
        if self.open.as_ref().is_some_and(|open| open.segment.number == number) {
            self.open = None;
        }
        let mut stays = Vec::new();
        let mut room = self.shared.segment.load(Relaxed) / STAYS;
        for row in segment.rows().map(|found| found.rows).unwrap_or_default() {
            match row {
                Row::Entry { hash, at: span, .. } => {
                    let at = At { segment: number, span };
                    let kept = u64::from(span.body) <= room;
                    if let Some(entry) = kept.then(|| self.in_use(hash, at)).flatten() {
                        room = room.saturating_sub(entry.1.size as u64);
                        stays.push((hash, entry.1, entry.0));
                        self.shared.index.remove(hash, at);
                    } else if self.shared.index.remove(hash, at) {
                        self.shared.counts.evicted.fetch_add(1, Relaxed);
                    }
                }
                // What it was about was in this segment or in those before it.
                Row::Purge(noted) => self.shared.purges.forget(noted.number),
                Row::Forget { .. } => {}
            }
        }
        lock(&self.shared.segments).remove(&number);
        segment.delete();
        Some(stays)
    }

    /// A response that somebody asked for since it was written, and since when it is known not to be purged.
    fn in_use(&self, hash: u128, at: At) -> Option<(u64, Entry)> {
        let shared = &*self.shared;
        let used = shared.index.state(hash, at)?;
        let began = shared.purges.now();
        let mut kept = read::kept(shared, hash, at)?;
        if !used && !shared.store.is_in_use(&kept.key) {
            return None;
        }
        let parts = lock(&shared.parts).clone();
        match shared.purges.taken(kept.began, &parts, &kept.key, &kept.tags) {
            Some(Taken::Out) => return None,
            Some(Taken::Stale(since)) => kept.mark_stale(since),
            None => {}
        }
        Some((began, read::with_body(shared, hash, at, kept)?))
    }

    /// Whether all that was written is on disk.
    fn sync(&mut self) -> bool {
        self.unsynced = None;
        let Some(open) = &self.open else { return true };
        let synced = open.segment.sync();
        if let Err(error) = &synced {
            self.finish_open();
            self.fail("cannot write", error);
        }
        synced.is_ok()
    }

    /// All goes.
    fn clear(&mut self) {
        self.open = None;
        self.unsynced = None;
        let gone = std::mem::take(&mut *lock(&self.shared.segments));
        self.shared.index.clear();
        gone.values().for_each(|segment| segment.delete());
        // A gap: if one of them could not be deleted, it is not taken for good later.
        self.next = self.next.wrapping_add(1);
        let _ = File::open(&self.directory).and_then(|directory| directory.sync_all());
    }

    fn load(&mut self) {
        let found = place::segments(&self.directory).unwrap_or_else(|error| {
            self.fail("cannot read the directory", &error);
            Default::default()
        });
        let (last, mut before) = (found.keys().next_back().copied(), None);
        let mut purges = Vec::new();
        for (number, path) in found {
            // In what is missing there may have been purges of what is in those before it.
            if before.is_some_and(|before: u32| before + 1 != number) {
                self.clear();
                purges.clear();
            }
            let opened = Segment::open(&path, number, self.vault.sealer())
                .and_then(|segment| Ok((segment.rows()?, segment)));
            match opened {
                Ok((found, segment)) => self.take_up(segment, found, &mut purges),
                Err(error) => {
                    let (cache, path) = (&*self.shared.name, path.display());
                    tracing::warn!(cache, %path, %error, "a segment is not used, and deleted");
                    let damaged = u64::from(!matches!(error, OpenError::NotSealed));
                    self.shared.counts.damaged.fetch_add(damaged, Relaxed);
                    // One that was about to be begun has nothing in it.
                    if Some(number) != last {
                        self.clear();
                        purges.clear();
                    }
                    let _ = std::fs::remove_file(self.directory.join(segment::name(number)));
                }
            }
            before = Some(number);
        }
        self.next = last.map_or(1, |last| last.wrapping_add(1));
        for noted in self.shared.purges.adopt(purges) {
            self.purge(noted, false);
        }
    }

    fn take_up(&mut self, segment: Segment, found: Found, purges: &mut Vec<Noted>) {
        let shared = &self.shared;
        if found.damaged > 0 {
            let (cache, path) = (&*shared.name, segment.path.display());
            tracing::warn!(cache, %path, places = found.damaged, "damaged records are not used");
            shared.counts.damaged.fetch_add(found.damaged, Relaxed);
        }
        if found.scanned
            && let Err(error) = segment.finish(&segment::written(&found.rows), found.end)
        {
            tracing::warn!(cache = &*shared.name, %error, "a segment stays without an index");
        }
        let number = segment.number;
        lock(&shared.segments).insert(number, Arc::new(segment));
        for row in found.rows {
            match row {
                Row::Entry { hash, at, vary } => {
                    shared.index.insert(hash, &vary, At { segment: number, span: at }, || false);
                }
                Row::Forget { hash, vary } => drop(shared.index.forget(hash, vary.as_deref())),
                Row::Purge(noted) => purges.push(noted),
            }
        }
    }
}
