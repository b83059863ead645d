//! A config in YAML or JSON, as the tree that TOML gives.
//!
//! JSON is read as the YAML that it is (YAML 1.2.2, section 1.3), once it has been found to be JSON. What two readers of
//! YAML could take differently is not guessed at: `010` and `1_000` are text, as are `no` and `on`; tags and duplicate
//! keys are errors. Aliases and merge keys work, within the reader's bounds.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Options, Spanned};
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::{
    error::{Problem, ProblemKind, Problems},
    format::Format,
    source::{DEEPEST, MOST_BYTES, Source},
    units::quote,
};

/// More than the largest config that is of use: ten thousand routes have some hundred thousand.
const MOST_NODES: usize = 4_000_000;

/// What aliases may stand for in all, in the reader's events.
const MOST_BY_ALIAS: usize = 250_000;

/// A value as YAML has it.
enum Tree {
    Null,
    Bool(bool),
    /// As written.
    Number,
    Text(String),
    List(Vec<Spanned<Tree>>),
    Table(Vec<(Spanned<String>, Spanned<Tree>)>),
}

/// The tree, or `None` and what is wrong.
pub(super) fn parse<'s>(source: &'s Source, problems: &mut Problems) -> Option<DeTable<'s>> {
    if source.format() == Format::Json
        && let Err(error) = serde_json::from_str::<IgnoredAny>(source.text())
    {
        let place = source.at(error.line() as u64, error.column() as u64);
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        problems.push(Problem::new(ProblemKind::Syntax, &place, format!("not JSON: {said}")));
        return None;
    }
    let tree = match serde_saphyr::from_str_with_options::<Spanned<Tree>>(source.text(), options()) {
        Ok(tree) => tree,
        Err(error) => {
            problems.push(not_read(source, &error));
            return None;
        }
    };
    let before = problems.count();
    let root = Convert { source, problems }.root(tree);
    (problems.count() == before).then_some(root)
}

fn options() -> Options {
    let mut options = Options::default();
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.reject_unsupported_tags = true;
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = MOST_BY_ALIAS;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = DEEPEST;
        budget.max_documents = 1;
        budget.max_nodes = MOST_NODES;
        budget.max_events = 2 * MOST_NODES;
        budget.max_total_scalar_bytes = MOST_BYTES as usize;
    }
    options
}

fn not_read(source: &Source, error: &serde_saphyr::Error) -> Problem {
    let place = error.location().map_or_else(|| source.at(1, 1), |at| source.at(at.line(), at.column()));
    let said = error.without_snippet().to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    let duplicate = said.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.rsplit_once(", set "));
    if let Some((key, _)) = duplicate {
        let key: String = key.chars().take(80).flat_map(char::escape_debug).collect();
        return Problem::new(ProblemKind::Duplicate, &place, format!("`{key}` is defined twice"));
    }
    // The reader tells its caller what to set; here it is the file that is wrong.
    let said = match said {
        _ if said.starts_with("budget breached: Documents") => "it has more than one document",
        _ if said.starts_with("budget breached") => "it is nested too deeply or too large",
        _ if said.starts_with("alias") => "its aliases stand for too much",
        said => said,
    };
    Problem::new(ProblemKind::Syntax, &place, format!("not {} of any use: {said}", source.format()))
}

struct Convert<'s, 'p> {
    source: &'s Source,
    problems: &'p mut Problems,
}

impl<'s> Convert<'s, '_> {
    fn root(&mut self, tree: Spanned<Tree>) -> DeTable<'s> {
        let at = place(&tree);
        match tree.value {
            Tree::Table(entries) => self.table(entries),
            // An empty file: what is missing will be said.
            Tree::Null => DeTable::new(),
            _ => {
                self.wrong(at, "expected keys with values: listener, route and so on".into(), None);
                DeTable::new()
            }
        }
    }

    fn table(&mut self, entries: Vec<(Spanned<String>, Spanned<Tree>)>) -> DeTable<'s> {
        let mut table = DeTable::new();
        for (key, tree) in entries {
            let at = place(&key);
            if let Some(value) = self.value(&key.value, tree) {
                table.insert(spanned(at, DeString::Owned(key.value)), value);
            }
        }
        table
    }

    fn value(&mut self, key: &str, tree: Spanned<Tree>) -> Option<toml::Spanned<DeValue<'s>>> {
        let at = place(&tree);
        let value = match tree.value {
            Tree::Null => {
                let hint = "leave the key out, or write {} for a table and [] for a list with nothing in it";
                self.wrong(at, format!("{} has no value", quote(key)), Some(hint));
                return None;
            }
            Tree::Bool(value) => DeValue::Boolean(value),
            Tree::Text(text) => DeValue::String(DeString::Owned(text)),
            Tree::Number => self.number(&tree)?,
            Tree::List(list) => {
                let mut array = DeArray::new();
                for element in list {
                    if let Some(value) = self.value(key, element) {
                        array.push(value);
                    }
                }
                DeValue::Array(array)
            }
            Tree::Table(entries) => DeValue::Table(self.table(entries)),
        };
        Some(spanned(at, value))
    }

    /// As TOML writes it: what it does not take as a number, people do not agree about.
    fn number(&mut self, tree: &Spanned<Tree>) -> Option<DeValue<'s>> {
        let span = tree.defined.span();
        let start = span.byte_offset().unwrap_or_default() as usize;
        let end = start + span.byte_len().unwrap_or_default() as usize;
        let written = self.source.text().get(start..end).unwrap_or_default();
        if let Ok(value) = DeValue::parse(written) {
            return Some(value.into_inner());
        }
        let message = format!("{} is not a number as this config has them", quote(written));
        self.wrong(place(tree), message, Some("write it in decimal: 10, 0.5"));
        None
    }

    fn wrong(&mut self, at: usize, message: String, hint: Option<&str>) {
        let place = self.source.place(at);
        let problem = Problem::new(ProblemKind::Value, &place, message);
        self.problems.push(problem.hint(hint.map(str::to_owned)));
    }
}

/// The byte where it is used.
fn place<T>(of: &Spanned<T>) -> usize {
    of.referenced.span().byte_offset().unwrap_or_default() as usize
}

fn spanned<T>(at: usize, value: T) -> toml::Spanned<T> {
    toml::Spanned::new(at..at, value)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Number)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Number)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
                Ok(Tree::Number)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
                Ok(Tree::Number)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Number)
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    list.push(element);
                }
                Ok(Tree::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut table = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    table.push(entry);
                }
                Ok(Tree::Table(table))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
