//! Versions of an API: which one a request gets, and what its answers say of that.
//!
//! Each version is a [`Route`] of its own, compiled from the keys of its route and its own, so that whatever a route can
//! do a version can. [`Chooser`] picks one: a pure function of the request, total and deterministic. What depends on the
//! time ([`Life`]) gets the time told.

mod canary;
mod choose;
mod life;
mod says;
mod tell;
#[cfg(test)]
mod tests;
pub mod usage;

use std::sync::Arc;

use http::HeaderName;

use crate::{
    config::model::{self, Strip},
    runtime::Route,
};
pub use canary::Canary;
pub use choose::{Chooser, Picked, Refused};
pub use life::{Life, Standing};
pub use says::{path_with, path_without};
pub use tell::{Tell, Telling};
use usage::Usage;

/// The versions behind one route.
#[derive(Debug)]
pub struct Versions {
    pub chooser: Chooser,
    /// The oldest first.
    pub routes: Box<[Arc<Route>]>,
}

/// What a route has that is a version of another.
#[derive(Debug)]
pub struct Version {
    pub name: Arc<str>,
    pub life: Life,
    pub tell: Tell,
    pub canary: Option<Canary>,
    pub strip: Stripped,
    pub usage: Arc<Usage>,
}

/// What its upstream does not get to see.
#[derive(Debug)]
pub struct Stripped {
    /// `Some`: the version goes upstream in the path, at this segment.
    pub kept_segment: Option<usize>,
    pub query: Vec<String>,
    pub headers: Vec<HeaderName>,
}

impl Versions {
    pub fn new(
        config: &model::Versions,
        route: impl FnMut(&model::ApiVersion, Version) -> Arc<Route>,
        usage: impl Fn(&str) -> Arc<Usage>,
    ) -> Self {
        let chooser = Chooser::new(config);
        let mut route = route;
        let routes = config.versions.iter().map(|version| {
            let compiled = Version {
                name: version.name.as_str().into(),
                life: Life::new(version),
                tell: Tell::new(config, version, &chooser),
                canary: version.canary.as_ref().and_then(|canary| Canary::new(canary, &chooser)),
                strip: Stripped::new(config),
                usage: usage(version.name.as_str()),
            };
            route(version, compiled)
        });
        let routes: Box<[Arc<Route>]> = routes.collect();
        let canaries = routes.iter().filter_map(|route| route.version.as_ref()?.canary.as_ref());
        for canary in canaries {
            // Set once: the routes are new.
            let _ = routes.get(canary.target()).map(|next| canary.next.set(Arc::downgrade(next)));
        }
        Versions { chooser, routes }
    }
}

impl Stripped {
    fn new(config: &model::Versions) -> Self {
        let Strip { path, query, header } = config.strip;
        let names = |of: fn(&model::VersionSource) -> Option<&str>| -> Vec<String> {
            config.from.iter().filter_map(of).map(str::to_owned).collect()
        };
        let queries = names(|source| match source {
            model::VersionSource::Query(name) => Some(name),
            _ => None,
        });
        let headers = names(|source| match source {
            model::VersionSource::Header(name) => Some(name),
            _ => None,
        });
        Stripped {
            kept_segment: (!path && !config.paths.is_empty()).then_some(config.segment),
            query: if query { queries } else { Vec::new() },
            // The config's reader let no other names through.
            headers: headers
                .iter()
                .filter(|_| header)
                .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect(),
        }
    }
}
