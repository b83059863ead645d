//! The kernel half: `xdp_gateway` judges every packet, `steer` gives every new connection its worker;
//! `xdp_decap` is for targets of L4 services.
//!
//! No policy of its own: it decides by the tables userspace wrote, with the arithmetic of `gateway-common`.
//! One file a program; `probe.rs` holds what is loaded to calibrate, test and measure, never attached.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod access;
mod atomic;
mod bench;
mod capture;
mod decap;
mod forward;
mod limit;
mod maps;
mod packet;
mod probe;
mod record;
mod steer;
mod syn;
mod xdp;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
