//! Two XDP programs by hand: one that does the same with every packet, one that sends copies of frames off.
//!
//! The lab loads them through the bare system call, so that it needs neither a BPF toolchain nor an object file.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;
const BPF_FUNC_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_FUNC_GET_PRANDOM_U32: i32 = 7;
const BPF_FUNC_REDIRECT: i32 = 23;
pub const XDP_DROP: i32 = 1;
pub const XDP_PASS: i32 = 2;
pub const XDP_TX: i32 = 3;

/// One instruction: opcode, registers (source in the high half), offset, immediate.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, immediate }
}

/// `register = value`
const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, 0, 0, value)
}

/// `to = from`
const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

#[repr(C)]
#[derive(Default)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct TestRunAttributes {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttributes {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// # Safety
/// What the attributes point to must be alive and as long as they say.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a plain struct laid out as this command's part of union bpf_attr, of the size given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A map with these values, all of one length.
fn array_of(values: &[Vec<u8>]) -> Result<OwnedFd> {
    let value_size = u32::try_from(values.first().map_or(0, Vec::len))?;
    let entries = u32::try_from(values.len())?;
    let mut attributes = MapAttributes { kind: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size, entries };
    // SAFETY: no pointers; the descriptor is new and owned by nobody else.
    let map = unsafe {
        let fd = bpf(BPF_MAP_CREATE, &mut attributes).context("cannot make a map")?;
        OwnedFd::from_raw_fd(fd as libc::c_int)
    };
    for (key, value) in (0u32..).zip(values) {
        let mut attributes = ElementAttributes {
            map: map.as_raw_fd().cast_unsigned(),
            key: &raw const key as u64,
            value: value.as_ptr() as u64,
            ..ElementAttributes::default()
        };
        // SAFETY: key and value outlive the call and are as long as the map says.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attributes) }.context("cannot fill a map")?;
    }
    Ok(map)
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Does the same with every packet: [`XDP_DROP`] or [`XDP_PASS`].
    pub fn same_for_all(verdict: i32) -> Result<Program> {
        Program::load(&[set(0, verdict), EXIT])
    }

    /// Makes every frame one of these (all of one length, a multiple of eight), picked at random, and sends it out of an
    /// interface. The kernel uses the buffers of live frames again without a look at what became of them.
    pub fn send_off(interface: u32, frames: &[Vec<u8>]) -> Result<Program> {
        let words = frames.first().map_or(0, Vec::len) / 8;
        let map = array_of(frames)?;
        let mut code = vec![
            copy(6, 1),
            call(BPF_FUNC_GET_PRANDOM_U32),
            // r0 %= frames; the key is on the stack.
            instruction(0x97, 0, 0, 0, i32::try_from(frames.len())?),
            instruction(0x63, 10, 0, -4, 0),
            copy(2, 10),
            instruction(0x07, 2, 0, 0, -4),
            // r1 = the map
            instruction(0x18, 1, 1, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            call(BPF_FUNC_MAP_LOOKUP_ELEM),
            instruction(0x55, 0, 0, 1, 0),
            EXIT,
            // r2 is where the packet begins, r4 where the frame will end: is that within the packet (r3)?
            instruction(0x61, 2, 6, 0, 0),
            instruction(0x61, 3, 6, 4, 0),
            copy(4, 2),
            instruction(0x07, 4, 0, 0, i32::try_from(words * 8)?),
            instruction(0xbd, 4, 3, 2, 0),
            set(0, XDP_DROP),
            EXIT,
        ];
        for at in (0..words).map(|word| word as i16 * 8) {
            code.extend([instruction(0x79, 5, 0, at, 0), instruction(0x7b, 2, 5, at, 0)]);
        }
        code.extend([set(1, interface.cast_signed()), set(2, 0), call(BPF_FUNC_REDIRECT), EXIT]);
        Program::load(&code)
    }

    fn load(instructions: &[Instruction]) -> Result<Program> {
        let license = c"GPL";
        let mut attributes = LoadAttributes {
            kind: BPF_PROG_TYPE_XDP,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            ..LoadAttributes::default()
        };
        // SAFETY: both pointers are to data that outlives the call; the descriptor is new and owned by nobody else.
        let program = unsafe {
            let fd = bpf(BPF_PROG_LOAD, &mut attributes).context("cannot load an XDP program")?;
            OwnedFd::from_raw_fd(fd as libc::c_int)
        };
        Ok(Program(program))
    }

    /// Attaches it in native mode until the link is dropped.
    pub fn attach(&self, interface: u32) -> Result<OwnedFd> {
        let mut attributes = LinkAttributes {
            program: self.0.as_raw_fd().cast_unsigned(),
            interface,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        // SAFETY: no pointers; the descriptor is new and owned by nobody else.
        unsafe {
            let fd = bpf(BPF_LINK_CREATE, &mut attributes).context("cannot attach an XDP program")?;
            Ok(OwnedFd::from_raw_fd(fd as libc::c_int))
        }
    }

    /// Runs it on copies of a frame that are then really sent off.
    pub fn run_live(&self, frame: &[u8], times: u32) -> io::Result<()> {
        let mut attributes = TestRunAttributes {
            program: self.0.as_raw_fd().cast_unsigned(),
            data_size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat: times,
            flags: BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size: 64,
            ..TestRunAttributes::default()
        };
        // SAFETY: `frame` outlives the call, which reads it only.
        unsafe { bpf(BPF_PROG_TEST_RUN, &mut attributes) }.map(drop)
    }
}

/// The index of an interface of the calling thread's namespace.
pub fn interface_index(name: &str) -> Result<u32> {
    let c_name = std::ffi::CString::new(name)?;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("no interface {name}"));
    }
    Ok(index)
}
