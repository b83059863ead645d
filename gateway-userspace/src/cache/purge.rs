//! Taking stored responses out, by whatever names them.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use http::{HeaderMap, HeaderName};

use super::key::{KeyParts, Place};

/// Purges that are remembered for answers that were asked for before them.
const REMEMBERED: usize = 256;
/// Tags of one response.
const MOST_TAGS: usize = 256;

/// What goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    All,
    /// By URL, or by how it begins.
    At(Place),
    Tag(Box<[u8]>),
}

impl Purge {
    pub fn takes(&self, parts: &KeyParts, key: &[u8], tags: &[Box<[u8]>]) -> bool {
        match self {
            Purge::All => true,
            Purge::At(place) => place.takes(parts, key),
            Purge::Tag(tag) => tags.contains(tag),
        }
    }
}

/// The purges so far.
#[derive(Debug, Default)]
pub struct Purges {
    count: AtomicU64,
    recent: Mutex<VecDeque<(u64, Purge)>>,
}

impl Purges {
    /// What is asked for from now on is newer than all purges so far.
    pub fn now(&self) -> u64 {
        self.count.load(SeqCst)
    }

    pub fn note(&self, purge: Purge) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.count.fetch_add(1, SeqCst) + 1;
        recent.push_back((number, purge));
        if recent.len() > REMEMBERED {
            recent.pop_front();
        }
    }

    /// Whether something that was asked for at `began` was purged since, or may have been.
    pub fn took(&self, began: u64, parts: &KeyParts, key: &[u8], tags: &[Box<[u8]>]) -> bool {
        if self.now() == began {
            return false;
        }
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = recent.front().is_some_and(|(oldest, _)| *oldest > began + 1);
        forgotten || recent.iter().any(|(number, purge)| *number > began && purge.takes(parts, key, tags))
    }
}

/// Fields that name a response's tags, apart by spaces or commas.
pub const TAG_FIELDS: [HeaderName; 2] =
    [HeaderName::from_static("surrogate-key"), HeaderName::from_static("cache-tag")];

pub fn tags(headers: &HeaderMap) -> Box<[Box<[u8]>]> {
    let mut tags: Vec<Box<[u8]>> = Vec::new();
    for name in &TAG_FIELDS {
        for line in headers.get_all(name) {
            let words = line.as_bytes().split(|byte| matches!(byte, b' ' | b',' | b'\t'));
            tags.extend(words.filter(|word| !word.is_empty()).map(Box::from));
        }
    }
    tags.sort_unstable();
    tags.dedup();
    tags.truncate(MOST_TAGS);
    tags.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_before_a_purge_is_not_kept_after_it() {
        let parts = KeyParts::new(&[]);
        let purges = Purges::default();
        let before = purges.now();
        purges.note(Purge::Tag(b"a"[..].into()));
        let tags: [Box<[u8]>; 1] = [b"a"[..].into()];
        assert!(purges.took(before, &parts, b"", &tags) && !purges.took(before, &parts, b"", &[]));
        assert!(!purges.took(purges.now(), &parts, b"", &tags));
        for _ in 0..=REMEMBERED {
            purges.note(Purge::Tag(b"b"[..].into()));
        }
        // It is not known any more.
        assert!(purges.took(before, &parts, b"", &[]));
    }

    #[test]
    fn tags_are_words_of_both_fields() {
        let mut headers = HeaderMap::new();
        headers.append("surrogate-key", "b a".parse().unwrap());
        headers.append("cache-tag", "c,a".parse().unwrap());
        let tags = tags(&headers);
        assert_eq!(tags.iter().map(|tag| &**tag).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    }
}
