//! Where in a config something stands, in the names of its tables and keys.

use std::{borrow::Cow, fmt};

use super::units::quote;

/// `key.key`, names that are not plain in quotes.
pub(crate) fn join(path: &str, name: &str) -> String {
    let name = in_path(name);
    if path.is_empty() { name.into_owned() } else { format!("{path}.{name}") }
}

fn in_path(name: &str) -> Cow<'_, str> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if plain && name.len() <= 63 { name.into() } else { quote(name).into() }
}

/// The path of what is read, in its parts: it is text only where something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Element(&'a Trail<'a>, usize),
}

impl Trail<'_> {
    pub fn key<'a>(&'a self, name: &'a str) -> Trail<'a> {
        Trail::Key(self, name)
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Key(Trail::Root, name) => write!(f, "{}", in_path(name)),
            Trail::Key(path, name) => write!(f, "{path}.{}", in_path(name)),
            Trail::Element(path, index) => write!(f, "{path}[{index}]"),
        }
    }
}
