//! The one table of every key of a config: type, default, range and meaning.
//!
//! Reading ([`super::read`]), "did you mean", "not supported yet", the JSON Schema, `docs/config.md` and the marks of
//! what needs a restart all come from here, so they cannot disagree. To add a key, add a line to its section; to
//! support one that was only named, replace [`Kind::NotYet`] by its type and use it in [`super::build`].

mod acme;
mod auth;
mod balancing;
mod cache;
mod core;
mod limit;
mod listener;
mod match_text;
mod rewrite;
mod route;
mod seeing;
mod service;
mod shape;
mod splice;
mod text;
mod traffic;
mod version;

use std::time::Duration;

use super::{node::Value, units::UnitError};

pub(crate) use self::core::ROOT;
pub(crate) use service::{MOST_ADDRESSES, MOST_SERVICES, MOST_TARGETS, MOST_TARGETS_IN_ALL};
pub(crate) use text::{NAME_PATTERN, is_name, payload};

/// A table with known keys.
#[derive(Debug)]
pub(crate) struct Section {
    pub keys: &'static [Key],
    pub doc: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// As TOML text.
    pub default: Option<&'static str>,
    pub need: Need,
    /// Takes effect only after a restart.
    pub restart: bool,
    pub doc: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    Optional,
    Required,
    /// Not missed when one of these keys is there in its place.
    RequiredUnless(&'static [&'static str]),
    /// Not missed when one of these keys is there; both may be.
    RequiredWithout(&'static [&'static str]),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    /// Only `false` works in this version.
    OnlyFalse,
    Int {
        min: u64,
        max: u64,
    },
    /// Above the first, at most the second.
    Float {
        above: f64,
        max: f64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    Size {
        min: u64,
        max: u64,
    },
    Text(&'static Text),
    /// A date, in quotes or without.
    Date,
    /// One of these words; `later` are known by name, but not supported yet.
    Choice {
        now: &'static [(&'static str, &'static str)],
        later: &'static [&'static str],
    },
    /// `one`: a single value may be written without brackets.
    List {
        of: &'static Kind,
        min: usize,
        one: bool,
    },
    Table(&'static Section),
    /// Tables keyed by names of the user's own.
    Named(&'static Section),
    /// A table with known keys, and beside them tables by names of the user's own.
    TableAndNamed(&'static Section, &'static Section),
    /// Values by keys of the user's own, each key a text of this form.
    Map {
        key: &'static Text,
        of: &'static Kind,
    },
    /// Alternatives that the TOML type tells apart; words are tried before other texts.
    Either(&'static [Kind]),
    NotYet,
}

/// A text with a form of its own.
#[derive(Debug)]
pub(crate) struct Text {
    /// "a host name", for messages and docs.
    pub what: &'static str,
    pub example: &'static str,
    /// For the JSON Schema; what `parse` says holds.
    pub pattern: Option<&'static str>,
    pub parse: fn(&str) -> Result<Value, UnitError>,
}

impl Section {
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Key {
    const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Key { name, kind, default: None, need: Need::Optional, restart: false, doc }
    }

    const fn not_yet(name: &'static str, doc: &'static str) -> Self {
        Key::new(name, Kind::NotYet, doc)
    }

    const fn default(self, toml: &'static str) -> Self {
        Key { default: Some(toml), ..self }
    }

    const fn required(self) -> Self {
        Key { need: Need::Required, ..self }
    }

    const fn required_unless(self, keys: &'static [&'static str]) -> Self {
        Key { need: Need::RequiredUnless(keys), ..self }
    }

    const fn required_without(self, keys: &'static [&'static str]) -> Self {
        Key { need: Need::RequiredWithout(keys), ..self }
    }

    const fn restart(self) -> Self {
        Key { restart: true, ..self }
    }

    /// Whether it does nothing in this version but to be known.
    pub fn is_later(&self) -> bool {
        matches!(self.kind, Kind::NotYet)
    }
}

impl Kind {
    /// Whether any value of it works in this version.
    pub fn is_supported(&self) -> bool {
        !matches!(self, Kind::NotYet | Kind::Choice { now: [], .. })
    }

    /// Whether a table can be its value.
    pub fn takes_tables(&self) -> bool {
        match self {
            Kind::Table(_) | Kind::TableAndNamed(..) | Kind::Named(_) | Kind::Map { .. } => true,
            Kind::Either(kinds) => kinds.iter().any(Kind::takes_tables),
            Kind::List { of, one, .. } => *one && of.takes_tables(),
            _ => false,
        }
    }

    /// A value as TOML, for hints.
    pub fn example(&self) -> Option<String> {
        match self {
            Kind::Text(text) => Some(format!("\"{}\"", text.example)),
            Kind::List { of, .. } => of.example().map(|one| format!("[{one}]")),
            Kind::Either(kinds) => kinds.iter().find_map(Kind::example),
            _ => None,
        }
    }

    /// "a duration such as "250ms"", for "expected …".
    pub fn expected(&self) -> String {
        match self {
            Kind::Bool => "true or false".into(),
            Kind::OnlyFalse => "false".into(),
            Kind::Int { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Float { above, max } => format!("a number above {above}, at most {max}"),
            Kind::Duration { .. } => "a duration such as \"250ms\"".into(),
            Kind::Date => "a date such as 2027-01-31".into(),
            Kind::Size { .. } => "a size such as \"512MiB\"".into(),
            Kind::Text(text) => format!("{} such as \"{}\"", text.what, text.example),
            Kind::Choice { now, .. } => {
                let words: Vec<String> = now.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                match words.split_last() {
                    Some((last, [])) => last.clone(),
                    Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                    None => "nothing".into(),
                }
            }
            Kind::List { of, one: true, .. } => format!("{}, or a list of them", of.expected()),
            Kind::List { of, .. } => match of {
                Kind::Text(text) => format!("a list such as [\"{}\"]", text.example),
                Kind::Int { .. } => "a list such as [200, 204]".into(),
                Kind::Choice { now: [(word, _), ..], .. } => format!("a list such as [\"{word}\"]"),
                Kind::Either([Kind::Text(text), ..]) => format!("a list such as [\"{}\"]", text.example),
                _ => "a list".into(),
            },
            Kind::Table(section) | Kind::TableAndNamed(section, _) => {
                let names: Vec<_> =
                    section.keys.iter().filter(|key| !key.is_later()).map(|key| key.name).collect();
                format!("a table {{ {} }}", names.join(", "))
            }
            Kind::Map { key, of } => {
                format!("a table such as {{ {} = … }}, each {}", key.example, of.expected())
            }
            Kind::Named(_) => "a table of tables, each with a name of your own".into(),
            Kind::Either(kinds) => {
                let now = kinds.iter().filter(|kind| kind.is_supported());
                now.map(Kind::expected).collect::<Vec<_>>().join(" or ")
            }
            Kind::NotYet => "nothing in this version".into(),
        }
    }
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A time-out: neither zero, which nothing meets, nor longer than a day.
const TIMEOUT: Kind = Kind::Duration { min: Duration::from_millis(1), max: seconds(86_400) };
/// A token bucket, and one of bytes.
const BUCKET_OR_RATE: Kind = Kind::Either(&[Kind::Text(&text::RATE), Kind::Table(&core::BUCKET)]);
const BYTE_BUCKET_OR_RATE: Kind =
    Kind::Either(&[Kind::Text(&text::BYTE_RATE), Kind::Table(&core::BYTE_BUCKET)]);
/// The word for "none", where a limit can be lifted.
const OFF: Kind = Kind::Choice { now: &[("off", "none")], later: &[] };

#[cfg(test)]
mod tests;
