//! Words by key: a set-associative table in shared memory that keys an attacker invents cannot turn over.
//!
//! As in the kernel half (`gateway_common::table`): a word that no longer means anything (a full bucket, a window that
//! is over) is no different from one that is not there, so that to replace it loses nothing, and one that still means
//! something is never replaced. A key has eight places, in two sets of two cache lines; where none is free it is judged
//! by a word that it shares with others of its hash: the table fails neither open nor shut.
//!
//! A decision is one compare-and-swap, whoever else decides at the same time. Only to take a place for a key that has
//! none is done under a lock, of that key's stripe.

mod walk;
mod word;

use std::{
    io,
    ops::Range,
    path::Path,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use super::hash::Key;
use crate::net::SharedWords;
pub use walk::MOST as MOST_WALKED;
use walk::Stretches;
use word::Way;

const WAYS: usize = 4;
const WAY_WORDS: usize = 4;
const SET_WORDS: usize = WAYS * WAY_WORDS;
/// What the memory is: another layout is another number.
const MAGIC: u64 = 0x6761_7465_6c69_6d01;
/// Words that keys without a place share, a power of two.
const SHARED: usize = 1 << 14;
const STRIPES: usize = 64;

/// Tags that are no key's: an empty place, and one that is being taken.
const EMPTY: u64 = 0;
const TAKING: u64 = 1;

/// What kind of word it is: from it follows when it means nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The time at which it does.
    Time = 0,
    /// It says so apart.
    Until = 1,
    /// When it is zero.
    Count = 2,
}

/// Whose word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Hashed with the table's key.
    pub key: u128,
    pub kind: Kind,
    /// Which limit's; only for people to count by. 24 bits.
    pub group: u32,
}

impl Owner {
    fn tag(&self) -> u64 {
        let tag = self.key as u64;
        if tag <= TAKING { tag | 2 } else { tag }
    }

    fn sets(&self) -> [u64; 2] {
        let high = (self.key >> 64) as u64;
        [high & 0xffff_ffff, high >> 32]
    }

    fn info(&self) -> u64 {
        u64::from(self.group & 0xff_ffff) << 40 | (self.kind as u64) << 32
    }
}

/// A word as it is to be now, and (of [`Kind::Until`]) until when it means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    pub value: u64,
    pub until: u64,
}

/// A key's place, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub group: u32,
    pub value: u64,
    /// Since the place is its.
    pub refused: u32,
}

#[derive(Debug)]
pub struct Table {
    words: SharedWords,
    sets: usize,
    key: Key,
    stripes: Box<[AtomicBool]>,
    stretches: Stretches,
    /// Decisions by shared words.
    crowded: AtomicU64,
}

impl Table {
    fn words_of(keys: usize) -> (usize, usize) {
        let sets = (keys / WAYS).next_power_of_two().max(1);
        (sets, SET_WORDS + sets * SET_WORDS + SHARED)
    }

    /// For about so many keys, in this process alone.
    pub fn anonymous(keys: usize) -> io::Result<Self> {
        let (sets, words) = Table::words_of(keys);
        Ok(Table::begin(SharedWords::anonymous(words)?, sets))
    }

    /// In a file: with what is in it, if that is such a table of this size.
    pub fn of_file(path: &Path, keys: usize) -> io::Result<Self> {
        let (sets, words) = Table::words_of(keys);
        match SharedWords::of_file(path, words)? {
            Some((words, written))
                if words[0].load(Acquire) == MAGIC && words[1].load(Relaxed) == sets as u64 =>
            {
                let table = Table::around(words, sets, &written);
                table.let_go();
                Ok(table)
            }
            _ => Ok(Table::begin(SharedWords::of_new_file(path, words)?, sets)),
        }
    }

    /// As [`Table::of_file`]; in this process alone where there is no file, or where it cannot be: then it is told what
    /// is `lost`.
    pub fn open(file: Option<&Path>, keys: usize, lost: &str) -> Self {
        match file.map(|file| (file, Table::of_file(file, keys))) {
            Some((_, Ok(table))) => return table,
            Some((file, Err(error))) => tracing::warn!(file = %file.display(), "{lost}: {error}"),
            None => {}
        }
        Table::private(keys)
    }

    /// As [`Table::anonymous`]: only a process without address space cannot have it.
    #[allow(clippy::expect_used)]
    pub fn private(keys: usize) -> Self {
        Table::anonymous(keys).expect("no memory for a table")
    }

    fn begin(words: SharedWords, sets: usize) -> Self {
        words[1].store(sets as u64, Relaxed);
        let mut random = [0; 16];
        // What cannot fail on Linux; with a fixed key it would still limit.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let (low, high) = random.split_at(8);
        for (at, half) in [(2, low), (3, high)] {
            words[at].store(half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), Relaxed);
        }
        words[0].store(MAGIC, Release);
        Table::around(words, sets, &[])
    }

    fn around(words: SharedWords, sets: usize, written: &[Range<usize>]) -> Self {
        let key = [words[2].load(Relaxed), words[3].load(Relaxed)];
        let stripes = (0..STRIPES).map(|_| AtomicBool::new(false)).collect();
        let stretches = Stretches::new(sets, written);
        Table { words, sets, key, stripes, stretches, crowded: AtomicU64::new(0) }
    }

    /// Frees places that a process was taking when it was killed.
    fn let_go(&self) {
        self.for_all(|way| {
            // What is only looked at stays a hole of the file.
            if way.tag.load(Relaxed) == TAKING {
                let _ = way.tag.compare_exchange(TAKING, EMPTY, Relaxed, Relaxed);
            }
        });
    }

    /// What keys are hashed with.
    pub fn key(&self) -> Key {
        self.key
    }

    pub fn capacity(&self) -> usize {
        self.sets * WAYS
    }

    pub fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    #[inline]
    fn ways(&self, set: u64) -> [Way<'_>; WAYS] {
        let at = SET_WORDS + (set as usize & (self.sets - 1)) * SET_WORDS;
        let (ways, _) = self.words[at..at + SET_WORDS].as_chunks::<WAY_WORDS>();
        std::array::from_fn(|way| {
            let [tag, word, until, info] = &ways[way];
            Way { tag, word, until, info }
        })
    }

    #[inline]
    fn find(&self, owner: &Owner) -> Option<Way<'_>> {
        let tag = owner.tag();
        let with_tag = |set| self.ways(set).into_iter().find(|way| way.tag.load(Acquire) == tag);
        let [one, two] = owner.sets();
        with_tag(one).or_else(|| with_tag(two))
    }

    /// A key's word, 0 if it has none.
    pub fn read(&self, owner: &Owner) -> u64 {
        self.find(owner).map_or(0, |way| way.word.load(Relaxed))
    }

    /// As [`Table::read`], of one that means something at `now`.
    pub fn current(&self, owner: &Owner, now: u64) -> u64 {
        self.find(owner).filter(|way| !way.is_over(now)).map_or(0, |way| way.word.load(Relaxed))
    }

    pub fn seen(&self, owner: &Owner) -> Option<Seen> {
        self.find(owner).map(|way| way.seen())
    }

    /// Changes a key's word as `change` says, which is asked again when somebody else was faster; `shared`: it is a word
    /// that the key shares with others. What `change` refuses stays as it is.
    ///
    /// # Errors
    /// What `change` refused.
    pub fn update<E>(
        &self,
        owner: &Owner,
        now: u64,
        mut change: impl FnMut(u64, bool) -> Result<Word, E>,
    ) -> Result<Word, E> {
        let tag = owner.tag();
        // A place is lost only when it meant nothing for a moment: twice in a row is chance enough.
        for _ in 0..3 {
            let Some(way) = self.find(owner).or_else(|| self.take(*owner, now)) else { break };
            if let Some(done) = way.update(tag, |value| change(value, false))? {
                return Ok(done);
            }
        }
        self.crowded.fetch_add(1, Relaxed);
        let word = &self.words[SET_WORDS + self.sets * SET_WORDS + (owner.key >> 40) as usize % SHARED];
        let mut value = word.load(Relaxed);
        loop {
            let next = change(value, true)?;
            match word.compare_exchange_weak(value, next.value, AcqRel, Relaxed) {
                Ok(_) => return Ok(next),
                Err(other) => value = other,
            }
        }
    }

    /// Changes a word that is there, in whatever way.
    pub fn change(&self, owner: &Owner, mut change: impl FnMut(u64) -> u64) {
        if let Some(way) = self.find(owner) {
            let _ = way.word.fetch_update(AcqRel, Relaxed, |value| Some(change(value)));
        }
    }

    /// Counts a refusal: how many there were since the key has its place.
    pub fn refused(&self, owner: &Owner) -> u32 {
        let Some(way) = self.find(owner) else { return 1 };
        if way.info.load(Relaxed) as u32 == u32::MAX {
            return u32::MAX;
        }
        way.info.fetch_add(1, Relaxed) as u32 + 1
    }

    /// A key starts anew.
    pub fn forget(&self, owner: &Owner) {
        if let Some(way) = self.find(owner) {
            way.word.store(0, Release);
            way.info.fetch_and(!u64::from(u32::MAX), Relaxed);
        }
    }

    /// Empties every place of a group.
    pub fn clear(&self, group: u32) {
        self.for_any(|way| {
            if way.seen().group == group & 0xff_ffff {
                way.word.store(0, Release);
                way.info.fetch_and(!u64::from(u32::MAX), Relaxed);
            }
        });
    }

    /// A place for a key that had none; none is free: `None`.
    #[cold]
    fn take(&self, owner: Owner, now: u64) -> Option<Way<'_>> {
        let _turn = Turn::of(&self.stripes[owner.tag() as usize % STRIPES]);
        // Another worker may have been faster.
        if let Some(way) = self.find(&owner) {
            return Some(way);
        }
        // The emptier set first: so both fill evenly, and hardly a key finds both full before most of the table is.
        let [one, two] = owner.sets().map(|set| {
            self.stretches.note(set & (self.sets as u64 - 1));
            self.ways(set)
        });
        let free = |ways: &[Way<'_>]| {
            ways.iter().filter(|way| way.tag.load(Relaxed) == EMPTY || way.is_over(now)).count()
        };
        let (first, second) = if free(&two) > free(&one) { (two, one) } else { (one, two) };
        first.into_iter().chain(second).find(|way| way.claim(&owner, now))
    }
}

/// The right to take a place for one of a stripe's keys.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn of(stripe: &'a AtomicBool) -> Self {
        while stripe.compare_exchange_weak(false, true, Acquire, Relaxed).is_err() {
            std::thread::yield_now();
        }
        Turn(stripe)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Release);
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
