//! Measuring programs that change the packet: BPF_PROG_TEST_RUN hands the same buffer to every round, so `bench_wrap` puts
//! the packet back as it was, for a flow of its own each round, and then runs the program under test in its stead.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP},
    helpers::generated::bpf_xdp_adjust_head,
    macros::xdp,
    programs::XdpContext,
};
use gateway_common::{
    hash,
    packet::{Packet as _, PacketMut as _},
};

use crate::{maps, packet::Frame, xdp};

#[xdp(frags)]
pub fn bench_wrap(ctx: XdpContext) -> u32 {
    let Some(wrap) = maps::WRAP.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: one bench at a time writes it.
    let wrap = unsafe { &mut *wrap };
    let grown = Frame::new(&ctx).whole_len() as i32 - wrap.length as i32;
    // SAFETY: the context is the one the kernel gave us.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(ctx.ctx, grown) } != 0 {
        return XDP_ABORTED;
    }
    let mut frame = Frame::new(&ctx);
    let mut word = 0;
    while word < wrap.template.len() {
        frame.set_u64(word * 8, u64::from_be(wrap.template[word]));
        word += 1;
    }
    wrap.round = if wrap.round + 1 >= wrap.flows { 0 } else { wrap.round + 1 };
    frame.set_u32(wrap.source as usize, wrap.first + wrap.round);
    // SAFETY: the map holds programs of this kind only.
    unsafe { maps::WRAPPED.tail_call(&ctx, 0) };
    XDP_ABORTED
}

/// The least that a table of so many connections costs: one line of it for the packet's source.
#[xdp(frags)]
pub fn bench_touch(ctx: XdpContext) -> u32 {
    let Some(source) = Frame::new(&ctx).u32(26) else { return XDP_ABORTED };
    let Some(settings) = xdp::settings() else { return XDP_ABORTED };
    let at = hash::mix(u64::from(source)) & settings.flows_mask;
    match maps::FLOWS.get(at as u32) {
        // Never so; the compiler does not know.
        Some(set) if set[0] == u64::MAX => XDP_ABORTED,
        _ => XDP_DROP,
    }
}

/// What adding and taking away a header costs by itself.
#[xdp(frags)]
pub fn bench_adjust(ctx: XdpContext) -> u32 {
    // SAFETY: as above.
    unsafe {
        bpf_xdp_adjust_head(ctx.ctx, -20);
        bpf_xdp_adjust_head(ctx.ctx, 20);
    }
    XDP_DROP
}
