//! What a route does besides forwarding. Each policy is one file: built from the config once, asked for each request.
//! A route without any has none of them, and its requests never come here.

pub mod answer;
pub mod caller;
pub mod client_cache;
pub mod compare;
pub mod compress;
pub mod cors;
mod csrf;
pub mod fallback;
pub mod guard;
pub mod json;
pub mod json_map;
pub mod mirror;
pub mod protect;
pub mod rewrite;
pub mod split;
pub mod template;

use std::sync::Arc;

use crate::{
    auth::{Auths, Gate},
    cache::Cache,
    config::model::{self, Destination, Rewrite as RewriteConfig},
    limit::RouteLimits,
    upstream::Upstream,
};
use answer::Answer;
use client_cache::ClientCache;
use compress::Compress;
use cors::Cors;
use guard::Guard;
use mirror::Mirror;
use protect::Protect;
use rewrite::Rewrite;
use split::Split;

/// The policies of one route.
#[derive(Debug, Default)]
pub struct Policies {
    /// What is taken.
    pub guard: Option<Guard>,
    /// Who may.
    pub gate: Option<Gate>,
    pub rewrite: Option<Rewrite>,
    /// Instead of an upstream's.
    pub answer: Option<Answer>,
    /// Instead of the route's one upstream.
    pub split: Option<Split>,
    pub mirror: Option<Mirror>,
    pub cors: Option<Cors>,
    pub compress: Option<Compress>,
    pub cache: Option<Arc<Cache>>,
    pub client_cache: Option<ClientCache>,
    /// What browsers are told to be careful with.
    pub protect: Option<Protect>,
    /// gRPC-Web is translated.
    pub grpc_web: bool,
    pub limits: Option<RouteLimits>,
}

impl Policies {
    /// `None`: the route only forwards. `upstream`, `cache`: the one of that name, which the config's reader knows to
    /// exist.
    pub fn new(
        route: &model::Route,
        auths: &Auths,
        upstream: impl Fn(&str) -> Option<Arc<Upstream>>,
        cache: impl Fn(&str) -> Option<Arc<Cache>>,
        limits: Option<RouteLimits>,
    ) -> Option<Box<Self>> {
        let mirror = route.mirror.as_ref();
        let (mut answer, mut split) = (None, None);
        match &route.to {
            Destination::Upstream(_) | Destination::Versions => {}
            Destination::Split(config) => split = Some(Split::new(config, &upstream)),
            Destination::Respond(respond) => answer = Some(Answer::respond(respond)),
            Destination::Redirect(redirect) => answer = Some(Answer::redirect(redirect)),
        }
        let policies = Policies {
            guard: Guard::new(&route.guard),
            gate: auths.gate(route),
            rewrite: (route.rewrite != RewriteConfig::default()).then(|| Rewrite::new(&route.rewrite)),
            answer,
            split,
            mirror: mirror.and_then(|mirror| Some(Mirror::new(mirror, upstream(&mirror.to)?))),
            cors: route.cors.as_ref().map(Cors::new),
            compress: route.compress.as_ref().map(Compress::new),
            cache: route.cache.as_deref().and_then(cache),
            client_cache: route.client_cache.as_ref().map(ClientCache::new),
            protect: route.security_headers.as_ref().map(Protect::new),
            grpc_web: route.grpc_web,
            limits,
        };
        let Policies {
            guard,
            gate,
            rewrite,
            answer,
            split,
            mirror,
            cors,
            compress,
            cache,
            client_cache,
            protect,
            grpc_web,
            limits,
        } = &policies;
        let directs = answer.is_some() || split.is_some() || mirror.is_some();
        let any = gate.is_some()
            || guard.is_some()
            || directs
            || rewrite.is_some()
            || cors.is_some()
            || compress.is_some()
            || cache.is_some()
            || client_cache.is_some()
            || protect.is_some()
            || limits.is_some()
            || *grpc_web;
        any.then(|| Box::new(policies))
    }

    /// Requests go to an upstream and answers come back, with nothing of their bodies looked at or kept.
    pub fn only_passes(&self) -> bool {
        let maps = |rewrite: &Rewrite| rewrite.json.is_some() || rewrite.response_json.is_some();
        self.answer.is_none()
            && self.mirror.is_none()
            && self.cache.is_none()
            && self.client_cache.is_none()
            && !self.rewrite.as_ref().is_some_and(maps)
    }
}
