//! A request of the gateway's own, to an upstream that is asked about a client's.

use std::{future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{StatusCode, request};

use super::{RequestBody, exchange::Exchange, headers, worker::Worker};
use crate::{
    auth::{Answered, Elsewhere},
    runtime::Snapshot,
    upstream::{
        Active, Upstream,
        http1::{Outgoing, Switch},
        link::Link,
    },
};

/// Of an answer's body; a longer one is no answer.
const MOST: usize = 64 << 10;

/// Asks upstreams for the request of an exchange.
pub struct Asker<'a> {
    pub snapshot: &'a Snapshot,
    pub exchange: &'a Exchange,
}

impl Elsewhere for Asker<'_> {
    fn ask<'a>(
        &'a self,
        upstream: &'a str,
        head: request::Parts,
        patience: Duration,
    ) -> Pin<Box<dyn Future<Output = Option<Answered>> + 'a>> {
        Box::pin(async move {
            let upstream = self.snapshot.upstreams.get(upstream)?;
            let client = self.exchange.state.kept_client();
            let about = headers::about(&client, head.headers.get(http::header::HOST), self.snapshot);
            let header = upstream.config.proxy_protocol.map(|version| client.proxy_header(version));
            let asking = Asking {
                worker: self.exchange.state.worker.clone(),
                upstream,
                request: Outgoing { head, switch: Switch::No, about, id: self.exchange.id(), trace: None },
                header,
            };
            tokio::time::timeout(patience, asking.exchange(client.addr)).await.ok()?
        })
    }
}

struct Asking<'a> {
    worker: Rc<Worker>,
    upstream: &'a Upstream,
    request: Outgoing,
    header: Option<Vec<u8>>,
}

impl Asking<'_> {
    async fn exchange(&self, client: std::net::IpAddr) -> Option<Answered> {
        let active = self.upstream.pick_now(client)?;
        if self.header.is_none()
            && let Some(connection) = self.worker.pool.take(active.target())
            && let Some(answer) = self.on(connection, &active).await
        {
            return Some(answer);
        }
        // A kept connection may be closed at any time; to ask twice is no harm.
        let header = self.header.as_deref();
        let opening =
            Link::open(self.upstream, active.target(), header, &self.worker.pool, self.worker.index);
        self.on(Box::new(opening.await.ok()?.0), &active).await
    }

    async fn on(&self, mut connection: Box<Link>, active: &Active) -> Option<Answered> {
        let head =
            connection.request(&self.request, RequestBody::Empty, || None::<()>, |_| {}).await.ok()?.ok()?;
        active.target().stats.shards.of(self.worker.index).count(head.status);
        let mut body = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| connection.poll_body(cx)).await {
            let frame = frame.ok()?;
            body.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            if body.len() > MOST {
                return None;
            }
        }
        if self.header.is_none() && connection.settle() {
            let pool = &self.upstream.config.pool;
            self.worker.pool.put(connection, pool.idle, pool.idle_for, std::time::Instant::now());
        }
        let status = if head.status == StatusCode::SWITCHING_PROTOCOLS { return None } else { head.status };
        Some(Answered { status, headers: head.headers, body: body.freeze() })
    }
}
