//! The last requests that were refused, failed or slow, for `gateway why ID`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Lines that one worker remembers.
const LINES: usize = 512;
/// Longer ones are not: memory stays bounded whatever clients send.
const LONGEST: usize = 8 << 10;

/// Every worker's own memory: nothing is shared between workers, and a reader is rare.
#[derive(Debug, Default)]
pub struct Notable(Mutex<Vec<Arc<Ring>>>);

#[derive(Debug, Default)]
pub struct Ring(Mutex<VecDeque<Vec<u8>>>);

impl Ring {
    pub fn push(&self, line: &[u8]) {
        if line.len() > LONGEST {
            return;
        }
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest one's memory is used again.
        let mut place = if lines.len() == LINES { lines.pop_front().unwrap_or_default() } else { Vec::new() };
        place.clear();
        place.extend_from_slice(line);
        lines.push_back(place);
    }
}

impl Notable {
    /// For one more worker.
    pub fn ring(&self) -> Arc<Ring> {
        let ring = Arc::new(Ring::default());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ring.clone());
        ring
    }

    /// The line of a request whose field `key` is `value`, which has nothing to escape; of several the last.
    pub fn find(&self, key: &str, value: &str) -> Option<String> {
        let wanted = format!("\"{key}\":\"{value}\"");
        self.each(|line| line.contains(&wanted)).pop()
    }

    /// Those of which `wanted` is true, the oldest of each worker first.
    pub fn each(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = Vec::new();
        for ring in rings {
            let lines = ring.0.lock().unwrap_or_else(PoisonError::into_inner);
            let texts = lines.iter().filter_map(|line| std::str::from_utf8(line).ok());
            found.extend(texts.filter(|line| wanted(line)).map(|line| line.trim_end().to_owned()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let notable = Notable::default();
        let ring = notable.ring();
        for n in 0..LINES + 3 {
            ring.push(format!("{{\"id\":\"{n}\"}}\n").as_bytes());
        }
        ring.push(&vec![b'x'; LONGEST + 1]);
        assert_eq!(notable.find("id", "2"), None);
        assert_eq!(notable.find("id", "3").as_deref(), Some("{\"id\":\"3\"}"));
        assert_eq!(notable.each(|_| true).len(), LINES);
    }
}
