//! A worker's HTTP/2 connections, by target: few, each for many requests.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Connection, Stream};
use crate::{
    config::model::UpstreamProtocol,
    observe::stats::Connect,
    tls::Shaken,
    upstream::{
        Target, Upstream,
        link::{self, ConnectError, multiplex},
    },
};

/// Requests that wait for one connection of a target that is not known yet: as many as most take at once (RFC 9113
/// section 6.5.2).
const WAITING: usize = 100;

/// Indexed by the targets' slots.
#[derive(Default)]
pub struct Pool(RefCell<Vec<Slot>>);

#[derive(Default)]
struct Slot {
    open: Vec<Kept>,
    dials: Vec<Rc<Dial>>,
    /// It chose HTTP/2 when it had the choice.
    speaks: Cell<bool>,
    /// Requests at once that it took on its last connection.
    takes: Cell<Option<usize>>,
}

struct Kept {
    connection: Connection,
    idle_for: Duration,
}

/// A connection in the making.
struct Dial {
    waiting: Cell<usize>,
    /// Its handshake, if it has one.
    result: watch::Receiver<Option<Result<Option<Shaken>, ConnectError>>>,
}

impl Pool {
    fn with<T>(&self, target: &Target, f: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = self.0.borrow_mut();
        if slots.len() <= target.slot {
            slots.resize_with(target.slot + 1, Slot::default);
        }
        f(&mut slots[target.slot])
    }

    /// A stream on a connection that has room.
    pub fn stream(&self, target: &Target) -> Option<Stream> {
        self.with(target, |slot| {
            slot.open.retain(|kept| kept.connection.open());
            slot.takes.set(slot.open.last().map(|kept| kept.connection.takes()).or(slot.takes.get()));
            let kept = slot.open.iter().find(|kept| kept.connection.has_room())?;
            Some(Stream::new(&kept.connection))
        })
    }

    /// Takes a new connection in; its first stream.
    pub fn add(&self, target: &Target, connection: Connection, idle_for: Duration) -> Stream {
        let first = Stream::new(&connection);
        self.with(target, |slot| {
            slot.speaks.set(true);
            slot.open.push(Kept { connection, idle_for });
        });
        first
    }

    /// Whether a target that has the choice is known to choose HTTP/2.
    pub fn speaks(&self, target: &Target) -> bool {
        self.with(target, |slot| slot.speaks.get())
    }

    pub fn forget(&self, target: &Target) {
        self.with(target, |slot| slot.speaks.set(false));
    }

    /// A stream, on a new connection if there is none with room. Requests that come meanwhile wait for the same one.
    /// The caller bounds the time. Also: the handshake, of whom the connection was made for.
    pub async fn connect(
        self: &Rc<Self>,
        upstream: &Upstream,
        target: &Arc<Target>,
        worker: usize,
    ) -> Result<(Stream, Option<Shaken>), ConnectError> {
        let mut own = None;
        loop {
            if let Some(stream) = self.stream(target) {
                return Ok((stream, own));
            }
            let dial = self.with(target, |slot| {
                let room = slot.takes.get().unwrap_or(WAITING).max(1);
                let waits = |dial: &&Rc<Dial>| dial.waiting.get() < room;
                slot.dials.iter().find(waits).cloned()
            });
            let first = dial.is_none();
            let dial = dial.unwrap_or_else(|| self.dial(upstream, target, worker));
            dial.waiting.set(dial.waiting.get() + 1);
            let mut result = dial.result.clone();
            // An end without a word is the worker's.
            let _ = result.wait_for(Option::is_some).await;
            let result = result.borrow().clone();
            match result {
                Some(Ok(shaken)) => own = shaken.filter(|_| first).or(own),
                Some(Err(error)) => return Err(error),
                None => return Err(ConnectError::gone()),
            }
        }
    }

    fn dial(self: &Rc<Self>, upstream: &Upstream, target: &Arc<Target>, worker: usize) -> Rc<Dial> {
        let (tell, result) = watch::channel(None);
        let dial = Rc::new(Dial { waiting: Cell::new(0), result });
        self.with(target, |slot| slot.dials.push(dial.clone()));
        let (pool, target, of, tls) = (self.clone(), target.clone(), dial.clone(), upstream.tls.clone());
        let config = &upstream.config;
        let (limit, idle_for) = (config.timeout.connect, config.pool.idle_for);
        let stats = upstream.stats.clone();
        tokio::task::spawn_local(async move {
            let making = async {
                let (raw, _) = link::dial(target.addr, None, tls.as_deref(), UpstreamProtocol::Http2).await?;
                let shaken = raw.shaken();
                Ok((multiplex(raw, target.clone(), worker).await?, shaken))
            };
            let made = tokio::time::timeout(limit, making).await.unwrap_or(Err(ConnectError::Timeout));
            let result = made.as_ref().err().map_or(Connect::Ok, ConnectError::result);
            stats.shards.of(worker).connect(result);
            pool.with(&target, |slot| slot.dials.retain(|other| !Rc::ptr_eq(other, &of)));
            let result = made.map(|(connection, shaken)| {
                drop(pool.add(&target, connection, idle_for));
                shaken
            });
            if result.is_err() {
                pool.forget(&target);
            }
            // Nobody may be waiting any more.
            let _ = tell.send(Some(result));
        });
        dial
    }

    /// Lets go of connections that have been idle for too long, that have ended, or whose target is no longer
    /// configured. Called every second or so.
    pub fn sweep(&self, now: Instant) {
        for slot in self.0.borrow_mut().iter_mut() {
            slot.open.retain(|Kept { connection, idle_for }| {
                let idle = connection.idle_since().is_some_and(|since| now.duration_since(since) > *idle_for);
                !idle && !connection.shared.gauge.target().retired() && connection.open()
            });
        }
    }
}
