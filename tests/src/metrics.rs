//! Reading a Prometheus exposition.

use std::collections::BTreeMap;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// A scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(pub Vec<Sample>);

impl Metrics {
    /// Lines that are no samples are left out.
    pub fn parse(text: &str) -> Metrics {
        Metrics(text.lines().filter_map(sample).collect())
    }

    /// The samples of a metric that have all these labels. Without the `gateway_` prefix, which is added.
    pub fn all<'a>(&'a self, name: &str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        let name = format!("gateway_{name}");
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|has| has == value))
        })
    }

    /// Their sum; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|sample| sample.value).sum()
    }

    /// Packets that the kernel half gave this reason.
    pub fn packets(&self, reason: &str) -> u64 {
        self.sum("kernel_packets_total", &[("reason", reason)]) as u64
    }

    /// By a label's values, what this metric is.
    pub fn by(&self, name: &str, label: &str, labels: &[(&str, &str)]) -> BTreeMap<String, f64> {
        let mut by = BTreeMap::new();
        for sample in self.all(name, labels) {
            let key = sample.labels.get(label).cloned().unwrap_or_default();
            *by.entry(key).or_default() += sample.value;
        }
        by
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty()).filter_map(|pair| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some(Sample { name: name.to_owned(), labels: pairs.collect(), value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_labels_and_added_up() {
        let text = "# HELP x y\ngateway_a{b=\"1\",c=\"x\"} 2\ngateway_a{b=\"2\",c=\"x\"} 3\ngateway_d 4.5\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a", &[("c", "x")]), 5.0);
        assert_eq!(metrics.sum("a", &[("b", "2")]), 3.0);
        assert_eq!(metrics.sum("d", &[]), 4.5);
        assert_eq!(metrics.by("a", "b", &[]).len(), 2);
    }
}
