//! Upstreams and their targets.

use std::collections::BTreeMap;

use super::{
    page::{Family, Page},
    sum,
};
use crate::{
    daemon::Control,
    observe::stats::{Connect, FALLBACKS, Found as Examples, Retry, UpstreamStats},
    runtime::Snapshot,
    upstream::{Target, breaker::State, clock::now_ms},
};

pub fn all(control: &Control, page: &mut Page<'_>) {
    let snapshot = control.snapshot.load();
    targets_now(&snapshot, page);
    targets(control, page);
    counted(control, &snapshot, page);
    balancing(&snapshot, page);
    names(control, page);
}

fn targets_now(snapshot: &Snapshot, page: &mut Page<'_>) {
    let each = |of: &mut Family<'_, '_>, value: &dyn Fn(&Target) -> u64| {
        for (name, upstream) in &snapshot.upstreams {
            for member in &upstream.members {
                let target = &member.target;
                of.count(&[("upstream", name), ("target", &target.name)], value(target));
            }
        }
    };
    page.gauges("upstream_up", "1 while a target takes part in balancing", |of| {
        each(of, &|target| target.usable().into());
    });
    let help = "Requests and upgraded connections under way on a target";
    page.gauges("upstream_active_requests", help, |of| each(of, &|target| target.active().into()));
}

fn targets(control: &Control, page: &mut Page<'_>) {
    let targets: Vec<_> = control
        .registry
        .targets()
        .into_iter()
        .map(|((upstream, addr), stats)| (upstream, addr.to_string(), stats))
        .collect();
    page.counters("upstream_requests_total", "Answers by target and status code", |of| {
        for (upstream, target, stats) in &targets {
            stats.each_request(|code, n| {
                let mut digits = itoa::Buffer::new();
                let labels = [("upstream", &**upstream), ("target", target), ("code", digits.format(code))];
                of.count(&labels, n);
            });
        }
    });
    page.counters("upstream_ejections_total", "Times that a target was taken out by its errors", |of| {
        for (upstream, target, stats) in &targets {
            of.count(&[("upstream", upstream), ("target", target)], stats.ejections());
        }
    });
    let mut open = BTreeMap::<&str, [i64; 2]>::new();
    for (upstream, _, stats) in &targets {
        let [idle, busy] = open.entry(upstream).or_default();
        for shard in stats.shards.iter() {
            *idle += shard.idle.get();
            *busy += shard.busy.get();
        }
    }
    page.gauges("upstream_connections", "Open connections to an upstream's targets", |of| {
        for (upstream, [idle, busy]) in &open {
            of.value(&[("upstream", upstream), ("state", "idle")], *idle as f64);
            of.value(&[("upstream", upstream), ("state", "active")], *busy as f64);
        }
    });
}

fn counted(control: &Control, snapshot: &Snapshot, page: &mut Page<'_>) {
    let upstreams = control.registry.upstreams();
    page.histograms("upstream_duration_seconds", "From a request's sending to its answer's head", |of| {
        for (name, stats) in &upstreams {
            let total = sum(&stats.shards, |shard| &shard.duration);
            of.histogram(&[("upstream", name)], &total, &Examples::default());
        }
    });
    page.counters("upstream_connects_total", "Attempts to connect, by result", |of| {
        for (name, stats) in &upstreams {
            for (result, word) in Connect::ALL {
                let n = stats.shards.sum(|shard| shard.connects(result));
                of.count(&[("upstream", name), ("result", word)], n);
            }
        }
    });
    page.counters("upstream_retries_total", "Requests sent again, by reason", |of| {
        for (name, stats) in &upstreams {
            for (reason, word) in Retry::ALL {
                let n = stats.shards.sum(|shard| shard.retries(reason));
                of.count(&[("upstream", name), ("reason", word)], n);
            }
        }
    });
    page.counters(
        "upstream_fallbacks_total",
        "Requests that an upstream's fallback answered, by reason",
        |of| {
            for (name, stats) in &upstreams {
                fallbacks(of, name, stats, snapshot.fallbacks.contains_key(&**name));
            }
        },
    );
    let help = "Requests that would have been sent again, had the budget allowed it";
    page.counters("upstream_retries_over_budget_total", help, |of| {
        for (name, stats) in &upstreams {
            let refused = stats.shards.sum(|shard| shard.retries(Retry::OverBudget));
            of.count(&[("upstream", name)], refused);
        }
    });
}

/// Most upstreams have none.
fn fallbacks(of: &mut Family<'_, '_>, name: &str, stats: &UpstreamStats, has_one: bool) {
    for (reason, why) in FALLBACKS.iter().enumerate() {
        let n = stats.shards.sum(|shard| shard.fallbacks(reason));
        if n > 0 || has_one {
            of.count(&[("upstream", name), ("reason", why.name())], n);
        }
    }
}

fn balancing(snapshot: &Snapshot, page: &mut Page<'_>) {
    let upstreams = &snapshot.upstreams;
    page.gauges("upstream_panic", "1 while so few targets are healthy that all are used", |of| {
        for (name, upstream) in upstreams {
            of.flag(&[("upstream", name)], upstream.panics());
        }
    });
    page.gauges("upstream_queue", "Requests that wait for a target with room", |of| {
        for (name, upstream) in upstreams {
            if let Some(queue) = upstream.queue() {
                of.count(&[("upstream", name)], queue.len() as u64);
            }
        }
    });
    let now = now_ms();
    page.gauges("upstream_breaker", "1 for the state that a circuit breaker is in", |of| {
        for (name, upstream) in upstreams {
            let breaker = upstream.extras.as_ref().and_then(|extras| extras.breaker.as_ref());
            let Some(is) = breaker.map(|breaker| breaker.state(now)) else { continue };
            for state in [State::Closed, State::Open, State::HalfOpen] {
                of.flag(&[("upstream", name), ("state", state.word())], is == state);
            }
        }
    });
}

fn names(control: &Control, page: &mut Page<'_>) {
    let names: Vec<_> =
        control.names.known().into_iter().map(|(lookup, known)| (lookup.to_string(), known)).collect();
    page.counters("dns_lookups_total", "Look-ups of upstreams' names, by result", |of| {
        for (name, known) in &names {
            of.count(&[("name", name), ("result", "ok")], known.ok);
            of.count(&[("name", name), ("result", "error")], known.failed);
        }
    });
    page.gauges("dns_addresses", "Addresses that a name was last found to have", |of| {
        for (name, known) in &names {
            of.count(&[("name", name)], known.found.len() as u64);
        }
    });
}
