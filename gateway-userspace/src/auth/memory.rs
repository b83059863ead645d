//! What a worker remembers of credentials that were checked: whose they are, and how long that holds.

use std::{cell::RefCell, collections::HashMap, hash::BuildHasherDefault, sync::Arc};

use super::{Caller, consumers::AlreadyHashed};
use crate::config::model::KeyHash;

/// Of each of the two halves.
const MOST: usize = 4096;

/// Bounded: when the newer half is full, the older one is forgotten.
#[derive(Debug)]
pub struct Memory {
    key: [u8; 32],
    newer: RefCell<Half>,
    older: RefCell<Half>,
}

/// By hashes.
pub type Table<K, V> = HashMap<K, V, BuildHasherDefault<AlreadyHashed>>;

type Half = Table<KeyHash, Remembered>;

#[derive(Debug, Clone)]
pub struct Remembered {
    pub caller: Arc<Caller>,
    /// It holds before this second.
    pub until: u64,
    /// Of the keys that it was checked with.
    pub epoch: u64,
}

impl Default for Memory {
    fn default() -> Self {
        let mut key = [0; 32];
        // Without it, others could find credentials that collide; that nothing random is to be had does not happen.
        let filled = aws_lc_rs::rand::fill(&mut key);
        debug_assert!(filled.is_ok());
        Memory { key, newer: RefCell::default(), older: RefCell::default() }
    }
}

/// Tells apart what different ways, or the same one of different configs, remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    pub fn fresh() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Owner(NEXT.fetch_add(1, Relaxed))
    }
}

impl Memory {
    /// What a credential is remembered by: not the credential.
    pub fn name(&self, owner: Owner, credential: &[u8]) -> KeyHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&owner.0.to_ne_bytes()).update(credential);
        KeyHash(*hasher.finalize().as_bytes())
    }

    pub fn recall(&self, name: &KeyHash, now: u64, epoch: u64) -> Option<Arc<Caller>> {
        let good = |found: &Remembered| found.epoch == epoch && now < found.until;
        if let Some(found) = self.newer.borrow().get(name) {
            return good(found).then(|| found.caller.clone());
        }
        let found = self.older.borrow_mut().remove(name)?;
        let caller = good(&found).then(|| found.caller.clone())?;
        self.remember(*name, found);
        Some(caller)
    }

    pub fn remember(&self, name: KeyHash, what: Remembered) {
        let mut newer = self.newer.borrow_mut();
        if newer.len() >= MOST {
            *self.older.borrow_mut() = std::mem::take(&mut *newer);
        }
        newer.insert(name, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Arc<Caller> {
        Arc::new(Caller { consumer: name.into(), ..Caller::default() })
    }

    #[test]
    fn what_is_remembered_holds_for_its_time_its_keys_and_its_owner() {
        let (memory, owner) = (Memory::default(), Owner::fresh());
        let name = memory.name(owner, b"token");
        memory.remember(name, Remembered { caller: caller("a"), until: 100, epoch: 1 });
        assert!(memory.recall(&name, 99, 1).is_some());
        assert!(memory.recall(&name, 100, 1).is_none());
        assert!(memory.recall(&name, 99, 2).is_none());
        assert!(memory.recall(&memory.name(Owner::fresh(), b"token"), 99, 1).is_none());
        assert!(memory.recall(&memory.name(owner, b"other"), 99, 1).is_none());
        // Another worker's names are others.
        assert_ne!(Memory::default().name(owner, b"token"), name);
    }

    #[test]
    fn what_is_in_use_stays_and_the_rest_is_bounded() {
        let (memory, owner) = (Memory::default(), Owner::fresh());
        let used = memory.name(owner, b"used");
        let what = || Remembered { caller: caller("a"), until: 100, epoch: 0 };
        memory.remember(used, what());
        for n in 0..5 * MOST {
            memory.remember(memory.name(owner, &n.to_ne_bytes()), what());
            if n % 1000 == 0 {
                assert!(memory.recall(&used, 1, 0).is_some(), "{n}");
            }
        }
        assert!(memory.newer.borrow().len() + memory.older.borrow().len() <= 2 * MOST);
        assert!(memory.recall(&memory.name(owner, &0usize.to_ne_bytes()), 1, 0).is_none());
    }
}
