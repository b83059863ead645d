//! The table of services as the XDP program looks them up: see `gateway_common::service::Place`.

use std::collections::BTreeMap;

use gateway_common::service::{
    KEYS_CAPACITY, Place, SERVICE_CHAIN, SERVICE_PLACES, SERVICES_ENTRIES, Service, ServiceKey, name,
};

use crate::kernel::{error::KernelError, object::Maps, sys};

/// Where both halves end, and it stands which one counts.
const WHICH: u32 = SERVICES_ENTRIES - 1;

/// The places that are not free. Services whose first place nobody else wants are there; others are in places that no
/// service looks at first, so that chains stay apart.
pub fn places(
    services: &BTreeMap<ServiceKey, Service>,
    seed: u64,
) -> Result<BTreeMap<u32, Place>, KernelError> {
    if services.len() > KEYS_CAPACITY as usize {
        return Err(too_many());
    }
    let mut places: BTreeMap<u32, Place> = BTreeMap::new();
    let mut homeless = Vec::new();
    for (key, service) in services {
        let place = Place { key: *key, service: *service, next: 0, _pad: 0 };
        match places.entry(key.place(seed)) {
            std::collections::btree_map::Entry::Vacant(free) => _ = free.insert(place),
            std::collections::btree_map::Entry::Occupied(_) => homeless.push(place),
        }
    }
    let taken: Vec<u32> = places.keys().copied().collect();
    let mut free = (0..SERVICE_PLACES).filter(|place| taken.binary_search(place).is_err());
    for place in homeless {
        let at = free.next().ok_or_else(too_many)?;
        append(&mut places, place.key.place(seed), at)?;
        places.insert(at, place);
    }
    Ok(places)
}

/// Makes `at` the end of the chain that begins at `first`.
fn append(places: &mut BTreeMap<u32, Place>, first: u32, at: u32) -> Result<(), KernelError> {
    let mut last = first;
    for _ in 1..SERVICE_CHAIN {
        let place = places.get_mut(&last).ok_or_else(too_many)?;
        if place.next == 0 {
            place.next = at + 1;
            return Ok(());
        }
        last = place.next - 1;
    }
    // One in 20,000 full tables.
    Err(too_many())
}

fn too_many() -> KernelError {
    KernelError::TooManyServices { what: "addresses of services", capacity: KEYS_CAPACITY }
}

/// Where the half begins that counts.
pub fn base(maps: &Maps) -> Result<u32, KernelError> {
    let which = maps.services.get(&WHICH, 0).map_err(KernelError::map(name::SERVICES))?;
    Ok(if which.key.lo == 0 { 0 } else { SERVICE_PLACES })
}

/// Writes it down for the next start.
pub fn set_base(maps: &mut Maps, base: u32) -> Result<(), KernelError> {
    let key = ServiceKey { lo: u64::from(base), ..ServiceKey::default() };
    let which = Place { key, ..Place::default() };
    maps.services.set(WHICH, which, 0).map_err(KernelError::map(name::SERVICES))
}

/// The other half.
pub const fn other(base: u32) -> u32 {
    SERVICE_PLACES - base
}

/// What is in the half that begins at `base`.
pub fn read(maps: &Maps, base: u32) -> Result<BTreeMap<u32, Place>, KernelError> {
    let failed = |why: String| KernelError::Map { map: name::SERVICES, why };
    let fd = maps.fd(name::SERVICES).ok_or_else(|| failed("it is not in the object".into()))?;
    let mut places = BTreeMap::new();
    sys::for_each_entry(fd, |at: u32, place: Place| {
        if (base..base + SERVICE_PLACES).contains(&at) && place != Place::default() {
            places.insert(at - base, place);
        }
    })
    .map_err(|error| failed(error.to_string()))?;
    Ok(places)
}

/// Makes the half that begins at `base` hold these places and no others.
pub fn write(maps: &mut Maps, base: u32, places: &BTreeMap<u32, Place>) -> Result<(), KernelError> {
    let is = read(maps, base)?;
    let gone = is.keys().filter(|at| !places.contains_key(at)).map(|at| (*at, Place::default()));
    let new =
        places.iter().filter(|(at, place)| is.get(*at) != Some(*place)).map(|(at, place)| (*at, *place));
    for (at, place) in gone.chain(new) {
        maps.services.set(base + at, place, 0).map_err(KernelError::map(name::SERVICES))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(count: u32) -> BTreeMap<ServiceKey, Service> {
        let key =
            |n: u32| ServiceKey { hi: u64::from(n % 3), lo: u64::from(n / 7), port: n % 7 + 1, protocol: 6 };
        (0..count).map(|n| (key(n), Service { ring: n, ..Service::default() })).collect()
    }

    /// As the program does.
    fn find(places: &BTreeMap<u32, Place>, seed: u64, key: &ServiceKey) -> Option<Service> {
        let mut at = key.place(seed);
        for _ in 0..SERVICE_CHAIN {
            let place = places.get(&at)?;
            if place.key == *key {
                return Some(place.service);
            }
            at = place.next.checked_sub(1)?;
        }
        None
    }

    #[test]
    fn every_service_is_found_and_nothing_else() {
        for count in [0, 1, 100, KEYS_CAPACITY] {
            let services = services(count);
            let places = places(&services, 77).unwrap();
            assert_eq!(places.len(), services.len());
            for (key, service) in &services {
                assert_eq!(find(&places, 77, key), Some(*service));
                assert_eq!(find(&places, 77, &ServiceKey { port: 99, ..*key }), None);
            }
        }
    }

    #[test]
    fn more_than_there_is_room_for_are_refused() {
        assert!(places(&services(KEYS_CAPACITY + 1), 77).is_err());
    }
}
