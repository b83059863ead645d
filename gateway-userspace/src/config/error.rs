//! Everything that is wrong with a config, each with its place and its cure.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use super::units::{Place, UnitError};

/// Past this many, problems are only counted: nobody reads more, and a hostile file must not fill the log.
pub(crate) const MOST: usize = 1000;

/// All the problems of a config, by file and line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigErrors {
    pub problems: Vec<Problem>,
    /// How many more there are than `problems` holds.
    pub more: usize,
}

/// One problem. `line` 0 means the file as a whole, or a command-line flag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    pub file: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    pub kind: ProblemKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Not TOML, YAML or JSON.
    Syntax,
    /// A file that cannot be read.
    File,
    UnknownKey,
    /// Planned by name, but this version does not do it.
    NotSupported,
    /// A key that must be there is not.
    Missing,
    /// A value of the wrong type, form or range.
    Value,
    /// A name that is defined twice.
    Duplicate,
    /// A name that is not defined.
    Undefined,
    /// Two settings that cannot both hold.
    Conflict,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, at: &Place, message: impl Into<String>) -> Self {
        Problem {
            file: at.file.display().to_string(),
            line: at.line,
            column: at.column,
            message: message.into(),
            hint: None,
            kind,
        }
    }

    pub(crate) fn file(file: &Path, message: impl Into<String>) -> Self {
        let at = Place { file: std::sync::Arc::new(file.to_owned()), line: 0, column: 0 };
        Problem::new(ProblemKind::File, &at, message)
    }

    /// A value of `key` that is not what it should be.
    pub(crate) fn value(at: &Place, key: &str, error: UnitError) -> Self {
        let kind = if error.not_supported { ProblemKind::NotSupported } else { ProblemKind::Value };
        let problem = Problem::new(kind, at, format!("`{key}`: {}", error.message));
        Problem { hint: error.hint, ..problem }
    }

    /// Without characters that would do something to the terminal that shows them: a problem quotes what the file says.
    fn printable(mut self) -> Self {
        let texts = [Some(&mut self.file), Some(&mut self.message), self.hint.as_mut()];
        for text in texts.into_iter().flatten().filter(|text| text.contains(is_unprintable)) {
            let shown = |c: char| match is_unprintable(c) {
                true => c.escape_default().to_string(),
                false => c.to_string(),
            };
            *text = text.chars().map(shown).collect();
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Controls but for the newlines of longer hints, and what turns the direction of text around (Unicode UAX #9).
fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message)?,
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects problems while reading goes on.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        if self.list.len() < MOST {
            self.list.push(problem.printable());
        } else {
            self.more += 1;
        }
    }

    /// What `at` names cannot be used.
    pub fn file(&mut self, at: &Place, message: impl Into<String>) {
        self.push(Problem::new(ProblemKind::File, at, message));
    }

    /// Counts problems that are not worth telling.
    pub fn skip(&mut self, count: usize) {
        self.more += count;
    }

    /// How many so far.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    pub fn into_result<T>(self, value: Option<T>) -> Result<T, ConfigErrors> {
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            _ => Err(self.into_errors()),
        }
    }

    pub fn into_errors(mut self) -> ConfigErrors {
        self.list.sort();
        self.list.dedup();
        ConfigErrors { problems: self.list, more: self.more }
    }
}

/// "did you mean `x`?": the nearest of `known`, if it is near.
pub(crate) fn did_you_mean<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
    quoted: fn(&str) -> String,
) -> Option<String> {
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    // Names of one's own differ in little ("items-v1", "items-v2"): a third of the letters may be wrong.
    let allowed = (given.chars().count() / 3).min(3);
    known
        .into_iter()
        .map(|name| {
            match given.len().min(name.len()) > 2 && (given.starts_with(name) || name.starts_with(&given)) {
                true => (1, name),
                false => (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name),
            }
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| format!("did you mean {}?", quoted(name)))
}

/// A key in a message.
pub(crate) fn ticks(name: &str) -> String {
    format!("`{name}`")
}
