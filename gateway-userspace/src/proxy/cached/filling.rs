//! What becomes of an upstream's answer: it is stored while it goes to those who wait for it, or it says that what is
//! stored still holds, or it is nobody else's.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::{
    cache::{
        Cache,
        entry::{Body, Entry, compact},
        fill::{Draft, Lead, Outcome, Reader},
        freshness::{self, Refused, Use, storable},
        purge::{TAG_FIELDS, tags},
        validators, vary,
    },
    observe::Why,
    proxy::{errand, forward::Answer, headers, worker::Worker},
    upstream::{
        Upstream,
        http1::{Broken, Head},
        link::Link,
    },
};

/// Of a body that turns out to be too large: so much of it is held for who reads slowly.
const WINDOW: u64 = 256 * 1024;

/// Fields of an answer that are not for those who get it later (RFC 9111 section 3.1).
const NOT_STORED: [HeaderName; 7] = [
    header::AGE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-authentication-info"),
    HeaderName::from_static("proxy-connection"),
    header::TRAILER,
    super::answer::CACHE_STATUS,
];

/// A fetch, and what is to be known of the request for keeping its answer.
pub struct Filling {
    pub cache: Arc<Cache>,
    pub key: Arc<[u8]>,
    pub lead: Lead,
    /// Purges that are older than the fetch.
    pub began: u64,
    pub asked: freshness::Asked,
    pub asked_at: SystemTime,
    /// The request's fields as the client sent them.
    pub request: HeaderMap,
    /// What is stored, if it was asked whether that still holds.
    pub stale: Option<Arc<Entry>>,
    /// What has no `ETag` gets one.
    pub tag: bool,
    pub worker: Rc<Worker>,
    pub upstream: Arc<Upstream>,
}

/// What became of it.
pub enum Filled {
    /// The upstream says that it still holds.
    Revalidated(Arc<Entry>),
    /// The whole of it is stored.
    Stored(Arc<Entry>),
    /// It is on its way.
    Growing(Arc<Draft>, Option<Reader>),
    /// In place of an error.
    Stale(Arc<Entry>),
    /// It is not to be stored; why.
    Not(Answer, &'static str),
}

impl Filling {
    /// Takes an answer in. `unfit`: fields that the upstream sees otherwise than the client sent them.
    pub async fn take(
        mut self,
        answer: Answer,
        via: &http::HeaderValue,
        unfit: impl Fn(&HeaderName) -> bool,
    ) -> Filled {
        let now = SystemTime::now();
        if let Some(stale) = self.stale.take() {
            if answer.head.status == StatusCode::NOT_MODIFIED {
                return Filled::Revalidated(self.freshen(&stale, answer, now));
            }
            if is_failure(answer.head.status) && stale.terms.if_error(now) {
                self.lead.over(Outcome::Entry(stale.clone()));
                return Filled::Stale(stale);
            }
        }
        match self.draft(&answer.head, via, now, unfit) {
            Ok(draft) => self.store(Arc::new(draft), answer, now).await,
            Err(refused) => {
                self.lead.over(Outcome::Pass);
                Filled::Not(answer, refused.0)
            }
        }
    }

    /// There is no answer. What may be sent in its place.
    pub fn failed(mut self, why: Why) -> Option<Arc<Entry>> {
        let stale = self.stale.take().filter(|stale| stale.terms.if_error(SystemTime::now()));
        self.lead.over(match &stale {
            Some(stale) => Outcome::Entry(stale.clone()),
            // What a client did is no reason for others.
            None if matches!(why, Why::ClientGone | Why::BodyTimeout | Why::Stopped) => Outcome::Abandoned,
            None => Outcome::Failed(why),
        });
        stale
    }

    /// RFC 9111 section 4.3.4.
    fn freshen(&mut self, stale: &Arc<Entry>, answer: Answer, now: SystemTime) -> Arc<Entry> {
        let Answer { head: Head { headers: mut fresh, .. }, connection } = answer;
        errand::keep(connection, &self.upstream, &self.worker);
        headers::remove_hop_by_hop(&mut fresh);
        let mut merged = validators::freshen(&stale.headers, &fresh);
        let rules = &self.cache.rules;
        let terms = storable(&self.asked, stale.status, &merged, rules, self.asked_at, now);
        NOT_STORED.iter().chain(&TAG_FIELDS).for_each(|name| drop(merged.remove(name)));
        let entry = match terms {
            Ok(terms) => {
                let entry = Arc::new(stale.freshened(&merged, terms));
                self.cache.insert(entry.clone(), self.began);
                entry
            }
            // It was for this request only.
            Err(_) => {
                self.cache.remove(stale);
                Arc::new(stale.freshened(&merged, stale.terms))
            }
        };
        let shared = entry.terms.judge(None, None, now) != Use::Validated;
        self.lead.over(if shared { Outcome::Entry(entry.clone()) } else { Outcome::Pass });
        entry
    }

    fn draft(
        &self,
        head: &Head,
        via: &http::HeaderValue,
        now: SystemTime,
        unfit: impl Fn(&HeaderName) -> bool,
    ) -> Result<Draft, Refused> {
        let rules = &self.cache.rules;
        let terms = storable(&self.asked, head.status, &head.headers, rules, self.asked_at, now)?;
        let vary = vary::select(&head.headers, &self.request).ok_or(Refused("vary"))?;
        if vary.iter().any(|field| unfit(field.name())) {
            return Err(Refused("vary"));
        }
        let mut headers = head.headers.clone();
        headers::remove_hop_by_hop(&mut headers);
        let tags = tags(&headers);
        NOT_STORED.iter().chain(&TAG_FIELDS).for_each(|name| drop(headers.remove(name)));
        headers.append(header::VIA, via.clone());
        Ok(Draft { status: head.status, headers: compact(headers), vary, terms, tags, length: None })
    }

    async fn store(mut self, mut draft: Arc<Draft>, answer: Answer, now: SystemTime) -> Filled {
        let connection = answer.connection;
        let length = connection.body_size().exact();
        if length.is_some_and(|length| length > self.cache.config.max_body) {
            self.lead.over(Outcome::Pass);
            return Filled::Not(Answer { head: answer.head, connection }, "too-large");
        }
        if let Some(draft) = Arc::get_mut(&mut draft) {
            draft.length = length;
        }
        // What must be asked about each time is not for those who asked meanwhile.
        match draft.terms.judge(None, None, now) {
            Use::Validated => self.lead.over(Outcome::Pass),
            _ => self.lead.answer(draft.clone()),
        }
        let reader = Reader::new(self.lead.fill.clone());
        let mut pump = Pump { filling: self, draft: draft.clone(), connection: Some(connection), kept: 0 };
        // Most answers are here whole: no task is needed for them.
        let ready = poll_fn(|cx| Poll::Ready(pump.poll(cx))).await;
        match ready {
            Poll::Ready(Some(entry)) => Filled::Stored(entry),
            Poll::Ready(None) => Filled::Growing(draft, reader),
            Poll::Pending => {
                tokio::task::spawn_local(pump.run());
                Filled::Growing(draft, reader)
            }
        }
    }
}

fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// Brings a body from the upstream to all who wait for it, as fast as it comes, and into the cache. It goes on when
/// whoever asked goes away.
struct Pump {
    filling: Filling,
    draft: Arc<Draft>,
    connection: Option<Box<Link>>,
    kept: u64,
}

impl Pump {
    async fn run(mut self) {
        let idle = self.filling.upstream.config.timeout.idle;
        let mut deadline = Box::pin(tokio::time::sleep(idle));
        poll_fn(|cx| {
            let before = self.kept;
            if self.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.kept != before {
                deadline.as_mut().reset(tokio::time::Instant::now() + idle);
            }
            match deadline.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    self.filling.lead.fill.end(Some(Why::UpstreamIdleTimeout));
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }

    /// Ready when it is over; what is stored, if anything.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arc<Entry>>> {
        loop {
            let fill = &self.filling.lead.fill;
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            if connection.body_ended() {
                return Poll::Ready(self.finish());
            }
            match fill.poll_room(WINDOW, cx) {
                Poll::Ready(true) => {}
                // Nobody reads what is not kept.
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            let frame = match connection.poll_body(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return Poll::Pending,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.push(&data);
                    }
                }
                Some(Err(broken)) => {
                    self.connection = None;
                    fill.end(Some(match broken {
                        Broken::Malformed => Why::UpstreamBadResponse,
                        Broken::Closed => Why::UpstreamReset,
                    }));
                    return Poll::Ready(None);
                }
                None => return Poll::Ready(self.finish()),
            }
        }
    }

    fn push(&mut self, data: &[u8]) {
        let lead = &mut self.filling.lead;
        self.kept += data.len() as u64;
        if self.kept > self.filling.cache.config.max_body {
            lead.fill.overflow();
            lead.release();
        }
        // A copy: what was read keeps all of the buffer that it was read into.
        lead.fill.push(Bytes::copy_from_slice(data));
    }

    fn finish(&mut self) -> Option<Arc<Entry>> {
        if let Some(connection) = self.connection.take() {
            errand::keep(connection, &self.filling.upstream, &self.filling.worker);
        }
        let Filling { cache, key, lead, began, .. } = &self.filling;
        lead.fill.end(None);
        let body: Body = lead.fill.body()?;
        let mut entry = self.draft.entry(key.clone(), body);
        if self.filling.tag && entry.status == StatusCode::OK && !entry.headers.contains_key(header::ETAG) {
            let tag = validators::made_tag(&entry.headers, entry.body.pieces.iter());
            entry.headers.insert(header::ETAG, tag);
        }
        let entry = Arc::new(entry);
        cache.insert(entry.clone(), *began);
        Some(entry)
    }
}

impl Drop for Pump {
    /// Readers must not wait for what never comes.
    fn drop(&mut self) {
        self.filling.lead.fill.end_if_open(Why::Stopped);
    }
}

/// How long nothing may come of a body that is on its way.
pub fn idle(upstream: &Upstream) -> Duration {
    upstream.config.timeout.idle
}
