//! Counters beside the workers': few, and added to from any thread. They are the `prometheus` crate's; what workers count
//! for each request, route and target is in their slabs ([`crate::observe::stats`]), which cost less to add to.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, Opts, Registry, proto::MetricType};

use super::page::Page;

/// What all names begin with, here and on the page.
const PREFIX: &str = "gateway";

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::new_custom(Some(PREFIX.into()), None).unwrap_or_default());

/// How often something ended in each of its ways: a series for each value of one label.
#[derive(Debug)]
pub struct Counter<const N: usize>([IntCounter; N]);

impl<const N: usize> Counter<N> {
    /// Names and labels that Prometheus does not take, or a name that is there already, are counted and not shown.
    pub fn new(name: &str, help: &str, label: &str, values: [&str; N]) -> Self {
        let all = IntCounterVec::new(Opts::new(name, help), &[label]);
        let counters = values.map(|value| {
            let of_value = all.as_ref().ok().and_then(|all| all.get_metric_with_label_values(&[value]).ok());
            of_value.unwrap_or_else(detached)
        });
        if let Err(error) = all.and_then(|all| REGISTRY.register(Box::new(all))) {
            tracing::error!(name, %error, "a metric cannot be shown");
        }
        Counter(counters)
    }

    pub fn add(&self, value: usize, n: u64) {
        self.0[value].inc_by(n);
    }

    pub fn get(&self, value: usize) -> u64 {
        self.0[value].get()
    }
}

/// Which nobody sees.
#[allow(clippy::expect_used)]
fn detached() -> IntCounter {
    IntCounter::new("detached", "Of nothing").expect("a valid name")
}

/// Writes all of them.
pub fn all(page: &mut Page<'_>) {
    for family in REGISTRY.gather() {
        let name = family.name().strip_prefix(PREFIX).and_then(|name| name.strip_prefix('_'));
        let Some(name) = name.filter(|_| family.get_field_type() == MetricType::COUNTER) else { continue };
        page.counters(name, family.help(), |of| {
            for metric in family.get_metric() {
                let labels: Vec<_> =
                    metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                of.value(&labels, metric.get_counter().get_value());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Format;

    #[test]
    fn a_counter_is_on_the_page_in_both_formats() {
        let counter = Counter::new("things_total", "Things by end", "end", ["good", "bad \"one\""]);
        counter.add(0, 3);
        counter.add(1, 1 << 40);
        assert_eq!((counter.get(0), counter.get(1)), (3, 1 << 40));
        for (format, kind) in [
            (Format::Text, "# TYPE gateway_things_total counter"),
            (Format::OpenMetrics, "# TYPE gateway_things counter"),
        ] {
            let mut text = Vec::new();
            let mut take = |piece: Vec<u8>| {
                text.extend(piece);
                true
            };
            let mut page = Page::new(format, &mut take);
            all(&mut page);
            assert!(page.end());
            let text = String::from_utf8(text).unwrap();
            for line in [
                kind,
                "gateway_things_total{end=\"good\"} 3",
                "gateway_things_total{end=\"bad \\\"one\\\"\"} 1099511627776",
            ] {
                assert!(text.lines().any(|written| written == line), "{line} in {text}");
            }
        }
        // The same again is counted, and does not spoil the page.
        let again = Counter::new("things_total", "Things by end", "end", ["good", "bad"]);
        again.add(0, 1);
        assert_eq!((again.get(0), counter.get(0)), (1, 3));
    }
}
