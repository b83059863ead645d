//! What the process itself uses, from /proc/self.

use std::fs;

#[derive(Debug, Default, Clone, Copy)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub open_fds: u64,
    pub max_fds: u64,
}

/// Fields that /proc does not tell are zero.
pub fn usage() -> Usage {
    let (cpu_seconds, resident_bytes) = cpu_and_memory();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let max_fds = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next()?.parse().ok());
    Usage { cpu_seconds, resident_bytes, open_fds: open_fds(), max_fds: max_fds.unwrap_or(0) }
}

/// The size of their directory (Linux 6.2); before, they are counted.
fn open_fds() -> u64 {
    let folder = "/proc/self/fd";
    let told = fs::metadata(folder).map_or(0, |told| told.len());
    if told > 0 { told } else { fs::read_dir(folder).map_or(0, |entries| entries.count() as u64) }
}

/// CPU seconds and resident bytes.
pub fn cpu_and_memory() -> (f64, u64) {
    stat().unwrap_or_default()
}

/// proc_pid_stat(5): utime and stime are fields 14 and 15, rss is 24.
fn stat() -> Option<(f64, u64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let pages: u64 = fields.get(21)?.parse().ok()?;
    // USER_HZ is 100 on every architecture that this runs on, and BPF hosts have 4 KiB pages or tell smaller figures.
    Some((ticks as f64 / 100.0, pages * 4096))
}
