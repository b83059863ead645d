//! What a limit makes of a word: token buckets by the kernel half's own arithmetic, and windows of the clock. Pure.

use gateway_common::bucket::{self, BYTES};

use super::{
    sliding::Sliding,
    table::{Kind, Owner, Table, Word},
};
use crate::config::{
    model::Algorithm,
    units::{Quota, SpanUnit},
};

/// Amounts that words of windows hold.
const MOST_IN_WINDOW: u64 = (1 << 40) - 1;
/// Costs and waits, so that sums of them do not overflow: 36 years.
const LONGEST_NS: u64 = 1 << 60;

const SECOND: u64 = 1_000_000_000;

/// The two clocks, in nanoseconds: one that never steps, and the wall's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub steady: u64,
    pub wall: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    Bucket(Bucket),
    Window(Window),
    Sliding(Sliding),
}

/// A meter as a store counts it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Bucket {
        interval_us: f64,
        depth_us: f64,
    },
    /// Which window it is, and for how long yet.
    Window {
        amount: u64,
        index: u64,
        left_ms: u64,
    },
}

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub units: u64,
    /// Until there is one unit more than none; 0 where there is.
    pub next_ns: u64,
    /// Until all of it is there again.
    pub full_ns: u64,
}

/// It has to wait so long, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    pub wait_ns: u64,
}

impl Meter {
    pub fn new(algorithm: Algorithm, quota: Quota, burst: Option<u64>) -> Self {
        match algorithm {
            Algorithm::TokenBucket => Meter::Bucket(Bucket::new(quota, burst)),
            Algorithm::SlidingWindow => Meter::Sliding(Sliding::new(quota.amount, span_ns(quota))),
            Algorithm::FixedWindow => {
                Meter::Window(Window { amount: quota.amount.min(MOST_IN_WINDOW), span: quota.into() })
            }
        }
    }

    /// A bucket at a share of its rate, as deep in time; of what it holds, `kept` is for others.
    pub fn scaled(self, share: f64, kept: f64) -> Self {
        match self {
            Meter::Bucket(bucket) => Meter::Bucket(bucket.scaled(share, kept)),
            window => window,
        }
    }

    /// At one moment, asked for `cost`: whose word is to be looked at, and as what.
    pub fn at(self, table: &Table, owner: Owner, now: Now, cost: u64) -> (Owner, Self) {
        match self {
            Meter::Sliding(sliding) => {
                let (owner, sliding) = sliding.at(table, &owner, now, cost);
                (owner, Meter::Sliding(sliding))
            }
            one => (owner, one),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Meter::Bucket(_) => Kind::Time,
            Meter::Window(_) | Meter::Sliding(_) => Kind::Until,
        }
    }

    /// The most that there is at once, in units.
    pub fn capacity(&self) -> u64 {
        match self {
            Meter::Bucket(bucket) => bucket.capacity,
            Meter::Window(window) => window.amount,
            Meter::Sliding(sliding) => sliding.amount,
        }
    }

    /// In how long so much comes back.
    pub fn span_seconds(&self) -> u64 {
        match self {
            Meter::Bucket(bucket) => ((bucket.limit.depth_ns + SECOND / 2) / SECOND).max(1),
            Meter::Window(window) => window.span.seconds(),
            Meter::Sliding(sliding) => sliding.span_seconds(),
        }
    }

    pub fn per_second(&self) -> f64 {
        match self {
            Meter::Bucket(bucket) => {
                let unit = if bucket.fine { BYTES as f64 } else { 1.0 };
                unit * 1e9 / bucket.limit.interval_ns as f64
            }
            Meter::Window(window) => window.amount as f64 / window.span.seconds() as f64,
            Meter::Sliding(sliding) => sliding.amount as f64 / sliding.span_seconds() as f64,
        }
    }

    /// Takes `cost` units. `shared`: from a word that several keys share, which holds four times as much.
    pub fn take(&self, word: u64, now: Now, cost: u64, shared: bool) -> Result<Word, Over> {
        match self {
            Meter::Bucket(bucket) => bucket.take(word, now.steady, cost, 0, shared),
            Meter::Window(window) => window.take(word, now.wall, cost, shared),
            Meter::Sliding(sliding) => sliding.take(word, now, cost, shared),
        }
    }

    /// As [`Meter::take`], from what comes back within `delay_ns` too: buckets only.
    pub fn take_ahead(
        &self,
        word: u64,
        now: Now,
        cost: u64,
        delay_ns: u64,
        shared: bool,
    ) -> Result<Word, Over> {
        match self {
            Meter::Bucket(bucket) => bucket.take(word, now.steady, cost, delay_ns, shared),
            Meter::Window(window) => window.take(word, now.wall, cost, shared),
            Meter::Sliding(sliding) => sliding.take(word, now, cost, shared),
        }
    }

    /// How long what was taken ahead has to wait.
    pub fn wait_ns(&self, word: u64, now: Now) -> u64 {
        match self {
            Meter::Bucket(bucket) => {
                word.min(1 << 63).saturating_sub(now.steady).saturating_sub(bucket.limit.depth_ns)
            }
            Meter::Window(_) | Meter::Sliding(_) => 0,
        }
    }

    /// Takes what has been used already, be there so much or not.
    pub fn charge(&self, word: u64, now: Now, cost: u64) -> Word {
        match self {
            Meter::Bucket(bucket) => Word { value: bucket.charge(word, now.steady, cost), until: 0 },
            Meter::Window(window) => window.charge(word, now.wall, cost),
            Meter::Sliding(sliding) => sliding.charge(word, cost),
        }
    }

    /// Gives back what [`Meter::take`] took.
    pub fn give_back(&self, word: u64, cost: u64) -> u64 {
        match self {
            Meter::Bucket(bucket) => word.saturating_sub(bucket.cost_ns(cost)),
            Meter::Window(_) | Meter::Sliding(_) => {
                let (index, used) = unpack(word);
                pack(index, used.saturating_sub(cost))
            }
        }
    }

    /// A word, with at least as much used of it as all gateways have, of which this one holds some in advance. `total`:
    /// nanoseconds until the bucket is full, or what was used in the window.
    pub fn raised(&self, word: u64, now: Now, total: u64, held: u64) -> Word {
        match self {
            Meter::Bucket(bucket) => {
                let ahead = total.saturating_sub(bucket.cost_ns(held)).min(bucket.most_ahead());
                Word { value: word.min(1 << 63).max(now.steady + ahead), until: 0 }
            }
            Meter::Window(window) => {
                let (index, used, end) = window.used(word, now.wall);
                Word { value: pack(index, used.max(total.saturating_sub(held))), until: end }
            }
            Meter::Sliding(sliding) => sliding.charge(word, 0),
        }
    }

    /// How long until `cost` is there, when all gateways have used `total`; 0: it is.
    pub fn wait_of(&self, total: u64, now: Now, cost: u64) -> u64 {
        match self {
            Meter::Bucket(bucket) => {
                let depth = bucket.limit.depth_ns;
                total.saturating_add(bucket.cost_ns(cost).min(depth)).saturating_sub(depth)
            }
            Meter::Window(window) => match total.saturating_add(cost.min(window.amount)) > window.amount {
                true => window.used(0, now.wall).2.saturating_sub(now.wall).max(1),
                false => 0,
            },
            Meter::Sliding(_) => 0,
        }
    }

    /// Of what a store has counted: microseconds of buckets, units of windows.
    pub fn total(&self, used: u64) -> u64 {
        match self {
            Meter::Bucket(_) => used.saturating_mul(1000),
            Meter::Window(_) | Meter::Sliding(_) => used,
        }
    }

    /// When hardly anything is left, nobody asks for more at once: what comes back meanwhile is not lost.
    pub fn held_off(&self, total: u64) -> u64 {
        const MOST_NS: u64 = 2_000_000;
        match self {
            Meter::Bucket(bucket) => {
                let (depth, one) = (bucket.limit.depth_ns, bucket.cost_ns(1));
                match total + one > depth {
                    true => total.max(depth.saturating_sub(one) + MOST_NS.min(depth / 8)),
                    false => total,
                }
            }
            Meter::Window(_) | Meter::Sliding(_) => total,
        }
    }

    /// As a store counts it.
    pub fn shape(&self, now: Now) -> Shape {
        match self {
            Meter::Bucket(bucket) => {
                let unit = if bucket.fine { BYTES as f64 } else { 1.0 };
                Shape::Bucket {
                    interval_us: bucket.limit.interval_ns as f64 / unit / 1e3,
                    depth_us: bucket.limit.depth_ns as f64 / 1e3,
                }
            }
            Meter::Window(window) => {
                let (index, _, end) = window.used(0, now.wall);
                Shape::Window {
                    amount: window.amount,
                    index,
                    left_ms: end.saturating_sub(now.wall) / 1_000_000 + 1,
                }
            }
            // They are no gateway's but its own.
            Meter::Sliding(sliding) => Shape::Window { amount: sliding.amount, index: 0, left_ms: 1 },
        }
    }

    pub fn left(&self, word: u64, now: Now) -> Left {
        match self {
            Meter::Bucket(bucket) => bucket.left(word, now.steady),
            Meter::Window(window) => window.left(word, now.wall),
            Meter::Sliding(sliding) => sliding.left(word, now),
        }
    }
}

/// A token bucket. Where tokens come back too fast for whole nanoseconds, the arithmetic is that of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    limit: bucket::Limit,
    fine: bool,
    capacity: u64,
}

impl Bucket {
    pub fn new(quota: Quota, burst: Option<u64>) -> Self {
        let burst = burst.unwrap_or(quota.amount).max(1);
        // Within 0.01 % below, exact to a byte above.
        let fine = quota.per_second() >= 100_000.0;
        let limit = match fine {
            true => bucket::Limit::bytes_per_second(quota.per_second(), burst),
            false => bucket::Limit::per_second(quota.per_second(), burst),
        };
        Bucket { limit, fine, capacity: burst }
    }

    fn scaled(self, share: f64, kept: f64) -> Self {
        let mut limit = self.limit.scaled(share);
        limit.depth_ns = ((limit.depth_ns as f64 * (1.0 - kept)) as u64).max(1);
        let capacity = (self.capacity as f64 * share * (1.0 - kept)).round().max(1.0) as u64;
        Bucket { limit, capacity, ..self }
    }

    /// In which so much comes back.
    fn cost_ns(&self, cost: u64) -> u64 {
        let unit = if self.fine { BYTES } else { 1 };
        let ns = u128::from(self.limit.interval_ns) * u128::from(cost) / u128::from(unit);
        ns.min(u128::from(LONGEST_NS)) as u64
    }

    fn take(&self, word: u64, now: u64, cost: u64, delay_ns: u64, shared: bool) -> Result<Word, Over> {
        let mut cost_ns = self.cost_ns(cost);
        let mut limit = self.limit;
        if shared {
            cost_ns /= 4;
        }
        if delay_ns > 0 {
            limit.depth_ns = limit.depth_ns.saturating_add(delay_ns).min(LONGEST_NS);
            limit.horizon_ns = limit.horizon_ns.saturating_add(delay_ns);
        }
        // One that no bucket made, out of a file: nothing overflows with it.
        let word = word.min(1 << 63);
        match limit.decide_cost(word, now, cost_ns) {
            Some(value) => Ok(Word { value, until: 0 }),
            // What costs more than all there is waits until all of it is there.
            None => Err(Over {
                wait_ns: (word.saturating_sub(now) + cost_ns.min(limit.depth_ns))
                    .saturating_sub(limit.depth_ns)
                    .max(1),
            }),
        }
    }

    /// Debts end at twice what the bucket holds: a word further ahead would be taken for another limit's.
    fn most_ahead(&self) -> u64 {
        self.limit.depth_ns.saturating_mul(2).min(self.limit.horizon_ns)
    }

    fn charge(&self, word: u64, now: u64, cost: u64) -> u64 {
        word.max(now).saturating_add(self.cost_ns(cost)).min(now + self.most_ahead())
    }

    fn left(&self, word: u64, now: u64) -> Left {
        let bucket::Limit { depth_ns, interval_ns, .. } = self.limit;
        let ahead = word.min(1 << 63).saturating_sub(now);
        let units = if self.fine { self.limit.bytes_left(word, now) } else { self.limit.left(word, now) };
        let one = if self.fine { interval_ns / BYTES } else { interval_ns }.clamp(1, depth_ns.max(1));
        let next_ns = if units > 0 { 0 } else { (ahead + one).saturating_sub(depth_ns).max(1) };
        Left { units: units.min(self.capacity), next_ns, full_ns: ahead }
    }
}

/// So much in each span of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    amount: u64,
    span: Aligned,
}

/// Spans that begin with the clock's, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aligned {
    /// Of so many nanoseconds, from 1970 on.
    Even(u64),
    /// So many months of the calendar, from January 1970 on.
    Months(u32),
}

fn span_ns(quota: Quota) -> u64 {
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
    fn at(self, wall: u64) -> (u64, u64) {
        match self {
            Aligned::Even(ns) => (wall / ns, (wall / ns + 1) * ns),
            Aligned::Months(count) => {
                let month = month_of(wall / SECOND / 86_400);
                let index = month / u64::from(count);
                (index, first_day((index + 1) * u64::from(count)) * 86_400 * SECOND)
            }
        }
    }

    fn seconds(self) -> u64 {
        match self {
            Aligned::Even(ns) => (ns / SECOND).max(1),
            Aligned::Months(count) => u64::from(count) * 30 * 86_400,
        }
    }
}

/// Months since January 1970 on a day since its first (days to dates by eras of 400 years, 146 097 days).
fn month_of(day: u64) -> u64 {
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
fn first_day(month: u64) -> u64 {
    let from_march = month + 1970 * 12 - 2;
    let (year, month) = (from_march / 12, from_march % 12);
    let day_of_year = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

/// The span's number (its low 24 bits) and what was used in it.
fn unpack(word: u64) -> (u64, u64) {
    (word >> 40, word & MOST_IN_WINDOW)
}

fn pack(index: u64, used: u64) -> u64 {
    (index & 0xff_ffff) << 40 | used.min(MOST_IN_WINDOW)
}

impl Window {
    /// What was used in the span at `wall`, and the span. A clock that was set back goes on with the span it was in.
    fn used(&self, word: u64, wall: u64) -> (u64, u64, u64) {
        let (index, end) = self.span.at(wall);
        let (before, used) = unpack(word);
        let behind = before.wrapping_sub(index) & 0xff_ffff;
        match behind {
            0 => (index, used, end),
            // Not one of long ago: it was set back by a little.
            1..=2 if used > 0 => (before, used, end),
            _ => (index, 0, end),
        }
    }

    fn take(&self, word: u64, wall: u64, cost: u64, shared: bool) -> Result<Word, Over> {
        let (index, used, end) = self.used(word, wall);
        let amount = if shared { self.amount.saturating_mul(4) } else { self.amount };
        // As of buckets: one that is full gives anything.
        if used > 0 && used.saturating_add(cost) > amount {
            return Err(Over { wait_ns: end.saturating_sub(wall).max(1) });
        }
        Ok(Word { value: pack(index, used.saturating_add(cost)), until: end })
    }

    fn charge(&self, word: u64, wall: u64, cost: u64) -> Word {
        let (index, used, end) = self.used(word, wall);
        Word { value: pack(index, used.saturating_add(cost)), until: end }
    }

    fn left(&self, word: u64, wall: u64) -> Left {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ns: u64) -> Now {
        Now { steady: ns, wall: ns }
    }

    fn quota(text: &str) -> Quota {
        text.parse().unwrap()
    }

    fn bucket(rate: &str, burst: Option<u64>) -> Meter {
        Meter::new(Algorithm::TokenBucket, quota(rate), burst)
    }

    fn window(rate: &str) -> Meter {
        Meter::new(Algorithm::FixedWindow, quota(rate), None)
    }

    /// How many of `n` are let through at once.
    fn passed(meter: &Meter, word: &mut u64, now: Now, n: usize, cost: u64) -> usize {
        (0..n)
            .filter(|_| meter.take(*word, now, cost, false).inspect(|next| *word = next.value).is_ok())
            .count()
    }

    const START: u64 = 1_800_000_000 * SECOND;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        for (rate, burst, per_second) in
            [("100/s", None, 100.0), ("100/s", Some(7), 100.0), ("90/m", None, 1.5), ("5M/s", None, 5e6)]
        {
            let meter = bucket(rate, burst);
            let mut word = 0;
            let at_once = meter.capacity() as usize;
            assert_eq!(passed(&meter, &mut word, at(START), at_once + 10, 1), at_once, "{rate}");
            let later = START + 20 * SECOND;
            let allowed = f64::min(20.0 * per_second, at_once as f64) as usize;
            let more = passed(&meter, &mut word, at(later), at_once + 10, 1);
            assert!(more.abs_diff(allowed) <= 1 + allowed / 1000, "{rate}: {more} of {allowed}");
        }
    }

    #[test]
    fn what_is_told_is_what_happens_next() {
        for meter in [bucket("10/s", Some(3)), bucket("7/m", None), window("5/m"), window("3/month")] {
            let mut word = 0;
            let mut now = at(START);
            for _ in 0..50 {
                let left = meter.left(word, now);
                match meter.take(word, now, 1, false) {
                    Ok(next) => {
                        assert!(left.units > 0, "{meter:?}");
                        word = next.value;
                    }
                    Err(over) => {
                        assert_eq!(left.units, 0, "{meter:?}");
                        assert_eq!(left.next_ns, over.wait_ns, "{meter:?}");
                        assert!(meter.take(word, at(now.wall + over.wait_ns - 1), 1, false).is_err());
                        now = at(now.wall + over.wait_ns);
                        assert!(meter.left(word, now).units > 0, "{meter:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_costs_more_than_there_is_passes_when_all_is_there() {
        let meter = bucket("10/s", Some(5));
        let word = meter.take(0, at(START), 8, false).unwrap().value;
        let over = meter.take(word, at(START), 8, false).unwrap_err();
        assert!(meter.take(word, at(START + over.wait_ns), 8, false).is_ok());
        assert!(meter.take(word, at(START + over.wait_ns - 1), 8, false).is_err());
    }

    #[test]
    fn what_is_charged_at_the_end_may_overdraw_by_one_bucket() {
        let meter = bucket("10/s", Some(10));
        let word = meter.charge(0, at(START), 1000).value;
        assert_eq!(meter.left(word, at(START)).units, 0);
        // Twice the bucket: one to be full again, one of debt.
        let over = meter.take(word, at(START), 1, false).unwrap_err();
        assert_eq!(over.wait_ns, SECOND + SECOND / 10);
        let meter = window("10/m");
        let word = meter.charge(0, at(START), 1000).value;
        assert!(meter.take(word, at(START), 1, false).is_err());
        assert!(meter.take(word, at(START + 60 * SECOND), 1, false).is_ok());
    }

    #[test]
    fn a_delay_lets_so_much_more_in_and_says_how_long_it_waits() {
        let meter = bucket("10/s", Some(1));
        let mut word = 0;
        let mut waits = Vec::new();
        while let Ok(next) = meter.take_ahead(word, at(START), 1, SECOND, false) {
            word = next.value;
            waits.push(meter.wait_ns(word, at(START)) / 1_000_000);
        }
        assert_eq!(waits, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    }

    #[test]
    fn windows_begin_with_the_minute_the_day_and_the_month() {
        let end_of = |rate: &str, wall: u64| {
            let meter = window(rate);
            let word = meter.take(0, at(wall * SECOND), 1, false).unwrap();
            word.until / SECOND
        };
        // 2026-11-28T20:15:30Z
        let now = 1_795_896_930;
        assert_eq!(end_of("5/m", now), now - now % 60 + 60);
        assert_eq!(end_of("5/d", now), now - now % 86_400 + 86_400);
        // 2026-12-01T00:00:00Z, and of quarters 2027-01-01.
        assert_eq!(end_of("5/month", now), 1_796_083_200);
        assert_eq!(end_of("5/3month", now), 1_798_761_600);
        for month in 0..4000 {
            assert_eq!(month_of(first_day(month)), month);
            assert_eq!(month_of(first_day(month + 1) - 1), month);
            let days = first_day(month + 1) - first_day(month);
            let year = 1970 + month / 12;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let usual = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][(month % 12) as usize];
            assert_eq!(days, usual + u64::from(leap && month % 12 == 1), "{month}");
        }
    }

    #[test]
    fn a_clock_set_back_by_a_moment_gives_nothing_away() {
        let meter = window("5/m");
        let mut word = 0;
        let now = START - START % (60 * SECOND) + SECOND;
        assert_eq!(passed(&meter, &mut word, at(now), 10, 1), 5);
        assert_eq!(passed(&meter, &mut word, at(now - 5 * SECOND), 10, 1), 0);
        // By a day: what was used then is of no window there is.
        assert_eq!(passed(&meter, &mut word, at(now - 86_400 * SECOND), 10, 1), 5);
    }

    proptest! {
        #[test]
        fn what_is_given_back_is_there_again(taken in 1u64..50, cost in 1u64..5) {
            for meter in [bucket("10/s", Some(300)), window("300/m")] {
                let mut word = 0;
                for _ in 0..taken {
                    word = meter.take(word, at(START), 1, false).unwrap().value;
                }
                let more = meter.take(word, at(START), cost, false).unwrap().value;
                prop_assert_eq!(meter.left(meter.give_back(more, cost), at(START)), meter.left(word, at(START)));
            }
        }

        #[test]
        fn no_word_and_no_time_panics(word: u64, now in 0u64..1 << 62, cost: u64, rate in 1u64..1 << 40) {
            for text in [format!("{rate}/s"), format!("{rate}/month")] {
                for meter in [bucket(&text, None), bucket(&text, Some(1)), window(&text)] {
                    let _ = meter.take(word, at(now), cost, false);
                    let _ = meter.take_ahead(word, at(now), cost, 1 << 40, true);
                    let _ = (meter.charge(word, at(now), cost), meter.give_back(word, cost));
                    let _ = (meter.left(word, at(now)), meter.wait_ns(word, at(now)));
                }
            }
        }
    }
}
