//! Builds the kernel half (`gateway-ebpf`) and leaves it in OUT_DIR, where `kernel::object` embeds it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

#[path = "../xtask/src/bpf_toolchain.rs"]
#[allow(dead_code)]
mod bpf_toolchain;

const OBJECT: &str = "gateway-ebpf";

/// `1`: the programs log.
const LOG: &str = "GATEWAY_BPF_LOG";

fn main() -> ExitCode {
    name_commit();
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the kernel half cannot be built: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What `gateway version` calls the commit; built without git it stays "unknown".
fn name_commit() {
    let mut git = std::process::Command::new("git");
    let told = git.args(["rev-parse", "--short=12", "HEAD"]).output();
    if let Some(told) = told.ok().filter(|told| told.status.success()) {
        println!("cargo::rustc-env=GATEWAY_COMMIT={}", String::from_utf8_lossy(&told.stdout).trim());
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("not run by cargo")?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("not run by cargo")?);
    let cargo = PathBuf::from(env::var_os("CARGO").ok_or("not run by cargo")?);
    let workspace = manifest.parent().ok_or("not in the workspace")?;
    for input in
        ["gateway-ebpf", "gateway-common/src", "gateway-common/Cargo.toml", "xtask/src/bpf_toolchain.rs"]
    {
        println!("cargo:rerun-if-changed={}", workspace.join(input).display());
    }

    let toolchain = bpf_toolchain::Toolchain::find(workspace)?;
    println!("cargo:rerun-if-changed={}", toolchain.linker.display());
    // Shared by all profiles, apart from the outer build: two cargos in one folder would wait for each other.
    let target = target_folder(&out).join("bpf");
    let mut build = toolchain.cargo_build(&cargo);
    // For whoever debugs the programs: aya-log output, which userspace passes on to its own log.
    println!("cargo:rerun-if-env-changed={LOG}");
    if env::var_os(LOG).is_some_and(|value| value == "1") {
        build.args(["--features", "log"]);
    }
    println!("cargo:rerun-if-env-changed=GATEWAY_BPF_REMAP");
    let output = build
        .args(["--package", "gateway-ebpf", "--manifest-path"])
        .arg(workspace.join("gateway-ebpf/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .current_dir(workspace)
        .output()
        .map_err(|error| format!("cargo does not start ({error}): {}", bpf_toolchain::CURE))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{messages}");
        return Err("see the compiler's messages above".into());
    }
    for warning in messages.lines().filter(|line| line.starts_with("warning")) {
        println!("cargo:warning=gateway-ebpf: {warning}");
    }
    let object = target.join(bpf_toolchain::TARGET).join("release").join(OBJECT);
    fs::copy(&object, out.join(OBJECT)).map_err(|error| format!("{}: {error}", object.display()))?;
    Ok(())
}

/// The outermost folder above `out` that cargo marked as its own.
fn target_folder(out: &Path) -> PathBuf {
    let marked = out.ancestors().filter(|folder| folder.join("CACHEDIR.TAG").is_file());
    marked.last().unwrap_or(out).to_owned()
}
