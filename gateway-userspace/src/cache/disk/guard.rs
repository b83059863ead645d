//! How it is known that a part of a segment is what was written, and (with a key) how nobody else can read it.
//!
//! Without a key each part is followed by a sum: BLAKE3, keyed by the segment's salt, of the part and of where it stands.
//! With one it is AES-256-GCM under a key of the segment's own, and the tag stands in the sum's place: the same lengths.

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::seal::{Derived, SealError, Sealer};

/// Of a sum or tag.
pub const TAG: usize = 16;
pub const SALT: usize = 16;
const PURPOSE: &str = "cache segment";
const PURPOSE_SUMS: &str = "cache segment: sums";

/// Which part of a segment. With the place it is a nonce, so each is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Head = 1,
    Meta = 2,
    Body = 3,
}

pub struct Guard {
    sums: [u8; 32],
    seal: Option<LessSafeKey>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.seal.is_some() { "sealed" } else { "plain" })
    }
}

impl Guard {
    pub fn plain(salt: &[u8; SALT]) -> Guard {
        Guard { sums: blake3::derive_key("gateway 2026 cache segment: sums", salt), seal: None }
    }

    /// `id`: of the key that it was sealed with; `None`: the one in use.
    ///
    /// # Errors
    /// That key is not known.
    pub fn sealed(
        sealer: &Sealer,
        id: Option<&[u8]>,
        salt: &[u8; SALT],
    ) -> Result<(Guard, [u8; 8]), SealError> {
        let Derived { id, key } = sealer.derive(id, PURPOSE, salt)?;
        let sums = *sealer.derive(Some(&id), PURPOSE_SUMS, salt)?.key;
        // The length is right.
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SealError::Changed)?;
        Ok((Guard { sums, seal: Some(LessSafeKey::new(key)) }, id))
    }

    /// Of what is not secret.
    pub fn sum(&self, place: u64, bytes: &[u8]) -> [u8; TAG] {
        self.keyed(&nonce(Part::Head, place), bytes, &[])
    }

    /// Protects `part[from..]`, and adds the tag. `about`: bytes that belong to it and stand elsewhere.
    pub fn close(&self, nonce: [u8; 12], about: &[u8], part: &mut Vec<u8>, from: usize) -> io::Result<()> {
        let tag = match &self.seal {
            None => self.keyed(&nonce, about, &part[from..]),
            Some(key) => {
                let used = Nonce::assume_unique_for_key(nonce);
                let tag = key
                    .seal_in_place_separate_tag(used, Aad::from(about), &mut part[from..])
                    .map_err(|_| io::Error::other("it cannot be sealed"))?;
                let mut short = [0; TAG];
                short.copy_from_slice(tag.as_ref());
                short
            }
        };
        part.extend_from_slice(&tag);
        Ok(())
    }

    /// Cuts a part to what was closed. `None`: it is not that.
    pub fn open(&self, nonce: [u8; 12], about: &[u8], mut part: Vec<u8>) -> Option<Vec<u8>> {
        let length = part.len().checked_sub(TAG)?;
        match &self.seal {
            None => {
                let sum = self.keyed(&nonce, about, &part[..length]);
                (sum == part[length..]).then_some(())?;
            }
            Some(key) => {
                let used = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(used, Aad::from(about), &mut part).ok()?;
            }
        }
        part.truncate(length);
        Some(part)
    }

    fn keyed(&self, nonce: &[u8; 12], about: &[u8], bytes: &[u8]) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.sums);
        hasher.update(nonce).update(&(about.len() as u64).to_le_bytes()).update(about).update(bytes);
        let mut short = [0; TAG];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..TAG]);
        short
    }
}

pub fn nonce(part: Part, place: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[0] = part as u8;
    nonce[4..].copy_from_slice(&place.to_le_bytes());
    nonce
}
