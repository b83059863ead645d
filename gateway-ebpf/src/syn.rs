//! SYN floods: see `gateway_common::syn`.

use aya_ebpf::{
    Global,
    bindings::{iphdr, ipv6hdr, tcphdr, xdp_md},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
        bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
    },
    programs::XdpContext,
};
use gateway_common::{
    flow::Table,
    maps::{CLASSES, SteerKey},
    packet::{Parsed, TCP, bit},
    source::Address,
    syn::{self, Answer, Guard, HOLD_NS, Options, VERIFIED_SETS, kind},
    verdict::Reason,
};

use crate::{
    atomic,
    forward::{Set, forget},
    limit, maps,
    packet::Frame,
    xdp,
};

/// Whether the kernel has the helpers for SYN cookies (Linux 6.0, CONFIG_SYN_COOKIES). Set before loading, so that the
/// verifier does not look at calls that it does not know.
#[unsafe(no_mangle)]
static SYN_HELPERS: Global<u32> = Global::new(0);

/// Whether a packet is for a service, and the class of its source: in a word.
#[derive(Clone, Copy)]
pub struct Of(u32);

impl Of {
    #[inline(always)]
    pub fn new(service: bool, class: u8) -> Self {
        Self(u32::from(service) | u32::from(class) << 1)
    }
}

/// Nothing of ours: the packet is judged on.
const NOT_OURS: u32 = u32::MAX;

/// Judges what opens a connection, or may prove that somebody is there who wants to.
#[inline(always)]
pub fn guard(ctx: &XdpContext, parsed: &mut Parsed, key: u64, of: Of, now: u64) -> Option<Reason> {
    if parsed.protocol != TCP || parsed.bits & (bit::PORTS | bit::FRAGMENT | bit::ACCEPT) != bit::PORTS {
        return None;
    }
    let mut id = gateway_syn(ctx.ctx, parsed, key, of.0, now);
    if id & ANSWER != 0 && id != NOT_OURS {
        // Not from within: the stack has room for three calls, and the answer makes one more.
        id = gateway_syn_answer(ctx.ctx, parsed, id & !ANSWER);
    }
    if id == NOT_OURS { None } else { Reason::from_id(id as u8) }
}

/// In place of a reason's id: to be answered; the listener's window scale, or [`CHALLENGE`], is below.
const ANSWER: u32 = 1 << 8;

/// A reason's id, [`ANSWER`] with a window scale, or [`NOT_OURS`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_syn(ctx: *mut xdp_md, parsed: *mut Parsed, key: u64, of: u32, now: u64) -> u32 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: null or a packet's description in a map; the verifier insists on the check.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_mut() }, xdp::settings()) else {
        return NOT_OURS;
    };
    if SYN_HELPERS.load() == 0 {
        return NOT_OURS;
    }
    let l4 = usize::from(parsed.l4);
    let what = syn::kind_of(&Frame::new(&ctx), l4);
    let service = of & 1 != 0;
    if what == kind::OTHER || (service && what == kind::ACK) || (!service && what == kind::RESET) {
        return NOT_OURS;
    }
    let (Some(guard), Some(state)) = (maps::SYN_GUARD.get(0), maps::SYN_STATE.get_ptr_mut(0)) else {
        return NOT_OURS;
    };
    // SAFETY: words of a map's value. The kernel reads aligned words whole.
    let attack = unsafe { core::ptr::read_volatile(&raw const (*state).until_ns) } > now;
    if what == kind::ACK && !attack {
        return NOT_OURS;
    }
    let scale = if service { CHALLENGE } else { listener(parsed) };
    if scale == NOT_OURS {
        return NOT_OURS;
    }
    let verified = Verified(now);
    let (source, second) = (syn::verified_key(settings.flow_seed, key), now >> 30);
    if what == kind::RESET {
        let cookie = syn::sequence(&Frame::new(&ctx), l4);
        if gateway_syn_check(parsed, 0, cookie) == 0 {
            return NOT_OURS;
        }
        gateway_syn_verify(source, second);
        return u32::from(Reason::SynVerified.id());
    }
    if syn::is_verified(&verified, source, second) {
        if what == kind::SYN && attack {
            gateway_syn_verify(source, second);
        }
        return NOT_OURS;
    }
    if what == kind::ACK {
        let (sequence, cookie) =
            (syn::sequence(&Frame::new(&ctx), l4), syn::acknowledged(&Frame::new(&ctx), l4));
        if gateway_syn_check(parsed, sequence.wrapping_sub(1), cookie.wrapping_sub(1)) != 0 {
            gateway_syn_verify(source, second);
        }
        return NOT_OURS;
    }
    // SAFETY: as above.
    if unsafe { attacked(guard, state, now) } || attack {
        let limits = &settings.limits[(of >> 1) as usize & (CLASSES - 1)];
        if limits.is_on()
            && let Err(reason) = limit::known(settings, limits, key, now)
        {
            return u32::from(reason.id());
        }
        return ANSWER | scale;
    }
    NOT_OURS
}

/// Counts a new connection; true: they are too many.
///
/// # Safety
/// `state` points to the map's value.
#[inline(always)]
unsafe fn attacked(guard: &Guard, state: *mut syn::State, now: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if atomic::take(&raw mut (*state).tat, &guard.limit, now) {
            return false;
        }
        let until = &raw mut (*state).until_ns;
        // Not with every packet: all CPUs share the word.
        if core::ptr::read_volatile(until) < now + HOLD_NS - HOLD_NS / 50 {
            core::ptr::write_volatile(until, now + HOLD_NS);
        }
    }
    true
}

/// The window scale of the listener that a packet is for, or [`NOT_OURS`].
#[inline(always)]
fn listener(parsed: &Parsed) -> u32 {
    let any = if parsed.is_v4() { Address::v4(0) } else { Address { hi: 0, lo: 0 } };
    let port = u32::from(parsed.destination_port);
    let mut key = SteerKey { address: parsed.destination, port, _pad: 0 };
    // SAFETY: userspace replaces entries whole.
    if let Some(scale) = unsafe { maps::LISTENERS.get(key) } {
        return *scale & 0xf;
    }
    key.address = any;
    // SAFETY: as above.
    match unsafe { maps::LISTENERS.get(key) } {
        Some(scale) => *scale & 0xf,
        None => NOT_OURS,
    }
}

/// Answers a SYN: with the kernel's cookie where the kernel listens, with a challenge for a service ([`CHALLENGE`]).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_syn_answer(ctx: *mut xdp_md, parsed: *mut Parsed, scale: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let (Some(parsed), Some(guard)) = (unsafe { parsed.as_mut() }, maps::SYN_GUARD.get(0)) else {
        return NOT_OURS;
    };
    let challenge = scale == CHALLENGE;
    let l4 = usize::from(parsed.l4);
    let sequence = syn::sequence(&Frame::new(&ctx), l4);
    let v4 = parsed.is_v4();
    let mut reply = Answer::default();
    let options = if challenge {
        reply.acknowledges = gateway_syn_cookie(parsed, 0, 0) as u32;
        // Any will do, and one that is hard to guess is better.
        reply.sequence = !reply.acknowledges;
        Options::NONE
    } else {
        let options = Options(gateway_syn_options(ctx.ctx, parsed));
        // RFC 9293 section 3.7.1, and what Linux takes for IPv6: 1280 less the headers.
        let default = if v4 { 536 } else { 1220 };
        let mss = if options.mss() == 0 { default } else { u32::from(options.mss()) };
        reply.sequence = gateway_syn_cookie(parsed, sequence, mss) as u32;
        reply.acknowledges = sequence.wrapping_add(1);
        reply.mss = (if v4 { guard.mss_v4 } else { guard.mss_v6 }) as u16;
        reply.scale = scale as u8;
        // SAFETY: a helper without arguments.
        reply.now_ms = unsafe { bpf_ktime_get_ns() } / 1_000_000;
        options
    };
    let reason = if !syn::answer(&mut Frame::new(&ctx), parsed, options, &reply) {
        Reason::NoRoom
    } else if challenge {
        Reason::SynChallenge
    } else {
        Reason::SynCookie
    };
    u32::from(reason.id())
}

/// In place of a listener's window scale: there is no listener, the packet is for a service.
const CHALLENGE: u32 = 0x10;

/// [`syn::options`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_syn_options(ctx: *mut xdp_md, parsed: *mut Parsed) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else { return Options::NONE.0 };
    syn::options(&Frame::new(&ctx), usize::from(parsed.l4)).0
}

/// The IP header as the helpers look at it: both addresses.
#[inline(always)]
fn addresses(parsed: &Parsed) -> [u32; 10] {
    let (source, destination) = (parsed.source, parsed.destination);
    if source.is_v4() {
        let word = |address: Address| (address.lo as u32).to_be();
        return [0x45, 0, 0, word(source), word(destination), 0, 0, 0, 0, 0];
    }
    let high = |word: u64| ((word >> 32) as u32).to_be();
    let low = |word: u64| (word as u32).to_be();
    [
        0x60,
        0,
        high(source.hi),
        low(source.hi),
        high(source.lo),
        low(source.lo),
        high(destination.hi),
        low(destination.hi),
        high(destination.lo),
        low(destination.lo),
    ]
}

/// The kernel's cookie for a client's connection; its MSS is in the upper half.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_syn_cookie(parsed: *mut Parsed, sequence: u32, mss: u32) -> u64 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else { return 0 };
    if SYN_HELPERS.load() == 0 {
        return 0;
    }
    let mut ip = addresses(parsed);
    let ports = u32::from(parsed.source_port) << 16 | u32::from(parsed.destination_port);
    // Six words, SYN; the one option says the largest segment.
    let mut tcp = [
        ports.to_be(),
        sequence.to_be(),
        0,
        0x6002_ffff_u32.to_be(),
        0,
        (0x0204_0000 | mss & 0xffff).to_be(),
    ];
    let (ip, tcp) = (&raw mut ip, &raw mut tcp);
    // SAFETY: headers of the lengths that the helpers ask for.
    unsafe {
        if parsed.is_v4() {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast::<iphdr>(), tcp.cast::<tcphdr>(), 24) as u64
        } else {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast::<ipv6hdr>(), tcp.cast::<tcphdr>(), 24) as u64
        }
    }
}

/// One if `cookie` is the kernel's for a client's connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_syn_check(parsed: *mut Parsed, sequence: u32, cookie: u32) -> u32 {
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else { return 0 };
    if SYN_HELPERS.load() == 0 {
        return 0;
    }
    let mut ip = addresses(parsed);
    let ports = u32::from(parsed.source_port) << 16 | u32::from(parsed.destination_port);
    // As the acknowledgement of a SYN-ACK.
    let (sequence, cookie) = (sequence.wrapping_add(1), cookie.wrapping_add(1));
    let mut tcp = [ports.to_be(), sequence.to_be(), cookie.to_be(), 0x5010_ffff_u32.to_be(), 0];
    let (ip, tcp) = (&raw mut ip, &raw mut tcp);
    // SAFETY: headers of the lengths that the helpers ask for.
    let valid = unsafe {
        if parsed.is_v4() {
            bpf_tcp_raw_check_syncookie_ipv4(ip.cast::<iphdr>(), tcp.cast::<tcphdr>())
        } else {
            bpf_tcp_raw_check_syncookie_ipv6(ip.cast::<ipv6hdr>(), tcp.cast::<tcphdr>())
        }
    };
    u32::from(valid == 0)
}

/// [`syn::verify`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_syn_verify(source: u64, second: u64) -> u32 {
    syn::verify(&Verified(second), source, second);
    0
}

/// The table of verified sources; with a number that the verifier does not know.
struct Verified(u64);

impl Table for Verified {
    type Set = Set;
    #[inline(always)]
    fn mask(&self) -> u64 {
        u64::from(VERIFIED_SETS) - 1
    }
    #[inline(always)]
    fn set(&self, index: u64) -> Option<Set> {
        maps::VERIFIED.get_ptr_mut(index as u32).map(Set)
    }
    #[inline(always)]
    fn forget(&self, number: usize) -> usize {
        forget(number, self.0)
    }
}
