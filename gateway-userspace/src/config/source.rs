//! One config file's text: read with limits, parsed, and able to say where a byte stands.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::DeTable;
use toml_parser::lexer::TokenKind;

use super::{
    error::{MOST, Problem, ProblemKind, Problems},
    format::Format,
    units::Place,
    yaml,
};

/// A config larger than this is a mistake (a log, a disk image), not a config.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// The deepest key of a config is six levels down.
pub(super) const DEEPEST: usize = 32;

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
        match self.format() {
            Format::Toml => self.parse_toml(problems),
            Format::Yaml | Format::Json => yaml::parse(self, problems),
        }
    }

    fn parse_toml(&self, problems: &mut Problems) -> Option<DeTable<'_>> {
        if let Some(offset) = too_deep(&self.text) {
            let message = format!("not TOML of any use: nested more than {DEEPEST} levels deep");
            problems.push(Problem::new(ProblemKind::Syntax, &self.place(offset), message));
            return None;
        }
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Some(table.into_inner());
        }
        problems.skip(errors.len().saturating_sub(MOST));
        let mut last = Place { file: self.file.clone(), line: 0, column: 0 };
        let mut twice = None;
        for error in errors.into_iter().take(MOST) {
            let place = error.span().map_or_else(|| last.clone(), |span| self.place(span.start));
            let duplicate = error.message() == "duplicate key";
            // What follows on a broken line, and the keys under a table's second header, echo the first error.
            let echo = place.line == last.line && place.line > 0
                || duplicate && twice.is_some_and(|header| !self.has_header(header + 1, place.line));
            last = place.clone();
            if echo {
                continue;
            }
            let found = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
            if duplicate && self.has_header(place.line, place.line) {
                twice = Some(place.line);
            }
            problems.push(match duplicate {
                true => self.duplicate(&place, found),
                false => Problem::new(ProblemKind::Syntax, &place, format!("not TOML: {}", error.message()))
                    .hint(unquoted_hint(error.message(), self.line(place.line))),
            });
        }
        None
    }

    /// Whether a table starts on one of these lines.
    fn has_header(&self, first: u32, last: u32) -> bool {
        (first..=last).any(|line| self.line(line).trim_start().starts_with('['))
    }

    fn duplicate(&self, place: &Place, key: &str) -> Problem {
        let header = self.line(place.line).split('#').next().unwrap_or_default().trim();
        let is_header = header.starts_with('[');
        let name = if is_header { header } else { key };
        let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
        let first =
            is_header.then(|| self.text.lines().position(|line| line.trim().starts_with(header))).flatten();
        let first = first.filter(|line| (*line as u32) + 1 < place.line);
        Problem::new(ProblemKind::Duplicate, place, format!("`{shown}` is defined twice"))
            .hint(first.map(|line| format!("the first is at {}:{}:1", self.file.display(), line + 1)))
    }

    pub fn place(&self, offset: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line.saturating_sub(1)];
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or_default();
        // On a line that no editor shows either, bytes will do: counting its characters for each key takes forever.
        let characters = if before.len() > 10_000 { before.len() } else { before.chars().count() };
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { file: self.file.clone(), line: number(line), column: number(characters + 1) }
    }

    /// A line and a column as people count them.
    pub fn at(&self, line: u64, column: u64) -> Place {
        let number = |n: u64| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
        Place { file: self.file.clone(), line: number(line), column: number(column) }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn format(&self) -> Format {
        Format::of(&self.file)
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn line(&self, line: u32) -> &str {
        let start = self.lines.get((line as usize).saturating_sub(1)).copied().unwrap_or(self.text.len());
        self.text[start..].lines().next().unwrap_or_default()
    }
}

/// Where tables in arrays in tables go too deep. The parser limits brackets and the dots of one key each for itself,
/// but trees are taken apart by recursion, and both limits together are enough to overflow the stack.
fn too_deep(text: &str) -> Option<usize> {
    // The brackets that are open, each with the dots of the key before its next value; the first is the file itself.
    let mut open = vec![(TokenKind::Eof, 0)];
    let mut depth: usize = 0;
    for token in toml_parser::Source::new(text).lex() {
        let (bracket, dots) = open.last_mut()?;
        match token.kind() {
            TokenKind::Dot => {
                *dots += 1;
                depth += 1;
            }
            TokenKind::Comma => depth -= std::mem::take(dots),
            TokenKind::Newline if *bracket == TokenKind::Eof => depth -= std::mem::take(dots),
            TokenKind::LeftSquareBracket => open.push((TokenKind::RightSquareBracket, 0)),
            TokenKind::LeftCurlyBracket => open.push((TokenKind::RightCurlyBracket, 0)),
            // One that closes nothing must not hide what stays open.
            kind if kind == *bracket => {
                depth -= *dots;
                open.pop();
            }
            _ => {}
        }
        if depth + open.len() > DEEPEST {
            return Some(token.span().start());
        }
    }
    None
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
