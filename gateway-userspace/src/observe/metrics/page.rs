//! The text of an exposition, written series by series and handed on piece by piece.
//!
//! Metrics of many routes are megabytes: nothing is gathered before it is written, and what the lines of one histogram
//! have in common is made once.

use std::io::Write;

use super::format::Format;
use crate::observe::stats::{BOUNDS_US, BUCKETS, Exemplar, Found, HistogramTotal};

pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// So much is handed on at once.
const PIECE: usize = 64 * 1024;

pub struct Page<'a> {
    format: Format,
    /// Written, and not handed on yet.
    out: Vec<u8>,
    /// Takes a piece; false: nobody reads any more.
    take: &'a mut dyn FnMut(Vec<u8>) -> bool,
    over: bool,
    bounds: [Vec<u8>; BUCKETS],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Series of one name. One without any leaves nothing on the page.
pub struct Family<'p, 'a> {
    page: &'p mut Page<'a>,
    kind: Kind,
    name: &'p str,
    help: &'p str,
    begun: bool,
    /// What the lines of a histogram begin with.
    start: Vec<u8>,
}

impl<'a> Page<'a> {
    pub fn new(format: Format, take: &'a mut dyn FnMut(Vec<u8>) -> bool) -> Self {
        let bounds = std::array::from_fn(|bucket| bound(format, bucket));
        Page { format, out: Vec::with_capacity(PIECE + PIECE / 8), take, over: false, bounds }
    }

    /// Names are without the `gateway_` that all begin with.
    pub fn counters(&mut self, name: &str, help: &str, write: impl FnOnce(&mut Family<'_, 'a>)) {
        self.family(Kind::Counter, name, help, write);
    }

    pub fn gauges(&mut self, name: &str, help: &str, write: impl FnOnce(&mut Family<'_, 'a>)) {
        self.family(Kind::Gauge, name, help, write);
    }

    pub fn histograms(&mut self, name: &str, help: &str, write: impl FnOnce(&mut Family<'_, 'a>)) {
        self.family(Kind::Histogram, name, help, write);
    }

    fn family(&mut self, kind: Kind, name: &str, help: &str, write: impl FnOnce(&mut Family<'_, 'a>)) {
        if !self.over {
            write(&mut Family { page: self, kind, name, help, begun: false, start: Vec::new() });
        }
    }

    /// Hands on what is left; false: not all of the page was taken.
    pub fn end(&mut self) -> bool {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.hand_on();
        !self.over
    }

    fn hand_on(&mut self) {
        if self.over {
            return self.out.clear();
        }
        let piece = std::mem::replace(&mut self.out, Vec::with_capacity(PIECE + PIECE / 8));
        self.over = !(self.take)(piece);
    }
}

/// The last label of a bucket and what follows up to its count.
fn bound(format: Format, bucket: usize) -> Vec<u8> {
    let Some(us) = BOUNDS_US.get(bucket) else { return b"le=\"+Inf\"} ".into() };
    let seconds = *us as f64 / 1e6;
    match format {
        Format::Text => format!("le=\"{seconds}\"}} "),
        // A whole one as "1.0": bounds have to be written in one way.
        Format::OpenMetrics => format!("le=\"{seconds:?}\"}} "),
    }
    .into_bytes()
}

impl Family<'_, '_> {
    pub fn count(&mut self, labels: Labels<'_>, value: u64) {
        self.series(labels);
        integer(&mut self.page.out, value);
        self.line_ends();
    }

    pub fn value(&mut self, labels: Labels<'_>, value: f64) {
        self.series(labels);
        number(&mut self.page.out, value);
        self.line_ends();
    }

    /// 1 or 0.
    pub fn flag(&mut self, labels: Labels<'_>, value: bool) {
        self.count(labels, value.into());
    }

    /// With an example for each bucket that has one.
    pub fn histogram(&mut self, labels: Labels<'_>, total: &HistogramTotal, examples: Option<&Found>) {
        self.begin();
        let format = self.page.format;
        let mut start = std::mem::take(&mut self.start);
        start.clear();
        self.put_name(&mut start, "_bucket");
        start.push(b'{');
        for label in labels {
            put_label(&mut start, *label);
            start.push(b',');
        }
        let out = &mut self.page.out;
        let mut below = 0;
        let mut digits = itoa::Buffer::new();
        let mut text = digits.format(below).as_bytes();
        for (place, (bound, count)) in self.page.bounds.iter().zip(&total.buckets).enumerate() {
            if *count > 0 {
                below += count;
                text = digits.format(below).as_bytes();
            }
            out.extend_from_slice(&start);
            out.extend_from_slice(bound);
            out.extend_from_slice(text);
            if let (Some(examples), Format::OpenMetrics) = (examples, format)
                && let Some(example) = examples.get(place).copied().flatten()
            {
                put_exemplar(out, example);
            }
            out.push(b'\n');
        }
        self.start = start;
        self.series_with("_sum", labels);
        seconds(&mut self.page.out, total.sum_us);
        self.page.out.push(b'\n');
        self.series_with("_count", labels);
        integer(&mut self.page.out, below);
        self.line_ends();
    }

    fn series(&mut self, labels: Labels<'_>) {
        self.begin();
        self.series_with("", labels);
    }

    /// Name and labels, and the space behind them.
    fn series_with(&mut self, suffix: &str, labels: Labels<'_>) {
        let mut out = std::mem::take(&mut self.page.out);
        self.put_name(&mut out, suffix);
        for (place, label) in labels.iter().enumerate() {
            out.push(if place == 0 { b'{' } else { b',' });
            put_label(&mut out, *label);
        }
        out.extend_from_slice(if labels.is_empty() { b" " } else { b"} " });
        self.page.out = out;
    }

    fn put_name(&self, out: &mut Vec<u8>, suffix: &str) {
        out.extend_from_slice(b"gateway_");
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
    }

    fn line_ends(&mut self) {
        self.page.out.push(b'\n');
        if self.page.out.len() >= PIECE {
            self.page.hand_on();
        }
    }

    /// What is said of the family before its first series.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (name, kind, out) = (self.name, self.kind.word(), &mut self.page.out);
        // A Vec takes every write, here and below.
        match self.page.format {
            Format::Text => {
                let _ = write!(out, "# HELP gateway_{name} ");
                escape(out, self.help, b"\\\n");
                let _ = writeln!(out, "\n# TYPE gateway_{name} {kind}");
            }
            Format::OpenMetrics => {
                let base = name.strip_suffix("_total").unwrap_or(name);
                let _ = writeln!(out, "# TYPE gateway_{base} {kind}");
                if let Some(unit) = unit(base) {
                    let _ = writeln!(out, "# UNIT gateway_{base} {unit}");
                }
                let _ = write!(out, "# HELP gateway_{base} ");
                escape(out, self.help, b"\\\n\"");
                out.push(b'\n');
            }
        }
    }
}

/// The unit that a name ends in.
fn unit(base: &str) -> Option<&'static str> {
    let ends = |unit: &&str| base.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
    ["seconds", "bytes", "ratio"].into_iter().find(ends)
}

fn put_label(out: &mut Vec<u8>, (name, value): (&str, &str)) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    escape(out, value, b"\\\n\"");
    out.push(b'"');
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: Exemplar) {
    let Exemplar { trace, us, at_ms } = exemplar;
    let (value, at) = (us as f64 / 1e6, at_ms as f64 / 1e3);
    let _ = write!(out, " # {{trace_id=\"{trace:032x}\"}} {value} {at:.3}");
}

fn integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn number(out: &mut Vec<u8>, value: f64) {
    let _ = match value {
        nan if nan.is_nan() => write!(out, "NaN"),
        f64::INFINITY => write!(out, "+Inf"),
        f64::NEG_INFINITY => write!(out, "-Inf"),
        value => write!(out, "{value}"),
    };
}

/// Microseconds, in seconds.
fn seconds(out: &mut Vec<u8>, us: u64) {
    integer(out, us / 1_000_000);
    let (mut rest, mut place) = (us % 1_000_000, 100_000);
    if rest > 0 {
        out.push(b'.');
    }
    while rest > 0 {
        out.push(b'0' + (rest / place) as u8);
        (rest, place) = (rest % place, place / 10);
    }
}

fn escape(out: &mut Vec<u8>, text: &str, special: &[u8]) {
    if !text.bytes().any(|byte| special.contains(&byte)) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            byte if special.contains(&byte) => out.extend_from_slice(&[b'\\', byte]),
            plain => out.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format, write: impl FnOnce(&mut Page<'_>)) -> String {
        let mut all = Vec::new();
        let mut take = |piece: Vec<u8>| {
            all.extend(piece);
            true
        };
        let mut page = Page::new(format, &mut take);
        write(&mut page);
        assert!(page.end());
        String::from_utf8(all).unwrap()
    }

    fn some(page: &mut Page<'_>) {
        page.counters("sent_bytes_total", "What \"went\"\nout", |of| of.count(&[("route", "a\"b\\c\n")], 7));
        page.gauges("up", "Up", |of| of.flag(&[], true));
        page.gauges("nobody", "Without series", |_| {});
        page.gauges("share", "Odd ones", |of| {
            [0.25, f64::NAN, f64::INFINITY].into_iter().for_each(|share| of.value(&[], share));
        });
        let mut total = HistogramTotal::default();
        (total.buckets[0], total.buckets[12], total.buckets[16]) = (2, 1, 1);
        total.sum_us = 21_000_050;
        let mut found = Found::default();
        found[12] = Some(Exemplar { trace: 0xab, us: 1_000_000, at_ms: 1_700_000_000_007 });
        page.histograms("took_seconds", "Took", |of| of.histogram(&[("route", "all")], &total, Some(&found)));
    }

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|written| written == *line), "{line} in {text}");
        }
        assert!(!text.contains("nobody"), "{text}");
    }

    #[test]
    fn families_are_written_as_openmetrics_has_them() {
        let text = written(Format::OpenMetrics, some);
        let lines = [
            "# TYPE gateway_sent_bytes counter",
            "# UNIT gateway_sent_bytes bytes",
            "# HELP gateway_sent_bytes What \\\"went\\\"\\nout",
            "gateway_sent_bytes_total{route=\"a\\\"b\\\\c\\n\"} 7",
            "# TYPE gateway_up gauge",
            "gateway_up 1",
            "gateway_share 0.25",
            "gateway_share NaN",
            "gateway_share +Inf",
            "# UNIT gateway_took_seconds seconds",
            "gateway_took_seconds_bucket{route=\"all\",le=\"0.0001\"} 2",
            "gateway_took_seconds_bucket{route=\"all\",le=\"0.5\"} 2",
            "gateway_took_seconds_bucket{route=\"all\",le=\"1.0\"} 3 # {trace_id=\"000000000000000000000000000000ab\"} 1 \
             1700000000.007",
            "gateway_took_seconds_bucket{route=\"all\",le=\"10.0\"} 3",
            "gateway_took_seconds_bucket{route=\"all\",le=\"+Inf\"} 4",
            "gateway_took_seconds_count{route=\"all\"} 4",
            "gateway_took_seconds_sum{route=\"all\"} 21.00005",
        ];
        has(&text, &lines);
        assert!(text.ends_with("\n# EOF\n") && !text.contains("# UNIT gateway_up"), "{text}");
        assert_eq!(text.matches(" # {").count(), 1, "an exemplar");
    }

    #[test]
    fn families_are_written_as_the_text_format_has_them() {
        let text = written(Format::Text, some);
        let lines = [
            "# HELP gateway_sent_bytes_total What \"went\"\\nout",
            "# TYPE gateway_sent_bytes_total counter",
            "gateway_sent_bytes_total{route=\"a\\\"b\\\\c\\n\"} 7",
            "# TYPE gateway_took_seconds histogram",
            "gateway_took_seconds_bucket{route=\"all\",le=\"1\"} 3",
            "gateway_took_seconds_bucket{route=\"all\",le=\"+Inf\"} 4",
            "gateway_took_seconds_sum{route=\"all\"} 21.00005",
            "gateway_took_seconds_count{route=\"all\"} 4",
        ];
        has(&text, &lines);
        assert!(!text.contains(" # {") && !text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }

    #[test]
    fn microseconds_are_written_as_numbers_are() {
        for us in [0, 1, 10, 100_000, 999_999, 1_000_000, 1_500_000, 20_000_001, 86_400_000_000] {
            let (mut short, mut plain) = (Vec::new(), Vec::new());
            seconds(&mut short, us);
            number(&mut plain, us as f64 / 1e6);
            assert_eq!(String::from_utf8(short).unwrap(), String::from_utf8(plain).unwrap());
        }
    }

    #[test]
    fn it_comes_in_pieces_and_ends_when_nobody_reads_on() {
        let series = |of: &mut Family<'_, '_>| (0..5000).for_each(|n| of.count(&[("of", "something")], n));
        let mut pieces = Vec::new();
        let mut take = |piece: Vec<u8>| {
            pieces.push(piece.len());
            pieces.len() < 3
        };
        let mut page = Page::new(Format::Text, &mut take);
        (0..100).for_each(|_| page.counters("things_total", "Things", series));
        assert!(!page.end());
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|len| (PIECE..PIECE + 200).contains(len)), "{pieces:?}");
    }
}
