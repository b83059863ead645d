//! Which route takes a request, by host and path.
//!
//! The most specific route wins, whatever the order in the file: an exact host before a wildcard (the longer one
//! first) before none; then, segment by segment, a literal before a `{parameter}` before a trailing `*`. A less
//! specific host is only asked when no route of a more specific one matches. Ties are config errors, so there are none.

use std::collections::HashMap;

use crate::config::model::{HostPattern, PathPattern, Segment};

/// Routes of type `T`, compiled.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<String, Paths<T>>,
    /// By suffix, the longest first.
    wildcard: Vec<(String, Paths<T>)>,
    any: Paths<T>,
}

impl<T: Clone> Router<T> {
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a [HostPattern], &'a PathPattern, T)>) -> Self {
        let mut router = Router { exact: HashMap::new(), wildcard: Vec::new(), any: Paths::default() };
        for (hosts, path, value) in routes {
            if hosts.is_empty() {
                router.any.insert(path, value.clone());
            }
            for host in hosts {
                router.paths_of(host).insert(path, value.clone());
            }
        }
        router.wildcard.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        router
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths<T> {
        match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix) => {
                let found = self.wildcard.iter().position(|(have, _)| have == suffix);
                let index = found.unwrap_or_else(|| {
                    self.wildcard.push((suffix.clone(), Paths::default()));
                    self.wildcard.len() - 1
                });
                &mut self.wildcard[index].1
            }
        }
    }

    /// `host` as sent (any case, maybe with a port), `path` without the query.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.find(path);
        }
        let host = without_port(host);
        let mut lower = [0u8; 255];
        let host = lower_case(host, &mut lower);
        host.and_then(|host| {
            self.exact.get(host).and_then(|paths| paths.find(path)).or_else(|| self.find_wildcard(host, path))
        })
        .or_else(|| self.any.find(path))
    }

    fn find_wildcard(&self, host: &str, path: &str) -> Option<&T> {
        self.wildcard
            .iter()
            .filter(|(suffix, _)| {
                host.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            })
            .find_map(|(_, paths)| paths.find(path))
    }
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Names longer than 255 bytes are no host names (RFC 1035 section 2.3.4): only routes without a host take them.
/// A trailing dot (the root) is ignored.
fn lower_case<'a>(host: &str, buffer: &'a mut [u8; 255]) -> Option<&'a str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let into = buffer.get_mut(..host.len())?;
    into.copy_from_slice(host.as_bytes());
    into.make_ascii_lowercase();
    std::str::from_utf8(into).ok()
}

/// A trie of path segments.
#[derive(Debug)]
struct Paths<T> {
    here: Option<T>,
    rest: Option<T>,
    literal: HashMap<String, Paths<T>>,
    parameter: Option<Box<Paths<T>>>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Paths { here: None, rest: None, literal: HashMap::new(), parameter: None }
    }
}

impl<T> Paths<T> {
    fn insert(&mut self, path: &PathPattern, value: T) {
        let mut node = self;
        for segment in &path.segments {
            node = match segment {
                Segment::Literal(name) => node.literal.entry(name.clone()).or_default(),
                Segment::Parameter(_) => node.parameter.get_or_insert_default(),
            };
        }
        let slot = if path.rest { &mut node.rest } else { &mut node.here };
        *slot = Some(value);
    }

    fn find(&self, path: &str) -> Option<&T> {
        if self.literal.is_empty() && self.parameter.is_none() && self.here.is_none() {
            return self.rest.as_ref();
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        self.find_segments(if path.is_empty() { None } else { Some(path) })
    }

    /// `left`: what follows the slash that ended the last segment; `None` at the end of the path.
    fn find_segments(&self, left: Option<&str>) -> Option<&T> {
        let Some(left) = left else {
            return self.here.as_ref().or(self.rest.as_ref());
        };
        let (segment, after) = match left.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (left, None),
        };
        self.literal
            .get(segment)
            .and_then(|node| node.find_segments(after))
            .or_else(|| {
                let node = self.parameter.as_ref().filter(|_| !segment.is_empty())?;
                node.find_segments(after)
            })
            .or(self.rest.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        let mut segments: Vec<&str> = text.trim_start_matches('/').split('/').collect();
        let rest = segments.last() == Some(&"*");
        if rest {
            segments.pop();
        }
        let segment = |s: &str| match s.strip_prefix('{') {
            Some(name) => Segment::Parameter(name.trim_end_matches('}').into()),
            None => Segment::Literal(s.into()),
        };
        PathPattern {
            segments: segments.into_iter().filter(|s| !s.is_empty() || !rest).map(segment).collect(),
            rest,
        }
    }

    fn router(routes: &[(&[&str], &str)]) -> Router<String> {
        let compiled: Vec<(Vec<HostPattern>, PathPattern, String)> = routes
            .iter()
            .map(|(hosts, pattern)| {
                let host = |h: &&str| match h.strip_prefix("*.") {
                    Some(suffix) => HostPattern::Wildcard(suffix.into()),
                    None => HostPattern::Exact((*h).into()),
                };
                (hosts.iter().map(host).collect(), path(pattern), format!("{}{pattern}", hosts.join(",")))
            })
            .collect();
        Router::new(compiled.iter().map(|(hosts, path, name)| (hosts.as_slice(), path, name.clone())))
    }

    #[track_caller]
    fn check(router: &Router<String>, host: &str, path: &str, expected: Option<&str>) {
        assert_eq!(router.find(host, path).map(String::as_str), expected, "{host}{path}");
    }

    #[test]
    fn literals_win_over_parameters_over_the_rest() {
        let router = router(&[(&[], "/*"), (&[], "/items/*"), (&[], "/items/{id}"), (&[], "/items/new")]);
        check(&router, "x", "/items/new", Some("/items/new"));
        check(&router, "x", "/items/7", Some("/items/{id}"));
        check(&router, "x", "/items/7/parts", Some("/items/*"));
        check(&router, "x", "/items", Some("/items/*"));
        check(&router, "x", "/items/", Some("/items/*"));
        check(&router, "x", "/itemsx", Some("/*"));
        check(&router, "x", "/", Some("/*"));
    }

    #[test]
    fn a_literal_that_leads_nowhere_falls_back_to_the_parameter() {
        let router = router(&[(&[], "/a/b/c"), (&[], "/a/{x}/d")]);
        check(&router, "x", "/a/b/d", Some("/a/{x}/d"));
        check(&router, "x", "/a/b/c", Some("/a/b/c"));
        check(&router, "x", "/a/b", None);
    }

    #[test]
    fn exact_hosts_win_over_longer_wildcards_over_shorter_over_none() {
        let router = router(&[
            (&["a.b.example"], "/*"),
            (&["*.b.example"], "/*"),
            (&["*.example"], "/*"),
            (&[], "/*"),
        ]);
        check(&router, "A.B.Example:8080", "/", Some("a.b.example/*"));
        check(&router, "x.b.example", "/", Some("*.b.example/*"));
        check(&router, "x.y.b.example.", "/", Some("*.b.example/*"));
        check(&router, "b.example", "/", Some("*.example/*"));
        check(&router, "example", "/", Some("/*"));
        check(&router, "[2001:db8::1]:80", "/", Some("/*"));
        check(&router, &"x".repeat(300), "/", Some("/*"));
    }

    #[test]
    fn a_less_specific_host_serves_paths_that_the_specific_one_lacks() {
        let router = router(&[(&["a.example"], "/only"), (&[], "/*")]);
        check(&router, "a.example", "/only", Some("a.example/only"));
        check(&router, "a.example", "/else", Some("/*"));
    }

    #[test]
    fn a_route_without_rest_takes_its_path_alone() {
        let router = router(&[(&[], "/exact")]);
        check(&router, "x", "/exact", Some("/exact"));
        check(&router, "x", "/exact/", None);
        check(&router, "x", "/", None);
    }
}
