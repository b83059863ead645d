//! Looking upstreams' names up, and again when their time to live is over, for as long as a config has them.
//!
//! What fails changes nothing: a name keeps the addresses that it had. An answer that there is no such name is a failure
//! too; whoever means to take all targets away can take the name out of the config.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, Record, RecordType},
};
use tokio::task::JoinHandle;

use super::control::Control;
use crate::{
    config::{model::Config, units::Lookup},
    sync::lock,
    upstream::discovered::{self, Answers, Found, Service},
};

/// Between two look-ups, whatever the time to live.
const SOONEST: Duration = Duration::from_secs(5);
const LATEST: Duration = Duration::from_secs(300);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a start or a reload waits for the first answers.
const FIRST: Duration = Duration::from_secs(2);
/// How long one name server may take, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// What is known of a name.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub found: Vec<Found>,
    /// When it was last answered.
    pub at: Option<Instant>,
    /// Why the last look-up failed.
    pub error: Option<String>,
    pub ok: u64,
    pub failed: u64,
}

#[derive(Default)]
pub struct Names {
    known: Mutex<BTreeMap<Lookup, Known>>,
    tasks: Mutex<BTreeMap<Lookup, JoinHandle<()>>>,
    /// For these name servers.
    resolver: Mutex<Option<(Vec<SocketAddr>, Arc<TokioResolver>)>>,
}

impl Names {
    /// With what another process knew.
    pub fn new(before: Vec<(Lookup, Vec<Found>)>) -> Self {
        let known = before.into_iter().map(|(lookup, found)| (lookup, Known { found, ..Known::default() }));
        Names { known: Mutex::new(known.collect()), ..Names::default() }
    }

    pub fn known(&self) -> BTreeMap<Lookup, Known> {
        lock(&self.known).clone()
    }

    pub fn answers(&self) -> Answers {
        lock(&self.known).iter().map(|(lookup, known)| (lookup.clone(), known.found.clone())).collect()
    }

    /// Whether each of them was looked up, well or not.
    fn asked(&self, wanted: &BTreeSet<Lookup>) -> bool {
        let known = lock(&self.known);
        wanted.iter().all(|lookup| known.get(lookup).is_some_and(|known| known.ok + known.failed > 0))
    }

    /// The resolver for these name servers; made anew after `forget`, as /etc/resolv.conf may have changed.
    fn resolver(&self, servers: &[SocketAddr]) -> Result<Arc<TokioResolver>, NetError> {
        let mut kept = lock(&self.resolver);
        if let Some((of, resolver)) = &*kept
            && of == servers
        {
            return Ok(resolver.clone());
        }
        let fresh = Arc::new(resolver(servers)?);
        *kept = Some((servers.to_vec(), fresh.clone()));
        Ok(fresh)
    }

    fn forget_resolver(&self) {
        *lock(&self.resolver) = None;
    }

    /// Notes an outcome: whether the addresses are others now.
    fn learn(&self, lookup: &Lookup, outcome: Result<Vec<Found>, String>) -> bool {
        let mut known = lock(&self.known);
        let known = known.entry(lookup.clone()).or_default();
        match outcome {
            Ok(found) => {
                if known.error.take().is_some() {
                    tracing::info!(name = %lookup, "the name is found again");
                }
                known.ok += 1;
                known.at = Some(Instant::now());
                let changed = known.found != found;
                known.found = found;
                changed
            }
            Err(why) => {
                if known.error.is_none() {
                    let kept = known.found.len();
                    tracing::warn!(name = %lookup, %why, kept, "the name cannot be looked up: its addresses are kept");
                }
                known.failed += 1;
                known.error = Some(why);
                false
            }
        }
    }
}

impl Control {
    /// Looks up what a config names, and nothing else from now on. On the control thread.
    pub fn follow_names(self: &Arc<Self>, config: &Config) {
        let wanted = wanted(config);
        lock(&self.names.known).retain(|lookup, _| wanted.contains(lookup));
        lock(&self.names.tasks).retain(|lookup, task| {
            let keep = wanted.contains(lookup);
            if !keep {
                task.abort();
            }
            keep
        });
        self.look_up(&wanted);
    }

    /// Begins to look up what a config names, if that is new, and waits a moment for the first answers.
    pub async fn first_answers(self: &Arc<Self>, config: &Config) {
        let wanted = wanted(config);
        self.look_up(&wanted);
        let give_up = Instant::now() + FIRST;
        while !self.names.asked(&wanted) && Instant::now() < give_up {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn look_up(self: &Arc<Self>, wanted: &BTreeSet<Lookup>) {
        let mut tasks = lock(&self.names.tasks);
        for lookup in wanted.iter().filter(|lookup| !tasks.contains_key(*lookup)).cloned().collect::<Vec<_>>()
        {
            let task = tokio::task::spawn_local(follow(self.clone(), lookup.clone()));
            tasks.insert(lookup, task);
        }
    }
}

fn wanted(config: &Config) -> BTreeSet<Lookup> {
    config.upstreams.values().flat_map(|upstream| upstream.lookups()).map(|name| name.lookup).collect()
}

async fn follow(control: Arc<Control>, lookup: Lookup) {
    loop {
        let servers = control.snapshot.load().config.gateway.resolver.clone();
        let (outcome, pause) = match ask(&control.names, &servers, &lookup).await {
            Ok((found, ttl)) => (Ok(found), ttl.clamp(SOONEST, LATEST)),
            Err(error) => {
                control.names.forget_resolver();
                (Err(error.to_string()), AGAIN)
            }
        };
        if control.names.learn(&lookup, outcome) {
            control.refresh_targets();
        }
        // Not all names of all gateways at the same moment.
        tokio::time::sleep(pause.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
    }
}

/// The addresses, and how long they hold.
async fn ask(
    names: &Names,
    servers: &[SocketAddr],
    lookup: &Lookup,
) -> Result<(Vec<Found>, Duration), NetError> {
    let resolver = names.resolver(servers)?;
    match lookup {
        Lookup::Host { name, port } => {
            let (addresses, ttl) = addresses(&resolver, name, *port).await?;
            let found = |addr| Found { addr, weight: None, priority: None };
            Ok((discovered::settle(addresses.into_iter().map(found).collect()), ttl))
        }
        Lookup::Srv(name) => services(&resolver, name).await,
    }
}

async fn services(resolver: &TokioResolver, name: &str) -> Result<(Vec<Found>, Duration), NetError> {
    let answer = resolver.lookup(name, RecordType::SRV).await?;
    let mut ttl = least_ttl(answer.answers());
    let mut services = Vec::new();
    for record in answer.answers().iter().take(discovered::MOST) {
        let RData::SRV(srv) = &record.data else { continue };
        // "." means that there is no such service.
        if srv.target.is_root() {
            continue;
        }
        let (addresses, of_host) = addresses(resolver, &srv.target.to_utf8(), srv.port).await?;
        ttl = ttl.min(of_host);
        let service = |addr| Service { priority: srv.priority, weight: srv.weight, addr };
        services.extend(addresses.into_iter().map(service));
    }
    Ok((discovered::from_services(&services), ttl))
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
    port: u16,
) -> Result<(Vec<SocketAddr>, Duration), NetError> {
    let answer = resolver.lookup_ip(name).await?;
    let usable = answer.iter().filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
    let addresses = usable.map(|ip| SocketAddr::new(ip.to_canonical(), port)).collect();
    Ok((addresses, least_ttl(answer.as_lookup().answers())))
}

fn least_ttl(records: &[Record]) -> Duration {
    records.iter().map(|record| Duration::from_secs(record.ttl.into())).min().unwrap_or(SOONEST)
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        Resolver::builder_tokio()?
    } else {
        let server = |addr: &SocketAddr| {
            let mut server = NameServerConfig::udp_and_tcp(addr.ip());
            server.connections.iter_mut().for_each(|connection| connection.port = addr.port());
            server
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // The time to live is kept here.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_addresses_and_is_told_until_the_next_answer() {
        let names = Names::default();
        let lookup: Lookup = "app:80".parse().unwrap();
        let found = vec![Found { addr: "10.0.0.1:80".parse().unwrap(), weight: None, priority: None }];
        assert!(!names.learn(&lookup, Err("time-out".into())));
        assert!(names.learn(&lookup, Ok(found.clone())));
        assert!(!names.learn(&lookup, Ok(found.clone())));
        assert!(!names.learn(&lookup, Err("no such name".into())));
        let known = &names.known()[&lookup];
        assert_eq!((&known.found, known.error.as_deref()), (&found, Some("no such name")));
        assert_eq!((known.ok, known.failed), (2, 2));
        assert!(names.learn(&lookup, Ok(Vec::new())));
        assert_eq!(names.known()[&lookup].error, None);
    }
}
