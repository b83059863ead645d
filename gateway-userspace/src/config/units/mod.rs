//! Values that people write by hand: durations, sizes, rates, prefixes, and where they stand in a file.
//!
//! Each type reads itself (`FromStr`) and writes itself (`Display`) so that what is written reads as the same value.

mod address;
mod duration;
mod lookup;
mod moment;
mod path;
mod pattern;
mod prefix;
mod prefixes;
mod quantity;
mod quota;
mod template;
mod version;

use std::{fmt, path::PathBuf, sync::Arc};

use thiserror::Error;

pub use address::{is_https, parse_target};
pub use duration::{HumanDuration, parse_duration, show_duration};
pub use lookup::Lookup;
pub use moment::Moment;
pub use path::{lenient_path, normal_path};
pub use prefix::Prefix;
pub use prefixes::Prefixes;
pub use quantity::{ByteSize, Percent, Rate, parse_byte_rate, show_byte_rate};
pub use quota::{Quota, Span, SpanUnit};
pub use template::{Part, Template, Variable};
pub use version::{Date, Number, VersionForm, VersionName, Wanted};

/// Where something stands in a config file; lines and columns start at 1, columns count characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<PathBuf>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Line 0: the whole file, or a command-line flag.
        match self.line {
            0 => write!(f, "{}", self.file.display()),
            _ => write!(f, "{}:{}:{}", self.file.display(), self.line, self.column),
        }
    }
}

/// Where a part of the config stands, which is no part of what it says: a config that is only moved about is the same.
#[derive(Debug, Clone)]
pub struct At(pub Place);

impl PartialEq for At {
    fn eq(&self, _: &At) -> bool {
        true
    }
}

impl Eq for At {}

impl From<Place> for At {
    fn from(place: Place) -> At {
        At(place)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::ops::Deref for At {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0
    }
}

/// Why a text is not the value it should be, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}{}", .hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
pub struct UnitError {
    pub message: String,
    pub hint: Option<String>,
    /// Well formed, but not something the gateway does yet.
    pub not_supported: bool,
}

impl UnitError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        UnitError { message: message.into(), hint: None, not_supported: false }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn not_supported(what: impl fmt::Display) -> Self {
        UnitError { message: format!("{what} is not supported yet"), hint: None, not_supported: true }
    }
}

/// A text from a config in quotes: without control characters, shortened where it is absurdly long.
pub(crate) fn quote(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// Text in JSON and TOML is what `Display` writes.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
serde_as_text!(HumanDuration, ByteSize, Percent, Rate, Quota, Prefix, Moment);

#[cfg(test)]
mod tests;
