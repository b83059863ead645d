//! Which route takes a request.
//!
//! The most specific route wins, whatever the order in the file: an exact host before a wildcard (the longer one
//! first) before none; then, segment by segment, a literal before a version before a `{parameter}` before a trailing `*`;
//! then the one with more predicates. A less specific one is only asked when no more specific one matches. Ties are config errors, so
//! there are none.

mod conditions;
mod hosts;
mod paths;
#[cfg(test)]
mod tests;
mod why;

use http::{HeaderMap, Method};

use crate::config::model::{self, HostPattern, PathPattern, Predicates};
use conditions::Conditions;
pub use hosts::{Hosts, host_name};
use paths::{Paths, Slot};
pub use why::why_not;

/// What a route is found by.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As sent: any case, maybe with a port.
    pub host: &'a str,
    /// Normalised, without the query.
    pub path: &'a str,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    pub query: Option<&'a str>,
}

/// Which requests a route takes.
#[derive(Debug, Clone, Copy)]
pub struct Takes<'a> {
    /// Empty: any.
    pub hosts: &'a [HostPattern],
    pub path: &'a PathPattern,
    pub when: &'a Predicates,
    /// A preflight is taken as if it were the request that it asks for.
    pub cors: bool,
}

impl<'a> Takes<'a> {
    pub fn of(route: &'a model::Route) -> Self {
        Takes { hosts: &route.hosts, path: &route.path, when: &route.when, cors: route.cors.is_some() }
    }

    /// Also with the version in the host or in the path.
    pub fn all_of(route: &'a model::Route) -> impl Iterator<Item = Self> {
        let versions = route.versions.as_deref();
        let hosts = versions.map(|versions| &*versions.hosts).filter(|hosts| !hosts.is_empty());
        let hosts = std::iter::once(&*route.hosts).chain(hosts);
        hosts.flat_map(move |hosts| {
            route.all_paths().map(move |path| Takes { hosts, path, ..Takes::of(route) })
        })
    }
}

/// Routes of type `T`, compiled. A look-up takes as long with ten thousand routes as with ten: a hash of the host and
/// one of each segment.
#[derive(Debug)]
pub struct Router<T> {
    hosts: Hosts<Paths<T>>,
    any: Paths<T>,
    /// Some route asks for a method.
    methods: bool,
}

impl<T: Clone> Router<T> {
    pub fn new<'a>(routes: impl IntoIterator<Item = (Takes<'a>, T)>) -> Self {
        let mut router = Router { hosts: Hosts::default(), any: Paths::default(), methods: false };
        for (takes, value) in routes {
            router.methods |= !takes.when.methods.is_empty();
            let conditions = Conditions::new(takes.when, takes.cors);
            if takes.hosts.is_empty() {
                router.any.insert(takes.path, conditions.clone(), value.clone());
            }
            for host in takes.hosts {
                router.hosts.of(host).insert(takes.path, conditions.clone(), value.clone());
            }
        }
        router
    }

    pub fn find(&self, asked: &Asked<'_>) -> Option<&T> {
        self.visit(asked, |slot| slot.find(asked))
    }

    /// For a request that no route takes: the methods with which one would take it, as in `Allow`. `None`: none would.
    pub fn allowed(&self, asked: &Asked<'_>) -> Option<String> {
        if !self.methods {
            return None;
        }
        let mut methods: Vec<&str> = Vec::new();
        self.visit(asked, |slot| {
            methods.extend(slot.allowed(asked));
            None::<()>
        });
        methods.sort_unstable();
        methods.dedup();
        (!methods.is_empty()).then(|| methods.join(", "))
    }

    /// Shows `take` what matches host and path, the most specific first, until it takes something.
    fn visit<'a, R>(
        &'a self,
        asked: &Asked<'_>,
        mut take: impl FnMut(&'a Slot<T>) -> Option<R>,
    ) -> Option<R> {
        if self.hosts.is_empty() {
            return self.any.visit(asked.path, &mut take);
        }
        let mut lower = [0u8; 255];
        if let Some(host) = host_name(asked.host, &mut lower) {
            for paths in self.hosts.fitting(host) {
                let taken = paths.visit(asked.path, &mut take);
                if taken.is_some() {
                    return taken;
                }
            }
        }
        self.any.visit(asked.path, &mut take)
    }
}
