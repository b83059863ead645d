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
        stats::{Found as Examples, HistogramTotal, RouteStats, later},
    },
    policy::compare::Found,
};

/// Listener, route and version, and what was counted of them.
type Series = ((String, String, String), Arc<RouteStats>);

/// What was counted of a route or a version of it, at all listeners and by all workers.
struct Of<'a> {
    route: &'a str,
    version: &'a str,
    duration: HistogramTotal,
    overhead: HistogramTotal,
    bytes_in: u64,
    bytes_out: u64,
    errors: Vec<(Why, u64)>,
    examples: Option<Box<Examples>>,
}

impl<'a> Of<'a> {
    fn sum(series: &[&'a Series]) -> Option<Self> {
        let ((_, route, version), _) = series.first()?;
        let mut of = Of {
            route,
            version,
            duration: HistogramTotal::default(),
            overhead: HistogramTotal::default(),
            bytes_in: 0,
            bytes_out: 0,
            errors: Vec::new(),
            examples: None,
        };
        let mut errors = [0; Why::COUNT];
        let shards = series.iter().flat_map(|(_, stats)| stats.shards.iter());
        for shard in shards.filter(|shard| shard.asked()) {
            of.duration.add(&shard.duration);
            of.overhead.add(&shard.overhead);
            of.bytes_in += shard.request_bytes.get();
            of.bytes_out += shard.response_bytes.get();
            shard.add_errors(&mut errors);
            if let Some(found) = shard.exemplars() {
                later(of.examples.get_or_insert_default(), found);
            }
        }
        of.errors = Why::ALL.iter().copied().zip(errors).filter(|(_, n)| *n > 0).collect();
        Some(of)
    }

    fn labelled<T>(&self, with: impl FnOnce(Labels<'_>) -> T) -> T {
        with(but_for_none(&[("route", self.route), ("version", self.version)]))
    }
}

/// So many are summed before a worker that waits for this CPU has it.
const AT_ONCE: usize = 256;

/// Routes that nobody has asked for yet have no series: of ten thousand, most are quiet. Each is looked at once for all
/// families but the first: the counters of many are in no cache of the CPU.
pub fn routes(control: &Control, page: &mut Page<'_>) {
    let all = control.registry.routes();
    let mut asked: Vec<&Series> = Vec::new();
    page.counters("http_requests_total", "Requests by listener, route, method and status code", |of| {
        asked.extend(all.iter().filter(|series| requests(of, series)));
    });
    compared(control, page);
    asked.sort_by_key(|((_, route, version), _)| (route, version));
    let mut routes: Vec<Of<'_>> = Vec::new();
    for series in asked.chunk_by(|((_, a, v), _), ((_, b, w), _)| (a, v) == (b, w)) {
        routes.extend(Of::sum(series));
        if routes.len().is_multiple_of(AT_ONCE) {
            std::thread::yield_now();
        }
    }
    page.histograms(
        "http_request_duration_seconds",
        "From a request's first byte to its answer's last",
        |of| {
            for route in &routes {
                route.labelled(|labels| of.histogram(labels, &route.duration, route.examples.as_deref()));
            }
        },
    );
    page.histograms("http_overhead_seconds", "The gateway's own share of a request's duration", |of| {
        for route in &routes {
            route.labelled(|labels| of.histogram(labels, &route.overhead, None));
        }
    });
    page.counters("http_request_bytes_total", "Bytes of request bodies", |of| {
        routes.iter().for_each(|route| route.labelled(|labels| of.count(labels, route.bytes_in)));
    });
    page.counters("http_response_bytes_total", "Bytes of response bodies", |of| {
        routes.iter().for_each(|route| route.labelled(|labels| of.count(labels, route.bytes_out)));
    });
    page.counters("http_errors_total", "Requests that the gateway answered itself or cut, by reason", |of| {
        for route in &routes {
            for (why, n) in &route.errors {
                let labels = [("route", route.route), ("reason", why.name()), ("version", route.version)];
                of.count(but_for_none(&labels), *n);
            }
        }
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

/// Whether there were any.
fn requests(of: &mut Family<'_, '_>, ((listener, route, version), stats): &Series) -> bool {
    let mut any = false;
    stats.each_request(|method, code, n| {
        any = true;
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
    any
}
