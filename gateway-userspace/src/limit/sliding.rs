//! The last span of time, whenever it is looked at: counted in parts, each a word of its own.
//!
//! All of the oldest part counts as long as any of it is within the span. So never more than the amount passes in any span,
//! and what was used comes back up to a part late.

use super::{
    Said,
    meter::{INDEX, Left, MOST_IN_WINDOW, Now, Over, pack, unpack},
    table::{Kind, Owner, Table, Word},
};

/// Parts of a span.
pub const PARTS: u64 = 20;
/// In how many steps a part is told when something comes back of what gateways share.
const STEPS: u64 = 16;

/// As it is at one moment, to be asked about the part that is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sliding {
    pub amount: u64,
    pub(super) part_ns: u64,
    /// The part that is now, and what was used in those before it.
    index: u64,
    before: u64,
    /// At which of the parts' ends to come what was used first is back, and what was used before this part.
    oldest: u8,
    full: u8,
    /// … there is one unit again, and as much as was asked for, if the part that is now is used no more.
    next: u8,
    wait: u8,
    /// Other gateways have used some of what was used before: in how many milliseconds any of it is back. 0: they have not.
    others_ms: u32,
}

/// It is there now.
const NOW: u8 = u8::MAX;

impl Sliding {
    pub fn new(amount: u64, span_ns: u64) -> Self {
        let part_ns = (span_ns / PARTS).max(1);
        let last = PARTS as u8;
        Sliding {
            amount: amount.min(MOST_IN_WINDOW),
            part_ns,
            index: 0,
            before: 0,
            oldest: last,
            full: NOW,
            next: NOW,
            wait: NOW,
            others_ms: 0,
        }
    }

    pub fn span_seconds(&self) -> u64 {
        (self.part_ns * PARTS / 1_000_000_000).max(1)
    }

    /// The part of a key that is used now, and this at `now`, asked for `cost`.
    pub fn at(mut self, table: &Table, owner: &Owner, now: Now, cost: u64) -> (Owner, Self) {
        let index = now.steady / self.part_ns;
        let used = |index: u64| {
            let (of, used) = unpack(table.read(&part(owner, index)));
            if of == index & INDEX { used } else { 0 }
        };
        // By how many parts ago they are.
        let mut parts = [0u64; PARTS as usize + 1];
        for (ago, part) in (0..).zip(&mut parts) {
            *part = index.checked_sub(ago).map_or(0, used);
        }
        let total = parts.iter().fold(0u64, |sum, part| sum.saturating_add(*part));
        let last = PARTS as u8;
        (self.index, self.before) = (index, total - parts[0]);
        (self.oldest, self.full) = (last, NOW);
        let fits = |left: u64, cost: u64| left.saturating_add(cost) <= self.amount || left == 0;
        let (mut next, mut wait) = (fits(total, 1).then_some(NOW), fits(total, cost).then_some(NOW));
        // The oldest goes first, at the end of the part that is now.
        let mut left = total;
        for (end, used) in (0..).zip(parts.into_iter().rev()).filter(|(_, used)| *used > 0) {
            left -= used;
            self.oldest = self.oldest.min(end);
            next = next.or_else(|| fits(left, 1).then_some(end));
            wait = wait.or_else(|| fits(left, cost).then_some(end));
            // Of the part that is now it follows from its word.
            if end < last {
                self.full = end;
            }
        }
        self.next = next.unwrap_or(NOW);
        self.wait = wait.unwrap_or(NOW);
        (part(owner, index), self)
    }

    /// What a store says is left of it, and until when that holds: as a word.
    pub fn known(&self, said: &Said, now: Now) -> Word {
        let step = self.step_ns();
        let index = now.steady.saturating_add(said.next_ns) / step + 1;
        Word { value: pack(index, self.amount.saturating_sub(said.used)), until: index.saturating_mul(step) }
    }

    /// This, when a store has said what is left for all gateways (0: it has not), this one holds some in advance, and
    /// `word` is that of the part that is now.
    pub fn among(mut self, known: u64, held: u64, word: u64, now: Now) -> Self {
        let (step, (index, left)) = (self.step_ns(), unpack(known));
        let ahead = index.wrapping_sub(now.steady / step) & INDEX;
        if known == 0 || !(1..=(PARTS + 2) * STEPS).contains(&ahead) {
            return self;
        }
        let own = self.before.saturating_add(self.used(word));
        let others = self.amount.saturating_sub(left.saturating_add(held)).saturating_sub(own);
        if others > 0 {
            self.before = self.before.saturating_add(others);
            let ns = (now.steady / step + ahead).saturating_mul(step).saturating_sub(now.steady);
            self.others_ms = u32::try_from(ns.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1);
            self.full = PARTS as u8;
        }
        self
    }

    fn step_ns(&self) -> u64 {
        (self.part_ns / STEPS).max(1)
    }

    /// How long until an end of a part: 0 is the one that is now.
    fn until(&self, end: u8, now: Now) -> u64 {
        ((self.index + 1 + u64::from(end)) * self.part_ns).saturating_sub(now.steady).max(1)
    }

    fn others_ns(&self) -> Option<u64> {
        (self.others_ms > 0).then(|| u64::from(self.others_ms) * 1_000_000)
    }

    fn used(&self, word: u64) -> u64 {
        let (index, used) = unpack(word);
        if index == self.index & INDEX { used } else { 0 }
    }

    /// `shared`: from a word that several keys share, which holds four times as much.
    pub fn take(&self, word: u64, now: Now, cost: u64, shared: bool) -> Result<Word, Over> {
        let used = self.used(word);
        let total = self.before.saturating_add(used);
        let amount = if shared { self.amount.saturating_mul(4) } else { self.amount };
        // As of buckets: one that is full gives anything.
        if total > 0 && total.saturating_add(cost) > amount {
            let end = if self.wait == NOW { self.oldest } else { self.wait };
            return Err(Over { wait_ns: self.others_ns().unwrap_or_else(|| self.until(end, now)) });
        }
        Ok(self.word(used.saturating_add(cost)))
    }

    pub fn charge(&self, word: u64, cost: u64) -> Word {
        self.word(self.used(word).saturating_add(cost))
    }

    fn word(&self, used: u64) -> Word {
        let until = (self.index + PARTS + 1).saturating_mul(self.part_ns);
        Word { value: pack(self.index, used), until }
    }

    pub fn left(&self, word: u64, now: Now) -> Left {
        let used = self.used(word);
        let units = self.amount.saturating_sub(self.before.saturating_add(used));
        let next = match (units, self.next) {
            (1.., _) => NOW,
            (0, NOW) => self.oldest,
            (0, end) => end,
        };
        let full = if used > 0 { PARTS as u8 } else { self.full };
        let ns = |end| if end == NOW { 0 } else { self.until(end, now) };
        let next_ns = self.others_ns().filter(|_| units == 0).unwrap_or_else(|| ns(next));
        Left { units, next_ns, full_ns: ns(full) }
    }
}

/// All places of a key.
pub fn parts(owner: Owner) -> impl Iterator<Item = Owner> {
    (0..=PARTS).map(move |index| part(&owner, index))
}

/// Where the use of one part is counted: a place for each part of a span, and for the one that is now.
fn part(owner: &Owner, index: u64) -> Owner {
    let slot = u128::from(index % (PARTS + 1) + 1);
    // Odd factors: every slot has its own tag and sets.
    Owner {
        key: owner.key ^ slot.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        kind: Kind::Until,
        ..*owner
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    fn owner(table: &Table) -> Owner {
        Owner {
            key: u128::from(table.key()[0]) << 64 | u128::from(table.key()[1]),
            kind: Kind::Until,
            group: 1,
        }
    }

    /// Whether one that costs so much passes, and what is told then.
    fn take(table: &Table, meter: Sliding, now: u64, cost: u64) -> (Result<Word, Over>, Left) {
        let now = Now { steady: now, wall: now };
        let (at, meter) = meter.at(table, &owner(table), now, cost);
        let taken = table.update(&at, now.steady, |word, shared| meter.take(word, now, cost, shared));
        (taken, meter.left(table.read(&at), now))
    }

    #[test]
    fn no_span_has_more_than_the_amount_at_no_edge() {
        let (table, meter) = (Table::anonymous(1024).unwrap(), Sliding::new(100, 60 * SECOND));
        let mut passed: Vec<u64> = Vec::new();
        // A burst at the end of a minute, and then as fast as may be.
        let mut now = START - START % (60 * SECOND) + 59 * SECOND;
        for _ in 0..200 {
            passed.extend(take(&table, meter, now, 1).0.is_ok().then_some(now));
        }
        assert_eq!(passed.len(), 100, "all of it at once");
        while now < START + 400 * SECOND {
            now += SECOND / 4;
            passed.extend(take(&table, meter, now, 1).0.is_ok().then_some(now));
        }
        for (first, at) in passed.iter().enumerate() {
            let in_span = passed[first..].iter().take_while(|other| **other < at + 60 * SECOND).count();
            assert!(in_span <= 100, "{in_span} in a minute");
        }
        // It comes back up to a twentieth late.
        let minutes = (now - START) as f64 / 60e9;
        assert!(passed.len() as f64 >= 100.0 * minutes * 0.85, "{} in {minutes} minutes", passed.len());
        assert_eq!(table.crowded(), 0);
    }

    #[test]
    fn what_is_told_is_what_happens_next() {
        let (table, meter) = (Table::anonymous(1024).unwrap(), Sliding::new(3, 20 * SECOND));
        let mut now = START;
        for step in [0, 300, 4000, 100, 7000, 0, 0, 2500] {
            now += step * 1_000_000;
            match take(&table, meter, now, 1) {
                (Ok(_), left) if left.units > 0 => assert_eq!(left.next_ns, 0),
                (Ok(_), left) => {
                    assert!(take(&table, meter, now + left.next_ns - 1, 1).0.is_err());
                }
                (Err(over), left) => {
                    assert_eq!((left.units, left.next_ns), (0, over.wait_ns));
                    assert!(take(&table, meter, now + over.wait_ns - 1, 1).0.is_err());
                    now += over.wait_ns;
                    assert!(take(&table, meter, now, 1).0.is_ok());
                }
            }
        }
        let full = take(&table, meter, now, 1).1.full_ns;
        let now = Now { steady: now + full, wall: 0 };
        let (at, meter) = meter.at(&table, &owner(&table), now, 1);
        assert_eq!(meter.left(table.read(&at), now), Left { units: 3, next_ns: 0, full_ns: 0 });
    }

    /// What a store says: so much is used, and some of it is back in so long.
    fn said(used: u64, next_ns: u64) -> Said {
        Said { granted: 0, used, wait_ns: next_ns, next_ns }
    }

    #[test]
    fn what_others_have_used_counts_until_the_store_is_to_be_asked_again() {
        let (table, meter) = (Table::anonymous(1024).unwrap(), Sliding::new(10, 20 * SECOND));
        let at = |ns| Now { steady: START + ns, wall: 0 };
        // Three of its own, and four of others.
        for _ in 0..3 {
            assert!(take(&table, meter, START, 1).0.is_ok());
        }
        let known = meter.known(&said(7, 5 * SECOND), at(0)).value;
        let left = |ns, held| {
            let (place, meter) = meter.at(&table, &owner(&table), at(ns), 1);
            let word = table.read(&place);
            meter.among(known, held, word, at(ns)).left(word, at(ns))
        };
        assert_eq!((left(0, 0).units, left(0, 2).units), (3, 5));
        assert_eq!((left(0, 0).next_ns, left(0, 7).units), (0, 7));
        assert_eq!(left(5 * SECOND + SECOND / 8, 0).units, 7, "only its own are known");
        // All of it is used: nothing is taken until something is back.
        let known = meter.known(&said(10, 5 * SECOND), at(0)).value;
        for (ns, passes) in [(0, false), (5 * SECOND - 1, false), (5 * SECOND + SECOND / 8, true)] {
            let (place, meter) = meter.at(&table, &owner(&table), at(ns), 1);
            let word = table.read(&place);
            let meter = meter.among(known, 0, word, at(ns));
            let took = meter.take(word, at(ns), 1, false);
            assert_eq!(took.is_ok(), passes, "{ns}");
            if let Err(over) = took {
                assert_eq!(meter.left(word, at(ns)).next_ns, over.wait_ns);
                assert!(ns + over.wait_ns >= 5 * SECOND && ns + over.wait_ns < 5 * SECOND + SECOND / 8);
            }
        }
    }

    proptest! {
        #[test]
        fn no_word_of_a_store_panics_or_lets_more_in(known: u64, held in 0u64..1 << 50, word: u64, now in 0u64..1 << 62, used: u64, next: u64) {
            let (table, meter) = (Table::anonymous(64).unwrap(), Sliding::new(10, 20 * SECOND));
            let now = Now { steady: now, wall: 0 };
            let (_, alone) = meter.at(&table, &owner(&table), now, 1);
            let among = alone.among(known, held, word, now);
            prop_assert!(among.left(word, now).units <= alone.left(word, now).units);
            prop_assert!(among.take(word, now, 1, false).is_err() || alone.take(word, now, 1, false).is_ok());
            let _ = meter.known(&said(used, next), now);
        }

        #[test]
        fn costs_never_add_up_to_more(steps in prop::collection::vec((0u64..5_000, 0u64..8), 1..300)) {
            let (table, meter) = (Table::anonymous(1024).unwrap(), Sliding::new(10, 10 * SECOND));
            let (mut now, mut passed) = (START, Vec::new());
            for (ms, cost) in steps {
                now += ms * 1_000_000;
                passed.extend(take(&table, meter, now, cost).0.is_ok().then_some((now, cost)));
            }
            for (first, (at, _)) in passed.iter().enumerate() {
                let span = passed[first..].iter().take_while(|(other, _)| *other < at + 10 * SECOND);
                prop_assert!(span.map(|(_, cost)| cost).sum::<u64>() <= 10);
            }
        }
    }
}
