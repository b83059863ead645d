//! Giving back to the system what a burst has left with the allocator, once it is quiet again.

use crate::{kernel::sys::trim_heap, observe::process};

/// Less is kept for the next burst.
const WORTH: u64 = 16 << 20;
/// Seconds of CPU a second, of all threads.
const QUIET: f64 = 0.2;

/// How it was a second ago.
#[derive(Debug, Default)]
pub struct Heap {
    cpu_seconds: f64,
    /// The least since the last time that memory was given back.
    resident: u64,
}

impl Heap {
    pub fn new() -> Self {
        let (cpu_seconds, resident) = process::cpu_and_memory();
        Heap { cpu_seconds, resident }
    }

    /// Once a second.
    pub fn tick(&mut self) {
        let (cpu_seconds, resident) = process::cpu_and_memory();
        if self.due(cpu_seconds, resident) {
            trim_heap();
            (self.cpu_seconds, self.resident) = process::cpu_and_memory();
            let given_back = resident.saturating_sub(self.resident);
            tracing::debug!(given_back, resident = self.resident, "memory given back");
        }
    }

    fn due(&mut self, cpu_seconds: f64, resident: u64) -> bool {
        let quiet = cpu_seconds - self.cpu_seconds < QUIET;
        self.cpu_seconds = cpu_seconds;
        self.resident = self.resident.min(resident);
        quiet && resident > self.resident + WORTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_a_burst_and_not_in_it() {
        let mut heap = Heap { cpu_seconds: 0.0, resident: 20 << 20 };
        assert!(!heap.due(0.9, 80 << 20), "busy");
        assert!(heap.due(1.0, 80 << 20), "quiet");
        heap.resident = 30 << 20;
        assert!(!heap.due(1.0, 31 << 20), "not worth it");
        assert!(!heap.due(1.0, 25 << 20));
        assert!(heap.due(1.0, 42 << 20), "more than the least of before");
    }
}
