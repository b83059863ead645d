//! What changed between two configs, by the names of the file.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    model::Config,
    show::{toml_value, unlike},
    table::{Kind, ROOT, Section},
    trail::join,
};

/// One setting that differs. `from` is absent for what is new, `to` for what is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// "upstream.items.timeout.connect"
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// Takes effect only after a restart.
    pub restart: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (None, Some(to)) => write!(f, "+ {} = {}", self.path, toml_value(to)),
            (Some(from), None) => write!(f, "- {} = {}", self.path, toml_value(from)),
            (from, to) => {
                let show = |value: &Option<Value>| value.as_ref().map(toml_value).unwrap_or_default();
                write!(f, "~ {}: {} -> {}", self.path, show(from), show(to))
            }
        }
    }
}

/// Every setting that differs, in the table's order.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(Place::Section(&ROOT), "", &unlike(old, new), &unlike(new, old), &mut changes);
    let (before, after) = (&old.kernel.block, &new.kernel.block);
    // What the block lists say is too long to show: that it changed is not.
    if before.prefixes != after.prefixes && before.cidrs == after.cidrs && before.files == after.files {
        let gone =
            before.prefixes.iter().filter(|prefix| after.prefixes.binary_search(prefix).is_err()).count();
        let kept = before.prefixes.len() - gone;
        changes.push(Change {
            path: "kernel.block.files".into(),
            from: Some(json!(format!("{} prefixes in all", before.prefixes.len()))),
            to: Some(json!(format!(
                "{} prefixes in all: {gone} less, {} more",
                after.prefixes.len(),
                after.prefixes.len() - kept
            ))),
            restart: false,
        });
    }
    changes
}

/// The settings among them that a reload cannot change.
pub fn needing_restart(changes: &[Change]) -> Vec<String> {
    changes.iter().filter(|change| change.restart).map(|change| change.path.clone()).collect()
}

/// Where in the table a value stands.
#[derive(Clone, Copy)]
enum Place {
    Section(&'static Section),
    Named(&'static Section),
    Value { restart: bool },
}

impl Place {
    fn of(self, key: &str) -> Place {
        match self {
            Place::Section(section) => match section.key(key) {
                Some(key) => match &key.kind {
                    Kind::Table(section) => Place::Section(section),
                    Kind::Named(section) => Place::Named(section),
                    _ => Place::Value { restart: key.restart },
                },
                None => Place::Value { restart: false },
            },
            Place::Named(section) => Place::Section(section),
            value => value,
        }
    }
}

fn compare(place: Place, path: &str, old: &Value, new: &Value, changes: &mut Vec<Change>) {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        if old != new {
            let restart = matches!(place, Place::Value { restart: true });
            changes.push(Change {
                path: path.into(),
                from: Some(old.clone()),
                to: Some(new.clone()),
                restart,
            });
        }
        return;
    };
    for (key, old) in before {
        match after.get(key) {
            // Most of a large config.
            Some(new) if old == new => {}
            Some(new) => compare(place.of(key), &join(path, key), old, new, changes),
            None => {
                let path = join(path, key);
                changes.push(Change { path, from: Some(old.clone()), to: None, restart: false });
            }
        }
    }
    for (key, new) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
        changes.push(Change { path: join(path, key), from: None, to: Some(new.clone()), restart: false });
    }
}
