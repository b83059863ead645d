//! What a service manager is told (sd_notify(3)), if there is one.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;

pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// With the time, without which `Type=notify-reload` takes it for an older message.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another process is the service from now on, and it is ready.
pub fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready]);
}

/// Tells it that the control thread is alive, if it wants to know, twice in the time after which it would worry.
pub async fn watchdog() {
    let Some(patience) = patience(|name| std::env::var(name).ok(), std::process::id()) else { return };
    let mut every = tokio::time::interval((patience / 2).max(Duration::from_millis(1)));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// Without WATCHDOG_PID it means whoever reads it: the process was started by one that had one.
fn patience(variable: impl Fn(&str) -> Option<String>, own: u32) -> Option<Duration> {
    let us: u64 = variable("WATCHDOG_USEC")?.parse().ok().filter(|us| *us > 0)?;
    let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(own));
    ours.then(|| Duration::from_micros(us))
}

fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    if let Err(error) = send(&socket, &message) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// Never waits: a manager that does not read must not stop us.
fn send(to: &OsStr, message: &str) -> io::Result<()> {
    let to = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(to)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_does_not_read_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1\n").unwrap();
        let mut buffer = [0; 64];
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1\n");
        let full = (0..100_000).find_map(|_| send(path.as_os_str(), "READY=1\n").err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        let name = format!("gateway-test-{}", std::process::id());
        let abstract_one = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1\n").unwrap();
        assert_eq!(abstract_one.recv(&mut buffer).unwrap(), 11);
    }

    #[test]
    fn a_watchdog_is_only_told_if_it_asks_this_process() {
        let asks = |usec: Option<&str>, pid: Option<&str>| {
            let variable = |name: &str| if name == "WATCHDOG_USEC" { usec } else { pid }.map(str::to_owned);
            patience(variable, 7)
        };
        assert_eq!(asks(None, None), None);
        assert_eq!(asks(Some("2000000"), Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(asks(Some("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(asks(Some("2000000"), Some("8")), None);
        assert_eq!(asks(Some("soon"), Some("7")), None);
        assert_eq!(asks(Some("0"), Some("7")), None);
    }
}
