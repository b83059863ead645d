//! What is wrong with the running gateway, in words, and what to do about it: for `gateway status`, `gateway doctor` and
//! whoever reads `GET /v1/status`.

mod kernel;
mod targets;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::{certs::CertStatus, status::Status};
use crate::{
    config::model::OnStoreError,
    daemon::{Control, Losses},
    observe::process,
    tls,
};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub level: Level,
    /// "upstream items", "kernel", "cert own" …
    pub of: String,
    pub what: String,
    /// What an operator can do.
    pub cure: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody is not served, or something is not done.
    Fail,
    Warn,
}

/// Certificates that expire within so many days are worth a word.
const CERT_DAYS: i64 = 14;
/// The share of what there is from where on it is nearly used up.
const NEARLY: f64 = 0.8;
/// The share of the time from where on a worker has no time left.
const BUSY: f64 = 0.9;

/// The worst first. `status`: all but its troubles.
pub fn troubles(control: &Control, status: &Status) -> Vec<Trouble> {
    let snapshot = control.snapshot.load();
    let mut all = Found::default();
    all.config(status);
    all.alerts(&status.alerts);
    status.upstreams.iter().for_each(|(name, upstream)| all.upstream(name, upstream));
    status.services.iter().for_each(|(name, service)| all.service(name, service));
    if let Some(why) = &status.services_off {
        let cure =
            "give the kernel half what it needs (`gateway doctor`), or set `path = \"splice\"` for them";
        all.add(Level::Fail, "services".into(), format!("services are not served: {why}"), cure);
    }
    all.kernel(&snapshot.config, &control.kernel.status(), control.kernel.drift());
    control.kernel.fills().iter().for_each(|fill| all.fill(fill));
    status.certs.iter().for_each(|(name, cert)| all.cert(name, cert, tls::now()));
    all.lost(&control.losses_lately());
    all.workers(&control.workers.busy_ratios());
    let process::Usage { open_fds, max_fds, .. } = process::usage();
    all.descriptors(open_fds, max_fds);
    if snapshot.config.shared.is_some() && !snapshot.limit_store.shared.up.load(Relaxed) {
        let what = match snapshot.limit_store.shared.on_error() {
            OnStoreError::Local => "the store that gateways share does not answer: each limits by itself",
            OnStoreError::Pass => {
                "the store that gateways share does not answer: its limits let everything in"
            }
            OnStoreError::Refuse => {
                "the store that gateways share does not answer: its limits refuse everything"
            }
        };
        all.add(
            Level::Warn,
            "shared".into(),
            what,
            "look at the Redis that `[shared]` names; it is taken up again by itself",
        );
    }
    let mut all = all.0;
    all.sort_by_key(|trouble| trouble.level);
    all
}

#[derive(Default)]
struct Found(Vec<Trouble>);

impl Found {
    fn add(&mut self, level: Level, of: String, what: impl Into<String>, cure: impl Into<String>) {
        self.0.push(Trouble { level, of, what: what.into(), cure: cure.into() });
    }

    fn config(&mut self, status: &Status) {
        if status.state != "running" {
            let what = "it is draining: it takes no new connections";
            self.add(
                Level::Warn,
                "gateway".into(),
                what,
                "nothing, if it is to stop; else look who sent it SIGTERM",
            );
        }
        let Some(error) = &status.last_error else { return };
        let what = format!("the last reload failed, an older config is running:\n{error}");
        let file = status.config.as_deref().unwrap_or("the config");
        let cure = format!("correct {file} (`gateway check` tells all problems), then `gateway reload`");
        self.add(Level::Fail, "config".into(), what, cure);
    }

    fn alerts(&mut self, firing: &BTreeMap<String, String>) {
        for (alert, text) in firing {
            let cure = format!(
                "`gateway alert list`; `gateway alert silence {alert} --for 1h` while it is looked at"
            );
            self.add(Level::Fail, format!("alert {alert}"), text.clone(), cure);
        }
    }

    fn cert(&mut self, name: &str, cert: &CertStatus, now: i64) {
        let of = format!("cert {name}");
        let acme = name.starts_with("acme:");
        let renew = match acme {
            true => format!(
                "`gateway cert renew {name}` tries at once; port 80 or 443 of its names has to lead here"
            ),
            false => format!("put a new one into {}: it is taken up by itself", cert.chain),
        };
        if let Some(error) = &cert.error {
            let cure = if acme { renew.clone() } else { format!("correct {} and its key", cert.chain) };
            self.add(Level::Warn, of.clone(), format!("what is there now is not used: {error}"), cure);
        }
        let left = cert.facts.not_after - now;
        match cert.state.as_str() {
            "expired" => self.add(Level::Fail, of, format!("it expired on {}", cert.expires), renew),
            "not yet valid" => {
                self.add(
                    Level::Fail,
                    of,
                    "it is not valid yet",
                    "look at this host's clock, or use another one",
                );
            }
            "awaited" => self.add(Level::Fail, of, "the authority has not issued it yet", renew),
            _ if left < CERT_DAYS * 86_400 => {
                let what = format!("it expires in {} days, on {}", left / 86_400, cert.expires);
                self.add(Level::Warn, of, what, renew);
            }
            _ => {}
        }
    }

    /// Within the last minute.
    fn lost(&mut self, lost: &Losses) {
        let of = || "access log".to_owned();
        if lost.lines_dropped > 0 {
            let what = format!(
                "{} lines were dropped within a minute: they are written too slowly",
                lost.lines_dropped
            );
            self.add(Level::Warn, of(), what, "a faster disk or reader, or fewer lines: `access_log.keep`");
        }
        if lost.lines_failed > 0 {
            let what = format!("{} lines could not be written within a minute", lost.lines_failed);
            self.add(
                Level::Warn,
                of(),
                what,
                "see that the disk is not full, and that who reads them is there",
            );
        }
        if lost.spans > 0 {
            let what = format!("{} spans did not reach the collector within a minute", lost.spans);
            self.add(
                Level::Warn,
                "tracing".into(),
                what,
                "see that the collector of `[tracing]` runs, or lower `share`",
            );
        }
        for (name, n) in &lost.overflowed {
            let what = format!("{n} connections were dropped within a minute: its accept queue was full");
            let cure = "more workers or CPUs; `sysctl net.core.somaxconn` caps the queue; `kernel.limit.new` keeps floods away";
            self.add(Level::Fail, listener(name), what, cure);
        }
        for (name, n) in &lost.over_limit {
            let what =
                format!("{n} connections were turned away within a minute: there are as many as may be");
            self.add(
                Level::Fail,
                listener(name),
                what,
                "raise `max.connections`, or cap sources: `max.connections_per_source`",
            );
        }
    }

    fn workers(&mut self, busy: &[f64]) {
        let full: Vec<(usize, f64)> =
            busy.iter().copied().enumerate().filter(|(_, share)| *share >= BUSY).collect();
        let Some((worst, share)) = full.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        let all = full.len() == busy.len();
        let what = match all {
            true => format!(
                "all {} workers are busy, worker {worst} {:.0}% of the last ten seconds",
                busy.len(),
                share * 100.0
            ),
            false => format!(
                "{} of {} workers are busy, worker {worst} {:.0}% of the last ten seconds",
                full.len(),
                busy.len(),
                share * 100.0
            ),
        };
        let cure = match all {
            true => "more CPUs and `gateway.workers`, or less to do: `gateway top` tells for whom",
            false => {
                "few sources make most of the load: `gateway top`; `kernel.steer = \"off\"` spreads connections otherwise"
            }
        };
        self.add(Level::Warn, "workers".into(), what, cure);
    }

    fn descriptors(&mut self, open: u64, most: u64) {
        if most > 0 && open as f64 >= most as f64 * NEARLY {
            let what = format!("{open} of {most} file descriptors are open");
            self.add(
                Level::Fail,
                "descriptors".into(),
                what,
                "LimitNOFILE=1048576 in the unit, or ulimit -Hn; a connection takes two",
            );
        }
    }
}

/// As the registry of counters names it.
fn listener(name: &str) -> String {
    match name.strip_prefix("service/") {
        Some(service) => format!("service {service}"),
        None => format!("listener {name}"),
    }
}
