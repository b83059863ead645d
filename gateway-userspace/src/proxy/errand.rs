//! A request of the gateway's own: sent by a task of the worker on its connections, while no client waits for it.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;

use super::{RequestBody, exchange::Exchange, forward::Answer, worker::Worker};
use crate::upstream::{Active, Upstream, http1::Outgoing, http1::Switch, link::Link};

pub struct Errand {
    pub worker: Rc<Worker>,
    pub upstream: Arc<Upstream>,
    pub request: Outgoing,
    /// For whom.
    client: IpAddr,
    /// The PROXY header that its connection begins with.
    header: Option<Vec<u8>>,
}

impl Errand {
    /// In place of the exchange's client, or beside it.
    pub fn new(exchange: &Exchange, upstream: &Arc<Upstream>, request: Outgoing) -> Self {
        let state = &exchange.state;
        Errand {
            worker: state.worker.clone(),
            upstream: upstream.clone(),
            request,
            client: state.client().addr,
            header: upstream.config.proxy_protocol.map(|version| state.client().proxy_header(version)),
        }
    }

    /// What it may take.
    pub fn limit(&self) -> Duration {
        let timeout = &self.upstream.config.timeout;
        timeout.total.unwrap_or(timeout.connect + timeout.first_byte + timeout.idle)
    }

    /// The answer. `None`: it came to nothing. `body`: `None` if there is none.
    pub async fn ask(&self, body: Option<Bytes>) -> Option<Answer> {
        let active = self.upstream.pick_now(self.client)?;
        let kept = match self.header {
            None => self.worker.pool.take(active.target()),
            Some(_) => None,
        };
        // A kept connection may be closed at any time, and nobody is hurt by a request that comes twice.
        if let Some(connection) = kept
            && let Some(answer) = self.on(connection, &active, body.clone()).await
        {
            return Some(answer);
        }
        let header = self.header.as_deref();
        let pool = &self.worker.pool;
        let fresh =
            Box::pin(Link::open(&self.upstream, active.target(), header, pool, self.worker.index)).await;
        self.on(Box::new(fresh.ok()?.0), &active, body).await
    }

    async fn on(&self, mut connection: Box<Link>, active: &Active, body: Option<Bytes>) -> Option<Answer> {
        let body = body.map_or(RequestBody::Empty, RequestBody::kept);
        let head = connection.request(&self.request, body, || None::<()>, |_| {}).await.ok()?.ok()?;
        active.target().stats.shards.of(self.worker.index).count(head.status);
        Some(Answer { head, connection })
    }
}

/// The same request once more.
pub fn copied(request: &Outgoing) -> Outgoing {
    Outgoing {
        head: request.head.clone(),
        switch: Switch::No,
        about: request.about.clone(),
        id: request.id.clone(),
        trace: request.trace,
    }
}

/// Leaves a connection, whose answer was read to its end, for the next request.
pub fn keep(mut connection: Box<Link>, upstream: &Upstream, worker: &Worker) {
    if connection.settle() {
        let pool = &upstream.config.pool;
        worker.pool.put(connection, pool.idle, pool.idle_for, Instant::now());
    }
}
