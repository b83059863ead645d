//! What answers tell of limits: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11, structured
//! fields by RFC 9651), and the older `X-RateLimit-*`.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Limit,
    meter::{Left, Meter},
};
use crate::config::model::Unit;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const DRY_RUN: HeaderName = HeaderName::from_static("x-limit-dry-run");

/// A policy of requests at once.
pub fn policy_at_once(name: &str, max: u64) -> String {
    format!("\"{name}\";q={max};qu=\"concurrent-requests\"")
}

/// A quota policy: names are letters, digits, `-`, `_` and `.`, nothing to escape.
pub fn policy(name: &str, unit: Unit, meter: &Meter) -> String {
    let unit = match unit {
        Unit::Requests => "",
        Unit::Bytes => ";qu=\"content-bytes\"",
        Unit::Tokens => ";qu=\"tokens\"",
    };
    format!("\"{name}\";q={};w={}{unit}", meter.capacity(), meter.span_seconds())
}

/// Empty: nothing is told.
#[derive(Debug, Default)]
pub struct Fields {
    policies: String,
    ratelimit: String,
    /// Limit, remaining, reset.
    older: Option<[u64; 3]>,
    dry: Option<HeaderValue>,
}

impl Fields {
    /// Of all limits the policies, and of the tightest what is left: the one that refused, or where least is.
    pub fn tell<'a>(
        &mut self,
        limits: impl Iterator<Item = (&'a Limit, Cow<'a, str>, Left, u64)>,
        refused: Option<&Limit>,
    ) {
        let mut tightest: Option<(&Limit, Left, u64)> = None;
        for (limit, policy, left, capacity) in limits.filter(|(limit, ..)| !limit.dry_run) {
            if limit.headers.ratelimit {
                match self.policies.is_empty() {
                    true => self.policies = policy.into_owned(),
                    false => self.policies.extend([", ", &policy]),
                }
            }
            if !limit.headers.ratelimit && !limit.headers.x_ratelimit {
                continue;
            }
            let tighter = |(_, than, of): &(&Limit, Left, u64)| {
                u128::from(left.units) * u128::from(*of) < u128::from(than.units) * u128::from(capacity)
            };
            let is_refused = |limit: &Limit| refused.is_some_and(|refused| std::ptr::eq(refused, limit));
            let settled = tightest.is_some_and(|(limit, ..)| is_refused(limit));
            if is_refused(limit) || !settled && tightest.as_ref().is_none_or(tighter) {
                tightest = Some((limit, left, capacity));
            }
        }
        let Some((limit, left, capacity)) = tightest else { return };
        // With nothing left until there is something, else until all is there again.
        let reset = if left.units == 0 { left.next_ns } else { left.full_ns }.div_ceil(1_000_000_000);
        if limit.headers.ratelimit {
            let (mut units, mut seconds) = (itoa::Buffer::new(), itoa::Buffer::new());
            self.ratelimit =
                ["\"", &limit.name, "\";r=", units.format(left.units), ";t=", seconds.format(reset)].concat();
        }
        if limit.headers.x_ratelimit {
            self.older = Some([capacity, left.units, reset]);
        }
    }

    pub fn would_refuse(&mut self, name: &str) {
        self.dry = HeaderValue::from_str(name).ok();
    }

    /// Beside what the upstream says of its own.
    pub fn apply(self, headers: &mut HeaderMap) {
        for (name, text) in [(RATELIMIT_POLICY, self.policies), (RATELIMIT, self.ratelimit)] {
            if !text.is_empty()
                && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text))
            {
                headers.append(name, value);
            }
        }
        if let Some(older) = self.older {
            for (name, number) in [X_LIMIT, X_REMAINING, X_RESET].into_iter().zip(older) {
                headers.insert(name, number.into());
            }
        }
        if let Some(name) = self.dry {
            headers.insert(DRY_RUN, name);
        }
    }
}
