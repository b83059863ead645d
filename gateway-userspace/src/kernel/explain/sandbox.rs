//! The very programs of the running gateway, loaded a second time: what they only read is shared with the first, what
//! packets change is a copy of their own.
//!
//! So the answer is the real program's, and yet no bucket, connection or counter that counts is touched; and while
//! nobody asks there is none of it.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::{
    Ebpf,
    programs::{ProgramError, Xdp},
};
use gateway_common::{
    flow::{Table, Words},
    maps::{self as layout, Settings, Switch, flag, name},
    service, table,
};

use crate::kernel::{
    error::{KernelError, chain},
    object::{self, Maps},
    pins::Pins,
    sys::{self, Mapped},
};

/// What the programs look up and never write.
const SHARED: [&str; 8] = [
    name::ACCESS_V4,
    name::ACCESS_V6,
    name::BANS,
    service::name::SERVICES,
    service::name::VIPS,
    service::name::RINGS,
    service::name::TARGETS,
    service::name::SERVER_IDS,
];

const PROGRAM: &str = "probe_explain";

pub struct Sandbox {
    /// The program needs its maps, and the maps' owner.
    _ebpf: Ebpf,
    pub maps: Maps,
    program: OwnedFd,
    /// Tables with what the running programs have in them, and here.
    copies: Vec<(&'static str, Mapped, Mapped)>,
    /// [`crate::kernel::plane::Loaded::ticks`] when it was last used.
    pub used: u32,
}

impl Sandbox {
    /// `sets`: of the tables of connections and of replies.
    pub fn open(live: &Maps, pins: &Pins, sets: (u32, u32)) -> Result<Self, KernelError> {
        let failed = |why: String| KernelError::Load { program: PROGRAM, why };
        let (mut ebpf, maps) = object::load_sharing(Some(pins), &SHARED, sets.0 * 2)?;
        let program: &mut Xdp = ebpf
            .program_mut(PROGRAM)
            .ok_or_else(|| failed("it is not in the object".into()))?
            .try_into()
            .map_err(|error: ProgramError| failed(chain(&error)))?;
        program.load().map_err(|error| failed(chain(&error)))?;
        let program = program.fd().map_err(|error| failed(chain(&error)))?.as_fd().try_clone_to_owned();
        let program = program.map_err(|error| failed(error.to_string()))?;
        let mut copies = Vec::new();
        for (map, bytes) in [
            (name::BUCKETS, table::SETS as usize * size_of::<table::Set>()),
            (name::COARSE, layout::COARSE_SLOTS as usize * size_of::<layout::Coarse>()),
            (name::SERVICE_LIMITS, layout::SERVICE_LIMITS_CAPACITY as usize * size_of::<layout::Limits>()),
            (service::name::FLOWS, sets.0 as usize * 64),
            (service::name::REPLIES, sets.1 as usize * 64),
        ] {
            let mapped = |of: &Maps, writable| {
                let fd = of.fd(map).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
                Mapped::new(fd, bytes, writable)
            };
            let cannot = |error: std::io::Error| KernelError::Map { map, why: error.to_string() };
            copies.push((map, mapped(live, false).map_err(cannot)?, mapped(&maps, true).map_err(cannot)?));
        }
        Ok(Self { _ebpf: ebpf, maps, program, copies, used: 0 })
    }

    /// Brings the copies up to date.
    pub fn refresh(&mut self, settings: &Settings) -> Result<(), KernelError> {
        for (_, live, own) in &mut self.copies {
            own.copy(live);
        }
        let settings = Settings { flags: settings.flags & !flag::CAPTURE, ..*settings };
        let switch = Switch { active: 0, settings: [settings; 2] };
        self.maps.settings.set(0, switch, 0).map_err(KernelError::map(name::SETTINGS))
    }

    /// The id of the reason, the interface by which the packet leaves, and the packet as it does.
    pub fn run(&self, frame: &[u8], ifindex: u32) -> Result<(u8, u32, Vec<u8>), KernelError> {
        let (word, out) = sys::test_run_packet(self.program.as_fd(), frame, ifindex).map_err(|error| {
            KernelError::Unexplained { why: format!("the kernel refuses to try: {error}") }
        })?;
        Ok((word as u8, word >> 8, out))
    }

    /// The table of connections of the running programs: the one here has the tried packet's connection by now.
    pub fn live_flows(&self) -> Option<Flows<'_>> {
        self.copies.iter().find(|(map, ..)| *map == service::name::FLOWS).map(|(_, live, _)| Flows(live))
    }
}

/// A table of connections to look into.
pub struct Flows<'a>(&'a Mapped);

/// One of its sets: where it begins.
pub struct Set<'a>(&'a Mapped, usize);

impl<'a> Table for Flows<'a> {
    type Set = Set<'a>;
    fn mask(&self) -> u64 {
        (self.0.words() / 8) as u64 - 1
    }
    fn set(&self, index: u64) -> Option<Set<'a>> {
        Some(Set(self.0, index as usize * 8))
    }
}

/// For looking only.
impl Words for Set<'_> {
    fn load(&self, at: usize) -> u64 {
        self.0.word(self.1 + at)
    }
    fn store(&self, _: usize, _: u64) {}
    fn replace(&self, _: usize, _: u64, _: u64) -> bool {
        false
    }
}
