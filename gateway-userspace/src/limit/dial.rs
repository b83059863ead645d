//! Where a dynamic limit is now: set by the control thread, read by every decision.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    controller::{Controller, Health},
    fair::Level,
};
use crate::sync::lock;

/// Of what is limited at once: nobody asks for more a second.
const UNBOUNDED: f64 = 1e6;

#[derive(Debug)]
pub struct Dial {
    /// Units a second, or requests at once; the bits of an `f64`.
    value: AtomicU64,
    most: f64,
    /// An even share of it, in units a second.
    level: AtomicU64,
    turned: Mutex<(Controller, Level)>,
}

impl Dial {
    pub fn new(controller: Controller, most: f64) -> Self {
        let level = Dial::whole(&controller, most);
        Dial::of(controller, most, level)
    }

    /// A share of all there can be.
    fn whole(controller: &Controller, most: f64) -> Level {
        Level::new(if controller.counts_rate() { most } else { UNBOUNDED })
    }

    fn of(controller: Controller, most: f64, level: Level) -> Self {
        Dial {
            value: AtomicU64::new(controller.value().to_bits()),
            most,
            level: AtomicU64::new(level.value().to_bits()),
            turned: Mutex::new((controller, level)),
        }
    }

    /// Goes on where another one is.
    pub fn resumed(controller: Controller, most: f64, before: &Dial) -> Self {
        let level = Dial::whole(&controller, most).resume(before.level());
        Dial::of(controller.resume(before.value()), most, level)
    }

    pub fn needs_answers(&self) -> bool {
        lock(&self.turned).0.needs_answers()
    }

    pub fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Relaxed))
    }

    /// The share of the most, above 0 and at most 1.
    pub fn share(&self) -> f64 {
        (self.value() / self.most).clamp(1e-6, 1.0)
    }

    pub fn level(&self) -> f64 {
        f64::from_bits(self.level.load(Relaxed))
    }

    /// An even share, of the most.
    pub fn level_share(&self) -> f64 {
        (self.level() / self.most).clamp(1e-9, 1.0)
    }

    pub fn tick(&self, health: &Health) -> f64 {
        let mut turned = lock(&self.turned);
        let (controller, level) = &mut *turned;
        let value = controller.tick(health);
        self.value.store(value.to_bits(), Relaxed);
        let share = level.tick(health, controller.counts_rate().then_some(value));
        self.level.store(share.to_bits(), Relaxed);
        value
    }
}
