//! Services that go through userspace: to whom a connection goes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use gateway_common::{hash, source::Address};

use super::Target;
use crate::{
    balance::{Balancer, Endpoint, Rules, SEED, Tried},
    config::model::{self, Balance, L4Balance, ServiceTarget},
    observe::stats::ListenerStats,
    route::Hosts,
};

/// What went through userspace to a target.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Through {
    active: AtomicU32,
    connections: AtomicU64,
    bytes: AtomicU64,
}

impl Through {
    /// Open connections, of UDP sessions.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// All there ever were.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// In both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub fn add_bytes(&self, n: u64) {
        self.bytes.fetch_add(n, Relaxed);
    }
}

/// Counts one connection on a target for as long as it lives.
#[derive(Debug)]
pub struct Active(Arc<Target>);

impl Active {
    fn new(target: Arc<Target>) -> Self {
        target.through.active.fetch_add(1, Relaxed);
        Active(target)
    }

    pub fn target(&self) -> &Target {
        &self.0
    }

    /// It is connected to.
    pub fn connected(&self) {
        self.0.through.connections.fetch_add(1, Relaxed);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.through.active.fetch_sub(1, Relaxed);
    }
}

/// Targets among which a connection's is chosen.
#[derive(Debug)]
pub struct Group {
    members: Vec<Member>,
    balancer: Balancer,
    by_port: bool,
}

#[derive(Debug)]
struct Member {
    target: Arc<Target>,
    weight: u32,
    identity: u64,
    /// There are checks to go by.
    checked: bool,
}

impl Endpoint for Member {
    fn weight(&self) -> u32 {
        self.target.operator.weight(self.weight)
    }
    fn identity(&self) -> u64 {
        self.identity
    }
    fn active(&self) -> u32 {
        self.target.through.active()
    }
    fn usable(&self) -> bool {
        (!self.checked || self.target.healthy.load(Relaxed)) && self.available()
    }
    fn available(&self) -> bool {
        self.target.operator.taken().is_none()
    }
}

impl Group {
    fn new(config: &model::Service, listed: &[ServiceTarget], targets: &[Arc<Target>]) -> Self {
        let member = |listed: &ServiceTarget| {
            let target = targets.iter().find(|target| target.addr == listed.addr)?.clone();
            let identity = hash::of_bytes(SEED, target.name.as_bytes());
            Some(Member { target, weight: listed.weight, identity, checked: config.health.is_some() })
        };
        let members: Vec<Member> = listed.iter().filter_map(member).collect();
        let (balance, by_port) = match config.balance {
            L4Balance::Maglev => (Balance::Maglev, true),
            L4Balance::IpHash => (Balance::IpHash, false),
            L4Balance::RoundRobin => (Balance::RoundRobin, false),
            L4Balance::LeastConn => (Balance::LeastConn, false),
            L4Balance::Random => (Balance::Random, false),
        };
        let balancer = Balancer::new(balance, None, Rules::default(), &members);
        Group { members, balancer, by_port }
    }

    /// A usable target that was not tried yet, counted as active from now on.
    pub fn pick(&self, client: SocketAddr, tried: &mut Tried) -> Option<Active> {
        let key = self.by_port.then(|| {
            let of_address = hash::of_address(SEED, Address::from(client.ip()));
            hash::of_bytes(of_address, &client.port().to_be_bytes())
        });
        let index = self.balancer.pick(&self.members, client.ip(), key, *tried)?;
        tried.add(index);
        Some(Active::new(self.members.get(index)?.target.clone()))
    }
}

/// The run-time side of `path = "splice"`.
#[derive(Debug)]
pub struct Spliced {
    default: Option<Group>,
    named: Hosts<Group>,
    pub config: model::Splice,
    pub stats: Arc<ListenerStats>,
}

impl Spliced {
    pub(super) fn new(
        config: &model::Service,
        splice: &model::Splice,
        targets: &[Arc<Target>],
        stats: Arc<ListenerStats>,
    ) -> Self {
        let default = (!splice.to.is_empty()).then(|| Group::new(config, &splice.to, targets));
        let named =
            splice.sni.iter().map(|(name, to)| (name.clone(), Group::new(config, to, targets))).collect();
        Spliced { default, named, config: splice.clone(), stats }
    }

    /// Whether the name that a client asks for matters.
    pub fn by_name(&self) -> bool {
        !self.named.is_empty()
    }

    /// Where connections go whose client asks for this name, in lower case.
    pub fn group(&self, name: Option<&str>) -> Option<&Group> {
        let named = name.and_then(|name| self.named.fitting(name).next());
        named.or(self.default.as_ref())
    }

    pub(super) fn rebuild(&self) {
        self.named.values().chain(&self.default).for_each(|group| group.balancer.rebuild(&group.members));
    }
}
