//! Connections of clients, and the certificates that they are shown.

use super::page::{Family, Page};
use crate::{
    daemon::Control,
    observe::{
        Why,
        stats::{Handshake, ListenerStats, ProxyHeader, TlsVersion},
    },
    runtime::Snapshot,
};

pub fn all(control: &Control, page: &mut Page<'_>) {
    let snapshot = control.snapshot.load();
    let listeners = control.registry.listeners();
    page.gauges("http_active_requests", "Requests under way", |of| {
        for (name, stats) in listeners.iter().filter(|(name, _)| service(name).is_none()) {
            let running: i64 = stats.shards.iter().map(|shard| shard.active_requests.get()).sum();
            of.value(&[("listener", name)], running as f64);
        }
    });
    page.gauges("connections_active", "Open client connections", |of| {
        for (name, stats) in &listeners {
            of.count(&[("listener", name)], stats.connections().into());
        }
    });
    page.counters("connections_total", "Client connections by protocol, and those closed at once", |of| {
        listeners.iter().for_each(|(name, stats)| accepted(of, name, stats, &snapshot));
    });
    let help = "Connections that were refused or ended for what their source takes";
    page.counters("connections_refused_total", help, |of| {
        for (name, stats) in &listeners {
            for why in [Why::SourceConnections, Why::SourceHandshakes, Why::Http2Abuse] {
                let n = stats.shards.sum(|shard| shard.errors(why));
                if n > 0 {
                    of.count(&[("listener", name), ("reason", why.name())], n);
                }
            }
        }
    });
    page.counters("tls_handshakes_total", "TLS handshakes by version and how they ended", |of| {
        listeners.iter().for_each(|(name, stats)| handshakes(of, name, stats));
    });
    let help = "Connections of those who send PROXY headers, by what became of the header";
    page.counters("proxy_protocol_total", help, |of| {
        for (name, stats) in &listeners {
            for (result, word) in ProxyHeader::ALL {
                let n = stats.shards.sum(|shard| shard.proxy_headers(result));
                if n > 0 {
                    of.count(&[("listener", name), ("result", word)], n);
                }
            }
        }
    });
    backlogs(control, page);
    page.gauges("cert_expiry_timestamp_seconds", "When a certificate expires", |of| {
        for cert in snapshot.tls.certs.values() {
            if let Some(facts) = cert.facts() {
                of.value(&[("cert", &cert.name)], facts.not_after as f64);
            }
        }
    });
}

/// The L4 service whose connections these are.
fn service(listener: &str) -> Option<&str> {
    listener.strip_prefix("service/")
}

fn accepted(of: &mut Family<'_, '_>, name: &str, stats: &ListenerStats, snapshot: &Snapshot) {
    let mut by = |protocol: &str, n: u64| of.count(&[("listener", name), ("protocol", protocol)], n);
    by("over_limit", stats.shards.sum(|shard| shard.over_limit.get()));
    match service(name) {
        Some(service) => {
            let protocol = snapshot.services.get(service).map(|service| service.config.protocol.word());
            by(protocol.unwrap_or("tcp"), stats.shards.sum(|shard| shard.accepted.get()));
        }
        None => {
            by("h1", stats.shards.sum(|shard| shard.http1.get()));
            by("h2", stats.shards.sum(|shard| shard.http2.get()));
        }
    }
}

fn handshakes(of: &mut Family<'_, '_>, name: &str, stats: &ListenerStats) {
    for version in TlsVersion::ALL {
        for (result, word) in Handshake::ALL {
            let n = stats.shards.sum(|shard| shard.handshakes(version, result));
            if n > 0 {
                of.count(&[("listener", name), ("version", version.name()), ("result", word)], n);
            }
        }
    }
}

fn backlogs(control: &Control, page: &mut Page<'_>) {
    let backlogs = control.backlogs();
    page.gauges("connections_waiting", "Connections that no worker has accepted yet", |of| {
        for (name, queue) in &backlogs {
            of.count(&[("listener", name)], queue.waiting.into());
        }
    });
    let help = "Connections that the kernel dropped, as the accept queue was full";
    page.counters("connections_overflowed_total", help, |of| {
        for (name, queue) in &backlogs {
            of.count(&[("listener", name)], queue.dropped.into());
        }
    });
}
