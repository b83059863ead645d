//! `[alert.NAME]`, `[notify.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use super::tls;
use crate::config::{
    error::{Problem, ProblemKind, Problems, did_you_mean, ticks},
    model::{AlertKind, AlertRule, NotifyFormat, NotifyRule, Webhook},
    node::{Fields, Value},
};

pub(super) fn alerts(root: &Fields, problems: &mut Problems) -> BTreeMap<String, AlertRule> {
    let all = root.named("alert");
    all.iter()
        .filter_map(|(name, fields)| Some((name.clone(), alert(name, fields, root, problems)?)))
        .collect()
}

fn alert(name: &str, fields: &Fields, root: &Fields, problems: &mut Problems) -> Option<AlertRule> {
    let when: &str = fields.get("when")?;
    let kind = AlertKind::ALL.iter().find(|(_, word)| *word == when)?.0;
    let (key, other) = if kind == AlertKind::CertExpiry { ("below", "above") } else { ("above", "below") };
    let conflict = |key: &str, message: String, problems: &mut Problems| {
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
    };
    if fields.node(other).is_some() {
        conflict(other, format!("`alert.{name}.{other}` is not for \"{when}\""), problems);
    }
    for (key, kinds) in [
        ("route", &[AlertKind::Errors, AlertKind::Latency][..]),
        ("upstream", &[AlertKind::UpstreamDown]),
        ("cert", &[AlertKind::CertExpiry]),
    ] {
        if fields.node(key).is_some() && !kinds.contains(&kind) {
            conflict(key, format!("`alert.{name}.{key}` is not for \"{when}\""), problems);
        }
        known(name, key, fields, root, problems);
    }
    let told: Vec<String> = fields.or_default("notify");
    let tellers = root.named("notify");
    for to in told.iter().filter(|to| !tellers.contains_key(*to)) {
        let message = format!("`alert.{name}.notify`: notify \"{to}\" is not defined");
        let hint = did_you_mean(to, tellers.keys().map(String::as_str), ticks);
        problems.push(
            Problem::new(ProblemKind::Undefined, &fields.place("notify"), message)
                .hint(hint.unwrap_or_else(|| format!("add [notify.{to}] with webhook = \"https://…\""))),
        );
    }
    let threshold = threshold(name, key, kind, fields, problems)?;
    let clear = match fields.node("clear") {
        Some(_) => measured(name, "clear", kind, fields, problems)?,
        None => threshold,
    };
    let wrong = if kind == AlertKind::CertExpiry { clear < threshold } else { clear > threshold };
    if wrong {
        let message = format!("`alert.{name}.clear` is on the bad side of `{key}`");
        problems.push(Problem::new(ProblemKind::Conflict, &fields.place("clear"), message));
    }
    let of = ["route", "upstream", "cert"].into_iter().find_map(|key| fields.get(key));
    let repeat = match (kind, fields.node("repeat")) {
        (AlertKind::DeadMan, None) => Duration::from_secs(60),
        _ => fields.or_default("repeat"),
    };
    Some(AlertRule {
        kind,
        of,
        threshold,
        clear,
        window: fields.or_default("over"),
        quantile: match fields.or_default("quantile") {
            "p50" => 0.5,
            "p90" => 0.9,
            "p95" => 0.95,
            _ => 0.99,
        },
        least: fields.or_default("least"),
        lasts: fields.or_default("for"),
        resolve_after: fields.or_default("resolve_after"),
        repeat,
        severity: fields.or_default("severity"),
        notify: told,
    })
}

/// Whether what an alert is of is defined.
fn known(name: &str, key: &str, fields: &Fields, root: &Fields, problems: &mut Problems) {
    let Some(of) = fields.get::<String>(key) else { return };
    let all = root.named(key);
    // Certificates by ACME have names of their own, and routes may have made upstreams.
    let made_elsewhere =
        key == "cert" && of.contains('.') || key == "upstream" && root.named("route").contains_key(&of);
    if !all.contains_key(&of) && !made_elsewhere {
        let message = format!("`alert.{name}.{key}`: {key} \"{of}\" is not defined");
        let hint = did_you_mean(&of, all.keys().map(String::as_str), ticks);
        let problem = Problem::new(ProblemKind::Undefined, &fields.place(key), message);
        problems.push(match hint {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }
}

fn threshold(
    name: &str,
    key: &str,
    kind: AlertKind,
    fields: &Fields,
    problems: &mut Problems,
) -> Option<f64> {
    match (kind, fields.node(key)) {
        (AlertKind::ConfigRefused | AlertKind::KernelOff | AlertKind::DeadMan, Some(_)) => {
            let message = format!("`alert.{name}.{key}`: \"{}\" has no threshold", kind.word());
            problems.push(Problem::new(ProblemKind::Conflict, &fields.place(key), message));
            None
        }
        (AlertKind::ConfigRefused | AlertKind::KernelOff | AlertKind::DeadMan, None) => Some(0.5),
        (_, Some(_)) => measured(name, key, kind, fields, problems),
        (AlertKind::UpstreamDown, None) => Some(0.99),
        (AlertKind::MapFill, None) => Some(0.9),
        (AlertKind::CertExpiry, None) => Some(7.0 * 86_400.0),
        _ => {
            let message = format!("`alert.{name}.{key}` is missing");
            let problem = Problem::new(ProblemKind::Missing, &fields.at, message);
            problems.push(problem.hint(format!("for example: {key} = \"{}\"", unit(kind).1)));
            None
        }
    }
}

/// A threshold in the unit that the kind is measured in.
fn measured(name: &str, key: &str, kind: AlertKind, fields: &Fields, problems: &mut Problems) -> Option<f64> {
    let node = fields.node(key)?;
    let value = match (kind, &node.value) {
        (AlertKind::Errors | AlertKind::UpstreamDown | AlertKind::MapFill, Value::Percent(share)) => {
            Some(share.0)
        }
        (AlertKind::Latency | AlertKind::CertExpiry, Value::Duration(time)) => Some(time.as_secs_f64()),
        (AlertKind::Limited | AlertKind::KernelDrops, Value::Rate(rate)) => Some(rate.per_second),
        _ => None,
    };
    if value.is_none() {
        let (what, example) = unit(kind);
        let message =
            format!("`alert.{name}.{key}`: \"{}\" is measured as {what} such as \"{example}\"", kind.word());
        problems.push(Problem::new(ProblemKind::Value, &node.at, message));
    }
    value
}

fn unit(kind: AlertKind) -> (&'static str, &'static str) {
    match kind {
        AlertKind::Latency => ("a duration", "250ms"),
        AlertKind::CertExpiry => ("a duration", "7d"),
        AlertKind::Limited | AlertKind::KernelDrops => ("a rate", "100/s"),
        _ => ("a percentage", "5%"),
    }
}

pub(super) fn notify(root: &Fields, problems: &mut Problems) -> BTreeMap<String, NotifyRule> {
    let all = root.named("notify");
    all.iter().filter_map(|(name, fields)| Some((name.clone(), teller(name, fields, problems)?))).collect()
}

fn teller(name: &str, fields: &Fields, problems: &mut Problems) -> Option<NotifyRule> {
    let webhook = match &fields.node("webhook")?.value {
        Value::Text(url) => Webhook::Plain(url.clone()),
        Value::Table(secret) => {
            Webhook::Secret(tls::secret(&format!("notify.{name}.webhook"), secret, problems)?)
        }
        _ => return None,
    };
    let format = match fields.or_default("format") {
        "slack" => NotifyFormat::Slack,
        "alertmanager" => NotifyFormat::Alertmanager,
        _ => NotifyFormat::Json,
    };
    Some(NotifyRule { webhook, format })
}
