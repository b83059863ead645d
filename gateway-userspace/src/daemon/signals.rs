//! Signals become requests to the control thread.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::UnboundedSender,
};

use super::control::{Reach, Request};

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    pub fn register() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// TERM and INT stop, a second one at once; HUP reloads; USR1 opens the logs anew; USR2 upgrades in
    /// place.
    pub async fn forward(mut self, requests: UnboundedSender<Request>) {
        let mut asked_to_stop = false;
        loop {
            let request = tokio::select! {
                _ = self.terminate.recv() => stop(&mut asked_to_stop),
                _ = self.interrupt.recv() => stop(&mut asked_to_stop),
                // The outcome is logged; nobody waits for it.
                _ = self.hangup.recv() => Request::Reload { reach: Reach::Everything, reply: tokio::sync::oneshot::channel().0 },
                _ = self.user1.recv() => Request::ReopenLogs,
                _ = self.user2.recv() => upgrade(),
            };
            if requests.send(request).is_err() {
                return;
            }
        }
    }
}

fn upgrade() -> Request {
    Request::Upgrade { binary: None, timeout: None, reply: tokio::sync::oneshot::channel().0 }
}

fn stop(asked: &mut bool) -> Request {
    Request::Stop { now: std::mem::replace(asked, true) }
}
