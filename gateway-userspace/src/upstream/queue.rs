//! Waiting for a target that has room: `pool.max` and a target's own `max` cap what is in flight on it.
//!
//! Counts and the queue are behind one lock an upstream, so the caps hold exactly over all workers. Whoever gives a place
//! back offers it to the first in the queue; one that cannot use it (a retry that has been there) offers it to the next,
//! and so does one that takes it, as long as there is room. One that leaves while it has an offer passes it on: none is lost.
//! Upstreams without caps have no queue and come by no lock.

use std::{
    collections::VecDeque,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{Active, Member, Upstream};
use crate::{
    balance::{Endpoint, Tried},
    observe::Why,
};

/// Those who wait for a target of one upstream, in the order in which they came. Outlives snapshots.
#[derive(Debug, Default)]
pub struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// By number, which only grows.
    entries: VecDeque<Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    waker: Waker,
    /// There may be room for it.
    offered: bool,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// There may be room: a request ended, or what is known of targets has changed.
    pub fn offer(&self) {
        self.lock().offer(0);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// To the first one from `place` on.
    fn offer(&mut self, place: usize) {
        if let Some(entry) = self.entries.get_mut(place) {
            entry.offered = true;
            entry.waker.wake_by_ref();
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    fn push(&mut self, waker: Waker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.entries.push_back(Entry { number, waker, offered: false });
        number
    }
}

/// What a request wants of an upstream.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub client: IpAddr,
    /// Of `hash_on`.
    pub key: Option<u64>,
    /// The identity of the target that the client's cookie names.
    pub stuck: Option<u64>,
    pub tried: Tried,
}

impl Member {
    /// Has as many requests in flight as it may.
    fn full(&self) -> bool {
        self.target.active() >= self.max
    }
}

impl Upstream {
    /// A place on a target for a request of an upstream with caps: at once, or when its turn comes.
    pub fn turn<'a>(&'a self, queue: &'a Arc<Queue>, wanted: Wanted) -> Turn<'a> {
        Turn { upstream: self, queue, wanted, number: None }
    }

    /// A place if there is one now and nobody waits for it.
    pub fn place_now(&self, queue: &Arc<Queue>, wanted: &Wanted) -> Option<(usize, Active)> {
        let waiting = queue.lock();
        let index = if waiting.entries.is_empty() { self.free(wanted) } else { None }?;
        Some((index, self.take_place(index, queue)))
    }

    /// A target with room, for what may as well be left out.
    pub fn pick_now(&self, client: IpAddr) -> Option<Active> {
        let Some(queue) = self.queue() else { return self.pick(client, &mut Tried::default()) };
        let wanted = Wanted { client, key: None, stuck: None, tried: Tried::default() };
        self.place_now(queue, &wanted).map(|(_, active)| active)
    }

    pub fn queue(&self) -> Option<&Arc<Queue>> {
        self.extras.as_ref()?.queue.as_ref()
    }

    /// A usable target with room that was not tried yet. Under the queue's lock, as whatever takes a place.
    fn free(&self, wanted: &Wanted) -> Option<usize> {
        let mut out = wanted.tried;
        for (index, _) in self.members.iter().enumerate().filter(|(_, member)| member.full()) {
            out.add(index);
        }
        let index = self.choose(wanted.client, wanted.key, wanted.stuck, out)?;
        if !self.members[index].full() {
            return Some(index);
        }
        // Past those that `Tried` can remember.
        let priority = self.members[index].priority;
        let room = |member: &Member| member.usable() && member.priority == priority && !member.full();
        self.members.iter().position(room).filter(|index| !wanted.tried.has(*index))
    }

    fn take_place(&self, index: usize, queue: &Arc<Queue>) -> Active {
        let mut active = self.take(index);
        active.queue = Some(queue.clone());
        active
    }

    /// Whether a target could take it if there were room.
    fn any_for(&self, wanted: &Wanted) -> bool {
        let panics = self.panics();
        let takes_part = |member: &Member| member.usable() || (panics && member.available());
        self.members.iter().enumerate().any(|(index, member)| takes_part(member) && !wanted.tried.has(index))
    }

    fn any_room(&self) -> bool {
        self.members.iter().any(|member| !member.full() && member.available())
    }
}

/// A request's turn: the index of a target, and the place on it. Left when dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    upstream: &'a Upstream,
    queue: &'a Arc<Queue>,
    wanted: Wanted,
    /// While it waits.
    number: Option<u64>,
}

impl Turn<'_> {
    fn arrive(&mut self, waiting: &mut Waiting, cx: &Context<'_>) -> Poll<Result<(usize, Active), Why>> {
        if waiting.entries.is_empty()
            && let Some(index) = self.upstream.free(&self.wanted)
        {
            return Poll::Ready(Ok((index, self.upstream.take_place(index, self.queue))));
        }
        if !self.upstream.any_for(&self.wanted) {
            return Poll::Ready(Err(Why::NoHealthyTarget));
        }
        if waiting.entries.len() >= self.upstream.config.pool.queue as usize {
            return Poll::Ready(Err(Why::UpstreamQueueFull));
        }
        self.number = Some(waiting.push(cx.waker().clone()));
        Poll::Pending
    }

    fn wait(
        &mut self,
        waiting: &mut Waiting,
        place: usize,
        cx: &Context<'_>,
    ) -> Poll<Result<(usize, Active), Why>> {
        let entry = &mut waiting.entries[place];
        entry.waker.clone_from(cx.waker());
        if !std::mem::take(&mut entry.offered) {
            return Poll::Pending;
        }
        if let Some(index) = self.upstream.free(&self.wanted) {
            let active = self.upstream.take_place(index, self.queue);
            self.leave(waiting, place);
            if self.upstream.any_room() {
                waiting.offer(place);
            }
            return Poll::Ready(Ok((index, active)));
        }
        if !self.upstream.any_for(&self.wanted) {
            self.leave(waiting, place);
            waiting.offer(place);
            return Poll::Ready(Err(Why::NoHealthyTarget));
        }
        if self.upstream.any_room() {
            waiting.offer(place + 1);
        }
        Poll::Pending
    }

    fn leave(&mut self, waiting: &mut Waiting, place: usize) {
        waiting.entries.remove(place);
        self.number = None;
    }
}

impl Future for Turn<'_> {
    type Output = Result<(usize, Active), Why>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let queue = self.queue.clone();
        let mut waiting = queue.lock();
        match self.number.and_then(|number| waiting.place(number)) {
            None => self.arrive(&mut waiting, cx),
            Some(place) => self.wait(&mut waiting, place, cx),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut waiting = self.queue.lock();
        if let Some(place) = waiting.place(number) {
            let offered = waiting.entries[place].offered;
            waiting.entries.remove(place);
            if offered {
                waiting.offer(place);
            }
        }
    }
}

#[cfg(test)]
mod tests;
