//! `gateway kernel`

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use super::{
    Error, Global, Outcome,
    ban::text,
    client, exit, limit,
    output::{self, table},
};
use crate::kernel;

#[derive(Debug, Subcommand)]
pub enum Kernel {
    /// How the kernel half is attached, and what it did with packets
    Status,
    /// The BPF maps and how full they are
    Maps,
    /// Sources with buckets, the most refused first
    Sources {
        /// How many
        #[arg(long, default_value_t = 20)]
        top: usize,
    },
    /// Compare every map with what the config says it must hold; exits 1 if anything differs
    Verify {
        /// Write what differs
        #[arg(long)]
        repair: bool,
    },
    /// Remove the kernel half's pinned programs and maps, also after a crash; bans and buckets are forgotten
    Detach {
        /// The config that says where they are pinned [default: /sys/fs/bpf/gateway]
        config: Option<PathBuf>,
        /// Where they are pinned
        #[arg(long, conflicts_with = "config", value_name = "PATH")]
        pin: Option<PathBuf>,
    },
}

impl Kernel {
    pub fn run(self, global: &Global) -> Outcome {
        match self {
            Kernel::Status => {
                let status = client::get(global, "/v1/kernel")?;
                output::print(global, &status, || describe(&status));
            }
            Kernel::Maps => {
                let maps = client::get(global, "/v1/kernel/maps")?;
                output::print(global, &maps, || list_maps(&maps));
            }
            Kernel::Sources { top } => {
                let rows = client::get(global, &format!("/v1/kernel/sources?top={top}"))?;
                output::print(global, &rows, || limit::sources(&rows));
            }
            Kernel::Verify { repair } => {
                let path = "/v1/kernel/verify";
                let report =
                    if repair { client::post(global, path, None)? } else { client::get(global, path)? };
                output::print(global, &report, || differences(&report, repair));
                if report["total"] != report["repaired"] {
                    return Ok(exit::FAILED);
                }
            }
            Kernel::Detach { config, pin } => {
                let pin = match config {
                    Some(config) => crate::config::load(&config)?.kernel.pin,
                    None => pin.unwrap_or_else(|| super::places::PIN.into()),
                };
                let report = kernel::detach(&pin).map_err(|error| Error::Privilege(error.to_string()))?;
                output::print(global, &report, || report.to_string());
            }
        }
        Ok(exit::OK)
    }
}

fn describe(status: &Value) -> String {
    let mut out = format!("{}\n", text(&status["summary"]));
    for warning in status["warnings"].as_array().into_iter().flatten() {
        out += &format!("! {}\n", text(warning));
    }
    let rows =
        status["counters"].as_array().into_iter().flatten().filter(|row| row["packets"] != 0).map(|row| {
            vec![
                text(&row["interface"]),
                text(&row["action"]),
                text(&row["reason"]),
                row["packets"].as_u64().map_or("-".into(), output::short),
                row["bytes"].as_u64().map_or("-".into(), output::short),
            ]
        });
    out + "\n" + &table(&["INTERFACE", "ACTION", "REASON", "PACKETS", "BYTES"], rows)
}

fn differences(report: &Value, repair: bool) -> String {
    let listed = report["differences"].as_array();
    let lines = listed.into_iter().flatten().map(|difference| {
        let [map, key, is, should] = ["map", "key", "is", "should"].map(|field| text(&difference[field]));
        format!("{map} {key}: is {is}, should be {should}\n")
    });
    let mut out: String = lines.collect();
    let [checked, total, repaired] = ["checked", "total", "repaired"].map(|field| text(&report[field]));
    out += &format!("{total} differences in {checked} entries");
    if repair {
        out += &format!("; {repaired} repaired");
    }
    out
}

fn list_maps(maps: &Value) -> String {
    let rows = maps.as_array().into_iter().flatten().map(|map| {
        vec![text(&map["name"]), text(&map["kind"]), text(&map["entries"]), text(&map["capacity"])]
    });
    table(&["MAP", "KIND", "ENTRIES", "CAPACITY"], rows)
}
