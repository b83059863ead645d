//! Tables, bars and colours for a terminal; plain text anywhere else.

use std::{fmt::Write, io::IsTerminal};

use crate::stats::Rounds;

fn coloured() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn paint(code: &str, text: &str) -> String {
    if coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub fn bold(text: &str) -> String {
    paint("1", text)
}

pub fn dim(text: &str) -> String {
    paint("2", text)
}

pub fn good(text: &str) -> String {
    paint("32", text)
}

pub fn bad(text: &str) -> String {
    paint("31", text)
}

/// What one of several programs costs: its name, CPU time (median and range), ours as a share of it, its rate.
pub fn cost(name: &str, cpu: &Rounds, rate: &Rounds, ours: f64) -> [String; 5] {
    [
        name.to_owned(),
        format!("{:.2}", cpu.median()),
        format!("{:.2}–{:.2}", cpu.min(), cpu.max()),
        format!("{:.2}", ours / cpu.median()),
        grouped(rate.median()),
    ]
}

/// 1234567 as "1 234 567".
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A bar of up to `width` characters.
pub fn bar(value: f64, most: f64, width: usize) -> String {
    let filled = if most > 0.0 { (value / most * width as f64).round() as usize } else { 0 };
    "█".repeat(filled.min(width))
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell_width = |row: &Vec<String>, i: usize| row.get(i).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(i, title)| {
            rows.iter().map(|row| cell_width(row, i)).max().unwrap_or(0).max(title.chars().count())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for (i, (cell, width)) in cells.zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if i == 0 { write!(line, "  {cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        line
    };
    let mut out = dim(&line(&mut header.iter().copied()));
    for row in rows {
        out.push('\n');
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([grouped(7.0), grouped(1234.4), grouped(1_234_567.0)], ["7", "1 234", "1 234 567"]);
    }
}
