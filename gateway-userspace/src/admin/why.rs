//! `GET /v1/why/{id}`: what became of a request, by its id or its trace's; of an address, what both halves hold against it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::{
    config::units::Prefix,
    daemon::Control,
    observe::{Why, events, stats::Decided},
};

/// Lines of an address that are shown.
const LINES: usize = 20;

pub async fn why(
    State(control): State<Arc<Control>>,
    Path(of): Path<String>,
) -> Result<Json<Value>, Problem> {
    if let Ok(address) = of.parse::<IpAddr>() {
        return Ok(Json(of_address(&control, address)));
    }
    // As ids are made; nothing else is looked for.
    let digits = |more: &[u8]| of.bytes().all(|b| b.is_ascii_hexdigit() || more.contains(&b));
    let key = match of.len() {
        36 if digits(b"-") => "id",
        32 if digits(b"") => "trace",
        _ => {
            let what = "it is neither a request's id (x-request-id), nor a trace's, nor an address";
            return Err(Problem::bad_request(what));
        }
    };
    let line = control.access_log.notable.find(key, &of.to_ascii_lowercase());
    let line: Option<Value> = line.and_then(|line| serde_json::from_str(&line).ok());
    let Some(line) = line else {
        let what = "request that was refused, failed or was slow, and is remembered, with the id";
        return Err(Problem::not_found(what, &of));
    };
    let mut reasons = reasons(&line);
    reasons.extend(line["limit"].as_str().and_then(|said| of_limit(&control, said)));
    Ok(Json(json!({ "half": "l7", "reasons": reasons, "request": line })))
}

/// What a limit has counted. `said`: of it in the log, NAME or NAME/what.
fn of_limit(control: &Control, said: &str) -> Option<String> {
    let name = said.split('/').next()?;
    let snapshot = control.snapshot.load();
    let limit = snapshot.limits.get(name)?;
    let decided = |what| limit.stats.shards.sum(|shard| shard.decisions(what));
    let (let_in, refused) = (decided(Decided::Allow), decided(Decided::Deny) + decided(Decided::Ban));
    Some(format!("limit {name} has let {let_in} requests in so far, and refused {refused}"))
}

/// In words, the most important first.
fn reasons(line: &Value) -> Vec<String> {
    let of = |key: &str| line[key].as_str();
    let mut all = Vec::new();
    if let Some(why) = of("why") {
        let known = Why::ALL.iter().find(|known| known.name() == why);
        all.push(format!("{why}: {}", known.map_or("", |known| known.title())));
    }
    match (of("why"), of("target"), line["status"].as_u64()) {
        (None, Some(target), Some(status)) if status >= 400 => {
            all.push(format!(
                "target {target} of upstream {} answered {status}",
                of("upstream").unwrap_or("-")
            ));
        }
        (Some(_), Some(target), _) => all.push(format!("the last target that was tried is {target}")),
        _ => {}
    }
    if let Some(limit) = of("limit") {
        all.push(format!("limit {limit}: see `gateway limit show`"));
    }
    let ms = |key: &str| line[key].as_f64().map(|us| us / 1000.0);
    let times: Vec<String> = [
        ("waited for a target with room", ms("us_queue")),
        ("connected", ms("us_connect")),
        ("had the answer's first byte after", ms("us_first_byte")),
        ("was busy itself", ms("us_self")),
    ]
    .into_iter()
    .filter_map(|(what, ms)| Some(format!("{what} {:.1} ms", ms?)))
    .collect();
    if let Some(handshake) = ms("us_tls") {
        all.push(format!("before it, the TLS handshake of its connection took {handshake:.1} ms"));
    }
    if let Some(total) = ms("us") {
        all.push(format!("it took {total:.1} ms: the gateway {}", times.join(", ")));
    }
    if let Some(route) = of("route") {
        all.push(format!("route {route}: see `gateway route show {route}`"));
    }
    all
}

fn of_address(control: &Control, address: IpAddr) -> Value {
    let source = control.kernel.source(address);
    let own = Prefix::host(address);
    let bans: Vec<_> = control.kernel.bans().into_iter().filter(|ban| ban.cidr.covers(&own)).collect();
    let config = &control.snapshot.load().config;
    let blocked = config.kernel.block.prefixes.iter().filter(|prefix| prefix.covers(&own));
    let blocked = blocked
        .max_by_key(|prefix| prefix.to_string().len())
        .filter(|_| !config.kernel.block.except.iter().any(|except| except.covers(&own)));
    let wanted = format!("\"client\":\"{address}\"");
    let mut lines: Vec<Value> = control
        .access_log
        .notable
        .each(|line| line.contains(&wanted))
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line["ts"].as_str().map(str::to_owned)));
    lines.truncate(LINES);
    let text = address.to_string();
    let drops = events::listen().0.into_iter().filter(|event| event["source"] == text.as_str());
    let drops: Vec<_> = drops.map(|event| (*event).clone()).collect();
    let mut reasons = Vec::new();
    for ban in &bans {
        reasons.push(format!("banned in the kernel as {}: {}", ban.cidr, ban.why));
    }
    if let Some(prefix) = blocked {
        reasons.push(format!("dropped by kernel.block: {prefix}"));
    }
    if let Some(source) = source.as_ref().filter(|source| source.dropped > 0) {
        reasons.push(format!("{} of its packets were over kernel.limit", source.dropped));
    }
    if !lines.is_empty() {
        reasons.push(format!("{} of its last requests were refused, failed or were slow", lines.len()));
    }
    if reasons.is_empty() {
        reasons.push("nothing is held against it".into());
    }
    json!({ "address": address, "reasons": reasons, "bans": bans, "source": source, "drops": drops, "requests": lines })
}
