//! `to = { a = 95, b = 5 }`: several upstreams by weight, exactly and smoothly; or by a key of the request, so that the
//! same user stays with the same one.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use gateway_common::{hash, source::Address};
use http::HeaderMap;

use crate::{
    balance::{SEED, smooth_sequence},
    config::model::{self, Sticky},
    request::cookie,
    upstream::Upstream,
};

#[derive(Debug)]
pub struct Split {
    /// By name: those with a share.
    upstreams: Vec<Arc<Upstream>>,
    /// One period, as indices.
    sequence: Box<[u16]>,
    /// Where each share ends, as a part of 2^32.
    ends: Vec<u64>,
    position: Position,
    sticky: Option<Sticky>,
}

/// On a cache line of its own: every worker writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Position(AtomicUsize);

impl Split {
    /// `of`: the upstream of that name.
    pub fn new(config: &model::Split, of: impl Fn(&str) -> Option<Arc<Upstream>>) -> Self {
        let shares = config.shares.iter().filter(|(_, weight)| *weight > 0);
        let (upstreams, weights): (Vec<_>, Vec<u32>) =
            shares.filter_map(|(name, weight)| Some((of(name)?, *weight))).unzip();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut so_far = 0;
        let end = |weight: &u32| {
            so_far += u64::from(*weight);
            (so_far << 32) / total
        };
        Split {
            ends: weights.iter().map(end).collect(),
            sequence: smooth_sequence(&weights)
                .into_iter()
                .filter_map(|index| u16::try_from(index).ok())
                .collect(),
            upstreams,
            position: Position::default(),
            sticky: config.sticky.clone(),
        }
    }

    /// The upstream for one request. A request without the key goes by weight alone.
    pub fn pick(&self, headers: &HeaderMap, client: IpAddr) -> Option<&Arc<Upstream>> {
        let hash = self.sticky.as_ref().and_then(|sticky| key(sticky, headers, client));
        let index = match hash {
            // The upper half: a share is a range, so that a changed weight moves no more users than it must.
            Some(hash) => self.ends.partition_point(|end| *end <= hash >> 32),
            None => {
                let turn = self.position.0.fetch_add(1, Relaxed).checked_rem(self.sequence.len())?;
                usize::from(self.sequence[turn])
            }
        };
        self.upstreams.get(index)
    }
}

/// What keeps a client with the same one; `None`: the request has none.
pub fn key(sticky: &Sticky, headers: &HeaderMap, client: IpAddr) -> Option<u64> {
    match sticky {
        // Not known here.
        Sticky::Consumer => None,
        Sticky::Ip => Some(hash::of_address(SEED, Address::from(client))),
        Sticky::Header(name) => headers.get(name).map(|value| hash::of_bytes(SEED, value.as_bytes())),
        Sticky::Cookie(name) => cookie(headers, name).map(|value| hash::of_bytes(SEED, value)),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use http::{HeaderValue, header};

    use super::*;
    use crate::{config, observe::stats::Registry};

    fn split(shares: &[(&str, u32)], sticky: Option<Sticky>) -> Split {
        let names: String =
            shares.iter().map(|(name, _)| format!("[upstream.{name}]\nto = \"10.0.0.1:1\"\n")).collect();
        let text = format!("[listener.a]\nbind = \":80\"\n[route.a]\nto = \"{}\"\n{names}", shares[0].0);
        let config = config::parse(&text, Path::new("x.toml")).unwrap();
        let registry = Registry::new(1);
        let upstreams: BTreeMap<String, Arc<Upstream>> = config
            .upstreams
            .iter()
            .map(|(name, upstream)| {
                (
                    name.clone(),
                    Arc::new(Upstream::new(name, upstream, &Default::default(), None, None, None, &registry)),
                )
            })
            .collect();
        let shares = shares.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        Split::new(&model::Split { shares, sticky }, |name| upstreams.get(name).cloned())
    }

    fn picks(split: &Split, n: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..n {
            let upstream = split.pick(&HeaderMap::new(), [192, 0, 2, 1].into()).unwrap();
            *counts.entry(upstream.name.to_string()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn shares_are_exact_and_zero_is_none() {
        let counts = picks(&split(&[("a", 95), ("b", 5), ("c", 0)], None), 1000);
        assert_eq!(counts, BTreeMap::from([("a".into(), 950), ("b".into(), 50)]));
    }

    fn with_cookie(user: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let cookie = format!("a=b; uid=user-{user}; uidx=1");
        headers.insert(header::COOKIE, HeaderValue::from_str(&cookie).unwrap());
        headers
    }

    #[test]
    fn a_key_stays_with_its_upstream_and_shares_hold_over_many_keys() {
        let by_cookie = |weights: &[(&str, u32)]| split(weights, Some(Sticky::Cookie("uid".into())));
        let of = |split: &Split, user| {
            split.pick(&with_cookie(user), [192, 0, 2, 1].into()).unwrap().name.to_string()
        };
        let (before, after) = (by_cookie(&[("a", 90), ("b", 10)]), by_cookie(&[("a", 80), ("b", 20)]));
        let users = 0..20_000;
        let with_b = users.clone().filter(|user| of(&before, *user) == "b").count();
        assert!((1700..2300).contains(&with_b), "{with_b}");
        assert!(users.clone().all(|user| of(&before, user) == of(&before, user)));
        // Whoever had b keeps it when its share grows.
        assert!(users.clone().all(|user| of(&before, user) == "a" || of(&after, user) == "b"));
    }

    #[test]
    fn without_the_key_shares_hold_all_the_same() {
        let counts = picks(&split(&[("a", 3), ("b", 1)], Some(Sticky::Header("x-user".into()))), 400);
        assert_eq!(counts, BTreeMap::from([("a".into(), 300), ("b".into(), 100)]));
        assert_eq!(picks(&split(&[("a", 1), ("b", 1)], Some(Sticky::Ip)), 10).len(), 1);
    }
}
