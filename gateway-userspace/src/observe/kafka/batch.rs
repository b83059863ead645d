//! Lines as a batch of records (kafka.apache.org/documentation, "Message Format": RecordBatch, magic 2).

use super::wire::{Writer, varint_length};
use crate::crc32c::crc32c;

/// Some lines, each with its end.
#[derive(Debug)]
pub struct Lines {
    pub bytes: Vec<u8>,
    pub count: u64,
}

impl Lines {
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }
}

/// By whom a batch is, and which of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// -1: nobody, and it may be there twice.
    pub producer: i64,
    pub epoch: i16,
    /// Of its first record.
    pub first: i32,
}

/// What `offsetDelta` and the checksum's place need: how long the parts of a batch are.
const CHECKSUM_AT: usize = 8 + 4 + 4 + 1;
const CHECKED_FROM: usize = CHECKSUM_AT + 4;

/// How many records there are, and they as a batch.
pub fn encode(lines: &[Lines], key: &[u8], number: Number, now_ms: i64) -> (i32, Vec<u8>) {
    let size: usize = lines.iter().map(|lines| lines.bytes.len()).sum();
    let mut out = Writer(Vec::with_capacity(size + size / 4 + 128));
    // Offset, length, epoch of the partition's leader, magic, checksum, attributes, offset of the last record.
    out.i64(0).i32(0).i32(-1).i8(2).i32(0).i16(0).i32(0);
    out.i64(now_ms).i64(now_ms).i64(number.producer).i16(number.epoch).i32(number.first).i32(0);
    let count_at = out.0.len() - 4;
    let mut count = 0;
    for line in lines.iter().flat_map(Lines::each) {
        record(&mut out, count, key, line);
        count += 1;
    }
    let mut set = |at: usize, bytes: [u8; 4]| out.0[at..at + 4].copy_from_slice(&bytes);
    set(count_at, count.to_be_bytes());
    set(CHECKED_FROM + 2, (count - 1).to_be_bytes());
    let length = i32::try_from(out.0.len() - 12).unwrap_or(i32::MAX);
    out.0[8..12].copy_from_slice(&length.to_be_bytes());
    let sum = crc32c(out.0[CHECKED_FROM..].iter().copied());
    out.0[CHECKSUM_AT..CHECKED_FROM].copy_from_slice(&sum.to_be_bytes());
    (count, out.0)
}

/// Attributes, time and place in the batch, key, value, headers.
fn record(out: &mut Writer, place: i32, key: &[u8], value: &[u8]) {
    let (place, key_length, length) = (i64::from(place), key.len() as i64, value.len() as i64);
    let size = 1
        + varint_length(0)
        + varint_length(place)
        + varint_length(key_length)
        + key.len()
        + varint_length(length)
        + value.len()
        + varint_length(0);
    out.varint(size as i64).i8(0).varint(0).varint(place);
    out.varint(key_length).put(key).varint(length).put(value).varint(0);
}

/// Which of so many partitions a key's records go to: as Java's clients have it, murmur2 with the sign taken off.
pub fn partition_of(key: &[u8], partitions: usize) -> usize {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    (hash & 0x7fff_ffff) as usize % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_as_the_format_says() {
        let lines = [
            Lines { bytes: b"one\ntwo\n".to_vec(), count: 2 },
            Lines { bytes: b"three\n".to_vec(), count: 1 },
        ];
        let number = Number { producer: 7, epoch: 3, first: 11 };
        let (count, batch) = encode(&lines, b"gw", number, 1_700_000_000_000);
        assert_eq!(count, 3);
        let at = |from: usize, length: usize| &batch[from..from + length];
        assert_eq!(at(8, 4), (batch.len() as i32 - 12).to_be_bytes());
        assert_eq!(at(16, 1), [2]);
        assert_eq!(at(17, 4), crc32c(batch[21..].iter().copied()).to_be_bytes());
        assert_eq!(at(23, 4), 2i32.to_be_bytes(), "the last one's offset");
        assert_eq!((at(27, 8), at(35, 8)), (at(35, 8), &1_700_000_000_000i64.to_be_bytes()[..]));
        assert_eq!((at(43, 8), at(51, 2)), (&7i64.to_be_bytes()[..], &3i16.to_be_bytes()[..]));
        assert_eq!((at(53, 4), at(57, 4)), (&11i32.to_be_bytes()[..], &3i32.to_be_bytes()[..]));
        // Length 11 as a zigzag number, attributes, time, place, key and value with their lengths, no headers.
        assert_eq!(at(61, 12), b"\x16\x00\x00\x00\x04gw\x06one\x00");
        assert_eq!(at(73, 12), b"\x16\x00\x00\x02\x04gw\x06two\x00");
        assert!(batch.ends_with(b"\x04\x04gw\x0athree\x00"));
    }

    #[test]
    fn keys_go_where_other_clients_send_them() {
        // `Utils.murmur2` of Kafka's own tests.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ] {
            let sign_off = (hash & 0x7fff_ffff) as usize;
            assert_eq!(partition_of(key.as_bytes(), usize::MAX), sign_off, "{key}");
            assert_eq!(partition_of(key.as_bytes(), 12), sign_off % 12);
        }
    }
}
