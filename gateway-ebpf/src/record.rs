//! Counting every packet by interface and reason, and sampling drops for people to look at.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_ktime_get_ns, programs::XdpContext};
use gateway_common::{
    maps::{INTERFACES, Sample, Settings, counter_index, flag},
    packet::{self, Packet as _, Parsed},
    verdict::{Action, Reason},
};

use crate::{capture::gateway_capture, maps, packet::Frame};

#[inline(always)]
pub fn count(ctx: &XdpContext, settings: Option<&Settings>, reason: Reason, length: u64) {
    let ifindex = ctx.ingress_ifindex() as u32;
    let slot = settings.map_or(INTERFACES as u32, |settings| slot_of(settings, ifindex));
    let Some(counter) = maps::COUNTERS.get_ptr_mut(counter_index(slot, reason.id())) else { return };
    // SAFETY: this CPU's own value; XDP runs with bottom halves off, so nobody else writes it.
    let before = unsafe {
        let before = (*counter).packets;
        (*counter).packets = before + 1;
        (*counter).bytes += length;
        before
    };
    if let (Some(settings), Action::Drop) = (settings, reason.action())
        && before & settings.sample_mask == 0
    {
        gateway_sample(ctx.ctx, u32::from(reason.id()));
    }
    if let Some(settings) = settings
        && settings.flags & flag::CAPTURE != 0
    {
        gateway_capture(ctx.ctx, u32::from(reason.id()));
    }
}

#[inline(always)]
fn slot_of(settings: &Settings, ifindex: u32) -> u32 {
    let mut slot = 0;
    while slot < INTERFACES {
        if settings.interfaces[slot] == ifindex {
            break;
        }
        slot += 1;
    }
    slot as u32
}

/// Leaves a dropped packet in the ring; one that is full loses samples, never packets.
///
/// Rare by the mask above, so it reads the packet again: keeping what was read before would cost every packet the
/// registers. External linkage makes the verifier look at it once and not once a way to get here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_sample(ctx: *mut xdp_md, reason: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let frame = Frame::new(&ctx);
    let mut parsed = Parsed::default();
    let _ = packet::parse(&frame, true, &mut parsed);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(
        &ctx,
        "dropped {} bytes from {:x}:{:x}, protocol {}, reason {}",
        frame.len(),
        parsed.source.hi,
        parsed.source.lo,
        parsed.protocol,
        reason
    );
    let Some(mut entry) = maps::EVENTS.reserve::<Sample>(0) else { return 0 };
    entry.write(Sample {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        source: parsed.source,
        destination: parsed.destination,
        ifindex: ctx.ingress_ifindex() as u32,
        length: frame.len() as u32,
        source_port: parsed.source_port,
        destination_port: parsed.destination_port,
        protocol: parsed.protocol,
        reason: reason as u8,
        bits: parsed.bits,
        _pad: 0,
    });
    entry.submit(0);
    1
}
