use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use super::*;

struct Memory(Vec<[AtomicU64; 8]>);

impl Memory {
    fn new(sets: usize) -> Self {
        Self((0..sets).map(|_| Default::default()).collect())
    }
}

impl Words for &[AtomicU64; 8] {
    fn load(&self, at: usize) -> u64 {
        self[at].load(SeqCst)
    }
    fn store(&self, at: usize, value: u64) {
        self[at].store(value, SeqCst);
    }
    fn replace(&self, at: usize, old: u64, new: u64) -> bool {
        self[at].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

impl<'a> Table for &'a Memory {
    type Set = &'a [AtomicU64; 8];
    fn mask(&self) -> u64 {
        self.0.len() as u64 - 1
    }
    fn set(&self, index: u64) -> Option<Self::Set> {
        self.0.get(index as usize)
    }
}

fn key(n: u32) -> u64 {
    client_key(77, Address::v4(n), 4000, 1)
}

fn put(table: &&Memory, key: u64, flow: Flow, now: u64) -> bool {
    insert::<_, 2, 1>(table, key, [flow.0], now)
}

fn get(table: &&Memory, key: u64) -> Option<Flow> {
    find::<_, 2>(table, key).map(|place| Flow(load::<_, 2>(table, place, 1)))
}

#[test]
fn a_flow_keeps_what_it_is_given() {
    let flow = Flow::new(0xbeef, 0x1234, 0x12_3456, state::ESTABLISHED);
    assert_eq!((flow.target(), flow.port(), flow.state()), (0xbeef, 0x1234, state::ESTABLISHED));
    assert_eq!(flow.age(0x12_3456 + 5), 5);
    let flow = flow.seen(0x12_3460, state::CLOSING);
    assert_eq!((flow.target(), flow.age(0x12_3460)), (0xbeef, 0));
    assert_eq!(flow.state(), state::ESTABLISHED | state::CLOSING);
}

#[test]
fn the_clock_of_a_cpu_that_is_ahead_ends_nothing() {
    let flow = Flow::new(1, 0, 100, 0);
    assert!(!flow.is_over(99));
    assert!(!flow.is_over(160));
    assert!(flow.is_over(161));
}

#[test]
fn keys_tell_connections_apart() {
    let v6 = Address::from("2001:db8::1".parse::<IpAddr>().unwrap());
    let mut keys: Vec<u64> = Vec::new();
    for client in [Address::v4(1), Address::v4(2), v6] {
        for port in [1, 2] {
            keys.extend([1, 2].map(|vip| client_key(9, client, port, vip)));
            keys.extend([6, 17].map(|protocol| reply_key(9, client, port, v6, 3000, protocol)));
        }
    }
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn a_table_takes_half_of_its_capacity_before_it_refuses_any() {
    let memory = Memory::new(1 << 12);
    let table = &memory;
    let flow = Flow::new(3, 0, 0, state::ESTABLISHED);
    let refused = (0..4 * (1 << 12) / 2).filter(|n| !put(&table, key(*n), flow, 0)).count();
    assert_eq!(refused, 0);
}

#[test]
fn floods_of_half_open_connections_leave_the_established() {
    let memory = Memory::new(256);
    let table = &memory;
    let kept: Vec<u32> = (0..400).collect();
    for &n in &kept {
        assert!(put(&table, key(n), Flow::new(n as u16, 0, 1000, state::ESTABLISHED), 1000));
    }
    for n in 1000..21_000 {
        let now = 1001 + u64::from(n) / 5000;
        put(&table, key(n), Flow::new(7, 0, now, 0), now);
    }
    for n in kept {
        assert_eq!(get(&table, key(n)).map(Flow::target), Some(n as u16), "{n}");
    }
    let newest = (20_000..21_000).filter(|n| get(&table, key(*n)).is_some()).count();
    assert!(newest > 400, "{newest}");
}

#[test]
fn entries_that_are_over_are_given_away_and_living_ones_never() {
    let memory = Memory::new(1);
    let table = &memory;
    for n in 0..4 {
        assert!(put(&table, key(n), Flow::new(1, 0, 5, state::ESTABLISHED), 5));
    }
    assert!(!put(&table, key(9), Flow::new(2, 0, 6, 0), 6));
    assert!(put(&table, key(9), Flow::new(2, 0, 8000, 0), 8000));
    assert_eq!(get(&table, key(9)).map(Flow::target), Some(2));
}

#[test]
fn longer_entries_hold_all_their_words() {
    let memory = Memory::new(64);
    let table = &memory;
    for n in 0..30u64 {
        assert!(insert::<_, 4, 3>(&table, key(n as u32), [n, n + 1, Flow::new(n as u16, 1, 0, 1).0], 0));
    }
    for n in 0..30u64 {
        let place = find::<_, 4>(&table, key(n as u32)).expect("it was put there");
        let words = [1, 2].map(|at| load::<_, 4>(&table, place, at));
        assert_eq!(words, [n, n + 1]);
        let old = load::<_, 4>(&table, place, 3);
        assert!(replace(&table, place, 3, old, Flow(old).seen(9, 0).0));
        assert!(!replace(&table, place, 3, old, 0));
    }
}

#[test]
fn many_threads_on_one_set_mix_nothing_up() {
    let memory = Memory::new(2);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let memory = &memory;
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let n = thread * 7 + round % 7;
                    // Half open, so that they push one another out.
                    put(&memory, key(n), Flow::new(n as u16, 0, u64::from(round), 0), u64::from(round));
                    let other = (n + 3) % 28;
                    if let Some(place) = find::<_, 2>(&memory, key(other)) {
                        let flow = Flow(load::<_, 2>(&memory, place, 1));
                        let still = find::<_, 2>(&memory, key(other)) == Some(place);
                        assert!(
                            !still || flow.target() == other as u16 || get(&memory, key(other)) != Some(flow)
                        );
                    }
                }
            });
        }
    });
}
