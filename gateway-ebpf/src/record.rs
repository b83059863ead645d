//! Counting every packet by interface and reason, and sampling drops for people to look at.

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, programs::XdpContext};
use gateway_common::{
    maps::{INTERFACES, Sample, Settings, counter_index},
    packet::{Packet as _, Parsed},
    verdict::{Action, Reason},
};

use crate::{maps, packet::Frame};

#[inline(always)]
pub fn count(ctx: &XdpContext, settings: Option<&Settings>, reason: Reason, parsed: &Parsed) {
    let ifindex = ctx.ingress_ifindex() as u32;
    let length = Frame::new(ctx).len() as u64;
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
        sample(ifindex, length as u32, reason, parsed);
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

/// Rare by the mask above. A full ring loses samples, never packets.
#[inline(always)]
fn sample(ifindex: u32, length: u32, reason: Reason, parsed: &Parsed) {
    let Some(mut entry) = maps::EVENTS.reserve::<Sample>(0) else { return };
    entry.write(Sample {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        source: parsed.source,
        destination: parsed.destination,
        ifindex,
        length,
        source_port: parsed.source_port,
        destination_port: parsed.destination_port,
        protocol: parsed.protocol,
        reason: reason.id(),
        bits: parsed.bits,
        _pad: 0,
    });
    entry.submit(0);
}
