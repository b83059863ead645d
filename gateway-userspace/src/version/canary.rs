//! Requests for one version that another answers.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Chooser, Picked};
use crate::{
    config::model::{self, Sticky},
    policy::split,
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
    sticky: Sticky,
    named: bool,
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
            sticky: config.sticky.clone(),
            named: config.named,
            turn: AtomicU64::new(0),
        })
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

    fn has_share(&self, headers: &HeaderMap, client: IpAddr, count: bool) -> bool {
        if self.share == 0 {
            return false;
        }
        match split::key(&self.sticky, headers, client) {
            // A range that grows with the share: who is in it stays in it. Other bits than those that a split by the
            // same key looks at, so that the two do not go together.
            Some(hash) => (u64::from(hash as u32) * WHOLE) >> 32 < self.share,
            None => {
                let turn = if count { self.turn.fetch_add(1, Relaxed) } else { self.turn.load(Relaxed) };
                turn.wrapping_mul(self.share) % WHOLE + self.share >= WHOLE
            }
        }
    }
}
