//! `xdp_gateway`: malformed → access list → bans → SYN floods → buckets, one reason a packet.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns, bpf_redirect},
    macros::xdp,
    programs::XdpContext,
};
use gateway_common::{
    clock::Clock,
    forward::Outcome,
    maps::{CLASSES, Settings, flag},
    packet::{self, Packet as _, Parsed, bit},
    service::option,
    verdict::{Action, Reason},
};

use crate::{access, forward, limit, maps, packet::Frame, record, syn};

#[xdp(frags)]
pub fn xdp_gateway(ctx: XdpContext) -> u32 {
    let outcome = handle(&ctx);
    match outcome.reason.action() {
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
        Action::Tx => XDP_TX,
        Action::Forward if outcome.ifindex == 0 => XDP_TX,
        // SAFETY: a helper on a number.
        Action::Forward => unsafe { bpf_redirect(outcome.ifindex, 0) as u32 },
    }
}

/// Judges and counts a packet.
#[inline(always)]
pub fn handle(ctx: &XdpContext) -> Outcome {
    let settings = settings();
    let length = Frame::new(ctx).len() as u64;
    let outcome = match settings {
        Some(settings) => judge(ctx, settings).unwrap_or_else(Outcome::from),
        None => Reason::NoSettings.into(),
    };
    record::count(ctx, settings, outcome.reason, length);
    outcome
}

#[inline(always)]
fn judge(ctx: &XdpContext, settings: &Settings) -> Result<Outcome, Reason> {
    let Some(parsed) = maps::PARSED.get_ptr_mut(0) else { return Err(Reason::NoSettings) };
    // SAFETY: this CPU's own value; XDP runs with bottom halves off, so no other packet comes between.
    let parsed = unsafe { &mut *parsed };
    // What the parser does not write for every packet, in one go: field by field it would be a call of memset.
    const _: () = assert!(core::mem::offset_of!(Parsed, source_port) == 32);
    const _: () = assert!(core::mem::offset_of!(Parsed, bits) == 37);
    // SAFETY: ports, protocol, bits and where the IP header begins: the fifth word of the structure.
    unsafe { *core::ptr::from_mut(parsed).cast::<u64>().add(4) = 0 };
    packet::parse(&Frame::new(ctx), settings.flags & flag::LOOPBACK != 0, parsed)?;
    const ANY: u32 =
        flag::ACCESS_V4 | flag::ACCESS_V6 | flag::BANS | flag::LIMITS | flag::SERVICES | flag::SYN;
    if settings.flags & ANY == 0 {
        return Ok(Reason::Ok.into());
    }
    let now = now(&settings.clock);
    let class = access::judge(settings, parsed, now)?;
    let key = parsed.source.key(settings.ipv6_mask);
    access::banned(settings, key, now)?;
    let mut service = None;
    if settings.flags & flag::SERVICES != 0 && parsed.bits & bit::PORTS != 0 {
        service = forward::service(settings, parsed);
        // What a target sends back is the client's to answer for, and has been.
        if service.is_none()
            && let Some(outcome) = forward::reply(ctx, parsed, now)
        {
            return Ok(outcome);
        }
    }
    if settings.flags & flag::SYN != 0
        && let Some(reason) = syn::guard(ctx, parsed, key, syn::Of::new(service.is_some(), class), now)
    {
        return Ok(reason.into());
    }
    let mut reason = Reason::Ok;
    if settings.flags & flag::LIMITS != 0 {
        let limits = &settings.limits[usize::from(class) & (CLASSES - 1)];
        reason = limit::judge(ctx, settings, limits, key, parsed, now)?;
    }
    if let Some(service) = service {
        if service.options & option::LIMITS != 0 {
            let over = limit::gateway_limit_service(ctx.ctx, parsed, u32::from(service.service), now);
            if over != 0 {
                return Err(Reason::from_id(over as u8).unwrap_or(Reason::LimitShared));
            }
        }
        return Ok(forward::to_target(ctx, parsed, service, now));
    }
    if settings.flags & flag::SERVICES != 0
        && parsed.bits & bit::PORTS == 0
        && let Some(outcome) = forward::without_ports(ctx, parsed, now)
    {
        return Ok(outcome);
    }
    Ok(reason.into())
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
