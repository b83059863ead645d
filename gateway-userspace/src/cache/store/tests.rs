#[path = "../../../benches/cache/lru.rs"]
mod lru;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::cache::{
    entry::Body,
    freshness::{Asked, Rules, storable},
    vary::select,
};

fn entry(key: &str, body: usize, vary: Option<(&'static str, &'static str)>) -> Arc<Entry> {
    let rules = Rules {
        ttl: Some(Duration::from_secs(60)),
        override_ttl: false,
        negative: None,
        heuristic: false,
        while_revalidate: Duration::ZERO,
        if_error: Duration::ZERO,
        store_set_cookie: false,
    };
    let now = SystemTime::now();
    let terms = storable(&Asked::default(), StatusCode::OK, &HeaderMap::new(), &rules, now, now).unwrap();
    let (mut response, mut request) = (HeaderMap::new(), HeaderMap::new());
    if let Some((name, value)) = vary {
        response.insert("vary", name.parse().unwrap());
        request.insert(name, value.parse().unwrap());
    }
    let vary = select(&response, &request).unwrap();
    let body = Body::new(vec![Bytes::from(vec![b'x'; body])]);
    Arc::new(Entry::new(key.as_bytes().into(), vary, StatusCode::OK, response, body, Box::default(), terms))
}

fn has(store: &Store, key: &str) -> bool {
    store.get(key.as_bytes(), &HeaderMap::new()).is_some()
}

#[test]
fn bytes_are_kept_within_the_budget_and_counted_to_the_last() {
    let store = Store::new(1 << 20, 1024, 8);
    let mut sizes = 0;
    for n in 0..2000 {
        let entry = entry(&format!("key-{n}"), 1000, None);
        sizes = entry.size as u64;
        store.insert(entry);
        assert!(store.bytes() <= 1 << 20);
    }
    assert_eq!(store.bytes(), store.entries() * sizes);
    assert!(store.bytes() > (1 << 20) * 95 / 100, "{}", store.bytes());
    let mut seen = 0;
    store.each(|_| seen += 1);
    assert_eq!(seen, store.entries());
    let all: Vec<_> = (0..2000).map(|n| store.remove_key(format!("key-{n}").as_bytes())).collect();
    assert_eq!(all.iter().sum::<u64>(), seen);
    assert_eq!((store.bytes(), store.entries()), (0, 0));
}

#[test]
fn a_smaller_budget_holds_at_once() {
    let store = Store::new(1 << 20, 1024, 8);
    (0..500).for_each(|n| store.insert(entry(&format!("key-{n}"), 1000, None)));
    store.resize(64 << 10, 8);
    assert!(store.bytes() <= 64 << 10 && store.bytes() > 32 << 10);
}

#[test]
fn a_scan_of_many_cold_keys_leaves_what_is_in_use() {
    const COLD: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let store = Store::new(4 << 20, 1024, 8);
    let hot: Vec<String> = (0..100).map(|n| format!("hot-{n}")).collect();
    hot.iter().for_each(|key| store.insert(entry(key, 1000, None)));
    hot.iter().for_each(|key| assert!(has(&store, key)));
    let cold = entry("cold", 1000, None);
    for n in 0..COLD {
        let key: Arc<[u8]> = n.to_ne_bytes().as_slice().into();
        let entry = Entry::new(
            key,
            Box::default(),
            StatusCode::OK,
            HeaderMap::new(),
            cold.body.clone(),
            Box::default(),
            cold.terms,
        );
        store.insert(Arc::new(entry));
        if n % 1000 == 0 {
            hot.iter().for_each(|key| drop(store.get(key.as_bytes(), &HeaderMap::new())));
        }
    }
    assert!(hot.iter().all(|key| has(&store, key)));
    assert!(store.bytes() <= 4 << 20);
}

#[test]
fn variants_are_told_apart_bounded_and_replaced_by_their_like() {
    let store = Store::new(1 << 20, 1024, 3);
    let get = |value: &str| {
        let mut request = HeaderMap::new();
        request.insert("accept-language", value.parse().unwrap());
        store.get(b"k", &request).map(|entry| entry.body.length)
    };
    for (n, language) in ["de", "en", "fr"].into_iter().enumerate() {
        store.insert(entry("k", n + 1, Some(("accept-language", language))));
    }
    assert_eq!((get("de"), get("en"), get("fr"), get("es")), (Some(1), Some(2), Some(3), None));
    store.insert(entry("k", 9, Some(("accept-language", "en"))));
    assert_eq!((store.entries(), get("en")), (3, Some(9)));
    store.insert(entry("k", 4, Some(("accept-language", "es"))));
    assert_eq!((store.entries(), get("de"), get("es")), (3, None, Some(4)));
    assert_eq!(store.remove_key(b"k"), 3);
    assert_eq!(store.bytes(), 0);
}

/// Zipf(0.9) over objects of one size, a tenth of which fit; a million of them where that is not slow.
#[test]
fn the_hit_ratio_is_better_than_lru_s() {
    const OBJECTS: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    let trace = lru::trace(OBJECTS);
    let template = entry("t", 3000, None);
    let make = |n: u32| {
        let key: Arc<[u8]> = n.to_ne_bytes().as_slice().into();
        let (headers, body) = (HeaderMap::new(), template.body.clone());
        Arc::new(Entry::new(
            key,
            Box::default(),
            StatusCode::OK,
            headers,
            body,
            Box::default(),
            template.terms,
        ))
    };
    let fits = OBJECTS / 10;
    let store = Store::new((make(0).size * fits) as u64, 1024, 1);
    let (ours, lru) = lru::beside_lru(&trace, fits, |n| {
        let hit = store.get(&n.to_ne_bytes(), &HeaderMap::new()).is_some();
        if !hit {
            store.insert(make(n));
        }
        hit
    });
    println!("S3-FIFO {ours:.4}, LRU {lru:.4}");
    assert!(ours > lru + 0.05, "{ours} against {lru}");
}

#[test]
fn threads_that_store_read_and_purge_at_once_leave_it_whole() {
    let store = Store::new(256 << 10, 1024, 4);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let store = &store;
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(thread);
                for _ in 0..5_000 {
                    let key = format!("k{}", random.u32(..300));
                    match random.u8(..10) {
                        0..4 => store.insert(entry(&key, random.usize(..2000), None)),
                        4 => drop(store.remove_key(key.as_bytes())),
                        5 => {
                            if let Some(entry) = store.get(key.as_bytes(), &HeaderMap::new()) {
                                store.remove(&entry);
                            }
                        }
                        _ => drop(store.get(key.as_bytes(), &HeaderMap::new())),
                    }
                }
            });
        }
    });
    let (mut bytes, mut entries) = (0, 0);
    store.each(|entry| {
        bytes += entry.size as u64;
        entries += 1;
    });
    assert_eq!((store.bytes(), store.entries()), (bytes, entries));
    assert!(bytes <= 256 << 10);
}
