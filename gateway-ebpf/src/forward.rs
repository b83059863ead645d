//! L4 services in XDP: the tables of `gateway_common::forward`, and its ways as functions that the verifier looks at once
//! each, whatever way a packet came there.

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Fib, xdp_md},
    helpers::generated::bpf_fib_lookup,
    programs::XdpContext,
};
use gateway_common::{
    flow::{Table, Words},
    forward::{self, Choice, Kind, NextHop, Outcome, Related, Tables, found},
    maps::Settings,
    packet::{PacketMut, Parsed},
    service::{
        HOP_NS, NAT_PORTS, SERVICE_CHAIN, SERVICE_PLACES, Service, ServiceKey, TARGETS_CAPACITY, Target, Vip,
        hop_slot, mode, server_key,
    },
    source::Address,
    verdict::Reason,
};

use crate::{atomic, maps, packet::Frame, xdp};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Nothing of ours: the packet goes on to the limits and the stack.
const NOT_OURS: u64 = u64::MAX;

/// The service that a packet is sent to.
#[inline(always)]
pub fn service(settings: &Settings, parsed: &Parsed) -> Option<&'static Service> {
    find(settings, &ServiceKey::new(parsed.destination, parsed.destination_port, parsed.protocol))
}

#[inline(always)]
fn find(settings: &Settings, key: &ServiceKey) -> Option<&'static Service> {
    let mut at = key.place(settings.flow_seed);
    let mut looked = 0;
    while looked < SERVICE_CHAIN {
        let place = maps::SERVICES.get(settings.services + at)?;
        if place.key == *key {
            return Some(&place.service);
        }
        if place.next == 0 {
            return None;
        }
        at = (place.next - 1) & (SERVICE_PLACES - 1);
        looked += 1;
    }
    None
}

/// A target's reply, back to its client, if it is one.
#[inline(always)]
pub fn reply(ctx: &XdpContext, parsed: &mut Parsed, now: u64) -> Option<Outcome> {
    if !NAT_PORTS.contains(&parsed.destination_port) {
        return None;
    }
    unpack(gateway_reply(ctx.ctx, parsed, now))
}

/// Pings, errors and later fragments, if they are of a service.
#[inline(always)]
pub fn without_ports(ctx: &XdpContext, parsed: &mut Parsed, now: u64) -> Option<Outcome> {
    match forward::kind(parsed) {
        Kind::Icmp => {
            let related = gateway_icmp(ctx.ctx, parsed);
            if related == NOT_OURS {
                return None;
            }
            let (mode, choice) = ((related >> 56) as u32, related & CHOICE);
            unpack(match mode as u8 {
                OF_CLIENT => gateway_icmp_to_client(ctx.ctx, parsed, now),
                mode::ECHO => gateway_send(ctx.ctx, parsed, choice, mode, now),
                _ => gateway_icmp_to_target(ctx.ctx, parsed, choice, mode, now),
            })
        }
        Kind::LaterFragment => {
            let first = gateway_fragment(parsed, now);
            if first == NOT_OURS {
                return unpack(gateway_reply(ctx.ctx, parsed, now));
            }
            unpack(gateway_send(ctx.ctx, parsed, first & CHOICE, (first >> 56) as u32, now))
        }
        Kind::Ports => None,
    }
}

/// Sends a packet to a target of its service.
#[inline(always)]
pub fn to_target(ctx: &XdpContext, parsed: &mut Parsed, service: &Service, now: u64) -> Outcome {
    let mut how = 0;
    if service.mode != mode::ECHO {
        let place = u64::from(service.ring) << 32 | u64::from(service.vip) << 16 | u64::from(service.service);
        let options = u64::from(service.mode) << 8 | u64::from(service.options);
        if let Some(outcome) = unpack(gateway_quick(ctx.ctx, parsed, place, options, now)) {
            return outcome;
        }
        how = gateway_choose(ctx.ctx, parsed, place, options, now);
        if how >> 32 == 0 {
            return Reason::from_id(how as u8).unwrap_or(Reason::NoSettings).into();
        }
    }
    let word = gateway_send(ctx.ctx, parsed, how, u32::from(service.mode), now);
    unpack(word).unwrap_or(Reason::NoSettings.into())
}

/// The bits of [`pack_choice`].
const CHOICE: u64 = (1 << 49) - 1;

#[inline(always)]
fn pack_choice(choice: Choice) -> u64 {
    u64::from(choice.pinned) << 48 | u64::from(choice.target) << 32 | u64::from(choice.port)
}

#[inline(always)]
fn unpack_choice(word: u64) -> Choice {
    Choice { target: (word >> 32) as u16, port: word as u16, pinned: word >> 48 & 1 != 0 }
}

/// In place of a mode: an error about a packet that we sent to a target.
const OF_CLIENT: u8 = 0x7f;

/// An outcome as a word; the interface is zero where the packet came from it.
#[inline(always)]
fn pack(ctx: &XdpContext, outcome: Outcome) -> u64 {
    let back = outcome.ifindex == ctx.ingress_ifindex() as u32;
    let ifindex = if back { 0 } else { outcome.ifindex };
    u64::from(ifindex) << 8 | u64::from(outcome.reason.id())
}

#[inline(always)]
fn unpack(word: u64) -> Option<Outcome> {
    if word == NOT_OURS {
        return None;
    }
    let reason = Reason::from_id(word as u8).unwrap_or(Reason::NoSettings);
    Some(Outcome { reason, ifindex: (word >> 8) as u32 })
}

/// A service in two words.
#[inline(always)]
fn of_words(place: u64, how: u64) -> Service {
    Service {
        ring: (place >> 32) as u32,
        vip: (place >> 16) as u16,
        service: place as u16,
        mode: (how >> 8) as u8,
        options: how as u8,
        _pad: [0; 6],
    }
}

/// [`forward::quick`]: an outcome, or [`NOT_OURS`] if the packet has to go the long way.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_quick(
    ctx: *mut xdp_md,
    parsed: *mut Parsed,
    place: u64,
    how: u64,
    now: u64,
) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: null or a packet's description in a map; the verifier insists on the check.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    let (tables, service) = (Kernel::new(&ctx, settings, now), of_words(place, how));
    match forward::quick(&mut Frame::new(&ctx), &tables, parsed, &service) {
        Some(outcome) => pack(&ctx, outcome),
        None => NOT_OURS,
    }
}

/// The target of a packet: its index and whether the connection is pinned above bit 32, our port below; or, with nothing
/// above bit 32, the reason why there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_choose(
    ctx: *mut xdp_md,
    parsed: *mut Parsed,
    place: u64,
    how: u64,
    now: u64,
) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: null or a packet's description on the caller's stack; the verifier insists on the check.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return u64::from(Reason::NoSettings.id());
    };
    let (tables, service) = (Kernel::new(&ctx, settings, now), of_words(place, how));
    match forward::choose(&Frame::new(&ctx), &tables, parsed, &service) {
        Ok(choice) => pack_choice(choice),
        Err(reason) => u64::from(reason.id()),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_send(
    ctx: *mut xdp_md,
    parsed: *mut Parsed,
    choice: u64,
    mode: u32,
    now: u64,
) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    let tables = Kernel::new(&ctx, settings, now);
    let packet = &mut Frame::new(&ctx);
    pack(&ctx, forward::send(packet, &tables, parsed, mode as u8, unpack_choice(choice)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_reply(ctx: *mut xdp_md, parsed: *mut Parsed, now: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    let tables = Kernel::new(&ctx, settings, now);
    match forward::reply(&mut Frame::new(&ctx), &tables, parsed) {
        Some(outcome) => pack(&ctx, outcome),
        None => NOT_OURS,
    }
}

/// A choice, and the way of forwarding or [`OF_CLIENT`] in the upper byte.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_icmp(ctx: *mut xdp_md, parsed: *mut Parsed) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    // No time: the compiler leaves out arguments that nobody uses, and the verifier would miss it.
    let tables = Kernel::new(&ctx, settings, 0);
    match forward::icmp_kind(&Frame::new(&ctx), &tables, parsed) {
        Some(Related::Echo) => u64::from(mode::ECHO) << 56,
        Some(Related::OfTarget(mode, choice)) => u64::from(mode) << 56 | pack_choice(choice),
        Some(Related::OfClient) => u64::from(OF_CLIENT) << 56,
        None => NOT_OURS,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_icmp_to_target(
    ctx: *mut xdp_md,
    parsed: *mut Parsed,
    choice: u64,
    mode: u32,
    now: u64,
) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    let tables = Kernel::new(&ctx, settings, now);
    let packet = &mut Frame::new(&ctx);
    pack(&ctx, forward::icmp_to_target(packet, &tables, parsed, mode as u8, unpack_choice(choice)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_icmp_to_client(ctx: *mut xdp_md, parsed: *mut Parsed, now: u64) -> u64 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    let tables = Kernel::new(&ctx, settings, now);
    match forward::icmp_to_client(&mut Frame::new(&ctx), &tables, parsed) {
        Some(outcome) => pack(&ctx, outcome),
        None => NOT_OURS,
    }
}

/// A choice, and the way of forwarding in the upper byte.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_fragment(parsed: *mut Parsed, now: u64) -> u64 {
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else {
        return NOT_OURS;
    };
    // The compiler leaves out arguments that nobody uses, and the verifier would miss this one.
    let no_packet = XdpContext::new(core::ptr::null_mut());
    match forward::fragment(&Kernel::new(&no_packet, settings, now), parsed) {
        Some((mode, choice)) => u64::from(mode) << 56 | pack_choice(choice),
        None => NOT_OURS,
    }
}

/// One if the port in the lower half of `vip_port` is now the connection's, see [`forward::claim_port`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_claim(parsed: *mut Parsed, target: u32, vip_port: u32, second: u64) -> u32 {
    // SAFETY: as above.
    let (Some(parsed), Some(settings)) = (unsafe { parsed.as_ref() }, xdp::settings()) else { return 0 };
    let Some(target) = maps::TARGETS.get(target) else { return 0 };
    let replies = Replies(settings.replies_mask);
    let (vip, port) = ((vip_port >> 16) as u16, vip_port as u16);
    u32::from(forward::claim_port(&replies, (settings.flow_seed, second), parsed, target, vip, port))
}

/// [`forward::too_big`]: the reason's id.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_too_big(ctx: *mut xdp_md, parsed: *mut Parsed, mtu: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: as above.
    let Some(parsed) = (unsafe { parsed.as_ref() }) else { return 0 };
    u32::from(forward::too_big(&mut Frame::new(&ctx), parsed, mtu).id())
}

/// Asks the kernel for the next hop of an address and remembers the answer on this CPU.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn gateway_resolve(ctx: *mut xdp_md, hi: u64, lo: u64, now: u64) -> u32 {
    let destination = Address { hi, lo };
    let mut fib = core::mem::MaybeUninit::<Fib>::uninit();
    // SAFETY: integers only, all of them written. Word by word, because a call of memset would be one frame more than
    // Linux 6.1 has stack for: it adds up whole calls, 32 bytes at least for each.
    let fib = unsafe {
        let words: *mut u32 = fib.as_mut_ptr().cast();
        let mut at = 0;
        while at < size_of::<Fib>() / size_of::<u32>() {
            words.add(at).write_volatile(0);
            at += 1;
        }
        fib.assume_init_mut()
    };
    // SAFETY: the context the kernel gave us.
    fib.ifindex = unsafe { (*ctx).ingress_ifindex };
    // One byte fits everywhere: asked so, the kernel says how many do (Linux 5.13).
    fib.__bindgen_anon_1.tot_len = 1;
    if destination.is_v4() {
        fib.family = AF_INET;
        fib.__bindgen_anon_4.ipv4_dst = (lo as u32).to_be();
    } else {
        fib.family = AF_INET6;
        fib.__bindgen_anon_4.ipv6_dst = [
            ((hi >> 32) as u32).to_be(),
            (hi as u32).to_be(),
            ((lo >> 32) as u32).to_be(),
            (lo as u32).to_be(),
        ];
    }
    // SAFETY: as above; the structure is on our stack.
    let found = unsafe { bpf_fib_lookup(ctx.cast(), &raw mut *fib, size_of::<Fib>() as i32, 0) } as u32;
    if found == BPF_FIB_LKUP_RET_SUCCESS {
        let Some(hop) = maps::HOPS.get_ptr_mut(u32::from(hop_slot(destination))) else {
            return BPF_FIB_LKUP_RET_NO_NEIGH;
        };
        // SAFETY: this CPU's own value; XDP runs with bottom halves off, so nobody else writes it.
        unsafe {
            (*hop).destination = destination;
            (*hop).until_ns = now + HOP_NS;
            (*hop).target_mac = mac(fib.dmac);
            (*hop).source_mac = mac(fib.smac);
            (*hop).ifindex = fib.ifindex;
            (*hop).mtu = u32::from(fib.__bindgen_anon_1.mtu_result);
        }
    }
    found
}

#[inline(always)]
fn mac(bytes: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// The maps as forwarding sees them.
struct Kernel<'a> {
    ctx: &'a XdpContext,
    settings: &'a Settings,
    now: u64,
    flows: Flows,
    replies: Replies,
}

impl<'a> Kernel<'a> {
    #[inline(always)]
    fn new(ctx: &'a XdpContext, settings: &'a Settings, now: u64) -> Self {
        let (flows, replies) = (Flows(settings.flows_mask), Replies(settings.replies_mask));
        Self { ctx, settings, now, flows, replies }
    }
}

impl Kernel<'_> {
    /// What this CPU knows of a next hop.
    #[inline(always)]
    fn remembered(&self, slot: u16, destination: Address) -> NextHop {
        let Some(hop) = maps::HOPS.get_ptr(u32::from(slot)) else { return NextHop::without(found::NOTHING) };
        // SAFETY: this CPU's own value, as above.
        let hop = unsafe { &*hop };
        if hop.destination != destination || hop.until_ns <= self.now {
            return NextHop::without(found::NOTHING);
        }
        NextHop {
            found: found::HOP,
            ifindex: hop.ifindex,
            mtu: hop.mtu,
            target_mac: hop.target_mac,
            source_mac: hop.source_mac,
        }
    }
}

impl Tables for Kernel<'_> {
    type Flows = Flows;
    type Replies = Replies;

    #[inline(always)]
    fn seed(&self) -> u64 {
        self.settings.flow_seed
    }
    #[inline(always)]
    fn second(&self) -> u64 {
        self.now >> 30
    }
    #[inline(always)]
    fn flows(&self) -> &Flows {
        &self.flows
    }
    #[inline(always)]
    fn replies(&self) -> &Replies {
        &self.replies
    }
    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        find(self.settings, key).copied()
    }
    #[inline(always)]
    fn vip(&self, index: u16) -> Option<&Vip> {
        maps::VIPS.get(u32::from(index))
    }
    #[inline(always)]
    fn slot(&self, ring: u32, slot: u32) -> u16 {
        match maps::RINGS.get_value(ring, &(slot >> 2)) {
            Some(word) => (word >> ((slot & 3) * 16)) as u16,
            None => 0,
        }
    }
    #[inline(always)]
    fn server(&self, service: u16, id: u16) -> Option<u16> {
        // SAFETY: as above.
        unsafe { maps::SERVER_IDS.get(server_key(service, id)) }.map(|index| *index as u16)
    }
    #[inline(always)]
    fn target(&self, index: u16) -> Option<&Target> {
        maps::TARGETS.get(u32::from(index))
    }
    #[inline(always)]
    fn count(&self, target: u16, bytes: u32, connection: bool) {
        let Some(counter) = maps::TARGET_COUNTERS.get_ptr_mut(u32::from(target) & (TARGETS_CAPACITY - 1))
        else {
            return;
        };
        // SAFETY: this CPU's own value, as above.
        unsafe {
            if connection {
                (*counter).connections += 1;
            } else {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(bytes);
            }
        }
    }
    #[inline(always)]
    fn next_hop(&self, destination: Address) -> NextHop {
        let slot = hop_slot(destination);
        let hop = self.remembered(slot, destination);
        if hop.found == found::HOP {
            return hop;
        }
        match gateway_resolve(self.ctx.ctx, destination.hi, destination.lo, self.now) {
            BPF_FIB_LKUP_RET_SUCCESS => self.remembered(slot, destination),
            BPF_FIB_LKUP_RET_NO_NEIGH => NextHop::without(found::ROUTE),
            _ => NextHop::without(found::NOTHING),
        }
    }
    #[inline(always)]
    fn known_hop(&self, target: &Target) -> NextHop {
        self.remembered(target.hop, target.address)
    }
    #[inline(always)]
    fn claim_port(&self, parsed: &Parsed, target: u16, vip: u16, port: u16) -> bool {
        let vip_port = u32::from(vip) << 16 | u32::from(port);
        gateway_claim(mutable(parsed), u32::from(target), vip_port, self.second()) != 0
    }
    #[inline(always)]
    fn too_big<P: PacketMut>(&self, _: &mut P, parsed: &Parsed, mtu: u32) -> Reason {
        let id = gateway_too_big(self.ctx.ctx, mutable(parsed), mtu);
        Reason::from_id(id as u8).unwrap_or(Reason::NoRoom)
    }
}

/// The verifier knows no pointers to what may only be read. Nobody writes through this one.
#[inline(always)]
fn mutable(parsed: &Parsed) -> *mut Parsed {
    core::ptr::from_ref(parsed).cast_mut()
}

/// The table of connections; the mask of its sets.
struct Flows(u64);

/// The table of replies; the mask of its sets.
struct Replies(u64);

/// A set of a table.
pub struct Set(pub *mut [u64; 8]);

macro_rules! table {
    ($table:ty, $map:ident) => {
        impl Table for $table {
            type Set = Set;
            #[inline(always)]
            fn mask(&self) -> u64 {
                self.0
            }
            #[inline(always)]
            fn set(&self, index: u64) -> Option<Set> {
                maps::$map.get_ptr_mut(index as u32).map(Set)
            }
            #[inline(always)]
            fn forget(&self, number: usize) -> usize {
                forget(number, self.0)
            }
        }
    };
}

table!(Flows, FLOWS);
table!(Replies, REPLIES);

impl Words for Set {
    #[inline(always)]
    fn load(&self, at: usize) -> u64 {
        // SAFETY: eight words of a map's value, `at` below eight. The kernel reads aligned words whole.
        unsafe { core::ptr::read_volatile((self.0 as *const u64).add(at & 7)) }
    }
    #[inline(always)]
    fn store(&self, at: usize, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile((self.0 as *mut u64).add(at & 7), value) };
    }
    #[inline(always)]
    fn replace(&self, at: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        unsafe { atomic::compare_exchange((self.0 as *mut u64).add(at & 7), old, new) == old }
    }
}

/// See [`gateway_common::packet::Packet::forget`]: the same number, of which the verifier knows nothing any more.
#[inline(always)]
pub fn forget(number: usize, unknown: u64) -> usize {
    let mut number = number;
    // SAFETY: two exclusive-ors with the same number, which the verifier does not see cancel out.
    unsafe {
        core::arch::asm!(
            "{number} ^= {unknown}",
            "{number} ^= {unknown}",
            number = inout(reg) number,
            unknown = in(reg) unknown,
            options(nomem, nostack, preserves_flags),
        );
    }
    number
}
