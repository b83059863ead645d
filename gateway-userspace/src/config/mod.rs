//! The config: read from TOML, YAML or JSON, checked, explained.
//!
//! [`load`] reads a file and what it includes, and either gives a [`Config`] that is valid as a whole or *all* the
//! problems, each with its place and a hint. The steps, a module each: `source` (text and places), `read` (by the
//! [`table`]: types, ranges, unknown keys, what is not supported yet), `include` (merging), `build` (the typed
//! [`model`] and the checks across tables). From the same table come [`schema`] and [`reference`]. Nothing here is
//! used while serving.

mod balancing;
mod build;
mod convert;
mod diff;
mod error;
mod flags;
mod format;
#[cfg(test)]
mod format_tests;
mod include;
pub mod model;
mod node;
mod read;
mod reference;
mod schema;
mod show;
mod source;
mod table;
mod trail;
pub mod units;
mod yaml;

use std::path::Path;

pub use convert::{convert, convert_text};
pub use diff::{Change, diff, needing_restart};
pub use error::{ConfigErrors, Problem, ProblemKind};
pub use flags::from_flags;
pub use format::Format;
pub use reference::reference;
pub use schema::schema;
pub use show::{show, to_json};

pub(crate) use error::Problems;
use model::{Bind, Config};
use source::Source;
pub(crate) use table::is_name;

/// Reads a config file, its includes and its block lists.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::default();
    let config = Source::read(path, &mut problems).and_then(|source| from_source(&source, &mut problems));
    problems.into_result(config)
}

/// As [`load`], of a text; `file` is its name in errors, and what it refers to is relative to that.
pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::default();
    let config = from_source(&Source::new(file, text), &mut problems);
    problems.into_result(config)
}

/// As it is written in a config: ":80", "127.0.0.1:80".
pub fn show_bind(bind: Bind) -> String {
    bind.to_string()
}

fn from_source(source: &Source, problems: &mut Problems) -> Option<Config> {
    let root = read::read_root(source, problems)?;
    let (root, files) = include::follow(root, source.file(), problems);
    build::config(&root, files, problems)
}
