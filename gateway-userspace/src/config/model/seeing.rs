//! What is seen from outside.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::Secret;
use crate::observe::{access_log::Shape, collector::Collector};

/// `[access_log]`
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    /// Default: stdout.
    pub to: LogTarget,
    /// Default: JSON.
    pub shape: Shape,
    /// `None`: every request is logged.
    pub keep: Option<LogKeep>,
    pub redact: Redact,
    /// Only of a file. Default: none.
    pub rotate: Option<LogRotate>,
    /// Events go into the same stream. Default false.
    pub events: bool,
}

impl Default for AccessLog {
    fn default() -> Self {
        AccessLog {
            to: LogTarget::Stdout,
            shape: Shape::Json,
            keep: None,
            redact: Redact::default(),
            rotate: None,
            events: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogTarget {
    Off,
    Stdout,
    Stderr,
    File(PathBuf),
    /// A socket of streams or of datagrams.
    Unix(PathBuf),
    Journald,
    /// `None`: /dev/log.
    Syslog(Option<SocketAddr>),
    /// With its path.
    Otlp(Collector),
    Kafka(Kafka),
}

/// `kafka://BROKERS/TOPIC` and `kafka = { … }`
#[derive(Debug, Clone, PartialEq)]
pub struct Kafka {
    /// `HOST:PORT`
    pub brokers: Vec<String>,
    pub topic: String,
    /// This gateway's, which is the records' key.
    pub name: String,
    /// Default false.
    pub tls: bool,
    /// Default: whom the system trusts.
    pub ca: Option<PathBuf>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    /// Bytes of lines that may wait. Default 32 MiB.
    pub buffer: u64,
}

impl LogTarget {
    /// As the config writes it.
    pub fn show(&self) -> String {
        match self {
            LogTarget::Off => "off".into(),
            LogTarget::Stdout => "stdout".into(),
            LogTarget::Stderr => "stderr".into(),
            LogTarget::File(path) => path.to_string_lossy().into_owned(),
            LogTarget::Unix(path) => format!("unix:{}", path.display()),
            LogTarget::Journald => "journald".into(),
            LogTarget::Syslog(None) => "syslog".into(),
            LogTarget::Syslog(Some(server)) => format!("syslog:{server}"),
            LogTarget::Otlp(collector) => format!("otlp:{}", collector.url),
            LogTarget::Kafka(kafka) => format!("kafka://{}/{}", kafka.brokers.join(","), kafka.topic),
        }
    }
}

/// `keep = { ok, slow }`
#[derive(Debug, Clone, PartialEq)]
pub struct LogKeep {
    /// A share of what went well. Default 1.
    pub ok: f64,
    /// Default 1 s.
    pub slow: Duration,
}

/// What is blanked out of log lines and traces.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Redact {
    /// Lower case.
    pub headers: Vec<String>,
    /// Names of query parameters.
    pub query: Vec<String>,
}

/// `rotate = { size, files }`
#[derive(Debug, Clone, PartialEq)]
pub struct LogRotate {
    /// Bytes. Default 256 MiB.
    pub size: u64,
    /// Default 8.
    pub files: u32,
}

/// `[tracing]`
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// With its path.
    pub otlp: String,
    /// Default 0.01.
    pub share: f64,
    /// Default true.
    pub trust_parent: bool,
    /// Default false.
    pub server_timing: bool,
}

/// `[alert.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct AlertRule {
    pub kind: AlertKind,
    /// A route, an upstream or a certificate; `None`: all, or the worst.
    pub of: Option<String>,
    /// In the unit of the kind: a share, seconds, or so many a second.
    pub threshold: f64,
    /// From where it is good again.
    pub clear: f64,
    /// Default a minute.
    pub window: Duration,
    /// Default 0.99.
    pub quantile: f64,
    /// Requests in the window. Default 10.
    pub least: u64,
    /// Default: none.
    pub lasts: Duration,
    /// Default 30 s.
    pub resolve_after: Duration,
    /// Default 4 h.
    pub repeat: Duration,
    pub severity: String,
    pub notify: Vec<String>,
}

impl AlertRule {
    pub fn is_bad(&self, value: f64) -> bool {
        match self.kind {
            AlertKind::CertExpiry => value < self.threshold,
            _ => value > self.threshold,
        }
    }

    pub fn is_clear(&self, value: f64) -> bool {
        match self.kind {
            AlertKind::CertExpiry => value >= self.clear,
            _ => value <= self.clear,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertKind {
    Errors,
    Latency,
    UpstreamDown,
    Limited,
    CertExpiry,
    KernelDrops,
    MapFill,
    ConfigRefused,
    KernelOff,
    DeadMan,
}

impl AlertKind {
    pub const ALL: [(AlertKind, &str); 10] = [
        (AlertKind::Errors, "errors"),
        (AlertKind::Latency, "latency"),
        (AlertKind::UpstreamDown, "upstream-down"),
        (AlertKind::Limited, "limited"),
        (AlertKind::CertExpiry, "cert-expiry"),
        (AlertKind::KernelDrops, "kernel-drops"),
        (AlertKind::MapFill, "map-fill"),
        (AlertKind::ConfigRefused, "config-refused"),
        (AlertKind::KernelOff, "kernel-off"),
        (AlertKind::DeadMan, "dead-man"),
    ];

    /// As the config writes it.
    pub fn word(self) -> &'static str {
        AlertKind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, word)| word)
    }
}

/// `[notify.NAME]`
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyRule {
    pub webhook: Webhook,
    pub format: NotifyFormat,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Webhook {
    Plain(String),
    Secret(Secret),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyFormat {
    Json,
    Slack,
    Alertmanager,
}

impl NotifyFormat {
    /// As the config writes it.
    pub fn word(self) -> &'static str {
        match self {
            NotifyFormat::Json => "json",
            NotifyFormat::Slack => "slack",
            NotifyFormat::Alertmanager => "alertmanager",
        }
    }
}
