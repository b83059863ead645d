//! The few system calls that the standard library does not offer, each behind a safe function.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
};

/// -1 and errno, as a `Result`.
pub fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Moves the calling thread (not the process) into a network namespace.
pub fn enter_netns(namespace: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: setns takes integers only; the descriptor is open for as long as the borrow lasts.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Pins the calling thread to one CPU.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    pin_task(0, cpu)
}

/// Pins a thread, by its id (0: the calling one), to one CPU.
pub fn pin_task(tid: i32, cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    // SAFETY: `cpu` is within the set, and the kernel reads `set` during the call only.
    unsafe {
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &set)).map(drop)
    }
}

/// Sends a signal to a process that we started.
pub fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill takes integers only.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Makes processes whose parent ends children of this one, so that it can wait for them.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: prctl takes integers here.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }).map(drop)
}

/// The exit status of a child that has ended. An error: it is (still) another's child.
pub fn reap(pid: u32) -> io::Result<Option<std::process::ExitStatus>> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut status = 0;
    // SAFETY: waitpid writes to `status` during the call only.
    let ended = check(unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) })?;
    Ok((ended > 0).then(|| std::os::unix::process::ExitStatusExt::from_raw(status)))
}

/// Whether a process with this id exists.
pub fn alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

pub fn is_root() -> bool {
    // SAFETY: always succeeds and touches no memory.
    unsafe { libc::geteuid() == 0 }
}

/// Raises the soft limit on open files to the hard one.
pub fn raise_open_files() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes to `limit`, then reads it, during the calls only.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).map(drop)
    }
}

/// What a child does between fork and exec.
pub trait ChildSetup {
    /// Runs in a network namespace. Unlike `ip netns exec` this leaves /sys (and so bpffs) as it is.
    fn in_netns(&mut self, namespace: &File) -> io::Result<&mut Self>;
    /// Is killed when the thread that starts it ends, however it ends.
    fn die_with_parent(&mut self) -> &mut Self;
    /// Has these descriptors from 3 on, as sd_listen_fds(3) wants them. At most 60.
    fn with_descriptors(&mut self, descriptors: Vec<OwnedFd>) -> &mut Self;
    /// Runs on one CPU.
    fn on_cpu(&mut self, cpu: Option<usize>) -> &mut Self;
    /// Holds no capabilities but these (bit numbers of linux/capability.h); stays user 0 otherwise.
    fn with_only_capabilities(&mut self, capabilities: &'static [u32]) -> &mut Self;
}

impl ChildSetup for Command {
    fn in_netns(&mut self, namespace: &File) -> io::Result<&mut Self> {
        let namespace = namespace.try_clone()?;
        // SAFETY: setns is a plain system call, safe between fork and exec.
        Ok(unsafe { self.pre_exec(move || enter_netns(&namespace)) })
    }

    fn die_with_parent(&mut self) -> &mut Self {
        // SAFETY: prctl is a plain system call, safe between fork and exec.
        unsafe { self.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map(drop)) }
    }

    fn with_descriptors(&mut self, descriptors: Vec<OwnedFd>) -> &mut Self {
        // SAFETY: fcntl and dup2 are plain system calls, safe between fork and exec.
        unsafe {
            self.pre_exec(move || {
                // First out of the way, so that none is overwritten before its turn.
                let mut moved = [-1; 60];
                for (to, from) in moved.iter_mut().zip(&descriptors) {
                    *to = check(libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100))?;
                }
                for (place, from) in moved.iter().take(descriptors.len()).enumerate() {
                    check(libc::dup2(*from, 3 + place as RawFd))?;
                }
                Ok(())
            })
        }
    }

    fn on_cpu(&mut self, cpu: Option<usize>) -> &mut Self {
        let Some(cpu) = cpu else { return self };
        // SAFETY: sched_setaffinity is a plain system call, safe between fork and exec.
        unsafe { self.pre_exec(move || pin_to_cpu(cpu)) }
    }

    fn with_only_capabilities(&mut self, capabilities: &'static [u32]) -> &mut Self {
        // SAFETY: prctl and capset are plain system calls, safe between fork and exec.
        unsafe { self.pre_exec(move || keep_capabilities(capabilities)) }
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const SECBIT_NOROOT: libc::c_ulong = 1;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Makes these the process's only capabilities, across an exec too: root's usual "all of them" is switched off.
fn keep_capabilities(capabilities: &[u32]) -> io::Result<()> {
    let mut data = [CapabilityData { effective: 0, permitted: 0, inheritable: 0 }; 2];
    for &capability in capabilities {
        if let Some(word) = data.get_mut((capability / 32) as usize) {
            word.permitted |= 1 << (capability % 32);
        }
    }
    for word in &mut data {
        word.effective = word.permitted;
        word.inheritable = word.permitted;
    }
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    // SAFETY: prctl takes integers here; capset reads the header and both data words during the call only.
    unsafe {
        check(libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NOROOT))?;
        if libc::syscall(libc::SYS_capset, &header, &data) < 0 {
            return Err(io::Error::last_os_error());
        }
        for &capability in capabilities {
            let (raise, capability) =
                (libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, libc::c_ulong::from(capability));
            check(libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0))?;
        }
    }
    Ok(())
}

/// Mounts bpffs where everybody expects it, unless it is there.
pub fn mount_bpffs() -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    let (kind, target) = (c"bpf", c"/sys/fs/bpf");
    // SAFETY: all strings are NUL-terminated and outlive the call.
    check(unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) })
        .map(drop)
}

/// A raw packet socket on an interface of the calling thread's network namespace; it sends whole frames.
pub fn packet_socket(interface: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(interface).map_err(io::Error::other)?;
    // SAFETY: plain system calls; `name` outlives if_nametoindex, and `address` is read during bind only. The
    // descriptor is owned by nobody else.
    unsafe {
        let index = libc::if_nametoindex(name.as_ptr());
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = check(libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0))?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_ifindex = index as libc::c_int;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length))?;
        Ok(socket)
    }
}

/// Sends frames in one system call; returns how many went out.
pub fn send_frames(socket: &impl AsRawFd, frames: &[&[u8]]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: an all-zero msghdr is a valid empty one.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: `messages` points into `parts`, which points into `frames`; all outlive the call, which only reads them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    check(sent).map(|sent| sent as usize)
}

/// Binds to addresses that are routed here without being configured.
pub fn bind_any_address(socket: &socket2::Socket, v6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (level, name) =
        if v6 { (libc::SOL_IPV6, libc::IPV6_FREEBIND) } else { (libc::SOL_IP, libc::IP_FREEBIND) };
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads `on` during the call only.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length) })
        .map(drop)
}

static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn note_signal(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe; the descriptor is never closed.
    unsafe { libc::write(SIGNAL_PIPE.load(Relaxed), (&raw const byte).cast(), 1) };
}

/// Calls `clean_up` on SIGINT and SIGTERM, then ends the process with the status a shell gives for that signal.
/// Once a process.
pub fn on_interrupt(clean_up: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut pipe: [RawFd; 2] = [0; 2];
    // SAFETY: pipe2 writes two descriptors to `pipe`; `note_signal` only does what a signal handler may do.
    let read = unsafe {
        check(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC))?;
        SIGNAL_PIPE.store(pipe[1], Relaxed);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        for signal in [libc::SIGINT, libc::SIGTERM] {
            check(libc::sigaction(signal, &action, std::ptr::null_mut()))?;
        }
        File::from_raw_fd(pipe[0])
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        let mut byte = [0u8];
        if io::Read::read_exact(&mut &read, &mut byte).is_ok() {
            clean_up();
            std::process::exit(128 + i32::from(byte[0]));
        }
    })?;
    Ok(())
}

/// How many clock ticks make a second in /proc/PID/stat.
pub fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes an integer only.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}
