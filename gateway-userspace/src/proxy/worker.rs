//! What one worker owns: its view of the config, its kept connections, its log buffer, its client connections.
//!
//! A worker is one thread with a runtime of its own. Nothing here is shared with other workers but the snapshot.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use arc_swap::{ArcSwap, Cache};
use bytes::{Bytes, BytesMut};
use http::HeaderValue;

use super::connection::ClientState;
use crate::{
    auth::Memory,
    limit::wall_ahead,
    observe::access_log::{Buffer, Line, Rules},
    runtime::Snapshot,
    upstream::{extras::Extras, pool::Pool},
};

/// A request id is a UUID in text.
const ID_LEN: usize = 36;

pub struct Worker {
    pub index: usize,
    pub pool: Pool,
    /// Credentials that were checked.
    pub memory: Memory,
    /// What an upstream has that does nothing of the kind, for routes that retry more than it does.
    pub plain: Extras,
    snapshot: RefCell<Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>>,
    log: RefCell<Buffer>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    clients: RefCell<Clients>,
    /// Connections of services.
    passages: Cell<usize>,
    clock: Cell<(Instant, SystemTime)>,
    wall_ahead: Cell<u64>,
    ids: RefCell<BytesMut>,
    /// The last second that an answer was dated by.
    date: RefCell<(u64, HeaderValue)>,
}

/// Client connections by slot, to reach them on drain.
#[derive(Default)]
struct Clients {
    slots: Vec<Option<Rc<ClientState>>>,
    free: Vec<usize>,
}

impl Worker {
    pub fn new(index: usize, snapshot: Arc<ArcSwap<Snapshot>>, log: Buffer) -> Self {
        Worker {
            index,
            pool: Pool::default(),
            memory: Memory::default(),
            plain: Extras::default(),
            snapshot: RefCell::new(Cache::new(snapshot)),
            log: RefCell::new(log),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            clients: RefCell::default(),
            passages: Cell::new(0),
            clock: Cell::new((Instant::now(), SystemTime::now())),
            wall_ahead: Cell::new(wall_ahead()),
            ids: RefCell::default(),
            date: RefCell::new((0, HeaderValue::from_static(""))),
        }
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow_mut().load().clone()
    }

    pub fn draining(&self) -> bool {
        self.draining.get()
    }

    /// The drain time is over: what is cut from now on is cut by us.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    pub fn stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Tells every connection to end after what it is doing.
    pub fn drain(&self) {
        self.draining.set(true);
        for client in self.clients.borrow().slots.iter().flatten() {
            client.timer.wake();
        }
    }

    /// Tells the connections of one listener to end: it was taken out of the config.
    pub fn drain_listener(&self, name: &str) {
        for client in
            self.clients.borrow().slots.iter().flatten().filter(|client| &*client.listener.name == name)
        {
            client.close_soon();
        }
    }

    pub fn clients(&self) -> usize {
        let clients = self.clients.borrow();
        clients.slots.len() - clients.free.len() + self.passages.get()
    }

    pub fn add_passage(&self) {
        self.passages.set(self.passages.get() + 1);
    }

    pub fn remove_passage(&self) {
        self.passages.set(self.passages.get() - 1);
    }

    pub fn add_client(&self, client: &Rc<ClientState>) -> usize {
        let mut clients = self.clients.borrow_mut();
        match clients.free.pop() {
            Some(slot) => {
                clients.slots[slot] = Some(client.clone());
                slot
            }
            None => {
                clients.slots.push(Some(client.clone()));
                clients.slots.len() - 1
            }
        }
    }

    pub fn remove_client(&self, slot: usize) {
        let mut clients = self.clients.borrow_mut();
        clients.slots[slot] = None;
        clients.free.push(slot);
    }

    /// Now and then: closes old kept connections, sets the wall clock right.
    pub fn tick(&self) {
        let now = Instant::now();
        self.clock.set((now, SystemTime::now()));
        self.wall_ahead.set(wall_ahead());
        self.pool.sweep(now);
    }

    /// By how much the wall clock is ahead of the limits' one; set right likewise.
    pub fn wall_ahead(&self) -> u64 {
        self.wall_ahead.get()
    }

    /// The wall clock at `instant`; set right every second or so.
    pub fn wall_clock(&self, instant: Instant) -> SystemTime {
        let (then, wall) = self.clock.get();
        wall + instant.saturating_duration_since(then)
    }

    /// `Date` of an answer (RFC 9110 section 6.6.1), made once a second.
    pub fn date(&self) -> HeaderValue {
        let now = self.wall_clock(Instant::now());
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.0 != second {
            let text = httpdate::fmt_http_date(now);
            *date = (second, HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")));
        }
        date.1.clone()
    }

    /// A new request id: UUID version 7 (RFC 9562), so that ids sort by time.
    pub fn new_id(&self, at: SystemTime) -> HeaderValue {
        let ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut random = [0u8; 10];
        random[..8].copy_from_slice(&fastrand::u64(..).to_ne_bytes());
        random[8..].copy_from_slice(&fastrand::u16(..).to_ne_bytes());
        let uuid = uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid();
        let mut ids = self.ids.borrow_mut();
        if ids.capacity() < ID_LEN {
            ids.reserve(ID_LEN * 512);
        }
        ids.extend_from_slice(uuid.hyphenated().encode_lower(&mut [0u8; ID_LEN]).as_bytes());
        let id: Bytes = ids.split().freeze();
        HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("-"))
    }

    pub fn log(&self, line: &Line<'_>) {
        self.log.borrow_mut().push(line);
    }

    /// What of a request may stand in a line.
    pub fn with_log_rules<T>(&self, f: impl FnOnce(&Rules) -> T) -> T {
        f(self.log.borrow_mut().rules())
    }

    /// Whether log lines go anywhere.
    pub fn logs(&self) -> bool {
        self.log.borrow().enabled()
    }

    pub fn flush_log(&self) {
        self.log.borrow_mut().flush();
    }
}
