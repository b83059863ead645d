//! `gateway capture`: what userspace asks for and what the kernel half leaves in a ring of its own.

use crate::bucket::Limit;

/// Bytes of a packet at most; a power of two.
pub const SNAP: usize = 2048;
/// Bytes of the ring; a power of two of pages.
pub const RING_BYTES: u32 = 1 << 20;
/// Packets a second at most.
pub const MOST_A_SECOND: u32 = 10_000;

/// Map names.
pub mod name {
    pub const WANTED: &str = "CAPTURE";
    pub const RING: &str = "CAPTURED";
}

/// The one entry of `CAPTURE`, read only while `flag::CAPTURE` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Wanted {
    /// A bit a reason's id.
    pub reasons: u64,
    pub rate: Limit,
    /// The rate's bucket.
    pub tat: u64,
    /// Wanted, but over the rate or without room in the ring.
    pub lost: u64,
    /// At most [`SNAP`]; not zero.
    pub snaplen: u32,
    pub _pad: u32,
}

/// A packet in `CAPTURED`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Captured {
    pub time_ns: u64,
    pub ifindex: u32,
    /// Of the whole frame.
    pub length: u32,
    /// Bytes of `data` that are the packet's.
    pub kept: u32,
    pub reason: u32,
    pub data: [u8; SNAP],
}

const _: () = {
    assert!(SNAP.is_power_of_two());
    assert!(size_of::<Wanted>() == 56);
    assert!(size_of::<Captured>() == 24 + SNAP);
};

#[cfg(feature = "user")]
#[allow(unsafe_code)]
// SAFETY: `repr(C)`, `Copy`, integers only, no padding (size asserted above).
unsafe impl aya::Pod for Wanted {}
