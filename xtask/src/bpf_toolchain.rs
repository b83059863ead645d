//! Finding a compiler and a linker for BPF. Std only: the build script of gateway-userspace includes this file.
//!
//! Two ways lead to a BPF object. Debian ships a compiler with a ready `core` for BPF; anywhere else rustup's
//! nightly builds `core` from source, for which it needs the component rust-src.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The target both ways compile for.
pub const TARGET: &str = "bpfel-unknown-none";

/// What people are told when something is missing.
pub const CURE: &str = "run `cargo xtask setup`";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Which compiler is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Debian's own, with libstd-rust-web-dev-bpf.
    Debian,
    /// rustup's nightly, with rust-src.
    Rustup,
}

/// A compiler and a linker that can make a BPF object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    pub way: Way,
    pub linker: PathBuf,
}

impl Toolchain {
    /// Looks for both, in `<workspace>/target/bpf-tools/bin` and on the search path for the linker.
    ///
    /// # Errors
    /// One sentence that names what is missing and the command that installs it.
    pub fn find(workspace: &Path) -> Result<Self, String> {
        let way = way().ok_or_else(|| {
            format!("no compiler for BPF (Debian's rustc-web, or rustup's nightly with rust-src): {CURE}")
        })?;
        let linker = linker(workspace).ok_or_else(|| format!("no bpf-linker: {CURE}"))?;
        Ok(Self { way, linker })
    }

    /// `cargo build` for BPF: the caller adds the package, features and target folder.
    pub fn cargo_build(&self, cargo: &Path) -> Command {
        let mut command = match self.way {
            Way::Debian => Command::new(cargo),
            Way::Rustup => {
                let mut rustup = Command::new("rustup");
                rustup.args(["run", "nightly", "cargo"]);
                rustup
            }
        };
        // What cargo told the process we run in is about that process's target and compiler, not about BPF.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let foreign =
                ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_", "CARGO_ENCODED_"]
                    .iter()
                    .any(|prefix| text.starts_with(prefix));
            let compiler = ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "RUSTFLAGS"];
            if foreign || compiler.contains(&text.as_ref()) {
                command.env_remove(&name);
            }
        }
        command.args(["build", "--release", "--target", TARGET]);
        match self.way {
            // aya-ebpf uses unstable assembly; core is there already.
            Way::Debian => command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1"),
            Way::Rustup => command.env_remove("RUSTUP_TOOLCHAIN").args(["-Z", "build-std=core"]),
        };
        command
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker)
            // v3 has compare-and-swap; BTF is made from the debug information.
            .env("RUSTFLAGS", format!("-C debuginfo=2 -C link-arg=--btf -C target-cpu=v3{}", remap()))
            .env("CARGO_PROFILE_RELEASE_LTO", "true")
            .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2");
        command
    }
}

/// Where paths are to be told otherwise than they are: BTF has those of the source.
fn remap() -> String {
    env::var("GATEWAY_BPF_REMAP").map(|flags| format!(" {flags}")).unwrap_or_default()
}

/// The way this machine has, Debian's first.
pub fn way() -> Option<Way> {
    let mut debian = Command::new(DEBIAN_RUSTC);
    let libdir = printed(debian.args(["--print", "target-libdir", "--target", TARGET]));
    if libdir.is_some_and(|libdir| has_core(Path::new(libdir.trim()))) {
        return Some(Way::Debian);
    }
    let mut nightly = Command::new("rustup");
    // Inside a build script the variable would name the toolchain that builds us.
    let sysroot = printed(
        nightly.env_remove("RUSTUP_TOOLCHAIN").args(["run", "nightly", "rustc", "--print", "sysroot"]),
    )?;
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir().then_some(Way::Rustup)
}

/// A bpf-linker that starts: one that was linked to an LLVM that is gone does not.
pub fn linker(workspace: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(workspace.join("target/bpf-tools/bin"))
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("bpf-linker"))
        .find(|program| program.is_file() && printed(Command::new(program).arg("--version")).is_some())
}

fn has_core(libdir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(libdir) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore"))
}

fn printed(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
