//! What would become of a request, told without one: the same checks, router and tables, and nothing that counts.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{HeaderValue, Method, Request, Uri, header, request, uri::Scheme};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    cached::{self, CacheTold},
    handler::asked,
    strict, versioned,
};
use crate::{
    config::{
        self,
        model::{Balance, Bind, Destination},
        units::Moment,
    },
    limit::{Facts, Foreseen},
    observe::Why,
    policy::fallback::Fallback,
    route::why_not,
    runtime::{Listener, Route, Snapshot},
    upstream::{Upstream, clock::now_ms, key},
    version::{Standing, path_without},
};

/// A request as `gateway explain` asks for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestSpec {
    pub method: String,
    pub url: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The client. Default 127.0.0.1.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// Default: the one at the URL's port.
    #[serde(default)]
    pub listener: Option<String>,
    /// Who calls. Default: nobody known.
    #[serde(default)]
    pub consumer: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Explained {
    pub listener: String,
    /// As it is routed: with its path normalised.
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    /// Which certificates clients of the host show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ClientCertTold>,
    /// The word for it, where the gateway answers by itself, and the status that it answers with.
    pub why: Option<&'static str>,
    pub status: Option<u16>,
    pub route: Option<String>,
    /// The version of the API that takes it, and why that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionTold>,
    /// The route's settings, or the version's.
    pub settings: Option<Value>,
    /// What its cache would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheTold>,
    pub upstreams: Vec<Destined>,
    /// What its limits would say, and how near they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Foreseen>,
    /// Why the other routes do not take it.
    pub others: Vec<Other>,
    /// In words.
    pub outcome: String,
}

#[derive(Debug, Serialize)]
pub struct ClientCertTold {
    /// There is no connection without a good one; else one that is shown must be good.
    pub required: bool,
    /// Whose certificates are good.
    pub ca: String,
    /// The name of `tls.clients` whose rules these are. `None`: they are the listener's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Destined {
    pub upstream: String,
    /// Its part of the requests, where they are split.
    pub weight: Option<u32>,
    pub balance: &'static str,
    /// Where this client's requests go. `None`: to each in turn, or by load.
    pub target: Option<String>,
    pub usable: Vec<String>,
    /// The state of its circuit breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<&'static str>,
    /// Who answers where it cannot be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct VersionTold {
    pub name: String,
    pub why: String,
    /// Of a deprecated one, the date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<Moment>,
}

#[derive(Debug, Serialize)]
pub struct Other {
    pub route: String,
    pub why: String,
}

/// # Errors
/// The question makes no sense: why.
pub fn explain(snapshot: &Snapshot, spec: &RequestSpec) -> Result<Explained, String> {
    let url: Uri = spec.url.parse().map_err(|error| format!("the URL {:?}: {error}", spec.url))?;
    let listener = listener(snapshot, spec, &url)?;
    known(snapshot, spec)?;
    let mut head = head(spec, &url)?;
    let mut told = Explained {
        listener: listener.name.to_string(),
        host: url.authority().map(ToString::to_string).unwrap_or_default(),
        path: url.path().to_owned(),
        query: url.query().map(str::to_owned),
        client_cert: client_cert(listener, asked(&head).host),
        why: None,
        status: None,
        route: None,
        version: None,
        settings: None,
        cache: None,
        upstreams: Vec::new(),
        limits: Vec::new(),
        others: Vec::new(),
        outcome: String::new(),
    };
    if snapshot.limit_store.bans.check(client(spec).to_canonical()).is_some() {
        return Ok(told.refused(Why::Banned));
    }
    if let Err(why) = strict::check_host(&mut head).and_then(|()| strict::normalise_path(&mut head)) {
        return Ok(told.refused(why));
    }
    told.path = head.uri.path().to_owned();
    if let Some(port) = listener.config.redirect {
        told.outcome = format!("redirected to https, port {port}, by the listener");
        return Ok(told);
    }
    let found = snapshot.router.find(&asked(&head));
    told.others = others(snapshot, &head, found.map(|route| &*route.name));
    match found {
        Some(route) => {
            let route = route.clone();
            Ok(told.versioned(snapshot, &route, &mut head, spec))
        }
        None if snapshot.router.allowed(&asked(&head)).is_some() => Ok(told.refused(Why::MethodNotAllowed)),
        None => Ok(told.refused(Why::NoRoute)),
    }
}

/// The one that takes a request.
///
/// # Errors
/// There is none: why.
pub fn listener<'a>(snapshot: &'a Snapshot, spec: &RequestSpec, url: &Uri) -> Result<&'a Listener, String> {
    let names = || snapshot.listeners.keys().cloned().collect::<Vec<_>>().join(", ");
    if let Some(name) = &spec.listener {
        let found = snapshot.listeners.get(name);
        return found
            .map(|found| &**found)
            .ok_or_else(|| format!("there is no listener {name:?}; there are: {}", names()));
    }
    let tls = url.scheme() == Some(&Scheme::HTTPS);
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let at_port = snapshot.listeners.values().find(|listener| {
        let bind = match listener.config.bind {
            Bind::Any(port) => port,
            Bind::Addr(addr) => addr.port(),
        };
        bind == port && listener.tls.is_some() == tls
    });
    let protocol = if tls { "https" } else { "http" };
    at_port.map(|found| &**found).ok_or_else(|| {
        format!(
            "no listener takes {protocol} at port {port}; name one of {} with --listener, or another port",
            names()
        )
    })
}

fn client_cert(listener: &Listener, host: &str) -> Option<ClientCertTold> {
    let (name, rules) = listener.tls.as_ref()?.client_auth(host)?;
    Some(ClientCertTold {
        required: rules.required,
        ca: rules.ca.display().to_string(),
        host: name.map(ToString::to_string),
    })
}

fn known(snapshot: &Snapshot, spec: &RequestSpec) -> Result<(), String> {
    match &spec.consumer {
        Some(name) if !snapshot.config.consumers.contains_key(name) => {
            Err(format!("there is no consumer {name:?}"))
        }
        _ => Ok(()),
    }
}

fn head(spec: &RequestSpec, url: &Uri) -> Result<request::Parts, String> {
    let method =
        Method::from_bytes(spec.method.as_bytes()).map_err(|_| format!("{:?} is no method", spec.method))?;
    let target = url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(target);
    let named = spec.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if let (Some(authority), false) = (url.authority(), named) {
        request = request
            .header(header::HOST, HeaderValue::from_str(authority.as_str()).map_err(|e| e.to_string())?);
    }
    for (name, value) in &spec.headers {
        request = request.header(name, value);
    }
    Ok(request.body(()).map_err(|error| format!("the header: {error}"))?.into_parts().0)
}

fn others(snapshot: &Snapshot, head: &request::Parts, winner: Option<&str>) -> Vec<Other> {
    let routes = snapshot.config.routes.iter().filter(|(name, _)| Some(name.as_str()) != winner);
    let why = |(name, route): (&String, &config::model::Route)| Other {
        route: name.clone(),
        why: why_not(&asked(head), route).unwrap_or_else(|| {
            format!("would take it, but {} is more specific", winner.unwrap_or("another"))
        }),
    };
    routes.map(why).collect()
}

impl Explained {
    fn refused(mut self, why: Why) -> Self {
        self.why = Some(why.name());
        self.status = Some(why.status().as_u16());
        self.outcome = format!("refused: {} ({})", why.title(), why.status().as_u16());
        self
    }

    /// Of a route with versions, the one that takes the request.
    fn versioned(
        mut self,
        snapshot: &Snapshot,
        route: &Route,
        head: &mut request::Parts,
        spec: &RequestSpec,
    ) -> Self {
        let Some(versions) = &route.versions else {
            return self.taken(snapshot, route, head, spec).limited();
        };
        let picked = match versions.chooser.choose(&asked(head)) {
            Ok(picked) => picked,
            Err(refused) => {
                let (why, status) = versioned::status_of(versions, refused);
                let detail = versioned::detail(versions, refused, head);
                self.route = Some(route.name.to_string());
                let mut told = self.refused(why);
                told.status = Some(status.as_u16());
                told.outcome = format!("refused: {} ({}): {detail}", why.title(), status.as_u16());
                return told;
            }
        };
        let client = client(spec);
        let then =
            versioned::canary(versions, picked, |canary| canary.of(picked, &head.headers, client, false));
        let mut why = match picked.by {
            Some(by) => {
                format!("{} says {:?}", versions.chooser.source(by), versions.chooser.shown(by, &asked(head)))
            }
            None => "it is the default".into(),
        };
        if then.moved {
            let (from, to) = (versions.chooser.name(picked.version), versions.chooser.name(then.version));
            why = format!("{why}, and the canary of {from} sends it to {to}");
        }
        if then.in_path {
            let path = path_without(head.uri.path(), versions.chooser.segment);
            head.uri = strict::with_path(&head.uri, path).unwrap_or_default();
        }
        let Some(route) = versions.routes.get(usize::from(then.version)) else { return self };
        let Some(version) = &route.version else { return self };
        self.version =
            Some(VersionTold { name: version.name.to_string(), why, deprecated: version.life.deprecated });
        let mut told = self.taken(snapshot, route, head, spec);
        match version.life.at(Moment::of(std::time::SystemTime::now())) {
            Standing::Serves => told.limited(),
            Standing::Redirects => {
                told.outcome =
                    "redirected to the version that follows, as this one is no longer there".into();
                told.status = Some(308);
                told
            }
            Standing::BrownOut(_) => told.refused(Why::BrownOut),
            Standing::Gone => told.refused(Why::Sunset),
        }
    }

    fn taken(
        mut self,
        snapshot: &Snapshot,
        route: &Route,
        head: &request::Parts,
        spec: &RequestSpec,
    ) -> Self {
        let name = route.name.to_string();
        let mut settings = config::to_json(&snapshot.config)["route"][&name].take();
        let Some(mut config) = snapshot.config.routes.get(&name) else { return self };
        if let (Some(version), Some(versions)) = (&route.version, &config.versions) {
            settings = settings["version"][&*version.name].take();
            let of_it = versions.versions.iter().find(|known| known.name.as_str() == &*version.name);
            config = of_it.map_or(config, |of_it| &of_it.route);
        }
        self.settings = Some(settings);
        self.outcome = match &config.to {
            Destination::Upstream(to) => format!("goes to the upstream {to}"),
            Destination::Split(_) => "is split over upstreams".into(),
            Destination::Versions => "goes nowhere".into(),
            Destination::Respond(fixed) => format!("answered by the route with {}", fixed.status),
            Destination::Redirect(there) => {
                format!("redirected by the route to {} with {}", there.to, there.status)
            }
        };
        if let Some(auth) = &config.auth {
            let how = if auth.all { "all of" } else { "any of" };
            self.outcome += &format!(", for callers known by {how} {}", auth.names.join(", "));
            if config.allow.is_some() {
                self.outcome += " who may by `allow`";
            }
        }
        let weight = |name: &str| match &config.to {
            Destination::Split(split) => {
                split.shares.iter().find(|(to, _)| to == name).map(|(_, weight)| *weight)
            }
            _ => None,
        };
        let upstreams = config.to.upstreams().into_iter().filter_map(|name| snapshot.upstreams.get(name));
        let upstreams: Vec<_> = upstreams.collect();
        let fallback = |upstream: &Upstream| snapshot.fallbacks.get(&*upstream.name).map(Fallback::told);
        let told = |upstream: &&Arc<Upstream>| Destined {
            fallback: fallback(upstream),
            ..destined(upstream, weight(&upstream.name), head, spec)
        };
        self.upstreams = upstreams.iter().map(told).collect();
        if let ([upstream], [told]) = (&*upstreams, &*self.upstreams)
            && let Some((why, what)) = unasked(told)
        {
            let instead = snapshot.fallback(upstream, why).map(Fallback::told);
            self.outcome += &format!(", {what}: {}", instead.unwrap_or("503".into()));
        }
        let tls = snapshot.listeners.get(&*self.listener).is_some_and(|listener| listener.tls.is_some());
        let scheme = if tls { "https" } else { "http" };
        self.cache = cached::explain(route, scheme, head, spec.consumer.as_deref());
        self.limits = limits(snapshot, route, head, spec);
        self.route = Some(name);
        self
    }

    /// The first limit that refuses it decides.
    fn limited(self) -> Self {
        let Some(one) = self.limits.iter().find(|one| one.decision == "deny") else { return self };
        let why = match (one.unknown, one.shed) {
            (true, _) => Why::LimitUnavailable,
            (false, true) => Why::Shed,
            (false, false) => Why::Limited,
        };
        let by = format!(", by the limit {}", one.limit);
        let mut told = self.refused(why);
        told.outcome += &by;
        told
    }
}

fn limits(snapshot: &Snapshot, route: &Route, head: &request::Parts, spec: &RequestSpec) -> Vec<Foreseen> {
    let limits = route.policies.as_ref().and_then(|policies| policies.limits.as_ref());
    let consumer = spec.consumer.as_deref();
    let known = consumer.and_then(|name| snapshot.config.consumers.get(name));
    let facts = Facts {
        head,
        client: client(spec),
        direct: true,
        route: &route.name,
        version: route.version.as_ref().map(|version| &*version.name),
        consumer,
        tier: known.and_then(|known| known.tier.as_deref()),
        claim: &|_| None,
    };
    limits.map(|limits| limits.foresee(&facts)).unwrap_or_default()
}

fn client(spec: &RequestSpec) -> IpAddr {
    spec.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Why an upstream would not be asked, and that in words.
fn unasked(upstream: &Destined) -> Option<(Why, &'static str)> {
    match upstream.breaker {
        Some("open") => Some((Why::BreakerOpen, "whose breaker is open")),
        _ if upstream.usable.is_empty() => Some((Why::NoHealthyTarget, "which has no healthy target")),
        _ => None,
    }
}

fn destined(upstream: &Upstream, weight: Option<u32>, head: &request::Parts, spec: &RequestSpec) -> Destined {
    let client = client(spec);
    let usable = upstream.members.iter().filter(|member| member.target.usable());
    let breaker = upstream.extras.as_ref().and_then(|extras| extras.breaker.as_ref());
    let key = match upstream.config.balance {
        Balance::Maglev => {
            let asker = key::Asker { client, consumer: spec.consumer.as_deref() };
            Some(Some(key::key(&upstream.config.hash_on, head, asker)))
        }
        Balance::IpHash => Some(None),
        _ => None,
    };
    Destined {
        upstream: upstream.name.to_string(),
        weight,
        balance: upstream.config.balance.word(),
        target: key.and_then(|key| upstream.hashed(client, key)).map(|target| target.name.to_string()),
        usable: usable.map(|member| member.target.name.to_string()).collect(),
        breaker: breaker.map(|breaker| breaker.state(now_ms()).word()),
        fallback: None,
    }
}
