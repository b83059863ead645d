//! A network and a bpffs of one's own: a thread in new network and mount namespaces. All of it goes with the thread,
//! also when the test panics.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
};

use socket2::{Domain, Socket, Type};

/// The namespaces of the current thread.
pub struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// Where nothing is pinned yet, on a bpffs.
    pub fn pin(&self) -> PathBuf {
        self.folder.path().join("gateway")
    }

    /// Where there is no bpffs.
    pub fn no_bpffs(&self) -> PathBuf {
        std::env::temp_dir().join("gateway-no-bpffs")
    }

    /// A pair of interfaces that are up.
    pub fn veth(&self, name: &str, peer: &str) {
        ip(&["link", "add", name, "type", "veth", "peer", "name", peer]);
        ip(&["link", "set", name, "up"]);
        ip(&["link", "set", peer, "up"]);
    }

    /// The ids of the XDP programs on an interface.
    pub fn programs_on(&self, interface: &str) -> Vec<String> {
        let output = Command::new("ip").args(["-d", "link", "show", interface]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let ids = words.windows(3).filter(|w| w[0].starts_with("prog/xdp") && w[1] == "id");
        ids.map(|w| w[2].to_owned()).collect()
    }

    /// Whether no XDP program is on an interface, or soon will be: a process that another test is just starting
    /// holds copies of all descriptors, links too, for a moment.
    pub fn is_free(&self, interface: &str) -> bool {
        (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            self.programs_on(interface).is_empty()
        })
    }
}

/// Runs a test in namespaces of its own.
pub fn inside<T: Send>(test: impl FnOnce(&Lab) -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name(std::thread::current().name().unwrap_or("lab").to_owned());
        let lab = || {
            unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS);
            let lab = Lab { folder: tempfile::tempdir().unwrap() };
            mount(None, Path::new("/"), None, libc::MS_REC | libc::MS_PRIVATE);
            mount(Some(c"bpf"), lab.folder.path(), Some(c"bpf"), 0);
            ip(&["link", "set", "lo", "up"]);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&lab)));
            let folder = path(lab.folder.path());
            // SAFETY: a valid C string; what is mounted there is ours.
            unsafe { libc::umount2(folder.as_ptr(), libc::MNT_DETACH) };
            result
        };
        match thread.spawn_scoped(scope, lab).unwrap().join() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) | Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// A second network namespace at the other end of a veth.
pub struct Neighbour {
    tid: i32,
    jobs: mpsc::Sender<Job>,
}

impl Neighbour {
    pub fn new() -> Self {
        let (jobs, todo) = mpsc::channel::<Job>();
        let (born, wait) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(libc::CLONE_NEWNET);
            ip(&["link", "set", "lo", "up"]);
            // SAFETY: no arguments.
            born.send(unsafe { libc::gettid() }).unwrap();
            todo.into_iter().for_each(|job| job());
        });
        Self { tid: wait.recv().unwrap(), jobs }
    }

    /// Moves an interface of the caller's namespace there.
    pub fn takes(&self, interface: &str) {
        ip(&["link", "set", interface, "netns", &self.tid.to_string()]);
    }

    /// Runs something there.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, wait) = mpsc::channel();
        self.jobs.send(Box::new(move || drop(done.send(job())))).unwrap();
        wait.recv().expect("the neighbour's job panicked")
    }
}

/// Runs iproute2's `ip` in the current thread's network.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Keeps only these capabilities in the current thread, by their bits.
pub fn keep_capabilities(bits: u64) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Set {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    let set = |bits: u64| Set { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [set(bits), set(bits >> 32)];
    // SAFETY: a header and two sets, as version 3 has it; capabilities are a thread's own.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    assert_eq!(done, 0, "capset: {}", io::Error::last_os_error());
}

fn unshare(what: i32) {
    // SAFETY: flags only.
    let done = unsafe { libc::unshare(what) };
    assert_eq!(done, 0, "unshare: {}", io::Error::last_os_error());
}

fn mount(source: Option<&std::ffi::CStr>, at: &Path, kind: Option<&std::ffi::CStr>, flags: u64) {
    let at = path(at);
    let pointer = |text: Option<&std::ffi::CStr>| text.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: valid C strings or null.
    let done = unsafe { libc::mount(pointer(source), at.as_ptr(), pointer(kind), flags, std::ptr::null()) };
    assert_eq!(done, 0, "mount {at:?}: {}", io::Error::last_os_error());
}

fn path(path: &Path) -> std::ffi::CString {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Listening sockets of several workers on one address.
pub fn listeners(addr: SocketAddr, workers: usize) -> Vec<TcpListener> {
    let first = listen(addr);
    let addr = first.local_addr().unwrap();
    std::iter::once(first).chain((1..workers).map(|_| listen(addr))).collect()
}

fn listen(addr: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    if addr.is_ipv6() {
        socket.set_only_v6(false).unwrap();
    }
    socket.set_reuse_port(true).unwrap();
    socket.bind(&addr.into()).unwrap();
    socket.listen(256).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

/// An interface's index.
pub fn ifindex(name: &str) -> u32 {
    let output = Command::new("ip").args(["-o", "link", "show", name]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_once(':').unwrap().0.parse().unwrap()
}
