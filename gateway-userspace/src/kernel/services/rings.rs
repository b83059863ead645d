//! Maglev tables: each is a map of its own in an array of maps.
//!
//! What is in the array can be opened by its id, but only with CAP_SYS_ADMIN, which the gateway has no other use for: it
//! keeps those that it made.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya::maps::MapData;
use gateway_common::service::{self, name};

use super::plan::{self, Plan};
use crate::kernel::{error::KernelError, object::Maps, sys};

#[derive(Debug, Default)]
pub(super) struct Rings(BTreeMap<u32, Ring>);

#[derive(Debug)]
struct Ring {
    id: u32,
    map: MapData,
}

impl Rings {
    /// Makes a table and puts it in place of the one before, at once.
    pub fn put(&mut self, maps: &mut Maps, ring: u32, members: &[plan::Member]) -> Result<(), KernelError> {
        let map = filled(members)?;
        let id = map.info().map_err(KernelError::map(name::RINGS))?.id();
        maps.rings.set(ring, &map, 0).map_err(KernelError::map(name::RINGS))?;
        self.0.insert(ring, Ring { id, map });
        Ok(())
    }

    /// Gives back those that no service has.
    pub fn keep_those_of(&mut self, plan: &Plan) {
        self.0.retain(|ring, _| plan.rings.contains_key(ring));
    }

    /// The words of a table as they are now. `None`: it is not one that this process made.
    pub fn words(&self, maps: &Maps, ring: u32) -> io::Result<Option<Vec<u64>>> {
        let made = self.0.get(&ring).filter(|made| in_use(maps).get(&ring) == Some(&made.id));
        made.map(|made| words(made.map.fd().as_fd())).transpose()
    }
}

/// The ids of the tables that are in the array.
fn in_use(maps: &Maps) -> HashMap<u32, u32> {
    let mut ids = HashMap::new();
    if let Some(array) = maps.fd(name::RINGS) {
        // What cannot be read is not there.
        let _ = sys::for_each_entry(array, |ring: u32, id: u32| {
            ids.insert(ring, id);
        });
    }
    ids
}

fn words(table: BorrowedFd<'_>) -> io::Result<Vec<u64>> {
    let mut words = vec![0; service::RING_WORDS as usize];
    sys::for_each_entry(table, |at: u32, word: u64| {
        if let Some(place) = words.get_mut(at as usize) {
            *place = word;
        }
    })?;
    Ok(words)
}

fn filled(members: &[plan::Member]) -> Result<MapData, KernelError> {
    let filled = sys::new_array(service::RING_WORDS).and_then(|map| {
        sys::fill_array(map.as_fd(), &plan::ring(members))?;
        Ok(map)
    });
    let map = filled.map_err(|error| KernelError::Map { map: name::RINGS, why: error.to_string() })?;
    MapData::from_fd(map).map_err(KernelError::map(name::RINGS))
}
