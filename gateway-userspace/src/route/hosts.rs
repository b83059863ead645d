//! What is looked up by a host name: an exact name before a wildcard, and of those the longest first.

use std::collections::HashMap;

use crate::config::model::HostPattern;

/// Values by host patterns. A look-up is a hash of the name and, where there are wildcards, one of each name above it.
#[derive(Debug)]
pub struct Hosts<T> {
    exact: HashMap<String, T>,
    /// By what follows `*.`.
    wildcard: HashMap<String, T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Hosts { exact: HashMap::new(), wildcard: HashMap::new() }
    }
}

impl<T> FromIterator<(HostPattern, T)> for Hosts<T> {
    fn from_iter<I: IntoIterator<Item = (HostPattern, T)>>(all: I) -> Self {
        let mut hosts = Hosts::default();
        for (pattern, value) in all {
            match pattern {
                HostPattern::Exact(name) => hosts.exact.insert(name, value),
                HostPattern::Wildcard(suffix) => hosts.wildcard.insert(suffix, value),
            };
        }
        hosts
    }
}

impl<T> Hosts<T> {
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.wildcard.values())
    }

    /// What there is for a pattern, made if there is nothing yet.
    pub fn of(&mut self, pattern: &HostPattern) -> &mut T
    where
        T: Default,
    {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix) => self.wildcard.entry(suffix.clone()).or_default(),
        }
    }

    /// All that fits a name, the most specific first. `host`: as [`host_name`] has it.
    pub fn fitting(&self, host: &str) -> impl Iterator<Item = &T> {
        let exact = self.exact.get(host);
        let host = if self.wildcard.is_empty() { "" } else { host };
        let suffixes = host.match_indices('.').filter(|(dot, _)| *dot > 0).map(|(dot, _)| &host[dot + 1..]);
        exact.into_iter().chain(suffixes.filter_map(|suffix| self.wildcard.get(suffix)))
    }
}

/// A host as it is looked up: in lower case, without its port and the root's dot. Names longer than 255 bytes are none (RFC
/// 1035 section 2.3.4).
pub fn host_name<'a>(host: &str, buffer: &'a mut [u8; 255]) -> Option<&'a str> {
    let host = without_port(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let into = buffer.get_mut(..host.len())?;
    into.copy_from_slice(host.as_bytes());
    into.make_ascii_lowercase();
    std::str::from_utf8(into).ok()
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}
