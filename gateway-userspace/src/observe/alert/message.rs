//! What is sent: by our own JSON, by Slack's, or by the API of Prometheus's Alertmanager (version 2).

use std::time::Duration;

use serde_json::{Value, json};

use super::state::Time;
use crate::{
    config::model::{AlertKind, AlertRule, NotifyFormat},
    observe,
};

/// One alert, as those who are told see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub alert: String,
    pub firing: bool,
    pub severity: String,
    pub text: String,
    pub of: Option<String>,
    pub since: Time,
    pub until: Option<Time>,
}

pub fn body(format: NotifyFormat, instance: &str, notices: &[Notice], now: Time) -> Value {
    match format {
        NotifyFormat::Json => json!({
            "gateway": instance,
            "alerts": notices.iter().map(|notice| json!({
                "alert": notice.alert,
                "state": word(notice),
                "severity": notice.severity,
                "of": notice.of,
                "text": notice.text,
                "since": rfc3339(notice.since),
                "until": notice.until.map(rfc3339),
            })).collect::<Vec<_>>(),
        }),
        NotifyFormat::Slack => {
            let line = |notice: &Notice| {
                let mark = if notice.firing { ":rotating_light:" } else { ":white_check_mark:" };
                // What Slack takes for markup: https://api.slack.com/reference/surfaces/formatting#escaping
                let text = notice.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                format!("{mark} *{}* {} on {instance}: {text}", notice.alert, word(notice))
            };
            json!({ "text": notices.iter().map(line).collect::<Vec<_>>().join("\n") })
        }
        NotifyFormat::Alertmanager => notices
            .iter()
            .map(|notice| {
                let mut labels = json!({
                    "alertname": notice.alert, "severity": notice.severity, "instance": instance, "job": "gateway",
                });
                if let Some(of) = &notice.of {
                    labels["of"] = json!(of);
                }
                json!({
                    "labels": labels,
                    "annotations": { "summary": notice.text },
                    "startsAt": rfc3339(notice.since),
                    // Of one that fires: it ends by itself if nothing more is heard of us.
                    "endsAt": rfc3339(notice.until.unwrap_or(now + STALE.as_secs_f64())),
                })
            })
            .collect(),
    }
}

/// How long Alertmanager believes in an alert that it hears no more of; it is told anew three times in it.
const STALE: Duration = Duration::from_secs(180);
pub const REMIND_ALERTMANAGER: Duration = Duration::from_secs(60);

fn word(notice: &Notice) -> &'static str {
    if notice.firing { "firing" } else { "resolved" }
}

pub fn rfc3339(time: Time) -> String {
    observe::rfc3339(Duration::try_from_secs_f64(time).unwrap_or_default().as_secs())
}

/// What was measured, as a sentence.
pub fn sentence(rule: &AlertRule, value: f64, of: Option<&str>) -> String {
    let whose = |kind: &str| of.map_or(String::new(), |of| format!(" of {kind} {of}"));
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    match rule.kind {
        AlertKind::Errors => {
            format!(
                "{} of requests{} fail (above {})",
                percent(value),
                whose("route"),
                percent(rule.threshold)
            )
        }
        AlertKind::Latency => format!(
            "p{:.0}{} is {:.0} ms (above {:.0} ms)",
            rule.quantile * 100.0,
            whose("route"),
            value * 1000.0,
            rule.threshold * 1000.0
        ),
        AlertKind::UpstreamDown => {
            format!(
                "{} of the targets{} are down (above {})",
                percent(value),
                whose("upstream"),
                percent(rule.threshold)
            )
        }
        AlertKind::Limited => format!("{value:.1} over a limit a second (above {})", rule.threshold),
        AlertKind::CertExpiry if value <= 0.0 => format!("the certificate {} has expired", of.unwrap_or("-")),
        AlertKind::CertExpiry => {
            format!("the certificate {} expires in {:.1} days", of.unwrap_or("-"), value / 86_400.0)
        }
        AlertKind::KernelDrops => format!("{value:.1} packets a second dropped (above {})", rule.threshold),
        AlertKind::MapFill => {
            format!(
                "{} of the map {} is in use (above {})",
                percent(value),
                of.unwrap_or("-"),
                percent(rule.threshold)
            )
        }
        AlertKind::ConfigRefused if value > 0.0 => {
            "the last reload was refused: an older config is running".into()
        }
        AlertKind::ConfigRefused => "the config in the file is running".into(),
        AlertKind::KernelOff if value > 0.0 => {
            format!(
                "XDP is off on {}, or was taken off it from outside within a minute",
                of.unwrap_or("an interface")
            )
        }
        AlertKind::KernelOff => "XDP is on every interface of the config".into(),
        AlertKind::DeadMan => "this gateway and its alerts are alive".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_says_what_fires_and_since_when() {
        let notice = Notice {
            alert: "items-errors".into(),
            firing: true,
            severity: "page".into(),
            text: "7.0% of requests of route <items> fail".into(),
            of: Some("items".into()),
            since: 1_700_000_000.0,
            until: None,
        };
        let of = |format| body(format, "edge-1", std::slice::from_ref(&notice), 1_700_000_100.0);
        assert_eq!(of(NotifyFormat::Json)["alerts"][0]["since"], "2023-11-14T22:13:20Z");
        let slack = of(NotifyFormat::Slack)["text"].as_str().unwrap().to_owned();
        assert!(
            slack.contains("*items-errors* firing on edge-1") && slack.contains("&lt;items&gt;"),
            "{slack}"
        );
        let manager = &of(NotifyFormat::Alertmanager)[0];
        assert_eq!(manager["labels"]["alertname"], "items-errors");
        assert_eq!(manager["endsAt"], "2023-11-14T22:18:00Z");
        let ended = Notice { firing: false, until: Some(1_700_000_050.0), ..notice };
        let manager = &body(NotifyFormat::Alertmanager, "edge-1", &[ended], 1_700_000_100.0)[0];
        assert_eq!(manager["endsAt"], "2023-11-14T22:14:10Z");
    }
}
