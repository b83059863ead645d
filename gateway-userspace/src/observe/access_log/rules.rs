//! What of the config a worker needs to know of the log: which lines are kept, and what stands in none.

use std::{borrow::Cow, time::Duration};

use super::Line;
use crate::config::model;

/// What stands in the place of a value.
pub const HIDDEN: &str = "***";
/// Without `keep`: what is remembered as slow.
const SLOW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Rules {
    /// The share of good requests that are kept, of 2^32; `None`: all are.
    ok: Option<u64>,
    slow_us: u64,
    pub redact: Option<Redactor>,
}

impl Default for Rules {
    fn default() -> Self {
        Rules::new(&model::AccessLog::default())
    }
}

impl Rules {
    pub fn new(config: &model::AccessLog) -> Self {
        let slow = config.keep.as_ref().map_or(SLOW, |keep| keep.slow);
        let model::Redact { headers, query } = &config.redact;
        Rules {
            ok: config.keep.as_ref().map(|keep| (keep.ok * 2f64.powi(32)) as u64),
            slow_us: slow.as_micros().try_into().unwrap_or(u64::MAX),
            redact: (!headers.is_empty() || !query.is_empty())
                .then(|| Redactor { headers: headers.clone(), query: query.clone() }),
        }
    }

    /// Whether it went wrong or was slow.
    pub fn notable(&self, line: &Line<'_>) -> bool {
        line.why.is_some() || line.status.is_some_and(|status| status >= 500) || self.slow(line)
    }

    // A connection of a service lasts as long as its client likes.
    fn slow(&self, line: &Line<'_>) -> bool {
        line.status.is_some() && line.us >= self.slow_us
    }

    pub fn keeps(&self, line: &Line<'_>) -> bool {
        let Some(share) = self.ok else { return true };
        line.why.is_some()
            || line.status.is_some_and(|status| status >= 400)
            || self.slow(line)
            || u64::from(fastrand::u32(..)) < share
    }
}

/// `access_log.redact`
#[derive(Debug)]
pub struct Redactor {
    headers: Vec<String>,
    query: Vec<String>,
}

impl Redactor {
    pub fn hides_header(&self, name: &str) -> bool {
        self.headers.iter().any(|hidden| hidden == name)
    }

    /// A query without the values of what is hidden.
    pub fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        let hidden = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| self.hides_parameter(name));
        if !query.split('&').any(hidden) {
            return Cow::Borrowed(query);
        }
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) if self.hides_parameter(name) => Cow::Owned(format!("{name}={HIDDEN}")),
            _ => Cow::Borrowed(pair),
        });
        Cow::Owned(pairs.collect::<Vec<_>>().join("&"))
    }

    /// As [`Redactor::query`], of a URL's.
    pub fn referer<'a>(&self, url: &'a [u8]) -> Cow<'a, [u8]> {
        let (Some(start), Ok(text)) = (url.iter().position(|b| *b == b'?'), std::str::from_utf8(url)) else {
            return Cow::Borrowed(url);
        };
        let (front, rest) = text.split_at(start + 1);
        let (query, fragment) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
        match self.query(query) {
            Cow::Borrowed(_) => Cow::Borrowed(url),
            Cow::Owned(query) => Cow::Owned(format!("{front}{query}{fragment}").into_bytes()),
        }
    }

    /// By its name as an application reads it: `%74oken` is `token`.
    fn hides_parameter(&self, name: &str) -> bool {
        let is = |name: &str| self.query.iter().any(|hidden| hidden == name);
        if is(name) {
            return true;
        }
        name.contains(['%', '+'])
            && form_urlencoded::parse(name.as_bytes()).next().is_some_and(|(decoded, _)| is(&decoded))
    }
}
