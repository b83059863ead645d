//! What the tests of the kernel half share: configs, frames, and saying why a test cannot run here.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it, and tests may panic")]

pub mod frames;
pub mod lab;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use gateway::{
    config::{
        model::{Bucket, Kernel, KernelBlock, KernelLimit, KernelMode, LimitMode, Steer},
        units::{Prefix, Rate},
    },
    kernel::{self, CheckState, KernelPlane},
};
use gateway_common::verdict::Reason;

/// A kernel half without interfaces, limits or lists, that pins nothing.
pub fn config() -> Kernel {
    Kernel {
        interfaces: Vec::new(),
        mode: KernelMode::Auto,
        steer: Steer::Off,
        required: false,
        pin: PathBuf::from("/proc/nowhere"),
        limit: KernelLimit {
            packets: None,
            new: None,
            bytes: None,
            mode: LimitMode::Hard,
            exempt: Vec::new(),
            ipv6_prefix: 64,
        },
        classes: BTreeMap::new(),
        flows: 16_384,
        syn_cookies: None,
        adapt: None,
        block: KernelBlock { cidrs: Vec::new(), prefixes: Vec::new(), except: Vec::new(), files: Vec::new() },
    }
}

pub fn bucket(per_second: f64, burst: u64) -> Option<Bucket> {
    Some(Bucket { rate: Rate { per_second }, burst })
}

pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|_| panic!("{text} is no prefix"))
}

pub fn prefixes(list: &[&str]) -> Vec<Prefix> {
    list.iter().map(|text| prefix(text)).collect()
}

/// The kernel half of a config, attached to nothing.
pub fn plane(cfg: &Kernel) -> KernelPlane {
    KernelPlane::start_detached(cfg).unwrap_or_else(|error| panic!("{error}"))
}

/// The reason the loaded program gives for a frame.
pub fn verdict(plane: &KernelPlane, frame: &[u8]) -> Reason {
    let id = run(plane, "probe_verdict", frame, 1);
    u8::try_from(id).ok().and_then(Reason::from_id).unwrap_or_else(|| panic!("no reason has the id {id}"))
}

/// Hands a frame to one of the programs; what it returns.
pub fn run(plane: &KernelPlane, program: &'static str, frame: &[u8], times: u32) -> u32 {
    let done = plane.runner(program).and_then(|runner| runner.run(frame, times));
    done.unwrap_or_else(|error| panic!("{error}")).0
}

/// Hands a frame to `xdp_gateway`.
pub fn send(plane: &KernelPlane, frame: &[u8], times: u32) {
    run(plane, "xdp_gateway", frame, times);
}

/// Packets counted with a reason, on all interfaces.
pub fn count(plane: &KernelPlane, reason: Reason) -> u64 {
    plane.counters().iter().filter(|row| row.reason == reason.name()).map(|row| row.packets).sum()
}

/// What a flood met.
pub struct Flood {
    pub passed: u64,
    pub took: Duration,
    /// The longest time in which nothing was sent.
    pub pause: Duration,
}

/// Sends `frame` as fast as one CPU can for about `time`.
pub fn flood(plane: &KernelPlane, frame: &[u8], time: Duration) -> Flood {
    let runner = plane.runner("xdp_gateway").unwrap_or_else(|error| panic!("{error}"));
    let passed = || count(plane, Reason::Ok) + count(plane, Reason::OkShared);
    let before = passed();
    let began = std::time::Instant::now();
    let (mut last, mut pause) = (began, Duration::ZERO);
    while began.elapsed() < time {
        runner.run(frame, 5000).unwrap_or_else(|error| panic!("{error}"));
        pause = pause.max(last.elapsed());
        last = std::time::Instant::now();
    }
    Flood { passed: passed() - before, took: began.elapsed(), pause }
}

/// The kernel half on a veth of its own. There its program stays known to the kernel's XDP dispatcher, and test runs
/// follow each other without a pause; otherwise each begins and ends with some milliseconds in which buckets fill.
pub fn attached<T: Send>(cfg: &Kernel, test: impl FnOnce(&KernelPlane) -> T + Send) -> T {
    lab::inside(|lab| {
        // The peer has nothing to say on its own: what passes is counted.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        lab.veth("gw0", "gw1");
        let cfg = Kernel { interfaces: vec!["gw0".into()], pin: lab.pin(), ..cfg.clone() };
        let plane = KernelPlane::start(&cfg).unwrap();
        assert_eq!(plane.status().interfaces[0].mode, "native", "{:?}", plane.status());
        let result = test(&plane);
        plane.stop();
        result
    })
}

/// What one source gets of its packet bucket when `cpus` CPUs send as fast as they can, 1 being exactly what it
/// allows. Done again while the scheduler stops the flood for so long that the full bucket overflows, which is not
/// the bucket's fault; the time is that of the longest stop.
pub fn accuracy(cfg: &Kernel, cpus: usize, time: Duration) -> (f64, Duration) {
    let limit = cfg.limit.packets.unwrap();
    let depth = Duration::from_secs_f64(limit.burst as f64 / limit.rate.per_second);
    let once = || {
        attached(cfg, |plane| {
            let began = std::time::Instant::now();
            let passed = || count(plane, Reason::Ok) + count(plane, Reason::OkShared);
            let before = passed();
            let pause = std::thread::scope(|scope| {
                let flood = |cpu| {
                    scope.spawn(move || {
                        pin_to(cpu);
                        flood(plane, &frames::udp_from([192, 0, 2, 1]), time).pause
                    })
                };
                let floods: Vec<_> = (0..cpus).map(flood).collect();
                // While one is stopped another goes on.
                floods.into_iter().filter_map(|flood| flood.join().ok()).min().unwrap_or(time)
            });
            let allowed = limit.burst as f64 + limit.rate.per_second * began.elapsed().as_secs_f64();
            ((passed() - before) as f64 / allowed, pause)
        })
    };
    let mut best = once();
    for _ in 0..4 {
        if best.1 < depth.mul_f64(0.7) {
            break;
        }
        let next = once();
        if next.1 < best.1 {
            best = next;
        }
    }
    best
}

/// Waits until no other test that measures runs, in any process: see `tests/src/lock.rs`.
#[must_use]
pub fn alone() -> std::fs::File {
    let file = std::fs::File::create(std::env::temp_dir().join("gateway-lab.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// Keeps this thread on one CPU.
pub fn pin_to(cpu: usize) {
    // SAFETY: a zeroed set is an empty one; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Why the kernel half cannot be tested here.
pub fn unavailable() -> Option<String> {
    let failed = kernel::doctor(&[]).into_iter().find(|check| check.state == CheckState::Fail)?;
    Some(format!("{}: {}", failed.name, failed.detail))
}

/// Says on stderr, and in the file that `GATEWAY_TEST_SKIPS` names, that a test did not run.
pub fn skip(why: &str) {
    use std::io::Write as _;
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a kernel test").to_owned();
    eprintln!("skipped: {test}: {why}");
    if let Some(path) = std::env::var_os("GATEWAY_TEST_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // The notice above is what counts.
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}

/// Returns from a test, saying so, where BPF programs cannot be loaded.
#[macro_export]
macro_rules! needs_bpf {
    () => {
        if let Some(why) = $crate::kernel_support::unavailable() {
            $crate::kernel_support::skip(&why);
            return;
        }
    };
}
