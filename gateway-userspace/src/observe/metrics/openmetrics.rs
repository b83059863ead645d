//! OpenMetrics 1.0 (prometheus.io/docs/specs/om/open_metrics_spec), which has exemplars; and who gets it.

use std::io::Write;

use http::{HeaderMap, header};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::families::Families;
use crate::observe::stats::{Exemplar, Found};

/// What a scrape is answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => prometheus::TEXT_FORMAT,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// By `Accept` (RFC 9110 section 12.5.1): OpenMetrics for whoever names it, in a version that this is, and does not
    /// like text better.
    pub fn of(headers: &HeaderMap) -> Format {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (mut open, mut text) = (0.0f32, 0.0f32);
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut known) = (1.0f32, true);
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match (name.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                    ("q", value) => weight = value.parse().unwrap_or(0.0),
                    ("version", value) => known = kind != OPEN_METRICS || matches!(value, "0.0.1" | "1.0.0"),
                    _ => {}
                }
            }
            match kind.as_str() {
                OPEN_METRICS if known => open = weight.max(open),
                "text/plain" => text = weight.max(text),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text }
    }
}

/// The units that a name may end in.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

pub fn encode(families: &Families) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 * 1024);
    for (place, family) in families.all.iter().enumerate() {
        put_family(&mut out, family, families.exemplars.get(&place).map_or(&[], Vec::as_slice));
    }
    out.extend_from_slice(b"# EOF\n");
    out
}

fn put_family(out: &mut Vec<u8>, family: &MetricFamily, exemplars: &[Found]) {
    let name = family.name();
    let (kind, base) = match family.get_field_type() {
        MetricType::COUNTER => ("counter", name.strip_suffix("_total").unwrap_or(name)),
        MetricType::HISTOGRAM => ("histogram", name),
        _ => ("gauge", name),
    };
    // A Vec takes every write, here and below.
    let _ = writeln!(out, "# TYPE {base} {kind}");
    if let Some(unit) = UNITS.iter().find(|unit| base.strip_suffix(**unit).is_some_and(|n| n.ends_with('_')))
    {
        let _ = writeln!(out, "# UNIT {base} {unit}");
    }
    let _ = write!(out, "# HELP {base} ");
    escape(out, family.help());
    out.push(b'\n');
    for (place, metric) in family.get_metric().iter().enumerate() {
        match family.get_field_type() {
            MetricType::COUNTER => {
                sample(out, base, "_total", metric, None, metric.get_counter().get_value())
            }
            MetricType::HISTOGRAM => put_histogram(out, name, metric, exemplars.get(place)),
            _ => sample(out, name, "", metric, None, metric.get_gauge().get_value()),
        }
    }
}

fn put_histogram(out: &mut Vec<u8>, name: &str, metric: &Metric, exemplars: Option<&Found>) {
    let histogram = metric.get_histogram();
    let bounds = histogram.get_bucket().iter().map(|b| (b.upper_bound(), b.cumulative_count()));
    let all = bounds.chain([(f64::INFINITY, histogram.get_sample_count())]);
    for (place, (bound, count)) in all.enumerate() {
        start(out, name, "_bucket", metric, Some(bound));
        let _ = write!(out, "{count}");
        if let Some(exemplar) = exemplars.and_then(|found| found.get(place).copied().flatten()) {
            put_exemplar(out, exemplar);
        }
        out.push(b'\n');
    }
    sample(out, name, "_count", metric, None, histogram.get_sample_count() as f64);
    sample(out, name, "_sum", metric, None, histogram.get_sample_sum());
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: Exemplar) {
    let Exemplar { trace, us, at_ms } = exemplar;
    let (value, at) = (us as f64 / 1e6, at_ms as f64 / 1e3);
    let _ = write!(out, " # {{trace_id=\"{trace:032x}\"}} {value} {at:.3}");
}

fn sample(out: &mut Vec<u8>, name: &str, suffix: &str, metric: &Metric, bound: Option<f64>, value: f64) {
    start(out, name, suffix, metric, bound);
    number(out, value);
    out.push(b'\n');
}

/// Name and labels, and the space behind them.
fn start(out: &mut Vec<u8>, name: &str, suffix: &str, metric: &Metric, bound: Option<f64>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    let mut before = b'{';
    let mut put = |out: &mut Vec<u8>, name: &str| {
        out.push(std::mem::replace(&mut before, b','));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
    };
    for pair in metric.get_label() {
        put(out, LabelPair::name(pair));
        escape(out, pair.value());
        out.push(b'"');
    }
    if let Some(bound) = bound {
        put(out, "le");
        match bound.is_infinite() {
            true => out.extend_from_slice(b"+Inf"),
            // A whole one as "1.0": bounds have to be written in one way.
            false => drop(write!(out, "{bound:?}")),
        }
        out.push(b'"');
    }
    if before == b',' {
        out.push(b'}');
    }
    out.push(b' ');
}

fn number(out: &mut Vec<u8>, value: f64) {
    let _ = match value {
        nan if nan.is_nan() => write!(out, "NaN"),
        f64::INFINITY => write!(out, "+Inf"),
        f64::NEG_INFINITY => write!(out, "-Inf"),
        value => write!(out, "{value}"),
    };
}

fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            plain => out.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{
        metrics::families::{counter, gauge, histogram},
        stats::HistogramTotal,
    };

    fn accepts(values: &[&str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        Format::of(&headers)
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        // Prometheus 2.42 and 3.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text; version=\"1.0.0\"",
            "Application/OpenMetrics-Text",
        ] {
            assert_eq!(accepts(&[accept]), Format::OpenMetrics, "{accept}");
        }
        assert_eq!(accepts(&["text/plain;q=0.3", "application/openmetrics-text;q=0.4"]), Format::OpenMetrics);
        for accept in [
            "*/*",
            "",
            "text/plain",
            "text/html, */*",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=nonsense",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.2, text/plain;q=0.9",
        ] {
            assert_eq!(accepts(&[accept]), Format::Text, "{accept}");
        }
        assert_eq!(accepts(&[]), Format::Text);
    }

    #[test]
    fn families_are_written_as_the_standard_has_them() {
        let mut families = Families::default();
        families.counters(
            "sent_bytes_total",
            "What \"went\"\nout",
            vec![counter(&[("route", "a\"b\\c")], 7)],
        );
        families.gauges("up", "Up", vec![gauge(&[], 1.0)]);
        let mut total = HistogramTotal::default();
        total.buckets[0] = 2;
        total.buckets[12] = 1;
        total.sum_us = 1_000_050;
        let mut found = Found::default();
        found[12] = Some(Exemplar { trace: 0xab, us: 1_000_000, at_ms: 1_700_000_000_007 });
        families.histograms_with(
            "took_seconds",
            "Took",
            vec![(histogram(&[("route", "all")], &total), found)],
        );
        let text = String::from_utf8(encode(&families)).unwrap();
        for line in [
            "# TYPE gateway_sent_bytes counter",
            "# UNIT gateway_sent_bytes bytes",
            "# HELP gateway_sent_bytes What \\\"went\\\"\\nout",
            "gateway_sent_bytes_total{route=\"a\\\"b\\\\c\"} 7",
            "# TYPE gateway_up gauge",
            "gateway_up 1",
            "# UNIT gateway_took_seconds seconds",
            "gateway_took_seconds_bucket{route=\"all\",le=\"0.0001\"} 2",
            "gateway_took_seconds_bucket{route=\"all\",le=\"1.0\"} 3 # {trace_id=\"000000000000000000000000000000ab\"} 1 \
             1700000000.007",
            "gateway_took_seconds_bucket{route=\"all\",le=\"+Inf\"} 3",
            "gateway_took_seconds_count{route=\"all\"} 3",
            "gateway_took_seconds_sum{route=\"all\"} 1.00005",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in {text}");
        }
        assert!(text.ends_with("\n# EOF\n") && !text.contains("# UNIT gateway_up"), "{text}");
        assert_eq!(text.matches(" # {").count(), 1, "an exemplar");
    }
}
