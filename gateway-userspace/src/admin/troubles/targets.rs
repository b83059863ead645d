//! What is wrong with upstreams and services.

use super::{Found, Level};
use crate::admin::{
    services::{self, ServiceStatus},
    status::{TargetStatus, UpstreamStatus},
    targets::OverrideStatus,
};

impl Found {
    pub(super) fn upstream(&mut self, name: &str, upstream: &UpstreamStatus) {
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

    pub(super) fn service(&mut self, name: &str, service: &ServiceStatus) {
        let out = service.targets.iter().filter(|target| target.state != "up");
        let why = |target: &services::TargetStatus| {
            out_of(&target.state, target.overrides.as_ref(), target.check.as_deref())
        };
        let out: Vec<_> = out.map(|target| (target.addr.clone(), why(target))).collect();
        self.targets("service", name, service.targets.len(), &out);
    }

    /// `kind`: "upstream" or "service". `out`: those that take no part, and why.
    pub(super) fn targets(&mut self, kind: &str, name: &str, number: usize, out: &[(String, Out)]) {
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
}

/// Why a target takes no part.
pub(super) struct Out {
    pub(super) why: String,
    pub(super) by_operator: bool,
}

fn out_of(state: &str, overrides: Option<&OverrideStatus>, check: Option<&str>) -> Out {
    match overrides.and_then(|said| said.state.as_ref()) {
        Some(said) => Out { why: format!("{} by {}", said.value, said.by), by_operator: true },
        None if state == "down" => Out { why: check.unwrap_or("down").to_owned(), by_operator: false },
        None if state == "ejected" => Out { why: "ejected: its answers failed".into(), by_operator: false },
        None => Out { why: state.to_owned(), by_operator: false },
    }
}
