//! `cargo xtask test`: everything that must hold before a commit, the cheap and telling first.

use std::{
    io::{BufRead, BufReader, IsTerminal},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Result, ensure};

use crate::{
    build::{self, cargo, printed, run},
    setup,
};

/// Of each target; by hand as long as one wants.
const FUZZ_SECONDS: &str = "30";

const NOT_BPF: [&str; 3] = ["--workspace", "--exclude", "gateway-ebpf"];

pub fn all(release: bool, filter: Option<&str>) -> Result<()> {
    let began = Instant::now();
    setup::everything()?;
    if filter.is_none() {
        run(cargo().args(["fmt", "--all", "--", "--check"]))?;
        // The build script of gateway-userspace compiles the BPF half, with its own warnings as errors.
        run(cargo().arg("clippy").args(NOT_BPF).args(["--all-targets", "--", "-D", "warnings"]))?;
    }
    let mut bins = cargo();
    bins.args(["build", "--bins", "--package", "gateway-userspace", "--package", "gateway-tests"]);
    run(&mut bins)?;
    if release {
        build::release()?;
    }
    let skips = build::binaries("").join("skipped-tests.txt");
    // Of an earlier run.
    let _ = std::fs::remove_file(&skips);
    let mut runner = Runner { skips, release, closing: Vec::new(), failed: false };
    // Black-box tests measure times and rates, so nothing else may run beside them.
    runner.run(&[&NOT_BPF[..], &["--exclude", "gateway-tests"]].concat(), filter)?;
    runner.run(&["--package", "gateway-tests"], filter)?;
    runner.close(began);
    ensure!(!runner.failed, "tests failed");
    Ok(())
}

struct Runner {
    skips: PathBuf,
    release: bool,
    closing: Vec<String>,
    failed: bool,
}

impl Runner {
    /// Runs the tests of some packages; a failed one does not keep the others from running.
    fn run(&mut self, packages: &[&str], filter: Option<&str>) -> Result<()> {
        let nextest = printed(cargo().args(["nextest", "--version"])).is_some();
        let mut command = cargo();
        if nextest {
            let config = build::workspace().join("tests/nextest.toml");
            command
                .args(["nextest", "run", "--no-fail-fast", "--no-tests", "pass", "--config-file"])
                .arg(config);
            if std::io::stderr().is_terminal() {
                command.args(["--color", "always"]);
            }
        } else {
            command.args(["test", "--no-fail-fast"]);
        }
        command.args(packages).args(filter);
        command.env("GATEWAY_TEST_SKIPS", &self.skips);
        if std::env::var_os("GATEWAY_FUZZ_SECONDS").is_none() {
            command.env("GATEWAY_FUZZ_SECONDS", FUZZ_SECONDS);
        }
        // Errors tell where they come from by themselves.
        command.env("RUST_BACKTRACE", "0").env("RUST_LIB_BACKTRACE", "0");
        if self.release {
            command.env("GATEWAY_BIN", build::binaries("release").join("gateway"));
        }
        as_root(&mut command);
        eprintln!("\x1b[2m$ {}\x1b[0m", build::shown(&command));
        self.failed |= !self.watch(command, nextest)?;
        Ok(())
    }

    /// Passes the runner's output on and remembers its closing lines.
    fn watch(&mut self, mut command: Command, nextest: bool) -> Result<bool> {
        // nextest reports on stderr, cargo test on stdout; the other stream is passed on as it is.
        let child = if nextest { command.stderr(Stdio::piped()) } else { command.stdout(Stdio::piped()) };
        let mut child = child.stdin(Stdio::null()).spawn()?;
        let closes = |line: &str| line.contains("Summary [") || line.starts_with("test result:");
        let mut pass_on = |report: &mut dyn BufRead, out: &mut dyn std::io::Write| -> Result<()> {
            let mut line = Vec::new();
            while report.read_until(b'\n', &mut line)? > 0 {
                out.write_all(&line)?;
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if closes(&text) {
                    self.closing.push(text);
                }
                line.clear();
            }
            Ok(())
        };
        if let Some(report) = child.stderr.take() {
            pass_on(&mut BufReader::new(report), &mut std::io::stderr())?;
        }
        if let Some(report) = child.stdout.take() {
            pass_on(&mut BufReader::new(report), &mut std::io::stdout())?;
        }
        Ok(child.wait()?.success())
    }

    fn close(&self, began: Instant) {
        let skipped = std::fs::read_to_string(&self.skips).unwrap_or_default();
        for line in skipped.lines() {
            println!("skipped: {line}");
        }
        let took = began.elapsed().as_secs();
        println!("checked in {} min {} s", took / 60, took % 60);
        for line in &self.closing {
            println!("{line}");
        }
    }
}

/// Test programs run as root where that needs no password; the compiler does not.
fn as_root(command: &mut Command) {
    let sudo = || printed(Command::new("sudo").args(["-n", "true"])).is_some();
    if !build::is_root() && sudo() {
        let triple =
            format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
        command.env(triple, "sudo --preserve-env");
    }
}
