//! File descriptors: how many there may be, and what is done when there are no more.

use std::{fs::File, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the process may ask for: the soft limit is for programs that use select(2).
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// How many file descriptors the process may have at most. `None`: any number.
pub fn most_descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Whether it is this host that cannot make a connection, for want of descriptors, memory or ports.
pub fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EADDRNOTAVAIL)
    )
}

/// A descriptor kept for when there are no others: given up for a moment, it lets a connection be taken and turned away,
/// where its client would wait for nothing otherwise.
pub struct Spare(Option<File>);

impl Spare {
    pub fn take() -> Self {
        Spare(File::open("/dev/null").ok())
    }

    /// False: there is none to give up.
    pub fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    pub fn take_back(&mut self) {
        *self = Spare::take();
    }

    /// Whether there is a descriptor left.
    pub fn is_there() -> bool {
        Spare::take().0.is_some()
    }
}
