//! Who still calls which version of a route.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    config::{model, units::Moment},
    daemon::Control,
    policy::compare::Found,
};

/// What came of comparing a shadow's answers.
pub fn compared(control: &Control, route: &str, version: &str) -> Value {
    let compared = control.registry.compared(route, version);
    let counts: Map<String, Value> =
        Found::ALL.into_iter().map(|(found, word)| (word.to_owned(), json!(compared.of(found)))).collect();
    json!({ "results": counts, "differences": compared.recent() })
}

/// Every version: its requests by status since the start, and those of the last day by consumer.
pub fn show(control: &Control, name: &str, versions: &model::Versions) -> Value {
    let now = Moment::of(std::time::SystemTime::now());
    let mut codes: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for ((_, route, version), stats) in control.registry.routes() {
        if route == name && !version.is_empty() {
            for ((_, code), count) in stats.requests() {
                *codes.entry(version.clone()).or_default().entry(code.to_string()).or_default() += count;
            }
        }
    }
    let one = |version: &model::ApiVersion| {
        let day = control.registry.usage(name, version.name.as_str()).day(now);
        let compares = version.route.mirror.as_ref().is_some_and(|mirror| mirror.compare.is_some());
        let ending = version.deprecated.is_some() || version.sunset.is_some();
        let mut told = json!({
            "codes": codes.get(version.name.as_str()),
            "last_day": { "requests": day.requests, "consumers": day.consumers.iter().map(|(name, n)| (name.clone(), json!(n))).collect::<Map<_, _>>() },
            "last_caller": day.last,
        });
        if compares {
            told["compared"] = compared(control, name, version.name.as_str());
        }
        if ending {
            told["deprecated"] = json!(version.deprecated.as_ref().map(|deprecated| deprecated.at));
            told["sunset"] = json!(version.sunset.as_ref().map(|sunset| sunset.at));
        }
        (version.name.to_string(), told)
    };
    versions.versions.iter().map(one).collect()
}
