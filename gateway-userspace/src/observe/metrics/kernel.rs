//! The kernel half.

use super::page::{Family, Page};
use crate::{
    daemon::Control,
    kernel::{CounterRow, KernelStatus, MapRow, ServiceRow},
};

/// What it says of itself, asked once.
pub struct Facts {
    status: KernelStatus,
    counters: Vec<CounterRow>,
    maps: Vec<MapRow>,
    pub services: Vec<ServiceRow>,
    drift: u64,
    bans: u64,
    pub load_factor: f64,
}

impl Facts {
    pub fn of(control: &Control) -> Facts {
        let kernel = &control.kernel;
        Facts {
            status: kernel.status(),
            counters: kernel.counters(),
            maps: kernel.maps(),
            services: kernel.service_rows(),
            drift: kernel.drift() as u64,
            bans: kernel.ban_count() as u64,
            load_factor: kernel.load_factor(),
        }
    }

    /// Packets that the limit of new connections dropped.
    pub fn dropped_as_new(&self) -> u64 {
        self.counters.iter().filter(|row| row.reason == "limit_new").map(|row| row.packets).sum()
    }
}

pub fn all(facts: &Facts, page: &mut Page<'_>) {
    let Facts { status, counters, maps, .. } = facts;
    page.gauges("kernel_mode", "How the XDP program is attached to an interface", |of| {
        for interface in &status.interfaces {
            of.flag(&[("interface", &interface.name), ("mode", interface.mode)], true);
        }
    });
    let each = |of: &mut Family<'_, '_>, value: fn(&CounterRow) -> u64| {
        for row in counters {
            let labels = [("interface", &*row.interface), ("action", row.action), ("reason", row.reason)];
            of.count(&labels, value(row));
        }
    };
    page.counters("kernel_packets_total", "Packets seen by XDP, by what became of them and why", |of| {
        each(of, |row| row.packets);
    });
    page.counters("kernel_bytes_total", "Bytes seen by XDP, by what became of them and why", |of| {
        each(of, |row| row.bytes);
    });
    page.gauges("kernel_map_entries", "Entries in a BPF map", |of| {
        maps.iter().for_each(|row| of.count(&[("map", row.name)], row.entries));
    });
    page.gauges("kernel_map_capacity", "Entries that a BPF map can hold", |of| {
        maps.iter().for_each(|row| of.count(&[("map", row.name)], row.capacity));
    });
    let help = "How often something of the kernel half was taken away from outside, and put back";
    page.counters("kernel_taken_away_total", help, |of| {
        status.taken.iter().for_each(|taken| of.count(&[("what", &*taken.what)], taken.times));
    });
    let help = "Entries of maps that the last verification found not to be as the config says";
    page.gauges("kernel_drift", help, |of| of.count(&[], facts.drift));
    let help = "Whether new connections have to prove themselves";
    page.gauges("kernel_syn_attack", help, |of| of.flag(&[], status.syn.attack));
    page.gauges("kernel_bans", "Bans in force", |of| of.count(&[], facts.bans));
}
