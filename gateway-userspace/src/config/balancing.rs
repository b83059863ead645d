//! What an upstream's balancing and its patience with targets take: parts of the [model](super::model).

use std::time::Duration;

use super::{
    model::Respond,
    units::{UnitError, quote},
};

/// `hash_on`: what a request is hashed by. In a list the first one that the request has counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// Lower case.
    Header(String),
    Cookie(String),
    Query(String),
    Path,
    /// The consumer that calls.
    Consumer,
    /// The client's address.
    Ip,
    /// A target by lot.
    Random,
}

impl HashOn {
    pub(crate) fn parse(text: &str) -> Result<HashOn, UnitError> {
        let wrong = || {
            UnitError::new(format!("expected what to hash, such as \"header:x-user\", found {}", quote(text)))
                .hint(
                    "it is \"header:NAME\", \"cookie:NAME\", \"query:NAME\", \"path\", \"consumer\", \"ip\" or \"random\"",
                )
        };
        match text.split_once(':') {
            Some((_, name)) if !is_token(name) => Err(wrong()),
            Some(("header", name)) => Ok(HashOn::Header(name.to_ascii_lowercase())),
            Some(("cookie", name)) => Ok(HashOn::Cookie(name.into())),
            Some(("query", name)) => Ok(HashOn::Query(name.into())),
            None if text == "path" => Ok(HashOn::Path),
            None if text == "consumer" => Ok(HashOn::Consumer),
            None if text == "ip" => Ok(HashOn::Ip),
            None if text == "random" => Ok(HashOn::Random),
            _ => Err(wrong()),
        }
    }

    /// As the config writes it.
    pub fn show(&self) -> String {
        match self {
            HashOn::Header(name) => format!("header:{name}"),
            HashOn::Cookie(name) => format!("cookie:{name}"),
            HashOn::Query(name) => format!("query:{name}"),
            HashOn::Path => "path".into(),
            HashOn::Consumer => "consumer".into(),
            HashOn::Ip => "ip".into(),
            HashOn::Random => "random".into(),
        }
    }
}

/// RFC 9110 section 5.6.2; cookies' names are tokens too (RFC 6265 section 4.1.1).
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// `sticky = { cookie, lasts, same_site, secure }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyCookie {
    pub cookie: String,
    /// `None`: as long as the browser runs.
    pub lasts: Option<Duration>,
    /// "lax", "strict" or "none".
    pub same_site: &'static str,
    pub secure: bool,
}

/// `eject = { errors, within, for, at_most }`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Eject {
    /// In a row.
    pub errors: u32,
    pub within: Duration,
    /// The first time; each further time it is so much longer.
    pub base: Duration,
    /// A share of the targets, rounded down.
    pub at_most: f64,
}

/// `breaker = { errors, least, within, open_for, probes }`
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// A share of the requests.
    pub errors: f64,
    /// Requests below which the share says nothing.
    pub least: u32,
    pub within: Duration,
    pub open_for: Duration,
    pub probes: u32,
    /// An answer that begins later is as bad as none.
    pub slow: Option<Duration>,
}

/// `fallback = { on, to, respond }`
#[derive(Debug, Clone, PartialEq)]
pub struct Fallback {
    pub on: FallbackOn,
    /// A key of `Config::upstreams`. This or `respond` is there, or both.
    pub to: Option<String>,
    pub respond: Option<Respond>,
}

/// The words of `fallback.on`: why an upstream is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FallbackOn {
    pub breaker: bool,
    pub unhealthy: bool,
    pub connect: bool,
}

impl FallbackOn {
    pub(crate) fn from_words(words: &[&str]) -> FallbackOn {
        let has = |word: &str| words.contains(&word);
        FallbackOn { breaker: has("breaker"), unhealthy: has("unhealthy"), connect: has("connect") }
    }

    pub fn words(self) -> Vec<&'static str> {
        let all = [(self.breaker, "breaker"), (self.unhealthy, "unhealthy"), (self.connect, "connect")];
        all.into_iter().filter(|(there, _)| *there).map(|(_, word)| word).collect()
    }
}

/// `retry = { on, tries, budget, per_try }`
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub on: RetryOn,
    /// Other targets to try. Default 2; 0..=10; 0 with `on = []`.
    pub tries: u32,
    /// Retries as a share of requests over ten seconds.
    pub budget: Option<f64>,
    /// How long one target may take until its answer's head.
    pub per_try: Option<Duration>,
}

/// `retry = { on, tries, per_try }` of a route: what is there counts in place of the upstream's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouteRetry {
    pub on: Option<RetryOn>,
    pub tries: Option<u32>,
    /// `Some(None)`: no limit.
    pub per_try: Option<Option<Duration>>,
}

/// Other targets where an upstream that retries nothing has a route that does.
const TRIES: u32 = 2;

impl RouteRetry {
    /// What is retried, and at how many other targets.
    pub fn over(&self, upstream: &Retry) -> (RetryOn, u32) {
        let on = self.on.unwrap_or(upstream.on);
        let usual = if upstream.tries == 0 && self.on.is_some() { TRIES } else { upstream.tries };
        let tries = self.tries.unwrap_or(usual);
        (on, if on == RetryOn::default() { 0 } else { tries })
    }
}

/// The words of `retry.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn {
    pub connect: bool,
    pub reset: bool,
    pub timeout: bool,
    pub s500: bool,
    pub s502: bool,
    pub s503: bool,
    pub s504: bool,
}

impl RetryOn {
    pub(crate) fn from_words(words: &[&str]) -> RetryOn {
        let has = |word: &str| words.contains(&word);
        RetryOn {
            connect: has("connect"),
            reset: has("reset"),
            timeout: has("timeout"),
            s500: has("500"),
            s502: has("502"),
            s503: has("503"),
            s504: has("504"),
        }
    }

    pub fn words(self) -> Vec<&'static str> {
        let all = [
            (self.connect, "connect"),
            (self.reset, "reset"),
            (self.timeout, "timeout"),
            (self.s500, "500"),
            (self.s502, "502"),
            (self.s503, "503"),
            (self.s504, "504"),
        ];
        all.into_iter().filter(|(there, _)| *there).map(|(_, word)| word).collect()
    }

    /// Whether something else than connections that could not be made is retried, or not even those.
    pub fn is_special(self) -> bool {
        self != RetryOn { connect: true, ..RetryOn::default() }
    }

    /// Whether anything is retried that happens after a request was sent.
    pub fn after_sending(self) -> bool {
        self != RetryOn { connect: self.connect, ..RetryOn::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_hash_is_read_and_shown() {
        for text in ["header:x-user", "cookie:uid", "query:v", "path", "consumer", "ip", "random"] {
            assert_eq!(HashOn::parse(text).map(|on| on.show()).as_deref(), Ok(text));
        }
        for text in ["", "header", "header:", "header:a b", "cookie:a;b", "host", "path:x", "ip:1"] {
            assert!(HashOn::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_happens_before_sending_is_always_safe() {
        let words = ["connect", "reset", "timeout", "500", "502", "503", "504"];
        for word in words {
            let on = RetryOn::from_words(&[word]);
            assert_eq!(on.words(), [word]);
            assert_eq!(on.after_sending(), word != "connect");
        }
        assert_eq!(RetryOn::from_words(&words).words(), words);
    }
}
