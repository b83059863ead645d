//! The demo and the benches: built in release, run as root.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::{build, setup};

pub fn demo(hold: bool) -> Result<()> {
    ready()?;
    let mut demo = as_root("gateway-demo");
    if hold {
        demo.arg("--hold");
    }
    end(demo)
}

pub fn bench(json: Option<&Path>, quick: bool, names: &[String]) -> Result<()> {
    ready()?;
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    if wanted("kernel") {
        build::run(build::cargo().args(["bench", "--package", "gateway-userspace", "--bench", "kernel"]))?;
    }
    if wanted("forward") {
        build::run(build::cargo().args(["bench", "--package", "gateway-userspace", "--bench", "forward"]))?;
    }
    let others: Vec<&str> =
        ["proxy", "cache", "scale", "seeing", "flood", "hostile", "l4", "limit", "memory"]
            .into_iter()
            .filter(|name| wanted(name))
            .collect();
    if others.is_empty() {
        return Ok(());
    }
    let mut bench = as_root("gateway-bench");
    let mut places = Vec::new();
    if wanted("proxy") || wanted("limit") {
        places.push(("Envoy", setup::envoy()));
    }
    if wanted("proxy") {
        places.push(("Pingora", setup::pingora()));
    }
    let mut path = Vec::new();
    for (name, place) in places {
        match place {
            Ok(directory) => path.push(directory),
            Err(error) => eprintln!("{name} is not measured: {error:#}"),
        }
    }
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    bench.env("PATH", std::env::join_paths(path)?);
    if let Some(json) = json {
        bench.arg("--json").arg(std::path::absolute(json)?);
    }
    if quick {
        bench.arg("--quick");
    }
    bench.args(others);
    end(bench)
}

fn ready() -> Result<()> {
    setup::everything()?;
    let packages = ["gateway-userspace", "gateway-tests", "gateway-bench"];
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    build::run(build::cargo().args(["build", "--release", "--bins"]).args(packages))
}

/// One of the built programs; through sudo where we are not root.
fn as_root(name: &str) -> Command {
    let path = build::binaries("release").join(name);
    if build::is_root() {
        return Command::new(path);
    }
    let mut sudo = Command::new("sudo");
    sudo.arg("--preserve-env").arg(path);
    sudo
}

/// Runs a program that has said itself what went wrong, if anything did. 130 is Ctrl-C.
fn end(mut command: Command) -> Result<()> {
    let status = command.status()?;
    ensure!(status.success() || status.code() == Some(130), "{}: {status}", build::shown(&command));
    Ok(())
}
