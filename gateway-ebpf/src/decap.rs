//! `xdp_decap`, for targets of services with `forward = "ipip"` or `"gue"`: takes packets out of the packets in which a
//! gateway sent them, and leaves all others alone.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, maps::lpm_trie::Key, programs::XdpContext};
use gateway_common::{
    forward,
    packet::{self, Parsed},
};

use crate::{maps, packet::Frame};

#[xdp(frags)]
pub fn xdp_decap(ctx: XdpContext) -> u32 {
    let mut parsed = Parsed::default();
    let mut frame = Frame::new(&ctx);
    if packet::parse(&frame, true, &mut parsed).is_ok()
        // Anybody could send packets in packets, past every filter on the way.
        && maps::DECAP_FROM.get(Key::new(128, parsed.source.octets())).is_some()
    {
        forward::unwrap(&mut frame, &parsed);
    }
    XDP_PASS
}
