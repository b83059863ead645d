//! A trie of path segments.

use std::collections::HashMap;

use super::{Asked, Conditions};
use crate::config::model::{PathPattern, Segment, Shape};

/// The routes of one host and path, those with more predicates first.
#[derive(Debug)]
pub(super) struct Slot<T>(Vec<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    conditions: Option<Box<Conditions>>,
    value: T,
}

impl<T> Slot<T> {
    fn insert(&mut self, conditions: Option<Box<Conditions>>, value: T) {
        self.0.push(Entry { conditions, value });
        self.0.sort_by_key(|entry| std::cmp::Reverse(entry.conditions.as_ref().map_or(0, |all| all.count())));
    }

    #[inline]
    pub fn find(&self, asked: &Asked<'_>) -> Option<&T> {
        let mut entries = self.0.iter();
        let holds = |entry: &&Entry<T>| entry.conditions.as_ref().is_none_or(|all| all.hold(asked));
        entries.find(holds).map(|entry| &entry.value)
    }

    /// The methods of those that nothing but the method speaks against.
    pub fn allowed<'a>(&'a self, asked: &'a Asked<'_>) -> impl Iterator<Item = &'a str> {
        let conditions = self.0.iter().filter_map(|entry| entry.conditions.as_ref());
        conditions.filter(|all| all.hold_but_for_method(asked)).flat_map(|all| all.methods())
    }
}

#[derive(Debug)]
pub(super) struct Paths<T> {
    here: Option<Slot<T>>,
    rest: Option<Slot<T>>,
    literal: HashMap<String, Paths<T>>,
    /// Segments that look like a version.
    version: Option<Box<(Shape, Paths<T>)>>,
    parameter: Option<Box<Paths<T>>>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Paths { here: None, rest: None, literal: HashMap::new(), version: None, parameter: None }
    }
}

impl<T> Paths<T> {
    pub fn insert(&mut self, path: &PathPattern, conditions: Option<Box<Conditions>>, value: T) {
        let mut node = self;
        for segment in &path.segments {
            node = match segment {
                Segment::Literal(name) => node.literal.entry(name.clone()).or_default(),
                Segment::Version(shape) => {
                    let (known, node) = &mut **node.version.get_or_insert_default();
                    *known = known.or(*shape);
                    node
                }
                Segment::Parameter(_) => node.parameter.get_or_insert_default(),
            };
        }
        let slot = if path.rest { &mut node.rest } else { &mut node.here };
        slot.get_or_insert(Slot(Vec::new())).insert(conditions, value);
    }

    /// Shows `take` the routes whose path matches, the most specific first, until it takes something.
    pub fn visit<'a, R>(&'a self, path: &str, take: &mut impl FnMut(&'a Slot<T>) -> Option<R>) -> Option<R> {
        let no_segments = self.literal.is_empty() && self.parameter.is_none() && self.version.is_none();
        if no_segments && self.here.is_none() {
            return self.rest.as_ref().and_then(take);
        }
        let path = path.strip_prefix('/').unwrap_or(path);
        self.visit_segments(if path.is_empty() { None } else { Some(path) }, take)
    }

    /// `left`: what follows the slash that ended the last segment; `None` at the end of the path. A node is visited at
    /// most once a request, as its depth is its place in the path.
    fn visit_segments<'a, R>(
        &'a self,
        left: Option<&str>,
        take: &mut impl FnMut(&'a Slot<T>) -> Option<R>,
    ) -> Option<R> {
        let Some(left) = left else {
            let here = self.here.as_ref().and_then(&mut *take);
            return here.or_else(|| self.rest.as_ref().and_then(take));
        };
        let (segment, after) = match left.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (left, None),
        };
        if let Some(taken) = self.literal.get(segment).and_then(|node| node.visit_segments(after, take)) {
            return Some(taken);
        }
        let version = self.version.as_ref().filter(|version| version.0.takes(segment));
        if let Some(taken) = version.and_then(|version| version.1.visit_segments(after, take)) {
            return Some(taken);
        }
        let parameter = self.parameter.as_ref().filter(|_| !segment.is_empty());
        if let Some(taken) = parameter.and_then(|node| node.visit_segments(after, take)) {
            return Some(taken);
        }
        self.rest.as_ref().and_then(take)
    }
}
