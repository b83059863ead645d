//! stand-in until the config is merged
pub mod model;
pub mod units;
use std::path::Path;
use model::*;
use serde_json::{Value, json};
pub const DEFAULT_SOCKET: &str = "/run/gateway/admin.sock";
pub const DEFAULT_CONFIG: &str = "/etc/gateway/gateway.toml";
pub const DEFAULT_PIN: &str = "/sys/fs/bpf/gateway";
#[derive(Debug, Clone, serde::Serialize, thiserror::Error)]
#[error("{0}")]
pub struct ConfigErrors(pub String);
#[derive(Debug, Clone, serde::Serialize)]
pub struct Change { pub path: String }
pub fn load(path: &Path) -> Result<Config, ConfigErrors> { parse(&std::fs::read_to_string(path).map_err(|e| ConfigErrors(e.to_string()))?, path) }
pub fn parse(_: &str, _: &Path) -> Result<Config, ConfigErrors> { Err(ConfigErrors("later".into())) }
pub fn from_flags(listen: &[String], to: &[String]) -> Result<Config, ConfigErrors> {
    use std::time::Duration;
    let place = units::Place { file: std::sync::Arc::new("flags".into()), line: 1, column: 1 };
    let s = Duration::from_secs;
    let port: u16 = listen[0].rsplit(':').next().unwrap().parse().unwrap();
    Ok(Config {
        gateway: Gateway { name: "gw".into(), workers: Some(1), drain: s(30), log: Log { level: "info".into(), format: LogFormat::Auto } },
        kernel: Kernel { interfaces: vec![], mode: KernelMode::Auto, steer: Steer::Off, required: false, pin: DEFAULT_PIN.into(), limit: KernelLimit { packets: None, new: None, exempt: vec![], ipv6_prefix: 64 }, block: KernelBlock { prefixes: vec![], except: vec![], files: vec![] } },
        listeners: [("web".to_owned(), Listener { at: place.clone(), bind: Bind::Any(port), max: ListenerMax { connections: 100_000, header: 32768, body: Some(10 << 20) }, timeout: ListenerTimeout { header: s(10), idle: s(75), body: s(30) } })].into(),
        upstreams: [("all".to_owned(), Upstream { at: place.clone(), targets: to.iter().map(|t| Target { addr: t.parse().unwrap(), weight: 1 }).collect(), balance: Balance::RoundRobin, bounded_load: None, health: None, retry: Retry { tries: 2 }, timeout: UpstreamTimeout { connect: s(1), first_byte: s(15), idle: s(60), total: None }, pool: Pool { idle: 256, idle_for: s(60) } })].into(),
        routes: [("all".to_owned(), Route { at: place, hosts: vec![], path: PathPattern { segments: vec![], rest: true }, to: "all".into(), upgrade: vec!["websocket".into()], early_hints: true })].into(),
        access_log: AccessLog { to: LogTarget::File("/tmp/gw-access.log".into()) },
        metrics: Metrics { bind: Some("127.0.0.1:9180".parse().unwrap()) },
        admin: Admin { socket: DEFAULT_SOCKET.into() },
        files: vec![],
    })
}
pub fn changes_needing_restart(_: &Config, _: &Config) -> Vec<String> { vec![] }
pub fn diff(_: &Config, _: &Config) -> Vec<Change> { vec![] }
pub fn diff_json(_: &Value, _: &Value) -> Value { json!([]) }
pub fn show(_: &Config) -> String { String::new() }
pub fn show_json(_: &Value) -> Result<String, ConfigErrors> { Ok(String::new()) }
pub fn to_json(_: &Config) -> Value { json!({}) }
pub fn schema() -> Value { json!({}) }
pub fn reference() -> String { String::new() }
pub fn show_bind(bind: Bind) -> String { match bind { Bind::Any(port) => format!(":{port}"), Bind::Addr(addr) => addr.to_string() } }
