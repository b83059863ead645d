//! Requests by route.

use std::sync::Arc;

use super::{
    but_for_none,
    page::{Family, Labels, Page},
};
use crate::{
    daemon::Control,
    observe::{
        Why,
        stats::{Found as Examples, HistogramTotal, RouteShard, RouteStats, later},
    },
    policy::compare::Found,
};

/// Listener, route and version, and what was counted of them.
type Series = ((String, String, String), Arc<RouteStats>);

/// A route or a version of it, at all listeners.
struct Of<'a> {
    route: &'a str,
    version: &'a str,
    series: &'a [&'a Series],
}

impl Of<'_> {
    fn shards(&self) -> impl Iterator<Item = &RouteShard> {
        self.series.iter().flat_map(|(_, stats)| stats.shards.iter()).filter(|shard| shard.asked())
    }

    fn sum(&self, of: impl Fn(&RouteShard) -> u64) -> u64 {
        self.shards().map(of).sum()
    }

    fn labelled<T>(&self, with: impl FnOnce(Labels<'_>) -> T) -> T {
        with(but_for_none(&[("route", self.route), ("version", self.version)]))
    }
}

/// Routes that nobody has asked for yet have no series: of ten thousand, most are quiet.
pub fn routes(control: &Control, page: &mut Page<'_>) {
    let all = control.registry.routes();
    let mut asked: Vec<&Series> = all.iter().filter(|(_, stats)| stats.asked()).collect();
    compared(control, page);
    page.counters("http_requests_total", "Requests by listener, route, method and status code", |of| {
        asked.iter().for_each(|series| requests(of, series))
    });
    asked.sort_by_key(|((_, route, version), _)| (route, version));
    let groups = asked.chunk_by(|((_, a, v), _), ((_, b, w), _)| (a, v) == (b, w)).filter_map(|series| {
        let ((_, route, version), _) = series.first()?;
        Some(Of { route, version, series })
    });
    let groups: Vec<Of<'_>> = groups.collect();
    page.histograms(
        "http_request_duration_seconds",
        "From a request's first byte to its answer's last",
        |of| {
            groups.iter().for_each(|group| durations(of, group));
        },
    );
    page.histograms("http_overhead_seconds", "The gateway's own share of a request's duration", |of| {
        groups.iter().for_each(|group| overheads(of, group));
    });
    page.counters("http_request_bytes_total", "Bytes of request bodies", |of| {
        for group in &groups {
            group.labelled(|labels| of.count(labels, group.sum(|shard| shard.request_bytes.get())));
        }
    });
    page.counters("http_response_bytes_total", "Bytes of response bodies", |of| {
        for group in &groups {
            group.labelled(|labels| of.count(labels, group.sum(|shard| shard.response_bytes.get())));
        }
    });
    page.counters("http_errors_total", "Requests that the gateway answered itself or cut, by reason", |of| {
        groups.iter().for_each(|group| errors(of, group));
    });
}

fn compared(control: &Control, page: &mut Page<'_>) {
    let help = "Answers of a shadow that were compared with what the client got, by what came of it";
    page.counters("mirror_compared_total", help, |of| {
        for ((route, version), compared) in control.registry.all_compared() {
            for (found, word) in Found::ALL {
                let labels = [("route", &*route), ("result", word), ("version", &version)];
                of.count(but_for_none(&labels), compared.of(found));
            }
        }
    });
}

fn requests(of: &mut Family<'_, '_>, ((listener, route, version), stats): &Series) {
    stats.each_request(|method, code, n| {
        let mut digits = itoa::Buffer::new();
        let labels = [
            ("listener", &**listener),
            ("route", route),
            ("method", method),
            ("code", digits.format(code)),
            ("version", version),
        ];
        of.count(but_for_none(&labels), n);
    });
}

fn durations(of: &mut Family<'_, '_>, group: &Of<'_>) {
    let (mut total, mut examples) = (HistogramTotal::default(), Examples::default());
    for shard in group.shards() {
        total.add(&shard.duration);
        if let Some(found) = shard.exemplars() {
            later(&mut examples, found);
        }
    }
    group.labelled(|labels| of.histogram(labels, &total, &examples));
}

fn overheads(of: &mut Family<'_, '_>, group: &Of<'_>) {
    let mut total = HistogramTotal::default();
    group.shards().for_each(|shard| total.add(&shard.overhead));
    group.labelled(|labels| of.histogram(labels, &total, &Examples::default()));
}

fn errors(of: &mut Family<'_, '_>, group: &Of<'_>) {
    let mut sums = [0; Why::COUNT];
    group.shards().for_each(|shard| shard.add_errors(&mut sums));
    for (why, n) in Why::ALL.iter().zip(sums).filter(|(_, n)| *n > 0) {
        let labels = [("route", group.route), ("reason", why.name()), ("version", group.version)];
        of.count(but_for_none(&labels), n);
    }
}
