//! Handing over to another process, and taking back: what of that is the control thread's.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::atomic::Ordering::Relaxed,
};

use super::{
    control::Control,
    handover::{Handed, Sockets, VERSION},
    memory,
    workers::Door,
};
use crate::sync::lock;

impl Control {
    /// Every listening socket, and what each is.
    pub(super) fn open_sockets(&self) -> io::Result<(Sockets, Vec<OwnedFd>)> {
        let (mut listeners, mut fds) = (Vec::new(), Vec::new());
        for (bind, sockets) in lock(&self.sockets).values() {
            for socket in sockets {
                listeners.push(bind.to_string());
                fds.push(socket.try_clone()?.into());
            }
        }
        let metrics = pass_on(&self.ends.metrics, &mut fds)?;
        let (path, socket) = &self.ends.admin;
        fds.push(socket.try_clone()?.into());
        let admin = Some(path.clone());
        let admin_http = pass_on(&self.ends.http, &mut fds)?;
        let pid = std::process::id();
        Ok((Sockets { version: VERSION, pid, listeners, metrics, admin, admin_http }, fds))
    }

    /// Has sessions of UDP outlast this process's sockets. Whether there may be any.
    pub(super) fn settle(&self) -> bool {
        let datagrams = lock(&self.sockets).keys().any(|door| matches!(door, Door::Datagrams(..)));
        if datagrams {
            self.workers.settle();
        }
        datagrams
    }

    /// Lets another process have the kernel half and everything that is remembered.
    pub(super) fn let_go(&self) -> Handed {
        let snapshot = self.snapshot.load();
        let kernel = self.kernel.hand_over(&snapshot.config.kernel);
        *lock(&self.handed_over) = Some(kernel.clone());
        let state = self.state();
        Handed {
            generation: snapshot.generation,
            reloads_ok: state.reloads_ok,
            reloads_failed: state.reloads_failed,
            targets: memory::targets(&snapshot),
            counts: self.registry.totals(),
            names: self.names.answers().into_iter().collect(),
            lines: [
                &self.access_log.counts.written,
                &self.access_log.counts.dropped,
                &self.access_log.counts.failed,
            ]
            .map(|lines| lines.load(Relaxed)),
            usages: self.usages(),
            kernel,
        }
    }

    /// Whether another process may be about to take this one's place: what is said of targets now may be lost.
    pub fn hands_over(&self) -> bool {
        lock(&self.handed_over).is_some()
    }

    /// The other process came to nothing.
    pub(super) fn take_back(&self) {
        let Some(kernel) = lock(&self.handed_over).take() else { return };
        let snapshot = self.snapshot.load();
        if let Err(error) = self.kernel.reclaim(&snapshot.config.kernel, kernel) {
            tracing::error!("the kernel half cannot be taken back: {error}");
            return;
        }
        if let Err(error) = self.set_services(&snapshot.config, &snapshot.services) {
            tracing::error!("services are not served: {error}");
        }
        self.steer(&lock(&self.sockets));
    }

    /// Goes on where another process was.
    pub(super) fn recall(&self, handed: &Handed) {
        memory::recall(&self.snapshot.load(), &handed.targets);
        self.registry.carry(&handed.counts);
        self.recall_usages(&handed.usages);
        self.count_reloads(handed.reloads_ok, handed.reloads_failed);
        let lines = &self.access_log.counts;
        for (count, before) in [&lines.written, &lines.dropped, &lines.failed].into_iter().zip(handed.lines) {
            count.fetch_add(before, Relaxed);
        }
    }
}

/// A socket for the other process, if there is one: its address.
fn pass_on(
    end: &Option<(SocketAddr, TcpListener)>,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Option<SocketAddr>> {
    let Some((addr, socket)) = end else { return Ok(None) };
    fds.push(socket.try_clone()?.into());
    Ok(Some(*addr))
}
