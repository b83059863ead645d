//! Secrets: where they are read from, and files that only who has the key can read or change.
//!
//! A sealed file is AES-256-GCM (NIST SP 800-38D) under a key that is derived from the secret of `[state] key` by BLAKE3's
//! key derivation: `"GWSEAL"`, a version (1 byte, 1), an algorithm (1 byte, 1), the key's id (8 bytes), a random nonce
//! (12 bytes), the ciphertext, the tag (16 bytes). What comes before the nonce, and what the file is for, are authenticated
//! too: a file cannot be put in another's place.

mod secret;
mod vault;

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    config::model::{Secret, State},
    hex,
};

pub use secret::{SecretError, place, read, read_telling};
pub use vault::{FileError, FileErrorKind, Kept, Vault};

const MAGIC: &[u8; 6] = b"GWSEAL";
const VERSION: u8 = 1;
const ALGORITHM: u8 = 1;
const ID: usize = 8;
const HEADER: usize = MAGIC.len() + 2 + ID;
/// A shorter secret could be guessed.
const SHORTEST: usize = 16;

/// Seals with one key, opens with that and those before it.
pub struct Sealer {
    /// The first is the one in use.
    keys: Vec<Key>,
}

struct Key {
    id: [u8; ID],
    key: LessSafeKey,
    /// What keys for other things are made of.
    root: Zeroizing<[u8; 32]>,
}

/// A key for one thing of its own, and whose it is.
pub struct Derived {
    pub id: [u8; ID],
    pub key: Zeroizing<[u8; 32]>,
}

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret is shorter than {SHORTEST} bytes, and could be guessed")]
    Short,
    #[error("it is not sealed")]
    NotSealed,
    #[error("it is sealed in a way that this version does not know ({0})")]
    Version(u8),
    #[error("it is sealed with another key ({sealed}); `key` is {ours}: name the key before in `old_keys`")]
    WrongKey { sealed: String, ours: String },
    #[error("it was changed since it was sealed, or is another file's")]
    Changed,
    #[error("no randomness is to be had")]
    NoRandomness,
}

/// What was sealed.
#[derive(Debug)]
pub struct Opened {
    pub plain: Zeroizing<Vec<u8>>,
    /// By a key that is to be used no more.
    pub outdated: bool,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| hex::text(&key.id))).finish()
    }
}

impl Sealer {
    /// `None`: the config has no key.
    ///
    /// # Errors
    /// A secret cannot be read, or is none.
    pub fn new(config: &State) -> Result<Option<Sealer>, SealError> {
        let Some(current) = &config.key else { return Ok(None) };
        let secrets = std::iter::once(current).chain(&config.old_keys);
        Ok(Some(Sealer { keys: secrets.map(Key::of).collect::<Result<_, _>>()? }))
    }

    /// Whether these bytes are of a sealed file.
    pub fn made(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Whether it seals and opens the same.
    pub fn is(&self, other: &Sealer) -> bool {
        self.keys.iter().map(|key| key.id).eq(other.keys.iter().map(|key| key.id))
    }

    /// A key for one thing: of the key with this id, or (`None`) of the one in use.
    ///
    /// # Errors
    /// There is no key with that id.
    pub fn derive(&self, id: Option<&[u8]>, purpose: &str, salt: &[u8]) -> Result<Derived, SealError> {
        let ours = &self.keys[0];
        let key = match id {
            None => ours,
            Some(id) => self
                .keys
                .iter()
                .find(|key| key.id == id)
                .ok_or_else(|| SealError::WrongKey { sealed: hex::text(id), ours: hex::text(&ours.id) })?,
        };
        let mut hasher = blake3::Hasher::new_keyed(&key.root);
        hasher.update(&(purpose.len() as u64).to_le_bytes()).update(purpose.as_bytes()).update(salt);
        Ok(Derived { id: key.id, key: Zeroizing::new(*hasher.finalize().as_bytes()) })
    }

    /// # Errors
    /// There is no randomness.
    pub fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut sealed = header(&key.id);
        let mut body = plain.to_vec();
        let aad = Aad::from([&sealed, purpose.as_bytes()].concat());
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce_used, aad, &mut body).map_err(|_| SealError::NoRandomness)?;
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// # Errors
    /// It was not sealed for this, with a key that is known.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Opened, SealError> {
        let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::NotSealed)?;
        match rest {
            [VERSION, ALGORITHM, ..] => {}
            [version, ..] => return Err(SealError::Version(*version)),
            [] => return Err(SealError::Changed),
        }
        let (header, rest) = sealed.split_at_checked(HEADER).ok_or(SealError::Changed)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Changed)?;
        let id = &header[HEADER - ID..];
        let known = self.keys.iter().position(|key| key.id == id);
        let Some(at) = known else {
            return Err(SealError::WrongKey { sealed: hex::text(id), ours: hex::text(&self.keys[0].id) });
        };
        let aad = Aad::from([header, purpose.as_bytes()].concat());
        let mut plain = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length =
            self.keys[at].key.open_in_place(nonce, aad, &mut plain).map_err(|_| SealError::Changed)?.len();
        plain.truncate(length);
        Ok(Opened { plain, outdated: at > 0 })
    }
}

impl Key {
    fn of(secret: &Secret) -> Result<Key, SealError> {
        let secret = read(secret)?;
        if secret.len() < SHORTEST {
            return Err(SealError::Short);
        }
        let key = Zeroizing::new(blake3::derive_key("gateway 2026 seal: key of AES-256-GCM", &secret));
        let root = Zeroizing::new(blake3::derive_key("gateway 2026 seal: root of other keys", &secret));
        let id = blake3::derive_key("gateway 2026 seal: id of the key", &secret);
        let mut short = [0; ID];
        short.copy_from_slice(&id[..ID]);
        // The length is right.
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SealError::Short)?;
        Ok(Key { id: short, key: LessSafeKey::new(key), root })
    }
}

fn header(id: &[u8; ID]) -> Vec<u8> {
    [MAGIC.as_slice(), &[VERSION, ALGORITHM], id].concat()
}

/// Writes a file for its owner only, whole or not at all, also over a power cut.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    put(path, bytes, None)
}

/// As [`write`], of a file that is there, whose rights stay. Where it is a link, what that leads to is replaced.
///
/// # Errors
/// It is not there, or cannot be written.
pub fn rewrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let rights = fs::metadata(&path)?.permissions();
    put(&path, bytes, Some(rights))
}

fn put(path: &Path, bytes: &[u8], rights: Option<Permissions>) -> io::Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        if let Some(rights) = rights {
            file.set_permissions(rights)?;
        }
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// One whose secrets are these texts, the first in use.
    fn sealer(dir: &Path, secrets: &[&str]) -> Result<Sealer, SealError> {
        let mut files = secrets.iter().enumerate().map(|(n, secret)| {
            let path = dir.join(format!("{n}-{}", secrets.len()));
            write(&path, secret.as_bytes()).unwrap();
            Secret::File(path)
        });
        let key = files.next();
        Ok(Sealer::new(&State { key, old_keys: files.collect(), ..State::default() })?.unwrap())
    }

    const ONE: &str = "the first secret of all";
    const TWO: &str = "the second secret of all";

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_purpose_only() {
        let dir = tempfile::tempdir().unwrap();
        let one = sealer(dir.path(), &[ONE]).unwrap();
        let sealed = one.seal("keys", b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(sealed, one.seal("keys", b"secret").unwrap(), "nonces differ");
        assert_eq!(one.open("keys", &sealed).unwrap().plain.as_slice(), b"secret");
        assert!(matches!(one.open("other", &sealed), Err(SealError::Changed)));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(one.open("keys", &changed).is_err(), "byte {at}");
            assert!(one.open("keys", &sealed[..at]).is_err(), "the first {at}");
        }
        assert!(matches!(one.open("keys", b"{}"), Err(SealError::NotSealed)));
        assert!(matches!(sealer(dir.path(), &["too short"]), Err(SealError::Short)));
    }

    #[test]
    fn a_key_is_rotated_by_naming_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sealer(dir.path(), &[ONE]).unwrap().seal("keys", b"secret").unwrap();
        let wrong = sealer(dir.path(), &[TWO]).unwrap().open("keys", &sealed).unwrap_err();
        assert!(
            matches!(&wrong, SealError::WrongKey { .. }) && wrong.to_string().contains("old_keys"),
            "{wrong}"
        );
        let both = sealer(dir.path(), &[TWO, ONE]).unwrap();
        assert!(both.open("keys", &sealed).unwrap().outdated);
        let again = both.seal("keys", b"secret").unwrap();
        let opened = sealer(dir.path(), &[TWO]).unwrap().open("keys", &again).unwrap();
        assert_eq!((opened.plain.as_slice(), opened.outdated), (&b"secret"[..], false));
    }

    #[test]
    fn each_thing_has_a_key_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (one, both) = (sealer(dir.path(), &[ONE]).unwrap(), sealer(dir.path(), &[TWO, ONE]).unwrap());
        let key = |sealer: &Sealer, id: Option<&[u8]>, purpose, salt: &[u8]| {
            sealer.derive(id, purpose, salt).map(|derived| *derived.key)
        };
        let first = key(&one, None, "a", b"x").unwrap();
        assert_ne!(first, key(&one, None, "b", b"x").unwrap());
        assert_ne!(first, key(&one, None, "a", b"y").unwrap());
        assert_ne!(key(&one, None, "a", b"bx").unwrap(), key(&one, None, "ab", b"x").unwrap());
        let id = one.derive(None, "a", b"x").unwrap().id;
        assert_eq!(first, key(&both, Some(&id), "a", b"x").unwrap());
        assert_ne!(first, key(&both, None, "a", b"x").unwrap());
        let other = sealer(dir.path(), &[TWO]).unwrap();
        assert!(matches!(key(&other, Some(&id), "a", b"x"), Err(SealError::WrongKey { .. })));
    }

    #[test]
    fn files_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        write(&path, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
}
