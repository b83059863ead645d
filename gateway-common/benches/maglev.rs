//! How long it takes to build a Maglev table of an L4 service, and how even it is: the best of 15.
//!
//! `cargo bench -p gateway-common --features user --bench maglev`

use std::time::{Duration, Instant};

use gateway_common::{hash, maglev};

const ROUNDS: usize = 15;

fn main() {
    println!("{:>8} {:>16} {:>10} {:>22}", "targets", "weights", "ms", "slots, least and most");
    for targets in [1, 10, 100, 1000] {
        for (weights, of) in [("1", 1), ("1 to 10", 10), ("1 to 1000", 1000)] {
            let endpoints: Vec<(u64, u32)> = (0..targets)
                .map(|n| {
                    let name = format!("10.0.{}.{}:443", n / 250, n % 250);
                    (hash::of_bytes(0, name.as_bytes()), 1 + n * 7919 % of)
                })
                .collect();
            let (best, table) = measure(&endpoints);
            let mut slots = vec![0u32; endpoints.len()];
            table.iter().for_each(|endpoint| slots[usize::from(*endpoint)] += 1);
            let (least, most) = (slots.iter().min(), slots.iter().max());
            let spread = format!("{} {}", least.unwrap_or(&0), most.unwrap_or(&0));
            println!("{targets:>8} {weights:>16} {:>10.2} {spread:>22}", best.as_secs_f64() * 1000.0);
        }
    }
}

fn measure(endpoints: &[(u64, u32)]) -> (Duration, Vec<u16>) {
    let mut table = vec![0; maglev::DEFAULT_SIZE];
    let once = || -> Duration {
        let began = Instant::now();
        maglev::build(std::hint::black_box(endpoints), &mut table);
        began.elapsed()
    };
    let best = std::iter::repeat_with(once).take(ROUNDS).min().unwrap_or_default();
    (best, table)
}
