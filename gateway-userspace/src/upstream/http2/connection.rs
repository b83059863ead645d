//! A connection that many requests of a worker share.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    Ping,
    client::{self, SendRequest},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::upstream::{Target, gauge::Gauge, http1::MAX_HEAD};

/// Of a stream: what a target may send before the client has taken it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Of requests at once, however many more a target takes.
const MOST_STREAMS: usize = 128;
/// Streams never wait for one another: the connection's window has room for all of theirs.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// What is sent waits here, a stream each.
const SEND_BUFFER: usize = 256 * 1024;
/// How long a target that let a request down may take for a PING.
const DOUBT: Duration = Duration::from_secs(2);

/// Requests are sent on it as long as it is picked; when it is dropped, the connection ends with its last stream.
pub struct Connection {
    sender: SendRequest<Bytes>,
    pub shared: Rc<Shared>,
}

/// What a connection, its task and its streams share.
pub struct Shared {
    pub gauge: Gauge,
    active: Cell<usize>,
    /// It had an answer.
    pub proven: Cell<bool>,
    idle_since: Cell<Instant>,
    ended: Cell<bool>,
    /// A request got no answer in time, or wants to know the target's settings.
    doubted: Cell<bool>,
    /// The target has told its settings.
    greeted: Cell<bool>,
    /// Who waits for them.
    waiting: RefCell<Vec<Waker>>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// Says hello. A task of the worker keeps the connection alive.
    pub async fn begin<S>(stream: S, target: Arc<Target>, worker: usize) -> io::Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD as u32)
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let shared = Rc::new(Shared {
            gauge: Gauge::new(target, worker),
            active: Cell::new(0),
            proven: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            ended: Cell::new(false),
            doubted: Cell::new(false),
            greeted: Cell::new(false),
            waiting: RefCell::default(),
            task: RefCell::default(),
        });
        tokio::task::spawn_local(keep(connection, shared.clone()));
        Ok(Connection { sender, shared })
    }

    /// Whether another stream can be opened now.
    pub fn has_room(&self) -> bool {
        self.open() && self.shared.active.get() < self.takes()
    }

    /// Streams at once, as far as the target has told.
    pub fn takes(&self) -> usize {
        self.sender.current_max_send_streams().min(MOST_STREAMS)
    }

    /// Neither ended nor told to by GOAWAY.
    pub fn open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.shared.ended.get() && !matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    pub fn idle_since(&self) -> Option<Instant> {
        (self.shared.active.get() == 0).then_some(self.shared.idle_since.get())
    }

    pub fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }
}

impl Shared {
    pub fn over(&self) -> bool {
        self.ended.get()
    }

    pub fn enter(&self) {
        self.active.set(self.active.get() + 1);
        self.gauge.set_idle(false);
    }

    pub fn leave(&self) {
        self.active.set(self.active.get() - 1);
        if self.active.get() == 0 {
            self.idle_since.set(Instant::now());
            self.gauge.set_idle(true);
        }
    }

    /// Ready when the target's settings are known, which come before anything else that it sends.
    pub fn poll_greeted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.greeted.get() || self.proven.get() || self.ended.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        self.doubt();
        Poll::Pending
    }

    fn tell_waiting(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// It is to show that it is still there, or all its requests fail.
    pub fn doubt(&self) {
        if !self.doubted.replace(true)
            && let Some(task) = &*self.task.borrow()
        {
            task.wake_by_ref();
        }
    }
}

/// Reads and writes until the connection ends, or does not answer when it is asked to.
async fn keep<S>(connection: client::Connection<S, Bytes>, shared: Rc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    let mut ping = connection.ping_pong();
    let mut until = None;
    let target = shared.gauge.target().name.clone();
    poll_fn(|cx| {
        if shared.task.borrow().is_none() {
            shared.task.replace(Some(cx.waker().clone()));
        }
        if let Poll::Ready(result) = connection.as_mut().poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%target, %error, "HTTP/2 connection ended");
            }
            return Poll::Ready(());
        }
        let Some(ping) = &mut ping else { return Poll::Pending };
        if shared.doubted.get() && until.is_none() && ping.send_ping(Ping::opaque()).is_ok() {
            until = Some(Box::pin(tokio::time::sleep(DOUBT)));
            // The PING is written by another look at it.
            cx.waker().wake_by_ref();
        }
        if let Some(end) = &mut until {
            match (ping.poll_pong(cx), end.as_mut().poll(cx)) {
                (Poll::Ready(Ok(_)), _) => {
                    until = None;
                    shared.doubted.set(false);
                    shared.greeted.set(true);
                    shared.tell_waiting();
                }
                (_, Poll::Ready(())) => {
                    tracing::debug!(%target, "HTTP/2 connection does not answer a PING");
                    return Poll::Ready(());
                }
                _ => {}
            }
        }
        Poll::Pending
    })
    .await;
    shared.ended.set(true);
    shared.tell_waiting();
}
