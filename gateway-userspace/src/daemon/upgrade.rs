//! The old process's side of an upgrade in place; see [`super::handover`].
//!
//! Until the new process says that it serves, everything can be taken back: this one goes on accepting all the time, and
//! only the kernel half has to be adopted once more.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
    sync::mpsc::UnboundedReceiver,
};

use super::{
    control::{Control, ReloadError, Request},
    handover::{self, FromNew, FromOld, VARIABLE},
    manager,
};
use crate::{net::pass, observe::stats::Totals};

/// How long the new process may take until it serves, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// What sessions of UDP take to have sockets of their own.
const SETTLED: Duration = Duration::from_millis(50);
/// How long one that has failed may take to end.
const END: Duration = Duration::from_secs(1);
/// Between two messages of what is still counted.
const COUNTS_EVERY: Duration = Duration::from_secs(2);
/// Deleted files are shown so in /proc/PID/exe.
const DELETED: &str = " (deleted)";

#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("cannot start {binary}: {error}")]
    Start { binary: String, error: io::Error },
    #[error("the new process ended before it was ready ({0}); its log says why")]
    Ended(String),
    #[error("the new process refused: {0}")]
    Refused(String),
    #[error("the new process was not ready within {0:?}")]
    TimedOut(Duration),
    #[error("the handover broke off: {0}")]
    Broken(io::Error),
    #[error("an upgrade is under way")]
    UnderWay,
    #[error("the gateway is stopping")]
    Stopping,
}

/// Who serves now.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Upgrade {
    pub pid: u32,
    pub binary: PathBuf,
    /// This process, which ends when its connections have.
    pub draining: u32,
}

/// The new process, serving, and the way to it.
pub struct Successor {
    pub upgrade: Upgrade,
    stream: UnixStream,
    /// What it knows of.
    told: Totals,
}

/// How an upgrade ended.
pub enum Outcome {
    Upgraded(Successor),
    Failed(UpgradeError),
    /// Somebody wanted the gateway to stop meanwhile.
    Stop {
        now: bool,
    },
}

/// Upgrades, and does meanwhile what is asked and does not get in the way.
pub async fn upgrade(
    control: &Arc<Control>,
    requests: &mut UnboundedReceiver<Request>,
    binary: Option<PathBuf>,
    patience: Option<Duration>,
) -> Outcome {
    let binary = match binary.map_or_else(own_binary, Ok) {
        Ok(binary) => binary,
        Err(error) => {
            let binary = "/proc/self/exe".to_owned();
            return Outcome::Failed(UpgradeError::Start { binary, error });
        }
    };
    tracing::info!(binary = %binary.display(), "upgrading");
    manager::reloading();
    let outcome = {
        let mut attempt = std::pin::pin!(attempt(control, &binary, patience.unwrap_or(PATIENCE)));
        loop {
            tokio::select! {
                result = &mut attempt => break match result {
                    Ok(successor) => Outcome::Upgraded(successor),
                    Err(error) => Outcome::Failed(error),
                },
                request = requests.recv() => match request {
                    Some(Request::Stop { now }) => break Outcome::Stop { now },
                    None => break Outcome::Stop { now: false },
                    Some(Request::Reload { reply, .. }) => drop(reply.send(Err(ReloadError::Upgrading))),
                    Some(Request::Upgrade { reply, .. }) => drop(reply.send(Err(UpgradeError::UnderWay))),
                    Some(Request::ReopenLogs) => control.access_log.reopen(),
                },
            }
        }
    };
    if !matches!(outcome, Outcome::Upgraded(_)) {
        control.take_back();
        manager::ready();
    }
    outcome
}

/// Where this program is now: whatever is there by now, if the file was replaced.
fn own_binary() -> io::Result<PathBuf> {
    let path = std::fs::read_link("/proc/self/exe")?;
    let replaced = path.to_str().and_then(|path| path.strip_suffix(DELETED)).map(PathBuf::from);
    Ok(replaced.filter(|_| !path.exists()).unwrap_or(path))
}

async fn attempt(
    control: &Arc<Control>,
    binary: &Path,
    patience: Duration,
) -> Result<Successor, UpgradeError> {
    let failed = |error| UpgradeError::Start { binary: binary.display().to_string(), error };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
    ours.set_nonblocking(true).map_err(failed)?;
    let mut stream = UnixStream::from_std(ours).map_err(failed)?;
    let mut child = Started(Some(start(binary, theirs).map_err(failed)?));
    let pid = child.0.as_ref().map_or(0, Child::id);
    match tokio::time::timeout(patience, talk(control, &mut stream, pid)).await {
        Ok(Ok(told)) => {
            child.0 = None;
            let upgrade = Upgrade { pid, binary: binary.to_owned(), draining: std::process::id() };
            Ok(Successor { upgrade, stream, told })
        }
        Ok(Err(UpgradeError::Broken(_))) => Err(UpgradeError::Ended(child.end().await)),
        Ok(Err(error)) => {
            child.end().await;
            Err(error)
        }
        Err(_) => Err(UpgradeError::TimedOut(patience)),
    }
}

fn start(binary: &Path, socket: std::os::unix::net::UnixStream) -> io::Result<Child> {
    let mut command = Command::new(binary);
    command
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)));
    // They are about this process, and about sockets that are handed over in another way.
    for variable in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(variable);
    }
    command.spawn()
}

/// Until the new process serves: what it was told of the counters.
async fn talk(control: &Arc<Control>, stream: &mut UnixStream, pid: u32) -> Result<Totals, UpgradeError> {
    introduce(control, stream).await.map_err(UpgradeError::Broken)?;
    let mut told = Totals::default();
    loop {
        match receive(stream).await.map_err(UpgradeError::Broken)? {
            FromNew::Claim => {
                if control.settle() {
                    // Before the new process has sockets that would take what belongs to them.
                    tokio::time::sleep(SETTLED).await;
                }
                let handed = control.let_go();
                told = handed.counts.clone();
                send(stream, &FromOld::Handed(Box::new(handed))).await.map_err(UpgradeError::Broken)?;
            }
            FromNew::Failed { why } => return Err(UpgradeError::Refused(why)),
            FromNew::Ready => {
                manager::succeeded_by(pid);
                // It serves, whether it hears this or not.
                let _ = send(stream, &FromOld::Go).await;
                return Ok(told);
            }
        }
    }
}

async fn introduce(control: &Control, stream: &mut UnixStream) -> io::Result<()> {
    let (sockets, fds) = control.open_sockets()?;
    send(stream, &FromOld::Sockets(sockets)).await?;
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    for batch in fds.chunks(pass::BATCH) {
        send_fds(stream, batch).await?;
    }
    Ok(())
}

impl Successor {
    /// Tells it what is still counted here, until this is dropped.
    pub async fn keep_counting(&mut self, control: &Control) {
        loop {
            tokio::time::sleep(COUNTS_EVERY).await;
            self.tell_counts(control).await;
        }
    }

    pub async fn tell_counts(&mut self, control: &Control) {
        let now = control.registry.totals();
        let counts = now.since(&self.told);
        if !counts.is_empty() && send(&mut self.stream, &FromOld::Counts { counts }).await.is_ok() {
            self.told = now;
        }
    }
}

/// A process that is to serve, and is killed if it comes to nothing.
struct Started(Option<Child>);

impl Started {
    /// Waits for its end, by force if need be: how it ended.
    async fn end(mut self) -> String {
        let Some(child) = &mut self.0 else { return String::new() };
        let give_up = Instant::now() + END;
        while Instant::now() < give_up {
            if let Ok(Some(status)) = child.try_wait() {
                self.0 = None;
                return describe(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        "it had to be killed".into()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn describe(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

async fn send(stream: &mut UnixStream, message: &FromOld) -> io::Result<()> {
    stream.write_all(&handover::encode(message)?).await
}

async fn send_fds(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    stream.async_io(Interest::WRITABLE, || pass::send_fds(stream.as_fd(), fds)).await
}

async fn receive(stream: &mut UnixStream) -> io::Result<FromNew> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await?;
    let mut json = vec![0; handover::length(prefix)?];
    stream.read_exact(&mut json).await?;
    handover::decode(&json)
}
