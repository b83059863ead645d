//! What is known of one request. When it ends, however it ends, its line is logged and its counters are bumped.
//!
//! A connection has one request at a time, so the [`Record`] lives with the connection and is filled anew; an
//! [`Exchange`] is the right to fill it, and its end is the request's.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, Method, StatusCode, Version, header, request};

use super::{
    connection::ClientState,
    grpc, limited,
    timer::{Expired, Wait},
};
use crate::{
    config::{model::RetryOn, units::Moment},
    limit::{Ending, Now, Pace, Passage},
    observe::{
        Why, access_log,
        stats::{self, CacheResult, RouteStats},
        trace::{self, Said, Traced},
    },
    policy::caller::Caller,
    runtime::{Listener, Route},
    tls::Shaken,
    upstream::{Active, Upstream},
    version::usage,
};

/// The facts of the request at hand.
#[derive(Default)]
pub struct Record {
    started: Option<Instant>,
    /// The same by the wall clock.
    at: Option<SystemTime>,
    id: Option<HeaderValue>,
    method: usize,
    is_head: bool,
    /// The content type of the answers to a gRPC call.
    grpc: Option<Box<HeaderValue>>,
    /// The request's own part of the log line.
    text: access_log::RequestText,
    route: Option<Arc<Route>>,
    /// Who calls, if the route asks for it.
    caller: Option<Arc<Caller>>,
    /// Where a policy sent it, if the route has no upstream of its own.
    chosen: Option<Arc<Upstream>>,
    active: Option<Active>,
    tries: u32,
    /// What the client was, or will be, told. `None`: it went away before.
    status: Option<StatusCode>,
    why: Option<Why>,
    /// Why the upstream that was meant was not asked.
    fell_back: Option<Why>,
    cache: Option<CacheResult>,
    /// Which limit it was over.
    limit: Option<Arc<str>>,
    /// Credentials were shown.
    presented: bool,
    /// What limits have to settle when it is over.
    passage: Option<Box<Passage>>,
    /// Its part in a trace, if there are any.
    trace: Option<Traced>,
    /// The handshake of its connection, whose first request it is.
    shook: Option<Duration>,
    /// When its head was here, if nothing had to be waited for since.
    heard: Option<Instant>,
    queued: Option<Duration>,
    connect: Option<Duration>,
    sent: Option<Instant>,
    first_byte: Option<Instant>,
    bytes_out: u64,
    /// The answer was handed over to its last byte.
    complete: bool,
    /// `User-Agent`, where somebody wants to know who still calls a version.
    agent: Vec<u8>,
}

pub struct Exchange {
    pub state: Rc<ClientState>,
}

impl Exchange {
    /// `head`: `None` when it could not be read.
    pub fn begin(state: Rc<ClientState>, head: Option<&request::Parts>) -> Self {
        let started = state.request_started();
        let worker = &state.worker;
        let at = worker.wall_clock(started);
        let id = worker.new_id(at);
        state.timer.stop();
        state.bytes_in.set(0);
        state.body_waited.set(Duration::ZERO);
        state.take_cut();
        state.listener.stats.shards.of(worker.index).active_requests.add(1);
        let mut record = state.record.borrow_mut();
        (record.started, record.at) = (Some(started), Some(at));
        record.heard = Some(state.take_heard().unwrap_or(started));
        record.id = Some(id);
        record.shook = state.client().shook.take();
        record.method = head.map_or(stats::OTHER_METHOD, |head| stats::method_index(&head.method));
        record.is_head = head.is_some_and(|head| head.method == Method::HEAD);
        if head.is_some_and(|head| head.version == Version::HTTP_2 && grpc::is_call(&head.headers)) {
            record.grpc = Some(Box::new(HeaderValue::from_static("application/grpc")));
        }
        if worker.logs() {
            worker.with_log_rules(|rules| record.text.fill(head.map(logged), rules));
        }
        drop(record);
        Exchange { state }
    }

    pub fn id(&self) -> HeaderValue {
        self.state.record.borrow().id.clone().unwrap_or(HeaderValue::from_static("-"))
    }

    /// As [`Exchange::id`], as text, to be looked at.
    pub fn with_id<T>(&self, f: impl FnOnce(&str) -> T) -> T {
        let record = self.state.record.borrow();
        f(record.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("-"))
    }

    pub fn started(&self) -> Instant {
        self.state.record.borrow().started.unwrap_or_else(Instant::now)
    }

    /// Now, or a moment ago: when its head was here, if nothing had to be waited for since. It spares a look at the clocks.
    pub fn now(&self) -> Now {
        match self.state.record.borrow().heard {
            Some(heard) => Now::of(heard, self.state.worker.wall_ahead()),
            None => Now::read(),
        }
    }

    /// Something had to be waited for.
    pub fn waited(&self) {
        self.state.record.borrow_mut().heard = None;
    }

    pub fn is_head(&self) -> bool {
        self.state.record.borrow().is_head
    }

    /// The content type of the answers, if it is a gRPC call.
    pub fn grpc(&self) -> Option<HeaderValue> {
        self.state.record.borrow().grpc.as_deref().cloned()
    }

    /// It is a call, whose answers have this content type.
    pub fn set_grpc(&self, kind: HeaderValue) {
        self.state.record.borrow_mut().grpc = Some(Box::new(kind));
    }

    pub fn set_trace(&self, trace: Traced) {
        self.state.record.borrow_mut().trace = Some(trace);
    }

    /// What is still to be said of its trace to what comes next: once.
    pub fn take_unsaid_trace(&self) -> Option<trace::Parent> {
        self.state.record.borrow_mut().trace.as_mut().and_then(Traced::take_unsaid)
    }

    /// For the client, where it is to be told; once the answer's head is here.
    pub fn server_timing(&self) -> Option<HeaderValue> {
        let record = self.state.record.borrow();
        record.trace.as_ref().filter(|trace| trace.server_timing)?;
        let (sent, first_byte) = (record.sent?, record.first_byte?);
        let now = Instant::now();
        let total = now.saturating_duration_since(record.started?);
        let own = record.own_time(total, now, self.state.body_waited.get());
        let upstream = first_byte.saturating_duration_since(sent);
        HeaderValue::from_str(&trace::server_timing(record.queued, record.connect, upstream, own)).ok()
    }

    pub fn set_route(&self, route: &Arc<Route>) {
        self.state.record.borrow_mut().route = Some(route.clone());
    }

    /// What the client calls itself.
    pub fn set_agent(&self, agent: Option<&HeaderValue>) {
        let mut record = self.state.record.borrow_mut();
        record.agent.clear();
        record.agent.extend(agent.iter().flat_map(|agent| agent.as_bytes()).take(usage::AGENT));
    }

    /// The time, if a collector is told of this request.
    pub fn trace_clock(&self) -> Option<Instant> {
        self.state.record.borrow().trace.as_ref().filter(|trace| trace.is_told()).map(|_| Instant::now())
    }

    /// What began at this time of [`Self::trace_clock`] is over.
    pub fn traced<const N: usize>(
        &self,
        name: &'static str,
        since: Option<Instant>,
        attributes: [(&'static str, Said); N],
    ) {
        if let (Some(since), Some(trace)) = (since, &mut self.state.record.borrow_mut().trace) {
            trace.step(name, since, Instant::now(), attributes);
        }
    }

    /// TLS is agreed on.
    pub fn shaken(&self, name: &'static str, shaken: &Shaken) {
        if let Some(trace) = &mut self.state.record.borrow_mut().trace {
            trace.shaken(name, shaken);
        }
    }

    pub fn set_caller(&self, caller: Arc<Caller>) {
        self.state.record.borrow_mut().caller = Some(caller);
    }

    /// Who calls, if that is known.
    pub fn caller(&self) -> Option<Arc<Caller>> {
        self.state.record.borrow().caller.clone()
    }

    /// The query is logged as this, in place of what came.
    pub fn log_query(&self, query: Option<&str>) {
        let (state, mut record) = (&self.state, self.state.record.borrow_mut());
        state.worker.with_log_rules(|rules| record.text.set_query(query, rules));
        if let Some(trace) = &mut record.trace {
            trace.set_query(query);
        }
    }

    /// A policy chose this one.
    pub fn set_upstream(&self, upstream: Arc<Upstream>) {
        self.state.record.borrow_mut().chosen = Some(upstream);
    }

    /// The upstream of the route that took the request.
    pub fn with_upstream<T>(&self, f: impl FnOnce(&Upstream) -> T) -> Option<T> {
        self.state.record.borrow().upstream().map(f)
    }

    /// How long an upstream may take to begin its answer.
    pub fn first_byte_limit(&self, upstream: &Upstream) -> Duration {
        let record = self.state.record.borrow();
        record.route.as_ref().map_or(upstream.first_byte, |route| route.first_byte(upstream))
    }

    /// What is retried at other targets, and at how many.
    pub fn retries(&self, upstream: &Upstream) -> (RetryOn, u32) {
        let of_upstream = &upstream.config.retry;
        let record = self.state.record.borrow();
        record.route.as_ref().map_or((of_upstream.on, of_upstream.tries), |route| route.retries(upstream))
    }

    /// How long nothing may come of an answer's body, if it is an upstream's.
    pub fn idle_limit(&self) -> Option<Duration> {
        let record = self.state.record.borrow();
        record.upstream().map(|upstream| record.idle(upstream))
    }

    /// Another target is tried.
    pub fn try_target(&self, active: Active) {
        let mut record = self.state.record.borrow_mut();
        record.active = Some(active);
        record.tries += 1;
    }

    /// The target that was tried gets no more of this request: its place is another's.
    pub fn leave_target(&self) {
        if let Some(active) = &mut self.state.record.borrow_mut().active {
            active.release();
        }
    }

    /// It waited for a target with room.
    pub fn queued(&self, took: Duration) {
        let mut record = self.state.record.borrow_mut();
        record.queued = Some(record.queued.unwrap_or_default() + took);
        if let Some(trace) = &mut record.trace {
            trace.queued();
        }
    }

    pub fn connected(&self, took: Duration) {
        let mut record = self.state.record.borrow_mut();
        record.connect = Some(record.connect.unwrap_or_default() + took);
        if let Some(trace) = &mut record.trace {
            trace.connected();
        }
    }

    /// The request is handed to the upstream's connection.
    pub fn sent(&self, now: Instant) {
        self.state.record.borrow_mut().sent = Some(now);
    }

    /// The answer's head is here.
    pub fn answered(&self, status: StatusCode) {
        let mut record = self.state.record.borrow_mut();
        record.first_byte = Some(Instant::now());
        record.status = Some(status);
    }

    /// The route answers by itself.
    pub fn answers(&self, status: StatusCode) {
        self.state.record.borrow_mut().status = Some(status);
    }

    /// The gateway answers in place of an upstream.
    pub fn refuse(&self, why: Why) {
        self.refuse_with(why, why.status());
    }

    pub fn refuse_with(&self, why: Why, status: StatusCode) {
        let mut record = self.state.record.borrow_mut();
        record.status = Some(status);
        record.why = Some(why);
    }

    /// The fallback of its upstream answers, for this reason.
    pub fn fell_back(&self, why: Why) {
        self.state.record.borrow_mut().fell_back = Some(why);
    }

    /// The gateway answers in place of an upstream.
    pub fn is_refused(&self) -> bool {
        self.state.record.borrow().why.is_some()
    }

    /// What a cache did for it.
    pub fn set_cache(&self, result: CacheResult) {
        self.state.record.borrow_mut().cache = Some(result);
    }

    /// What the log says of limits.
    pub fn set_limit(&self, said: Arc<str>) {
        self.state.record.borrow_mut().limit = Some(said);
    }

    /// It showed credentials that are none.
    pub fn set_presented(&self) {
        self.state.record.borrow_mut().presented = true;
    }

    /// Limits let it in.
    pub fn set_passage(&self, passage: Box<Passage>) {
        self.state.record.borrow_mut().passage = Some(passage);
    }

    /// The answer's head, in which limits may find what it cost.
    pub fn answer_heads(&self, headers: &http::HeaderMap) {
        if let Some(passage) = &mut self.state.record.borrow_mut().passage {
            passage.answered(headers);
        }
    }

    /// Where in the answer's body limits find what it cost.
    pub fn cost_pointers(&self) -> Vec<String> {
        self.state.record.borrow().passage.as_ref().map(|passage| passage.pointers()).unwrap_or_default()
    }

    /// How fast its answer may be sent.
    pub fn paces(&self) -> Vec<Pace> {
        self.state.record.borrow().passage.as_ref().map(|passage| passage.paces()).unwrap_or_default()
    }

    pub fn cost_found(&self, pointer: &str, value: u64) {
        if let Some(passage) = &mut self.state.record.borrow_mut().passage {
            passage.found(pointer, value);
        }
    }

    /// The answer was cut after its head had been sent.
    pub fn cut(&self, why: Why) {
        self.state.record.borrow_mut().why = Some(why);
    }

    pub fn add_bytes_out(&self, n: u64) {
        self.state.record.borrow_mut().bytes_out += n;
    }

    /// So many bytes did not go out as they came, but as others.
    pub fn replace_bytes_out(&self, came: u64, goes: u64) {
        let mut record = self.state.record.borrow_mut();
        record.bytes_out = record.bytes_out.saturating_sub(came) + goes;
    }

    pub fn complete(&self) {
        self.state.record.borrow_mut().complete = true;
        self.state.last_write.set(self.state.last_request.get());
    }

    /// When the answer's head came, or now: near enough for ages counted in seconds.
    pub fn recently(&self) -> Instant {
        self.state.record.borrow().first_byte.unwrap_or_else(Instant::now)
    }
}

/// What the log says of a head. One look at all names takes less than one for each that is wanted.
fn logged(head: &request::Parts) -> access_log::Request<'_> {
    let (mut host, mut user_agent, mut referer) = (None, None, None);
    for (name, value) in &head.headers {
        let wanted = match *name {
            header::HOST => &mut host,
            header::USER_AGENT => &mut user_agent,
            header::REFERER => &mut referer,
            _ => continue,
        };
        wanted.get_or_insert(value.as_bytes());
    }
    let (path, query) = (head.uri.path(), head.uri.query());
    access_log::Request { host, method: head.method.as_str(), path, query, user_agent, referer }
}

impl Record {
    /// Neither answered to the end nor cut.
    pub fn unfinished(&self) -> bool {
        !self.complete && self.why.is_none()
    }

    /// It is known what the client is told.
    pub fn has_status(&self) -> bool {
        self.status.is_some()
    }

    /// Bytes of the answer handed over so far.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// How long the client may be silent in the middle of its request. A call may be a conversation, of which each side
    /// may wait for the other.
    pub fn patience(&self, usual: Duration) -> Duration {
        match (&self.grpc, self.upstream()) {
            (Some(_), Some(upstream)) => usual.max(self.idle(upstream)),
            _ => usual,
        }
    }

    fn idle(&self, upstream: &Upstream) -> Duration {
        self.route.as_ref().map_or(upstream.config.timeout.idle, |route| route.idle(upstream))
    }

    fn upstream(&self) -> Option<&Upstream> {
        let own = || self.route.as_ref().and_then(|route| route.upstream.as_deref());
        self.chosen.as_deref().or_else(own)
    }

    /// The time from the head's arrival that was not spent waiting for the upstream.
    fn own_time(&self, total: Duration, now: Instant, body_waited: Duration) -> Duration {
        let waited = match (self.sent, self.first_byte) {
            (Some(sent), Some(first_byte)) => first_byte.saturating_duration_since(sent) + body_waited,
            (Some(sent), None) => now.saturating_duration_since(sent),
            _ => Duration::ZERO,
        };
        let before = self.connect.unwrap_or_default() + self.queued.unwrap_or_default();
        total.saturating_sub(waited).saturating_sub(before)
    }

    fn told_why(&self) -> Option<Why> {
        self.why.or(self.fell_back)
    }

    fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| Why::ClientGone.status())
    }

    /// Where it is counted.
    fn stats<'a>(&'a self, listener: &'a Listener) -> &'a RouteStats {
        self.route.as_ref().map_or(&*listener.unrouted, |route| route.stats(listener))
    }

    fn count(&self, state: &ClientState, us: u64, us_self: u64) {
        let worker = state.worker.index;
        let listener = &state.listener;
        listener.stats.shards.of(worker).active_requests.add(-1);
        let shard = self.stats(listener).shards.of(worker);
        shard.count(self.method, self.status());
        shard.duration.record(us);
        shard.overhead.record(us_self);
        shard.request_bytes.add(state.bytes_in.get());
        shard.response_bytes.add(self.bytes_out);
        if let Some(why) = self.why {
            shard.error(why);
        }
        if let Some(version) = self.route.as_ref().and_then(|route| route.version.as_ref()) {
            let now = Moment::of(self.at.unwrap_or_else(SystemTime::now));
            let consumer = self.caller.as_ref().map(|caller| &*caller.consumer);
            version.usage.count(worker, now, consumer, state.client().addr, &self.agent);
        }
        if let (Some(upstream), Some(active), Some(sent), Some(first_byte)) =
            (self.upstream(), &self.active, self.sent, self.first_byte)
        {
            active.target().stats.shards.of(worker).count(self.status());
            let took = first_byte.saturating_duration_since(sent);
            upstream.stats.shards.of(worker).answered(micros(took));
        }
    }

    /// Tells of its part in a trace.
    fn tell(&mut self, state: &ClientState, started: Instant, now: Instant) {
        let Some(traced) = self.trace.take().filter(|traced| traced.is_told()) else { return };
        self.exemplify(state, traced.trace, started, now);
        let client = state.client();
        traced.end(&trace::Ending {
            started,
            at: self.at.unwrap_or_else(|| state.worker.wall_clock(started)),
            now,
            id: self.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("-"),
            listener: &state.listener.name,
            route: self.route.as_ref().map(|route| &*route.name),
            client: client.addr,
            scheme: client.scheme,
            status: self.status().as_u16(),
            why: self.told_why(),
            version: self.route.as_ref().and_then(|route| Some(&*route.version.as_ref()?.name)),
            consumer: self.caller.as_ref().map(|caller| &*caller.consumer),
            cache: self.cache.map(CacheResult::word),
            limit: self.limit.as_deref(),
            upstream: self.upstream().map(|upstream| &*upstream.name),
            target: self.active.as_ref().map(|active| &*active.target().name),
            tries: self.tries,
            queued: self.queued,
            connect: self.connect,
            sent: self.sent,
            first_byte: self.first_byte,
            bytes_in: state.bytes_in.get(),
            bytes_out: self.bytes_out,
        });
    }

    fn exemplify(&self, state: &ClientState, trace: u128, started: Instant, now: Instant) {
        let worker = &state.worker;
        let at = worker.wall_clock(now).duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.stats(&state.listener).shards.of(worker.index).exemplify(stats::Exemplar {
            trace,
            us: micros(now.saturating_duration_since(started)),
            at_ms: at.as_millis().try_into().unwrap_or(u64::MAX),
        });
    }

    fn log(&self, state: &ClientState, started: Instant, us: u64, us_self: u64) {
        let worker = &state.worker;
        let client = state.client();
        let route = self.route.as_deref();
        worker.log(&access_log::Line {
            at: self.at.unwrap_or_else(|| worker.wall_clock(started)),
            id: self.id.as_ref().map_or(b"-", HeaderValue::as_bytes),
            trace: self.trace.as_ref().map(|trace| trace.trace),
            connection: client.log_text(&state.listener.name),
            request: &self.text,
            status: Some(self.status().as_u16()),
            route: route.map(|route| &*route.name),
            version: route.and_then(|route| route.version.as_ref()).map(|version| &*version.name),
            consumer: self.caller.as_ref().map(|caller| &*caller.consumer),
            upstream: self.upstream().map(|upstream| &*upstream.name),
            target: self.active.as_ref().map(|active| &*active.target().name),
            tries: self.tries,
            why: self.told_why(),
            cache: self.cache,
            limit: self.limit.as_deref(),
            bytes_in: state.bytes_in.get(),
            bytes_out: self.bytes_out,
            us,
            us_self: Some(us_self),
            us_tls: self.shook.map(micros),
            us_queue: self.queued.map(micros),
            us_connect: self.connect.map(micros),
            us_first_byte: self.first_byte.map(|at| micros(at.saturating_duration_since(started))),
        });
    }

    /// Ready for the next request; the text's buffers are kept.
    fn reset(&mut self) {
        let (mut text, mut agent) = (std::mem::take(&mut self.text), std::mem::take(&mut self.agent));
        // Logging may be off when the next one begins, and on when it ends.
        text.clear();
        agent.clear();
        *self = Record { text, agent, ..Record::default() };
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        let state = &*self.state;
        let mut record = state.record.borrow_mut();
        if !record.complete && record.why.is_none() {
            record.why = Some(if state.worker.stopping() {
                Why::Stopped
            } else if state.timer.expired() == Some(Expired::Wait(Wait::Write)) {
                Why::WriteTimeout
            } else {
                Why::ClientGone
            });
        }
        if let Some(why) = record.why {
            limited::note(state, why, record.presented);
        }
        if let Some(passage) = record.passage.take() {
            passage.end(Ending { bytes_in: state.bytes_in.get(), bytes_out: record.bytes_out });
        }
        let started = record.started.unwrap_or(now);
        let total = now.saturating_duration_since(started);
        let us_self = micros(record.own_time(total, now, state.body_waited.get()));
        record.count(state, micros(total), us_self);
        if state.worker.logs() {
            record.log(state, started, micros(total), us_self);
        }
        record.tell(state, started, now);
        record.reset();
        state.timer.set_total(None);
        state.timer.start(Wait::Idle, now + state.first_idle());
        state.request_ended();
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
