//! `[consumer.NAME]`, compiled, and the keys that they call with.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hasher,
    sync::Arc,
};

use super::{Caller, KeyStore, memory::Table};
use crate::config::{
    model::{self, CertMark, KeyHash},
    units::Moment,
};

#[derive(Debug)]
pub struct Consumers {
    keys: Table<KeyHash, Key>,
    /// Keys that were made since, and taken away.
    store: Arc<KeyStore>,
    callers: HashMap<Arc<str>, Arc<Caller>>,
    certs: HashMap<CertMark, Arc<Caller>>,
}

#[derive(Debug)]
struct Key {
    caller: Arc<Caller>,
    until: Option<Moment>,
}

/// What a key is good for.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Caller(Arc<Caller>),
    Expired,
    Unknown,
}

impl Consumers {
    pub fn new(config: &BTreeMap<String, model::Consumer>, store: Arc<KeyStore>) -> Self {
        let (mut keys, mut callers) = (HashMap::default(), HashMap::new());
        let mut certs = HashMap::new();
        for (name, consumer) in config {
            let caller = Arc::new(Caller {
                consumer: name.as_str().into(),
                tier: consumer.tier.as_deref().map(Arc::from),
                grants: consumer.grants.iter().map(|grant| Arc::from(grant.as_str())).collect(),
                ..Caller::default()
            });
            callers.insert(caller.consumer.clone(), caller.clone());
            certs.extend(consumer.certs.iter().map(|mark| (mark.clone(), caller.clone())));
            for key in &consumer.keys {
                keys.insert(key.hash, Key { caller: caller.clone(), until: key.until });
            }
        }
        Consumers { keys, store, callers, certs }
    }

    /// Whose certificates have this.
    pub fn of_cert(&self, mark: &CertMark) -> Option<&Arc<Caller>> {
        self.certs.get(mark)
    }

    /// The one of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.callers.get(name)
    }

    /// Whose key it is. Only hashes are compared: how long that takes tells of a hash at most, and from a part of a hash
    /// nobody gets nearer to a key that has it.
    pub fn of_key(&self, key: &[u8], now: Moment) -> Found {
        let added = self.store.added();
        let name = hash(key);
        let (caller, until) = match self.keys.get(&name) {
            Some(known) if !added.revoked(&name) => (Some(&known.caller), known.until),
            Some(_) => return Found::Unknown,
            None => match added.find(key) {
                Some(made) => (self.callers.get(&*made.consumer), made.until),
                None => return Found::Unknown,
            },
        };
        match caller {
            _ if until.is_some_and(|until| until <= now) => Found::Expired,
            Some(caller) => Found::Caller(caller.clone()),
            // The config does not have it any more.
            None => Found::Unknown,
        }
    }
}

/// As `blake3:HEX` in the config.
pub fn hash(key: &[u8]) -> KeyHash {
    KeyHash(*blake3::hash(key).as_bytes())
}

/// The first bytes of a hash are a hash. Clients cannot make a table of hashes uneven: they put nothing into it.
#[derive(Debug, Default)]
pub struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{model::ConsumerKey, units::Place};

    #[test]
    fn a_key_is_good_until_it_expires() {
        let at = Place { file: Default::default(), line: 0, column: 0 }.into();
        let key =
            |id: &str, text: &str, until| ConsumerKey { id: id.into(), hash: hash(text.as_bytes()), until };
        let keys = vec![key("a", "key-a", None), key("b", "key-b", Some(Moment { seconds: 100 }))];
        let acme = model::Consumer {
            at,
            tier: Some("gold".into()),
            grants: vec!["r".into()],
            keys,
            passwords: vec![],
            certs: vec![],
            secrets: vec![],
        };
        let store = KeyStore::open(std::path::Path::new("none"), &Arc::default()).unwrap();
        let consumers = Consumers::new(&BTreeMap::from([("acme".to_owned(), acme)]), Arc::new(store));
        let of = |key: &str, seconds| consumers.of_key(key.as_bytes(), Moment { seconds });
        assert!(
            matches!(of("key-a", 1000), Found::Caller(caller) if &*caller.consumer == "acme" && caller.granted("r"))
        );
        assert!(matches!(of("key-b", 99), Found::Caller(_)));
        assert_eq!(of("key-b", 100), Found::Expired);
        assert_eq!(of("key-c", 1), Found::Unknown);
        assert_eq!(of("", 1), Found::Unknown);
    }

    #[test]
    fn the_hash_is_that_of_b3sum() {
        assert_eq!(
            hash(b"").to_string(),
            "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }
}
