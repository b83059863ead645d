use std::collections::HashSet;

use super::*;
use crate::config::{node::Fields, read::read_default, units::Place};

/// Every section, with its path.
fn sections() -> Vec<(String, &'static Section)> {
    fn inside(path: String, kind: &'static Kind, found: &mut Vec<(String, &'static Section)>) {
        match kind {
            Kind::Table(section) | Kind::Named(section) => walk(path, section, found),
            Kind::TableAndNamed(section, named) => {
                walk(path.clone(), section, found);
                walk(format!("{path}.NAME"), named, found);
            }
            Kind::List { of, .. } | Kind::Map { of, .. } => inside(path, of, found),
            Kind::Either(kinds) => kinds.iter().for_each(|kind| inside(path.clone(), kind, found)),
            _ => {}
        }
    }
    fn walk(path: String, section: &'static Section, found: &mut Vec<(String, &'static Section)>) {
        found.push((path.clone(), section));
        section.keys.iter().for_each(|key| inside(format!("{path}.{}", key.name), &key.kind, found));
    }
    let mut found = Vec::new();
    walk(String::new(), &ROOT, &mut found);
    found
}

#[test]
fn every_default_is_valid_for_its_key() {
    for (path, section) in sections() {
        for key in section.keys.iter().filter(|key| key.default.is_some()) {
            assert!(read_default(key).is_some(), "{path}.{}", key.name);
        }
    }
}

#[test]
fn keys_are_there_once_and_say_what_they_mean() {
    for (path, section) in sections() {
        let mut names = HashSet::new();
        assert!(section.doc.ends_with('.'), "{path}: {}", section.doc);
        for key in section.keys {
            assert!(names.insert(key.name), "{path}.{} is there twice", key.name);
            assert!(key.doc.ends_with('.') && key.doc.len() > 3, "{path}.{}: {}", key.name, key.doc);
            // Places in the docs are one line of a table.
            assert!(!key.doc.contains(['\n', '|']), "{path}.{}", key.name);
        }
    }
}

#[test]
fn examples_are_valid() {
    fn check(kind: &Kind) {
        match kind {
            Kind::Text(text) => {
                assert!((text.parse)(text.example).is_ok(), "{}: {}", text.what, text.example)
            }
            Kind::List { of, .. } => check(of),
            Kind::Map { key, of } => {
                assert!((key.parse)(key.example).is_ok(), "{}: {}", key.what, key.example);
                check(of);
            }
            Kind::Either(kinds) => kinds.iter().for_each(check),
            _ => {}
        }
    }
    sections().iter().flat_map(|(_, section)| section.keys).for_each(|key| check(&key.kind));
}

#[test]
fn a_key_that_stands_in_for_another_is_known() {
    for (path, section) in sections() {
        for key in section.keys {
            let Need::RequiredUnless(others) = key.need else { continue };
            assert!(others.iter().all(|other| section.key(other).is_some()), "{path}.{}", key.name);
        }
    }
}

#[test]
fn tables_that_are_left_out_are_empty() {
    let at = Place { file: Default::default(), line: 0, column: 0 };
    for (_, section) in sections() {
        let fields = Fields::empty(section, at.clone());
        for key in section.keys {
            if let Kind::Table(_) = key.kind {
                assert!(fields.table(key.name).map.is_empty());
            }
        }
    }
}
