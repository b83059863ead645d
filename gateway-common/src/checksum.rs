//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! [`Delta`] gathers what changes in a packet; one gathering serves every checksum that covers the change.

/// The difference that replacing some words makes to a ones' complement sum. Each word counts at an even offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(u64);

impl Delta {
    pub const NONE: Self = Self(0);

    /// `old` becomes `new`.
    #[inline(always)]
    pub const fn u16(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// `old` becomes `new`.
    #[inline(always)]
    pub const fn u32(self, old: u32, new: u32) -> Self {
        // 2^16 is 1 modulo 2^16 - 1: halves need not be added one by one.
        Self(self.0 + !old as u64 + new as u64)
    }

    /// `old` becomes `new`.
    #[inline(always)]
    pub const fn u64(self, old: u64, new: u64) -> Self {
        self.u32((old >> 32) as u32, (new >> 32) as u32).u32(old as u32, new as u32)
    }

    /// A checksum field that was `sum`, after the change.
    #[inline(always)]
    pub const fn apply(self, sum: u16) -> u16 {
        !fold(self.0 + !sum as u64)
    }
}

/// The ones' complement sum of `n` words of 16 or 32 bits that were added up, as one word.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of bytes, for hosts: kernel programs sum up words as they write them.
pub fn of_bytes(bytes: &[u8], start: u64) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)));
    !fold(start + words.sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(of_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0), !0xddf2);
    }

    proptest! {
        #[test]
        fn an_update_gives_what_summing_up_again_gives(
            mut bytes in prop::collection::vec(any::<u8>(), 40..80),
            at in 0usize..8,
            short in any::<u16>(),
            word in any::<u32>(),
            long in any::<u64>(),
        ) {
            // All zeros are the one case in which the two may choose different zeros.
            bytes[39] |= 1;
            let before = of_bytes(&bytes, 0);
            let at = at * 2;
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&short.to_be_bytes());
            let next = u32::from_be_bytes(bytes[at + 2..at + 6].try_into().unwrap());
            bytes[at + 2..at + 6].copy_from_slice(&word.to_be_bytes());
            let last = u64::from_be_bytes(bytes[at + 6..at + 14].try_into().unwrap());
            bytes[at + 6..at + 14].copy_from_slice(&long.to_be_bytes());
            let delta = Delta::NONE.u16(old, short).u32(next, word).u64(last, long);
            prop_assert_eq!(delta.apply(before), of_bytes(&bytes, 0));
        }
    }
}
