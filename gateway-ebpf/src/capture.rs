//! Packets with their verdicts for `gateway capture`, through a ring of their own and never more than asked for.

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, xdp_md},
    helpers::generated::{bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use gateway_common::capture::{Captured, SNAP};

use crate::{atomic, maps};

/// Leaves the packet in the ring if it is wanted. As it is now: one that is forwarded has its new headers.
///
/// External linkage makes the verifier look at it once and not once a way to get here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_capture(ctx: *mut xdp_md, reason: u32) -> u32 {
    let Some(wanted) = maps::CAPTURE.get_ptr_mut(0) else { return 0 };
    // SAFETY: a value of the map; `lost` is for people and may be a little off.
    unsafe {
        if (*wanted).reasons >> (reason & 63) & 1 == 0 {
            return 0;
        }
        let now = bpf_ktime_get_ns();
        let rate = (*wanted).rate;
        if !atomic::take(&raw mut (*wanted).tat, &rate, now) {
            (*wanted).lost += 1;
            return 0;
        }
        let length = bpf_xdp_get_buff_len(ctx) as u32;
        let snaplen = (*wanted).snaplen;
        let most = if length < snaplen { length } else { snaplen };
        // Always true; a mask is what the verifier believes.
        let kept = (most.wrapping_sub(1) & (SNAP as u32 - 1)) + 1;
        let Some(mut entry) = maps::CAPTURED.reserve::<Captured>(0) else {
            (*wanted).lost += 1;
            return 0;
        };
        let captured = entry.as_mut_ptr();
        (*captured).time_ns = now;
        (*captured).ifindex = XdpContext::new(ctx).ingress_ifindex() as u32;
        (*captured).length = length;
        (*captured).reason = reason;
        let failed = bpf_xdp_load_bytes(ctx, 0, (&raw mut (*captured).data).cast(), kept) != 0;
        (*captured).kept = if failed { 0 } else { kept };
        entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    }
    1
}
