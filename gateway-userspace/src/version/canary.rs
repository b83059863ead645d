//! Requests for one version that another answers.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use gateway_common::hash;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Chooser, Picked};
use crate::{
    auth::Caller,
    balance::SEED,
    config::model::{self, Sticky},
    policy::split,
    runtime::Route,
};

/// Parts that a share is counted in.
const WHOLE: u64 = 1_000_000;

#[derive(Debug)]
pub struct Canary {
    /// The index of a version.
    to: u16,
    /// Parts of [`WHOLE`].
    share: u64,
    header: Option<(HeaderName, Option<HeaderValue>)>,
    /// Consumers that go there.
    tiers: Vec<Box<str>>,
    sticky: Sticky,
    named: bool,
    /// The version that requests go to.
    pub(super) next: OnceLock<Weak<Route>>,
    /// Requests without a key.
    turn: AtomicU64,
}

impl Canary {
    pub(super) fn new(config: &model::Canary, chooser: &Chooser) -> Option<Self> {
        let header = config.header.as_ref().and_then(|(name, value)| {
            let value = value.as_ref().and_then(|value| HeaderValue::from_str(value).ok());
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
        });
        Some(Canary {
            to: chooser.names().position(|name| name == config.to).and_then(|to| u16::try_from(to).ok())?,
            // A share is from 0 to 1.
            share: (config.share.0 * WHOLE as f64).round() as u64,
            header,
            tiers: config.tiers.iter().map(|tier| tier.as_str().into()).collect(),
            sticky: config.sticky.clone(),
            next: OnceLock::new(),
            named: config.named,
            turn: AtomicU64::new(0),
        })
    }

    /// The index of the version that requests go to.
    pub(super) fn target(&self) -> usize {
        usize::from(self.to)
    }

    /// As [`Canary::of`], by who calls, once that is known.
    pub fn of_caller(&self, picked: Picked, caller: &Caller) -> Option<(Arc<Route>, Picked)> {
        if picked.moved || picked.by.is_some() && !self.named {
            return None;
        }
        let of_tier =
            || caller.tier.as_ref().is_some_and(|tier| self.tiers.iter().any(|known| **known == **tier));
        let hash = || hash::of_bytes(SEED, caller.consumer.as_bytes());
        let goes = of_tier() || self.sticky == Sticky::Consumer && self.is_in_share(hash());
        let next = self.next.get().filter(|_| goes)?.upgrade()?;
        Some((next, Picked { version: self.to, moved: true, ..picked }))
    }

    /// Where the request goes instead, if it does. `count`: whether it takes a turn, where turns decide.
    pub fn of(&self, picked: Picked, headers: &HeaderMap, client: IpAddr, count: bool) -> Option<Picked> {
        let asked_for_it = picked.by.is_none() || self.named;
        let goes = asked_for_it && (self.is_marked(headers) || self.has_share(headers, client, count));
        goes.then_some(Picked { version: self.to, moved: true, ..picked })
    }

    fn is_marked(&self, headers: &HeaderMap) -> bool {
        let Some((name, wanted)) = &self.header else { return false };
        match wanted {
            None => headers.contains_key(name),
            Some(wanted) => headers.get_all(name).iter().any(|value| value == wanted),
        }
    }

    /// A range that grows with the share: who is in it stays in it. Other bits than those that a split by the same key looks
    /// at, so that the two do not go together.
    fn is_in_share(&self, hash: u64) -> bool {
        (u64::from(hash as u32) * WHOLE) >> 32 < self.share
    }

    fn has_share(&self, headers: &HeaderMap, client: IpAddr, count: bool) -> bool {
        // Of a consumer's: not yet known.
        if self.share == 0 || self.sticky == Sticky::Consumer {
            return false;
        }
        match split::key(&self.sticky, headers, client) {
            Some(hash) => self.is_in_share(hash),
            None => {
                let turn = if count { self.turn.fetch_add(1, Relaxed) } else { self.turn.load(Relaxed) };
                turn.wrapping_mul(self.share) % WHOLE + self.share >= WHOLE
            }
        }
    }
}
