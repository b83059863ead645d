//! The Prometheus exposition: everything is read from the shards when somebody scrapes.

mod families;
mod openmetrics;

use std::sync::atomic::Ordering::Relaxed;

use prometheus::{Encoder, TextEncoder, proto::Metric};

pub use openmetrics::Format;

use self::families::{Families, Labels, but_for_none, counter, float_counter, gauge, histogram};

use super::{
    Why,
    stats::{
        AuthResult, CacheResult, Connect, Decided, FALLBACKS, Found as Exemplars, Handshake, HistogramTotal,
        ListenerShard, ProxyHeader, Retry, Sharded, TlsVersion, later,
    },
};
use crate::{
    config::model::OnStoreError,
    daemon::Control,
    kernel::{ServiceRow, TargetState},
    limit::Sharing,
    policy::compare::Found,
    upstream::{breaker::State, clock::now_ms},
};

pub fn render(control: &Control, format: Format) -> Vec<u8> {
    let mut families = Families::default();
    http(control, &mut families);
    connections(control, &mut families);
    auths(control, &mut families);
    upstreams(control, &mut families);
    caches(control, &mut families);
    limits(control, &mut families);
    kernel(control, &mut families);
    services(control, &mut families);
    spliced(control, &mut families);
    own(control, &mut families);
    if format == Format::OpenMetrics {
        return openmetrics::encode(&families);
    }
    let mut out = Vec::with_capacity(16 * 1024);
    // A Vec takes every write, and every family has metrics.
    let _ = TextEncoder::new().encode(&families.all, &mut out);
    out
}

fn sum<T: Default>(shards: &Sharded<T>, of: impl Fn(&T) -> &super::stats::Histogram) -> HistogramTotal {
    let mut total = HistogramTotal::default();
    shards.iter().for_each(|shard| total.add(of(shard)));
    total
}

fn limits(control: &Control, families: &mut Families) {
    let snapshot = control.snapshot.load();
    let mut decisions = Vec::new();
    for (name, stats) in control.registry.limits() {
        for (decided, word) in Decided::ALL {
            let n = stats.shards.sum(|shard| shard.decisions(decided));
            if n > 0
                || snapshot.limits.contains_key(&name) && matches!(decided, Decided::Allow | Decided::Deny)
            {
                decisions.push(counter(&[("limit", &name), ("decision", word)], n));
            }
        }
    }
    if let Some((name, _)) = snapshot.config.limits.iter().find(|(_, limit)| limit.kernel) {
        let dropped = control
            .kernel
            .counters()
            .iter()
            .filter(|row| row.reason == "limit_new")
            .map(|row| row.packets)
            .sum();
        decisions.push(counter(&[("limit", name), ("decision", "drop")], dropped));
    }
    let help = "What the kernel half's limits are multiplied by.";
    families.gauges("kernel_load_factor", help, vec![gauge(&[], control.kernel.load_factor())]);
    let http = snapshot.limit_store.bans.list().len();
    families.gauges("http_bans", "Bans in force at L7.", vec![gauge(&[], http as f64)]);
    families.counters("limit_decisions_total", "Requests by what a limit decided.", decisions);
    let rates = snapshot.limits.iter();
    let rates = rates.map(|(name, limit)| gauge(&[("limit", name)], limit.rate()));
    families.gauges(
        "limit_rate",
        "What a limit lets through now: units a second, or at once.",
        rates.collect(),
    );
    let shares = snapshot.limits.iter().filter_map(|(name, limit)| Some((name, limit.even_share()?)));
    let shares: Vec<_> = shares.map(|(name, share)| gauge(&[("limit", name)], share)).collect();
    if !shares.is_empty() {
        families.gauges("limit_share", "A caller's even share of a dynamic limit, a second.", shares);
    }
    if snapshot.config.shared.is_some() {
        shared(&snapshot.limit_store.shared, families);
    }
    if !snapshot.limits.is_empty() {
        let crowded = snapshot.limit_store.crowded();
        let help = "Decisions by quotas that keys share, since the table has no room for more keys.";
        families.counters("limit_crowded_total", help, vec![counter(&[], crowded)]);
    }
}

fn shared(sharing: &Sharing, families: &mut Families) {
    let up = f64::from(u8::from(sharing.up.load(Relaxed)));
    families.gauges("shared_up", "Whether the store that gateways share answers.", vec![gauge(&[], up)]);
    let results = [("ok", &sharing.exchanges), ("failed", &sharing.failed)];
    let exchanges = results.map(|(result, n)| counter(&[("result", result)], n.load(Relaxed)));
    families.counters("shared_exchanges_total", "Exchanges with that store.", exchanges.into());
    let help =
        "Decisions on shared limits that were this gateway's alone, as the store did not answer in time.";
    let decided = OnStoreError::ALL.iter().zip(&sharing.alone);
    let decided = decided.map(|(by, n)| counter(&[("on_error", by.word())], n.load(Relaxed)));
    families.counters("limit_alone_total", help, decided.collect());
}

fn http(control: &Control, families: &mut Families) {
    let series = control.registry.routes();
    let mut requests = Vec::new();
    let mut errors = std::collections::BTreeMap::<(&str, &str, &str), u64>::new();
    let mut by_route = std::collections::BTreeMap::<(&str, &str), RouteTotals>::new();
    for ((listener, route, version), stats) in &series {
        for ((method, code), n) in stats.requests() {
            let code = code.to_string();
            let labels = [
                ("listener", &**listener),
                ("route", route),
                ("method", method),
                ("code", &code),
                ("version", version),
            ];
            requests.push(counter(but_for_none(&labels), n));
        }
        for why in Why::ALL {
            let n = stats.shards.sum(|shard| shard.errors(*why));
            if n > 0 {
                *errors.entry((route, version, why.name())).or_default() += n;
            }
        }
        let totals = by_route.entry((route, version)).or_default();
        for shard in stats.shards.iter() {
            totals.duration.add(&shard.duration);
            later(&mut totals.exemplars, shard.exemplars());
            totals.overhead.add(&shard.overhead);
            totals.bytes_in += shard.request_bytes.get();
            totals.bytes_out += shard.response_bytes.get();
        }
    }
    let errors = errors.iter().map(|((route, version, why), n)| {
        counter(but_for_none(&[("route", route), ("reason", why), ("version", version)]), *n)
    });
    let errors = errors.collect();
    let each = |f: &dyn Fn(Labels<'_>, &RouteTotals) -> Metric| -> Vec<Metric> {
        let labelled = by_route.iter().map(|((route, version), totals)| {
            f(but_for_none(&[("route", route), ("version", version)]), totals)
        });
        labelled.collect()
    };
    let compared = control.registry.all_compared();
    let compared = compared.iter().flat_map(|((route, version), compared)| {
        Found::ALL.map(|(found, word)| {
            let labels = [("route", &**route), ("result", word), ("version", version)];
            counter(but_for_none(&labels), compared.of(found))
        })
    });
    families.counters(
        "mirror_compared_total",
        "Answers of a shadow that were compared with what the client got, by what came of it",
        compared.collect(),
    );
    families.counters("http_requests_total", "Requests by listener, route, method and status code", requests);
    let durations = each(&|labels, totals| histogram(labels, &totals.duration));
    let exemplars = by_route.values().map(|totals| totals.exemplars);
    families.histograms_with(
        "http_request_duration_seconds",
        "From a request's first byte to its answer's last",
        durations.into_iter().zip(exemplars).collect(),
    );
    families.histograms(
        "http_overhead_seconds",
        "The gateway's own share of a request's duration",
        each(&|labels, totals| histogram(labels, &totals.overhead)),
    );
    families.counters(
        "http_request_bytes_total",
        "Bytes of request bodies",
        each(&|labels, totals| counter(labels, totals.bytes_in)),
    );
    families.counters(
        "http_response_bytes_total",
        "Bytes of response bodies",
        each(&|labels, totals| counter(labels, totals.bytes_out)),
    );
    families.counters(
        "http_errors_total",
        "Requests that the gateway answered itself or cut, by reason",
        errors,
    );
}

#[derive(Default)]
struct RouteTotals {
    duration: HistogramTotal,
    exemplars: Exemplars,
    overhead: HistogramTotal,
    bytes_in: u64,
    bytes_out: u64,
}

fn connections(control: &Control, families: &mut Families) {
    let (mut requests, mut active, mut total) = (Vec::new(), Vec::new(), Vec::new());
    let (mut handshakes, mut proxy_headers, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let snapshot = control.snapshot.load();
    for (name, stats) in control.registry.listeners() {
        let labels = [("listener", &*name)];
        active.push(gauge(&labels, f64::from(stats.connections())));
        let mut of_protocol = |protocol: &str, count: fn(&ListenerShard) -> u64| {
            let labels = [("listener", &*name), ("protocol", protocol)];
            total.push(counter(&labels, stats.shards.sum(count)));
        };
        of_protocol("over_limit", |shard| shard.over_limit.get());
        match name.strip_prefix("service/") {
            Some(service) => {
                let protocol = snapshot.services.get(service).map(|service| service.config.protocol.word());
                of_protocol(protocol.unwrap_or("tcp"), |shard| shard.accepted.get());
            }
            None => {
                of_protocol("h1", |shard| shard.http1.get());
                of_protocol("h2", |shard| shard.http2.get());
                let running: i64 = stats.shards.iter().map(|shard| shard.active_requests.get()).sum();
                requests.push(gauge(&labels, running as f64));
            }
        }
        for version in TlsVersion::ALL {
            for (result, word) in Handshake::ALL {
                let n = stats.shards.sum(|shard| shard.handshakes(version, result));
                let labels = [("listener", &*name), ("version", version.name()), ("result", word)];
                if n > 0 {
                    handshakes.push(counter(&labels, n));
                }
            }
        }
        for why in [Why::SourceConnections, Why::SourceHandshakes, Why::Http2Abuse] {
            let n = stats.shards.sum(|shard| shard.errors(why));
            if n > 0 {
                refused.push(counter(&[("listener", &*name), ("reason", why.name())], n));
            }
        }
        for (result, word) in ProxyHeader::ALL {
            let n = stats.shards.sum(|shard| shard.proxy_headers(result));
            if n > 0 {
                proxy_headers.push(counter(&[("listener", &*name), ("result", word)], n));
            }
        }
    }
    families.gauges("http_active_requests", "Requests under way", requests);
    families.gauges("connections_active", "Open client connections", active);
    families.counters("connections_total", "Client connections by protocol, and those closed at once", total);
    families.counters(
        "connections_refused_total",
        "Connections that were refused or ended for what their source takes",
        refused,
    );
    families.counters("tls_handshakes_total", "TLS handshakes by version and how they ended", handshakes);
    families.counters(
        "proxy_protocol_total",
        "Connections of those who send PROXY headers, by what became of the header",
        proxy_headers,
    );
    let (mut waiting, mut overflowed) = (Vec::new(), Vec::new());
    for (name, queue) in control.backlogs() {
        waiting.push(gauge(&[("listener", &name)], queue.waiting.into()));
        overflowed.push(counter(&[("listener", &name)], queue.dropped.into()));
    }
    families.gauges("connections_waiting", "Connections that no worker has accepted yet", waiting);
    families.counters(
        "connections_overflowed_total",
        "Connections that the kernel dropped, as the accept queue was full",
        overflowed,
    );
    let certs = snapshot.tls.certs.values();
    let expiry = certs
        .filter_map(|cert| Some(gauge(&[("cert", &cert.name)], cert.facts()?.not_after as f64)))
        .collect();
    families.gauges("cert_expiry_timestamp_seconds", "When a certificate expires", expiry);
}

fn auths(control: &Control, families: &mut Families) {
    let mut results = Vec::new();
    for (name, stats) in control.registry.auths() {
        for (result, word) in AuthResult::ALL {
            results.push(counter(&[("auth", &name), ("result", word)], stats.results(result)));
        }
    }
    families.counters("auth_total", "Attempts to tell who calls, by what became of them", results);
}

fn upstreams(control: &Control, families: &mut Families) {
    let snapshot = control.snapshot.load();
    let (mut up, mut active) = (Vec::new(), Vec::new());
    for (name, upstream) in &snapshot.upstreams {
        for member in &upstream.members {
            let labels = [("upstream", &**name), ("target", &*member.target.name)];
            up.push(gauge(&labels, f64::from(u8::from(member.target.usable()))));
            active.push(gauge(&labels, f64::from(member.target.active())));
        }
    }
    let (mut requests, mut open, mut ejections) = (Vec::new(), Vec::new(), Vec::new());
    for ((upstream, target), stats) in control.registry.targets() {
        let target = target.to_string();
        ejections.push(counter(&[("upstream", &upstream), ("target", &target)], stats.ejections()));
        for (code, n) in stats.requests() {
            let code = code.to_string();
            requests.push(counter(&[("upstream", &upstream), ("target", &target), ("code", &code)], n));
        }
        let idle: i64 = stats.shards.iter().map(|shard| shard.idle.get()).sum();
        let busy: i64 = stats.shards.iter().map(|shard| shard.busy.get()).sum();
        open.push((upstream, idle, busy));
    }
    let mut by_upstream = std::collections::BTreeMap::<String, (i64, i64)>::new();
    for (upstream, idle, busy) in open {
        let sums = by_upstream.entry(upstream).or_default();
        sums.0 += idle;
        sums.1 += busy;
    }
    let connections = by_upstream.iter().flat_map(|(upstream, (idle, busy))| {
        [("idle", idle), ("active", busy)]
            .map(|(state, n)| gauge(&[("upstream", upstream), ("state", state)], *n as f64))
    });
    let (mut duration, mut connects, mut retries) = (Vec::new(), Vec::new(), Vec::new());
    let (mut over_budget, mut fallbacks) = (Vec::new(), Vec::new());
    for (name, stats) in control.registry.upstreams() {
        duration.push(histogram(&[("upstream", &name)], &sum(&stats.shards, |shard| &shard.duration)));
        for (result, word) in Connect::ALL {
            let n = stats.shards.sum(|shard| shard.connects(result));
            connects.push(counter(&[("upstream", &name), ("result", word)], n));
        }
        for (reason, word) in Retry::ALL {
            let n = stats.shards.sum(|shard| shard.retries(reason));
            retries.push(counter(&[("upstream", &name), ("reason", word)], n));
        }
        for (reason, why) in FALLBACKS.iter().enumerate() {
            let n = stats.shards.sum(|shard| shard.fallbacks(reason));
            // Most upstreams have none.
            if n > 0 || snapshot.fallbacks.contains_key(&*name) {
                fallbacks.push(counter(&[("upstream", &name), ("reason", why.name())], n));
            }
        }
        let refused = stats.shards.sum(|shard| shard.retries(Retry::OverBudget));
        over_budget.push(counter(&[("upstream", &name)], refused));
    }
    families.gauges("upstream_up", "1 while a target takes part in balancing", up);
    families.gauges(
        "upstream_active_requests",
        "Requests and upgraded connections under way on a target",
        active,
    );
    families.counters("upstream_requests_total", "Answers by target and status code", requests);
    families.histograms(
        "upstream_duration_seconds",
        "From a request's sending to its answer's head",
        duration,
    );
    families.gauges(
        "upstream_connections",
        "Open connections to an upstream's targets",
        connections.collect(),
    );
    families.counters("upstream_connects_total", "Attempts to connect, by result", connects);
    families.counters("upstream_retries_total", "Requests sent again, by reason", retries);
    families.counters(
        "upstream_fallbacks_total",
        "Requests that an upstream's fallback answered, by reason",
        fallbacks,
    );
    families.counters(
        "upstream_retries_over_budget_total",
        "Requests that would have been sent again, had the budget allowed it",
        over_budget,
    );
    families.counters(
        "upstream_ejections_total",
        "Times that a target was taken out by its errors",
        ejections,
    );
    let snapshot = &snapshot.upstreams;
    let panics = snapshot
        .iter()
        .map(|(name, upstream)| gauge(&[("upstream", &**name)], f64::from(u8::from(upstream.panics()))));
    families.gauges(
        "upstream_panic",
        "1 while so few targets are healthy that all are used",
        panics.collect(),
    );
    let now = now_ms();
    let breakers = snapshot.iter().flat_map(|(name, upstream)| {
        let breaker = upstream.extras.as_ref().and_then(|extras| extras.breaker.as_ref());
        breaker.map(|breaker| breaker.state(now)).into_iter().flat_map(move |is| {
            [State::Closed, State::Open, State::HalfOpen].map(|state| {
                let labels = [("upstream", &**name), ("state", state.word())];
                gauge(&labels, f64::from(u8::from(is == state)))
            })
        })
    });
    let waiting = snapshot.iter().filter_map(|(name, upstream)| {
        let waiting = upstream.queue()?.len();
        Some(gauge(&[("upstream", &**name)], waiting as f64))
    });
    let names = control.names.known();
    let lookups = names.iter().flat_map(|(lookup, known)| {
        let name = lookup.to_string();
        [("ok", known.ok), ("error", known.failed)]
            .map(|(result, n)| counter(&[("name", &*name), ("result", result)], n))
    });
    families.counters("dns_lookups_total", "Look-ups of upstreams' names, by result", lookups.collect());
    let found = names
        .iter()
        .map(|(lookup, known)| gauge(&[("name", &*lookup.to_string())], known.found.len() as f64));
    families.gauges("dns_addresses", "Addresses that a name was last found to have", found.collect());
    families.gauges("upstream_queue", "Requests that wait for a target with room", waiting.collect());
    families.gauges("upstream_breaker", "1 for the state that a circuit breaker is in", breakers.collect());
}

fn caches(control: &Control, families: &mut Families) {
    let (mut requests, mut bytes, mut entries, mut evicted) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut on_disk = Vec::new();
    for (name, stats) in control.registry.caches() {
        requests.extend(
            CacheResult::ALL.map(|result| {
                counter(&[("cache", &*name), ("result", result.word())], stats.results(result))
            }),
        );
    }
    for (name, cache) in &control.snapshot.load().caches {
        let (labels, store) = ([("cache", &**name), ("tier", "memory")], cache.store());
        bytes.push(gauge(&labels, store.bytes() as f64));
        entries.push(gauge(&labels, store.entries() as f64));
        evicted.push(counter(&labels, store.evicted()));
        let Some(disk) = cache.disk() else { continue };
        let labels = [("cache", &**name), ("tier", "disk")];
        bytes.push(gauge(&labels, disk.bytes() as f64));
        entries.push(gauge(&labels, disk.entries() as f64));
        let counts = disk.counts();
        evicted.push(counter(&labels, counts.evicted.load(Relaxed)));
        on_disk.extend(
            [
                ("hit", &counts.hits),
                ("written", &counts.written),
                ("dropped", &counts.dropped),
                ("busy", &counts.busy),
                ("damaged", &counts.damaged),
                ("failed", &counts.failed),
            ]
            .map(|(event, count)| counter(&[("cache", &**name), ("event", event)], count.load(Relaxed))),
        );
    }
    families.counters(
        "cache_requests_total",
        "Requests of routes with a cache, by what it did for them",
        requests,
    );
    families.gauges("cache_bytes", "Bytes that a cache takes, with all that entries cost", bytes);
    families.gauges("cache_entries", "Responses that a cache keeps", entries);
    families.counters("cache_evictions_total", "Responses that had to go for others", evicted);
    families.counters("cache_disk_total", "What happened in the disk tier of a cache", on_disk);
}

fn kernel(control: &Control, families: &mut Families) {
    let status = control.kernel.status();
    let modes = status
        .interfaces
        .iter()
        .map(|interface| gauge(&[("interface", &interface.name), ("mode", interface.mode)], 1.0));
    families.gauges("kernel_mode", "How the XDP program is attached to an interface", modes.collect());
    let (mut packets, mut bytes) = (Vec::new(), Vec::new());
    for row in control.kernel.counters() {
        let labels = [("interface", &*row.interface), ("action", row.action), ("reason", row.reason)];
        packets.push(counter(&labels, row.packets));
        bytes.push(counter(&labels, row.bytes));
    }
    families.counters("kernel_packets_total", "Packets seen by XDP, by what became of them and why", packets);
    families.counters("kernel_bytes_total", "Bytes seen by XDP, by what became of them and why", bytes);
    let (mut entries, mut capacity) = (Vec::new(), Vec::new());
    for row in control.kernel.maps() {
        entries.push(gauge(&[("map", row.name)], row.entries as f64));
        capacity.push(gauge(&[("map", row.name)], row.capacity as f64));
    }
    families.gauges("kernel_map_entries", "Entries in a BPF map", entries);
    families.gauges("kernel_map_capacity", "Entries that a BPF map can hold", capacity);
    let taken = status.taken.iter().map(|taken| counter(&[("what", &*taken.what)], taken.times));
    families.counters(
        "kernel_taken_away_total",
        "How often something of the kernel half was taken away from outside, and put back",
        taken.collect(),
    );
    let drift = vec![gauge(&[], control.kernel.drift() as f64)];
    families.gauges(
        "kernel_drift",
        "Entries of maps that the last verification found not to be as the config says",
        drift,
    );
    let attack = gauge(&[], f64::from(u8::from(status.syn.attack)));
    families.gauges("kernel_syn_attack", "Whether new connections have to prove themselves", vec![attack]);
    families.gauges("kernel_bans", "Bans in force", vec![gauge(&[], control.kernel.bans().len() as f64)]);
}

/// Only of services and targets that the config has: what is gone leaves no series behind.
fn services(control: &Control, families: &mut Families) {
    let rows = control.kernel.service_rows();
    let by_target: std::collections::BTreeMap<(&str, &str), &ServiceRow> =
        rows.iter().map(|row| ((row.service.as_str(), row.target.as_str()), row)).collect();
    let snapshot = control.snapshot.load();
    let (mut up, mut packets, mut bytes, mut connections) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, service) in snapshot.services.iter().filter(|(_, service)| service.splice.is_none()) {
        for (target, _) in service.targets() {
            let labels = [("service", &**name), ("target", &*target.name)];
            up.push(gauge(&labels, f64::from(u8::from(service.state(target) == TargetState::Up))));
            if let Some(row) = by_target.get(&(name.as_str(), &*target.name)) {
                packets.push(counter(&labels, row.packets));
                bytes.push(counter(&labels, row.bytes));
                connections.push(counter(&labels, row.connections));
            }
        }
    }
    families.gauges("kernel_service_target_up", "1 while a target gets new connections", up);
    families.counters("kernel_service_packets_total", "Packets forwarded to a target", packets);
    families.counters("kernel_service_bytes_total", "Bytes forwarded to a target", bytes);
    families.counters("kernel_service_connections_total", "Connections given to a target", connections);
}

/// Services that go through userspace; those that are gone leave no series behind.
fn spliced(control: &Control, families: &mut Families) {
    let snapshot = control.snapshot.load();
    let (mut up, mut active, mut total, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut errors = Vec::new();
    for (name, service) in &snapshot.services {
        let Some(splice) = &service.splice else { continue };
        for (target, _) in service.targets() {
            let labels = [("service", &**name), ("target", &*target.name)];
            up.push(gauge(&labels, f64::from(u8::from(service.state(target) == TargetState::Up))));
            active.push(gauge(&labels, f64::from(target.through.active())));
            total.push(counter(&labels, target.through.connections()));
            bytes.push(counter(&labels, target.through.bytes()));
        }
        for why in Why::ALL {
            let n = splice.stats.shards.sum(|shard| shard.errors(*why));
            if n > 0 {
                errors.push(counter(&[("service", name), ("reason", why.name())], n));
            }
        }
    }
    families.gauges("service_target_up", "1 while a target gets new connections", up);
    families.gauges("service_active_connections", "Open connections through userspace to a target", active);
    families.counters("service_connections_total", "Connections through userspace to a target", total);
    families.counters("service_bytes_total", "Bytes through userspace to and from a target", bytes);
    families.counters("service_errors_total", "Connections that were refused or cut, by reason", errors);
}

fn own(control: &Control, families: &mut Families) {
    let state = control.state();
    let generation = control.snapshot.load().generation;
    families.gauges("config_generation", "Configs taken since start", vec![gauge(&[], generation as f64)]);
    families.counters(
        "config_reloads_total",
        "Reloads by result",
        vec![
            counter(&[("result", "ok")], state.reloads_ok),
            counter(&[("result", "error")], state.reloads_failed),
        ],
    );
    let since_epoch = |at: std::time::SystemTime| {
        at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    };
    families.gauges(
        "config_last_success_timestamp_seconds",
        "When a config was last taken",
        vec![gauge(&[], since_epoch(state.last_success))],
    );
    let alerts = control.alerts.rows();
    let firing =
        alerts.iter().map(|row| gauge(&[("alert", &row.alert)], f64::from(u8::from(row.state == "firing"))));
    families.gauges("alerts_firing", "1 while an alert fires", firing.collect());
    let told = control.alerts.told();
    let told = told.iter().flat_map(|(name, (sent, failed))| {
        [("sent", sent), ("failed", failed)]
            .map(|(result, n)| counter(&[("notify", name), ("result", result)], *n))
    });
    families.counters("alert_messages_total", "Messages of alerts by result", told.collect());
    let lines = &control.access_log.counts;
    let by_result = [
        ("written", &lines.written),
        ("dropped", &lines.dropped),
        ("failed", &lines.failed),
        ("sampled", &lines.sampled),
    ];
    families.counters(
        "access_log_lines_total",
        "Access log lines by what became of them",
        by_result.map(|(result, n)| counter(&[("result", result)], n.load(Relaxed))).to_vec(),
    );
    let spans = &super::trace::COUNTS;
    let by_result = [("exported", &spans.exported), ("dropped", &spans.dropped), ("failed", &spans.failed)];
    families.counters(
        "trace_spans_total",
        "Spans by what became of them",
        by_result.map(|(result, n)| counter(&[("result", result)], n.load(Relaxed))).to_vec(),
    );
    let busy = control.workers.busy_ratios().into_iter().enumerate();
    families.gauges(
        "worker_busy_ratio",
        "The share of the last ten seconds that a worker was busy",
        busy.map(|(index, ratio)| gauge(&[("worker", &index.to_string())], ratio)).collect(),
    );
    families.gauges(
        "build_info",
        "1, with what is running",
        vec![gauge(&[("version", env!("CARGO_PKG_VERSION")), ("commit", crate::COMMIT)], 1.0)],
    );
    let process = super::process::usage();
    families.gauges(
        "process_start_time_seconds",
        "When the process started",
        vec![gauge(&[], since_epoch(control.started_at))],
    );
    families.counters(
        "process_cpu_seconds_total",
        "CPU time, user and system",
        vec![float_counter(process.cpu_seconds)],
    );
    families.gauges(
        "process_resident_memory_bytes",
        "Resident memory",
        vec![gauge(&[], process.resident_bytes as f64)],
    );
    families.gauges("process_open_fds", "Open file descriptors", vec![gauge(&[], process.open_fds as f64)]);
    families.gauges(
        "process_max_fds",
        "File descriptors that may be open",
        vec![gauge(&[], process.max_fds as f64)],
    );
}
