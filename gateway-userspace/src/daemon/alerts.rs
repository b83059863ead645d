//! What alerts are measured on.

use super::control::Control;
use crate::{
    config::model::KernelMode,
    observe::{
        Why,
        alert::{self, Sample},
    },
    tls,
};

/// Seconds for which it counts that something was taken from the kernel half, though it is there again.
const LATELY: u64 = 60;

impl Control {
    /// Looks at every alert, once a second. Not while another process does it.
    pub(super) fn look_at_alerts(&self) {
        if self.alerts.any() && !*self.silent.borrow() {
            self.alerts.look(self.sample(), alert::now());
        }
    }

    fn sample(&self) -> Sample {
        let snapshot = self.snapshot.load();
        let mut sample = Sample {
            at: self.started.elapsed().as_secs_f64(),
            refused: self.state().last_error.is_some(),
            routes: self.alerts.routes(),
            ..Sample::default()
        };
        for ((_, route, _), stats) in self.registry.routes().into_iter().filter(|(_, stats)| stats.asked()) {
            sample.limited += stats.shards.sum(|shard| shard.errors(Why::Limited));
            for of in [None, Some(route)] {
                if let Some(sample) = sample.routes.get_mut(&of) {
                    sample.add(&stats);
                }
            }
        }
        for (name, upstream) in &snapshot.upstreams {
            let up = upstream.members.iter().filter(|member| member.target.usable()).count();
            sample.upstreams.insert(name.clone(), (up as u32, upstream.members.len() as u32));
        }
        let now = tls::now() as f64;
        for cert in snapshot.tls.certs.values() {
            if let Some(facts) = cert.facts() {
                sample.certs.insert(cert.name.clone(), facts.not_after as f64 - now);
            }
        }
        for row in self.kernel.counters() {
            sample.kernel_drops += if row.action == "drop" { row.packets } else { 0 };
            sample.limited += if row.reason.starts_with("limit") { row.packets } else { 0 };
        }
        let kernel = &snapshot.config.kernel;
        if kernel.mode != KernelMode::Off && !kernel.interfaces.is_empty() {
            sample.off = self.kernel.status().off_lately(LATELY);
        }
        sample.maps = self.kernel.fills().iter().map(|fill| (fill.map.to_owned(), fill.share())).collect();
        sample
    }
}
