//! A key's place, which workers change at once without a lock. What is shared are four words; the tests run the same code over
//! loom's.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{self, AcqRel, Acquire, Relaxed, Release},
};

use super::{EMPTY, Owner, Seen, TAKING, Word};

/// A word of 64 bits.
pub trait Cell {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    /// # Errors
    /// What is there instead.
    fn exchange(&self, old: u64, new: u64, order: (Ordering, Ordering)) -> Result<u64, u64>;
}

impl Cell for AtomicU64 {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }

    #[inline]
    fn exchange(&self, old: u64, new: u64, (done, failed): (Ordering, Ordering)) -> Result<u64, u64> {
        self.compare_exchange(old, new, done, failed)
    }
}

pub struct Way<'a, C = AtomicU64> {
    pub tag: &'a C,
    pub word: &'a C,
    pub until: &'a C,
    /// Group (24 bits), kind (8), refused (32).
    pub info: &'a C,
}

impl<C> Clone for Way<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Way<'_, C> {}

impl<C: Cell> Way<'_, C> {
    /// Its word means nothing any more.
    pub fn is_over(&self, now: u64) -> bool {
        self.means_nothing(self.word.load(Relaxed), now)
    }

    fn means_nothing(&self, word: u64, now: u64) -> bool {
        match (self.info.load(Relaxed) >> 32) as u8 {
            0 => word <= now,
            1 => self.until.load(Relaxed) <= now,
            _ => word == 0,
        }
    }

    /// Changes the word, for the key of a tag. `None`: the place has become another's.
    ///
    /// # Errors
    /// What `change` refused.
    pub fn update<E>(
        &self,
        tag: u64,
        mut change: impl FnMut(u64) -> Result<Word, E>,
    ) -> Result<Option<Word>, E> {
        let mut value = self.word.load(Acquire);
        let done = loop {
            let next = change(value)?;
            // First: whoever looks for a free place must not take this one in between.
            if next.until > self.until.load(Relaxed) {
                self.until.store(next.until, Release);
            }
            match self.word.exchange(value, next.value, (AcqRel, Acquire)) {
                Ok(_) => break next,
                Err(other) => value = other,
            }
        };
        // Whoever took the place did so by an exchange of this word too: either that failed, or its tag is seen here.
        Ok((self.tag.load(Acquire) == tag).then_some(done))
    }

    /// Takes the place for a key, if it is nobody's or its word means nothing any more.
    pub fn claim(&self, owner: &Owner, now: u64) -> bool {
        let tag = self.tag.load(Acquire);
        if tag == TAKING || tag != EMPTY && !self.is_over(now) {
            return false;
        }
        if self.tag.exchange(tag, TAKING, (AcqRel, Relaxed)).is_err() {
            return false;
        }
        // Its owner may have come back meanwhile, or come back now: a plain store would wipe out what it takes.
        if !self.wipe(tag, now) {
            self.tag.store(tag, Release);
            return false;
        }
        self.until.store(0, Relaxed);
        self.info.store(owner.info(), Relaxed);
        self.tag.store(owner.tag(), Release);
        true
    }

    fn wipe(&self, tag: u64, now: u64) -> bool {
        let mut word = self.word.load(Acquire);
        loop {
            if tag != EMPTY && !self.means_nothing(word, now) {
                return false;
            }
            match self.word.exchange(word, 0, (AcqRel, Acquire)) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
    }

    pub fn seen(&self) -> Seen {
        let info = self.info.load(Relaxed);
        Seen { group: (info >> 40) as u32, value: self.word.load(Relaxed), refused: info as u32 }
    }
}
