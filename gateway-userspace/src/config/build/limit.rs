//! `[limit.NAME]`, and `limit` of routes.

use std::{collections::BTreeMap, time::Duration};

use super::distinct;
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean},
    model::{
        Algorithm, BanRule, Bucket, CostOf, Headers, KernelLimit, Limit, LimitKeyPart, Measure, OnStoreError,
        Overrun, Penalty, Shared, StoreUrl, Unit,
    },
    node::{Fields, FromValue, Value},
    units::{Percent, Quota, Rate, quote},
};
use crate::limit::Target;

pub(super) fn limits(root: &Fields, problems: &mut Problems) -> BTreeMap<String, Limit> {
    let tables = root.named("limit").iter();
    tables.filter_map(|(name, fields)| Some((name.clone(), limit(name, fields, problems)?))).collect()
}

fn limit(name: &str, fields: &Fields, problems: &mut Problems) -> Option<Limit> {
    let key: Vec<String> = fields.or_default("key");
    let key = key.iter().filter_map(|part| LimitKeyPart::parse(part).ok()).collect();
    let headers: Vec<&'static str> = fields.or_default("headers");
    let unit: &'static str = fields.or_default("unit");
    let mode = mode(name, fields, problems);
    let measure = measure(name, unit, fields, problems)?;
    let pace = pace(name, unit, fields, problems);
    let shared = shares(name, (&mode, &measure, pace), fields, problems);
    Some(Limit {
        mode,
        key: distinct(fields, "key", key, problems, |part: &LimitKeyPart| format!("\"{part}\"")),
        cost: cost(name, unit, fields, problems),
        measure,
        pace,
        kernel: fields.or_default("kernel"),
        shared,
        dry_run: fields.or_default("dry_run"),
        ban: ban(fields),
        headers: Headers {
            ratelimit: headers.contains(&"ratelimit"),
            x_ratelimit: headers.contains(&"x-ratelimit"),
        },
        ipv4_prefix: fields.or_default("ipv4_prefix"),
        ipv6_prefix: fields.or_default("ipv6_prefix"),
    })
}

fn conflict(fields: &Fields, key: &str, message: String, hint: &str, problems: &mut Problems) {
    let problem = Problem::new(ProblemKind::Conflict, &fields.place(key), message);
    problems.push(problem.hint(hint.to_owned()));
}

fn mode(name: &str, fields: &Fields, problems: &mut Problems) -> Overrun {
    let word = fields.or_default::<&'static str>("mode");
    let soft = word == "soft";
    if word == "dynamic" {
        return dynamic(name, fields, problems);
    }
    for key in ["target", "priority", "fair"] {
        if !fields.broken && fields.node(key).is_some() {
            let message = format!("`limit.{name}.{key}` only works with mode = \"dynamic\"");
            conflict(fields, key, message, "write mode = \"dynamic\", or drop it", problems);
        }
    }
    let shed = fields.get::<Percent>("shed").map(|Percent(share)| share);
    if let Some(share) = shed.filter(|share| *share < 1.0) {
        let message = format!("`limit.{name}.shed` is {}, less than the rate itself", Percent(share));
        let hint = "it is a share of the rate, at least \"100%\"";
        conflict(fields, "shed", message, hint, problems);
    }
    for key in ["shed", "delay"] {
        if !soft && !fields.broken && fields.node(key).is_some() {
            let message = format!("`limit.{name}.{key}` only works with mode = \"soft\"");
            conflict(fields, key, message, "write mode = \"soft\", or drop it", problems);
        }
    }
    let delay = fields.get("delay");
    let window = fields.or_default::<&'static str>("algorithm") != "token-bucket";
    if soft && delay.is_some() && window {
        let message = format!("`limit.{name}.delay` only works with token buckets");
        conflict(fields, "delay", message, "drop `algorithm`", problems);
    }
    if soft { Overrun::Soft { shed, delay } } else { Overrun::Hard }
}

fn dynamic(name: &str, fields: &Fields, problems: &mut Problems) -> Overrun {
    for key in ["shed", "delay"] {
        if !fields.broken && fields.node(key).is_some() {
            let message = format!("`limit.{name}.{key}` only works with mode = \"soft\"");
            conflict(fields, key, message, "drop it", problems);
        }
    }
    if fields.or_default::<&'static str>("algorithm") != "token-bucket" {
        let message = format!("`limit.{name}`: a dynamic limit is a token bucket");
        conflict(fields, "algorithm", message, "drop `algorithm`", problems);
    }
    let is_range = |key| matches!(fields.node(key).map(|node| &node.value), Some(Value::Table(_)));
    if !is_range("rate") && !is_range("max") && !fields.broken {
        let message = format!("`limit.{name}` is dynamic: between what does it move?");
        let key = if fields.node("max").is_some() { "max" } else { "rate" };
        conflict(fields, key, message, "write rate = { from = \"200/s\", to = \"5000/s\" }", problems);
    }
    let of = fields.table("target");
    let share = |key| of.get::<Percent>(key).map(|Percent(share)| share);
    let target =
        Target { p99: of.get("p99"), errors: share("errors"), queue: of.get("queue"), cpu: share("cpu") };
    if target == Target::default() && !fields.broken {
        let message = format!("`limit.{name}.target` says nothing that is to be kept");
        let hint = "for example: target = { p99 = \"250ms\", errors = \"2%\" }";
        conflict(fields, "target", message, hint, problems);
    }
    let fair = fair(name, fields, problems);
    Overrun::Dynamic { target, priority: fields.or_default("priority"), fair }
}

/// Who shares a dynamic limit evenly.
fn fair(name: &str, fields: &Fields, problems: &mut Problems) -> Vec<LimitKeyPart> {
    let each = fields.get::<Vec<String>>("key").is_some_and(|key| !key.is_empty());
    let late = matches!(fields.or_default("unit"), "bytes" | "tokens");
    let parts = fields.get::<Vec<String>>("fair");
    if (each || late) && parts.as_ref().is_some_and(|parts| !parts.is_empty()) && !fields.broken {
        let message = match each {
            true => format!("`limit.{name}.fair`: with a `key` there is nothing to share"),
            false => format!("`limit.{name}.fair` only works with requests"),
        };
        conflict(fields, "fair", message, "leave it out", problems);
    }
    match parts {
        Some(parts) => {
            let parts = parts.iter().filter_map(|part| LimitKeyPart::parse(part).ok()).collect();
            distinct(fields, "fair", parts, problems, |part: &LimitKeyPart| format!("\"{part}\""))
        }
        None if each || late => Vec::new(),
        None => vec![LimitKeyPart::Consumer],
    }
}

fn ban(fields: &Fields) -> Option<BanRule> {
    fields.node("ban")?;
    let ban = fields.table("ban");
    Some(BanRule {
        after: ban.get("after")?,
        within: ban.or_default("within"),
        duration: ban.or_default("for"),
        kernel: ban.or_default::<&'static str>("where") == "kernel",
    })
}

fn pace(name: &str, unit: &str, fields: &Fields, problems: &mut Problems) -> bool {
    let pace = fields.or_default("pace");
    let plain = fields.or_default::<&'static str>("mode") == "hard"
        && fields.or_default::<&'static str>("algorithm") == "token-bucket"
        && fields.node("ban").is_none();
    if pace && (unit != "bytes" || !plain) && !fields.broken {
        let message = format!("`limit.{name}.pace` only works with hard token buckets of bytes");
        conflict(
            fields,
            "pace",
            message,
            "write unit = \"bytes\", and no `mode`, `algorithm` or `ban`",
            problems,
        );
    }
    pace
}

/// Whether it holds over several gateways; requests at once do not, nor does what follows a gateway's own load.
fn shares(
    name: &str,
    (mode, measure, pace): (&Overrun, &Measure, bool),
    fields: &Fields,
    problems: &mut Problems,
) -> bool {
    let own = match (measure, mode) {
        (_, Overrun::Dynamic { .. }) => "a dynamic limit follows what its own gateway sees",
        (Measure::Connections { .. }, _) => "requests at once are each gateway's own",
        _ if pace => "what is sent waits for its turn at its own gateway",
        _ => return fields.or_default("shared"),
    };
    if fields.get::<bool>("shared") == Some(true) {
        let hint = "leave it out: every gateway has as much for itself";
        conflict(fields, "shared", format!("`limit.{name}.shared`: {own}"), hint, problems);
    }
    false
}

/// A limit that holds for connections in the kernel half too says what `kernel.limit.new` is.
pub(super) fn in_kernel(
    limits: &BTreeMap<String, Limit>,
    kernel: &mut KernelLimit,
    root: &Fields,
    problems: &mut Problems,
) {
    let declared = root.named("limit");
    for (at, (name, limit)) in limits.iter().filter(|(_, limit)| limit.kernel).enumerate() {
        let Some(fields) = declared.get(name) else { continue };
        let mut wrong = |message: String, hint: &str| conflict(fields, "kernel", message, hint, problems);
        let Some(bucket) = connections(limit, kernel.ipv6_prefix) else {
            let hint = "it is hard, by \"ip\" (`ipv4_prefix` 32, `ipv6_prefix` as in kernel.limit), of requests a second, each of cost 1";
            wrong(format!("`limit.{name}.kernel`: the kernel half cannot hold such a limit"), hint);
            continue;
        };
        match kernel.new {
            _ if at > 0 => {
                wrong(format!("`limit.{name}.kernel`: another limit has it already"), "only one can");
            }
            Some(new) if new != bucket => {
                let message = format!("`limit.{name}.kernel`: `kernel.limit.new` says something else");
                wrong(message, "leave `kernel.limit.new` out");
            }
            _ => kernel.new = Some(bucket),
        }
    }
}

fn connections(limit: &Limit, ipv6_prefix: u8) -> Option<Bucket> {
    let by_client =
        limit.key == [LimitKeyPart::Ip] && (limit.ipv4_prefix, limit.ipv6_prefix) == (32, ipv6_prefix);
    let plain = limit.mode == Overrun::Hard && !limit.dry_run && limit.cost == CostOf::Fixed(1);
    match &limit.measure {
        Measure::Rate { unit: Unit::Requests, algorithm: Algorithm::TokenBucket, quota, burst, .. }
            if by_client && plain && quota.span.duration() == Duration::from_secs(1) =>
        {
            let rate = Rate { per_second: quota.amount as f64 };
            Some(Bucket { rate, burst: burst.unwrap_or(quota.amount).max(1) })
        }
        _ => None,
    }
}

pub(super) fn shared(root: &Fields, problems: &mut Problems) -> Option<Shared> {
    root.node("shared")?;
    let fields = root.table("shared");
    let redis = match &fields.node("redis")?.value {
        Value::Text(url) => StoreUrl::Plain(url.clone()),
        Value::Table(place) => StoreUrl::Secret(super::tls::secret("shared.redis", place, problems)?),
        _ => return None,
    };
    let ca = fields.node("ca").map(|_| super::file(&fields, "ca"));
    if ca.is_some() && matches!(&redis, StoreUrl::Plain(url) if !url.starts_with("rediss://")) {
        let message = "`shared.ca` only works with TLS".to_owned();
        conflict(&fields, "ca", message, "write redis = \"rediss://HOST:PORT\", or drop it", problems);
    }
    let word = fields.or_default::<&'static str>("on_error");
    let on_error = OnStoreError::ALL.into_iter().find(|one| one.word() == word).unwrap_or_default();
    Some(Shared { redis, ca, budget: fields.or_default("budget"), on_error, name: fields.or_default("name") })
}

pub(super) fn penalty(root: &Fields) -> Option<Penalty> {
    root.node("penalty")?;
    let fields = root.table("penalty");
    Some(Penalty {
        threshold: fields.or_default("threshold"),
        within: fields.or_default("within"),
        duration: fields.or_default("for"),
        kernel: fields.or_default::<&'static str>("where") == "kernel",
        exempt: fields.or_default("exempt"),
        login: fields.or_default("login"),
        malformed: fields.or_default("malformed"),
        slow: fields.or_default("slow"),
        flood: fields.or_default("flood"),
    })
}

/// A number or a quota, or both ends of a range: the upper end, and the lower one.
fn range<T: FromValue + Copy>(fields: &Fields, key: &str) -> Option<(T, Option<T>)> {
    match &fields.node(key)?.value {
        Value::Table(range) => Some((range.get("to")?, Some(range.get("from")?))),
        _ => Some((fields.get(key)?, None)),
    }
}

/// Ranges are for dynamic limits, and go upwards.
fn check_range(name: &str, key: &str, fields: &Fields, upwards: Option<bool>, problems: &mut Problems) {
    let dynamic = fields.or_default::<&'static str>("mode") == "dynamic";
    if upwards.is_some() && !dynamic && !fields.broken {
        let message = format!("`limit.{name}.{key}`: only a dynamic limit moves");
        conflict(fields, key, message, "write mode = \"dynamic\", or one rate", problems);
    }
    if upwards == Some(false) {
        let message = format!("`limit.{name}.{key}`: `from` is more than `to`");
        conflict(fields, key, message, "`from` is the least, `to` the most", problems);
    }
}

fn measure(name: &str, unit: &str, fields: &Fields, problems: &mut Problems) -> Option<Measure> {
    if unit == "connections" {
        for key in ["rate", "burst", "per", "cost", "algorithm", "shed", "delay"] {
            if !fields.broken && fields.node(key).is_some() {
                let message = format!("`limit.{name}.{key}` does not go with unit = \"connections\"");
                conflict(fields, key, message, "how many there may be at once says `max`", problems);
            }
        }
        if fields.node("max").is_none() && !fields.broken {
            let message = format!("`limit.{name}.max` is missing");
            conflict(fields, "unit", message, "for example: max = 200", problems);
        }
        let (max, from) = range::<u32>(fields, "max")?;
        check_range(name, "max", fields, from.map(|from| from <= max), problems);
        return Some(Measure::Connections { max, from });
    }
    if !fields.broken && fields.node("max").is_some() {
        let message = format!("`limit.{name}.max` only works with unit = \"connections\"");
        conflict(fields, "max", message, "write a `rate`", problems);
    }
    let algorithm = match fields.or_default("algorithm") {
        "sliding-window" => Algorithm::SlidingWindow,
        "fixed-window" => Algorithm::FixedWindow,
        _ => Algorithm::TokenBucket,
    };
    let unit = match unit {
        "bytes" => Unit::Bytes,
        "tokens" => Unit::Tokens,
        _ => Unit::Requests,
    };
    let burst = fields.node("burst").map(|node| match node.value {
        Value::Int(amount) => amount,
        Value::Size(size) => size.0,
        _ => 1,
    });
    if burst.is_some() && algorithm != Algorithm::TokenBucket && !fields.broken {
        let message = format!("`limit.{name}.burst` only works with token buckets");
        conflict(fields, "burst", message, "a window's rate is all that passes in it", problems);
    }
    let (quota, from) = range::<Quota>(fields, "rate")?;
    let upwards = from.map(|from| from.per_second() <= quota.per_second());
    check_range(name, "rate", fields, upwards, problems);
    let per: BTreeMap<String, Quota> = fields
        .map("per")
        .into_iter()
        .filter_map(|(tier, node)| match node.value {
            Value::Quota(quota) => Some((tier, quota)),
            _ => None,
        })
        .collect();
    for quota in per.values().chain([&quota]).chain(&from) {
        if quota.bytes != (unit == Unit::Bytes) && !fields.broken {
            let message = format!("`limit.{name}`: {quota} is not a rate of {}", unit.word());
            let hint = match unit {
                Unit::Bytes => "with unit = \"bytes\" it is written \"10MiB/s\"",
                _ => "a rate of bytes goes with unit = \"bytes\"",
            };
            conflict(fields, "rate", message, hint, problems);
        }
    }
    Some(Measure::Rate { unit, algorithm, quota, from, burst, per })
}

fn cost(name: &str, unit: &str, fields: &Fields, problems: &mut Problems) -> CostOf {
    let cost = match fields.node("cost").map(|node| &node.value) {
        Some(Value::Int(cost)) => CostOf::Fixed(*cost),
        Some(Value::Map(by_method)) => CostOf::Method(
            by_method
                .iter()
                .map(|(method, node)| match node.value {
                    Value::Int(cost) => (method.clone(), cost),
                    _ => (method.clone(), 1),
                })
                .collect(),
        ),
        Some(Value::Text(text)) => CostOf::parse(text).unwrap_or(CostOf::Fixed(1)),
        _ if unit == "tokens" => CostOf::Json("/usage/total_tokens".into()),
        _ => CostOf::Fixed(1),
    };
    if unit == "bytes" && fields.node("cost").is_some() && !fields.broken {
        let message = format!("`limit.{name}.cost` does not go with unit = \"bytes\"");
        conflict(fields, "cost", message, "a byte costs one", problems);
    }
    cost
}

/// `limit` of a route: the names of limits that are there.
pub(super) fn of_route(
    fields: &Fields,
    defined: &BTreeMap<String, Fields>,
    problems: &mut Problems,
) -> Vec<String> {
    let Some(Value::List(nodes)) = fields.node("limit").map(|node| &node.value) else { return Vec::new() };
    let names: Vec<String> = fields.get("limit").unwrap_or_default();
    for (name, node) in names.iter().zip(nodes) {
        if !defined.contains_key(name) {
            let hint = did_you_mean(name, defined.keys().map(String::as_str), quote)
                .unwrap_or_else(|| format!("add [limit.{name}] with rate = \"100/s\""));
            let message = format!("limit {} is not defined", quote(name));
            problems.push(Problem::new(ProblemKind::Undefined, &node.at, message).hint(hint));
        }
    }
    distinct(fields, "limit", names, problems, |name| format!("limit \"{name}\""))
}
