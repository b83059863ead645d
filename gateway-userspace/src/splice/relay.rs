//! Bytes both ways until both sides are done.
//!
//! All connections of a worker read into one buffer and write from it, so one that is idle holds no memory; only what
//! the other side does not take at once is kept, and then nothing more is read.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Read at once.
const CHUNK: usize = 128 * 1024;
/// Between two looks at what has passed.
const TELL_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Bytes so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client.
    pub up: Cell<u64>,
    /// To the client.
    pub down: Cell<u64>,
    told: Cell<u64>,
}

impl Traffic {
    /// Since the last time that this was asked.
    pub fn untold(&self) -> u64 {
        let all = self.up.get() + self.down.get();
        all - self.told.replace(all)
    }
}

/// Whose fault an early end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Upstream,
    /// Nothing was sent for too long.
    Neither,
}

/// Why one direction broke off.
enum Broken {
    Reading,
    Writing,
}

/// Carries bytes. An end in one direction is passed on, and the other goes on. `tell` is called every second or so while
/// bytes pass.
pub async fn run<A, B>(
    client: &mut A,
    upstream: &mut B,
    idle: Option<Duration>,
    tell: impl Fn(),
    traffic: &Traffic,
) -> Result<(), Side>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut clock = Clock::new(idle);
    poll_fn(|cx| {
        let before = (traffic.up.get(), traffic.down.get());
        let sent = up.poll(client, upstream, &traffic.up, cx).map_err(|broken| match broken {
            Broken::Reading => Side::Client,
            Broken::Writing => Side::Upstream,
        })?;
        let received = down.poll(upstream, client, &traffic.down, cx).map_err(|broken| match broken {
            Broken::Reading => Side::Upstream,
            Broken::Writing => Side::Client,
        })?;
        if sent.is_ready() && received.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if before != (traffic.up.get(), traffic.down.get()) && clock.moved() {
            tell();
        }
        clock.poll(cx).map(|()| Err(Side::Neither))
    })
    .await
}

/// When something last passed, and when that is too long ago.
struct Clock {
    idle: Option<(Duration, Pin<Box<tokio::time::Sleep>>)>,
    last: Instant,
    told: Instant,
}

impl Clock {
    fn new(idle: Option<Duration>) -> Self {
        let now = Instant::now();
        let idle = idle.map(|idle| (idle, Box::pin(tokio::time::sleep(idle))));
        Clock { idle, last: now, told: now }
    }

    /// Whether it is time to tell.
    fn moved(&mut self) -> bool {
        self.last = Instant::now();
        let due = self.last.duration_since(self.told) >= TELL_EVERY;
        if due {
            self.told = self.last;
        }
        due
    }

    /// The timer is set anew only when it fires: once a limit, not once a read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((idle, sleep)) = &mut self.idle else { return Poll::Pending };
        loop {
            ready!(sleep.as_mut().poll(cx));
            let end = self.last + *idle;
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(end.into());
        }
    }
}

#[derive(Default)]
struct Direction {
    /// Read, and not taken yet from `at` on.
    kept: Vec<u8>,
    at: usize,
    /// Something was written that may not have left yet.
    unflushed: bool,
    ended: bool,
    done: bool,
}

impl Direction {
    /// Ready when the end was reached and passed on.
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        count: &Cell<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.done {
            ready!(self.write_kept(to, count, cx))?;
            if self.ended {
                // Whoever has closed already needs no end.
                let _ = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.done = true;
            } else if self.read(from, to, count, cx)?.is_pending() {
                return self.flush(to, cx);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write_kept<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        count: &Cell<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while self.at < self.kept.len() {
            let rest = self.kept.get(self.at..).unwrap_or_default();
            let n = ready!(written(Pin::new(&mut *to).poll_write(cx, rest)))?;
            self.at += n;
            self.unflushed = true;
            count.set(count.get() + n as u64);
        }
        if self.at > 0 {
            *self = Direction { unflushed: self.unflushed, ended: self.ended, ..Direction::default() };
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what it can of it.
    fn read<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        count: &Cell<u64>,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Broken>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(_)) => return Err(Broken::Reading),
                Poll::Ready(Ok(())) => {}
            }
            let read = buffer.filled();
            if read.is_empty() {
                self.ended = true;
                return Ok(Poll::Ready(()));
            }
            let n = match written(Pin::new(to).poll_write(cx, read)) {
                Poll::Ready(n) => n?,
                Poll::Pending => 0,
            };
            self.unflushed |= n > 0;
            count.set(count.get() + n as u64);
            self.kept.extend_from_slice(read.get(n..).unwrap_or_default());
            Ok(Poll::Ready(()))
        })
    }

    /// TLS keeps what the socket did not take.
    fn flush<W: AsyncWrite + Unpin>(&mut self, to: &mut W, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            match Pin::new(to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Writing)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

fn written(result: Poll<io::Result<usize>>) -> Poll<Result<usize, Broken>> {
    result.map(|written| match written {
        Ok(0) | Err(_) => Err(Broken::Writing),
        Ok(n) => Ok(n),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn carried(
        idle: Option<Duration>,
        mut a: DuplexStream,
        mut b: DuplexStream,
    ) -> (Result<(), Side>, Traffic) {
        let traffic = Traffic::default();
        let result = run(&mut a, &mut b, idle, || {}, &traffic).await;
        (result, traffic)
    }

    #[tokio::test]
    async fn all_bytes_pass_in_both_directions_through_slow_sides() {
        let ((mut client, a), (b, mut server)) = (duplex(7), duplex(1000));
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        let expected = bytes.clone();
        let talk = async {
            let (mut server_in, mut server_out) = tokio::io::split(&mut server);
            let mut got = Vec::new();
            let receive = async { server_in.read_to_end(&mut got).await };
            let reply = async {
                server_out.write_all(b"short").await?;
                server_out.shutdown().await
            };
            let mut answer = Vec::new();
            let (mut client_in, mut client_out) = tokio::io::split(&mut client);
            let send = async {
                client_out.write_all(&bytes).await?;
                client_out.shutdown().await
            };
            // The answer's end comes first: the other direction goes on.
            let (received, replied, sent, read) =
                tokio::join!(receive, reply, send, client_in.read_to_end(&mut answer));
            received.unwrap();
            replied.unwrap();
            sent.unwrap();
            read.unwrap();
            (got, answer)
        };
        let ((got, answer), (result, traffic)) = tokio::join!(talk, carried(None, a, b));
        assert_eq!((result, answer), (Ok(()), b"short".to_vec()));
        assert!(got == expected);
        assert_eq!((traffic.up.get(), traffic.down.get(), traffic.untold()), (300_000, 5, 300_005));
        assert_eq!(traffic.untold(), 0);
    }

    #[tokio::test]
    async fn an_idle_connection_ends_and_a_busy_one_does_not() {
        let ((mut client, a), (b, server)) = (duplex(64), duplex(64));
        let idle = Duration::from_millis(200);
        let began = Instant::now();
        let talk = async {
            for _ in 0..6 {
                tokio::time::sleep(idle / 2).await;
                client.write_all(b"x").await.unwrap();
            }
        };
        let ((), (result, traffic)) = tokio::join!(talk, carried(Some(idle), a, b));
        assert_eq!((result, traffic.up.get()), (Err(Side::Neither), 6));
        assert!(began.elapsed() >= idle * 4, "{:?}", began.elapsed());
        drop(server);
    }

    #[tokio::test]
    async fn a_side_that_takes_nothing_more_is_blamed() {
        let ((mut client, a), (b, server)) = (duplex(64), duplex(64));
        drop(server);
        client.write_all(b"x").await.unwrap();
        assert_eq!(carried(None, a, b).await.0, Err(Side::Upstream));
    }
}
