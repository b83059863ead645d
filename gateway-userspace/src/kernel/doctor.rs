//! What this host offers the kernel half, checked without changing anything.

use std::{fs, path::Path};

use aya::programs::ProgramType;

use super::{
    interfaces,
    report::{CheckState, DoctorCheck},
    sys,
};

/// Checks the kernel, the privileges and the given interfaces (none given: all that are up).
pub fn doctor(asked: &[String]) -> Vec<DoctorCheck> {
    let mut checks = vec![kernel(), btf(), jit(), capabilities(), bpffs(), descriptors()];
    checks.push(program("XDP", ProgramType::Xdp));
    checks.push(program("socket lookup", ProgramType::SkLookup));
    let named = !asked.is_empty();
    let looked_at = if named { asked.to_vec() } else { interfaces::up() };
    checks.extend(looked_at.iter().map(|name| interface(name, named)));
    checks
}

fn check(name: &str, state: CheckState, detail: impl Into<String>, cure: Option<&str>) -> DoctorCheck {
    DoctorCheck { name: name.to_owned(), state, detail: detail.into(), cure: cure.map(str::to_owned) }
}

fn kernel() -> DoctorCheck {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let (state, cure) = match version {
        (6, 1..) | (7.., _) => (CheckState::Ok, None),
        (5, 18..) | (6, 0) => (CheckState::Warn, Some("tested from Linux 6.1 on: upgrade if you can")),
        _ => (CheckState::Fail, Some("XDP as used here needs Linux 5.18, better 6.1: upgrade the kernel")),
    };
    check("kernel", state, format!("Linux {release}"), cure)
}

fn btf() -> DoctorCheck {
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        return check("BTF", CheckState::Ok, "/sys/kernel/btf/vmlinux", None);
    }
    check(
        "BTF",
        CheckState::Warn,
        "no /sys/kernel/btf/vmlinux",
        Some("not needed to run; debugging is easier with CONFIG_DEBUG_INFO_BTF"),
    )
}

fn descriptors() -> DoctorCheck {
    let most = crate::net::most_descriptors();
    let detail = most.map_or("any number".to_owned(), |most| format!("up to {most}"));
    match most {
        Some(..65_536) => {
            let cure = "a connection takes two: LimitNOFILE=1048576 in the unit, or ulimit -Hn";
            check("descriptors", CheckState::Warn, detail, Some(cure))
        }
        _ => check("descriptors", CheckState::Ok, detail, None),
    }
}

fn jit() -> DoctorCheck {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").as_deref().map(str::trim) {
        Ok("0") => check(
            "BPF JIT",
            CheckState::Warn,
            "off: every packet is interpreted",
            Some("sysctl -w net.core.bpf_jit_enable=1"),
        ),
        _ => check("BPF JIT", CheckState::Ok, "on", None),
    }
}

fn capabilities() -> DoctorCheck {
    let missing = missing_capabilities();
    if missing.is_empty() {
        return check("capabilities", CheckState::Ok, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON", None);
    }
    check(
        "capabilities",
        CheckState::Fail,
        format!("missing: {}", missing.join(", ")),
        Some("run as root, or give the service AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON"),
    )
}

/// Those of the three that this process does not have. CAP_SYS_ADMIN stands for the BPF ones, as in the kernel.
pub fn missing_capabilities() -> Vec<&'static str> {
    let have = sys::effective_capabilities();
    let has = |bit: u32| have & (1 << bit) != 0;
    let admin = has(sys::CAP_SYS_ADMIN);
    [
        ("CAP_BPF", has(sys::CAP_BPF) || admin),
        ("CAP_NET_ADMIN", has(sys::CAP_NET_ADMIN)),
        ("CAP_PERFMON", has(sys::CAP_PERFMON) || admin),
    ]
    .into_iter()
    .filter(|(_, has)| !has)
    .map(|(name, _)| name)
    .collect()
}

fn bpffs() -> DoctorCheck {
    let usual = Path::new("/sys/fs/bpf");
    if sys::is_bpffs(usual) {
        return check("bpffs", CheckState::Ok, "mounted at /sys/fs/bpf", None);
    }
    check(
        "bpffs",
        CheckState::Warn,
        "nothing is mounted at /sys/fs/bpf: bans and buckets do not outlive the daemon",
        Some("mount -t bpf bpf /sys/fs/bpf (root's gateway does it by itself)"),
    )
}

fn program(what: &str, kind: ProgramType) -> DoctorCheck {
    match aya::sys::is_program_supported(kind) {
        Ok(true) => check(what, CheckState::Ok, "supported", None),
        Ok(false) => {
            check(what, CheckState::Fail, "this kernel does not have it", Some("upgrade the kernel"))
        }
        Err(error) => check(
            what,
            CheckState::Warn,
            format!("cannot tell: {}", super::error::chain(&error)),
            Some("run it as root"),
        ),
    }
}

/// Drivers with native XDP in Linux 6.1 and later.
const NATIVE: [&str; 33] = [
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fec",
    "fsl_dpaa2_eth",
    "funeth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "mvpp2",
    "netvsc",
    "nfp",
    "octeontx2",
    "qede",
    "sfc",
    "stmmac",
    "tun",
    "veth",
    "virtio_net",
];

fn interface(name: &str, named: bool) -> DoctorCheck {
    let title = format!("interface {name}");
    let Some(ifindex) = sys::ifindex(name) else {
        return check(&title, CheckState::Fail, "there is no such interface", Some("`ip link` lists them"));
    };
    if let Some(other) = interfaces::program_on(ifindex).filter(|program| program.name != "xdp_gateway") {
        let detail = format!("another XDP program is there ({}), so ours cannot be", other.describe());
        return check(&title, CheckState::Warn, detail, Some(&other.cure(name)));
    }
    if name == "lo" {
        return check(&title, CheckState::Ok, "XDP in generic mode: the loopback has no driver", None);
    }
    match interfaces::driver(name) {
        Some(driver) if NATIVE.contains(&driver.as_str()) => {
            check(&title, CheckState::Ok, format!("XDP in native mode (driver {driver})"), None)
        }
        driver => {
            let driver = driver.map_or("a virtual interface".to_owned(), |driver| format!("driver {driver}"));
            let state = if named { CheckState::Warn } else { CheckState::Ok };
            check(&title, state, format!("XDP probably in generic mode ({driver})"), None)
        }
    }
}
