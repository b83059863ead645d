//! `steer` (sk_lookup, Linux 5.9): a new connection goes to the worker its client's address hashes to.
//!
//! Never refuses: without a matching listener or socket the kernel looks the socket up as if we were not there.

use aya_ebpf::{
    bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use gateway_common::{
    hash,
    maps::{SteerKey, Workers},
    packet::TCP,
    source::Address,
};

use crate::maps;

const SK_PASS: u32 = 1;
const AF_INET: u32 = 2;

#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    let _ = redirect(&ctx);
    SK_PASS
}

#[inline(always)]
fn redirect(ctx: &SkLookupContext) -> Option<()> {
    // SAFETY: the context the kernel gave us.
    let packet: &bpf_sk_lookup = unsafe { &*ctx.lookup };
    if packet.protocol != u32::from(TCP) {
        return None;
    }
    let v4 = packet.family == AF_INET;
    let (local, any, remote) = if v4 {
        let (local, remote) = (packet.local_ip4, packet.remote_ip4);
        (Address::v4(u32::from_be(local)), Address::v4(0), Address::v4(u32::from_be(remote)))
    } else {
        let local = [packet.local_ip6[0], packet.local_ip6[1], packet.local_ip6[2], packet.local_ip6[3]];
        let remote = [packet.remote_ip6[0], packet.remote_ip6[1], packet.remote_ip6[2], packet.remote_ip6[3]];
        (v6(local), Address { hi: 0, lo: 0 }, v6(remote))
    };
    let workers = workers(local, packet.local_port).or_else(|| workers(any, packet.local_port))?;
    let worker = hash::bucket_of(hash::of_address(workers.seed, remote), workers.count);
    maps::SOCKETS
        .redirect_sk_lookup(ctx, workers.first + worker, u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT))
        .ok()
}

#[inline(always)]
fn workers(address: Address, port: u32) -> Option<&'static Workers> {
    // SAFETY: userspace replaces entries only as it replaces the listener; a stale read finds no socket.
    unsafe { maps::STEER.get(SteerKey { address, port, _pad: 0 }) }
}

#[inline(always)]
fn v6(words: [u32; 4]) -> Address {
    let [a, b, c, d] = words.map(|word| u64::from(u32::from_be(word)));
    Address { hi: a << 32 | b, lo: c << 32 | d }
}
