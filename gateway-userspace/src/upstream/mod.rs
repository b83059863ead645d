//! Upstreams at run time: targets and their state, health checks, kept connections.
//!
//! [`Upstream`] and [`Target`] are shared by all workers; a [`pool::Pool`] and its connections belong to one.

pub mod breaker;
pub mod budget;
pub mod clock;
pub mod discovered;
pub mod eject;
pub mod extras;
mod gauge;
pub mod health;
pub mod http1;
pub mod http2;
pub mod key;
pub mod link;
pub mod operator;
pub mod pool;
mod probe;
pub mod queue;
mod window;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use gateway_common::hash;

use self::{
    clock::{millis, now_ms},
    discovered::Answers,
    eject::Passive,
    extras::Extras,
    health::Checked,
    operator::Operator,
    queue::Queue,
};
use crate::{
    balance::{Balancer, Endpoint, PeakEwma, Rules, SEED, Tried},
    config::model,
    observe::{
        events,
        stats::{Registry, TargetStats, UpstreamStats},
    },
    proxy_protocol::Version,
    tls::Connector,
};

/// One address of an upstream. Outlives snapshots: a reload that keeps the address keeps its health and its counts.
#[derive(Debug)]
pub struct Target {
    pub addr: SocketAddr,
    /// The address as text, for logs and labels.
    pub name: Arc<str>,
    identity: u64,
    /// Unique among all targets ever made, and small: where pools keep its connections.
    slot: usize,
    pub stats: Arc<TargetStats>,
    pub operator: Operator,
    /// What requests saw of it.
    pub passive: Passive,
    pub latency: PeakEwma,
    /// When it came back into use; 0: it always was. For `slow_start`.
    back_since: AtomicU64,
    /// See [`Checked::against`].
    against: AtomicU32,
    retired: AtomicBool,
    shared: Shared,
}

static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

/// On a cache line of its own: every worker writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Shared {
    active: AtomicU32,
    healthy: AtomicBool,
}

impl Target {
    fn new(addr: SocketAddr, stats: Arc<TargetStats>) -> Self {
        let name: Arc<str> = addr.to_string().into();
        let identity = hash::of_bytes(SEED, name.as_bytes());
        let slot = NEXT_SLOT.fetch_add(1, Relaxed);
        Target {
            addr,
            name,
            identity,
            slot,
            stats,
            operator: Operator::default(),
            passive: Passive::default(),
            latency: PeakEwma::default(),
            back_since: AtomicU64::new(0),
            against: AtomicU32::new(0),
            retired: AtomicBool::new(false),
            shared: Shared { active: AtomicU32::new(0), healthy: AtomicBool::new(true) },
        }
    }

    pub fn active(&self) -> u32 {
        self.shared.active.load(Relaxed)
    }

    /// What the checks say.
    pub fn healthy(&self) -> bool {
        self.shared.healthy.load(Relaxed)
    }

    /// Healthy, and taken out neither by its errors nor by an operator: it gets requests.
    pub fn usable(&self) -> bool {
        self.healthy() && !self.passive.ejected() && self.operator.taken().is_none()
    }

    /// It is no longer in any config: connections to it are not kept.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    pub fn retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    /// Stable over restarts: what its sticky cookie says.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Relaxed);
    }
}

/// Counts one request (or upgraded connection) on a target for as long as it lives.
#[derive(Debug)]
pub struct Active {
    target: Arc<Target>,
    /// Whom to tell that there is room again.
    queue: Option<Arc<Queue>>,
    counts: bool,
}

impl Active {
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Stops counting; which target it was is still known.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.counts) {
            self.target.shared.active.fetch_sub(1, Relaxed);
            if let Some(queue) = self.queue.take() {
                queue.offer();
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.release();
    }
}

/// A target in one upstream.
#[derive(Debug, Clone)]
pub struct Member {
    pub target: Arc<Target>,
    /// As the config says.
    pub weight: u32,
    /// The most requests in flight on it.
    max: u32,
    priority: u8,
    in_own_zone: bool,
    /// 0: at once.
    slow_start_ms: u64,
    /// What the balancer's table was last made of.
    in_use: Arc<AtomicBool>,
}

impl Member {
    /// The most requests in flight on it, if there is such a limit.
    pub fn max(&self) -> Option<u32> {
        (self.max < u32::MAX).then_some(self.max)
    }

    /// Since it came back: whether it has not got all of its weight yet.
    fn ramping(&self) -> bool {
        self.ramp() < 100
    }
}

impl Endpoint for Member {
    fn weight(&self) -> u32 {
        self.target.operator.weight(self.weight)
    }
    fn identity(&self) -> u64 {
        self.target.identity
    }
    fn active(&self) -> u32 {
        self.target.active()
    }
    fn usable(&self) -> bool {
        self.target.usable()
    }
    fn available(&self) -> bool {
        self.target.operator.taken().is_none()
    }
    fn priority(&self) -> u8 {
        self.priority
    }
    fn in_own_zone(&self) -> bool {
        self.in_own_zone
    }
    fn ramp(&self) -> u32 {
        match (self.slow_start_ms, self.target.back_since.load(Relaxed)) {
            (0, _) | (_, 0) => 100,
            (whole, since) => {
                let part = now_ms().saturating_sub(since).min(whole);
                (10 + 90 * part / whole) as u32
            }
        }
    }
    fn latency(&self) -> u64 {
        self.target.latency.get(now_ms())
    }
}

/// `[upstream.NAME]`, compiled.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub members: Vec<Member>,
    balancer: Balancer,
    pub config: model::Upstream,
    pub stats: Arc<UpstreamStats>,
    /// What the checks found last, a target each; for `status`.
    pub last_check: Mutex<Vec<String>>,
    /// `None`: the plain way, see `proxy/forward.rs`.
    pub extras: Option<Box<Extras>>,
    /// `timeout.first_byte`, or `retry.per_try` if that is less.
    pub first_byte: Duration,
    /// `None`: in clear.
    pub tls: Option<Arc<Connector>>,
    /// When the table was last made, for those that start slowly.
    built: AtomicU64,
}

impl Upstream {
    /// `old`: the same upstream of the snapshot before, whose targets are kept where the address stays.
    /// `answers`: what its names were found to be. `zone`: where this gateway stands. `tls`: if its targets are spoken to so.
    pub fn new(
        name: &str,
        config: &model::Upstream,
        answers: &Answers,
        zone: Option<&str>,
        tls: Option<Arc<Connector>>,
        old: Option<&Upstream>,
        registry: &Registry,
    ) -> Self {
        // Connections are kept with the target: those of the old way must not be used for the new one.
        let same_way = |old: &&Upstream| {
            let same_tls = old.tls.as_ref().map(Arc::as_ptr) == tls.as_ref().map(Arc::as_ptr);
            same_tls && old.config.protocol == config.protocol
        };
        let kept = |target: &model::Target| {
            let member =
                old.filter(same_way)?.members.iter().find(|member| member.target.addr == target.addr)?;
            Some(member.target.clone())
        };
        let fresh = |target: &model::Target| {
            let fresh = Target::new(target.addr, registry.target(name, target.addr));
            // Added to an upstream that is at work.
            fresh.back_since.store(if old.is_some() { now_ms() } else { 0 }, Relaxed);
            Arc::new(fresh)
        };
        let member = |target: &model::Target| Member {
            target: kept(target).unwrap_or_else(|| fresh(target)),
            weight: target.weight,
            max: target.max.or(config.pool.max).unwrap_or(u32::MAX),
            priority: target.priority,
            in_own_zone: zone.is_some() && target.zone.as_deref() == zone,
            slow_start_ms: config.slow_start.map_or(0, millis),
            in_use: Arc::new(AtomicBool::new(true)),
        };
        if let Some(tls) = &tls {
            tls.name_targets(discovered::names(config, answers).into_iter());
        }
        let members: Vec<Member> = discovered::targets(config, answers).iter().map(member).collect();
        if config.health.is_none() {
            members.iter().for_each(|member| member.target.set_healthy(true));
        }
        if config.eject.is_none() {
            members.iter().for_each(|member| member.target.passive.pardon());
        }
        members.iter().for_each(|member| member.in_use.store(member.usable(), Relaxed));
        let rules = Rules { panic: config.panic.unwrap_or_default(), spill: config.spill };
        let first_byte = config.timeout.first_byte;
        Upstream {
            name: name.into(),
            balancer: Balancer::new(config.balance, config.bounded_load, rules, &members),
            last_check: Mutex::new(vec![String::new(); members.len()]),
            members,
            config: config.clone(),
            stats: registry.upstream(name),
            extras: Extras::new(config, old),
            first_byte: config.retry.per_try.map_or(first_byte, |per_try| per_try.min(first_byte)),
            tls,
            built: AtomicU64::new(now_ms()),
        }
    }

    /// Whether it has the targets that it should have by now.
    pub fn is_up_to_date(&self, answers: &Answers) -> bool {
        let targets = discovered::targets(&self.config, answers);
        let same = |(member, target): (&Member, &model::Target)| {
            let said = (member.weight, member.priority, member.max());
            member.target.addr == target.addr
                && said == (target.weight, target.priority, target.max.or(self.config.pool.max))
        };
        self.members.len() == targets.len() && self.members.iter().zip(&targets).all(same)
    }

    /// A usable target that was not tried yet, counted as active from now on.
    pub fn pick(&self, client: IpAddr, tried: &mut Tried) -> Option<Active> {
        let index = self.balancer.pick(&self.members, client, None, *tried)?;
        tried.add(index);
        Some(self.take(index))
    }

    /// As [`Upstream::pick`], with what the request says: `key` is that of `hash_on`, `stuck` the identity of the target
    /// that its cookie names.
    pub fn pick_by(
        &self,
        client: IpAddr,
        key: Option<u64>,
        stuck: Option<u64>,
        tried: &mut Tried,
    ) -> Option<Active> {
        let index = self.choose(client, key, stuck, *tried)?;
        tried.add(index);
        Some(self.take(index))
    }

    fn choose(&self, client: IpAddr, key: Option<u64>, stuck: Option<u64>, tried: Tried) -> Option<usize> {
        let named = |identity: u64| {
            let index = self.members.iter().position(|member| member.target.identity == identity)?;
            (self.members[index].usable() && !tried.has(index)).then_some(index)
        };
        stuck.and_then(named).or_else(|| self.balancer.pick(&self.members, client, key, tried))
    }

    /// Where requests of this client, or with this key, go, if that is a matter of hashing.
    pub fn hashed(&self, client: IpAddr, key: Option<u64>) -> Option<&Target> {
        let index = self.balancer.pick(&self.members, client, key, Tried::default())?;
        self.members.get(index).map(|member| &*member.target)
    }

    fn take(&self, index: usize) -> Active {
        let target = self.members[index].target.clone();
        target.shared.active.fetch_add(1, Relaxed);
        Active { target, queue: None, counts: true }
    }

    /// Marks a target and takes it out of (or back into) the balancer's table.
    pub fn set_healthy(&self, member: usize, healthy: bool) {
        self.members[member].target.set_healthy(healthy);
        self.rebuild();
    }

    /// To be called after anything was said of a target.
    pub fn rebuild(&self) {
        let now = now_ms();
        for member in &self.members {
            let usable = member.usable();
            if member.in_use.swap(usable, Relaxed) != usable && usable {
                member.target.back_since.store(now, Relaxed);
            }
        }
        self.built.store(now, Relaxed);
        self.balancer.rebuild(&self.members);
        if let Some(queue) = self.queue() {
            queue.offer();
        }
    }

    /// So few targets are healthy that all are used.
    pub fn panics(&self) -> bool {
        self.balancer.panics()
    }

    /// Ten times a second: what time alone changes. Also what a request found out that still had an older snapshot.
    pub fn tick(&self) {
        let now = now_ms();
        for member in self.members.iter().filter(|member| member.target.passive.expire(now)) {
            self.tell_back(&member.target);
        }
        let changed = self.members.iter().any(|member| member.in_use.load(Relaxed) != member.usable());
        let step = self.config.slow_start.map_or(0, millis) / 50;
        let due = step > 0 && now.saturating_sub(self.built.load(Relaxed)) >= step;
        if changed || (due && self.members.iter().any(Member::ramping)) {
            self.rebuild();
        } else if let Some(queue) = self.queue() {
            // Requests of a time without caps end without a word.
            queue.offer();
        }
    }

    /// Its targets for the health checks.
    pub fn checked(self: &Arc<Self>) -> Vec<Box<dyn Checked>> {
        let Some(health) = &self.config.health else { return Vec::new() };
        let check = |member| -> Box<dyn Checked> {
            Box::new(CheckedMember { upstream: self.clone(), member, health: health.clone() })
        };
        (0..self.members.len()).map(check).collect()
    }

    fn note_check(&self, member: usize, found: String) {
        if let Some(slot) = self.last_check.lock().unwrap_or_else(PoisonError::into_inner).get_mut(member) {
            *slot = found;
        }
    }
}

struct CheckedMember {
    upstream: Arc<Upstream>,
    member: usize,
    health: model::Health,
}

impl CheckedMember {
    fn shared(&self) -> &Target {
        &self.upstream.members[self.member].target
    }
}

impl Checked for CheckedMember {
    fn health(&self) -> &model::Health {
        &self.health
    }

    fn target(&self) -> (SocketAddr, &str) {
        (self.shared().addr, &self.shared().name)
    }

    fn way(&self) -> (Option<&Connector>, model::UpstreamProtocol) {
        (self.upstream.tls.as_deref(), self.upstream.config.protocol)
    }

    fn healthy(&self) -> bool {
        self.shared().healthy()
    }

    fn against(&self) -> &AtomicU32 {
        &self.shared().against
    }

    fn proxy_protocol(&self) -> Option<Version> {
        self.upstream.config.proxy_protocol
    }

    fn found(&self, what: String) {
        self.upstream.note_check(self.member, what);
    }

    fn change(&self, result: Result<(), String>) {
        self.upstream.set_healthy(self.member, result.is_ok());
        let (upstream, target) = (&self.upstream.name, &self.shared().name);
        events::tell_of_target("upstream", upstream, target, &result);
        match result {
            Ok(()) => tracing::info!(%upstream, %target, "target is up"),
            Err(why) => tracing::warn!(%upstream, %target, %why, "target is down"),
        }
    }
}
