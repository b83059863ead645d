//! Which route takes a request.
//!
//! The most specific route wins, whatever the order in the file: an exact host before a wildcard (the longer one
//! first) before none; then, segment by segment, a literal before a version before a `{parameter}` before a trailing `*`;
//! then the one with more predicates. A less specific one is only asked when no more specific one matches. Ties are config errors, so
//! there are none.

mod conditions;
mod paths;
#[cfg(test)]
mod tests;
mod why;

use std::collections::HashMap;

use http::{HeaderMap, Method};

use crate::config::model::{self, HostPattern, PathPattern, Predicates};
use conditions::Conditions;
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
    exact: HashMap<String, Paths<T>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Paths<T>>,
    any: Paths<T>,
    /// Some route asks for a method.
    methods: bool,
}

impl<T: Clone> Router<T> {
    pub fn new<'a>(routes: impl IntoIterator<Item = (Takes<'a>, T)>) -> Self {
        let mut router =
            Router { exact: HashMap::new(), wildcard: HashMap::new(), any: Paths::default(), methods: false };
        for (takes, value) in routes {
            router.methods |= !takes.when.methods.is_empty();
            let conditions = Conditions::new(takes.when, takes.cors);
            if takes.hosts.is_empty() {
                router.any.insert(takes.path, conditions.clone(), value.clone());
            }
            for host in takes.hosts {
                let paths = match host {
                    HostPattern::Exact(name) => router.exact.entry(name.clone()),
                    HostPattern::Wildcard(suffix) => router.wildcard.entry(suffix.clone()),
                };
                paths.or_default().insert(takes.path, conditions.clone(), value.clone());
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
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.visit(asked.path, &mut take);
        }
        let mut lower = [0u8; 255];
        if let Some(host) = host_name(asked.host, &mut lower) {
            let paths = self.exact.get(host).into_iter().chain(self.wildcards(host));
            for paths in paths {
                let taken = paths.visit(asked.path, &mut take);
                if taken.is_some() {
                    return taken;
                }
            }
        }
        self.any.visit(asked.path, &mut take)
    }

    /// Those that `host` is under, the longest first.
    fn wildcards(&self, host: &str) -> impl Iterator<Item = &Paths<T>> {
        let host = if self.wildcard.is_empty() { "" } else { host };
        let suffixes = host.match_indices('.').filter(|(dot, _)| *dot > 0).map(|(dot, _)| &host[dot + 1..]);
        suffixes.filter_map(|suffix| self.wildcard.get(suffix))
    }
}

/// A host as routes are looked up by: in lower case, without its port and the root's dot. `None`: it is none that could be named.
pub fn host_name<'a>(host: &str, buffer: &'a mut [u8; 255]) -> Option<&'a str> {
    lower_case(without_port(host), buffer)
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Names longer than 255 bytes are no host names (RFC 1035 section 2.3.4): only routes without a host take them.
/// A trailing dot (the root) is ignored.
fn lower_case<'a>(host: &str, buffer: &'a mut [u8; 255]) -> Option<&'a str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let into = buffer.get_mut(..host.len())?;
    into.copy_from_slice(host.as_bytes());
    into.make_ascii_lowercase();
    std::str::from_utf8(into).ok()
}
