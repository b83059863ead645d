//! What is wrong with the running gateway, in words, and what to do about it: for `gateway status`, `gateway doctor` and
//! whoever reads `GET /v1/status`.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::{
    certs::CertStatus,
    services::ServiceStatus,
    status::{Status, TargetStatus, UpstreamStatus},
    targets::OverrideStatus,
};
use crate::{
    config::model::{Config, KernelMode, OnStoreError, Steer},
    daemon::{Control, Losses},
    kernel::{Fill, KernelStatus},
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

const HALF: &str = "kernel half";
/// Certificates that expire within so many days are worth a word.
const CERT_DAYS: i64 = 14;
/// Shares of what there is from where on it is nearly used up, and used up.
const NEARLY: f64 = 0.8;
const ALMOST_ALL: f64 = 0.95;
/// For so long something that others took away from the kernel half is worth a word.
const TAKEN_SECONDS: u64 = 60;
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

    fn upstream(&mut self, name: &str, upstream: &UpstreamStatus) {
        let of = format!("upstream {name}");
        let down = |target: &TargetStatus| {
            let why = out_of(&target.state, target.overrides.as_ref(), target.check.as_deref());
            (target.addr.clone(), why)
        };
        let out: Vec<_> = upstream.targets.iter().filter(|target| target.state != "up").map(down).collect();
        self.targets("upstream", name, upstream.targets.len(), &out);
        if upstream.panic && out.len() < upstream.targets.len() {
            let what = "so few targets are healthy that all are used, the sick ones too";
            self.add(Level::Warn, of.clone(), what, "bring targets back, or raise their number");
        }
        if let Some(state) = upstream.breaker.as_deref().filter(|state| *state != "closed") {
            let what = format!("its circuit breaker is {state}: it gets no requests, or a few to try");
            self.add(
                Level::Fail,
                of.clone(),
                what,
                "look why its answers fail; it closes by itself when they are good again",
            );
        }
        for named in &upstream.names {
            let Some(error) = &named.error else { continue };
            let what = format!("{} cannot be looked up: {error}", named.name);
            let level = if named.addresses.is_empty() { Level::Fail } else { Level::Warn };
            self.add(
                level,
                of.clone(),
                what,
                "look at the name and at `gateway.resolver`; what was found before is used on",
            );
        }
    }

    fn service(&mut self, name: &str, service: &ServiceStatus) {
        let out = service.targets.iter().filter(|target| target.state != "up");
        let why = |target: &super::services::TargetStatus| {
            out_of(&target.state, target.overrides.as_ref(), target.check.as_deref())
        };
        let out: Vec<_> = out.map(|target| (target.addr.clone(), why(target))).collect();
        self.targets("service", name, service.targets.len(), &out);
    }

    /// `kind`: "upstream" or "service". `out`: those that take no part, and why.
    fn targets(&mut self, kind: &str, name: &str, number: usize, out: &[(String, Out)]) {
        let of = format!("{kind} {name}");
        let Some((addr, first)) = out.first() else {
            if number == 0 {
                self.add(Level::Fail, of, "it has no targets", "look at `to`, and at the names in it");
            }
            return;
        };
        let each: Vec<String> = out.iter().map(|(addr, out)| format!("{addr} ({})", out.why)).collect();
        let shown = match each.len() {
            0..=3 => each.join(", "),
            more => format!("{} and {} more", each[..3].join(", "), more - 3),
        };
        let (level, what) = match out.len() == number {
            true => (Level::Fail, format!("none of its {number} targets takes part: {shown}")),
            false => (Level::Warn, format!("{} of {number} targets take no part: {shown}", out.len())),
        };
        let cure = match first.by_operator {
            true => format!("`gateway target up {name}/{addr}` takes it up again"),
            false => format!(
                "see that {addr} runs and can be reached from here; `gateway {kind} show {name}` tells more"
            ),
        };
        self.add(level, of, what, cure);
    }

    fn kernel(&mut self, config: &Config, status: &KernelStatus, drift: usize) {
        let of = || HALF.to_owned();
        let asked = config.kernel.mode != KernelMode::Off && !config.kernel.interfaces.is_empty();
        let off = asked && status.interfaces.iter().all(|interface| interface.mode == "off");
        let level = if off { Level::Fail } else { Level::Warn };
        for warning in &status.warnings {
            let cure = if asked { "`gateway doctor` tells what this host offers and lacks" } else { "" };
            self.add(level, of(), warning.clone(), cure);
        }
        if asked && status.interfaces.is_empty() && status.warnings.is_empty() {
            self.add(Level::Fail, of(), "XDP is on no interface", "`gateway doctor`; a restart tries anew");
        }
        if let Some(why) =
            status.steering.reason.as_ref().filter(|_| config.kernel.steer != Steer::Off && asked)
        {
            let what = format!("connections are not steered to workers by their source: {why}");
            self.add(
                Level::Warn,
                of(),
                what,
                "`gateway doctor`; the kernel spreads them over workers meanwhile",
            );
        }
        if drift > 0 {
            let what = format!("{drift} entries of the kernel's maps are not as the config says");
            self.add(Level::Fail, of(), what, "`gateway kernel verify` tells which, and puts them right");
        }
        for taken in status.taken.iter().filter(|taken| taken.seconds_ago < TAKEN_SECONDS) {
            let what = format!(
                "{} was taken away from outside {} seconds ago ({} times since the start), and put back",
                taken.what, taken.seconds_ago, taken.times
            );
            let cure = "look who does it (`bpftool link detach`, `ip link`, another XDP program, `rm` in the bpffs); to take \
                        gateway off an interface, leave it out of `kernel.interfaces`";
            self.add(Level::Fail, of(), what, cure);
        }
        if status.syn.attack {
            let what = "a SYN flood is under way: new connections have to prove themselves";
            self.add(
                Level::Warn,
                of(),
                what,
                "`gateway kernel sources` and `gateway top` (page 4) tell where it comes from",
            );
        }
    }

    fn fill(&mut self, fill: &Fill) {
        let (Fill { map, entries, capacity }, share) = (fill, fill.share());
        if share < NEARLY {
            return;
        }
        let level = if share >= ALMOST_ALL { Level::Fail } else { Level::Warn };
        let what = format!("{map} is {:.0}% full: {entries} of {capacity} entries", share * 100.0);
        let cure = match *map {
            "BANS" => {
                "lift bans (`gateway ban list`), or ban prefixes in place of single sources: a full table takes no more"
            }
            "ACCESS_V4" | "ACCESS_V6" => "merge prefixes of `kernel.block` into larger ones",
            _ => "use fewer listeners, or fewer workers",
        };
        self.add(level, HALF.into(), what, cure);
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

/// Why a target takes no part.
struct Out {
    why: String,
    by_operator: bool,
}

fn out_of(state: &str, overrides: Option<&OverrideStatus>, check: Option<&str>) -> Out {
    match overrides.and_then(|said| said.state.as_ref()) {
        Some(said) => Out { why: format!("{} by {}", said.value, said.by), by_operator: true },
        None if state == "down" => Out { why: check.unwrap_or("down").to_owned(), by_operator: false },
        None if state == "ejected" => Out { why: "ejected: its answers failed".into(), by_operator: false },
        None => Out { why: state.to_owned(), by_operator: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Facts;

    fn found(say: impl FnOnce(&mut Found)) -> Vec<Trouble> {
        let mut found = Found::default();
        say(&mut found);
        found.0
    }

    fn one(say: impl FnOnce(&mut Found)) -> (Level, String) {
        let all = found(say);
        let [trouble] = &all[..] else { panic!("{all:?}") };
        assert!(!trouble.cure.is_empty(), "{trouble:?}");
        (trouble.level, format!("{}: {}", trouble.of, trouble.what))
    }

    fn out(addr: &str, by_operator: bool) -> (String, Out) {
        (addr.to_owned(), Out { why: "refused".into(), by_operator })
    }

    #[test]
    fn targets_that_take_no_part_are_told_and_who_can_bring_them_back() {
        let all = [out("a:1", true), out("a:2", false), out("a:3", false), out("a:4", false)];
        assert!(found(|f| f.targets("upstream", "app", 4, &[])).is_empty());
        assert_eq!(
            one(|f| f.targets("upstream", "app", 5, &all)),
            (
                Level::Warn,
                "upstream app: 4 of 5 targets take no part: a:1 (refused), a:2 (refused), a:3 (refused) and 1 more".into()
            )
        );
        assert_eq!(one(|f| f.targets("upstream", "app", 4, &all)).0, Level::Fail);
        assert_eq!(one(|f| f.targets("upstream", "app", 0, &[])).0, Level::Fail);
        let cures = |all: &[_]| found(|f| f.targets("service", "db", 9, all)).remove(0).cure;
        assert_eq!(cures(&all), "`gateway target up db/a:1` takes it up again");
        assert!(cures(&all[1..]).contains("gateway service show db"));
    }

    #[test]
    fn certificates_are_told_of_before_they_expire() {
        let cert = |days: i64, state: &str| CertStatus {
            facts: Facts { not_after: days * 86_400 + 60, ..Facts::default() },
            state: state.into(),
            expires: "then".into(),
            chain: "/etc/own.pem".into(),
            key: String::new(),
            listeners: Vec::new(),
            error: None,
        };
        assert!(found(|f| f.cert("own", &cert(14, "valid"), 0)).is_empty());
        assert_eq!(
            one(|f| f.cert("own", &cert(13, "valid"), 0)),
            (Level::Warn, "cert own: it expires in 13 days, on then".into())
        );
        assert_eq!(one(|f| f.cert("own", &cert(-1, "expired"), 0)).0, Level::Fail);
        assert_eq!(one(|f| f.cert("acme:a", &cert(0, "awaited"), 0)).0, Level::Fail);
        let bad = CertStatus { error: Some("no key".into()), ..cert(99, "valid") };
        assert_eq!(
            one(|f| f.cert("own", &bad, 0)),
            (Level::Warn, "cert own: what is there now is not used: no key".into())
        );
    }

    #[test]
    fn what_is_nearly_used_up_is_told() {
        let bans = |entries| Fill { map: "BANS", entries, capacity: 100 };
        for (entries, level) in [(80, Level::Warn), (95, Level::Fail)] {
            let told = one(|f| f.fill(&bans(entries)));
            assert_eq!(
                told,
                (level, format!("kernel half: BANS is {entries}% full: {entries} of 100 entries"))
            );
        }
        assert!(found(|f| f.fill(&bans(79))).is_empty());
        assert!(found(|f| f.descriptors(79, 100)).is_empty());
        assert_eq!(one(|f| f.descriptors(80, 100)).1, "descriptors: 80 of 100 file descriptors are open");
    }

    #[test]
    fn busy_workers_are_told_and_whether_it_is_all_of_them() {
        assert!(found(|f| f.workers(&[0.89, 0.0])).is_empty() && found(|f| f.workers(&[])).is_empty());
        assert_eq!(
            one(|f| f.workers(&[0.2, 0.97])).1,
            "workers: 1 of 2 workers are busy, worker 1 97% of the last ten seconds"
        );
        assert!(one(|f| f.workers(&[0.95, 0.97])).1.contains("all 2 workers"));
    }

    #[test]
    fn what_was_lost_lately_is_told_by_what_lost_it() {
        let lost = Losses {
            lines_dropped: 1,
            lines_failed: 2,
            spans: 3,
            overflowed: [("web".to_owned(), 4)].into(),
            over_limit: [("service/db".to_owned(), 5)].into(),
        };
        assert!(found(|f| f.lost(&Losses::default())).is_empty());
        let told: Vec<_> = found(|f| f.lost(&lost)).into_iter().map(|trouble| trouble.of).collect();
        assert_eq!(told, ["access log", "access log", "tracing", "listener web", "service db"]);
    }
}
