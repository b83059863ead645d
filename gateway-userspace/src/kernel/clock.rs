//! Measuring the kernel's two clocks against each other, by a program that reads both.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use gateway_common::clock::{Clock, nearest_hz};

/// Nanoseconds of CLOCK_MONOTONIC, and jiffies.
type Reading = (u64, u64);

/// What jiffies are on this kernel, if they could be measured.
#[derive(Debug, Clone, Copy)]
pub struct Jiffies {
    pub hz: u64,
    pub clock: Clock,
}

/// Loads the probe and measures for 60 ms. `None`: the clock is to be read instead.
pub fn measure(ebpf: &mut Ebpf, probe: &Array<MapData, [u64; 8]>) -> Option<Jiffies> {
    let program: &mut SchedClassifier = ebpf.program_mut("probe_clock")?.try_into().ok()?;
    program.load().ok()?;
    let first = read(program, probe)?;
    std::thread::sleep(Duration::from_millis(60));
    let last = read(program, probe)?;
    let hz = nearest_hz(last.1 - first.1, last.0 - first.0)?;
    // Of two readings in one tick the earlier is nearer to when it began; so many hit its beginning well enough.
    let clock = (0..16)
        .filter_map(|_| {
            std::thread::sleep(Duration::from_micros(300));
            read(program, probe)
        })
        .map(|(now, jiffies)| Clock::measured(hz, now, jiffies))
        .min_by_key(|clock| clock.offset_ns as i64)?;
    Some(Jiffies { hz, clock })
}

/// The clock as it should be now, if it has drifted from CLOCK_MONOTONIC (which NTP steers) by more than a tick.
pub fn corrected(ebpf: &Ebpf, probe: &Array<MapData, [u64; 8]>, clock: Clock) -> Option<Clock> {
    let program: &SchedClassifier = ebpf.program("probe_clock")?.try_into().ok()?;
    let (now, jiffies) = read(program, probe)?;
    clock.corrected(now, jiffies)
}

fn read(program: &SchedClassifier, probe: &Array<MapData, [u64; 8]>) -> Option<Reading> {
    let mut options = TestRunOptions::new();
    let frame = [0u8; 64];
    options.data_in = Some(&frame);
    program.test_run(options).ok()?;
    let [now, jiffies, ..] = probe.get(&0, 0).ok()?;
    (now != 0).then_some((now, jiffies))
}
