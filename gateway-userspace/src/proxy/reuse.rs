//! A place for one future after another.
//!
//! hyper wants the future of each request unpinned, that is, in a box. Boxes are used again: an HTTP/1.1 connection,
//! which serves one request at a time, needs one for all of them. Tasks are put into them too: tokio moves what a task is
//! made of several times, and allocates it anew for each.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

type Slot<F> = Pin<Box<Option<F>>>;

/// Free boxes of one kind; more are given back.
const MOST_FREE: usize = 128;

/// The boxes that are free.
pub struct Reuse<F>(Rc<RefCell<Vec<Slot<F>>>>);

/// A future in a box; gives it back when it is done or dropped.
pub struct Running<F> {
    slot: Option<Slot<F>>,
    home: Rc<RefCell<Vec<Slot<F>>>>,
}

impl<F> Clone for Reuse<F> {
    fn clone(&self) -> Self {
        Reuse(self.0.clone())
    }
}

impl<F> Default for Reuse<F> {
    fn default() -> Self {
        Reuse(Rc::default())
    }
}

impl<F: Future> Reuse<F> {
    /// Gives free boxes back, but for so many.
    pub fn keep(&self, most: usize) {
        self.0.borrow_mut().truncate(most);
    }

    /// Puts `future` into a free box, or into a new one.
    pub fn run(&self, future: F) -> Running<F> {
        let slot = self.0.borrow_mut().pop();
        let mut slot = slot.unwrap_or_else(|| Box::pin(None));
        slot.as_mut().set(Some(future));
        Running { slot: Some(slot), home: self.0.clone() }
    }
}

impl<F: Future> Future for Running<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.slot.as_mut().and_then(|slot| slot.as_mut().as_pin_mut()) {
            Some(future) => future.poll(cx),
            // Dropped already; nobody polls a future after its end.
            None => Poll::Pending,
        }
    }
}

/// A future that may be done already, for which none was made then.
pub enum Perhaps<F: Future> {
    Done(Option<F::Output>),
    Running(Running<F>),
}

impl<F: Future> Perhaps<F> {
    pub fn done(output: F::Output) -> Self {
        Perhaps::Done(Some(output))
    }
}

impl<F: Future<Output: Unpin>> Future for Perhaps<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.get_mut() {
            Perhaps::Done(output) => output.take().map_or(Poll::Pending, Poll::Ready),
            Perhaps::Running(running) => Pin::new(running).poll(cx),
        }
    }
}

impl<F> Drop for Running<F> {
    fn drop(&mut self) {
        if let Some(mut slot) = self.slot.take() {
            slot.as_mut().set(None);
            let mut home = self.home.borrow_mut();
            if home.len() < MOST_FREE {
                home.push(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_used_again_and_an_unfinished_future_is_dropped() {
        let reuse = Reuse::default();
        let alive = Rc::new(());
        let of = |alive: Rc<()>| async move {
            let n = Rc::strong_count(&alive);
            std::future::pending::<()>().await;
            drop(alive);
            n
        };
        let mut first = reuse.run(of(alive.clone()));
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        assert_eq!(Rc::strong_count(&alive), 2);
        drop(first);
        assert_eq!(Rc::strong_count(&alive), 1);
        let place = std::ptr::from_ref(&*reuse.0.borrow()[0]);
        let second = reuse.run(of(alive.clone()));
        assert_eq!(second.slot.as_ref().map(|slot| std::ptr::from_ref(&**slot)), Some(place));
    }
}
