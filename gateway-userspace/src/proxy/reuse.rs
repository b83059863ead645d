//! A place for one future after another.
//!
//! hyper wants the future of each request unpinned, that is, in a box. A connection serves one request at a time, so
//! one box does for all of them.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

type Slot<F> = Pin<Box<Option<F>>>;

/// The box while it is free.
pub struct Reuse<F>(Rc<Cell<Option<Slot<F>>>>);

/// A future in the box; gives it back when it is done or dropped.
pub struct Running<F> {
    slot: Option<Slot<F>>,
    home: Rc<Cell<Option<Slot<F>>>>,
}

impl<F: Future> Reuse<F> {
    pub fn new() -> Self {
        Reuse(Rc::new(Cell::new(None)))
    }

    /// Puts `future` into the box, or into a new one if it is in use.
    pub fn run(&self, future: F) -> Running<F> {
        let mut slot = self.0.take().unwrap_or_else(|| Box::pin(None));
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

impl<F> Drop for Running<F> {
    fn drop(&mut self) {
        if let Some(mut slot) = self.slot.take() {
            slot.as_mut().set(None);
            self.home.set(Some(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_used_again_and_an_unfinished_future_is_dropped() {
        let reuse = Reuse::new();
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
        let free = reuse.0.take().expect("the box is back");
        let place = std::ptr::from_ref(&*free);
        reuse.0.set(Some(free));
        let second = reuse.run(of(alive.clone()));
        assert_eq!(second.slot.as_ref().map(|slot| std::ptr::from_ref(&**slot)), Some(place));
    }
}
