//! The packet in XDP as a `gateway_common::packet::Packet`.

use core::arch::asm;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use gateway_common::packet::{Packet, PacketMut};

/// The first buffer of a frame, between `data` and `data_end`.
pub struct Frame<'a> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx, start: ctx.data(), end: ctx.data_end() }
    }

    /// A pointer to a `T` at `at`, if the buffer reaches so far.
    #[inline(always)]
    fn at<T>(&self, at: usize) -> Option<*const T> {
        // Nothing we read is farther in than 13 KiB. A mask and no comparison: the verifier of Linux 6.1 forgets what
        // a comparison showed when the number goes through the stack.
        let mut address = self.start + (at & 0x3fff);
        // The verifier ties a bounds check to the register it was made on: keep the sum in one.
        // SAFETY: moves a register to itself. An empty string would do but for its line of debug information,
        // which would have no instruction of its own: the kernel refuses that.
        unsafe { asm!("{0} = {0}", inout(reg) address, options(nomem, nostack, preserves_flags)) };
        if address + size_of::<T>() > self.end { None } else { Some(address as *const T) }
    }
}

impl Frame<'_> {
    /// After the kernel moved the buffer's ends.
    #[inline(always)]
    fn look_again(&mut self) {
        self.start = self.ctx.data();
        self.end = self.ctx.data_end();
    }
}

impl PacketMut for Frame<'_> {
    #[inline(always)]
    fn set_u8(&mut self, at: usize, value: u8) {
        if let Some(place) = self.at::<u8>(at) {
            // SAFETY: `at` checked that the buffer holds it, and it is ours to write.
            unsafe { *place.cast_mut() = value };
        }
    }
    #[inline(always)]
    fn set_u16(&mut self, at: usize, value: u16) {
        if let Some(place) = self.at::<u16>(at) {
            // SAFETY: as above.
            unsafe { *place.cast_mut() = value.to_be() };
        }
    }
    #[inline(always)]
    fn set_u32(&mut self, at: usize, value: u32) {
        if let Some(place) = self.at::<u32>(at) {
            // SAFETY: as above.
            unsafe { *place.cast_mut() = value.to_be() };
        }
    }
    #[inline(always)]
    fn set_u64(&mut self, at: usize, value: u64) {
        if let Some(place) = self.at::<u64>(at) {
            // SAFETY: as above.
            unsafe { *place.cast_mut() = value.to_be() };
        }
    }
    #[inline(always)]
    fn set_words<const N: usize>(&mut self, at: usize, words: [u64; N]) {
        if let Some(place) = self.at::<[u64; N]>(at) {
            let place: *mut u64 = place.cast_mut().cast();
            let mut word = 0;
            while word < N {
                // SAFETY: as above.
                unsafe { *place.add(word) = words[word].to_be() };
                word += 1;
            }
        }
    }
    #[inline(always)]
    fn grow(&mut self, bytes: usize) -> bool {
        // SAFETY: the context is the one the kernel gave us.
        let done = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, -(bytes as i32)) } == 0;
        self.look_again();
        done
    }
    #[inline(always)]
    fn shrink(&mut self, bytes: usize) -> bool {
        // SAFETY: as above.
        let done = unsafe { bpf_xdp_adjust_head(self.ctx.ctx, bytes as i32) } == 0;
        self.look_again();
        done
    }
    #[inline(always)]
    fn truncate(&mut self, bytes: usize) -> bool {
        let by = bytes as i32 - self.whole_len() as i32;
        // SAFETY: as above.
        let done = by <= 0 && unsafe { bpf_xdp_adjust_tail(self.ctx.ctx, by) } == 0;
        self.look_again();
        done
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn u8(&self, at: usize) -> Option<u8> {
        // SAFETY: `at` checked that the buffer holds it.
        self.at::<u8>(at).map(|p| unsafe { *p })
    }
    #[inline(always)]
    fn u16(&self, at: usize) -> Option<u16> {
        // SAFETY: as above. Headers are not aligned; the verifier allows it where the CPU does.
        self.at::<u16>(at).map(|p| u16::from_be(unsafe { *p }))
    }
    #[inline(always)]
    fn u32(&self, at: usize) -> Option<u32> {
        // SAFETY: as above.
        self.at::<u32>(at).map(|p| u32::from_be(unsafe { *p }))
    }
    #[inline(always)]
    fn u64(&self, at: usize) -> Option<u64> {
        // SAFETY: as above.
        self.at::<u64>(at).map(|p| u64::from_be(unsafe { *p }))
    }
    #[inline(always)]
    fn words<const N: usize>(&self, at: usize) -> Option<[u64; N]> {
        let place: *const u64 = self.at::<[u64; N]>(at)?.cast();
        let mut words = [0; N];
        let mut word = 0;
        while word < N {
            // SAFETY: as above.
            words[word] = u64::from_be(unsafe { *place.add(word) });
            word += 1;
        }
        Some(words)
    }
    #[inline(always)]
    fn len(&self) -> usize {
        self.end - self.start
    }
    #[inline(always)]
    fn whole_len(&self) -> usize {
        // SAFETY: the context is the one the kernel gave us. Linux 5.18.
        unsafe { bpf_xdp_get_buff_len(self.ctx.as_ptr().cast()) as usize }
    }
    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        let mut number = number;
        // SAFETY: two exclusive-ors with the same number. The verifier does not see that they cancel out, so what
        // follows a header of one kind is looked at once for all kinds, not once for each chain of them.
        unsafe {
            asm!(
                "{number} ^= {unknown}",
                "{number} ^= {unknown}",
                number = inout(reg) number,
                unknown = in(reg) u64::from(self.ctx.rx_queue_index()),
                options(nomem, nostack, preserves_flags),
            );
        }
        number & 0xf_ffff
    }
}
