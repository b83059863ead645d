//! `[limit.NAME]`.

use serde_json::{Value, json};

use super::{share, some};
use crate::config::{
    model::{BanRule, CostOf, Limit, LimitKeyPart, Measure, Overrun, Penalty, Shared, StoreUrl, Unit},
    units::{ByteSize, show_duration},
};
use crate::limit::Target;

pub(super) fn limit(limit: &Limit) -> Value {
    let (mut target, mut priority, mut fair) = (None, None, None);
    let (mode, shed, delay) = match &limit.mode {
        Overrun::Hard => ("hard", None, None),
        Overrun::Soft { shed, delay } => ("soft", *shed, *delay),
        Overrun::Dynamic { target: kept, priority: tiers, fair: shares } => {
            target = Some(self::target(kept));
            priority = Some(json!(tiers));
            fair = Some(shares.iter().map(LimitKeyPart::to_string).collect());
            ("dynamic", None, None)
        }
    };
    let (mut rate, mut max, mut burst, mut algorithm, mut per) = (None, None, None, None, None);
    let unit = match &limit.measure {
        Measure::Connections { max: most, from } => {
            max = Some(from.map_or(json!(most), |from| json!({ "from": from, "to": most })));
            "connections"
        }
        Measure::Rate { unit, algorithm: by, quota, from, burst: at_once, per: tiers } => {
            rate = Some(from.map_or(json!(quota), |from| json!({ "from": from, "to": quota })));
            algorithm = Some(json!(by.word()));
            burst = at_once.map(|n| if *unit == Unit::Bytes { json!(ByteSize(n)) } else { json!(n) });
            per = (!tiers.is_empty()).then(|| json!(tiers));
            unit.word()
        }
    };
    let headers = [(limit.headers.ratelimit, "ratelimit"), (limit.headers.x_ratelimit, "x-ratelimit")];
    let headers: Vec<_> = headers.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    let counted =
        !matches!(limit.measure, Measure::Connections { .. } | Measure::Rate { unit: Unit::Bytes, .. });
    some([
        ("mode", Some(json!(mode))),
        ("key", Some(limit.key.iter().map(LimitKeyPart::to_string).collect())),
        ("rate", rate),
        ("max", max),
        ("burst", burst),
        ("algorithm", algorithm),
        ("unit", Some(json!(unit))),
        ("per", per),
        ("cost", counted.then(|| cost(&limit.cost))),
        ("shed", shed.map(share)),
        ("delay", delay.map(|delay| json!(show_duration(delay)))),
        ("target", target),
        ("priority", priority),
        ("fair", fair),
        ("ban", limit.ban.as_ref().map(ban)),
        ("pace", Some(json!(limit.pace))),
        ("kernel", Some(json!(limit.kernel))),
        ("shared", Some(json!(limit.shared))),
        ("dry_run", Some(json!(limit.dry_run))),
        ("headers", Some(json!(headers))),
        ("ipv4_prefix", Some(json!(limit.ipv4_prefix))),
        ("ipv6_prefix", Some(json!(limit.ipv6_prefix))),
    ])
}

fn target(target: &Target) -> Value {
    some([
        ("p99", target.p99.map(|p99| json!(show_duration(p99)))),
        ("errors", target.errors.map(share)),
        ("queue", target.queue.map(|queue| json!(queue))),
        ("cpu", target.cpu.map(share)),
    ])
}

fn place(kernel: bool) -> &'static str {
    if kernel { "kernel" } else { "http" }
}

fn ban(ban: &BanRule) -> Value {
    json!({
        "after": ban.after,
        "within": show_duration(ban.within),
        "for": show_duration(ban.duration),
        "where": place(ban.kernel),
    })
}

pub(super) fn shared(shared: &Shared) -> Value {
    let redis = match &shared.redis {
        StoreUrl::Plain(url) => json!(url),
        StoreUrl::Secret(place) => super::listener::secret(place),
    };
    some([
        ("redis", Some(redis)),
        ("ca", shared.ca.as_ref().map(|file| json!(file.to_string_lossy()))),
        ("budget", Some(json!(show_duration(shared.budget)))),
        ("on_error", Some(json!(shared.on_error.word()))),
        ("name", Some(json!(shared.name))),
    ])
}

pub(super) fn penalty(penalty: &Penalty) -> Value {
    json!({
        "threshold": penalty.threshold,
        "within": show_duration(penalty.within),
        "for": show_duration(penalty.duration),
        "where": place(penalty.kernel),
        "exempt": penalty.exempt,
        "login": penalty.login,
        "malformed": penalty.malformed,
        "slow": penalty.slow,
        "flood": penalty.flood,
    })
}

fn cost(cost: &CostOf) -> Value {
    match cost {
        CostOf::Fixed(cost) => json!(cost),
        CostOf::Method(by_method) => json!(by_method),
        CostOf::Header(name) => json!(format!("header:{name}")),
        CostOf::Json(pointer) => json!(format!("json:{pointer}")),
    }
}
