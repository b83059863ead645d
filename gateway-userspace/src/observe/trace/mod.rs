//! Traces: every request is part of one, some are told to a collector (OTLP over HTTP).
//!
//! A request that is told of is a span of ours with children for what it waited for. They are made of the times that are
//! measured anyway, when it ends; a thread of its own sends them, and what it cannot take is dropped and counted.

pub mod context;
mod export;
mod otlp;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, request};

pub use export::{begin_counts, flush, lost};

pub use self::context::Parent;
use self::context::{Manner, SpanId, TraceId};
use super::{Why, access_log, collector::Collector};
use crate::{config::model, tls::Shaken};

/// `[tracing]`, compiled.
#[derive(Debug)]
pub struct Tracer {
    /// Of 2^32, of those that begin here.
    share: u64,
    trust_parent: bool,
    server_timing: bool,
    rules: access_log::Rules,
    collector: Arc<Collector>,
}

/// A request's part in a trace.
#[derive(Debug)]
pub struct Traced {
    pub trace: TraceId,
    /// The client is told of the times.
    pub server_timing: bool,
    /// Of what upstreams do, if the request's head does not say yet which trace it is part of.
    unsaid: Option<SpanId>,
    /// What the collector is told; `None`: nothing.
    told: Option<Box<Told>>,
}

/// What is gathered of a request that the collector is told of.
#[derive(Debug)]
struct Told {
    tracer: Arc<Tracer>,
    facts: Facts,
    parent: Option<SpanId>,
    span: SpanId,
    /// Of what upstreams do.
    client_span: SpanId,
    /// When it had a connection to the upstream.
    connected: Option<Instant>,
    /// When it had waited for its turn.
    queued: Option<Instant>,
    /// What else is told of its way.
    steps: Vec<Step>,
}

/// So many of them are told: a request that is tried at many targets shakes many hands.
const STEPS: usize = 32;

/// Something on a request's way, with its times.
#[derive(Debug)]
struct Step {
    name: &'static str,
    from: Instant,
    to: Instant,
    attributes: Vec<(&'static str, Said)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Said {
    Word(&'static str),
    Flag(bool),
}

/// What is kept of a request that is told of: its head goes on to the upstream.
#[derive(Debug)]
struct Facts {
    method: String,
    path: String,
    query: Option<String>,
    host: Option<String>,
    user_agent: Option<String>,
    http2: bool,
}

/// What else is known when it ends.
#[derive(Debug)]
pub struct Ending<'a> {
    pub started: Instant,
    /// The same by the wall clock.
    pub at: SystemTime,
    pub now: Instant,
    pub id: &'a str,
    pub listener: &'a str,
    pub route: Option<&'a str>,
    pub client: std::net::IpAddr,
    pub scheme: &'static str,
    pub status: u16,
    pub why: Option<Why>,
    pub version: Option<&'a str>,
    pub consumer: Option<&'a str>,
    pub cache: Option<&'a str>,
    pub limit: Option<&'a str>,
    pub upstream: Option<&'a str>,
    pub target: Option<&'a str>,
    pub tries: u32,
    pub queued: Option<Duration>,
    pub connect: Option<Duration>,
    pub sent: Option<Instant>,
    pub first_byte: Option<Instant>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Tracer {
    pub fn new(config: &model::Tracing, instance: &str, log: &model::AccessLog) -> Self {
        let collector = Collector { url: config.otlp.clone(), instance: instance.to_owned() };
        Tracer {
            share: (config.share * 2f64.powi(32)) as u64,
            trust_parent: config.trust_parent,
            server_timing: config.server_timing,
            rules: access_log::Rules::new(log),
            collector: Arc::new(collector),
        }
    }

    /// Takes up the trace that a request is part of, or begins one. Where something was said of it, what comes next is told
    /// in the same place; else it is left unsaid.
    pub fn begin(self: &Arc<Self>, head: &mut request::Parts) -> Traced {
        let is_told = context::is_in(&head.headers);
        let (before, manner) = match is_told {
            true => context::parent(&head.headers),
            false => (None, Manner::W3c),
        };
        let before = before.filter(|_| self.trust_parent);
        let by_chance = || u64::from(fastrand::u32(..)) < self.share;
        let sampled = before.and_then(|before| before.sampled).unwrap_or_else(by_chance);
        let trace = before.map_or_else(|| fastrand::u128(1..), |before| before.trace);
        let client_span = fastrand::u64(1..);
        let told = sampled.then(|| {
            Box::new(Told {
                tracer: self.clone(),
                facts: self.facts(head),
                parent: before.map(|before| before.span),
                span: fastrand::u64(1..),
                client_span,
                connected: None,
                queued: None,
                steps: Vec::new(),
            })
        });
        if is_told {
            let now = Parent { trace, span: client_span, sampled: Some(sampled) };
            let manner = if self.trust_parent { manner } else { Manner::W3c };
            context::say(&mut head.headers, now, manner, before.is_some());
        }
        let unsaid = (!is_told).then_some(client_span);
        Traced { trace, server_timing: self.server_timing, unsaid, told }
    }

    fn facts(&self, head: &request::Parts) -> Facts {
        let redact = self.rules.redact.as_ref();
        let shown = |name: &str| redact.is_none_or(|redact| !redact.hides_header(name));
        let field = |name: &str, headers: &HeaderMap| -> Option<String> {
            let value = headers.get(name).filter(|_| shown(name))?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let query = head.uri.query().map(|query| redact.map_or(query.into(), |redact| redact.query(query)));
        Facts {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: query.map(std::borrow::Cow::into_owned),
            host: field("host", &head.headers),
            user_agent: field("user-agent", &head.headers),
            http2: head.version == http::Version::HTTP_2,
        }
    }
}

impl Traced {
    pub fn connected(&mut self) {
        if let Some(told) = &mut self.told {
            told.connected = Some(Instant::now());
        }
    }

    pub fn queued(&mut self) {
        if let Some(told) = &mut self.told {
            told.queued = Some(Instant::now());
        }
    }

    /// What is still to be said to what comes next: once.
    pub fn take_unsaid(&mut self) -> Option<Parent> {
        let span = self.unsaid.take()?;
        Some(Parent { trace: self.trace, span, sampled: Some(self.is_told()) })
    }

    /// Whether the collector is told of it.
    pub fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// A part of the request's way, if the collector is told of it.
    pub fn step<const N: usize>(
        &mut self,
        name: &'static str,
        from: Instant,
        to: Instant,
        attributes: [(&'static str, Said); N],
    ) {
        if let Some(told) = &mut self.told
            && told.steps.len() < STEPS
        {
            told.steps.push(Step { name, from, to, attributes: attributes.into() });
        }
    }

    pub fn shaken(&mut self, name: &'static str, shaken: &Shaken) {
        let Shaken { from, to, version, cipher, resumed, http2 } = *shaken;
        let attributes = [
            ("tls.protocol.name", Said::Word("tls")),
            ("tls.protocol.version", Said::Word(version)),
            ("tls.cipher", Said::Word(cipher.unwrap_or("unknown"))),
            ("tls.next_protocol", Said::Word(if http2 { "h2" } else { "http/1.1" })),
            ("tls.resumed", Said::Flag(resumed)),
        ];
        self.step(name, from, to, attributes);
    }

    /// The query is told as this, in place of what came.
    pub fn set_query(&mut self, query: Option<&str>) {
        if let Some(told) = &mut self.told {
            let redact = told.tracer.rules.redact.as_ref();
            told.facts.query =
                query.map(|query| redact.map_or(query.into(), |redact| redact.query(query)).into_owned());
        }
    }

    /// Tells the collector, if it is to be told of this request.
    pub fn end(self, ending: &Ending<'_>) {
        if let Some(told) = &self.told {
            export::send(&told.tracer.collector, otlp::Spans::of(self.trace, told, ending));
        }
    }
}

/// What a client is told of the times (W3C Server Timing), in milliseconds.
pub fn server_timing(
    queued: Option<Duration>,
    connect: Option<Duration>,
    upstream: Duration,
    own: Duration,
) -> String {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let mut text = format!("gateway;dur={:.2}", ms(own));
    for (name, took) in [("queue", queued), ("connect", connect), ("upstream", Some(upstream))] {
        if let Some(took) = took {
            text += &format!(", {name};dur={:.2}", ms(took));
        }
    }
    text
}
