//! Prometheus's text format, or OpenMetrics 1.0 (prometheus.io/docs/specs/om/open_metrics_spec), which has exemplars.

use http::{HeaderMap, header};

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
            Format::Text => "text/plain; version=0.0.4",
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
