//! `gateway decap`: the program for targets, on their interfaces for as long as this value lives.

use std::net::IpAddr;

use aya::{
    EbpfLoader,
    maps::{LpmTrie, lpm_trie::Key},
    programs::{Xdp, XdpMode},
};
use gateway_common::{service::name, source::Address};

use super::{
    error::{KernelError, chain},
    object::OBJECT,
    pieces, sys,
};
use crate::config::units::Prefix;

const PROGRAM: &str = "xdp_decap";

/// The running program; ends with this value.
pub struct Decap {
    _ebpf: aya::Ebpf,
    /// Interfaces and the modes they run it in.
    pub modes: Vec<(String, &'static str)>,
    /// Why packets that come in pieces are not taken out; none: they are.
    pub whole_only: Option<String>,
}

impl Decap {
    /// Takes packets from `from` out of their packets on these interfaces: native mode where it can be had.
    ///
    /// # Errors
    /// An interface is not there or has another program, or the kernel refuses ours.
    pub fn start(interfaces: &[String], from: &[Prefix]) -> Result<Self, KernelError> {
        let failed =
            |error: &dyn std::error::Error| KernelError::Load { program: PROGRAM, why: chain(error) };
        let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|error| failed(&error))?;
        let missing = || KernelError::Load { program: PROGRAM, why: "it is not in the object".into() };
        let map = ebpf.map_mut(name::DECAP_FROM).ok_or_else(missing)?;
        let mut allowed: LpmTrie<_, [u8; 16], u32> =
            LpmTrie::try_from(map).map_err(KernelError::map(name::DECAP_FROM))?;
        for prefix in from {
            let bits = match prefix.addr {
                IpAddr::V4(_) => 96 + u32::from(prefix.len),
                IpAddr::V6(_) => u32::from(prefix.len),
            };
            let key = Key::new(bits, Address::from(prefix.addr).octets());
            allowed.insert(&key, 1, 0).map_err(KernelError::map(name::DECAP_FROM))?;
        }
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(missing)?
            .try_into()
            .map_err(|error: aya::programs::ProgramError| failed(&error))?;
        program.load().map_err(|error| failed(&error))?;
        let mut modes = Vec::new();
        for interface in interfaces {
            let index = sys::ifindex(interface)
                .ok_or_else(|| KernelError::NoInterface { name: interface.clone() })?;
            let attached = [("native", XdpMode::Driver), ("generic", XdpMode::Skb)]
                .into_iter()
                .map(|(mode, flag)| program.attach_to_if_index(index, flag).map(|_| mode))
                .reduce(|native, generic| native.or(generic));
            match attached {
                Some(Ok(mode)) => modes.push((interface.clone(), mode)),
                Some(Err(error)) => {
                    let why = chain(&error);
                    return Err(KernelError::Mode { interface: interface.clone(), mode: "generic", why });
                }
                None => {}
            }
        }
        let taken = interfaces.iter().try_for_each(|interface| pieces::take(interface, from));
        Ok(Self { _ebpf: ebpf, modes, whole_only: taken.err().map(|error| error.to_string()) })
    }
}
