//! L4 services at run time: their targets, and what checks and operators say of them. The kernel half forwards; this
//! says to whom.

mod spliced;
mod warnings;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

pub use spliced::{Active, Spliced, Through};
pub use warnings::{lacking, not_forwarded, unreachable};

use crate::{
    config::model::{self, Health, among_listeners},
    kernel::{ServiceSpec, TargetSpec, TargetState},
    observe::{events, stats::Registry},
    proxy_protocol::Version,
    upstream::{
        health::Checked,
        operator::{Operator, Taken},
    },
};

/// By name.
pub type Services = BTreeMap<String, Arc<Service>>;

/// A target of one service. Outlives snapshots: a reload that keeps the address keeps health and overrides.
#[derive(Debug)]
pub struct Target {
    pub addr: SocketAddr,
    /// The address as text, for logs and labels.
    pub name: Arc<str>,
    pub operator: Operator,
    healthy: AtomicBool,
    /// See [`Checked::against`].
    against: AtomicU32,
    /// What the last check found.
    last_check: Mutex<String>,
    /// What went through userspace.
    pub through: Through,
}

impl Target {
    fn new(addr: SocketAddr) -> Self {
        Target {
            addr,
            name: addr.to_string().into(),
            operator: Operator::default(),
            healthy: AtomicBool::new(true),
            against: AtomicU32::new(0),
            last_check: Mutex::default(),
            through: Through::default(),
        }
    }

    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Relaxed);
    }
}

/// `[service.NAME]`, compiled.
#[derive(Debug)]
pub struct Service {
    pub name: Arc<str>,
    pub config: model::Service,
    /// In the order of the config's.
    targets: Vec<Arc<Target>>,
    /// `None`: the kernel half forwards it.
    pub splice: Option<Arc<Spliced>>,
}

/// `old`: the services before, whose targets live on where they are still named.
pub fn compile(
    config: &BTreeMap<String, model::Service>,
    old: Option<&Services>,
    registry: &Registry,
) -> Services {
    let compile = |(name, config): (&String, &model::Service)| {
        let old = old.and_then(|old| old.get(name)).map(|old| &**old);
        (name.clone(), Arc::new(Service::new(name, config, old, registry)))
    };
    config.iter().map(compile).collect()
}

/// As the kernel half takes those that it forwards.
pub fn specs(services: &Services) -> Vec<ServiceSpec<'_>> {
    services.values().filter(|service| service.splice.is_none()).map(|service| service.spec()).collect()
}

impl Service {
    fn new(name: &str, config: &model::Service, old: Option<&Service>, registry: &Registry) -> Self {
        let target = |addr: SocketAddr| {
            let kept = old.and_then(|old| old.targets.iter().find(|target| target.addr == addr));
            kept.cloned().unwrap_or_else(|| Arc::new(Target::new(addr)))
        };
        let targets: Vec<Arc<Target>> = config.targets.iter().map(|config| target(config.addr)).collect();
        let splice = config.splice.as_ref().map(|splice| {
            Arc::new(Spliced::new(config, splice, &targets, registry.listener(&among_listeners(name))))
        });
        Service { name: name.into(), config: config.clone(), targets, splice }
    }

    /// To be called after anything was said of a target.
    pub fn rebuild(&self) {
        if let Some(splice) = &self.splice {
            splice.rebuild();
        }
    }

    /// The targets, each with what the config says of it.
    pub fn targets(&self) -> impl Iterator<Item = (&Arc<Target>, &model::ServiceTarget)> {
        self.targets.iter().zip(&self.config.targets)
    }

    /// What the checks say; without checks every target is healthy.
    pub fn healthy(&self, target: &Target) -> bool {
        self.config.health.is_none() || target.healthy.load(Relaxed)
    }

    /// What the last check of a target found.
    pub fn last_check(&self, target: &Target) -> Option<String> {
        let found = target.last_check.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.config.health.is_some() && !found.is_empty()).then_some(found)
    }

    /// What becomes of a target's packets, all things considered.
    pub fn state(&self, target: &Target) -> TargetState {
        match (self.healthy(target), target.operator.taken()) {
            (false, _) | (_, Some(Taken::Down)) => TargetState::Down,
            (true, Some(Taken::Drain)) => TargetState::Draining,
            (true, None) => TargetState::Up,
        }
    }

    fn spec(&self) -> ServiceSpec<'_> {
        let target = |(target, config): (&Arc<Target>, &model::ServiceTarget)| TargetSpec {
            addr: config.addr,
            weight: target.operator.weight(config.weight),
            server_id: config.server_id,
            state: self.state(target),
        };
        ServiceSpec { name: &self.name, config: &self.config, targets: self.targets().map(target).collect() }
    }

    /// Its targets for the health checks; `changed` is told when one goes up or down.
    pub fn checked(self: &Arc<Self>, changed: &Arc<Notify>) -> Vec<Box<dyn Checked>> {
        let Some(health) = &self.config.health else { return Vec::new() };
        let check = |target: &Arc<Target>| -> Box<dyn Checked> {
            Box::new(CheckedTarget {
                service: self.name.clone(),
                target: target.clone(),
                health: health.clone(),
                changed: changed.clone(),
                announce: self.config.splice.as_ref().and_then(|splice| splice.announce),
            })
        };
        self.targets.iter().map(check).collect()
    }
}

struct CheckedTarget {
    service: Arc<str>,
    target: Arc<Target>,
    health: Health,
    changed: Arc<Notify>,
    announce: Option<Version>,
}

impl Checked for CheckedTarget {
    fn health(&self) -> &Health {
        &self.health
    }

    fn target(&self) -> (SocketAddr, &str) {
        (self.target.addr, &self.target.name)
    }

    fn healthy(&self) -> bool {
        self.target.healthy.load(Relaxed)
    }

    fn against(&self) -> &AtomicU32 {
        &self.target.against
    }

    fn proxy_protocol(&self) -> Option<Version> {
        self.announce
    }

    fn found(&self, what: String) {
        *self.target.last_check.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn change(&self, result: Result<(), String>) {
        self.target.set_healthy(result.is_ok());
        self.changed.notify_one();
        let (service, target) = (&self.service, &self.target.name);
        events::tell_of_target("service", service, target, &result);
        match result {
            Ok(()) => tracing::info!(%service, %target, "target is up"),
            Err(why) => tracing::warn!(%service, %target, %why, "target is down"),
        }
    }
}

#[cfg(test)]
mod tests;
