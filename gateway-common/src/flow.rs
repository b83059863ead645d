//! The tables of connections: sets of one cache line in a plain array, two sets for each key to choose from.
//!
//! A lookup is one or two cache lines and no call into the kernel; an insert is one compare-and-swap more, whatever the
//! table holds, so a flood of new keys costs no more than lookups. Nothing is ever evicted but what is over or, when
//! both sets of a key are full, a connection that was never established: floods cannot push out the established.
//!
//! An entry is a key, zero where it is free, and words that the key guards: [`BUSY`] stands for the key while they are
//! written.

use crate::{hash, source::Address};

/// A key that nobody has: the entry is being written.
pub const BUSY: u64 = 1;

/// Words that other CPUs may change at any time.
pub trait Words {
    fn load(&self, at: usize) -> u64;
    fn store(&self, at: usize, value: u64);
    /// Writes `new` where `old` still stands; whether it did.
    fn replace(&self, at: usize, old: u64, new: u64) -> bool;
}

/// A table of sets of eight words.
pub trait Table {
    type Set: Words;
    /// The number of sets less one; a power of two less one.
    fn mask(&self) -> u64;
    fn set(&self, index: u64) -> Option<Self::Set>;
    /// The same number, see [`crate::packet::Packet::forget`].
    fn forget(&self, number: usize) -> usize {
        number
    }
}

/// How far a connection has come, in the lowest byte of a [`Flow`].
pub mod state {
    /// Its client has sent more than the first packet.
    pub const ESTABLISHED: u8 = 1;
    /// One side has ended it.
    pub const CLOSING: u8 = 1 << 1;
    /// Not TCP: there are no flags to go by.
    pub const DATAGRAMS: u8 = 1 << 2;
}

/// Seconds without a packet after which an entry may be given to another connection.
#[inline(always)]
pub const fn lifetime(state: u8) -> u64 {
    if state & state::CLOSING != 0 || state & (state::ESTABLISHED | state::DATAGRAMS) == 0 {
        60
    } else if state & state::DATAGRAMS != 0 {
        180
    } else {
        // RFC 5382 section 5 wants two hours and four minutes at least.
        7440
    }
}

/// What is known of a connection: 16 bits of the target's index, 16 of the port by which it knows us (NAT only), 24 of
/// the time of its last packet in seconds (of 2^30 nanoseconds), 8 of [`state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Flow(pub u64);

const SECONDS: u64 = 0xff_ffff;

impl Flow {
    #[inline(always)]
    pub const fn new(target: u16, port: u16, now: u64, state: u8) -> Self {
        Self((target as u64) << 48 | (port as u64) << 32 | (now & SECONDS) << 8 | state as u64)
    }

    #[inline(always)]
    pub const fn target(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// For NAT: our port towards the target; client's port in the table of replies.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        (self.0 >> 32) as u16
    }

    #[inline(always)]
    pub const fn state(self) -> u8 {
        self.0 as u8
    }

    /// Seconds since its last packet, modulo half a year.
    #[inline(always)]
    pub const fn age(self, now: u64) -> u64 {
        now.wrapping_sub(self.0 >> 8) & SECONDS
    }

    #[inline(always)]
    pub const fn is_over(self, now: u64) -> bool {
        // A second of another CPU may be the next one already: that is no age of half a year.
        let age = self.age(now);
        age > lifetime(self.state()) && age < SECONDS - 60
    }

    /// The entry after a packet at `now` that adds `state`.
    #[inline(always)]
    pub const fn seen(self, now: u64, state: u8) -> Self {
        Self(self.0 & !(SECONDS << 8) | (now & SECONDS) << 8 | state as u64)
    }
}

/// The key of a client's connection to a virtual address. For IPv4 all that tells connections apart fits one word, and
/// mixing is one to one: two connections never share a key.
#[inline(always)]
pub const fn client_key(seed: u64, client: Address, port: u16, vip: u16) -> u64 {
    let tail = (port as u64) << 16 | vip as u64;
    let key = if client.is_v4() {
        hash::mix((client.lo << 32 | tail) ^ seed)
    } else {
        hash::mix(hash::mix(hash::mix(client.hi ^ seed) ^ client.lo) ^ tail)
    };
    not_reserved(key)
}

/// The key of a target's replies: where they come from and the address and port of ours that they come to.
#[inline(always)]
pub const fn reply_key(
    seed: u64,
    target: Address,
    port: u16,
    local: Address,
    local_port: u16,
    protocol: u8,
) -> u64 {
    let seed = hash::mix(local.lo ^ hash::mix(local.hi ^ seed ^ protocol as u64));
    client_key(seed, target, port, local_port)
}

/// The key of a packet's fragments.
#[inline(always)]
pub const fn fragment_key(seed: u64, source: Address, destination: Address, id: u32, protocol: u8) -> u64 {
    let tail = hash::mix(((id as u64) << 8 | protocol as u64) ^ seed);
    let source = hash::mix(hash::mix(source.hi ^ tail) ^ source.lo);
    not_reserved(hash::mix(hash::mix(destination.hi ^ source) ^ destination.lo))
}

/// Zero and [`BUSY`] are no keys.
#[inline(always)]
const fn not_reserved(key: u64) -> u64 {
    if key <= BUSY { key + 2 } else { key }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub set: u64,
    /// Of the key's word; the words it guards follow.
    pub word: usize,
}

/// The two sets of a key.
#[inline(always)]
const fn sets(key: u64, mask: u64) -> [u64; 2] {
    [key & mask, (key >> 32) & mask]
}

/// The place of `key`, whose entries are `WORDS` words long.
#[inline(always)]
pub fn find<T: Table, const WORDS: usize>(table: &T, key: u64) -> Option<Place> {
    let [first, second] = sets(key, table.mask());
    if let Some(word) = find_in::<T, WORDS>(table, first, key) {
        return Some(Place { set: first, word });
    }
    find_in::<T, WORDS>(table, second, key).map(|word| Place { set: second, word })
}

#[inline(always)]
fn find_in<T: Table, const WORDS: usize>(table: &T, index: u64, key: u64) -> Option<usize> {
    let set = table.set(index)?;
    let mut found = None;
    let mut word = 0;
    while word < 8 {
        if set.load(word) == key {
            found = Some(word);
            break;
        }
        word += WORDS;
    }
    // Every way to find it goes on as one.
    found.map(|word| table.forget(word) & 7 & !(WORDS - 1))
}

/// The value behind a key: the last word that it guards, which says whether the entry is over.
#[inline(always)]
pub fn load<T: Table, const WORDS: usize>(table: &T, place: Place, at: usize) -> u64 {
    match table.set(place.set) {
        Some(set) => set.load((place.word + at) & 7),
        None => 0,
    }
}

/// Replaces a guarded word, if it is still `old`.
#[inline(always)]
pub fn replace<T: Table>(table: &T, place: Place, at: usize, old: u64, new: u64) -> bool {
    table.set(place.set).is_some_and(|set| set.replace((place.word + at) & 7, old, new))
}

/// Gives `key` an entry of `WORDS` words: `values`, the last of them a [`Flow`]. False: both sets are full of living
/// connections.
#[inline(always)]
pub fn insert<T: Table, const WORDS: usize, const VALUES: usize>(
    table: &T,
    key: u64,
    values: [u64; VALUES],
    now: u64,
) -> bool {
    let [first, second] = sets(key, table.mask());
    let Some((mut best, mut index)) = candidate::<T, WORDS>(table, first, now).map(|best| (best, first))
    else {
        return false;
    };
    // The first set is looked into first, so it is kept for as long as that leaves room in it.
    if best.rank < FREE + 2
        && let Some(other) = candidate::<T, WORDS>(table, second, now)
        && other.rank > best.rank
    {
        (best, index) = (other, second);
    }
    if best.rank == 0 {
        return false;
    }
    // Where another CPU was faster with this entry the connection's next packet tries again.
    give::<T, VALUES>(table, Place { set: index, word: best.word }, best.key, key, values)
}

/// Gives `key` these values, in the entry that it has or in one of its own; false: there is no room.
#[inline(always)]
pub fn put<T: Table, const WORDS: usize, const VALUES: usize>(
    table: &T,
    key: u64,
    values: [u64; VALUES],
    now: u64,
) -> bool {
    match find::<T, WORDS>(table, key) {
        Some(place) => give::<T, VALUES>(table, place, key, key, values),
        None => insert::<T, WORDS, VALUES>(table, key, values, now),
    }
}

/// Gives an entry that `old` has to `new`; false: `old` does not have it any more.
#[inline(always)]
pub fn give<T: Table, const VALUES: usize>(
    table: &T,
    place: Place,
    old: u64,
    new: u64,
    values: [u64; VALUES],
) -> bool {
    let Some(set) = table.set(place.set) else { return false };
    let word = table.forget(place.word) & 7;
    if !set.replace(word, old, BUSY) {
        return false;
    }
    let mut at = 0;
    while at < VALUES {
        set.store((word + 1 + at) & 7, values[at]);
        at += 1;
    }
    set.store(word, new);
    true
}

/// An entry that could be replaced.
struct Candidate {
    word: usize,
    key: u64,
    /// Zero: it could not. From [`FREE`] on, the number of free entries counts too.
    rank: u64,
}

/// Above every age of a connection that was never established.
const OVER: u64 = SECONDS + 1;
const FREE: u64 = OVER + 1;

/// The entry of a set that is missed least.
#[inline(always)]
fn candidate<T: Table, const WORDS: usize>(table: &T, index: u64, now: u64) -> Option<Candidate> {
    let set = table.set(index)?;
    let mut best = Candidate { word: 0, key: 0, rank: 0 };
    let mut free = 0;
    let mut word = 0;
    while word < 8 {
        let key = set.load(word);
        let rank = table.forget(rank(key, Flow(set.load(word + WORDS - 1)), now) as usize) as u64;
        if rank == FREE {
            free += 1;
        }
        if rank > best.rank {
            best = Candidate { word, key, rank };
        }
        word += WORDS;
    }
    if free > 0 {
        best.rank += free - 1;
    }
    (best.word, best.rank) = (table.forget(best.word), table.forget(best.rank as usize) as u64);
    Some(best)
}

#[inline(always)]
const fn rank(key: u64, flow: Flow, now: u64) -> u64 {
    if key == 0 {
        FREE
    } else if key == BUSY {
        0
    } else if flow.is_over(now) {
        OVER
    } else if flow.state() & (state::ESTABLISHED | state::DATAGRAMS) == 0 {
        // Half open: the oldest goes first.
        flow.age(now) + 1
    } else {
        0
    }
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
