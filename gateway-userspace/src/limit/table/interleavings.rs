//! Every order in which workers can change a place at once (loom): small cases, but all of them, on the memory that weakly ordered CPUs
//! have.

use std::sync::atomic::Ordering;

use gateway_common::bucket::Limit;
use loom::{
    sync::{Arc, atomic::AtomicU64},
    thread,
};

use super::{
    EMPTY, Kind, Owner, Word,
    word::{Cell, Way},
};

const NOW: u64 = 1 << 40;

impl Cell for AtomicU64 {
    fn load(&self, order: Ordering) -> u64 {
        AtomicU64::load(self, order)
    }

    fn store(&self, value: u64, order: Ordering) {
        AtomicU64::store(self, value, order);
    }

    fn exchange(&self, old: u64, new: u64, (done, failed): (Ordering, Ordering)) -> Result<u64, u64> {
        self.compare_exchange(old, new, done, failed)
    }
}

#[derive(Default)]
struct Place {
    tag: AtomicU64,
    word: AtomicU64,
    until: AtomicU64,
    info: AtomicU64,
}

impl Place {
    fn way(&self) -> Way<'_, AtomicU64> {
        Way { tag: &self.tag, word: &self.word, until: &self.until, info: &self.info }
    }

    fn of(owner: &Owner) -> Arc<Place> {
        let place = Place::default();
        assert!(place.way().claim(owner, NOW));
        Arc::new(place)
    }
}

fn owner(key: u128, kind: Kind) -> Owner {
    Owner { key, kind, group: 1 }
}

/// A token: whether there was one. `None`: the place is another's.
fn take(place: &Place, owner: &Owner, limit: Limit) -> Option<bool> {
    let decide = |word| limit.decide(word, NOW).map(|value| Word { value, until: 0 }).ok_or(());
    match place.way().update(owner.tag(), decide) {
        Ok(done) => done.map(|_| true),
        Err(()) => Some(false),
    }
}

#[test]
fn workers_on_one_word_take_exactly_what_is_in_it() {
    loom::model(|| {
        let (owner, limit) = (owner(7, Kind::Time), Limit::new(1_000_000, 2));
        let place = Place::of(&owner);
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let place = place.clone();
                thread::spawn(move || (0..2).filter(|_| take(&place, &owner, limit) == Some(true)).count())
            })
            .collect();
        let passed: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert_eq!(passed, 2);
        assert_eq!(place.word.load(Ordering::Relaxed), NOW + 2_000_000);
    });
}

#[test]
fn what_is_given_back_is_there_again_and_nothing_more() {
    loom::model(|| {
        let (owner, limit) = (owner(7, Kind::Time), Limit::new(1_000_000, 2));
        let place = Place::of(&owner);
        assert_eq!(take(&place, &owner, limit), Some(true));
        let other = place.clone();
        let refund = thread::spawn(move || {
            let back = |word: u64| Ok::<_, ()>(Word { value: word - 1_000_000, until: 0 });
            other.way().update(owner.tag(), back).unwrap().is_some()
        });
        let passed = (0..2).filter(|_| take(&place, &owner, limit) == Some(true)).count();
        assert!(refund.join().unwrap());
        let left = (0..3).filter(|_| take(&place, &owner, limit) == Some(true)).count();
        assert_eq!(passed + left, 2, "one of two was given back");
    });
}

/// A key whose bucket is full comes back while another takes its place: what it took is in its word, or it is told that
/// the place is no longer its.
fn comes_back(kind: Kind, next: impl Fn(u64) -> Word + Copy + Send + Sync + 'static) {
    loom::model(move || {
        let (old, new) = (owner(7, kind), owner(9, kind));
        let place = Place::of(&old);
        let other = place.clone();
        let claimer = thread::spawn(move || other.way().claim(&new, NOW));
        let took = place.way().update(old.tag(), |word| Ok::<_, ()>(next(word))).unwrap();
        let claimed = claimer.join().unwrap();
        assert!(!(took.is_some() && claimed), "what a key had used is forgotten");
        match claimed {
            true => assert_eq!(place.tag.load(Ordering::Relaxed), new.tag()),
            false => {
                assert_eq!(place.tag.load(Ordering::Relaxed), old.tag());
                assert_eq!(place.word.load(Ordering::Relaxed), next(0).value);
            }
        }
    });
}

#[test]
fn a_key_that_comes_back_while_its_place_is_taken_loses_nothing_of_what_it_used() {
    comes_back(Kind::Time, |_| Word { value: NOW + 1_000_000, until: 0 });
    comes_back(Kind::Until, |_| Word { value: 1 << 40 | 1, until: NOW + 1_000_000 });
    comes_back(Kind::Count, |word| Word { value: word + 1, until: 0 });
}

#[test]
fn of_two_that_take_an_empty_place_never_both_have_it() {
    loom::model(|| {
        let place = Arc::new(Place::default());
        assert_eq!(place.tag.load(Ordering::Relaxed), EMPTY);
        let limit = Limit::new(1_000_000, 2);
        // As long as nothing was taken from a place it may be taken away again.
        let has = move |place: &Place, owner: Owner| {
            place.way().claim(&owner, NOW) && take(place, &owner, limit) == Some(true)
        };
        let other = place.clone();
        let one = thread::spawn(move || has(&other, owner(7, Kind::Time)));
        let two = has(&place, owner(9, Kind::Time));
        // Neither, where each was in the other's way: who has lost it looks for a place again.
        assert!(!(one.join().unwrap() && two));
        assert!([7, 9].contains(&place.tag.load(Ordering::Relaxed)));
    });
}
