//! Both halves side by side: the same packets, the same tables before and after.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use gateway::{config::model::Config, kernel::TargetState};
use gateway_common::{
    forward::Outcome,
    verdict::{Action, Reason},
};

use crate::{kernel::Kernel, kernel_support::lab::Lab, model::Model, network, sums};

/// How far the kernel's clock, which may be made from jiffies, can be from ours.
const CLOCKS: u64 = 20_000_000;

pub struct World {
    pub kernel: Kernel,
    pub model: Model,
    /// Packets of which only the tables could be taken over, because a second began meanwhile.
    pub skipped: usize,
    sent: usize,
    counted: std::collections::BTreeMap<u16, [u64; 3]>,
}

impl World {
    pub fn start(lab: &Lab, flows: u32) -> Self {
        let kernel = Kernel::start(lab, flows);
        let model = Model { seed: kernel.seed(), ifindexes: network::ifindexes(), ..Model::default() };
        Self { kernel, model, skipped: 0, sent: 0, counted: Default::default() }
    }

    /// Gives the kernel services, and the model what became of them.
    pub fn set(&mut self, config: &Config, state: impl FnMut(&str, SocketAddr) -> TargetState) {
        network::set(&self.kernel.plane, config, state);
        self.model.written = self.kernel.written();
        self.take_over();
        self.counted = self.kernel.counts();
        self.model.counts.borrow_mut().clear();
        self.skipped = 0;
    }

    fn take_over(&mut self) {
        (self.model.flows, self.model.replies) = (self.kernel.flows.copy(), self.kernel.replies.copy());
    }

    /// Hands a packet to both: the outcome and the packet as it leaves, once they agree on it.
    pub fn check(&mut self, frame: &[u8], what: &str) -> (Outcome, Vec<u8>) {
        self.sent += 1;
        self.model.second = steady();
        let ifindex = self.model.ifindexes.0;
        let plain = self.sent.is_multiple_of(4);
        let runner = if plain { &self.kernel.gateway } else { &self.kernel.explain };
        let (said, kernel) =
            runner.run_packet(frame, ifindex).unwrap_or_else(|error| panic!("{what}: {error}"));
        let over = (monotonic() + CLOCKS) >> 30 != self.model.second;
        let mut host = frame.to_vec();
        let outcome = self.model.judge(&mut host);
        if over {
            self.skipped += 1;
            self.take_over();
            return (outcome, host);
        }
        let expected = if plain { action(outcome) } else { word(outcome) };
        assert_eq!(said, expected, "{what}: host {outcome:?}, kernel {}: {}", told(said), hex(frame));
        assert!(
            kernel == host,
            "{what}, {outcome:?}: {}\nhost   {}\nkernel {}",
            hex(frame),
            hex(&host),
            hex(&kernel)
        );
        if sums::right(frame) == Some(true) {
            assert_eq!(sums::right(&host), Some(true), "{what}, {outcome:?}: {}\n{}", hex(frame), hex(&host));
        }
        (outcome, host)
    }

    /// That both have the same connections.
    pub fn compare_tables(&self, what: &str) {
        assert!(self.kernel.flows.is(&self.model.flows), "{what}: the tables of connections");
        assert!(self.kernel.replies.is(&self.model.replies), "{what}: the tables of replies");
    }

    /// That both counted the same since `set`: false where that cannot be told.
    pub fn compare_counts(&self) -> bool {
        if self.skipped > 0 {
            return false;
        }
        let model = self.model.counts.borrow();
        for (target, now) in self.kernel.counts() {
            let before = self.counted[&target];
            let counted = [0, 1, 2].map(|at| now[at] - before[at]);
            assert_eq!(counted, model.get(&target).copied().unwrap_or_default(), "target {target}");
        }
        true
    }

    /// Lets every connection be `seconds` older.
    pub fn age(&mut self, seconds: u64) {
        for (table, words) in [(&self.kernel.flows, 2), (&self.kernel.replies, 4)] {
            let old: Vec<u64> = table.words().collect();
            for (entry, values) in old.chunks(words).enumerate().filter(|(_, values)| values[0] != 0) {
                let flow = values[words - 1];
                let time = (flow >> 8).wrapping_sub(seconds) & 0xff_ffff;
                table.set(entry * words + words - 1, flow & !(0xff_ffff << 8) | time << 8);
            }
        }
        self.take_over();
    }

    /// Forgets every connection.
    pub fn forget(&mut self) {
        for table in [&self.kernel.flows, &self.kernel.replies] {
            let words = table.words().count();
            (0..words).for_each(|at| table.set(at, 0));
        }
        self.take_over();
    }

    /// Connections that are known.
    pub fn connections(&self) -> usize {
        self.model.flows.0.iter().step_by(2).map(Cell::get).filter(|key| *key != 0).count()
    }
}

/// The second of connections' times, once it will last for a while.
fn steady() -> u64 {
    loop {
        let now = monotonic();
        let second = (now - CLOCKS) >> 30;
        if second == (now + 2 * CLOCKS) >> 30 {
            return second;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn monotonic() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// What `probe_explain` returns.
fn word(outcome: Outcome) -> u32 {
    u32::from(outcome.reason.id()) | outcome.ifindex << 8
}

/// What `xdp_gateway` returns, as <linux/bpf.h> numbers it.
fn action(outcome: Outcome) -> u32 {
    match outcome.reason.action() {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Tx => 3,
        Action::Forward if outcome.ifindex == 0 => 3,
        Action::Forward => 4,
    }
}

fn told(word: u32) -> String {
    format!("{} {:?}", word >> 8, Reason::from_id(word as u8))
}

pub fn hex(bytes: &[u8]) -> String {
    let shown: Vec<u8> = bytes.iter().copied().take(200).collect();
    shown.iter().map(|byte| format!("{byte:02x}")).collect()
}
