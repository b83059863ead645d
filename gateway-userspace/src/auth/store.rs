//! API keys that `gateway key` makes and takes away: kept sealed under the state directory, in force on all workers at once.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::memory::Table;
use crate::{
    config::{model::KeyHash, units::Moment},
    seal::{FileError, SealError, Vault},
};

const FILE: &str = "keys.sealed";
const PURPOSE: &str = "api keys";
/// Of all consumers together.
const MOST: usize = 100_000;

/// Where keys are kept.
#[derive(Debug)]
pub struct KeyStore {
    path: PathBuf,
    /// Without a key nothing is kept.
    vault: Arc<Vault>,
    kept: Mutex<Kept>,
    /// What workers look at.
    added: ArcSwap<Added>,
}

#[derive(Debug, Default)]
pub struct Added {
    /// Hashes are keyed with it (BLAKE3), so that the file alone does not tell whether a guess is right.
    pepper: [u8; 32],
    keys: Table<KeyHash, AddedKey>,
    /// Of the config.
    revoked: HashSet<KeyHash>,
}

#[derive(Debug)]
pub struct AddedKey {
    pub consumer: String,
    pub until: Option<Moment>,
}

/// As it is kept.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Kept {
    pepper: [u8; 32],
    keys: Vec<KeptKey>,
    /// Keys of the config that are no good any more.
    revoked: Vec<[u8; 32]>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptKey {
    consumer: String,
    id: String,
    hash: [u8; 32],
    until: Option<u64>,
    made: u64,
}

/// A key as it is listed.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub id: String,
    pub until: Option<Moment>,
    pub made: Moment,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "keys are kept sealed, and there is nothing to seal them with: add [state] with key = {{ file = \"…\" }}"
    )]
    NoKey,
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: what was sealed is no list of keys: {error}", path.display())]
    Content { path: PathBuf, error: serde_json::Error },
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the consumer has a key {0} already")]
    Taken(String),
    #[error("there are {MOST} keys already")]
    Full,
}

impl KeyStore {
    /// Opens what is kept in `directory`. What an earlier key sealed is sealed anew.
    ///
    /// # Errors
    /// The file cannot be opened with the vault's key.
    pub fn open(directory: &Path, vault: &Arc<Vault>) -> Result<KeyStore, StoreError> {
        let path = directory.join(FILE);
        let mut store =
            KeyStore { path, vault: vault.clone(), kept: Mutex::default(), added: ArcSwap::default() };
        let Some(read) = vault.read(&store.path, PURPOSE)? else { return Ok(store) };
        let Some(kept) = read.sealed() else {
            return Err(FileError::new(&store.path, SealError::NotSealed).into());
        };
        let kept: Kept = serde_json::from_slice(kept)
            .map_err(|error| StoreError::Content { path: store.path.clone(), error })?;
        if read.outdated {
            store.save(&kept)?;
        }
        store.added = ArcSwap::from_pointee(Added::of(&kept));
        store.kept = Mutex::new(kept);
        Ok(store)
    }

    /// Whether it is that of `directory`, sealed in the same way.
    pub fn is_of(&self, directory: &Path, vault: &Arc<Vault>) -> bool {
        Arc::ptr_eq(&self.vault, vault) && self.path == directory.join(FILE)
    }

    pub fn added(&self) -> arc_swap::Guard<std::sync::Arc<Added>> {
        self.added.load()
    }

    /// A new key: its id and, for this once, itself.
    ///
    /// # Errors
    /// It cannot be kept, and so is none.
    pub fn make(
        &self,
        consumer: &str,
        id: Option<String>,
        until: Option<Moment>,
        now: Moment,
        taken: impl Fn(&str) -> bool,
    ) -> Result<(String, String), StoreError> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| SealError::NoRandomness)?;
        let key = format!("gw_{}", base62(&secret));
        self.change(|kept| {
            if kept.keys.len() >= MOST {
                return Err(StoreError::Full);
            }
            if kept.pepper == [0; 32] {
                aws_lc_rs::rand::fill(&mut kept.pepper).map_err(|_| SealError::NoRandomness)?;
            }
            let used =
                |id: &str| taken(id) || kept.keys.iter().any(|key| key.consumer == consumer && key.id == id);
            let id = match id {
                Some(id) if used(&id) => return Err(StoreError::Taken(id)),
                Some(id) => id,
                None => (1..).map(|n| format!("key-{n}")).find(|id| !used(id)).unwrap_or_default(),
            };
            let hash = *blake3::keyed_hash(&kept.pepper, key.as_bytes()).as_bytes();
            let (until, made) = (until.map(|until| until.seconds), now.seconds);
            kept.keys.push(KeptKey { consumer: consumer.into(), id: id.clone(), hash, until, made });
            Ok(id)
        })
        .map(|id| (id, key))
    }

    /// Takes a key away: one that was made here, or (`configured`) one of the config. False: there is none.
    ///
    /// # Errors
    /// That cannot be kept, and so is not done.
    pub fn revoke(&self, consumer: &str, id: &str, configured: Option<KeyHash>) -> Result<bool, StoreError> {
        self.change(|kept| {
            let before = kept.keys.len();
            kept.keys.retain(|key| !(key.consumer == consumer && key.id == id));
            let mut done = kept.keys.len() < before;
            if let Some(KeyHash(hash)) = configured
                && !kept.revoked.contains(&hash)
            {
                kept.revoked.push(hash);
                done = true;
            }
            Ok(done)
        })
    }

    pub fn list(&self, consumer: &str) -> Vec<Listed> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of = kept.keys.iter().filter(|key| key.consumer == consumer);
        of.map(|key| Listed {
            id: key.id.clone(),
            until: key.until.map(|seconds| Moment { seconds }),
            made: Moment { seconds: key.made },
        })
        .collect()
    }

    /// First on disk, then in force.
    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = kept.clone();
        let result = change(&mut new)?;
        self.save(&new)?;
        self.added.store(Added::of(&new).into());
        *kept = new;
        Ok(result)
    }

    fn save(&self, kept: &Kept) -> Result<(), StoreError> {
        if self.vault.sealer().is_none() {
            return Err(StoreError::NoKey);
        }
        let plain = serde_json::to_vec(kept)
            .map_err(|error| StoreError::Content { path: self.path.clone(), error })?;
        Ok(self.vault.write(&self.path, PURPOSE, &Zeroizing::new(plain))?)
    }
}

impl Added {
    fn of(kept: &Kept) -> Self {
        let key = |key: &KeptKey| {
            let until = key.until.map(|seconds| Moment { seconds });
            (KeyHash(key.hash), AddedKey { consumer: key.consumer.clone(), until })
        };
        let keys: HashMap<_, _, _> = kept.keys.iter().map(key).collect();
        Added { pepper: kept.pepper, keys, revoked: kept.revoked.iter().copied().map(KeyHash).collect() }
    }

    pub fn find(&self, key: &[u8]) -> Option<&AddedKey> {
        if self.keys.is_empty() {
            return None;
        }
        self.keys.get(&KeyHash(*blake3::keyed_hash(&self.pepper, key).as_bytes()))
    }

    pub fn revoked(&self, hash: &KeyHash) -> bool {
        !self.revoked.is_empty() && self.revoked.contains(hash)
    }
}

/// Letters and digits, of which a double click takes all.
fn base62(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    // 62^43 is more than 2^256.
    let digits = (0..43).map(|_| {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        char::from(DIGITS[rest as usize])
    });
    digits.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        config::model::{Secret, State},
        seal::{self, Sealer},
    };

    fn vault(dir: &Path) -> Arc<Vault> {
        let secret = dir.join("state.key");
        seal::write(&secret, b"a secret of more than sixteen bytes").unwrap();
        Vault::of(Sealer::new(&State { key: Some(Secret::File(secret)), ..State::default() }).unwrap())
    }

    #[test]
    fn keys_outlive_the_store_and_only_their_hashes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, now) = (vault(dir.path()), Moment { seconds: 7 });
        let state = dir.path().join("state");
        let store = KeyStore::open(&state, &vault).unwrap();
        let free = |_: &str| false;
        let (id, key) = store.make("acme", None, None, now, free).unwrap();
        let (named, other) =
            store.make("acme", Some("ci".into()), Some(Moment { seconds: 99 }), now, free).unwrap();
        assert_eq!((id.as_str(), named.as_str(), key.len()), ("key-1", "ci", 46));
        assert!(key != other && store.added().find(key.as_bytes()).is_some());
        assert!(matches!(store.make("acme", Some("ci".into()), None, now, free), Err(StoreError::Taken(_))));
        assert!(store.is_of(&state, &vault));
        let again = KeyStore::open(&state, &vault).unwrap();
        assert_eq!(again.added().find(other.as_bytes()).unwrap().until, Some(Moment { seconds: 99 }));
        assert!(again.added().find(b"gw_other").is_none());
        assert!(again.revoke("acme", "ci", None).unwrap() && !again.revoke("acme", "ci", None).unwrap());
        assert!(!again.revoke("other", "key-1", None).unwrap());
        assert!(again.revoke("acme", "k1", Some(KeyHash([1; 32]))).unwrap());
        let last = KeyStore::open(&state, &vault).unwrap();
        assert!(last.added().find(other.as_bytes()).is_none() && last.added().revoked(&KeyHash([1; 32])));
        assert_eq!(last.list("acme").len(), 1);
        let file = fs::read(dir.path().join("state/keys.sealed")).unwrap();
        assert!(!file.windows(4).any(|part| part == b"acme"));
        // Without its key it is not as if there were none: what was revoked would be good again.
        let without = KeyStore::open(&state, &Arc::default()).unwrap_err();
        assert!(without.to_string().contains("name it as `key`"), "{without}");
        fs::write(state.join("keys.sealed"), b"{}").unwrap();
        assert!(KeyStore::open(&state, &vault).unwrap_err().to_string().contains("not sealed"));
    }

    #[test]
    fn without_a_key_nothing_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeyStore::open(dir.path(), &Arc::default()).unwrap();
        let made = store.make("acme", None, None, Moment { seconds: 1 }, |_| false);
        assert!(matches!(made, Err(StoreError::NoKey)));
        assert!(store.list("acme").is_empty() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn base62_tells_all_secrets_apart() {
        let (mut one, mut two) = ([0xff; 32], [0xff; 32]);
        (one[31], two[31]) = (0, 1);
        assert_ne!(base62(&one), base62(&two));
        assert_eq!(base62(&[0; 32]), "0".repeat(43));
    }
}
