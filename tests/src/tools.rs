//! Programs that the lab runs: where they are, and whether they are there.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// A program on the search path; /usr/sbin and /sbin count too.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|dir| dir.join(program)).find(|path| path.is_file())
}

pub fn missing(program: &str) -> bool {
    find(program).is_none()
}

/// The directory that cargo put this run's binaries in.
pub(crate) fn binaries() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let mut dir = exe.parent().context("no directory")?;
    if dir.ends_with("deps") {
        dir = dir.parent().context("no directory")?;
    }
    Ok(dir.to_owned())
}

/// The `gateway` under test: `GATEWAY_BIN`, or the one that was built beside this program.
pub fn gateway() -> Result<PathBuf> {
    built("GATEWAY_BIN", "gateway", "cargo build -p gateway-userspace")
}

/// The lab's own helper program: backends and floods.
pub fn lab() -> Result<PathBuf> {
    built("GATEWAY_LAB_BIN", "gateway-lab", "cargo build -p gateway-tests")
}

fn built(variable: &str, name: &str, cure: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => binaries()?.join(name),
    };
    ensure!(
        path.is_file(),
        "{} is not there: `{cure}` makes it, or name another in {variable}",
        path.display()
    );
    Ok(path)
}
