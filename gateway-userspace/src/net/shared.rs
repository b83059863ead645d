//! Words of memory that several threads, and processes one after the other, share: a file mapped into memory, so that
//! they outlast the process however it ends.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::{Deref, Range},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// Zero until they are written. Pages that nobody touches take no memory.
#[derive(Debug)]
pub struct SharedWords {
    at: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: they are atomics, and the mapping lives as long as this.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Of this process alone.
    pub fn anonymous(words: usize) -> io::Result<Self> {
        SharedWords::map(words, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// Of a file as long as that, and which of them were ever written, more or less. `None`: there is none.
    pub fn of_file(path: &Path, words: usize) -> io::Result<Option<(Self, Vec<Range<usize>>)>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is there, and not a file"));
        }
        if meta.len() != (words * 8) as u64 {
            return Ok(None);
        }
        let written = written(&file, words);
        Ok(Some((SharedWords::map(words, libc::MAP_SHARED, file.as_raw_fd())?, written)))
    }

    /// Of a new file, in the place of one that may be there: whoever has that mapped keeps it.
    pub fn of_new_file(path: &Path, words: usize) -> io::Result<Self> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let fresh = Path::new(&name);
        let _ = std::fs::remove_file(fresh);
        let file: File =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(fresh)?;
        file.set_len((words * 8) as u64)?;
        let mapped = SharedWords::map(words, libc::MAP_SHARED, file.as_raw_fd())?;
        std::fs::rename(fresh, path)?;
        Ok(mapped)
    }

    fn map(words: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), words * 8, protection, flags, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(SharedWords { at, words })
    }
}

/// What is no hole of a file (lseek(2): SEEK_DATA); all of it where its file system does not say.
fn written(file: &File, words: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    loop {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Only a hole is left.
            Err(Errno::NXIO) => return ranges,
            Err(_) => at,
        };
        at = seek(file, SeekFrom::Hole(data)).unwrap_or(u64::MAX);
        ranges.push(data as usize / 8..(at as usize).div_ceil(8).min(words));
        if at == u64::MAX {
            return ranges;
        }
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: mapped, page-aligned, so long, and any bits are an AtomicU64. Only who may write the file (mode 0600,
        // the gateway's own user) could shorten it, which would end the process by SIGBUS.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.words * 8) };
    }
}
