//! Looking at a whole table, for people: only at stretches in which a place was ever taken, so that memory which nobody
//! uses stays unused, and of many only at some.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{SET_WORDS, Seen, TAKING, Table, WAYS, Way};

/// Sets in a stretch: 32 KiB.
const STRETCH: usize = 256;
/// Places looked at in one go: 32 MiB.
pub const MOST: usize = 1 << 20;

/// In which stretches a place was ever taken.
#[derive(Debug)]
pub(super) struct Stretches {
    taken: Box<[AtomicBool]>,
    /// Another process may take some too: the one before, which still drains.
    others: bool,
}

impl Stretches {
    /// `written`: words that are of former processes.
    pub(super) fn new(sets: usize, written: &[Range<usize>]) -> Self {
        let all: Box<[AtomicBool]> = (0..sets.div_ceil(STRETCH)).map(|_| AtomicBool::new(false)).collect();
        let stretch = |word: usize| word.saturating_sub(SET_WORDS) / SET_WORDS / STRETCH;
        for range in written.iter().filter(|range| !range.is_empty()) {
            let of = stretch(range.start)..=stretch(range.end - 1);
            all.iter()
                .enumerate()
                .filter(|(at, _)| of.contains(at))
                .for_each(|(_, one)| one.store(true, Relaxed));
        }
        Stretches { taken: all, others: !written.is_empty() }
    }

    pub(super) fn note(&self, set: u64) {
        if let Some(one) = self.taken.get(set as usize / STRETCH) {
            one.store(true, Relaxed);
        }
    }

    fn taken(&self) -> Vec<usize> {
        self.taken.iter().enumerate().filter(|(_, one)| one.load(Relaxed)).map(|(at, _)| at).collect()
    }
}

impl Table {
    /// Places that mean something at `now`, looking at about `most` at the most. Of how many each stands for: keys are
    /// spread evenly.
    pub fn for_each(&self, now: u64, most: usize, mut show: impl FnMut(Seen)) -> u64 {
        let taken = self.stretches.taken();
        let step = (taken.len() * STRETCH * WAYS).div_ceil(most.max(1)).max(1);
        for stretch in taken.into_iter().step_by(step) {
            self.in_stretch(stretch, |way| {
                if way.tag.load(Relaxed) > TAKING && !way.is_over(now) {
                    show(way.seen());
                }
            });
        }
        step as u64
    }

    /// Every place that was taken when this process began, or by it.
    pub(super) fn for_all(&self, mut what: impl FnMut(&Way<'_>)) {
        self.stretches.taken().into_iter().for_each(|stretch| self.in_stretch(stretch, &mut what));
    }

    /// … and every other that may have been.
    pub(super) fn for_any(&self, mut what: impl FnMut(&Way<'_>)) {
        match self.stretches.others {
            true => (0..self.stretches.taken.len()).for_each(|stretch| self.in_stretch(stretch, &mut what)),
            false => self.for_all(what),
        }
    }

    fn in_stretch(&self, stretch: usize, mut what: impl FnMut(&Way<'_>)) {
        let sets = stretch * STRETCH..((stretch + 1) * STRETCH).min(self.sets);
        sets.for_each(|set| self.ways(set as u64).iter().for_each(&mut what));
    }
}
