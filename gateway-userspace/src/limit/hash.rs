//! SipHash-1-3 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the variant
//! with two output words of its reference code). Who does not know the key can neither find keys that meet nor aim at a
//! place of the table.

/// The key; random, and kept with the table.
pub type Key = [u64; 2];

#[derive(Debug, Clone)]
pub struct Hasher {
    v: [u64; 4],
    /// Bytes that do not make a word yet.
    tail: u64,
    length: u64,
}

impl Hasher {
    pub fn new(key: Key) -> Self {
        let v = [
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ];
        Hasher { v, tail: 0, length: 0 }
    }

    /// A part of a key, told apart from its neighbours by its length.
    pub fn part(&mut self, bytes: &[u8]) {
        self.write(&(bytes.len() as u32).to_le_bytes());
        self.write(bytes);
    }

    /// A part that is not there: no part that is there hashes alike.
    pub fn absent(&mut self) {
        self.write(&u32::MAX.to_le_bytes());
    }

    /// As [`Hasher::write`] of its bytes, the lowest first.
    #[inline]
    pub fn word(&mut self, whole: u64) {
        let filled = 8 * (self.length % 8);
        self.length += 8;
        if filled == 0 {
            return self.absorb(whole);
        }
        self.absorb(self.tail | whole << filled);
        self.tail = whole >> (64 - filled);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        let filled = (self.length % 8) as usize;
        self.length += bytes.len() as u64;
        let mut rest = bytes;
        if filled > 0 {
            let fits = rest.len().min(8 - filled);
            let (head, more) = rest.split_at(fits);
            self.tail |= word(head) << (8 * filled);
            if filled + fits < 8 {
                return;
            }
            let whole = std::mem::take(&mut self.tail);
            self.absorb(whole);
            rest = more;
        }
        let mut words = rest.chunks_exact(8);
        for chunk in &mut words {
            self.absorb(word(chunk));
        }
        self.tail = word(words.remainder());
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.v[0] ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.v;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.v = [v0, v1, v2, v3];
    }

    #[inline]
    pub fn finish(mut self) -> u128 {
        let last = self.tail | (self.length & 0xff) << 56;
        self.absorb(last);
        self.v[2] ^= 0xee;
        let low = self.output();
        self.v[1] ^= 0xdd;
        let high = self.output();
        u128::from(high) << 64 | u128::from(low)
    }

    #[inline]
    fn output(&mut self) -> u64 {
        for _ in 0..3 {
            self.round();
        }
        self.v.iter().fold(0, |all, word| all ^ word)
    }
}

/// At most eight bytes, little-endian.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: Key, pieces: &[&[u8]]) -> u128 {
        let mut hasher = Hasher::new(key);
        pieces.iter().for_each(|piece| hasher.write(piece));
        hasher.finish()
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut() {
        let text: Vec<u8> = (0..100).collect();
        let whole = hash([1, 2], &[&text]);
        for cut in 0..text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(hash([1, 2], &[head, tail]), whole);
            assert_eq!(hash([1, 2], &[head, &tail[..tail.len() / 2], &tail[tail.len() / 2..]]), whole);
        }
    }

    #[test]
    fn a_word_is_its_eight_bytes() {
        for before in 0..9 {
            let text = &b"12345678 "[..before];
            let (mut one, mut other) = (Hasher::new([3, 4]), Hasher::new([3, 4]));
            one.write(text);
            one.word(0x0102_0304_0506_0708);
            one.write(b"end");
            other.write(text);
            other.write(&[8, 7, 6, 5, 4, 3, 2, 1]);
            other.write(b"end");
            assert_eq!(one.finish(), other.finish(), "after {before} bytes");
        }
    }

    #[test]
    fn every_key_and_every_byte_counts_in_all_of_the_output() {
        let bits = |one: u128, other: u128| (one ^ other).count_ones();
        let base = hash([7, 9], &[b"consumer"]);
        let others = [
            hash([6, 9], &[b"consumer"]),
            hash([7, 8], &[b"consumer"]),
            hash([7, 9], &[b"consumes"]),
            hash([7, 9], &[b"consume"]),
            hash([7, 9], &[b"consumer\0"]),
        ];
        for other in others {
            assert!((40..88).contains(&bits(base, other)), "{}", bits(base, other));
            assert_ne!(base as u64, other as u64);
            assert_ne!((base >> 64) as u64, (other >> 64) as u64);
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let parts = |all: &[&[u8]]| {
            let mut hasher = Hasher::new([0, 0]);
            all.iter().for_each(|part| hasher.part(part));
            hasher.finish()
        };
        assert_ne!(parts(&[b"ab", b"c"]), parts(&[b"a", b"bc"]));
        assert_ne!(parts(&[b"", b"a"]), parts(&[b"a", b""]));
        let mut absent = Hasher::new([0, 0]);
        absent.absent();
        assert_ne!(absent.finish(), parts(&[b""]));
    }
}
