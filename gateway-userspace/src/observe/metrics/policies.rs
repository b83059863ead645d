//! Who calls, what caches do, and what limits decide.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use super::{
    kernel::Facts,
    page::{Family, Page},
};
use crate::{
    cache::Cache,
    config::model::OnStoreError,
    daemon::Control,
    limit::Sharing,
    observe::stats::{AuthResult, CacheResult, Decided, LimitStats},
    runtime::Snapshot,
};

pub fn auths(control: &Control, page: &mut Page<'_>) {
    page.counters("auth_total", "Attempts to tell who calls, by what became of them", |of| {
        for (name, stats) in control.registry.auths() {
            for (result, word) in AuthResult::ALL {
                of.count(&[("auth", &name), ("result", word)], stats.results(result));
            }
        }
    });
}

pub fn caches(control: &Control, page: &mut Page<'_>) {
    page.counters("cache_requests_total", "Requests of routes with a cache, by what it did for them", |of| {
        for (name, stats) in control.registry.caches() {
            for result in CacheResult::ALL {
                of.count(&[("cache", &name), ("result", result.word())], stats.results(result));
            }
        }
    });
    let snapshot = control.snapshot.load();
    let caches = &snapshot.caches;
    page.gauges("cache_bytes", "Bytes that a cache takes, with all that entries cost", |of| {
        tiers(of, caches, |cache| (cache.store().bytes(), cache.disk().map(|disk| disk.bytes())));
    });
    page.gauges("cache_entries", "Responses that a cache keeps", |of| {
        tiers(of, caches, |cache| (cache.store().entries(), cache.disk().map(|disk| disk.entries())));
    });
    page.counters("cache_evictions_total", "Responses that had to go for others", |of| {
        let of_disk = |cache: &Cache| cache.disk().map(|disk| disk.counts().evicted.load(Relaxed));
        tiers(of, caches, |cache| (cache.store().evicted(), of_disk(cache)));
    });
    page.counters("cache_disk_total", "What happened in the disk tier of a cache", |of| {
        for (name, cache) in caches {
            let Some(counts) = cache.disk().map(|disk| disk.counts()) else { continue };
            for (event, count) in [
                ("hit", &counts.hits),
                ("written", &counts.written),
                ("dropped", &counts.dropped),
                ("busy", &counts.busy),
                ("damaged", &counts.damaged),
                ("failed", &counts.failed),
            ] {
                of.count(&[("cache", name), ("event", event)], count.load(Relaxed));
            }
        }
    });
}

/// Of memory, and of the disk where there is one.
fn tiers<C: std::ops::Deref<Target = Cache>>(
    of: &mut Family<'_, '_>,
    caches: &BTreeMap<String, C>,
    values: impl Fn(&Cache) -> (u64, Option<u64>),
) {
    for (name, cache) in caches {
        let (memory, disk) = values(cache);
        of.count(&[("cache", name), ("tier", "memory")], memory);
        if let Some(disk) = disk {
            of.count(&[("cache", name), ("tier", "disk")], disk);
        }
    }
}

pub fn limits(control: &Control, kernel: &Facts, page: &mut Page<'_>) {
    let snapshot = control.snapshot.load();
    let limits = &snapshot.limits;
    page.gauges("kernel_load_factor", "What the kernel half's limits are multiplied by.", |of| {
        of.value(&[], kernel.load_factor);
    });
    let bans = snapshot.limit_store.bans.in_force();
    page.gauges("http_bans", "Bans in force at L7.", |of| of.count(&[], bans as u64));
    page.counters("limit_decisions_total", "Requests by what a limit decided.", |of| {
        for (name, stats) in control.registry.limits() {
            decisions(of, &name, &stats, &snapshot);
        }
        if let Some((name, _)) = snapshot.config.limits.iter().find(|(_, limit)| limit.kernel) {
            of.count(&[("limit", name), ("decision", "drop")], kernel.dropped_as_new());
        }
    });
    page.gauges("limit_rate", "What a limit lets through now: units a second, or at once.", |of| {
        for (name, limit) in limits {
            of.value(&[("limit", name)], limit.rate());
        }
    });
    page.gauges("limit_share", "A caller's even share of a dynamic limit, a second.", |of| {
        for (name, limit) in limits {
            if let Some(share) = limit.even_share() {
                of.value(&[("limit", name)], share);
            }
        }
    });
    if snapshot.config.shared.is_some() {
        shared(&snapshot.limit_store.shared, page);
    }
    if !limits.is_empty() {
        let help = "Decisions by quotas that keys share, since the table has no room for more keys.";
        page.counters("limit_crowded_total", help, |of| of.count(&[], snapshot.limit_store.crowded()));
    }
}

/// One that the config has always shows what it lets through and what it refuses.
fn decisions(of: &mut Family<'_, '_>, name: &str, stats: &LimitStats, snapshot: &Snapshot) {
    for (decided, word) in Decided::ALL {
        let n = stats.shards.sum(|shard| shard.decisions(decided));
        let stable = matches!(decided, Decided::Allow | Decided::Deny);
        if n > 0 || stable && snapshot.limits.contains_key(name) {
            of.count(&[("limit", name), ("decision", word)], n);
        }
    }
}

fn shared(sharing: &Sharing, page: &mut Page<'_>) {
    let up = sharing.up.load(Relaxed);
    page.gauges("shared_up", "Whether the store that gateways share answers.", |of| of.flag(&[], up));
    page.counters("shared_exchanges_total", "Exchanges with that store.", |of| {
        of.count(&[("result", "ok")], sharing.exchanges.load(Relaxed));
        of.count(&[("result", "failed")], sharing.failed.load(Relaxed));
    });
    let help =
        "Decisions on shared limits that were this gateway's alone, as the store did not answer in time.";
    page.counters("limit_alone_total", help, |of| {
        for (by, n) in OnStoreError::ALL.iter().zip(&sharing.alone) {
            of.count(&[("on_error", by.word())], n.load(Relaxed));
        }
    });
}
