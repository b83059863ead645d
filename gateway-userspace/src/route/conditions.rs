//! Methods, header fields and query parameters that a route asks for, compiled.

use http::{HeaderName, Method};

use super::Asked;
use crate::{
    config::model::{Matcher, Predicates},
    policy::cors::preflight_method,
};

#[derive(Debug, Clone)]
pub(super) struct Conditions {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, Matcher)>,
    query: Vec<(String, Matcher)>,
    count: usize,
    cors: bool,
}

impl Conditions {
    /// `None` when there are none.
    pub fn new(when: &Predicates, cors: bool) -> Option<Box<Self>> {
        if when.count() == 0 {
            return None;
        }
        // The config's reader let nothing but valid names through.
        let mut methods: Vec<Method> =
            when.methods.iter().filter_map(|method| Method::from_bytes(method.as_bytes()).ok()).collect();
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        let header = |(name, matcher): &(String, Matcher)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, matcher.clone()))
        };
        let headers = when.headers.iter().filter_map(header).collect();
        Some(Box::new(Conditions { methods, headers, query: when.query.clone(), count: when.count(), cors }))
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.iter().map(Method::as_str)
    }

    pub fn hold(&self, asked: &Asked<'_>) -> bool {
        (self.methods.is_empty() || self.method_holds(asked)) && self.hold_but_for_method(asked)
    }

    fn method_holds(&self, asked: &Asked<'_>) -> bool {
        let listed = |wanted: &[u8]| self.methods.iter().any(|method| method.as_str().as_bytes() == wanted);
        self.methods.contains(asked.method)
            || (self.cors && preflight_method(asked.method, asked.headers).is_some_and(listed))
    }

    pub fn hold_but_for_method(&self, asked: &Asked<'_>) -> bool {
        self.headers.iter().all(|(name, matcher)| {
            matcher.holds(asked.headers.get_all(name).iter().map(|value| value.as_bytes()))
        }) && self.query_holds(asked.query.unwrap_or_default())
    }

    fn query_holds(&self, query: &str) -> bool {
        self.query.iter().all(|(name, matcher)| {
            let sent: Vec<_> =
                form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).collect();
            matcher.holds(sent.iter().map(|(_, value)| value.as_bytes()))
        })
    }
}

impl Matcher {
    /// `values`: all that came under the name.
    fn holds<'a>(&self, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
        match self {
            Matcher::Present => values.next().is_some(),
            Matcher::Absent => values.next().is_none(),
            Matcher::Is(wanted) => values.any(|value| value == wanted.as_bytes()),
            Matcher::Like(pattern) => values.any(|value| pattern.regex.is_match(value)),
        }
    }
}
