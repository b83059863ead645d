//! Copies of requests to a shadow: sent by tasks of their own, after the client's request, on the worker's connections.
//!
//! Whatever the shadow does, no client waits for it and none sees it. What is kept for it is bounded: so many copies,
//! so many bytes of a body, so much time.

use std::future::poll_fn;

use bytes::Bytes;

use super::{
    errand::{self, Errand},
    forward::Answer,
    mapped,
    watched::Side,
};
use crate::policy::{json_map::Filled, mirror::Place};

/// An answer with more is not read to its end, and its connection is closed.
const MOST: usize = 1 << 20;

/// A request that goes to a shadow as soon as it is whole.
pub struct Copy {
    pub errand: Errand,
    /// Its end, by whatever cause, frees it.
    pub place: Place,
    /// Its answer is compared.
    pub side: Option<Side>,
    /// What its body becomes.
    pub map: Option<Box<Filled<'static>>>,
}

impl Copy {
    /// `body`: `None` if there is none.
    pub fn send(mut self, mut body: Option<Bytes>) {
        if let (Some(map), Some(came)) = (self.map.take(), &mut body) {
            let Some(changed) = mapped::copy(&map, &mut self.errand.request, std::mem::take(came)) else {
                return;
            };
            *came = changed;
        }
        tokio::task::spawn_local(async move {
            let mut side = self.side.take();
            let _ = tokio::time::timeout(self.errand.limit(), self.exchange(body, &mut side)).await;
        });
    }

    /// `None` when it came to nothing.
    async fn exchange(&self, body: Option<Bytes>, side: &mut Option<Side>) -> Option<()> {
        let Answer { head, mut connection } = self.errand.ask(body).await?;
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
        errand::keep(connection, &self.errand.upstream, &self.errand.worker);
        Some(())
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
