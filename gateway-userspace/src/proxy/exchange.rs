//! What is known of one request. When it ends, however it ends, its line is logged and its counters are bumped.

use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, StatusCode, Uri, header, request};

use super::{connection::ClientState, timer::Wait};
use crate::{
    observe::{Why, access_log::Line, stats},
    runtime::Route,
    upstream::{Active, Upstream},
};

pub struct Exchange {
    pub state: Rc<ClientState>,
    pub id: HeaderValue,
    started: Instant,
    /// `None` when the head could not be read.
    method: Option<Method>,
    uri: Uri,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    pub route: Option<Arc<Route>>,
    active: Option<Active>,
    tries: u32,
    /// What the client was, or will be, told.
    status: StatusCode,
    why: Option<Why>,
    connect: Option<Duration>,
    sent: Option<Instant>,
    first_byte: Option<Instant>,
    pub bytes_out: u64,
    /// The answer was handed over to its last byte.
    complete: bool,
}

impl Exchange {
    pub fn begin(state: Rc<ClientState>, head: &request::Parts) -> Self {
        let started = state.request_started();
        let worker = &state.worker;
        let id = worker.new_id(worker.wall_clock(started));
        state.timer.stop();
        state.bytes_in.set(0);
        state.take_cut();
        state.listener.stats.shards.of(worker.index).active_requests.fetch_add(1, Relaxed);
        Exchange {
            id,
            started,
            method: Some(head.method.clone()),
            uri: head.uri.clone(),
            host: head.headers.get(header::HOST).cloned(),
            user_agent: head.headers.get(header::USER_AGENT).cloned(),
            referer: head.headers.get(header::REFERER).cloned(),
            route: None,
            active: None,
            tries: 0,
            // Until the client is told something else: it went away before.
            status: Why::ClientGone.status(),
            why: None,
            connect: None,
            sent: None,
            first_byte: None,
            bytes_out: 0,
            complete: false,
            state,
        }
    }

    /// A request whose head could not be read.
    pub fn unread(state: Rc<ClientState>) -> Self {
        let nothing = http::Request::new(()).into_parts().0;
        let mut exchange = Exchange::begin(state, &nothing);
        exchange.method = None;
        exchange
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn is_head(&self) -> bool {
        self.method == Some(Method::HEAD)
    }

    /// Another target is tried.
    pub fn try_target(&mut self, active: Active) {
        self.active = Some(active);
        self.tries += 1;
    }

    pub fn connected(&mut self, took: Duration) {
        self.connect = Some(self.connect.unwrap_or_default() + took);
    }

    /// The request is handed to the upstream's connection.
    pub fn sent(&mut self, now: Instant) {
        self.sent = Some(now);
    }

    /// The answer's head is here.
    pub fn answered(&mut self, status: StatusCode) {
        self.first_byte = Some(Instant::now());
        self.status = status;
    }

    /// The gateway answers itself.
    pub fn refuse(&mut self, why: Why) {
        self.status = why.status();
        self.why = Some(why);
    }

    /// The answer was cut after its head had been sent.
    pub fn cut(&mut self, why: Why) {
        self.why = Some(why);
    }

    pub fn complete(&mut self) {
        self.complete = true;
    }

    fn upstream(&self) -> Option<&Upstream> {
        self.route.as_ref().map(|route| &*route.upstream)
    }

    /// The time from the head's arrival that was not spent waiting for the upstream.
    fn own_time(&self, now: Instant) -> Duration {
        let total = now.saturating_duration_since(self.started);
        let waited = match (self.sent, self.first_byte) {
            (Some(sent), Some(first_byte)) => first_byte.saturating_duration_since(sent) + self.state.body_waited.get(),
            (Some(sent), None) => now.saturating_duration_since(sent),
            _ => Duration::ZERO,
        };
        total.saturating_sub(waited).saturating_sub(self.connect.unwrap_or_default())
    }

    fn count(&self, us: u64, us_self: u64) {
        let worker = self.state.worker.index;
        let listener = &self.state.listener;
        listener.stats.shards.of(worker).active_requests.fetch_sub(1, Relaxed);
        let route = self.route.as_ref().map_or(&*listener.unrouted, |route| route.stats(listener));
        let shard = route.shards.of(worker);
        shard.count(self.method.as_ref().map_or(stats::OTHER_METHOD, stats::method_index), self.status);
        shard.duration.record(us);
        shard.overhead.record(us_self);
        shard.request_bytes.add(self.state.bytes_in.get());
        shard.response_bytes.add(self.bytes_out);
        if let Some(why) = self.why {
            shard.error(why);
        }
        if let (Some(upstream), Some(active), Some(sent), Some(first_byte)) =
            (self.upstream(), &self.active, self.sent, self.first_byte)
        {
            active.target().stats.shards.of(worker).count(self.status);
            let took = first_byte.saturating_duration_since(sent);
            upstream.stats.shards.of(worker).duration.record(micros(took));
        }
    }

    fn log(&self, us: u64, us_self: u64) {
        let worker = &self.state.worker;
        worker.log(&Line {
            at: worker.wall_clock(self.started),
            id: self.id.as_bytes(),
            listener: &self.state.listener.name,
            client: self.state.client,
            peer: self.state.peer,
            proto: "h1",
            host: self.host.as_ref().map_or(b"", |host| host.as_bytes()),
            method: self.method.as_ref().map_or("-", Method::as_str),
            path: self.uri.path(),
            query: self.uri.query(),
            status: self.status.as_u16(),
            route: self.route.as_ref().map(|route| &*route.name),
            upstream: self.upstream().map(|upstream| &*upstream.name),
            target: self.active.as_ref().map(|active| &*active.target().name),
            tries: self.tries,
            why: self.why,
            bytes_in: self.state.bytes_in.get(),
            bytes_out: self.bytes_out,
            us,
            us_self,
            us_connect: self.connect.map(micros),
            us_first_byte: self.first_byte.map(|at| micros(at.saturating_duration_since(self.started))),
            ua: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        if !self.complete && self.why.is_none() {
            let stopping = self.state.worker.stopping();
            self.why = Some(if stopping { Why::Stopped } else { Why::ClientGone });
        }
        let us = micros(now.saturating_duration_since(self.started));
        let us_self = micros(self.own_time(now));
        self.count(us, us_self);
        if self.state.worker.logs() {
            self.log(us, us_self);
        }
        self.state.timer.set_total(None);
        self.state.timer.start(Wait::Idle, now + self.state.first_idle());
        self.state.request_ended();
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
