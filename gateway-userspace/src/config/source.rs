//! One config file's text: read with limits, parsed, and able to say where a byte stands.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeTable;

use super::{
    error::{Problem, ProblemKind, Problems},
    units::Place,
};

/// A config larger than this is a mistake (a log, a disk image), not a config.
const MOST_BYTES: u64 = 64 << 20;

pub(crate) struct Source {
    file: Arc<PathBuf>,
    text: String,
    /// Byte offsets where lines start.
    lines: Vec<usize>,
}

impl Source {
    pub fn new(file: &Path, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(starts).collect();
        Source { file: Arc::new(file.to_owned()), text, lines }
    }

    pub fn read(file: &Path, problems: &mut Problems) -> Option<Self> {
        match read_text(file) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Some(Source::new(file, &text)),
                Err(error) => {
                    let good = error.utf8_error().valid_up_to();
                    let source = Source::new(file, &String::from_utf8_lossy(&error.as_bytes()[..good]));
                    let place = source.place(source.text.len());
                    problems.push(Problem::new(ProblemKind::Syntax, &place, "the file is not UTF-8 text"));
                    None
                }
            },
            Err(error) => {
                problems.push(unreadable(file, &error));
                None
            }
        }
    }

    /// The tree, or `None` and every syntax error.
    pub fn parse(&self, problems: &mut Problems) -> Option<DeTable<'_>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Some(table.into_inner());
        }
        let mut last_line = None;
        for error in errors {
            let place = match error.span() {
                Some(span) => self.place(span.start),
                None => Place { file: self.file.clone(), line: 0, column: 0 },
            };
            // What follows on a line that is broken already is mostly an echo of its first error.
            if last_line.replace(place.line) == Some(place.line) {
                continue;
            }
            let found = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
            problems.push(match error.message() {
                "duplicate key" => self.duplicate(&place, found),
                message => Problem::new(ProblemKind::Syntax, &place, format!("not TOML: {message}"))
                    .hint(unquoted_hint(message, self.line(place.line))),
            });
        }
        None
    }

    fn duplicate(&self, place: &Place, key: &str) -> Problem {
        let message = format!("`{}` is defined twice", key.escape_debug());
        let header = self.line(place.line).trim();
        let first = header.starts_with('[').then(|| self.text.lines().position(|line| line.trim() == header));
        let first = first.flatten().filter(|line| (*line as u32) + 1 < place.line);
        Problem::new(ProblemKind::Duplicate, place, message)
            .hint(first.map(|line| format!("the first is at {}:{}:1", self.file.display(), line + 1)))
    }

    pub fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line.saturating_sub(1)];
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or_default();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: self.file.clone(), line: count(line), column: count(before.chars().count() + 1) }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    fn line(&self, line: u32) -> &str {
        self.text.lines().nth((line as usize).saturating_sub(1)).unwrap_or_default()
    }
}

/// The commonest slip of people who come from YAML or nginx.
fn unquoted_hint(message: &str, line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let value = value.split('#').next().unwrap_or_default().trim();
    let bare = value.starts_with(|c: char| c.is_ascii_alphanumeric() || "/:*-".contains(c));
    let plain = value.len() < 60 && !value.contains(['"', '\'', ' ', ',', '{', '[']);
    (bare && plain && !message.contains("key"))
        .then(|| format!("text stands in quotes: {} = \"{value}\"", key.trim()))
}

/// A regular file's bytes, if they are not absurdly many.
pub(crate) fn read_text(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let meta = std::fs::metadata(file)?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    File::open(file)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(bytes)
}

pub(crate) fn unreadable(file: &Path, error: &io::Error) -> Problem {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "no permission to read it".into(),
        _ => error.to_string(),
    };
    Problem::file(file, format!("cannot read the file: {why}"))
}
