//! `xdp_gateway`: malformed → access list → bans → buckets, one reason a packet.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    macros::xdp,
    programs::XdpContext,
};
use gateway_common::{
    clock::Clock,
    maps::{Settings, flag},
    packet::{self, Parsed},
    verdict::{Action, Reason},
};

use crate::{access, limit, maps, packet::Frame, record};

#[xdp(frags)]
pub fn xdp_gateway(ctx: XdpContext) -> u32 {
    match handle(&ctx).action() {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
    }
}

/// Judges and counts a packet.
#[inline(always)]
pub fn handle(ctx: &XdpContext) -> Reason {
    let settings = settings();
    let reason = match settings {
        Some(settings) => judge(ctx, settings).unwrap_or_else(|reason| reason),
        None => Reason::NoSettings,
    };
    record::count(ctx, settings, reason);
    reason
}

#[inline(always)]
fn judge(ctx: &XdpContext, settings: &Settings) -> Result<Reason, Reason> {
    let parsed = &mut Parsed::default();
    packet::parse(&Frame::new(ctx), settings.flags & flag::LOOPBACK != 0, parsed)?;
    if settings.flags & (flag::ACCESS_V4 | flag::ACCESS_V6 | flag::BANS | flag::LIMITS) == 0 {
        return Ok(Reason::Ok);
    }
    let now = now(&settings.clock);
    access::judge(settings, parsed, now)?;
    let key = parsed.source.key(settings.ipv6_mask);
    access::banned(settings, key, now)?;
    if settings.flags & flag::LIMITS == 0 {
        return Ok(Reason::Ok);
    }
    limit::judge(settings, key, parsed, now)
}

/// The settings that count.
#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    let switch = maps::SETTINGS.get(0)?;
    Some(&switch.settings[(switch.active & 1) as usize])
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn now(clock: &Clock) -> u64 {
    // SAFETY: helpers without arguments.
    unsafe { if clock.tick_ns == 0 { bpf_ktime_get_ns() } else { clock.at(bpf_jiffies64()) } }
}
