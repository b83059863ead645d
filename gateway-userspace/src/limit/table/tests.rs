use std::{sync::Barrier, thread};

use gateway_common::bucket::Limit;

use super::*;
use crate::limit::hash::Hasher;

const NOW: u64 = 1 << 60;

fn owner(table: &Table, n: u64, kind: Kind) -> Owner {
    let mut hasher = Hasher::new(table.key());
    hasher.write(&n.to_le_bytes());
    Owner { key: hasher.finish(), kind, group: 7 }
}

fn spend(table: &Table, owner: &Owner, limit: Limit, now: u64) -> bool {
    let take = |word, _| limit.decide(word, now).map(|value| Word { value, until: 0 }).ok_or(());
    table.update(owner, now, take).is_ok()
}

#[test]
fn every_key_has_a_word_of_its_own() {
    let table = Table::anonymous(1 << 12).unwrap();
    let limit = Limit::per_second(1.0, 3);
    for n in 0..2000 {
        let owner = owner(&table, n, Kind::Time);
        let passed = (0..10).filter(|_| spend(&table, &owner, limit, NOW)).count();
        assert_eq!(passed, 3, "key {n}");
    }
    assert_eq!(table.crowded(), 0);
    let mut seen = 0;
    table.for_each(NOW, MOST_WALKED, |place| seen += u64::from(place.group == 7));
    assert_eq!(seen, 2000);
}

#[test]
fn workers_that_hit_one_new_key_at_once_let_exactly_the_burst_through() {
    let limit = Limit::per_second(1e-6, 100);
    for round in 0..200 {
        let table = Table::anonymous(64).unwrap();
        let start = Barrier::new(4);
        let owner = owner(&table, round, Kind::Time);
        let passed: usize = thread::scope(|scope| {
            let work = || {
                start.wait();
                (0..100).filter(|_| spend(&table, &owner, limit, NOW)).count()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(passed, 100, "round {round}");
    }
}

#[test]
fn a_flood_of_invented_keys_resets_no_honest_one_and_is_judged_together_when_the_table_is_full() {
    let table = Table::anonymous(1 << 10).unwrap();
    let limit = Limit::per_second(1.0, 2);
    let honest: Vec<Owner> = (0..100).map(|n| owner(&table, n, Kind::Time)).collect();
    for one in &honest {
        assert!(spend(&table, one, limit, NOW) && spend(&table, one, limit, NOW));
    }
    let crowd = 1 << 17;
    let passed =
        (0..crowd).filter(|n| spend(&table, &owner(&table, 1_000 + n, Kind::Time), limit, NOW)).count();
    assert!(honest.iter().all(|one| !spend(&table, one, limit, NOW)), "an honest key was reset");
    assert!(table.crowded() > 0);
    // The places, and what the shared words give.
    assert!(passed <= (1 << 10) + SHARED * 2, "{passed} of {crowd}");
    // Honest ones get on as before.
    let later = NOW + 2_000_000_000;
    assert!(honest.iter().all(|one| spend(&table, one, limit, later)));
}

#[test]
fn a_place_is_given_away_when_its_word_means_nothing_any_more() {
    let table = Table::anonymous(4).unwrap();
    let limit = Limit::per_second(1.0, 1);
    let mut now = NOW;
    for n in 0..1000 {
        assert!(spend(&table, &owner(&table, n, Kind::Time), limit, now), "key {n}");
        now += 1_000_000_000;
    }
    assert_eq!(table.crowded(), 0);
    // Counts have no time: only at zero they are free.
    let count = owner(&table, 5000, Kind::Count);
    let add = |word: u64, shared: bool| if shared { Err(()) } else { Ok(Word { value: word + 1, until: 0 }) };
    table.update(&count, now, add).unwrap();
    for n in 0..1000 {
        now += 1_000_000_000;
        spend(&table, &owner(&table, 6000 + n, Kind::Time), limit, now);
    }
    assert_eq!(table.read(&count), 1);
    table.change(&count, |word| word - 1);
    for n in 0..1000 {
        now += 1_000_000_000;
        assert!(spend(&table, &owner(&table, 8000 + n, Kind::Time), limit, now));
    }
    assert_eq!(table.read(&count), 0);
}

#[test]
fn a_file_keeps_the_words_and_another_size_or_layout_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.state");
    let limit = Limit::per_second(1e-6, 3);
    let (key, one) = {
        let table = Table::of_file(&file, 1024).unwrap();
        let one = owner(&table, 1, Kind::Time);
        assert!(spend(&table, &one, limit, NOW) && spend(&table, &one, limit, NOW));
        table.refused(&one);
        (table.key(), one)
    };
    let both = (Table::of_file(&file, 1024).unwrap(), Table::of_file(&file, 1024).unwrap());
    assert_eq!((both.0.key(), both.0.seen(&one).unwrap().refused), (key, 1));
    assert!(spend(&both.0, &one, limit, NOW) && !spend(&both.1, &one, limit, NOW), "they share it");
    let other = Table::of_file(&file, 4096).unwrap();
    assert_ne!(other.key(), key);
    assert!(!spend(&both.0, &one, limit, NOW), "who has the old file keeps it");
    let words = SharedWords::of_file(&file, Table::words_of(4096).1).unwrap().unwrap().0;
    words[0].store(1, Relaxed);
    assert_ne!(Table::of_file(&file, 4096).unwrap().key(), other.key());
    assert!(Table::of_file(dir.path(), 1024).is_err(), "a folder");
}

#[test]
fn a_place_that_was_being_taken_when_its_process_died_is_free_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.state");
    {
        let table = Table::of_file(&file, 4).unwrap();
        table.ways(0).iter().for_each(|way| way.tag.store(TAKING, Relaxed));
    }
    let table = Table::of_file(&file, 4).unwrap();
    assert!(spend(&table, &owner(&table, 1, Kind::Time), Limit::per_second(1.0, 1), NOW));
    assert_eq!(table.crowded(), 0);
}

#[test]
fn a_table_is_walked_where_keys_are_and_of_many_only_in_part() {
    let (table, limit) = (Table::anonymous(1 << 20).unwrap(), Limit::per_second(1e-3, 3));
    let walk = |most: usize| {
        let mut seen = 0;
        let stands_for = table.for_each(NOW, most, |_| seen += 1);
        (seen, stands_for)
    };
    assert_eq!(walk(1), (0, 1), "nothing is there, nothing is looked at");
    for n in 0..20 {
        spend(&table, &owner(&table, n, Kind::Time), limit, NOW);
    }
    assert_eq!(walk(1 << 20), (20, 1), "each is counted");
    for n in 20..200_000 {
        spend(&table, &owner(&table, n, Kind::Time), limit, NOW);
    }
    assert_eq!(walk(1 << 20), (200_000, 1));
    let (seen, stands_for) = walk(1 << 15);
    assert!(seen <= 1 << 15 && stands_for == 32, "{seen} {stands_for}");
    let counted = seen * stands_for;
    assert!(counted.abs_diff(200_000) < 10_000, "{counted}");
    table.clear(7);
    assert_eq!(walk(1 << 20).0, 0);
}

#[test]
fn of_a_file_only_what_was_written_is_walked() {
    let dir = tempfile::tempdir().unwrap();
    let (file, limit) = (dir.path().join("limits.state"), Limit::per_second(1e-3, 3));
    let made = Table::of_file(&file, 1 << 20).unwrap();
    for n in 0..20 {
        spend(&made, &owner(&made, n, Kind::Time), limit, NOW);
    }
    drop(made);
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
    let before = blocks();
    let table = Table::of_file(&file, 1 << 20).unwrap();
    let mut seen = 0;
    assert_eq!(table.for_each(NOW, MOST_WALKED, |_| seen += 1), 1);
    assert_eq!(seen, 20);
    table.clear(7);
    // 32 MiB are 65 536 blocks.
    assert!(before < 8192 && blocks() <= before + 64, "{before} {}", blocks());
}
