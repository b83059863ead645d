//! `cargo xtask bench`: the benches that need peers and namespaces.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bench::{Effort, cache, flood, hostile, l4, limit, memory, proxy, scale, seeing};
use clap::Parser;
use serde_json::{Map, Value, json};

/// Measures gateway beside its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Write the figures to this file too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds
    #[arg(long)]
    quick: bool,
    /// Which to run; default all
    #[arg(value_parser = ["proxy", "cache", "scale", "seeing", "flood", "hostile", "l4", "limit", "memory"])]
    names: Vec<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(why) = lab::unavailable() {
        anyhow::bail!(why);
    }
    let cpus = std::thread::available_parallelism()?.get();
    ensure!(cpus >= 2, "the benches need two CPUs: one for what is measured, one for everything else");
    // Nobody's tests may run beside.
    let _turn = lab::lock::alone()?;
    let effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    let wanted =
        |name: &str| arguments.names.is_empty() || arguments.names.iter().any(|wanted| wanted == name);
    let mut figures = Map::new();
    figures.insert("machine".into(), machine());
    if wanted("proxy") {
        figures.insert("proxy".into(), proxy::run(effort).context("proxy")?);
    }
    if wanted("cache") {
        figures.insert("cache".into(), cache::run(effort).context("cache")?);
    }
    if wanted("scale") {
        figures.insert("scale".into(), scale::run(effort).context("scale")?);
    }
    if wanted("seeing") {
        figures.insert("seeing".into(), seeing::run(effort).context("seeing")?);
    }
    if wanted("memory") {
        figures.insert("memory".into(), memory::run().context("memory")?);
    }
    if wanted("flood") {
        figures.insert("flood".into(), flood::run(effort).context("flood")?);
    }
    if wanted("hostile") {
        figures.insert("hostile".into(), hostile::run(effort).context("hostile")?);
    }
    if wanted("l4") {
        figures.insert("l4".into(), l4::run(effort).context("l4")?);
    }
    if wanted("limit") {
        figures.insert("limit".into(), limit::run(effort).context("limit")?);
    }
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&figures)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What the figures depend on.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "cpu": model.unwrap_or("unknown"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
    })
}
