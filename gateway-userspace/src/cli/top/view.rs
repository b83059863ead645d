//! Drawing `gateway top`: everything fits 80 columns by 24 lines.

use std::collections::BTreeMap;

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row, Sparkline, Table, TableState, Wrap},
};

use super::{
    app::{App, Mode, Page},
    rates::quantile,
    tables::{Tone, duration, per_second, size},
};
use crate::cli::output;

const HELP: &str = "\
1-6, Tab, arrows   turn pages: routes, upstreams, kernel, sources,
                   caches, limits
up, down, j, k     choose a row; PgUp, PgDn
Enter              all about the row; Esc: back
s, r               sort by the next column; the other way round
/                  show only rows with a text in them; Esc: all
d, u               drain the target, take it up again (page 2)
b, B               ban the source for 10 minutes, lift its ban (page 4)
p                  stop the picture; once more: go on
q, Ctrl-C          quit

REQ/S, ERR%: of the last second; ERR% are answers of 500 and above.
P50, P95, P99: times that so many percent of requests took at most.
HIT%: answered without asking an upstream. OVER/S: over a soft limit.";

pub fn draw(frame: &mut Frame, app: &App) {
    let [head, totals, lines, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(header(app), head);
    frame.render_widget(Paragraph::new(summary(app)), totals);
    sparklines(frame, app, lines);
    frame.render_widget(Paragraph::new(pages(app)), tabs);
    match &app.mode {
        Mode::Detail(of) => detail(frame, app, of, body),
        _ => list(frame, app, body),
    }
    frame.render_widget(Paragraph::new(footer(app)), foot);
    if app.mode == Mode::Help {
        help(frame);
    }
}

fn header(app: &App) -> Paragraph<'_> {
    let stats = &app.look.stats;
    let state = if stats.state == "running" { Color::Green } else { Color::Yellow };
    let mut spans = vec![
        Span::styled(format!("gateway {} ", stats.name), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(stats.state.clone(), state),
        Span::raw(format!(
            "  up {}  generation {}  {}",
            output::seconds(stats.uptime as u64),
            stats.generation,
            stats.kernel_summary
        )),
    ];
    if app.paused {
        spans.push(Span::styled("  PAUSED", Color::Yellow));
    }
    Paragraph::new(Line::from(spans))
}

fn summary(app: &App) -> Vec<Line<'_>> {
    let (stats, rates) = (&app.look.stats, &app.look.rates);
    let share = if rates.requests > 0.0 { rates.errors / rates.requests * 100.0 } else { 0.0 };
    let at = |share| duration(quantile(&rates.duration, share));
    let connections: u64 = stats.listeners.values().map(|listener| u64::from(listener.connections)).sum();
    let active: i64 = stats.listeners.values().map(|listener| listener.active_requests).sum();
    let busy = rates.busy.iter().copied().fold(0.0, f64::max) * 100.0;
    let bad = if share >= 1.0 { Style::new().fg(Color::Red) } else { Style::new() };
    vec![
        Line::from(vec![
            Span::raw(format!("{} req/s  ", per_second(rates.requests))),
            Span::styled(format!("{share:.1}% errors"), bad),
            Span::raw(format!(
                "  p50 {} p95 {} p99 {}  in {}B/s out {}B/s",
                at(0.5),
                at(0.95),
                at(0.99),
                size(rates.bytes_in),
                size(rates.bytes_out)
            )),
        ]),
        Line::from(format!(
            "{connections} connections, {active} requests now  cpu {:.0}% busiest worker {busy:.0}%  \
             rss {}MB  bans {}",
            rates.cpu * 100.0,
            stats.process.resident_bytes / 1_000_000,
            stats.bans
        )),
    ]
}

/// Requests on the left, packets that were dropped on the right.
fn sparklines(frame: &mut Frame, app: &App, area: Rect) {
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2).areas(area);
    let dropped = app.look.rates.packets_of("drop");
    for (area, title, line, color) in [
        (left, "requests/s".to_owned(), &app.history.requests, Color::Cyan),
        (right, format!("packets dropped {}/s", per_second(dropped)), &app.history.dropped, Color::Magenta),
    ] {
        let [label, graph] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
        frame.render_widget(Paragraph::new(title).style(Style::new().add_modifier(Modifier::DIM)), label);
        let values = line.last(usize::from(graph.width));
        frame.render_widget(Sparkline::default().data(values).style(color), graph);
    }
}

fn pages(app: &App) -> Line<'_> {
    let mut spans = Vec::new();
    for (index, (page, title)) in Page::ALL.iter().enumerate() {
        let style =
            if *page == app.page { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        spans.push(Span::styled(format!(" {} {title} ", index + 1), style));
    }
    if !app.filter.is_empty() {
        spans.push(Span::styled(format!("  with \"{}\"", app.filter), Color::Yellow));
    }
    Line::from(spans)
}

fn list(frame: &mut Frame, app: &App, area: Rect) {
    let table = app.table();
    let (sorted, reverse) = app.sort();
    let widths = table.columns.iter().map(|column| match column.width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(width),
    });
    let header = table.columns.iter().enumerate().map(|(index, column)| {
        let mark = if index != sorted {
            ""
        } else if reverse {
            "^"
        } else {
            "v"
        };
        let text = Line::from(format!("{}{mark}", column.title));
        if column.number { text.alignment(Alignment::Right) } else { text }
    });
    let header = Row::new(header.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::BOLD));
    let rows = table.rows.iter().map(|row| {
        let cells = row.cells.iter().zip(table.columns).map(|(cell, column)| {
            let text = Line::from(clean(&cell.text));
            if column.number { text.alignment(Alignment::Right) } else { text }
        });
        Row::new(cells.collect::<Vec<_>>()).style(tone(row.tone))
    });
    if table.rows.is_empty() {
        let [first, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
        frame.render_widget(Table::new(Vec::<Row>::new(), widths).header(header), first);
        frame.render_widget(
            Paragraph::new("nothing to show").style(Style::new().add_modifier(Modifier::DIM)),
            rest,
        );
        return;
    }
    let mut state = TableState::default().with_selected(Some(app.selected));
    let shown = Table::new(rows.collect::<Vec<_>>(), widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    frame.render_stateful_widget(shown, area, &mut state);
}

fn tone(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Warn => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red),
    }
}

/// Others' texts get no control characters onto the terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn detail(frame: &mut Frame, app: &App, of: &str, area: Rect) {
    let block = Block::bordered().title(format!(" {} ", clean(of)));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [facts, graph] = Layout::vertical([Constraint::Min(3), Constraint::Length(3)]).areas(inner);
    let lines: Vec<Line> = about(app, of).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), facts);
    let line = match app.page {
        Page::Routes => app.history.routes.get(of),
        Page::Kernel => app.history.reasons.get(of),
        Page::Caches => app.history.caches.get(of),
        Page::Limits => app.history.limits.get(of),
        Page::Upstreams | Page::Sources => None,
    };
    if let Some(line) = line {
        let values = line.last(usize::from(graph.width));
        frame.render_widget(Sparkline::default().data(values).style(Color::Cyan), graph);
    }
}

/// What is known of a row, line by line.
fn about(app: &App, of: &str) -> Vec<String> {
    let (stats, rates) = (&app.look.stats, &app.look.rates);
    let mut lines = Vec::new();
    if let (Page::Routes, Some(now)) = (app.page, rates.routes.get(of)) {
        let [ok, moved, client, server] = now.classes.map(per_second);
        lines.push(format!(
            "{} req/s: 2xx {ok}  3xx {moved}  4xx {client}  5xx {server}",
            per_second(now.requests)
        ));
        let at = |share| duration(quantile(&now.duration, share));
        lines.push(format!("p50 {}  p90 {}  p95 {}  p99 {}", at(0.5), at(0.9), at(0.95), at(0.99)));
        let mut codes = std::collections::BTreeMap::<u16, u64>::new();
        let mut whys = std::collections::BTreeMap::<&str, u64>::new();
        for row in stats.routes.iter().filter(|row| row.route == of) {
            row.codes.iter().for_each(|(code, n)| *codes.entry(*code).or_default() += n);
            row.errors.iter().for_each(|(why, n)| *whys.entry(why).or_default() += n);
        }
        let codes: Vec<String> =
            codes.iter().map(|(code, n)| format!("{code}: {}", output::short(*n))).collect();
        lines.push(format!("since start: {}", codes.join("  ")));
        for (why, n) in whys {
            let now = now.whys.get(why).map_or("0".into(), |n| per_second(*n));
            lines.push(format!("why {why}: {} in all, {now} a second", output::short(n)));
        }
        lines.push(format!("more: gateway observe -f request route={of} 'status>=400'"));
        return lines;
    }
    match app.page {
        Page::Caches => return about_cache(app, of),
        Page::Limits => return about_limit(app, of),
        _ => {}
    }
    let table = app.table();
    if let Some(row) = table.rows.iter().find(|row| row.key == of) {
        for (column, cell) in table.columns.iter().zip(&row.cells) {
            lines.push(format!("{:<10} {}", column.title.to_lowercase(), clean(&cell.text)));
        }
        match app.page {
            Page::Sources => {
                lines.push(String::new());
                lines.push("b: ban for 10 minutes   B: lift its ban".into());
                lines.push(format!("more: gateway why {}", clean(of)));
            }
            Page::Upstreams => lines.push("d: drain   u: take up again".into()),
            Page::Kernel => lines.push(format!("more: gateway observe -f drop reason={of}")),
            Page::Routes | Page::Caches | Page::Limits => {}
        }
    }
    lines
}

/// Counts by word, in all and a second.
fn by_word(all: &BTreeMap<String, u64>, now: Option<&BTreeMap<String, f64>>) -> impl Iterator<Item = String> {
    all.iter().map(move |(word, n)| {
        let now = now.and_then(|now| now.get(word)).map_or("0".into(), |n| per_second(*n));
        format!("{word:<12} {:>9} in all, {now} a second", output::short(*n))
    })
}

fn about_cache(app: &App, of: &str) -> Vec<String> {
    let Some(row) = app.look.stats.caches.get(of) else { return Vec::new() };
    let used = format!(
        "{} entries, {}B of {}B in memory",
        output::short(row.entries),
        size(row.bytes as f64),
        size(row.memory as f64)
    );
    let disk = if row.disk > 0 { format!(", {}B on disk", size(row.disk as f64)) } else { String::new() };
    let mut lines = vec![format!("{used}{disk}; {} had to go for others", output::short(row.evicted))];
    lines.extend(by_word(&row.results, app.look.rates.caches.get(of)));
    lines.push(format!("more: gateway cache stats {of}"));
    lines
}

/// Lines for those whom a limit refused most.
const KEYS: usize = 5;

fn about_limit(app: &App, of: &str) -> Vec<String> {
    let Some(row) = app.look.stats.limits.get(of) else { return Vec::new() };
    let mut lines = vec![format!("lets through {} a second, or at once", per_second(row.rate))];
    lines.extend(by_word(&row.decisions, app.look.rates.limits.get(of)));
    let keys = app.look.keys.iter().filter(|key| key["limit"] == *of).take(KEYS);
    for key in keys {
        let number = |name: &str| key[name].as_u64().map_or("-".into(), output::short);
        let who = clean(key["key"].as_str().unwrap_or_default());
        let who: String = who.chars().take(34).collect();
        lines.push(format!(
            "{who:<34} refused {:>7}, has {} of {}",
            number("refused"),
            number("left"),
            number("of")
        ));
    }
    lines.push(format!("more: gateway limit show {of}"));
    lines
}

fn footer(app: &App) -> Line<'_> {
    match &app.mode {
        Mode::Filter => Line::from(format!("/{}_   Enter: done  Esc: all", app.filter)),
        Mode::Confirm(ask) => Line::styled(ask.question(), Color::Yellow),
        _ => match (&app.message, &app.look.stats.last_error) {
            (Some(message), _) => Line::styled(clean(message), Color::Yellow),
            (None, Some(error)) => Line::styled(
                format!("the last reload failed: {}", clean(error.lines().next().unwrap_or_default())),
                Color::Red,
            ),
            (None, None) => {
                Line::styled("q quit  ? help  / filter  s sort  Enter detail  d drain  b ban", Modifier::DIM)
            }
        },
    }
}

fn help(frame: &mut Frame) {
    let area = frame.area();
    let (width, height) = (76.min(area.width), (HELP.lines().count() as u16 + 2).min(area.height));
    let area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" keys ")), area);
}
