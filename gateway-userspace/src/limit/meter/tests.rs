use proptest::prelude::*;

use super::{window::*, *};

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
    (0..n).filter(|_| meter.take(*word, now, cost, false).inspect(|next| *word = next.value).is_ok()).count()
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
fn in_ten_seconds_half_a_percent_more_or_less_than_allowed_passes_at_any_rate() {
    let mut random = fastrand::Rng::with_seed(3);
    for rate in [1u64, 3, 10, 97, 1000, 9_999, 100_000] {
        for burst in [1, rate, 5 * rate] {
            let meter = bucket(&format!("{rate}/s"), Some(burst));
            let (mut word, mut now, mut let_in) = (0, START, 0u64);
            // Three times as much is asked for, by chance.
            while now < START + 10 * SECOND {
                let_in += passed(&meter, &mut word, at(now), 1, 1) as u64;
                now += random.u64(1..2 * SECOND / (3 * rate));
            }
            let allowed = burst + 10 * rate;
            let off = let_in.abs_diff(allowed);
            // With room for one only, what comes a moment late is lost.
            let lost = if burst == 1 { 10 * rate / 2 } else { 0 };
            assert!(let_in <= allowed, "{rate}/s, {burst}: {let_in} of {allowed}");
            assert!(off <= 1 + allowed / 200 + lost, "{rate}/s, {burst}: {let_in} of {allowed}");
        }
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
fn windows_across_summer_time_and_a_leap_second_are_as_long_as_others() {
    let (day, amount) = (86_400, 5);
    // Clocks of Europe go forward on 2027-03-28 and back on 2026-10-25, at 01:00 UTC.
    for midnight in [1_806_192_000, 1_792_886_400] {
        assert_eq!(midnight % day, 0);
        let (meter, mut word) = (window("5/d"), 0);
        assert_eq!(passed(&meter, &mut word, at(midnight * SECOND), 9, 1), amount);
        for hour in 1..24 {
            assert_eq!(passed(&meter, &mut word, at((midnight + hour * 3600) * SECOND), 9, 1), 0, "{hour}");
        }
        assert_eq!(passed(&meter, &mut word, at((midnight + day) * SECOND), 9, 1), amount);
    }
    // 2016-12-31T23:59:60: POSIX time has the second before midnight twice, or midnight's.
    let midnight = 1_483_228_800;
    for step in [SECOND, SECOND / 2] {
        let (meter, mut word) = (window("5/m"), 0);
        let times = [
            midnight * SECOND - 1,
            midnight * SECOND + step - 1,
            midnight * SECOND - 1,
            midnight * SECOND + step,
        ];
        let let_in: Vec<usize> = times.iter().map(|now| passed(&meter, &mut word, at(*now), 9, 1)).collect();
        assert_eq!(let_in, [5, 5, 0, 0], "two minutes, once each");
    }
}

#[test]
fn steps_of_the_wall_clock_do_not_concern_buckets_and_sliding_windows() {
    let sliding = Sliding::new(5, 60 * SECOND);
    let table = Table::anonymous(1024).unwrap();
    let owner = Owner { key: 77 << 64 | 99, kind: Kind::Until, group: 1 };
    let (bucket, mut word) = (bucket("5/m", None), 0);
    let (mut of_bucket, mut of_window) = (0, 0);
    for (second, wall) in [(0, START), (1, START + 86_400 * SECOND), (2, 0), (3, START - 3600 * SECOND)] {
        let now = Now { steady: START + second * SECOND, wall };
        of_bucket += passed(&bucket, &mut word, now, 9, 1);
        for _ in 0..9 {
            let (at, part) = sliding.at(&table, &owner, now, 1);
            let took = table.update(&at, now.steady, |word, shared| part.take(word, now, 1, shared));
            of_window += usize::from(took.is_ok());
        }
    }
    assert_eq!((of_bucket, of_window), (5, 5));
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
