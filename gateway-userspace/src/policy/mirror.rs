//! `mirror = { to, share }`: copies of some requests to another upstream, whose answers nobody gets.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use http::HeaderName;

use super::{compare::Compare, rewrite::Rewrite};
use crate::{config::model, upstream::Upstream};

#[derive(Debug)]
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    /// The copy is as this version's upstream would get it.
    pub version: Option<AsVersion>,
    pub compare: Option<Arc<Compare>>,
    /// Bytes of a body that are kept for a copy; a request with more has none.
    pub body: usize,
    queue: usize,
    /// Parts of a million.
    share: u64,
    requests: AtomicU64,
    /// Copies that are waited for, over all workers.
    open: Arc<AtomicUsize>,
}

/// How a version's upstream gets a request that named another.
#[derive(Debug)]
pub struct AsVersion {
    pub name: Box<str>,
    pub rewrite: Rewrite,
    /// Where in the path the version stands, if it does.
    pub segment: Option<usize>,
    pub query: Vec<String>,
    pub headers: Vec<HeaderName>,
}

impl AsVersion {
    fn new(config: &model::MirrorVersion) -> Self {
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        AsVersion {
            name: config.name.as_str().into(),
            rewrite: Rewrite::new(&config.rewrite),
            segment: config.segment,
            query: config.query.clone(),
            headers: config.headers.iter().filter_map(name).collect(),
        }
    }
}

/// A copy's place in the queue.
#[derive(Debug)]
pub struct Place(Arc<AtomicUsize>);

impl Mirror {
    pub fn new(config: &model::Mirror, upstream: Arc<Upstream>) -> Self {
        Mirror {
            upstream,
            version: config.version.as_deref().map(AsVersion::new),
            compare: None,
            body: config.body,
            queue: config.queue,
            // A share is from 0 to 1.
            share: (config.share.0 * 1e6).round() as u64,
            requests: AtomicU64::new(0),
            open: Arc::default(),
        }
    }

    /// Whether this request is one to copy. `None` where it is not, or where so many copies are open that the shadow
    /// does not keep up: it gets fewer, and nobody waits.
    pub fn take(&self) -> Option<Place> {
        // Exact: of n requests, n times the share, evenly spread.
        let phase = self.requests.fetch_add(1, Relaxed).wrapping_mul(self.share) % 1_000_000;
        if phase + self.share < 1_000_000 {
            return None;
        }
        let place = Place(self.open.clone());
        (self.open.fetch_add(1, Relaxed) < self.queue).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{self, units::Percent},
        observe::stats::Registry,
    };

    fn mirror(share: f64, queue: usize) -> Mirror {
        let text = "[listener.a]\nbind = \":80\"\n[route.a]\nto = [\"10.0.0.1:1\"]\n";
        let config = config::parse(text, Path::new("x.toml")).unwrap();
        let upstream = Upstream::new(
            "a",
            &config.upstreams["a"],
            &Default::default(),
            None,
            None,
            None,
            &Registry::new(1),
        );
        let config = model::Mirror {
            to: "a".into(),
            share: Percent(share),
            body: 1,
            queue,
            version: None,
            compare: None,
        };
        Mirror::new(&config, Arc::new(upstream))
    }

    #[test]
    fn the_share_is_exact() {
        for (share, of_1000) in [(0.0, 0), (0.01, 10), (0.333, 333), (0.9, 900), (1.0, 1000)] {
            let mirror = mirror(share, 1);
            assert_eq!((0..1000).filter(|_| mirror.take().is_some()).count(), of_1000, "{share}");
        }
    }

    #[test]
    fn a_full_queue_takes_no_more_until_a_copy_is_over() {
        let mirror = mirror(1.0, 2);
        let (first, _second) = (mirror.take().unwrap(), mirror.take().unwrap());
        assert!(mirror.take().is_none() && mirror.take().is_none());
        drop(first);
        let third = mirror.take();
        assert!(third.is_some() && mirror.take().is_none());
    }
}
