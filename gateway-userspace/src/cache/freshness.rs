//! What may be stored, for how long it is fresh, and whether it may be used for a request: RFC 9111 sections 3 and 4.
//!
//! Pure functions of header fields and a clock that is handed in.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::directives::{self, RequestDirectives, ResponseDirectives};

/// What a policy says beyond the messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where the upstream says nothing of freshness.
    pub ttl: Option<Duration>,
    /// `ttl` holds whatever the upstream says of freshness.
    pub override_ttl: bool,
    /// As `ttl`, of errors.
    pub negative: Option<Duration>,
    /// RFC 9111 section 4.2.2.
    pub heuristic: bool,
    pub while_revalidate: Duration,
    pub if_error: Duration,
    pub store_set_cookie: bool,
}

/// What matters of a request for storing its response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// It has `Authorization`.
    pub authorization: bool,
    /// Who calls is known.
    pub identified: bool,
    /// It has `Cookie`.
    pub cookie: bool,
    /// `Cache-Control: no-store`
    pub no_store: bool,
    /// The key tells callers apart, and this one is known.
    pub separated: bool,
    /// The key has cookies in it.
    pub cookies_keyed: bool,
}

/// How a stored response may be used. Times in milliseconds, instants since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// When its age was 0 (RFC 9111 section 4.2.3).
    pub born: i64,
    pub lifetime: i64,
    /// How long it may be used stale, while it is fetched anew, and when that fails.
    pub while_revalidate: i64,
    pub if_error: i64,
    /// Never without asking.
    pub no_cache: bool,
    /// Not stale, whatever the client takes.
    pub must_revalidate: bool,
}

/// Why a response is not stored: a token for `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// Beyond any use of it, and far from overflowing.
const MOST_MS: i64 = directives::MOST_SECONDS as i64 * 1000;
const HEURISTIC_MOST: i64 = 86_400_000;

/// RFC 9110 section 15.1.
fn is_heuristic(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Statuses whose rules for caches are kept here.
fn is_understood(status: StatusCode) -> bool {
    is_heuristic(status) || matches!(status.as_u16(), 302 | 303 | 307 | 400 | 403 | 500 | 502 | 503 | 504)
}

/// Whether a response may be stored, and on which terms. `asked_at`, `now`: when the request was sent, and when the
/// response came.
pub fn storable(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    rules: &Rules,
    asked_at: SystemTime,
    now: SystemTime,
) -> Result<Terms, Refused> {
    let directives = ResponseDirectives::of(headers);
    allowed(asked, status, headers, &directives, rules)?;
    let now_ms = millis(now);
    let delay = now_ms.saturating_sub(millis(asked_at)).max(0);
    let date = date(headers, header::DATE);
    let age = age(headers);
    // RFC 9111 section 4.2.3.
    let apparent = date.map_or(0, |date| (now_ms - date).max(0));
    let initial = apparent.max(age.saturating_add(if headers.contains_key(header::AGE) { delay } else { 0 }));
    let explicit = explicit_lifetime(&directives, headers, date.unwrap_or(now_ms));
    let lifetime = match (rules.ttl, explicit) {
        (Some(ttl), _) if rules.override_ttl && status.as_u16() < 400 => Some(ttl_ms(ttl)),
        (_, Some(explicit)) => Some(explicit),
        _ if directives.no_cache && (is_heuristic(status) || directives.public) => Some(0),
        _ => policy_lifetime(asked, status, headers, &directives, rules, date.unwrap_or(now_ms))?,
    };
    let Some(lifetime) = lifetime else { return Err(Refused("no-lifetime")) };
    let mut terms = Terms {
        born: now_ms.saturating_sub(initial),
        lifetime,
        while_revalidate: 0,
        if_error: 0,
        no_cache: directives.no_cache,
        must_revalidate: directives.must_revalidate
            || directives.proxy_revalidate
            || directives.s_maxage.is_some(),
    };
    stale(&mut terms, &directives, rules);
    let usable = lifetime > initial && !terms.no_cache;
    let validator = headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED);
    if !usable && !validator && lifetime + terms.while_revalidate.max(terms.if_error) <= initial {
        return Err(Refused("stale"));
    }
    Ok(terms)
}

fn allowed(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    rules: &Rules,
) -> Result<(), Refused> {
    // Parts are not stored, and a 304 is no response of its own.
    if status.is_informational() || matches!(status.as_u16(), 206 | 304) {
        return Err(Refused("status"));
    }
    // RFC 9111 section 5.2.2.3.
    let understood = directives.must_understand && is_understood(status);
    if directives.must_understand && !understood {
        return Err(Refused("must-understand"));
    }
    if asked.no_store || directives.no_store && !understood {
        return Err(Refused("no-store"));
    }
    if directives.private {
        return Err(Refused("private"));
    }
    if headers.contains_key(header::SET_COOKIE) && !rules.store_set_cookie {
        return Err(Refused("set-cookie"));
    }
    let shared = directives.public || directives.s_maxage.is_some();
    // RFC 9111 section 3.5.
    if asked.authorization && !asked.separated && !shared && !directives.must_revalidate {
        return Err(Refused("authorization"));
    }
    if asked.identified && !asked.separated && !shared {
        return Err(Refused("authorization"));
    }
    Ok(())
}

/// RFC 9111 section 4.2.1.
fn explicit_lifetime(directives: &ResponseDirectives, headers: &HeaderMap, date: i64) -> Option<i64> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(i64::from(seconds) * 1000);
    }
    // Those whom a targeted field is for do not look at Expires (RFC 9213 section 2.2).
    if directives.targeted || !headers.contains_key(header::EXPIRES) {
        return None;
    }
    let expires = single_date(headers, header::EXPIRES).unwrap_or(i64::MIN);
    Some(expires.saturating_sub(date).clamp(0, MOST_MS))
}

/// What is not said by the upstream.
fn policy_lifetime(
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    rules: &Rules,
    date: i64,
) -> Result<Option<i64>, Refused> {
    if !is_heuristic(status) && !directives.public {
        return Ok(None);
    }
    // It may be that user's own, and nobody says that it is not.
    if asked.cookie && !asked.cookies_keyed && !directives.public {
        return Err(Refused("cookie"));
    }
    let ttl = if status.as_u16() < 400 { rules.ttl } else { rules.negative };
    if let Some(ttl) = ttl {
        return Ok(Some(ttl_ms(ttl)));
    }
    if !rules.heuristic {
        return Ok(None);
    }
    let modified = single_date(headers, header::LAST_MODIFIED);
    Ok(modified.map(|modified| ((date - modified) / 10).clamp(0, HEURISTIC_MOST)))
}

/// RFC 5861, and what the policy adds where nothing forbids it (RFC 9111 section 4.2.4).
fn stale(terms: &mut Terms, directives: &ResponseDirectives, rules: &Rules) {
    if directives.must_revalidate || directives.proxy_revalidate || directives.no_cache {
        return;
    }
    // `s-maxage` forbids it too, but for what is said beside it.
    let policy = |duration| if directives.s_maxage.is_some() { 0 } else { ttl_ms(duration) };
    let said = |seconds: Option<u32>, duration| {
        seconds.map_or_else(|| policy(duration), |seconds| i64::from(seconds) * 1000)
    };
    terms.while_revalidate = said(directives.stale_while_revalidate, rules.while_revalidate);
    terms.if_error = said(directives.stale_if_error, rules.if_error);
}

/// How a stored response may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// As it is.
    Fresh,
    /// As it is, because the client takes it stale.
    Stale,
    /// As it is, while it is fetched anew.
    WhileRevalidating,
    /// When the upstream says that it still holds.
    Validated,
}

impl Terms {
    /// Milliseconds.
    pub fn age(&self, now: SystemTime) -> i64 {
        (millis(now) - self.born).clamp(0, MOST_MS)
    }

    /// As `Age` tells it: the nearest number of seconds.
    pub fn age_told(&self, now: SystemTime) -> u64 {
        (self.age(now) as u64 + 500) / 1000
    }

    /// How long it is still fresh; negative: it is stale.
    pub fn left(&self, now: SystemTime) -> i64 {
        self.lifetime - self.age(now)
    }

    /// RFC 9111 sections 4.2.4 and 5.2.1. `stale_since`: somebody said that it is stale, at that time.
    pub fn judge(&self, asked: Option<&RequestDirectives>, stale_since: Option<i64>, now: SystemTime) -> Use {
        let mut left = self.left(now);
        if let Some(since) = stale_since {
            left = left.min(since - millis(now) - 1);
        }
        if let Some(asked) = asked {
            let refuses = asked.no_cache
                || asked.max_age.is_some_and(|most| self.age(now) > i64::from(most) * 1000)
                || asked.min_fresh.is_some_and(|least| left < i64::from(least) * 1000);
            if refuses {
                return Use::Validated;
            }
        }
        if self.no_cache {
            return Use::Validated;
        }
        if left > 0 {
            return Use::Fresh;
        }
        if let Some(most) = asked.and_then(|asked| asked.max_stale)
            && !self.must_revalidate
            && stale_since.is_none()
            && most.is_none_or(|most| -left <= i64::from(most) * 1000)
        {
            return Use::Stale;
        }
        let client_cares = asked.is_some_and(|asked| asked.max_age.is_some() || asked.min_fresh.is_some());
        if -left <= self.while_revalidate && self.while_revalidate > 0 && !client_cares {
            return Use::WhileRevalidating;
        }
        Use::Validated
    }

    /// Whether it may stand in for an answer that could not be had.
    pub fn if_error(&self, now: SystemTime) -> bool {
        self.if_error > 0 && -self.left(now) <= self.if_error
    }

    /// When nothing can be done with it any more but asking whether it still holds.
    pub fn over(&self, now: SystemTime) -> bool {
        -self.left(now) > self.while_revalidate.max(self.if_error)
    }
}

pub fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn ttl_ms(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).min(MOST_MS)
}

/// Of `Age`, in milliseconds. Of a list the first counts (RFC 9111 section 5.1); but of two fields, and of what reads like
/// two that somebody joined (by comma and space, RFC 9110 section 5.2), none is believed. Nor is what cannot be read.
fn age(headers: &HeaderMap) -> i64 {
    let mut told = headers.get_all(header::AGE).iter();
    let one = match (told.next(), told.next()) {
        (None, _) => return 0,
        (Some(one), None) => one.as_bytes().trim_ascii(),
        _ => return MOST_MS,
    };
    let first = match one.iter().position(|byte| *byte == b',') {
        Some(at) if one.get(at + 1).is_some_and(u8::is_ascii_digit) => &one[..at],
        _ => one,
    };
    directives::seconds(first).map_or(MOST_MS, |seconds| i64::from(seconds) * 1000)
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<i64> {
    http_date(headers.get(name)?.as_bytes())
}

/// Told twice it is not known.
fn single_date(headers: &HeaderMap, name: HeaderName) -> Option<i64> {
    let mut told = headers.get_all(name).iter();
    match (told.next(), told.next()) {
        (Some(one), None) => http_date(one.as_bytes()),
        _ => None,
    }
}

/// RFC 9110 section 5.6.7, all three forms.
pub fn http_date(text: &[u8]) -> Option<i64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?;
    Some(millis(time))
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
