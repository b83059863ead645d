//! Bringing a response from disk into memory: once for all who wait for it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{At, Shared, State, lock, record::Kept};
use crate::cache::{
    entry::{Body, Entry},
    key::KeyParts,
    purge::Taken,
};

/// Reads at once.
const MOST: usize = 128;
/// Whoever waits longer asks the upstream.
const PATIENCE: Duration = Duration::from_secs(1);

pub type Reading = watch::Receiver<Option<Arc<Entry>>>;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Asked {
    pub hash: u128,
    pub at: At,
    pub key: Arc<[u8]>,
    pub parts: KeyParts,
}

pub async fn load(shared: &Arc<Shared>, asked: Asked) -> Option<Arc<Entry>> {
    let mut reading = begin(shared, asked)?;
    let read = tokio::time::timeout(PATIENCE, reading.wait_for(Option::is_some)).await;
    let entry = read.ok()?.ok()?.clone()?;
    shared.counts.hits.fetch_add(1, Relaxed);
    Some(entry)
}

fn begin(shared: &Arc<Shared>, asked: Asked) -> Option<Reading> {
    let mut reads = lock(&shared.reads);
    if let Some(reading) = reads.get(&asked.at) {
        return Some(reading.clone());
    }
    if reads.len() >= MOST {
        shared.counts.busy.fetch_add(1, Relaxed);
        return None;
    }
    let (tell, reading) = watch::channel(None);
    reads.insert(asked.at, reading.clone());
    let leave = Leave { shared: shared.clone(), at: asked.at };
    // On its own: it ends also if whoever began it goes away.
    tokio::task::spawn_blocking(move || {
        let entry = bring(&leave.shared, &asked);
        drop(leave);
        if entry.is_some() {
            tell.send_replace(entry);
        }
    });
    Some(reading)
}

/// Others may read it again.
struct Leave {
    shared: Arc<Shared>,
    at: At,
}

impl Drop for Leave {
    fn drop(&mut self) {
        lock(&self.shared.reads).remove(&self.at);
    }
}

fn bring(shared: &Shared, asked: &Asked) -> Option<Arc<Entry>> {
    let Asked { hash, at, .. } = asked;
    // Before it is looked whether it was purged.
    let began = shared.purges.now();
    let mut kept = kept(shared, *hash, *at)?;
    if *kept.key != *asked.key {
        return None;
    }
    if kept.is_of_no_use(SystemTime::now()) {
        shared.index.remove(*hash, *at);
        return None;
    }
    match shared.purges.taken(kept.began, &asked.parts, &kept.key, &kept.tags) {
        Some(Taken::Out) => {
            shared.index.remove(*hash, *at);
            return None;
        }
        Some(Taken::Stale(since)) => kept.mark_stale(since),
        None => {}
    }
    let entry = Arc::new(with_body(shared, *hash, *at, kept)?);
    // One that is newer than this takes its place in the index before it comes here, or takes it out of there.
    let is_there = || shared.state() != State::Closed && shared.index.state(*hash, *at).is_some();
    if !is_there() {
        return None;
    }
    shared.store.insert(entry.clone());
    if !is_there() || shared.purges.took(began, &asked.parts, &entry.key, &entry.tags) {
        shared.store.remove(&entry);
        return None;
    }
    shared.index.used(*hash, *at);
    Some(entry)
}

/// A response's head. What is not what was written is forgotten.
pub fn kept(shared: &Shared, hash: u128, at: At) -> Option<Kept> {
    let segment = lock(&shared.segments).get(&at.segment).cloned()?;
    let meta = good(shared, hash, at, segment.meta(at.span))?;
    good(shared, hash, at, Ok(Kept::read(&meta)))
}

pub fn with_body(shared: &Shared, hash: u128, at: At, kept: Kept) -> Option<Entry> {
    let segment = lock(&shared.segments).get(&at.segment).cloned()?;
    let body = good(shared, hash, at, segment.body(at.span))?;
    Some(kept.entry(Body::new(vec![body])))
}

fn good<T>(shared: &Shared, hash: u128, at: At, read: std::io::Result<Option<T>>) -> Option<T> {
    match read {
        Ok(Some(read)) => return Some(read),
        Ok(None) => {
            shared.counts.damaged.fetch_add(1, Relaxed);
            tracing::warn!(
                cache = &*shared.name,
                segment = at.segment,
                "a stored response is damaged: not used"
            );
        }
        Err(error) => {
            shared.counts.failed.fetch_add(1, Relaxed);
            tracing::warn!(cache = &*shared.name, segment = at.segment, %error, "cannot read");
        }
    }
    shared.index.remove(hash, at);
    None
}
