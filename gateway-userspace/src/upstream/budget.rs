//! Retries as a share of requests: when all targets fail, retries would only double what they cannot do anyway.

use std::time::Duration;

use super::window::Window;

const OVER: Duration = Duration::from_secs(10);
/// So many are allowed whatever the share: a share of few requests is none.
const ALWAYS: f64 = 10.0;

#[derive(Debug)]
pub struct Budget {
    share: f64,
    requests: Window,
    retries: Window,
}

impl Budget {
    pub fn new(share: f64) -> Self {
        Budget { share, requests: Window::new(OVER), retries: Window::new(OVER) }
    }

    pub fn share(&self) -> f64 {
        self.share
    }

    pub fn request(&self, now_ms: u64) {
        self.requests.add(now_ms);
    }

    /// Whether one more retry is in the budget; if so, it is counted.
    pub fn retry(&self, now_ms: u64) -> bool {
        let allowed = (self.requests.sum(now_ms) as f64 * self.share).max(ALWAYS);
        let fits = (self.retries.sum(now_ms) as f64) < allowed.floor();
        if fits {
            self.retries.add(now_ms);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_a_fifth_of_requests_but_ten_are_always_allowed() {
        let budget = Budget::new(0.2);
        assert_eq!((0..30).filter(|_| budget.retry(1000)).count(), 10);
        let budget = Budget::new(0.2);
        let granted = (0..1000).filter(|i| {
            budget.request(1000 + i);
            budget.retry(1000 + i)
        });
        let granted = granted.count();
        assert!((190..=200).contains(&granted), "{granted}");
        assert!(budget.retry(20_000), "what is long ago is forgotten");
    }
}
