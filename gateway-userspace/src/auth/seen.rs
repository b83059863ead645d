//! Signatures that were used, until their time is over. In memory that all workers share, and (in a file) one process after
//! the other: a copy may come to any worker, after a restart, or while an upgrade is under way.

use std::{path::PathBuf, sync::OnceLock};

use crate::{
    limit::{
        hash::Hasher,
        table::{Kind, Owner, Table, Word},
    },
    observe::stats::AuthResult,
};

/// Over all workers; beyond that none can be let in.
const MOST: usize = 1 << 20;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub struct Seen {
    /// `None`: of this process alone.
    file: Option<PathBuf>,
    /// Made with the first signature.
    table: OnceLock<Table>,
}

impl Seen {
    pub fn new(file: Option<PathBuf>) -> Self {
        Seen { file, table: OnceLock::new() }
    }

    fn table(&self) -> &Table {
        let lost = "signatures can be used again after a restart";
        self.table.get_or_init(|| Table::open(self.file.as_deref(), MOST, lost))
    }

    /// Takes note of a signature that verified. Times are seconds since 1970.
    pub fn once(&self, tag: &[u8], until: u64, now: u64) -> Result<(), AuthResult> {
        let table = self.table();
        let mut hasher = Hasher::new(table.key());
        hasher.part(b"signature");
        hasher.part(tag);
        let owner = Owner { key: hasher.finish(), kind: Kind::Until, group: 0 };
        let (until, now) = (until.saturating_mul(SECOND), now.saturating_mul(SECOND));
        let took = table.update(&owner, now, |word, shared| match (shared, word) {
            // A place that others share cannot tell whose it is.
            (true, _) => Err(AuthResult::Unavailable),
            (false, 0) => Ok(Word { value: 1, until }),
            (false, _) => Err(AuthResult::Replayed),
        });
        took.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_once_also_for_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = Some(dir.path().join("signatures.state"));
        let seen = Seen::new(file.clone());
        assert_eq!(seen.once(b"a", 100, 50), Ok(()));
        assert_eq!(seen.once(b"a", 100, 99), Err(AuthResult::Replayed));
        assert_eq!(seen.once(b"b", 100, 99), Ok(()));
        let other = Seen::new(file);
        assert_eq!(other.once(b"a", 100, 99), Err(AuthResult::Replayed));
        assert_eq!(other.once(b"c", 100, 99), Ok(()));
        assert_eq!(seen.once(b"c", 100, 99), Err(AuthResult::Replayed), "both are there");
    }

    #[test]
    fn of_many_who_come_at_once_with_one_signature_one_is_let_in() {
        let seen = Seen::default();
        for n in 0..200u32 {
            let passed: usize = std::thread::scope(|scope| {
                let all: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| seen.once(&n.to_be_bytes(), 100, 50).is_ok())).collect();
                all.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
            });
            assert_eq!(passed, 1);
        }
    }

    #[test]
    fn what_is_over_makes_room_and_what_is_not_never_does() {
        let seen = Seen { file: None, table: OnceLock::from(Table::anonymous(64).unwrap()) };
        let let_in = (0..1000u32).filter(|n| seen.once(&n.to_be_bytes(), 100, 50).is_ok()).count();
        assert!((32..=64).contains(&let_in), "{let_in}");
        assert_eq!(seen.once(&5000u32.to_be_bytes(), 100, 50), Err(AuthResult::Unavailable));
        assert_eq!(seen.once(&0u32.to_be_bytes(), 100, 50), Err(AuthResult::Replayed));
        let again = (0..32u32).filter(|n| seen.once(&n.to_be_bytes()[..3], 300, 200).is_ok()).count();
        assert!(again >= 1);
    }
}
