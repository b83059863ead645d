//! Upstreams at run time: targets and their state, health checks, kept connections.
//!
//! [`Upstream`] and [`Target`] are shared by all workers; a [`pool::Pool`] and its connections belong to one.

pub mod health;
pub mod http1;
pub mod operator;
pub mod pool;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
};

use gateway_common::hash;

use self::{health::Checked, operator::Operator};
use crate::{
    balance::{Balancer, Endpoint, SEED, Tried},
    config::model,
    observe::{
        events,
        stats::{Registry, TargetStats, UpstreamStats},
    },
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

    /// Healthy, and not taken out by an operator: it gets requests.
    pub fn usable(&self) -> bool {
        self.healthy() && self.operator.taken().is_none()
    }

    /// It is no longer in any config: connections to it are not kept.
    pub fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    pub fn retired(&self) -> bool {
        self.retired.load(Relaxed)
    }

    fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, Relaxed);
    }
}

/// Counts one request (or upgraded connection) on a target for as long as it lives.
#[derive(Debug)]
pub struct Active(Arc<Target>);

impl Active {
    pub fn target(&self) -> &Arc<Target> {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.shared.active.fetch_sub(1, Relaxed);
    }
}

/// A target in one upstream.
#[derive(Debug, Clone)]
pub struct Member {
    pub target: Arc<Target>,
    /// As the config says.
    pub weight: u32,
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
}

impl Upstream {
    /// `old`: the same upstream of the snapshot before, whose targets are kept where the address stays.
    pub fn new(name: &str, config: &model::Upstream, old: Option<&Upstream>, registry: &Registry) -> Self {
        let member = |target: &model::Target| Member {
            target: old
                .and_then(|old| old.members.iter().find(|member| member.target.addr == target.addr))
                .map(|member| member.target.clone())
                .unwrap_or_else(|| Arc::new(Target::new(target.addr, registry.target(name, target.addr)))),
            weight: target.weight,
        };
        let members: Vec<Member> = config.targets.iter().map(member).collect();
        if config.health.is_none() {
            members.iter().for_each(|member| member.target.set_healthy(true));
        }
        Upstream {
            name: name.into(),
            balancer: Balancer::new(config.balance, config.bounded_load, &members),
            last_check: Mutex::new(vec![String::new(); members.len()]),
            members,
            config: config.clone(),
            stats: registry.upstream(name),
        }
    }

    /// A usable target that was not tried yet, counted as active from now on.
    pub fn pick(&self, client: IpAddr, tried: &mut Tried) -> Option<Active> {
        let index = self.balancer.pick(&self.members, client, *tried)?;
        tried.add(index);
        let target = self.members[index].target.clone();
        target.shared.active.fetch_add(1, Relaxed);
        Some(Active(target))
    }

    /// Marks a target and takes it out of (or back into) the balancer's table.
    pub fn set_healthy(&self, member: usize, healthy: bool) {
        self.members[member].target.set_healthy(healthy);
        self.rebuild();
    }

    /// To be called after an operator said something of a target.
    pub fn rebuild(&self) {
        self.balancer.rebuild(&self.members);
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

    fn healthy(&self) -> bool {
        self.shared().healthy()
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
