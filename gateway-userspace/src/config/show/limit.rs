//! `[limit.NAME]`.

use serde_json::{Value, json};

use super::{share, some};
use crate::config::{
    model::{CostOf, KeyPart, Limit, Measure, Overrun, Unit},
    units::{ByteSize, show_duration},
};

pub(super) fn limit(limit: &Limit) -> Value {
    let (mode, shed, delay) = match limit.mode {
        Overrun::Hard => ("hard", None, None),
        Overrun::Soft { shed, delay } => ("soft", shed, delay),
    };
    let (mut rate, mut max, mut burst, mut algorithm, mut per) = (None, None, None, None, None);
    let unit = match &limit.measure {
        Measure::Connections { max: most } => {
            max = Some(json!(most));
            "connections"
        }
        Measure::Rate { unit, algorithm: by, quota, burst: at_once, per: tiers } => {
            rate = Some(json!(quota));
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
        ("key", Some(limit.key.iter().map(KeyPart::to_string).collect())),
        ("rate", rate),
        ("max", max),
        ("burst", burst),
        ("algorithm", algorithm),
        ("unit", Some(json!(unit))),
        ("per", per),
        ("cost", counted.then(|| cost(&limit.cost))),
        ("shed", shed.map(share)),
        ("delay", delay.map(|delay| json!(show_duration(delay)))),
        ("dry_run", Some(json!(limit.dry_run))),
        ("headers", Some(json!(headers))),
        ("ipv4_prefix", Some(json!(limit.ipv4_prefix))),
        ("ipv6_prefix", Some(json!(limit.ipv6_prefix))),
    ])
}

fn cost(cost: &CostOf) -> Value {
    match cost {
        CostOf::Fixed(cost) => json!(cost),
        CostOf::Method(by_method) => json!(by_method),
        CostOf::Header(name) => json!(format!("header:{name}")),
        CostOf::Json(pointer) => json!(format!("json:{pointer}")),
    }
}
