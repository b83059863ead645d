//! [`Snapshot`]: the config compiled to what a request needs. Immutable; a reload makes a new one and swaps it in.
//!
//! Whatever can be decided before a request comes is decided here, so that a request looks things up and allocates as
//! little as possible.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;

use crate::{
    auth::Auths,
    cache::{Cache, disk::Disks},
    config::{
        model::{self, AcmeChallenge, Config, Destination, RetryOn},
        units::{Prefixes, lenient_path},
    },
    limit::{self, Limit, RouteLimits},
    observe::{
        Why,
        stats::{ListenerStats, NO_ROUTE, Registry, RouteStats},
        trace::Tracer,
    },
    policy::{Policies, compare::Compare, fallback::Fallback},
    route::{Asked, Router, Takes},
    service::Services,
    tls::{Acceptor, Tls, acme::Challenges},
    upstream::{Upstream, discovered::Answers},
    version::{Version, Versions},
};

/// One generation of the config.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts successful loads since start; the first is 1.
    pub generation: u64,
    pub config: Config,
    pub router: Router<Arc<Route>>,
    pub listeners: BTreeMap<String, Arc<Listener>>,
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// Who answers for upstreams that cannot be asked, by their names.
    pub fallbacks: BTreeMap<String, Fallback>,
    pub services: Services,
    pub caches: BTreeMap<String, Arc<Cache>>,
    /// Where caches keep what is on disk.
    pub disks: Arc<Disks>,
    pub auths: Arc<Auths>,
    pub limits: BTreeMap<String, Arc<Limit>>,
    /// What limits remember: the same over all snapshots.
    pub limit_store: Arc<limit::Store>,
    pub penalties: Option<limit::Penalties>,
    pub tls: Tls,
    /// Some route is not for everybody.
    pub guarded: bool,
    /// `None`: requests are part of no trace.
    pub tracer: Option<Arc<Tracer>>,
    /// `Via` of what came by HTTP/1.1 (RFC 9110 section 7.6.3).
    pub via: HeaderValue,
    /// … and by HTTP/2.
    pub via_http2: HeaderValue,
}

/// `[listener.NAME]`, compiled.
#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    /// Nothing comes before HTTP/1.1.
    pub plain: bool,
    /// What one source may have of it. `None`: all of it.
    pub sources: Option<Box<limit::Sources>>,
    /// Upstreams are told by the PROXY protocol where a client's connection leads to.
    pub tells: bool,
    pub tls: Option<Arc<Acceptor>>,
    /// Where an ACME authority looks for answers (http-01).
    pub challenges: Option<Arc<Challenges>>,
    /// `Strict-Transport-Security` of every answer.
    pub hsts: Option<HeaderValue>,
    pub config: model::Listener,
    pub stats: Arc<ListenerStats>,
    /// Requests that no route took.
    pub unrouted: Arc<RouteStats>,
}

/// `[route.NAME]`, compiled.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// Its part of keys in a cache.
    pub cache_name: Box<str>,
    /// `None`: the policies say where requests go, or answer them.
    pub upstream: Option<Arc<Upstream>>,
    /// `None`: the route only forwards.
    pub policies: Option<Box<Policies>>,
    /// Lower-case protocol names.
    pub upgrade: Vec<String>,
    pub early_hints: bool,
    /// Not everybody may.
    pub guarded: bool,
    /// In place of the upstream's.
    pub timeout: model::RouteTimeout,
    /// Likewise.
    pub retry: Option<Box<model::RouteRetry>>,
    /// Which of them takes a request; the route itself takes none then.
    pub versions: Option<Box<Versions>>,
    /// It is a version of the route of that name.
    pub version: Option<Box<Version>>,
    /// By listener name.
    stats: HashMap<Arc<str>, Arc<RouteStats>>,
    only: Option<Arc<RouteStats>>,
}

impl Route {
    /// How long an upstream may take to begin its answer.
    pub fn first_byte(&self, upstream: &Upstream) -> Duration {
        let own_per_try = self.retry.as_ref().and_then(|retry| retry.per_try);
        if self.timeout.first_byte.is_none() && own_per_try.is_none() {
            return upstream.first_byte;
        }
        let first_byte = self.timeout.first_byte.unwrap_or(upstream.config.timeout.first_byte);
        let per_try = own_per_try.unwrap_or(upstream.config.retry.per_try);
        per_try.map_or(first_byte, |per_try| per_try.min(first_byte))
    }

    /// What is retried at other targets, and at how many.
    pub fn retries(&self, upstream: &Upstream) -> (RetryOn, u32) {
        let of_upstream = &upstream.config.retry;
        self.retry.as_ref().map_or((of_upstream.on, of_upstream.tries), |own| own.over(of_upstream))
    }

    /// How long nothing may come of an answer's body.
    pub fn idle(&self, upstream: &Upstream) -> Duration {
        self.timeout.idle.unwrap_or(upstream.config.timeout.idle)
    }

    /// How long all of it may take.
    pub fn total(&self, upstream: &Upstream) -> Option<Duration> {
        self.timeout.total.unwrap_or(upstream.config.timeout.total)
    }

    /// Whether the request is a preflight that the route answers.
    pub fn preflights(&self, head: &http::request::Parts) -> bool {
        let cors = self.policies.as_ref().and_then(|policies| policies.cors.as_ref());
        cors.is_some_and(|cors| cors.preflight(head).is_some())
    }

    pub fn stats<'a>(&'a self, listener: &'a Listener) -> &'a RouteStats {
        self.only.as_ref().or_else(|| self.stats.get(&listener.name)).unwrap_or(&listener.unrouted)
    }
}

impl Snapshot {
    /// `services`, `tls`, `auths`, `disks`: those of the config. `answers`: what names were found to be. `old`: the snapshot before, whose targets live on where they are still named.
    pub fn compile(
        config: Config,
        services: Services,
        (tls, auths, disks): (Tls, Arc<Auths>, Arc<Disks>),
        answers: &Answers,
        generation: u64,
        old: Option<&Snapshot>,
        registry: &Registry,
    ) -> Snapshot {
        let http01 = config.acme.as_ref().is_some_and(|acme| acme.challenge == AcmeChallenge::Http01);
        let tells = config.upstreams.values().any(|upstream| upstream.proxy_protocol.is_some());
        let limit_store = match old {
            Some(old) => old.limit_store.clone(),
            None => Arc::new(limit::Store::new(&config, &tls.vault, registry.workers())),
        };
        limit_store.bans.seal_with(&tls.vault);
        let listeners: BTreeMap<String, Arc<Listener>> = config
            .listeners
            .iter()
            .map(|(name, listener)| {
                let sources =
                    limit::Sources::new(&limit_store, name, &listener.max, spared(&config, listener));
                let listener = Listener::new(name, listener, (tells, http01), &tls, registry);
                (name.clone(), Arc::new(Listener { sources, ..listener }))
            })
            .collect();
        let zone = config.gateway.zone.as_deref();
        let same_config = old.is_some_and(|old| old.generation == generation);
        let upstreams: BTreeMap<String, Arc<Upstream>> = config
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                let connector = tls.connectors.get(name).cloned();
                let old = old.and_then(|old| old.upstreams.get(name));
                // Only names are others now: the rest of the upstreams go on as they are.
                if let Some(same) = old.filter(|old| same_config && old.is_up_to_date(answers)) {
                    return (name.clone(), same.clone());
                }
                let old = old.map(|old| &**old);
                let fresh = Upstream::new(name, upstream, answers, zone, connector, old, registry);
                (name.clone(), Arc::new(fresh))
            })
            .collect();
        let with_fallback = config.upstreams.iter().filter_map(|(name, upstream)| {
            let fallback = upstream.fallback.as_ref()?;
            Some((name.clone(), Fallback::new(fallback, |name| upstreams.get(name).cloned())))
        });
        let fallbacks = with_fallback.collect();
        let caches = caches(&config, &disks, old, registry);
        limit_store.shared.configure(config.shared.as_ref());
        let limits: BTreeMap<String, Arc<Limit>> = config
            .limits
            .iter()
            .map(|(name, limit)| (name.clone(), Arc::new(Limit::new(name, limit, &limit_store, registry))))
            .collect();
        let parts = Parts {
            auths: &auths,
            limits: (&limits, &limit_store),
            upstreams: &upstreams,
            caches: &caches,
            listeners: &listeners,
            registry,
        };
        let routes: Vec<(&model::Route, Arc<Route>)> = config
            .routes
            .iter()
            .map(|(name, route)| (route, Arc::new(Route::new(name, route, None, parts))))
            .collect();
        let router = Router::new(routes.iter().flat_map(taken));
        let via = |version: &str| {
            let via = format!("{version} {}", pseudonym(&config.gateway.name));
            HeaderValue::from_str(&via).unwrap_or(HeaderValue::from_static("1.1 gateway"))
        };
        let (via, via_http2) = (via("1.1"), via("2.0"));
        let tracer = config.tracing.as_ref();
        let tracer =
            tracer.map(|tracing| Arc::new(Tracer::new(tracing, &config.gateway.name, &config.access_log)));
        Snapshot {
            guarded: config.routes.values().any(is_guarded),
            tracer,
            generation,
            router,
            listeners,
            upstreams,
            fallbacks,
            services,
            caches,
            disks,
            auths,
            limits,
            penalties: config.penalty.as_ref().map(|penalty| limit::Penalties::new(&limit_store, penalty)),
            limit_store,
            tls,
            via,
            via_http2,
            config,
        }
    }

    /// The same config with what names were found to be since.
    pub fn refresh(&self, answers: &Answers, registry: &Registry) -> Snapshot {
        let (config, services) = (self.config.clone(), self.services.clone());
        let read = (self.tls.clone(), self.auths.clone(), self.disks.clone());
        Snapshot::compile(config, services, read, answers, self.generation, Some(self), registry)
    }

    /// Requests are answered by this one now.
    pub fn take_over_caches(&self, old: &Snapshot) {
        for (name, old) in &old.caches {
            let new = self.caches.get(name);
            if let Some(new) = new {
                new.take_over(old);
            }
            if let Some(disk) = old.disk()
                && !new.and_then(|new| new.disk()).is_some_and(|new| Arc::ptr_eq(new, disk))
            {
                disk.end();
            }
        }
    }

    /// Writes what caches have still to write, and lets others have their directories.
    pub fn close_disks(&self) {
        self.caches.values().filter_map(|cache| cache.disk()).for_each(|disk| disk.close());
    }

    /// Marks the targets that `new` no longer has.
    pub fn retire_targets(&self, new: &Snapshot) {
        let targets = |snapshot: &Snapshot| -> Vec<_> {
            let members = snapshot.upstreams.values().flat_map(|upstream| &upstream.members);
            members.map(|member| member.target.clone()).collect()
        };
        let kept = targets(new);
        for target in targets(self).iter().filter(|old| !kept.iter().any(|new| Arc::ptr_eq(old, new))) {
            target.retire();
        }
    }

    /// Whether a lenient upstream would take a request for that of another route, which not everybody may use.
    pub fn is_confusing(&self, asked: &Asked<'_>, route: &Arc<Route>) -> bool {
        let lenient = || lenient_path(asked.path);
        self.guarded
            && lenient().is_some_and(|path| {
                let other = self.router.find(&Asked { path: &path, ..*asked });
                other.is_some_and(|other| other.guarded && !Arc::ptr_eq(other, route))
            })
    }

    /// Who answers for an upstream of which nothing came but `why`.
    pub fn fallback(&self, upstream: &Upstream, why: Why) -> Option<&Fallback> {
        self.fallbacks.get(&*upstream.name).filter(|fallback| fallback.is_for(why))
    }

    pub fn drain(&self) -> Duration {
        self.config.gateway.drain
    }
}

/// A route's part of the keys in a cache.
fn cache_names<'a>(
    name: &'a str,
    route: &'a model::Route,
) -> impl Iterator<Item = (String, &'a model::Route)> {
    let versions = route.versions.iter().flat_map(|versions| &versions.versions);
    let of_version = move |version: &'a model::ApiVersion| {
        (cache_name(name, Some(&version.name.to_string())), &version.route)
    };
    std::iter::once((cache_name(name, None), route)).chain(versions.map(of_version))
}

fn cache_name(route: &str, version: Option<&str>) -> String {
    version.map_or_else(|| route.to_owned(), |version| format!("{route}/{version}"))
}

fn caches(
    config: &Config,
    disks: &Disks,
    old: Option<&Snapshot>,
    registry: &Registry,
) -> BTreeMap<String, Arc<Cache>> {
    let one = |(name, cache): (&String, &model::Cache)| {
        let all = config.routes.iter().flat_map(|(name, route)| cache_names(name, route));
        let uses = all.filter(|(_, route)| route.cache.as_ref() == Some(name));
        let routes = uses.map(|(part, _)| part).collect();
        let old = old.and_then(|old| old.caches.get(name)).map(|old| &**old);
        (name.clone(), Arc::new(Cache::new(name, cache, routes, disks, old, registry)))
    };
    config.caches.iter().map(one).collect()
}

/// What a route takes, which is one route however many ways there are to it.
fn taken<'a>(
    (route, compiled): &(&'a model::Route, Arc<Route>),
) -> impl Iterator<Item = (Takes<'a>, Arc<Route>)> + use<'a> {
    let compiled = compiled.clone();
    Takes::all_of(route).map(move |takes| (takes, compiled.clone()))
}

/// Whether a route is not for everybody.
fn is_guarded(route: &model::Route) -> bool {
    let versions = route.versions.iter().flat_map(|versions| &versions.versions);
    route.auth.is_some()
        || route.guard.allow_from.is_some()
        || route.guard.deny_from.is_some()
        || versions.into_iter().any(|version| is_guarded(&version.route))
}

/// Whom limits of one source do not concern: proxies, behind which there are many, and who is exempt.
fn spared(config: &Config, listener: &model::Listener) -> Prefixes {
    let proxies = listener.real_ip.iter().map(|proxies| &proxies.from);
    let proxies = proxies.chain(listener.proxy_protocol.iter().map(|proxies| &proxies.from));
    let exempt = config.kernel.limit.exempt.iter().copied();
    Prefixes::new(proxies.flat_map(|proxies| proxies.listed()).copied().chain(exempt).collect())
}

/// `Via` takes a token as a pseudonym.
fn pseudonym(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' }).collect()
}

impl Listener {
    /// Whether the PROXY protocol tells whose connections those of `peer` are.
    pub fn hears_of_clients(&self, peer: SocketAddr) -> bool {
        let proxy = self.config.proxy_protocol.as_ref();
        proxy.is_some_and(|proxy| proxy.from.contain(peer.ip().to_canonical()))
    }

    /// `tells`, `http01`: whether any listener needs to know for the PROXY protocol and for ACME.
    fn new(
        name: &str,
        config: &model::Listener,
        (tells, http01): (bool, bool),
        tls: &Tls,
        registry: &Registry,
    ) -> Self {
        let hsts = config.hsts.as_ref();
        Listener {
            name: name.into(),
            plain: config.tls.is_none() && !config.http2 && config.proxy_protocol.is_none() && !tells,
            sources: None,
            tells,
            tls: tls.acceptors.get(name).cloned(),
            challenges: (http01 && config.tls.is_none()).then(|| tls.challenges.clone()),
            hsts: hsts.and_then(|hsts| HeaderValue::from_str(&hsts.value()).ok()),
            config: config.clone(),
            stats: registry.listener(name),
            unrouted: registry.route(name, NO_ROUTE),
        }
    }
}

/// What routes are made of.
#[derive(Clone, Copy)]
struct Parts<'a> {
    auths: &'a Auths,
    limits: (&'a BTreeMap<String, Arc<Limit>>, &'a Arc<limit::Store>),
    upstreams: &'a BTreeMap<String, Arc<Upstream>>,
    caches: &'a BTreeMap<String, Arc<Cache>>,
    listeners: &'a BTreeMap<String, Arc<Listener>>,
    registry: &'a Registry,
}

impl Route {
    fn new(name: &str, config: &model::Route, version: Option<Version>, parts: Parts<'_>) -> Self {
        let Parts { auths, limits, upstreams, caches, listeners, registry } = parts;
        let of_version = version.as_ref().map_or("", |version| &*version.name);
        let stats: HashMap<Arc<str>, Arc<RouteStats>> = listeners
            .iter()
            .map(|(listener, compiled)| (compiled.name.clone(), registry.version(listener, name, of_version)))
            .collect();
        let versions = config.versions.as_ref().map(|versions| {
            let route =
                |of: &model::ApiVersion, version| Arc::new(Route::new(name, &of.route, Some(version), parts));
            Box::new(Versions::new(versions, route, |version| registry.usage(name, version)))
        });
        let (known, store) = limits;
        let named = config.limits.iter().filter_map(|name| known.get(name).cloned());
        let limits = RouteLimits::new(store, named.collect());
        let mut policies = Policies::new(
            config,
            auths,
            |name| upstreams.get(name).cloned(),
            |name| caches.get(name).cloned(),
            limits,
        );
        if let Some(mirror) = policies.as_mut().and_then(|policies| policies.mirror.as_mut()) {
            let config = config.mirror.as_ref();
            let compare = config.and_then(|mirror| mirror.compare.as_ref());
            let shadow = mirror.version.as_ref().map_or(&*mirror.upstream.name, |version| &version.name);
            mirror.compare = compare.map(|compare| {
                Compare::new(compare, (name, of_version, shadow), registry.compared(name, of_version))
            });
        }
        if version.is_some() {
            // Its answers say so.
            policies.get_or_insert_default();
        }
        Route {
            name: name.into(),
            cache_name: cache_name(name, version.as_ref().map(|version| &*version.name)).into(),
            // `config::load` made sure that it exists.
            upstream: match &config.to {
                Destination::Upstream(name) => upstreams.get(name).cloned(),
                _ => None,
            },
            policies,
            upgrade: config.upgrade.clone(),
            early_hints: config.early_hints,
            guarded: is_guarded(config),
            timeout: config.timeout.clone(),
            retry: (config.retry != model::RouteRetry::default()).then(|| Box::new(config.retry.clone())),
            versions,
            version: version.map(Box::new),
            only: if stats.len() == 1 { stats.values().next().cloned() } else { None },
            stats,
        }
    }
}
