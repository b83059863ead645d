//! How things are printed: text for people, JSON for programs.

use std::io::{IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::{Error, Global};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences
    Text,
    /// One JSON value
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal
    Auto,
    Always,
    Never,
}

impl Global {
    pub fn json(&self) -> bool {
        self.output == Format::Json
    }

    fn colors(&self, terminal: bool) -> bool {
        match self.color {
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none(),
            Color::Always => true,
            Color::Never => false,
        }
    }

    /// Text in a colour (an ANSI code) on standard output, or plain.
    pub fn paint(&self, code: u8, text: &str) -> String {
        if self.colors(std::io::stdout().is_terminal()) {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.into()
        }
    }
}

pub const RED: u8 = 31;
pub const GREEN: u8 = 32;
pub const YELLOW: u8 = 33;
pub const BOLD: u8 = 1;

/// Prints `value` as JSON or, by `text`, for people. A closed pipe is nobody's problem.
pub fn print(global: &Global, value: &impl serde::Serialize, text: impl FnOnce() -> String) {
    if global.quiet {
        return;
    }
    let printed =
        if global.json() { serde_json::to_string_pretty(value).unwrap_or_default() } else { text() };
    let _ = writeln!(std::io::stdout(), "{}", printed.trim_end_matches('\n'));
}

/// Prints an error on standard error, as JSON if that was asked for.
pub fn error(global: &Global, error: &Error) {
    let mut stderr = std::io::stderr();
    if global.json() {
        let body = match error {
            Error::Config(errors) => serde_json::json!({ "error": "bad config", "problems": errors }),
            other => serde_json::json!({ "error": other.to_string() }),
        };
        let _ = writeln!(stderr, "{body}");
    } else if global.colors(stderr.is_terminal()) {
        let _ = writeln!(stderr, "\x1b[31merror:\x1b[0m {error}");
    } else {
        let _ = writeln!(stderr, "error: {error}");
    }
}

/// Prints a warning on standard error.
pub fn warn(global: &Global, warning: &str) {
    let mut stderr = std::io::stderr();
    let head = if global.colors(stderr.is_terminal()) { "\x1b[33mwarning:\x1b[0m" } else { "warning:" };
    let _ = writeln!(stderr, "{head} {warning}");
}

/// A table without frills, at most 80 columns wide.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(80);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A table with the states in it ("up", "draining", "down", "valid", "expired") in colour: after the layout, which counts every character.
pub fn color_states(global: &Global, table: &str) -> String {
    let word = |word: &str| {
        let color = match word.trim_end() {
            "up" | "valid" => GREEN,
            "draining" => YELLOW,
            "down" | "expired" => RED,
            _ => return word.to_owned(),
        };
        let state = word.trim_end();
        global.paint(color, state) + &word[state.len()..]
    };
    table.split_inclusive([' ', '\n']).map(word).collect()
}

/// Broken between words so that it fits 80 columns, each line but the first of each paragraph behind `indent`.
pub fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    for (place, paragraph) in text.lines().enumerate() {
        let mut column = indent;
        if place > 0 {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
        }
        for (nth, word) in paragraph.split(' ').enumerate() {
            let width = word.chars().count();
            if nth > 0 && column + 1 + width > 80 {
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                column = indent;
            } else if nth > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += width;
        }
    }
    out
}

/// `12.3k`, `4.5M`: for counts of packets and bytes.
pub fn short(n: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match UNITS.iter().find(|(unit, _)| n >= *unit * 10) {
        Some((unit, suffix)) => format!("{:.1}{suffix}", n as f64 / *unit as f64),
        None => n.to_string(),
    }
}

/// `3d 4h`, `5m 6s`: the two largest units.
pub fn seconds(total: u64) -> String {
    let parts = [(total / 86_400, "d"), (total / 3600 % 24, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    let shown: Vec<String> =
        parts.iter().skip_while(|(n, _)| *n == 0).take(2).map(|(n, unit)| format!("{n}{unit}")).collect();
    if shown.is_empty() { "0s".into() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words() {
        let text = wrapped(&format!("{} b\nc {}", "a".repeat(74), "d".repeat(90)), 4);
        assert_eq!(text, format!("{} b\n    c\n    {}", "a".repeat(74), "d".repeat(90)));
        assert_eq!(wrapped(&format!("{} bb", "a".repeat(74)), 4), format!("{}\n    bb", "a".repeat(74)));
        assert_eq!(wrapped("", 4), "");
    }

    #[test]
    fn tables_fit_80_columns() {
        let text = table(&["a", "b"], [vec!["x".repeat(60), "y".repeat(60)]]);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn times_and_counts_are_short() {
        assert_eq!(seconds(0), "0s");
        assert_eq!(seconds(3_661), "1h 1m");
        assert_eq!(seconds(90_000), "1d 1h");
        assert_eq!(short(9_999), "9999");
        assert_eq!(short(12_345), "12.3k");
    }
}
