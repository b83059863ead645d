//! Windows of the clock.

use super::{LONGEST_NS, Left, MOST_IN_WINDOW, Over, SECOND};
use crate::{
    config::units::{Quota, SpanUnit},
    limit::table::Word,
};

/// As much of a number as a word holds beside what was used.
pub(in crate::limit) const INDEX: u64 = 0xff_ffff;

/// So much in each span of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub(super) amount: u64,
    pub(super) span: Aligned,
}

/// Spans that begin with the clock's, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aligned {
    /// Of so many nanoseconds, from 1970 on.
    Even(u64),
    /// So many months of the calendar, from January 1970 on.
    Months(u32),
}

pub(super) fn span_ns(quota: Quota) -> u64 {
    u64::try_from(quota.span.duration().as_nanos()).unwrap_or(LONGEST_NS)
}

impl From<Quota> for Aligned {
    fn from(quota: Quota) -> Self {
        match quota.span.unit {
            SpanUnit::Month => Aligned::Months(quota.span.count),
            _ => Aligned::Even(span_ns(quota)),
        }
    }
}

impl Aligned {
    /// Which span it is, and when it ends.
    pub(super) fn at(self, wall: u64) -> (u64, u64) {
        match self {
            Aligned::Even(ns) => (wall / ns, (wall / ns + 1) * ns),
            Aligned::Months(count) => {
                let month = month_of(wall / SECOND / 86_400);
                let index = month / u64::from(count);
                (index, first_day((index + 1) * u64::from(count)) * 86_400 * SECOND)
            }
        }
    }

    pub(super) fn seconds(self) -> u64 {
        match self {
            Aligned::Even(ns) => (ns / SECOND).max(1),
            Aligned::Months(count) => u64::from(count) * 30 * 86_400,
        }
    }
}

/// Months since January 1970 on a day since its first (days to dates by eras of 400 years, 146 097 days).
pub(super) fn month_of(day: u64) -> u64 {
    let days = day + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // March is 0.
    let month = (5 * day_of_year + 2) / 153;
    (year_of_era + era * 400) * 12 + month + 2 - 1970 * 12
}

/// The day since 1970 on which a month since January 1970 begins.
pub(super) fn first_day(month: u64) -> u64 {
    let from_march = month + 1970 * 12 - 2;
    let (year, month) = (from_march / 12, from_march % 12);
    let day_of_year = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// The span's number (its low 24 bits) and what was used in it.
pub(in crate::limit) fn unpack(word: u64) -> (u64, u64) {
    (word >> 40, word & MOST_IN_WINDOW)
}

pub(in crate::limit) fn pack(index: u64, used: u64) -> u64 {
    (index & INDEX) << 40 | used.min(MOST_IN_WINDOW)
}

impl Window {
    /// What was used in the span at `wall`, and the span. A clock that was set back goes on with the span it was in.
    pub(super) fn used(&self, word: u64, wall: u64) -> (u64, u64, u64) {
        let (index, end) = self.span.at(wall);
        let (before, used) = unpack(word);
        let behind = before.wrapping_sub(index) & INDEX;
        match behind {
            0 => (index, used, end),
            // Not one of long ago: it was set back by a little.
            1..=2 if used > 0 => (before, used, end),
            _ => (index, 0, end),
        }
    }

    pub(super) fn take(&self, word: u64, wall: u64, cost: u64, shared: bool) -> Result<Word, Over> {
        let (index, used, end) = self.used(word, wall);
        let amount = if shared { self.amount.saturating_mul(4) } else { self.amount };
        // As of buckets: one that is full gives anything.
        if used > 0 && used.saturating_add(cost) > amount {
            return Err(Over { wait_ns: end.saturating_sub(wall).max(1) });
        }
        Ok(Word { value: pack(index, used.saturating_add(cost)), until: end })
    }

    pub(super) fn charge(&self, word: u64, wall: u64, cost: u64) -> Word {
        let (index, used, end) = self.used(word, wall);
        Word { value: pack(index, used.saturating_add(cost)), until: end }
    }

    pub(super) fn left(&self, word: u64, wall: u64) -> Left {
        let (_, used, end) = self.used(word, wall);
        let units = self.amount.saturating_sub(used);
        let over_ns = end.saturating_sub(wall).max(1);
        Left {
            units,
            next_ns: if units > 0 { 0 } else { over_ns },
            full_ns: if used > 0 { over_ns } else { 0 },
        }
    }
}
