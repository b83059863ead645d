//! Where a dynamic limit is now: set by the control thread, read by every decision.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::controller::{Controller, Health};

#[derive(Debug)]
pub struct Dial {
    /// Units a second, or requests at once; the bits of an `f64`.
    value: AtomicU64,
    most: f64,
    controller: Mutex<Controller>,
}

impl Dial {
    pub fn new(controller: Controller, most: f64) -> Self {
        Dial { value: AtomicU64::new(controller.value().to_bits()), most, controller: Mutex::new(controller) }
    }

    /// Goes on where another one is.
    pub fn resumed(controller: Controller, most: f64, before: &Dial) -> Self {
        Dial::new(controller.resume(before.value()), most)
    }

    pub fn needs_answers(&self) -> bool {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner).needs_answers()
    }

    pub fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Relaxed))
    }

    /// The share of the most, above 0 and at most 1.
    pub fn share(&self) -> f64 {
        (self.value() / self.most).clamp(1e-6, 1.0)
    }

    pub fn tick(&self, health: &Health) -> f64 {
        let mut controller = self.controller.lock().unwrap_or_else(PoisonError::into_inner);
        let value = controller.tick(health);
        self.value.store(value.to_bits(), Relaxed);
        value
    }
}
