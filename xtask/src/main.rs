//! Every command that a contributor or CI types: `cargo xtask setup|build|test|demo|bench`.
//!
//! Light on purpose (std, clap, anyhow): it must build on a machine that has nothing but rustup. What needs more is a
//! program of its own, which these commands build and run.

#[expect(dead_code, reason = "the build script of gateway-userspace shares the file and uses the rest")]
mod bpf_toolchain;
mod build;
mod dist;
mod run;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Builds, tests, shows and measures gateway.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what building, testing and measuring need
    ///
    /// Debian packages (with sudo if you are not root; no service is started) and bpf-linker, which goes to
    /// target/bpf-tools. Does nothing where all is there. Elsewhere than on Debian it uses rustup's nightly for the BPF
    /// half and names the tools that you have to install yourself. The other commands call it when they need it.
    Setup(SetupArgs),
    /// Build both halves in release: target/release/gateway, with the BPF object inside
    Build,
    /// Build what is given to others: target/dist/gateway, and what is in it as gateway.cdx.json
    ///
    /// No path of this machine and no time is part of the binary: whoever builds the same commit with the same compilers
    /// gets the same bytes. The list (SBOM, CycloneDX) has every crate with version, licence, checksum and who needs it.
    Dist(DistArgs),
    /// Write the list of what is in the binary (SBOM, CycloneDX): target/dist/gateway.cdx.json
    Sbom,
    /// Check everything: fmt, clippy, unit tests, kernel tests, black-box tests
    ///
    /// Tests that need network namespaces or BPF want root; without it they say that they were skipped. The last lines
    /// are the test runner's own.
    Test(TestArgs),
    /// See it work: honest clients and a flood, in network namespaces on this machine
    ///
    /// Makes two clients, an attacker, a gateway with XDP in native mode and three backends, and shows what an honest
    /// client gets before, during and after a flood, and what the kernel half dropped. Takes about half a minute once
    /// built, needs root, cleans up after itself.
    Demo(DemoArgs),
    /// Measure it beside nginx, HAProxy and Envoy, and its kernel half by packets
    ///
    /// Needs root and a machine that has nothing else to do. Prints tables; --json keeps the figures. Envoy comes as a
    /// package of Python's; where it cannot be had the others are measured without it.
    Bench(BenchArgs),
}

#[derive(Debug, Args)]
struct SetupArgs {
    /// Only say what is missing; exit with 1 if anything is
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct DistArgs {
    /// Build what is committed again in another directory, and fail unless the same bytes come out
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Run the black-box tests on a release build
    #[arg(long)]
    release: bool,
    /// Only tests whose name contains this; skips fmt and clippy
    filter: Option<String>,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Leave it running until Ctrl-C, and print addresses and commands to try
    #[arg(long)]
    hold: bool,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Write the figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// Fewer and shorter rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Which to run; default all: proxy, cache, scale, seeing, kernel, forward, flood, hostile, l4, limit, memory
    #[arg(value_parser = ["proxy", "cache", "scale", "seeing", "kernel", "forward", "flood", "hostile", "l4", "limit", "memory"])]
    names: Vec<String>,
}

fn sbom() -> anyhow::Result<()> {
    let dist = build::workspace().join("target/dist");
    std::fs::create_dir_all(&dist)?;
    let file = dist.join("gateway.cdx.json");
    dist::sbom(&file)?;
    println!("{}", file.display());
    Ok(())
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(SetupArgs { check: true }) => return setup::check(),
        Command::Setup(_) => setup::everything(),
        Command::Build => setup::toolchain().and_then(|()| build::release()),
        Command::Dist(DistArgs { check }) => setup::toolchain().and_then(|()| dist::dist(check)),
        Command::Sbom => sbom(),
        Command::Test(TestArgs { release, filter }) => test::all(release, filter.as_deref()),
        Command::Demo(DemoArgs { hold }) => run::demo(hold),
        Command::Bench(BenchArgs { json, quick, names }) => run::bench(json.as_deref(), quick, &names),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
