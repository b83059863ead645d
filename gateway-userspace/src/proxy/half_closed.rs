//! A client that has said all it will and waits for its answer, as `nc -N` does: to the socket it looks like one that is
//! gone.
//!
//! What tells them apart is their word on bytes that are sent: who is gone answers with a reset. So the first bytes of every
//! answer go out before there is one, and between two chunks the first of the next one's size. Where neither can be, in the
//! middle of an answer whose length is told, silence is waited for.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{io::Interest, net::TcpStream, task::JoinHandle};

use super::{connection::ClientState, timer::Wait};

/// What answers by HTTP/1.1 and 1.0 begin with.
pub const BEGINNING: &[u8] = b"HTTP/1.";
/// What the size of a chunk may begin with, whatever it is, also that of the last (RFC 9112 section 7.1).
pub const ZERO: &[u8] = b"0";
/// Nobody waits for so long for more of an answer that has begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks out for the reset.
pub struct HalfClosed {
    gone: Rc<Cell<bool>>,
    lookout: Option<JoinHandle<()>>,
}

impl HalfClosed {
    pub fn new(socket: &TcpStream, state: &Rc<ClientState>) -> Self {
        let gone = Rc::new(Cell::new(false));
        // Of its own, as the connection's is read and written by others.
        let socket = socket2::SockRef::from(socket).try_clone();
        let Ok(socket) = socket.and_then(|socket| TcpStream::from_std(socket.into())) else {
            // Without descriptors nobody can be looked out for.
            gone.set(true);
            return HalfClosed { gone, lookout: None };
        };
        let (state, told) = (state.clone(), gone.clone());
        let lookout = tokio::task::spawn_local(async move {
            end(&socket, &state).await;
            told.set(true);
            state.timer.wake();
        });
        HalfClosed { gone, lookout: Some(lookout) }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }
}

impl Drop for HalfClosed {
    /// The connection's close must not wait for it.
    fn drop(&mut self) {
        if let Some(lookout) = &self.lookout {
            lookout.abort();
        }
    }
}

/// Until the client is gone.
async fn end(socket: &TcpStream, state: &ClientState) {
    let mut sent = state.answer_so_far();
    loop {
        let reset = socket.ready(Interest::ERROR);
        if tokio::time::timeout(PATIENCE, reset).await.is_ok() {
            return;
        }
        let now = state.answer_so_far().filter(|_| state.timer.waiting_for() != Wait::Write);
        if now.is_some() && now == sent {
            return;
        }
        sent = now;
    }
}
