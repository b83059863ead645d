//! Other kernels: Debian's images, booted by qemu without hardware help, with the gateway under test inside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    cleanup,
    process::{Lines, Process},
    sys::ChildSetup,
    tools,
};

/// Written by the machine before what a test is to read.
const MARK: &str = "VM: ";
/// Boot, debug build and two cores that others use too.
const LIMIT: Duration = Duration::from_secs(170);

/// A kernel to boot and the modules it needs for the lab.
#[derive(Debug)]
pub struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// Debian's newest cloud kernel of a series such as "6.1", fetched once into `target/kernels`. `Err(why)`: it
    /// cannot be had here.
    pub fn fetch(series: &str) -> Result<Result<Kernel, String>> {
        if let Some(program) = ["qemu-system-x86_64", "busybox"].into_iter().find(|name| tools::missing(name))
        {
            return Ok(Err(format!("{program} is not installed; `cargo xtask setup` installs it")));
        }
        if std::env::consts::ARCH != "x86_64" {
            return Ok(Err("the images are for x86-64".into()));
        }
        let all = tools::binaries()?.join("../kernels");
        let folder = all.join(series);
        if folder.join("vmlinuz").is_file() {
            return Ok(Ok(Kernel { folder }));
        }
        let Some(package) = newest(series) else {
            return Ok(Err(format!("no package source here has a Linux {series} image")));
        };
        fs::create_dir_all(&all)?;
        // Complete or not there at all.
        let fresh = tempfile::tempdir_in(&all)?;
        let mut download = Command::new("timeout");
        download.args(["120", "apt-get", "-qq", "download", &package]).current_dir(fresh.path());
        if !run(&mut download).is_ok_and(|output| output.is_some()) {
            return Ok(Err(format!("{package} cannot be fetched")));
        }
        let script =
            "dpkg --fsys-tarfile ./*.deb | tar -x --wildcards './boot/vmlinuz*' '*/drivers/net/veth.ko*'
            mv boot/vmlinuz* vmlinuz && find lib usr -name 'veth.ko*' -exec mv {} . ';' 2>/dev/null
            [ ! -e veth.ko.xz ] || busybox xz -d veth.ko.xz
            rm -rf boot lib usr ./*.deb; test -s vmlinuz && test -s veth.ko";
        let unpacked = run(Command::new("sh").args(["-c", script]).current_dir(fresh.path()))?;
        ensure!(unpacked.is_some(), "{package} is not as expected");
        // Another test process may have been faster.
        let _ = fs::rename(fresh.keep(), &folder);
        Ok(Ok(Kernel { folder }))
    }

    /// Boots it with the gateway, `ip`, curl and busybox, runs `script` and returns the lines it printed with `say`.
    pub fn run(&self, script: &str) -> Result<Vec<String>> {
        let dir = cleanup::scratch()?;
        let image = self.image(&dir, script)?;
        let mut command = Command::new(tools::find("qemu-system-x86_64").context("no qemu")?);
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-nographic"])
            .args(["-no-reboot", "-nic", "none", "-append", "console=ttyS0 quiet panic=-1"])
            .arg("-kernel")
            .arg(self.folder.join("vmlinuz"))
            .arg("-initrd")
            .arg(image);
        command.die_with_parent().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut machine = Process::start(command)?;
        let console = machine.child.stdout.take().map(Lines::collect).unwrap_or_default();
        let errors = machine.child.stderr.take().map(Lines::collect).unwrap_or_default();
        let ended = machine.wait(LIMIT);
        let lines = console.all();
        let told = |lines: &[String]| lines.join("\n");
        // A test harness shows this for a failed test only.
        eprintln!("{}", told(&lines));
        let status = ended.with_context(|| told(&lines))?;
        ensure!(status.success(), "qemu: {status}: {}", told(&errors.all()));
        let said: Vec<String> =
            lines.iter().filter_map(|line| Some(line.trim().split_once(MARK)?.1.to_owned())).collect();
        ensure!(
            said.last().is_some_and(|line| line == "end"),
            "it did not get to the end:\n{}",
            told(&lines)
        );
        Ok(said)
    }

    fn image(&self, dir: &TempDir, script: &str) -> Result<PathBuf> {
        let root = dir.path().join("root");
        for folder in ["bin", "iproute", "proc", "sys", "dev", "tmp", "run", "etc"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let busybox = tools::find("busybox").context("no busybox")?;
        fs::copy(busybox, root.join("bin/busybox"))?;
        fs::copy(self.folder.join("veth.ko"), root.join("veth.ko"))?;
        let gateway = root.join("bin/gateway");
        // Debug information would be most of the image.
        let strip = run(Command::new("strip").arg("-o").arg(&gateway).arg(tools::gateway()?));
        if !strip.is_ok_and(|output| output.is_some()) {
            fs::copy(tools::gateway()?, &gateway)?;
        }
        copy_libraries(&tools::gateway()?, &root)?;
        for (name, to) in [("ip", "iproute/ip"), ("curl", "bin/curl")] {
            let program = tools::find(name).with_context(|| format!("no {name}"))?;
            fs::copy(fs::canonicalize(&program)?, root.join(to))?;
            copy_libraries(&program, &root)?;
        }
        let init = format!("{INIT}{script}\nsay end\npoweroff -f\n");
        fs::write(root.join("init"), init.replace("MARK", MARK))?;
        let pack = "chmod 755 root/init && cd root && for applet in $(bin/busybox --list); do
                [ -e bin/$applet ] || ln -s busybox bin/$applet; done; find . | busybox cpio -o -H newc > ../image 2>/dev/null";
        ensure!(run(Command::new("sh").args(["-c", pack]).current_dir(dir.path()))?.is_some(), "no image");
        Ok(dir.path().join("image"))
    }
}

const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
# busybox has one of its own, which cannot do namespaces.
ip() { /iproute/ip "$@"; }
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
say() { echo; echo "MARK$*"; }
pass() { say "pass $*"; }
fail() { say "FAIL $*"; }
holds() { what="$1"; shift; if "$@" > /tmp/out 2>&1; then pass "$what"; else fail "$what: $(tail -n 3 /tmp/out)"; fi; }
refused() { what="$1"; shift; if "$@" > /tmp/out 2>&1; then fail "$what: $(tail -n 3 /tmp/out)"; else pass "$what"; fi; }
"#;

/// The newest image package of a series that the package sources know.
fn newest(series: &str) -> Option<String> {
    let pattern = format!("^linux-image-{}\\.[0-9].*cloud-amd64$", series.replace('.', "\\."));
    let list = run(Command::new("apt-cache").args(["search", "--names-only", &pattern])).ok()??;
    let names = list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    names.max_by_key(|name| {
        let numbers = name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u64>().ok());
        numbers.collect::<Vec<_>>()
    })
}

/// What `ldd` lists, at the same places.
fn copy_libraries(program: &Path, root: &Path) -> Result<()> {
    let Some(list) = run(Command::new("ldd").arg(program))? else { bail!("ldd {}", program.display()) };
    for path in list.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::copy(path, to)?;
    }
    Ok(())
}

/// What it printed, if it succeeded.
fn run(command: &mut Command) -> Result<Option<String>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
