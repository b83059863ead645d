use std::{path::Path, time::Instant};

use bytes::Bytes;
use http::StatusCode;
use tempfile::TempDir;

use super::*;
use crate::{
    cache::{
        entry::Body,
        freshness::{Terms, millis},
        key::Place,
        purge::Purge,
    },
    config::model::KeyPart,
};

const MIB: u64 = 1 << 20;

/// A cache's tiers, without the cache.
struct Tier {
    disk: Disk,
    store: Arc<Store>,
    purges: Arc<Purges>,
    parts: KeyParts,
}

impl Tier {
    fn at(path: &Path, size: u64) -> Tier {
        let parts = KeyParts::new(&[KeyPart::Path]);
        let (store, purges) = (Arc::new(Store::new(64 * MIB, MIB, 8)), Arc::<Purges>::default());
        let wanted = Wanted { directory: path.to_owned(), size, segment: MIB, vault: Arc::default() };
        let disk = Disk::start(&"c".into(), &wanted, &store, &purges, &parts, 8);
        let tier = Tier { disk, store, purges, parts };
        tier.until("it is ready", |disk| disk.state() == State::Ready);
        tier
    }

    fn until(&self, what: &str, is_so: impl Fn(&Disk) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so(&self.disk) {
            assert!(Instant::now() < end, "{what}: {:?}", self.disk);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn hash(path: &str) -> u128 {
        path.bytes().fold(1, |hash, byte| hash * 257 + u128::from(byte))
    }

    fn key(&self, path: &str) -> Vec<u8> {
        [b"http\0\0\x02\0", path.as_bytes(), b"\0\x02\0r\0"].concat()
    }

    fn write(&self, path: &str, body: &[u8], tag: &str) {
        let now = millis(std::time::SystemTime::now());
        let terms = Terms {
            born: now,
            lifetime: 1_000_000,
            while_revalidate: 0,
            if_error: 0,
            no_cache: false,
            must_revalidate: true,
        };
        let mut headers = HeaderMap::new();
        headers.insert("etag", "\"v\"".parse().unwrap());
        let body = Body::new(vec![Bytes::copy_from_slice(body)]);
        let tags = [tag.as_bytes().into()];
        let entry = Entry::new(
            self.key(path).into(),
            Box::default(),
            StatusCode::OK,
            headers,
            body,
            tags.into(),
            terms,
        );
        self.disk.store(&Arc::new(entry), Tier::hash(path), self.purges.now());
    }

    /// What is on disk, not in memory.
    fn read(&self, path: &str) -> Option<Arc<Entry>> {
        let (hash, none) = (Tier::hash(path), HeaderMap::new());
        let at = self.disk.find(hash, &none)?;
        let asked = Asked { hash, at, key: self.key(path).into(), parts: self.parts.clone() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entry = runtime.block_on(self.disk.load(asked))?;
        assert!(Arc::ptr_eq(&entry, &self.store.get(&self.key(path), &none)?));
        self.store.remove(&entry);
        Some(entry)
    }

    fn body(&self, path: &str) -> Option<Vec<u8>> {
        self.read(path).map(|entry| entry.body.pieces.concat())
    }

    fn written(&self, count: u64) {
        self.until("it is written", |disk| disk.counts().written.load(Relaxed) >= count);
    }

    fn purge(&self, purge: Purge, soft: Option<i64>) {
        assert!(self.disk.purge_durably(self.purges.note_for_disk(purge, soft)));
    }
}

fn at(text: &str, whole: bool) -> Purge {
    Purge::At(Place::parse(text, whole).unwrap())
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// As after a crash: nothing is closed.
fn crash(tier: Tier) {
    let copy = tier.disk.directory().with_extension("copy");
    std::fs::create_dir_all(&copy).unwrap();
    for (_, path) in place::segments(tier.disk.directory()).unwrap() {
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let directory = tier.disk.directory().clone();
    tier.disk.close();
    std::fs::remove_dir_all(&directory).unwrap();
    std::fs::rename(copy, directory).unwrap();
}

#[test]
fn what_was_written_is_there_after_a_restart_and_after_a_crash() {
    let dir = dir();
    let path = dir.path().join("c");
    std::fs::create_dir(&path).unwrap();
    let first = Tier::at(&path, 64 * MIB);
    first.write("/a", b"one", "t");
    first.write("/a", b"two", "t");
    first.write("/b", b"", "t");
    first.written(3);
    assert_eq!(first.body("/a").as_deref(), Some(&b"two"[..]));
    first.disk.close();
    for crashes in [false, true] {
        let again = Tier::at(&path, 64 * MIB);
        let entry = again.read("/a").unwrap();
        assert_eq!((entry.headers["etag"].as_bytes(), entry.status), (&b"\"v\""[..], StatusCode::OK));
        assert_eq!(
            (again.body("/a").as_deref(), again.body("/b").as_deref()),
            (Some(&b"two"[..]), Some(&b""[..]))
        );
        assert_eq!((again.body("/c"), again.disk.entries()), (None, 2));
        again.write("/new", b"x", "t");
        again.written(1);
        match crashes {
            true => crash(again),
            false => {
                again.disk.forget(Tier::hash("/new"), None);
                again.disk.close();
            }
        }
    }
    let last = Tier::at(&path, 64 * MIB);
    assert_eq!(
        (last.body("/new").as_deref(), last.disk.counts().damaged.load(Relaxed)),
        (Some(&b"x"[..]), 0)
    );
}

#[test]
fn purges_reach_what_is_on_disk_and_hold_after_a_restart() {
    let dir = dir();
    let tier = Tier::at(dir.path(), 64 * MIB);
    for path in ["/key", "/prefix/1", "/tag", "/soft", "/gone", "/kept"] {
        let tag = if path == "/tag" { "t" } else { "u" };
        tier.write(path, path.as_bytes(), tag);
    }
    tier.written(6);
    tier.purge(at("/key", true), None);
    tier.purge(at("/prefix/", false), None);
    tier.purge(Purge::Tag(b"t"[..].into()), None);
    tier.purge(at("/soft", true), Some(5));
    tier.disk.forget(Tier::hash("/gone"), None);
    // What comes after a purge is not taken by it.
    tier.write("/key", b"new", "t");
    tier.written(7);
    let holds = |tier: &Tier| {
        for path in ["/prefix/1", "/tag", "/gone"] {
            assert_eq!(tier.body(path), None, "{path}");
        }
        assert_eq!(tier.body("/key").as_deref(), Some(&b"new"[..]));
        assert_eq!(tier.read("/soft").unwrap().stale_since(), Some(5));
        let kept = tier.read("/kept").unwrap();
        assert_eq!((&kept.body.pieces.concat()[..], kept.stale_since()), (&b"/kept"[..], None));
    };
    holds(&tier);
    crash(tier);
    let again = Tier::at(dir.path(), 64 * MIB);
    holds(&again);
    again.purge(Purge::All, None);
    assert_eq!((again.body("/kept"), again.disk.entries(), again.disk.bytes()), (None, 0, 0));
    again.disk.close();
    assert_eq!(Tier::at(dir.path(), 64 * MIB).body("/kept"), None);
}

#[test]
fn no_more_room_is_taken_than_it_has_and_what_is_in_use_stays() {
    let dir = dir();
    let tier = Tier::at(dir.path(), 8 * MIB);
    let body = vec![7; 100_000];
    tier.write("/hot", &body, "t");
    for n in 0..400u64 {
        tier.write(&format!("/{n}"), &body, "t");
        tier.written(n + 2);
        if n % 5 == 0 {
            assert_eq!(tier.body("/hot").as_deref(), Some(&body[..]), "after {n}");
        }
        assert!(tier.disk.bytes() <= 8 * MIB);
    }
    assert_eq!((tier.body("/0"), tier.body("/399").as_deref()), (None, Some(&body[..])));
    let counts = tier.disk.counts();
    assert!(counts.evicted.load(Relaxed) > 300 && tier.disk.entries() > 50, "{counts:?}");
    let on_disk: u64 =
        std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(on_disk, tier.disk.bytes());
}

#[test]
fn damage_is_counted_and_what_is_damaged_is_not_used() {
    let dir = dir();
    let path = dir.path().join("c");
    std::fs::create_dir(&path).unwrap();
    let tier = Tier::at(&path, 64 * MIB);
    for n in 0..20u8 {
        tier.write(&format!("/{n}"), &[n; 1000], "t");
    }
    tier.written(20);
    crash(tier);
    let file = place::segments(&path).unwrap().into_values().next().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    // In the middle of a body, and a record that did not come to its end.
    let middle = bytes.windows(100).position(|window| window == [10; 100]).unwrap();
    bytes[middle] ^= 1;
    bytes.truncate(bytes.len() - 40);
    std::fs::write(&file, bytes).unwrap();
    let again = Tier::at(&path, 64 * MIB);
    let damaged = || again.disk.counts().damaged.load(Relaxed);
    assert_eq!((again.disk.entries(), damaged()), (19, 1));
    for n in 0..19u8 {
        let expected = (n != 10).then(|| vec![n; 1000]);
        assert_eq!(again.body(&format!("/{n}")), expected, "{n}");
    }
    assert_eq!((again.body("/10"), again.disk.entries(), damaged()), (None, 18, 2));
}

#[test]
fn one_that_is_missing_in_between_takes_those_before_it_along() {
    let dir = dir();
    let tier = Tier::at(dir.path(), 64 * MIB);
    for n in 0..5u64 {
        tier.write(&format!("/{n}"), &vec![1; 900_000], "t");
        tier.written(n + 1);
    }
    tier.disk.close();
    let files: Vec<_> = place::segments(dir.path()).unwrap().into_values().collect();
    assert_eq!(files.len(), 5);
    std::fs::remove_file(&files[2]).unwrap();
    let again = Tier::at(dir.path(), 64 * MIB);
    let there = |n: u64| again.body(&format!("/{n}")).is_some();
    assert_eq!([0, 1, 2, 3, 4].map(there), [false, false, false, true, true]);
}

#[test]
fn a_directory_is_one_process_s_and_the_next_waits_for_it() {
    let dir = dir();
    let first = Tier::at(dir.path(), 64 * MIB);
    first.write("/a", b"one", "t");
    first.write("/b", b"one", "t");
    first.written(2);
    let parts = first.parts.clone();
    let (store, purges) = (Arc::new(Store::new(64 * MIB, MIB, 8)), Arc::<Purges>::default());
    let wanted =
        Wanted { directory: dir.path().to_owned(), size: 64 * MIB, segment: MIB, vault: Arc::default() };
    let disk = Disk::start(&"c".into(), &wanted, &store, &purges, &parts, 8);
    let second = Tier { disk, store, purges, parts };
    assert_eq!(second.disk.state(), State::Waiting);
    // What happens meanwhile holds for what is there.
    assert!(second.disk.purge_durably(second.purges.note_for_disk(at("/b", true), None)));
    second.write("/c", b"two", "t");
    first.disk.close();
    second.written(1);
    assert_eq!((second.body("/a").as_deref(), second.body("/b")), (Some(&b"one"[..]), None));
    assert_eq!(second.body("/c").as_deref(), Some(&b"two"[..]));
}

/// Run by hand: `cargo test --release … -- --ignored`, it writes 5 GiB.
#[test]
#[ignore = "writes 5 GiB"]
fn five_gibibytes_are_ready_in_two_seconds() {
    let dir = dir();
    let tier = Tier::at(dir.path(), 6 << 30);
    let body = vec![7; 16 << 10];
    let count = (5u64 << 30) / (16 << 10);
    for n in 0..count {
        tier.write(&format!("/{n}"), &body, "t");
        if n % 500 == 0 {
            tier.written(n.saturating_sub(100));
        }
    }
    tier.written(count);
    tier.disk.close();
    let began = Instant::now();
    let again = Tier::at(dir.path(), 6 << 30);
    let took = began.elapsed();
    println!("{} entries, {} bytes: ready after {took:?}", again.disk.entries(), again.disk.bytes());
    assert!(again.disk.entries() >= count && took < Duration::from_secs(2), "{took:?}");
}
