//! Copies of requests to a shadow: sent by tasks of their own, after the client's request, on the worker's connections.
//!
//! Whatever the shadow does, no client waits for it and none sees it. What is kept for it is bounded: so many copies,
//! so many bytes of a body, so much time.

use std::{future::poll_fn, rc::Rc, time::Instant};

use bytes::Bytes;

use super::{RequestBody, watched::Side, worker::Worker};
use crate::{
    policy::mirror::Place,
    upstream::{Active, Upstream, http1::Outgoing, link::Link},
};

/// An answer with more is not read to its end, and its connection is closed.
const MOST: usize = 1 << 20;

/// A request that goes to a shadow as soon as it is whole.
pub struct Copy {
    pub worker: Rc<Worker>,
    pub upstream: std::sync::Arc<Upstream>,
    pub request: Outgoing,
    pub client: std::net::IpAddr,
    /// The PROXY header that its connection begins with.
    pub header: Option<Vec<u8>>,
    pub place: Place,
    /// Its answer is compared.
    pub side: Option<Side>,
}

impl Copy {
    /// `body`: `None` if there is none.
    pub fn send(mut self, body: Option<Bytes>) {
        tokio::task::spawn_local(async move {
            let timeout = &self.upstream.config.timeout;
            let limit = timeout.total.unwrap_or(timeout.connect + timeout.first_byte + timeout.idle);
            // Its end, by whatever cause, frees the place.
            let mut side = self.side.take();
            let _ = tokio::time::timeout(limit, self.exchange(body, &mut side)).await;
        });
    }

    /// `None` when it came to nothing.
    async fn exchange(&self, body: Option<Bytes>, side: &mut Option<Side>) -> Option<()> {
        let active = self.upstream.pick_now(self.client)?;
        let kept = match self.header {
            None => self.worker.pool.take(active.target()),
            Some(_) => None,
        };
        if let Some(mut connection) = kept
            && self.on(&mut connection, &active, body.clone(), side).await.is_some()
        {
            self.keep(connection);
            return Some(());
        }
        // A kept connection may be closed at any time, and nobody is hurt by a copy that comes twice.
        let header = self.header.as_deref();
        let fresh = Box::pin(Link::open(
            &self.upstream,
            active.target(),
            header,
            &self.worker.pool,
            self.worker.index,
        ));
        let mut connection = Box::new(fresh.await.ok()?);
        self.on(&mut connection, &active, body, side).await?;
        self.keep(connection);
        Some(())
    }

    async fn on(
        &self,
        connection: &mut Link,
        active: &Active,
        body: Option<Bytes>,
        side: &mut Option<Side>,
    ) -> Option<()> {
        let body = body.map_or(RequestBody::Empty, RequestBody::kept);
        let head = connection.request(&self.request, body, || None::<()>, |_| {}).await.ok()?.ok()?;
        active.target().stats.shards.of(self.worker.index).count(head.status);
        if let Some(side) = side {
            side.seen = Some(side.compare().see(head.status, &head.headers));
        }
        let mut read = 0;
        while let Some(frame) = poll_fn(|cx| connection.poll_body(cx)).await {
            let frame = frame.ok()?;
            let data = frame.data_ref().map_or(&[][..], |data| data);
            read += data.len();
            if let Some(side) = side {
                side.add(data);
            }
            if read > MOST {
                break;
            }
        }
        if let Some(side) = side {
            side.whole = true;
        }
        Some(())
    }

    fn keep(&self, mut connection: Box<Link>) {
        if connection.settle() {
            let pool = &self.upstream.config.pool;
            self.worker.pool.put(connection, pool.idle, pool.idle_for, Instant::now());
        }
    }
}

/// A body that is kept while it passes.
pub struct Kept {
    copy: Copy,
    bytes: Vec<u8>,
    most: usize,
}

impl Kept {
    pub fn new(copy: Copy, most: usize) -> Self {
        Kept { copy, bytes: Vec::new(), most }
    }

    /// Another piece; `None` when it is too much, and there is no copy.
    pub fn add(mut self: Box<Self>, data: &[u8]) -> Option<Box<Self>> {
        if self.bytes.len() + data.len() > self.most {
            return None;
        }
        self.bytes.extend_from_slice(data);
        Some(self)
    }

    pub fn whole(self) {
        self.copy.send(Some(self.bytes.into()));
    }
}
