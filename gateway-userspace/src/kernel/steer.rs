//! Steering: which sockets the `steer` program may choose from, and its link.
//!
//! The map of sockets has two halves. A new set is written into the idle half, the table of listeners is turned to
//! it entry by entry, and only then is the old half cleared: no connection finds a listener without sockets.

use std::{
    collections::HashMap,
    fs::{self, File},
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf,
    programs::{SkLookup, links::FdLink},
};
use gateway_common::{
    maps::{SOCKETS_CAPACITY, SteerKey, Workers, name},
    source::Address,
};

use super::{
    error::{KernelError, chain},
    object::Maps,
    pins::Pins,
    sys,
};
use crate::config::model::Bind;

/// A listener whose connections are to be spread over its workers by client address.
pub struct SteerListener<'a> {
    pub bind: Bind,
    /// One a worker, listening already.
    pub sockets: Vec<BorrowedFd<'a>>,
}

/// The link and what the maps hold.
#[derive(Default)]
pub struct Steering {
    link: Option<FdLink>,
    /// What the table of listeners holds.
    pub(super) keys: HashMap<SteerKey, Workers>,
    upper_half: bool,
    pub listeners: usize,
    pub sockets: usize,
}

const NAMESPACE: &str = "/proc/thread-self/ns/net";
const HALF: u32 = SOCKETS_CAPACITY / 2;

impl Steering {
    pub fn is_on(&self) -> bool {
        self.link.is_some()
    }

    /// Makes `listeners` the set of steered listeners.
    pub fn set(
        &mut self,
        ebpf: &mut Ebpf,
        maps: &mut Maps,
        pins: Option<&Pins>,
        seed: u64,
        listeners: &[SteerListener<'_>],
    ) -> Result<(), KernelError> {
        let wanted: usize = listeners.iter().map(|listener| listener.sockets.len()).sum();
        if wanted > HALF as usize {
            return Err(KernelError::TooManySockets { wanted, capacity: HALF });
        }
        let base = if self.upper_half { 0 } else { HALF };
        let mut next = base;
        let mut keys = HashMap::new();
        for listener in listeners.iter().filter(|listener| !listener.sockets.is_empty()) {
            let first = next;
            for socket in &listener.sockets {
                maps.sockets.set(next, &socket.as_raw_fd(), 0).map_err(KernelError::map(name::SOCKETS))?;
                next += 1;
            }
            for key in keys_of(listener.bind) {
                let workers = Workers { first, count: next - first, seed };
                maps.steer.insert(key, workers, 0).map_err(KernelError::map(name::STEER))?;
                keys.insert(key, workers);
            }
        }
        for gone in self.keys.keys().filter(|key| !keys.contains_key(key)) {
            let _ = maps.steer.remove(gone);
        }
        let old = if self.upper_half { HALF } else { 0 };
        for index in old..old + HALF {
            // Those that are not there end the used part.
            if maps.sockets.clear_index(&index).is_err() {
                break;
            }
        }
        self.keys = keys;
        self.upper_half = !self.upper_half;
        self.listeners = listeners.len();
        self.sockets = (next - base) as usize;
        if self.link.is_none() && !listeners.is_empty() {
            self.link = Some(attach(ebpf, pins)?);
        }
        Ok(())
    }

    /// After somebody took the program, or its pin, away.
    pub fn attach_again(&mut self, ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<(), KernelError> {
        self.link = None;
        self.link = Some(attach(ebpf, pins)?);
        Ok(())
    }

    /// Entries of the table of listeners.
    pub fn entries(&self) -> usize {
        self.keys.len()
    }

    pub fn detach(&mut self, pins: Option<&Pins>) {
        if let Some(pins) = pins {
            let _ = fs::remove_file(pins.steer_link());
        }
        self.link = None;
    }
}

/// Loads the program, so that what the kernel thinks of it is known before any listener is open.
pub fn load(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    program(ebpf)?.load().map_err(|error| failed(&error))
}

/// Attaches beside what an earlier run left and then takes its place: somebody steers all the time.
fn attach(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Result<FdLink, KernelError> {
    let program = program(ebpf)?;
    let namespace = File::open(NAMESPACE)
        .map_err(|error| KernelError::Pin { path: NAMESPACE.into(), why: error.to_string() })?;
    let id = program.attach(namespace).map_err(|error| failed(&error))?;
    let link: FdLink = program.take_link(id).map_err(|error| failed(&error))?.into();
    let Some(pins) = pins else { return Ok(link) };
    let path = pins.steer_link();
    let fresh = pins.folder().join("link_steer_new");
    let _ = fs::remove_file(&fresh);
    let pinned =
        link.pin(&fresh).map_err(|error| KernelError::Pin { path: fresh.clone(), why: chain(&error) })?;
    fs::rename(&fresh, &path).map_err(|error| KernelError::Pin { path, why: error.to_string() })?;
    Ok(pinned.into())
}

/// Whether the program steers in this network namespace. `None`: that cannot be asked.
pub fn is_attached(ebpf: &Ebpf) -> Option<bool> {
    let program: &SkLookup = ebpf.program("steer")?.try_into().ok()?;
    let ours = program.info().ok()?.id();
    let namespace = File::open(NAMESPACE).ok()?;
    Some(sys::sk_lookup_programs(namespace.as_fd()).ok()?.contains(&ours))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SkLookup, KernelError> {
    let program = ebpf
        .program_mut("steer")
        .ok_or_else(|| KernelError::Load { program: "steer", why: "it is not in the object".into() })?;
    program.try_into().map_err(|error| failed(&error))
}

fn failed(error: &aya::programs::ProgramError) -> KernelError {
    KernelError::Load { program: "steer", why: chain(error) }
}

/// A wildcard is looked up by the family of the packet, and a dual-stack socket takes both.
pub fn keys_of(bind: Bind) -> Vec<SteerKey> {
    let key = |address: Address, port: u16| SteerKey { address, port: u32::from(port), _pad: 0 };
    let any_v4 = Address::v4(0);
    let any_v6 = Address::default();
    match bind {
        Bind::Any(port) => vec![key(any_v4, port), key(any_v6, port)],
        Bind::Addr(addr) => match addr.ip() {
            IpAddr::V6(v6) if v6.is_unspecified() => vec![key(any_v4, addr.port()), key(any_v6, addr.port())],
            ip => vec![key(Address::from(ip), addr.port())],
        },
    }
}
