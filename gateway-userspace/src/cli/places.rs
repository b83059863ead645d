//! Where things are unless somebody says otherwise; the config's own defaults name the same places.

pub const CONFIG: &str = "/etc/gateway/gateway.toml";
pub const SOCKET: &str = "/run/gateway/admin.sock";
pub const PIN: &str = "/sys/fs/bpf/gateway";
