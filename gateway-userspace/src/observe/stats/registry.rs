//! Every series of the process, by its names.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64},
    },
};

use super::{
    AuthStats, CacheStats, LimitStats, ListenerStats, RouteStats, Sharded, TargetStats, UpstreamStats,
};
use crate::{policy::compare::Compared, version::usage::Usage};

/// The route label of requests that no route took.
pub const NO_ROUTE: &str = "-";

/// Every series of the process. A series once made is kept: names come from configs only, so it stays bounded.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    routes: Mutex<BTreeMap<(String, String, String), Arc<RouteStats>>>,
    compared: Mutex<BTreeMap<(String, String), Arc<Compared>>>,
    usages: Mutex<BTreeMap<(String, String), Arc<Usage>>>,
    listeners: Mutex<BTreeMap<String, Arc<ListenerStats>>>,
    upstreams: Mutex<BTreeMap<String, Arc<UpstreamStats>>>,
    targets: Mutex<BTreeMap<(String, SocketAddr), Arc<TargetStats>>>,
    caches: Mutex<BTreeMap<String, Arc<CacheStats>>>,
    limits: Mutex<BTreeMap<String, Arc<LimitStats>>>,
    auths: Mutex<BTreeMap<String, Arc<AuthStats>>>,
}

type Series<K, V> = Mutex<BTreeMap<K, Arc<V>>>;

fn series<K: Ord, V>(map: &Series<K, V>, key: K, make: impl FnOnce() -> V) -> Arc<V> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.entry(key).or_insert_with(|| Arc::new(make())).clone()
}

fn all<K: Ord + Clone, V>(map: &Series<K, V>) -> Vec<(K, Arc<V>)> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Registry {
    pub fn new(workers: usize) -> Self {
        Registry {
            workers,
            routes: Mutex::default(),
            compared: Mutex::default(),
            usages: Mutex::default(),
            listeners: Mutex::default(),
            upstreams: Mutex::default(),
            targets: Mutex::default(),
            caches: Mutex::default(),
            limits: Mutex::default(),
            auths: Mutex::default(),
        }
    }

    pub fn route(&self, listener: &str, route: &str) -> Arc<RouteStats> {
        self.version(listener, route, "")
    }

    /// Of one version of a route; "": of what has none.
    pub fn version(&self, listener: &str, route: &str, version: &str) -> Arc<RouteStats> {
        let key = (listener.to_owned(), route.to_owned(), version.to_owned());
        series(&self.routes, key, || RouteStats { shards: Sharded::new(self.workers) })
    }

    /// Answers of a shadow's; `version` is "" for those of a route without versions.
    pub fn compared(&self, route: &str, version: &str) -> Arc<Compared> {
        series(&self.compared, (route.to_owned(), version.to_owned()), Compared::default)
    }

    pub fn all_compared(&self) -> Vec<((String, String), Arc<Compared>)> {
        all(&self.compared)
    }

    pub fn usages(&self) -> Vec<((String, String), Arc<Usage>)> {
        all(&self.usages)
    }

    pub fn usage(&self, route: &str, version: &str) -> Arc<Usage> {
        series(&self.usages, (route.to_owned(), version.to_owned()), || Usage::new(self.workers))
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerStats> {
        series(&self.listeners, name.to_owned(), || ListenerStats {
            shards: Sharded::new(self.workers),
            connections: AtomicU32::new(0),
        })
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamStats> {
        series(&self.upstreams, name.to_owned(), || UpstreamStats { shards: Sharded::new(self.workers) })
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    pub fn limit(&self, name: &str) -> Arc<LimitStats> {
        series(&self.limits, name.to_owned(), || LimitStats { shards: Sharded::new(self.workers) })
    }

    pub fn target(&self, upstream: &str, addr: SocketAddr) -> Arc<TargetStats> {
        series(&self.targets, (upstream.to_owned(), addr), || TargetStats {
            shards: Sharded::new(self.workers),
            ejections: AtomicU64::new(0),
        })
    }

    pub fn cache(&self, name: &str) -> Arc<CacheStats> {
        series(&self.caches, name.to_owned(), || CacheStats { shards: Sharded::new(self.workers) })
    }

    pub fn caches(&self) -> Vec<(String, Arc<CacheStats>)> {
        all(&self.caches)
    }

    pub fn auth(&self, name: &str) -> Arc<AuthStats> {
        series(&self.auths, name.to_owned(), || AuthStats { shards: Sharded::new(self.workers) })
    }

    pub fn auths(&self) -> Vec<(String, Arc<AuthStats>)> {
        all(&self.auths)
    }

    /// Of an upstream whose targets come and go: keeps the series of these only.
    pub fn forget_targets(&self, upstream: &str, keep: &[SocketAddr]) {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.retain(|(of, addr), _| of != upstream || keep.contains(addr));
    }

    /// By listener, route and version.
    pub fn routes(&self) -> Vec<((String, String, String), Arc<RouteStats>)> {
        all(&self.routes)
    }

    pub fn listeners(&self) -> Vec<(String, Arc<ListenerStats>)> {
        all(&self.listeners)
    }

    pub fn upstreams(&self) -> Vec<(String, Arc<UpstreamStats>)> {
        all(&self.upstreams)
    }

    pub fn limits(&self) -> Vec<(String, Arc<LimitStats>)> {
        all(&self.limits)
    }

    pub fn targets(&self) -> Vec<((String, SocketAddr), Arc<TargetStats>)> {
        all(&self.targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::stats::method_index;
    use http::{Method, StatusCode};

    #[test]
    fn counters_of_all_workers_add_up() {
        let registry = Registry::new(2);
        let route = registry.route("web", "all");
        route.shards.of(0).count(method_index(&Method::GET), StatusCode::OK);
        route.shards.of(1).count(method_index(&Method::GET), StatusCode::OK);
        let purge = Method::from_bytes(b"PURGE").unwrap();
        route.shards.of(1).count(method_index(&purge), StatusCode::from_u16(599).unwrap());
        assert_eq!(
            registry.route("web", "all").requests(),
            BTreeMap::from([(("GET", 200), 2), (("other", 599), 1)])
        );
    }
}
