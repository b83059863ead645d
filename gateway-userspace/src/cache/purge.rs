//! Taking stored responses out, by whatever names them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::SystemTime,
};

use http::{HeaderMap, HeaderName};

use super::key::{self, KeyParts, Place};
use crate::sync::lock;

/// Purges that are remembered for answers that were asked for before them.
const REMEMBERED: usize = 256;
/// … and for what is on disk.
const REMEMBERED_FOR_DISK: usize = 1 << 18;
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

/// One that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// Later ones have higher numbers, also over a restart: microseconds since 1970, or one more than the one before.
    pub number: u64,
    pub purge: Purge,
    /// It only marked as stale, since then: milliseconds since 1970.
    pub soft: Option<i64>,
}

/// What purges did to a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    Out,
    /// Since then.
    Stale(i64),
}

/// The purges so far.
#[derive(Debug)]
pub struct Purges {
    count: AtomicU64,
    recent: Mutex<VecDeque<Noted>>,
    /// What is on disk is looked at when it is read. `None`: nothing is.
    kept: Mutex<Option<Log>>,
}

impl Default for Purges {
    fn default() -> Self {
        // Below what comes, and above what earlier processes noted.
        Purges { count: AtomicU64::new(micros()), recent: Mutex::default(), kept: Mutex::default() }
    }
}

impl Purges {
    /// What is asked for from now on is newer than all purges so far.
    pub fn now(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// For what is on its way.
    pub fn note(&self, purge: Purge) {
        self.note_recent(&mut lock(&self.recent), purge, None);
    }

    /// For what is on disk too.
    pub fn note_for_disk(&self, purge: Purge, soft: Option<i64>) -> Noted {
        let mut recent = lock(&self.recent);
        let noted = self.note_recent(&mut recent, purge, soft);
        if let Some(log) = &mut *lock(&self.kept) {
            log.add(noted.clone());
        }
        noted
    }

    fn note_recent(&self, recent: &mut VecDeque<Noted>, purge: Purge, soft: Option<i64>) -> Noted {
        let noted = Noted { number: micros().max(self.now() + 1), purge, soft };
        recent.push_back(noted.clone());
        if recent.len() > REMEMBERED {
            recent.pop_front();
        }
        self.count.store(noted.number, SeqCst);
        noted
    }

    /// Whether something that was asked for at `began` was purged since, or may have been.
    pub fn took(&self, began: u64, parts: &KeyParts, key: &[u8], tags: &[Box<[u8]>]) -> bool {
        if self.now() == began {
            return false;
        }
        let recent = lock(&self.recent);
        let forgotten =
            recent.len() == REMEMBERED && recent.front().is_some_and(|oldest| oldest.number > began);
        forgotten || recent.iter().any(|noted| noted.number > began && noted.purge.takes(parts, key, tags))
    }

    /// What purges did to a response on disk that was asked for at `began`.
    pub fn taken(&self, began: u64, parts: &KeyParts, key: &[u8], tags: &[Box<[u8]>]) -> Option<Taken> {
        lock(&self.kept).as_ref()?.taken(began, parts, key, tags)
    }

    /// From now on there is something on disk.
    pub fn keep_for_disk(&self) {
        lock(&self.kept).get_or_insert_default();
    }

    /// Takes up what the disk remembers; what it does not know yet comes back, with numbers above all of that.
    pub fn adopt(&self, found: Vec<Noted>) -> Vec<Noted> {
        let mut recent = lock(&self.recent);
        let mut kept = lock(&self.kept);
        let highest = found.iter().map(|noted| noted.number).max().unwrap_or_default();
        self.count.fetch_max(highest, SeqCst);
        let ours = kept.take().unwrap_or_default().noted;
        let mut log = Log::default();
        found.into_iter().for_each(|noted| log.add(noted));
        let mut unknown = Vec::with_capacity(ours.len());
        for mut noted in ours.into_values() {
            // The clock was set back.
            if noted.number <= highest {
                noted = self.note_recent(&mut recent, noted.purge, noted.soft);
            }
            log.add(noted.clone());
            unknown.push(noted);
        }
        *kept = Some(log);
        unknown
    }

    /// Nothing on disk is older than this one.
    pub fn forget(&self, number: u64) {
        if let Some(log) = &mut *lock(&self.kept) {
            log.remove(number);
        }
    }
}

/// Purges by what they look for.
#[derive(Debug, Default)]
struct Log {
    noted: BTreeMap<u64, Noted>,
    by_path: HashMap<Box<[u8]>, Vec<u64>>,
    by_tag: HashMap<Box<[u8]>, Vec<u64>>,
    /// By how URLs begin, and of all.
    others: Vec<u64>,
    /// What was asked for before may have been purged.
    forgotten: u64,
}

impl Log {
    fn add(&mut self, noted: Noted) {
        if noted.purge == Purge::All && noted.soft.is_none() {
            *self = Log { forgotten: self.forgotten, ..Log::default() };
        }
        // One that says the same and more stands for those before it.
        let before = self.like(&noted.purge).to_vec();
        for number in before {
            let same = self
                .noted
                .get(&number)
                .is_some_and(|old| old.purge == noted.purge && (noted.soft.is_none() || old.soft.is_some()));
            if same {
                self.remove(number);
            }
        }
        match &noted.purge {
            Purge::At(place) if place.is_whole() => {
                self.by_path.entry(place.path().as_bytes().into()).or_default().push(noted.number);
            }
            Purge::Tag(tag) => self.by_tag.entry(tag.clone()).or_default().push(noted.number),
            _ => self.others.push(noted.number),
        }
        self.noted.insert(noted.number, noted);
        while self.noted.len() > REMEMBERED_FOR_DISK
            && let Some(oldest) = self.noted.keys().next().copied()
        {
            self.remove(oldest);
            self.forgotten = oldest;
        }
    }

    fn like(&self, purge: &Purge) -> &[u64] {
        match purge {
            Purge::At(place) if place.is_whole() => {
                self.by_path.get(place.path().as_bytes()).map_or(&[], Vec::as_slice)
            }
            Purge::Tag(tag) => self.by_tag.get(tag).map_or(&[], Vec::as_slice),
            _ => &self.others,
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(gone) = self.noted.remove(&number) else { return };
        let of = |map: &mut HashMap<Box<[u8]>, Vec<u64>>, name: &[u8]| {
            if let Some(numbers) = map.get_mut(name) {
                numbers.retain(|other| *other != number);
                if numbers.is_empty() {
                    map.remove(name);
                }
            }
        };
        match &gone.purge {
            Purge::At(place) if place.is_whole() => of(&mut self.by_path, place.path().as_bytes()),
            Purge::Tag(tag) => of(&mut self.by_tag, tag),
            _ => self.others.retain(|other| *other != number),
        }
    }

    fn taken(&self, began: u64, parts: &KeyParts, key: &[u8], tags: &[Box<[u8]>]) -> Option<Taken> {
        if began < self.forgotten {
            return Some(Taken::Out);
        }
        let of_tags = tags.iter().filter_map(|tag| self.by_tag.get(tag)).flatten();
        let of_path: Box<dyn Iterator<Item = &u64>> = match key::path_of(key) {
            Some(path) => Box::new(self.by_path.get(path).into_iter().flatten()),
            // Its key has none: any will do.
            None => Box::new(self.by_path.values().flatten()),
        };
        let mut stale: Option<i64> = None;
        for number in of_tags.chain(of_path).chain(&self.others).filter(|number| **number > began) {
            let Some(noted) = self.noted.get(number) else { continue };
            if !noted.purge.takes(parts, key, tags) {
                continue;
            }
            match noted.soft {
                None => return Some(Taken::Out),
                Some(since) => stale = Some(stale.map_or(since, |before| before.min(since))),
            }
        }
        stale.map(Taken::Stale)
    }
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
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
    use crate::config::model::KeyPart;

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

    #[test]
    fn what_is_on_disk_is_judged_by_what_was_purged_after_it_was_asked_for() {
        let parts = KeyParts::new(&[KeyPart::Path]);
        let key = |path: &str| [b"http\0\0\x02\0", path.as_bytes(), b"\0\x02\0r\0"].concat();
        let at = |text, whole| Purge::At(Place::parse(text, whole).unwrap());
        let purges = Purges::default();
        purges.keep_for_disk();
        let taken = |began, path, tags: &[Box<[u8]>]| purges.taken(began, &parts, &key(path), tags);
        let (one, tag): (_, [Box<[u8]>; 1]) = (purges.now(), [b"t"[..].into()]);
        purges.note_for_disk(at("/a", true), None);
        let two = purges.now();
        purges.note_for_disk(Purge::Tag(b"t"[..].into()), Some(5));
        purges.note_for_disk(at("/b/", false), None);
        assert_eq!(taken(one, "/a", &[]), Some(Taken::Out));
        assert_eq!((taken(two, "/a", &[]), taken(one, "/c", &[])), (None, None));
        assert_eq!(
            (taken(one, "/c", &tag), taken(one, "/b/1", &tag)),
            (Some(Taken::Stale(5)), Some(Taken::Out))
        );
        // After a restart, before which the clock was ahead.
        let ahead = Noted { number: purges.now() + 1_000_000_000, purge: at("/d", true), soft: None };
        let after = purges.adopt(vec![ahead.clone()]);
        assert_eq!(after.len(), 3);
        assert!(after.iter().all(|noted| noted.number > ahead.number) && purges.now() >= after[2].number);
        assert_eq!(taken(ahead.number, "/a", &[]), Some(Taken::Out));
        assert_eq!((taken(ahead.number, "/d", &[]), taken(two, "/d", &[])), (None, Some(Taken::Out)));
        purges.note_for_disk(Purge::All, None);
        assert_eq!((taken(two, "/x", &[]), taken(purges.now(), "/x", &[])), (Some(Taken::Out), None));
    }

    #[test]
    fn a_purge_of_what_was_purged_before_takes_no_room() {
        let purges = Purges::default();
        purges.keep_for_disk();
        let count = || lock(&purges.kept).as_ref().map(|log| (log.noted.len(), log.by_tag.len()));
        for soft in [Some(1), None, None, Some(2), Some(3)] {
            purges.note_for_disk(Purge::Tag(b"t"[..].into()), soft);
        }
        assert_eq!(count(), Some((2, 1)));
        purges.forget(purges.now());
        assert_eq!(count(), Some((1, 1)));
    }
}
