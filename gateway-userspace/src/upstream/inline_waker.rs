//! A waker for a future that is polled inside another task, over and over, by that task.
//!
//! An upstream connection is no task of its own: the request that uses it polls it. Its parts (channels between
//! hyper's halves) wake each other while they are being polled; passing that on would schedule the task once more for
//! nothing. So a wake that comes during the poll only asks for another round of the same poll, and a wake from outside
//! (the socket) goes to the task that polled last.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Rounds after which other tasks get their turn.
const MAX_ROUNDS: usize = 32;

struct Inner {
    polling: AtomicBool,
    again: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.polling.load(Relaxed) {
            self.again.store(true, Relaxed);
        } else if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

pub struct InlineWaker {
    inner: Arc<Inner>,
    waker: Waker,
    /// The same as `inner.task`, to compare without its lock.
    last: Option<Waker>,
}

impl InlineWaker {
    pub fn new() -> Self {
        let inner = Arc::new(Inner {
            polling: AtomicBool::new(false),
            again: AtomicBool::new(false),
            task: Mutex::new(None),
        });
        InlineWaker { waker: Waker::from(inner.clone()), inner, last: None }
    }

    /// Calls `round` until it is ready or nothing woke during it.
    pub fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut round: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.remember(cx.waker());
        let mut inner_cx = Context::from_waker(&self.waker);
        self.inner.polling.store(true, Relaxed);
        let mut result = Poll::Pending;
        for _ in 0..MAX_ROUNDS {
            self.inner.again.store(false, Relaxed);
            result = round(&mut inner_cx);
            if result.is_ready() || !self.inner.again.load(Relaxed) {
                break;
            }
        }
        self.inner.polling.store(false, Relaxed);
        if result.is_pending() && self.inner.again.load(Relaxed) {
            cx.waker().wake_by_ref();
        }
        result
    }

    fn remember(&mut self, waker: &Waker) {
        if !self.last.as_ref().is_some_and(|last| last.will_wake(waker)) {
            self.last = Some(waker.clone());
            *self.inner.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(std::sync::atomic::AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_wake_during_the_poll_polls_again_and_one_from_outside_wakes_the_task() {
        let counter = Arc::new(Counter(Default::default()));
        let task = Waker::from(counter.clone());
        let mut inline = InlineWaker::new();
        let mut rounds = 0;
        let mut kept = None;
        let result = inline.poll(&mut Context::from_waker(&task), |cx| {
            rounds += 1;
            kept = Some(cx.waker().clone());
            if rounds < 3 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(result.is_pending());
        assert_eq!(rounds, 3);
        assert_eq!(counter.0.load(Relaxed), 0);
        kept.unwrap().wake();
        assert_eq!(counter.0.load(Relaxed), 1);
    }

    #[test]
    fn an_endless_round_yields_to_other_tasks() {
        let counter = Arc::new(Counter(Default::default()));
        let task = Waker::from(counter.clone());
        let result = InlineWaker::new().poll(&mut Context::from_waker(&task), |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(result.is_pending());
        assert_eq!(counter.0.load(Relaxed), 1);
    }
}
