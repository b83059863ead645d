//! Families of series, as they are gathered for an exposition.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::observe::stats::{BOUNDS_US, Found, HistogramTotal};

pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// What is told, family by family.
#[derive(Default)]
pub struct Families {
    pub all: Vec<MetricFamily>,
    /// Of the histograms of one family: its place, and what its series have.
    pub exemplars: BTreeMap<usize, Vec<Found>>,
}

impl Families {
    fn family(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("gateway_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.all.push(family);
    }

    pub fn counters(&mut self, name: &str, help: &str, metrics: Vec<Metric>) {
        self.family(name, help, MetricType::COUNTER, metrics);
    }

    pub fn gauges(&mut self, name: &str, help: &str, metrics: Vec<Metric>) {
        self.family(name, help, MetricType::GAUGE, metrics);
    }

    pub fn histograms(&mut self, name: &str, help: &str, metrics: Vec<Metric>) {
        self.family(name, help, MetricType::HISTOGRAM, metrics);
    }

    /// Histograms with the exemplars of each of them.
    pub fn histograms_with(&mut self, name: &str, help: &str, metrics: Vec<(Metric, Found)>) {
        let (metrics, exemplars): (Vec<_>, Vec<_>) = metrics.into_iter().unzip();
        if exemplars.iter().flatten().any(Option::is_some) {
            self.exemplars.insert(self.all.len(), exemplars);
        }
        self.histograms(name, help, metrics);
    }
}

fn labelled(labels: Labels<'_>) -> Metric {
    let mut metric = Metric::default();
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    metric.set_label(pairs.collect());
    metric
}

pub fn counter(labels: Labels<'_>, value: u64) -> Metric {
    let mut metric = labelled(labels);
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

pub fn gauge(labels: Labels<'_>, value: f64) -> Metric {
    let mut metric = labelled(labels);
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

pub fn histogram(labels: Labels<'_>, total: &HistogramTotal) -> Metric {
    let mut metric = labelled(labels);
    let mut histogram = Histogram::default();
    let mut below = 0;
    let buckets = BOUNDS_US.iter().zip(&total.buckets).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(total.count());
    histogram.set_sample_sum(total.sum_us as f64 / 1e6);
    metric.set_histogram(histogram);
    metric
}

pub fn float_counter(value: f64) -> Metric {
    let mut metric = Metric::default();
    let mut counter = Counter::default();
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

/// The last label is there only where it has a value.
pub fn but_for_none<'a>(labels: Labels<'a>) -> Labels<'a> {
    match labels {
        [rest @ .., (_, "")] => rest,
        all => all,
    }
}
