//! One fetch for many waiting clients.
//!
//! Who asks first leads: the answer goes into a [`Fill`], which all who ask meanwhile read while it grows, on whatever
//! worker they are. A leader that goes away without an answer is followed by one of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::{
    entry::{Body, Entry},
    freshness::Terms,
    sync::{Mutex, MutexGuard, lock},
    vary::Selected,
};
use crate::observe::Why;

/// How long it is remembered that a key's answers cannot be shared, so that nobody waits for the next one.
const PASS_FOR: Duration = Duration::from_secs(10);
/// Keys of which that is remembered, a shard.
const PASSES: usize = 4096;
const SHARDS: usize = 16;

/// An answer that is being stored.
#[derive(Debug)]
pub struct Draft {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub vary: Box<[Selected]>,
    pub terms: Terms,
    pub tags: Box<[Box<[u8]>]>,
    /// As the upstream says.
    pub length: Option<u64>,
}

/// What came of asking the upstream.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is on its way, or here.
    Answer(Arc<Draft>),
    /// What is stored still holds.
    Entry(Arc<Entry>),
    /// Nobody else can have it.
    Pass,
    /// There is none.
    Failed(Why),
    /// Whoever asked went away.
    Abandoned,
}

#[derive(Debug)]
pub struct Fill {
    key: Arc<[u8]>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// Those that somebody may still need.
    pieces: VecDeque<Bytes>,
    /// How many are no longer needed.
    dropped: usize,
    buffered: u64,
    /// No more comes; the reason, if it was cut.
    end: Option<Option<Why>>,
    /// More than is kept: what all have read goes.
    overflown: bool,
    waiting: Vec<Option<Waiting>>,
    readers: usize,
    pump: Option<Waker>,
}

#[derive(Debug)]
struct Waiting {
    waker: Option<Waker>,
    /// The piece that is read next. `None`: waits for the outcome.
    next: Option<usize>,
}

impl Fill {
    fn new(key: Arc<[u8]>) -> Self {
        Fill { key, state: Mutex::default() }
    }

    /// Whoever answers: tells all who wait.
    fn conclude(&self, outcome: Outcome) {
        let mut state = lock(&self.state);
        state.outcome = Some(outcome);
        state.wake();
    }

    /// Of the answer, as far as it is known.
    pub fn tags(&self) -> Box<[Box<[u8]>]> {
        match &lock(&self.state).outcome {
            Some(Outcome::Answer(draft)) => draft.tags.clone(),
            Some(Outcome::Entry(entry)) => entry.tags.clone(),
            _ => Box::default(),
        }
    }

    /// More of the body.
    pub fn push(&self, piece: Bytes) {
        let mut state = lock(&self.state);
        state.buffered += piece.len() as u64;
        state.pieces.push_back(piece);
        state.wake();
    }

    pub fn end(&self, cut: Option<Why>) {
        let mut state = lock(&self.state);
        state.end = Some(cut);
        state.wake();
    }

    /// Nobody brings more of it.
    pub fn end_if_open(&self, why: Why) {
        let mut state = lock(&self.state);
        if state.end.is_none() {
            state.end = Some(Some(why));
            state.wake();
        }
    }

    /// The whole body. `None`: it was cut, or is not kept.
    pub fn body(&self) -> Option<Body> {
        let state = lock(&self.state);
        let whole = state.end == Some(None) && !state.overflown;
        whole.then(|| Body::new(state.pieces.iter().cloned().collect()))
    }

    /// It is more than is kept: from now on there is no more of it at once than `window`.
    pub fn overflow(&self) {
        lock(&self.state).overflown = true;
    }

    /// Ready when there is room for more; false: nobody reads any more.
    pub fn poll_room(&self, window: u64, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = lock(&self.state);
        if !state.overflown {
            return Poll::Ready(true);
        }
        state.drop_read();
        if state.readers == 0 {
            return Poll::Ready(false);
        }
        if state.buffered <= window {
            return Poll::Ready(true);
        }
        state.pump = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A place to wait at: for the outcome, or (`from`) for pieces.
    fn take_place(&self, next: Option<usize>) -> usize {
        let mut state = lock(&self.state);
        state.readers += usize::from(next.is_some());
        let waiting = Some(Waiting { waker: None, next });
        match state.waiting.iter().position(Option::is_none) {
            Some(free) => {
                state.waiting[free] = waiting;
                free
            }
            None => {
                state.waiting.push(waiting);
                state.waiting.len() - 1
            }
        }
    }

    fn leave_place(&self, place: usize) {
        let mut state = lock(&self.state);
        if let Some(gone) = state.waiting.get_mut(place).and_then(Option::take) {
            state.readers -= usize::from(gone.next.is_some());
            state.wake_pump();
        }
    }
}

impl State {
    fn wake(&mut self) {
        self.waiting.iter_mut().flatten().filter_map(|waiting| waiting.waker.take()).for_each(Waker::wake);
    }

    fn wake_pump(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }

    fn drop_read(&mut self) {
        let slowest = self.waiting.iter().flatten().filter_map(|waiting| waiting.next).min();
        let upto = slowest.unwrap_or(self.dropped + self.pieces.len());
        while self.dropped < upto
            && let Some(piece) = self.pieces.pop_front()
        {
            self.buffered -= piece.len() as u64;
            self.dropped += 1;
        }
    }
}

/// Waits for the outcome.
pub struct Follower {
    pub fill: Arc<Fill>,
    place: usize,
}

impl Follower {
    pub fn new(fill: Arc<Fill>) -> Self {
        let place = fill.take_place(None);
        Follower { fill, place }
    }

    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = lock(&self.fill.state);
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        if let Some(waiting) = &mut state.waiting[self.place] {
            waiting.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// From the start. `None`: the start is gone.
    pub fn read(&self) -> Option<Reader> {
        Reader::new(self.fill.clone())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.fill.leave_place(self.place);
    }
}

/// Reads the body while it grows.
pub struct Reader {
    fill: Arc<Fill>,
    place: usize,
}

impl Reader {
    pub fn new(fill: Arc<Fill>) -> Option<Self> {
        let place = fill.take_place(Some(0));
        let reader = Reader { fill, place };
        // After it has its place, nothing of it goes.
        let whole = lock(&reader.fill.state).dropped == 0;
        whole.then_some(reader)
    }

    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Why>>> {
        let state = &mut *lock(&self.fill.state);
        let Some(waiting) = &mut state.waiting[self.place] else { return Poll::Ready(None) };
        let next = waiting.next.unwrap_or_default();
        if let Some(piece) = state.pieces.get(next - state.dropped) {
            let piece = piece.clone();
            waiting.next = Some(next + 1);
            if state.overflown {
                state.wake_pump();
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        match state.end {
            Some(None) => Poll::Ready(None),
            Some(Some(why)) => Poll::Ready(Some(Err(why))),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Nothing more comes, and all of it was read.
    pub fn ended(&self) -> bool {
        let state = lock(&self.fill.state);
        let next = state.waiting[self.place].as_ref().and_then(|waiting| waiting.next).unwrap_or_default();
        state.end == Some(None) && next == state.dropped + state.pieces.len()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.leave_place(self.place);
    }
}

/// What a request for a missing response does.
pub enum Role {
    Lead(Lead),
    Follow(Arc<Fill>),
}

/// The fetches under way.
#[derive(Debug)]
pub struct Fills(Box<[Mutex<Table>]>);

#[derive(Debug, Default)]
struct Table {
    fills: HashMap<Arc<[u8]>, Arc<Fill>>,
    passes: HashMap<Arc<[u8]>, Instant>,
}

impl Default for Fills {
    fn default() -> Self {
        Fills((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Fills {
    fn table(&self, key: &[u8]) -> MutexGuard<'_, Table> {
        let sum = key.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
        lock(&self.0[sum % SHARDS])
    }

    /// Leads, or follows who does; `instead`: that one was waited for long enough. `alone`: leads nobody.
    pub fn begin(self: &Arc<Self>, key: &Arc<[u8]>, instead: Option<&Arc<Fill>>, alone: bool) -> Role {
        let fill = Arc::new(Fill::new(key.clone()));
        let mut table = self.table(key);
        let passed = table.passes.get(key).is_some_and(|until| Instant::now() < *until);
        if !alone && !passed {
            if let Some(running) = table.fills.get(key)
                && !instead.is_some_and(|slow| Arc::ptr_eq(slow, running))
            {
                return Role::Follow(running.clone());
            }
            table.fills.insert(key.clone(), fill.clone());
        }
        Role::Lead(Lead { fills: self.clone(), fill, concluded: false, removed: false })
    }

    /// Leads, unless somebody does.
    pub fn lead(self: &Arc<Self>, key: &Arc<[u8]>) -> Option<Lead> {
        let mut table = self.table(key);
        if table.fills.contains_key(key) {
            return None;
        }
        let fill = Arc::new(Fill::new(key.clone()));
        table.fills.insert(key.clone(), fill.clone());
        Some(Lead { fills: self.clone(), fill, concluded: false, removed: false })
    }

    /// Nobody begins to follow these any more.
    pub fn forget(&self, which: impl Fn(&[u8], &Fill) -> bool) {
        for table in &self.0 {
            lock(table).fills.retain(|key, fill| !which(key, fill));
        }
    }

    fn remove(&self, fill: &Arc<Fill>, pass: bool) {
        let mut table = self.table(&fill.key);
        if table.fills.get(&fill.key).is_some_and(|found| Arc::ptr_eq(found, fill)) {
            table.fills.remove(&fill.key);
        }
        if pass {
            let now = Instant::now();
            if table.passes.len() >= PASSES {
                table.passes.retain(|_, until| *until > now);
            }
            if table.passes.len() < PASSES {
                table.passes.insert(fill.key.clone(), now + PASS_FOR);
            }
        } else if !table.passes.is_empty() {
            table.passes.remove(&fill.key);
        }
    }
}

/// The right to answer for all who follow.
pub struct Lead {
    fills: Arc<Fills>,
    pub fill: Arc<Fill>,
    concluded: bool,
    removed: bool,
}

impl Lead {
    /// The answer's head is here, and its body is on its way into the fill.
    pub fn answer(&mut self, draft: Arc<Draft>) {
        self.concluded = true;
        self.fill.conclude(Outcome::Answer(draft));
    }

    /// It is over, in another way.
    pub fn over(&mut self, outcome: Outcome) {
        self.concluded = true;
        self.removed = true;
        let pass = matches!(outcome, Outcome::Pass);
        self.fill.conclude(outcome);
        self.fills.remove(&self.fill, pass);
    }
}

impl Lead {
    /// Nobody follows from now on.
    pub fn release(&mut self) {
        if !self.removed {
            self.removed = true;
            self.fills.remove(&self.fill, true);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.removed {
            self.fills.remove(&self.fill, false);
        }
        // Last: whoever hears of it begins anew, and must not find this one again.
        if !self.concluded {
            self.fill.conclude(Outcome::Abandoned);
        }
    }
}

impl Draft {
    pub fn entry(&self, key: Arc<[u8]>, body: Body) -> Entry {
        let (vary, tags) = (self.vary.clone(), self.tags.clone());
        Entry::new(key, vary, self.status, self.headers.clone(), body, tags, self.terms)
    }
}
