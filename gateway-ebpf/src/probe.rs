//! Programs that are run by BPF_PROG_TEST_RUN only: the clocks, side by side, for userspace to calibrate; the
//! parser and the whole verdict, for tests; the least a program can do, to measure ours against.

use aya_ebpf::{
    bindings::xdp_action::XDP_DROP,
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use gateway_common::{
    packet::{self, Packet as _, PacketMut as _, Parsed},
    verdict::Reason,
};

use crate::{maps, packet::Frame, xdp};

/// Leaves CLOCK_MONOTONIC (ns) and jiffies in `PROBE`. A classifier, because running one costs no RCU wait.
#[classifier]
pub fn probe_clock(_: TcContext) -> i32 {
    // SAFETY: helpers without arguments.
    let words = unsafe { [bpf_ktime_get_ns(), bpf_jiffies64(), 0, 0, 0, 0, 0, 0] };
    let _ = maps::PROBE.set(0, words, 0);
    0
}

/// Returns the reason's id where `xdp_gateway` returns the action.
#[xdp(frags)]
pub fn probe_verdict(ctx: XdpContext) -> u32 {
    u32::from(xdp::handle(&ctx).reason.id())
}

/// For `gateway explain packet`: returns the reason's id and, above it, the interface by which the packet leaves.
#[xdp(frags)]
pub fn probe_explain(ctx: XdpContext) -> u32 {
    let outcome = xdp::handle(&ctx);
    u32::from(outcome.reason.id()) | outcome.ifindex << 8
}

/// Returns the parser's reason and leaves what it read in `PROBE`.
#[xdp(frags)]
pub fn probe_parse(ctx: XdpContext) -> u32 {
    let mut parsed = Parsed::default();
    let reason = packet::parse(&Frame::new(&ctx), false, &mut parsed).err().unwrap_or(Reason::Ok);
    let rest = u64::from(parsed.source_port) << 48
        | u64::from(parsed.destination_port) << 32
        | u64::from(parsed.protocol) << 8
        | u64::from(parsed.bits);
    let (source, destination) = (parsed.source, parsed.destination);
    let places = u64::from(parsed.l3) << 48 | u64::from(parsed.l4) << 32 | u64::from(parsed.length);
    let fragment = u64::from(parsed.fragment);
    let words = [source.hi, source.lo, destination.hi, destination.lo, rest, places, fragment, 0];
    let _ = maps::PROBE.set(0, words, 0);
    u32::from(reason.id())
}

#[xdp(frags)]
pub fn bench_drop(_: XdpContext) -> u32 {
    XDP_DROP
}

/// `xdp_gateway` on an IPv4 packet whose source is another of 2^24 each time; with a 1 as its type of service every
/// second time only.
#[xdp(frags)]
pub fn bench_spoofed(ctx: XdpContext) -> u32 {
    let mut frame = Frame::new(&ctx);
    let (Some(source), Some(id)) = (frame.u32(26), frame.u16(18)) else { return XDP_DROP };
    frame.set_u16(18, id.wrapping_add(1));
    if frame.u8(15) != Some(1) || id & 1 == 0 {
        let next = source.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        frame.set_u32(26, 0x0a00_0000 | (next & 0x00ff_ffff));
    }
    u32::from(xdp::handle(&ctx).reason.id())
}

#[xdp(frags)]
pub fn bench_parse(ctx: XdpContext) -> u32 {
    let mut parsed = Parsed::default();
    match packet::parse(&Frame::new(&ctx), false, &mut parsed) {
        // What was read must be used, or the compiler would not read it.
        Ok(()) if parsed.source.lo ^ parsed.destination.lo == u64::from(parsed.destination_port) => 0,
        _ => XDP_DROP,
    }
}
