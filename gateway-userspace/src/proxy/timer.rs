//! The deadline of a client connection: one at a time, moved for free.
//!
//! A request passes through several waits (its head, its body, a connection, an answer …), each with a limit of its
//! own. Arming a runtime timer for each would cost more than the rest of the bookkeeping, so the wanted deadline is a
//! plain value, and the one runtime timer a connection has is armed only when it would fire too late, or has fired.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The next request.
    Idle,
    /// The rest of a request's head.
    Header,
    /// More of a request's body.
    RequestBody,
    /// A target with room.
    Queue,
    /// A connection to a target.
    Connect,
    /// The head of an answer.
    FirstByte,
    /// More of an answer's body.
    ResponseBody,
    /// The client to take what was written.
    Write,
    /// Nothing that has a limit (an upgraded connection).
    Nothing,
}

/// Which limit was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    Wait(Wait),
    /// The limit on the exchange as a whole.
    Total,
}

#[derive(Debug)]
pub struct Timer {
    wait: Cell<Wait>,
    deadline: Cell<Option<Instant>>,
    total: Cell<Option<Instant>>,
    interrupted: Cell<Option<(Wait, Option<Instant>)>>,
    expired: Cell<Option<Expired>>,
    sleep: RefCell<Option<Pin<Box<Sleep>>>>,
    /// The connection's task.
    task: RefCell<Option<Waker>>,
    registered: Cell<bool>,
}

impl Timer {
    pub fn new() -> Self {
        Timer {
            wait: Cell::new(Wait::Nothing),
            deadline: Cell::new(None),
            total: Cell::new(None),
            interrupted: Cell::new(None),
            expired: Cell::new(None),
            sleep: RefCell::new(None),
            task: RefCell::new(None),
            registered: Cell::new(false),
        }
    }

    pub fn waiting_for(&self) -> Wait {
        self.wait.get()
    }

    pub fn start(&self, wait: Wait, deadline: Instant) {
        self.wait.set(wait);
        self.deadline.set(Some(deadline));
        self.expired.set(None);
    }

    /// Starts `wait` unless it is under way: what it waits for keeps its first deadline.
    pub fn ensure(&self, wait: Wait, limit: Duration) {
        if self.wait.get() != wait {
            self.start(wait, Instant::now() + limit);
        }
    }

    /// Goes on to `wait`, remembering the wait that it interrupts.
    pub fn interrupt(&self, wait: Wait, limit: Duration) {
        if self.wait.get() != wait {
            self.interrupted.set(Some((self.wait.get(), self.deadline.get())));
            self.start(wait, Instant::now() + limit);
        }
    }

    /// Back to what `wait` interrupted, if it still is the current one.
    pub fn resume(&self, wait: Wait) {
        if self.wait.get() == wait
            && let Some((before, deadline)) = self.interrupted.take()
        {
            self.wait.set(before);
            self.deadline.set(deadline);
        }
    }

    /// Nothing to wait for; the total limit goes on.
    pub fn stop(&self) {
        self.wait.set(Wait::Nothing);
        self.deadline.set(None);
    }

    /// Limits the exchange as a whole.
    pub fn set_total(&self, deadline: Option<Instant>) {
        self.total.set(deadline);
    }

    /// Takes the news that a limit was passed.
    pub fn take_expired(&self) -> Option<Expired> {
        self.expired.take()
    }

    /// The limit that was passed, if nobody has taken the news yet.
    pub fn expired(&self) -> Option<Expired> {
        self.expired.get()
    }

    /// Wakes the connection's task: there is something to look at.
    pub fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Ready when a limit is passed; [`Timer::take_expired`] tells which. Called by the connection after everything
    /// else was polled, so that it sees the deadline that was set last.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.task.borrow().is_none() {
            *self.task.borrow_mut() = Some(cx.waker().clone());
        }
        let total = self.total.get();
        let Some(deadline) = self.deadline.get().into_iter().chain(total).min() else {
            return Poll::Pending;
        };
        let mut slot = self.sleep.borrow_mut();
        let sleep = slot.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        loop {
            if sleep.deadline().into_std() > deadline {
                sleep.as_mut().reset(deadline.into());
                self.registered.set(false);
            }
            // A task's waker does not change, so once it is registered there is nothing to do until the timer fires.
            if self.registered.get() && !sleep.is_elapsed() {
                return Poll::Pending;
            }
            if sleep.as_mut().poll(cx).is_pending() {
                self.registered.set(true);
                return Poll::Pending;
            }
            self.registered.set(false);
            if sleep.deadline().into_std() >= deadline {
                break;
            }
            // It was armed for an earlier wait that has long ended.
            sleep.as_mut().reset(deadline.into());
        }
        // So that it can fire again.
        sleep.as_mut().reset((Instant::now() + Duration::from_secs(3600)).into());
        if total.is_some_and(|total| total <= deadline) {
            self.total.set(None);
            self.expired.set(Some(Expired::Total));
        } else {
            self.deadline.set(None);
            self.expired.set(Some(Expired::Wait(self.wait.get())));
        }
        Poll::Ready(())
    }

    /// `future`, cut when a limit is passed meanwhile.
    pub async fn bound<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match self.take_expired() {
                Some(expired) => Poll::Ready(Err(expired)),
                None => Poll::Pending,
            }
        })
        .await
    }
}
