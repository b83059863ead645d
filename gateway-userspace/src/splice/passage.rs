//! What is known of one connection of a service. When it ends, however it ends, it is counted and its line is logged.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use super::relay::Traffic;
use crate::{
    config::model,
    kernel::TargetState,
    net::canonical,
    observe::{
        Why, access_log,
        stats::{Handshake, ListenerShard, ProxyHeader, TlsVersion},
    },
    proxy::worker::Worker,
    proxy_protocol,
    service::{Active, Service, Spliced},
};

pub struct Passage {
    service: Arc<Service>,
    splice: Arc<Spliced>,
    worker: Rc<Worker>,
    started: Instant,
    peer: SocketAddr,
    /// Who made the connection, by all that is believed, and to where.
    source: SocketAddr,
    destination: Option<SocketAddr>,
    /// What it waits for is a PROXY header.
    awaits_header: Cell<bool>,
    tls: Option<&'static str>,
    /// The handshake.
    shook: Option<Duration>,
    asked: Option<String>,
    active: Option<Active>,
    tries: u32,
    connect: Option<Duration>,
    pub traffic: Traffic,
    /// `None`: it was cut from outside.
    ended: Option<Result<(), Why>>,
}

/// Takes a place among `max.connections`; the end of the [`Passage`] gives it back.
pub fn admit(splice: &Spliced, worker: usize) -> bool {
    splice.stats.admit(splice.config.connections, worker)
}

impl Passage {
    pub fn new(service: Arc<Service>, splice: Arc<Spliced>, worker: Rc<Worker>, peer: SocketAddr) -> Self {
        let peer = canonical(peer);
        worker.add_passage();
        let passage = Passage {
            service,
            splice,
            worker,
            started: Instant::now(),
            peer,
            source: peer,
            destination: None,
            awaits_header: Cell::new(false),
            tls: None,
            shook: None,
            asked: None,
            active: None,
            tries: 0,
            connect: None,
            traffic: Traffic::default(),
            ended: None,
        };
        passage.shard().accepted.add(1);
        passage
    }

    fn shard(&self) -> &ListenerShard {
        self.splice.stats.shards.of(self.worker.index)
    }

    pub fn name(&self) -> &str {
        &self.service.name
    }

    pub fn config(&self) -> &model::Splice {
        &self.splice.config
    }

    pub fn worker(&self) -> usize {
        self.worker.index
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub fn source(&self) -> SocketAddr {
        self.source
    }

    pub fn set_source(&mut self, source: SocketAddr) {
        self.source = source;
    }

    pub fn set_destination(&mut self, destination: SocketAddr) {
        self.destination = Some(destination);
    }

    /// The PROXY header that a connection to a target begins with.
    pub fn announcement(&self) -> Option<Vec<u8>> {
        let destination = self.destination.unwrap_or(self.source);
        Some(proxy_protocol::write(self.config().announce?, self.source, destination))
    }

    pub fn awaits_header(&self, awaits: bool) {
        self.awaits_header.set(awaits);
    }

    /// It took too long to begin.
    pub fn late(&self) -> Why {
        if self.awaits_header.get() {
            self.shard().proxy_header(ProxyHeader::Timeout);
        } else if self.config().tls.is_some() {
            self.shard().handshake(TlsVersion::Unknown, Handshake::Timeout);
        }
        Why::HeaderTimeout
    }

    pub fn handshake(&mut self, version: TlsVersion, result: Handshake) {
        self.shard().handshake(version, result);
        self.tls = (version != TlsVersion::Unknown).then(|| version.name());
    }

    pub fn handshake_took(&mut self, took: Duration) {
        self.shook = Some(took);
    }

    /// The name that the client asks for, in lower case.
    pub fn asked(&self) -> Option<&str> {
        self.asked.as_deref()
    }

    pub fn set_asked(&mut self, name: Option<String>) {
        self.asked = name;
    }

    pub fn try_target(&mut self, active: Active) {
        self.active = Some(active);
        self.tries += 1;
    }

    pub fn connecting_took(&mut self, took: Duration) {
        self.connect = Some(self.connect.unwrap_or_default() + took);
    }

    pub fn connected(&self) {
        if let Some(active) = &self.active {
            active.connected();
        }
    }

    /// Whether a session may go on as it is.
    pub fn target_stays(&self) -> bool {
        self.active.as_ref().is_some_and(|active| self.service.state(active.target()) != TargetState::Down)
    }

    /// Counts for the target what has passed since the last time.
    pub fn tell_bytes(&self) {
        if let Some(active) = &self.active {
            active.target().through.add_bytes(self.traffic.untold());
        }
    }

    pub fn end(&mut self, why: Option<Why>) {
        self.ended = Some(why.map_or(Ok(()), Err));
    }

    fn log(&self, why: Option<Why>) {
        let us = |duration: Duration| duration.as_micros().try_into().unwrap_or(u64::MAX);
        let at = self.worker.wall_clock(self.started);
        let id = self.worker.new_id(at);
        let protocol = self.service.config.protocol.word();
        let mut asked = access_log::RequestText::default();
        asked.name(self.asked());
        self.worker.log(&access_log::Line {
            at,
            id: id.as_bytes(),
            trace: None,
            connection: &access_log::ConnectionText::of_service(
                &self.service.name,
                self.source.ip(),
                self.peer,
                protocol,
                self.tls,
            ),
            request: &asked,
            status: None,
            route: None,
            version: None,
            consumer: None,
            upstream: None,
            target: self.active.as_ref().map(|active| &*active.target().name),
            tries: self.tries,
            why,
            cache: None,
            limit: None,
            bytes_in: self.traffic.up.get(),
            bytes_out: self.traffic.down.get(),
            us: us(self.started.elapsed()),
            us_self: None,
            us_tls: self.shook.map(us),
            us_queue: None,
            us_connect: self.connect.map(us),
            us_first_byte: None,
        });
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let cut = if self.worker.stopping() { Why::Stopped } else { Why::ClientGone };
        let why = self.ended.unwrap_or(Err(cut)).err();
        self.tell_bytes();
        if let Some(why) = why {
            self.shard().error(why);
        }
        if self.worker.logs() {
            self.log(why);
        }
        self.splice.stats.leave();
        self.worker.remove_passage();
    }
}
