//! System calls that neither aya nor std offers: batch reads of maps, bpffs, the monotonic clock, capabilities.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::Duration,
};

/// Nanoseconds of CLOCK_MONOTONIC, the time of every map.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec it is given; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Gives free heap memory back to the system: reading the BPF object takes ten megabytes for a moment.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The index of an interface of this network namespace.
pub fn ifindex(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a valid C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// The name of an interface of this network namespace.
pub fn ifname(index: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size the call asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    let bytes: Vec<u8> = name.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect();
    String::from_utf8(bytes).ok()
}

/// Whether a path is on a bpffs.
pub fn is_bpffs(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: all-zero is a valid statfs; the call fills it.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        libc::statfs(path.as_ptr(), &mut stat) == 0 && stat.f_type == libc::BPF_FS_MAGIC
    }
}

/// Mounts a bpffs. Needs CAP_SYS_ADMIN.
pub fn mount_bpffs(at: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let at = CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: valid C strings; no data.
    let done = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            at.as_ptr(),
            c"bpf".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bits of this thread's effective capabilities.
pub fn effective_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

pub const CAP_NET_ADMIN: u32 = 12;
pub const CAP_PERFMON: u32 = 38;
pub const CAP_BPF: u32 = 39;
pub const CAP_SYS_ADMIN: u32 = 21;

/// Bytes of kernel memory a map is charged with.
pub fn map_bytes(map: BorrowedFd<'_>) -> u64 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0)
}

/// `BPF_MAP_LOOKUP_BATCH` (Linux 5.6) over a hash map: hands `each` every entry. One call reads thousands, where
/// one system call an entry would take a tenth of a second for a full table.
pub fn for_each_entry<K: aya::Pod + Default, V: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    mut each: impl FnMut(K, V),
) -> io::Result<()> {
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    const MOST: usize = 8192;
    let mut keys = vec![K::default(); MOST];
    let mut values = vec![V::default(); MOST];
    // An opaque cursor: a bucket's number for hash maps.
    let (mut from, mut to) = ([0u64; 4], [0u64; 4]);
    let mut first = true;
    loop {
        let mut batch = Batch {
            in_batch: if first { 0 } else { from.as_mut_ptr() as u64 },
            out_batch: to.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: MOST as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys and values of the map's sizes, which callers match by
        // type, and a cursor of at most a key or four bytes.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
        let error = io::Error::last_os_error();
        let ended = done < 0 && error.raw_os_error() == Some(libc::ENOENT);
        if done < 0 && !ended {
            return Err(error);
        }
        let count = (batch.count as usize).min(MOST);
        keys[..count].iter().zip(&values[..count]).for_each(|(key, value)| each(*key, *value));
        if ended {
            return Ok(());
        }
        from = to;
        first = false;
    }
}

/// The kernel's part of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// # Safety
/// Its addresses are of memory of the sizes that it gives, and zero where it gives none.
unsafe fn run(run: &mut TestRun) -> io::Result<()> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    // SAFETY: the caller's promise; the structure is what the call asks for.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut *run, size_of::<TestRun>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `BPF_PROG_TEST_RUN`: hands a packet (at least 14 bytes) to a program `repeat` times, as if it came in at an interface
/// (zero: no matter). The last return value, and the mean time of a run.
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    repeat: u32,
    ifindex: u32,
) -> io::Result<(u32, Duration)> {
    let context = [0, packet.len() as u32, 0, ifindex, 0, 0];
    let mut test = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    if ifindex != 0 {
        (test.ctx_in, test.ctx_size_in) = (context.as_ptr() as u64, size_of_val(&context) as u32);
    }
    // SAFETY: the kernel reads the packet and the context.
    unsafe { run(&mut test)? };
    Ok((test.retval, Duration::from_nanos(u64::from(test.duration_ns))))
}

/// `BPF_PROG_TEST_RUN` of an XDP program on one packet, as if it came in at an interface (zero: the loopback). The
/// return value and the packet that the program left.
pub fn test_run_packet(program: BorrowedFd<'_>, packet: &[u8], ifindex: u32) -> io::Result<(u32, Vec<u8>)> {
    // Of `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, packet.len() as u32, 0, ifindex, 0, 0];
    // More than what any way of forwarding adds.
    let mut out = vec![0; packet.len() + 256];
    let mut test = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_size_out: out.len() as u32,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ..TestRun::default()
    };
    if ifindex != 0 {
        (test.ctx_in, test.ctx_size_in) = (context.as_ptr() as u64, size_of_val(&context) as u32);
    }
    // SAFETY: the kernel reads the packet and the context and writes at most `data_size_out` bytes.
    unsafe { run(&mut test)? };
    out.truncate(test.data_size_out as usize);
    Ok((test.retval, out))
}

/// The values of an array that is made to be mapped.
#[derive(Debug)]
pub struct Mapped {
    at: std::ptr::NonNull<u64>,
    words: usize,
}

// SAFETY: the mapping is of the whole process and this is its only owner.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `bytes` of them.
    pub fn new(map: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping where there is room for it.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = std::ptr::NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { at, words: bytes / 8 })
    }

    /// Makes this the same as another, which programs may be writing to: then some words are newer than others.
    pub fn copy(&mut self, from: &Mapped) {
        // SAFETY: both mappings are as long as they say, and different ones; this one was asked for to be written.
        unsafe {
            libc::memcpy(self.at.as_ptr().cast(), from.at.as_ptr().cast(), self.words.min(from.words) * 8)
        };
    }

    pub fn words(&self) -> usize {
        self.words
    }

    /// A word; zero beyond the end.
    pub fn word(&self, at: usize) -> u64 {
        if at >= self.words {
            return 0;
        }
        // SAFETY: within the mapping. Volatile: programs may write to it.
        unsafe { self.at.as_ptr().add(at).read_volatile() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody uses it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.words * 8) };
    }
}

/// `BPF_MAP_CREATE`: an array of 64-bit words.
pub fn new_array(entries: u32) -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // Type, sizes of key and value, entries; what follows may be left out.
    let attributes = [BPF_MAP_TYPE_ARRAY, 4, 8, entries];
    // SAFETY: the kernel reads the attributes.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size_of_val(&attributes))
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `BPF_OBJ_PIN`: keeps what a descriptor stands for on a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    const BPF_OBJ_PIN: libc::c_long = 6;
    #[repr(C)]
    struct Pin {
        path: u64,
        object: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let pin = Pin { path: path.as_ptr() as u64, object: object.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path ends with a zero and outlives the call, which reads no more than the attributes.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const pin, size_of::<Pin>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `BPF_PROG_QUERY` (Linux 5.9): the numbers of the socket-lookup programs of a network namespace.
pub fn sk_lookup_programs(namespace: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: libc::c_long = 16;
    const BPF_SK_LOOKUP: u32 = 36;
    #[repr(C)]
    struct Query {
        target: u32,
        kind: u32,
        flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        reserved: u32,
    }
    // At most so many can be attached.
    let mut programs = [0u32; 64];
    let mut query = Query {
        target: namespace.as_raw_fd() as u32,
        kind: BPF_SK_LOOKUP,
        flags: 0,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: programs.len() as u32,
        reserved: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers, for which there is room, and how many there are.
    match unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) } {
        0 => Ok(programs.into_iter().take(query.count as usize).collect()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `BPF_MAP_UPDATE_BATCH` (Linux 5.6) over a whole array.
pub fn fill_array(map: BorrowedFd<'_>, values: &[u64]) -> io::Result<()> {
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
    let keys: Vec<u32> = (0..values.len() as u32).collect();
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys of four bytes and values of eight, as the caller's array has them.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut batch, size_of::<Batch>()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The addresses of some interfaces of this network namespace.
pub fn addresses(interfaces: &[&str]) -> Vec<std::net::IpAddr> {
    let mut found = Vec::new();
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call makes a list, which is read until its end and then given back.
    unsafe {
        if libc::getifaddrs(&mut list) != 0 {
            return found;
        }
        let mut next = list;
        while let Some(entry) = next.as_ref() {
            next = entry.ifa_next;
            let name = std::ffi::CStr::from_ptr(entry.ifa_name);
            let Some(address) = entry.ifa_addr.as_ref() else { continue };
            if !interfaces.iter().any(|wanted| wanted.as_bytes() == name.to_bytes()) {
                continue;
            }
            match i32::from(address.sa_family) {
                libc::AF_INET => {
                    let v4 = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                    found.push(std::net::Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into());
                }
                libc::AF_INET6 => {
                    let v6 = &*entry.ifa_addr.cast::<libc::sockaddr_in6>();
                    found.push(std::net::Ipv6Addr::from(v6.sin6_addr.s6_addr).into());
                }
                _ => {}
            }
        }
        libc::freeifaddrs(list);
    }
    found
}

/// The largest packet of an interface of this network namespace.
pub fn mtu(name: &str) -> Option<u32> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // SAFETY: the call reads the name and writes the number, which is the union's member for this request.
    unsafe {
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &mut request) != 0 {
            return None;
        }
        u32::try_from(request.ifr_ifru.ifru_mtu).ok()
    }
}

/// The window scale that a connection's other side sends by; none: it has none.
pub fn peers_window_scale(connection: BorrowedFd<'_>) -> Option<u8> {
    const OPTION_SCALED: u8 = 1 << 2;
    // The head of `struct tcp_info`: five bytes of other things, options, the two scales in halves of a byte.
    let mut info = [0u8; 8];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes as many bytes as there are.
    let done = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut length,
        )
    };
    (done == 0 && length >= 7 && info[5] & OPTION_SCALED != 0).then_some(info[6] & 0xf)
}
