//! Memory whose pages the kernel can send as they are, instead of a copy.
//!
//! It is a file that has no name (memfd_create(2)), all of it mapped for reading. Bytes in it are bytes like any others, so
//! nobody need know of it but who makes them ([`keep`]) and who writes to a socket ([`find`]), which sees by their address
//! that they are in the file, and where. What was given back may still be on its way to somebody: its pages are taken out
//! of the file (fallocate(2), FALLOC_FL_PUNCH_HOLE), and others are there when the place is used again.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    ptr::NonNull,
    sync::{Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use rustix::{
    fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap},
};

/// Less is sent faster by a copy.
pub const LEAST: usize = 32 << 10;
const PAGE: u64 = 4096;
/// Addresses, not memory: it takes what is in it. The first that can be had.
const SIZES: [u64; 3] = [1 << 40, 1 << 38, 1 << 35];
/// Places are of 8, 9, … 15, 16, 18, … pages: none is an eighth larger than what is in it.
const STEPS: u32 = 3;
const CLASSES: usize = 256;

static PAGES: OnceLock<Option<Pages>> = OnceLock::new();

struct Pages {
    file: File,
    base: NonNull<u8>,
    size: u64,
    free: Mutex<Free>,
}

// SAFETY: `base` is the start of a mapping that is never taken away, and is only read through.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

struct Free {
    /// What was never used begins here.
    next: u64,
    /// Places that were given back, by how large they are.
    places: Vec<Vec<u64>>,
}

/// Bytes in the file, until they are dropped.
struct Kept {
    pages: &'static Pages,
    place: u64,
    class: usize,
    length: usize,
}

/// A copy of these bytes, in such memory. `None`: there are few of them, or there is no room.
pub fn keep(pieces: &[Bytes]) -> Option<Bytes> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    if length < LEAST {
        return None;
    }
    let pages = PAGES.get_or_init(|| Pages::new().ok()).as_ref()?;
    let class = class(length as u64)?;
    let place = pages.take(class)?;
    // From here on it is given back when it is dropped.
    let kept = Kept { pages, place, class, length };
    let mut at = place;
    for piece in pieces {
        pages.file.write_all_at(piece, at).ok()?;
        at += piece.len() as u64;
    }
    Some(Bytes::from_owner(kept))
}

/// The file that these bytes are in, and where in it.
pub fn find(bytes: &[u8]) -> Option<(BorrowedFd<'static>, u64)> {
    let pages = PAGES.get()?.as_ref()?;
    let from = (bytes.as_ptr() as usize).checked_sub(pages.base.as_ptr() as usize)? as u64;
    (from + bytes.len() as u64 <= pages.size).then(|| (pages.file.as_fd(), from))
}

/// What so many bytes take.
pub fn taken(length: usize) -> usize {
    class(length as u64).map_or(length, |class| size(class) as usize)
}

impl Pages {
    fn new() -> io::Result<Pages> {
        let file = File::from(memfd_create("gateway-cache", MemfdFlags::CLOEXEC)?);
        let mut last = io::ErrorKind::OutOfMemory.into();
        for size in SIZES {
            match Pages::map(&file, size) {
                Ok(base) => {
                    let free = Free { next: 0, places: vec![Vec::new(); CLASSES] };
                    return Ok(Pages { file, base, size, free: Mutex::new(free) });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn map(file: &File, size: u64) -> io::Result<NonNull<u8>> {
        ftruncate(file, size)?;
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that only this module has.
        let base = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, flags, file, 0) }?;
        NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn take(&self, class: usize) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = free.places.get_mut(class)?.pop() {
            return Some(place);
        }
        let place = free.next;
        free.next = place.checked_add(size(class)).filter(|end| *end <= self.size)?;
        Some(place)
    }

    fn give_back(&self, place: u64, class: usize) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A place whose pages stay is not used again.
        if fallocate(&self.file, hole, place, size(class)).is_ok() {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.places[class].push(place);
        }
    }
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `place` and `length` are within the mapping (`take`), which is never taken away, and nobody writes
        // there until this is dropped.
        unsafe { std::slice::from_raw_parts(self.pages.base.as_ptr().add(self.place as usize), self.length) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.pages.give_back(self.place, self.class);
    }
}

/// Which places fit so many bytes.
fn class(length: u64) -> Option<usize> {
    let pages = length.div_ceil(PAGE).max(1 << STEPS);
    let shift = pages.ilog2() - STEPS;
    let step = pages.div_ceil(1 << shift);
    let class = (u64::from(shift) << STEPS) + step - (1 << STEPS);
    usize::try_from(class).ok().filter(|class| *class < CLASSES)
}

/// Of a place, in bytes.
fn size(class: usize) -> u64 {
    let (shift, step) = (class >> STEPS, class & ((1 << STEPS) - 1));
    (((1 << STEPS) + step as u64) << shift) * PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_large_enough_and_not_much_larger() {
        for length in (LEAST as u64..1 << 20).step_by(1000).chain([1 << 30, (1 << 30) + 1]) {
            let size = size(class(length).unwrap());
            assert!(size >= length && size <= length + length / 8 + PAGE, "{length}: {size}");
        }
        assert!(size(class(1 << 40).unwrap()) >= 1 << 40);
    }

    #[test]
    fn bytes_are_where_they_are_said_to_be_and_others_are_nowhere() {
        let pieces = [Bytes::from(vec![1; 50_000]), Bytes::from(vec![2; 30_000])];
        let kept = keep(&pieces).unwrap();
        assert_eq!(kept, pieces.concat());
        let part = kept.slice(49_000..51_000);
        let (file, at) = find(&part).unwrap();
        let mut read = vec![0; part.len()];
        rustix::io::pread(file, &mut read, at).unwrap();
        assert_eq!(read, part);
        assert!(find(&[0; 100]).is_none() && find(&pieces[0]).is_none() && keep(&pieces[1..]).is_none());
    }

    #[test]
    fn a_place_is_used_again_and_what_is_on_its_way_stays_what_it_was() {
        use std::io::{Read, Write};

        let mut sent = keep(&[Bytes::from(vec![3; 40_000])]);
        let (file, at) = find(sent.as_ref().unwrap()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut to = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut from, _) = listener.accept().unwrap();
        let mut offset = at;
        let sent_bytes = rustix::fs::sendfile(&to, file, Some(&mut offset), 40_000).unwrap();
        sent = None;
        // Others may take it meanwhile: of as many, one is there.
        let others: Vec<_> = (0..64).map(|_| keep(&[Bytes::from(vec![4; 40_000])]).unwrap()).collect();
        assert!(others.iter().all(|other| other.iter().all(|byte| *byte == 4)) && sent.is_none());
        to.flush().unwrap();
        drop(to);
        let mut read = Vec::new();
        from.read_to_end(&mut read).unwrap();
        assert!(read.len() == sent_bytes && read.iter().all(|byte| *byte == 3));
        assert!(others.iter().any(|other| find(other).is_some_and(|(_, place)| place == at)));
    }
}
