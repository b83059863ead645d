//! Bodies out of the cache: of what is stored, and of what is being fetched.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::{
    cache::fill::Reader,
    observe::Why,
    proxy::{
        body::Cut,
        exchange::Exchange,
        timer::{Expired, Wait},
    },
};

type Polled = Poll<Option<Result<Frame<Bytes>, Cut>>>;

pub struct StoredBody {
    source: Source,
    exchange: Exchange,
}

enum Source {
    Pieces { pieces: Arc<[Bytes]>, at: usize, skip: u64, left: u64 },
    Growing { reader: Reader, length: Option<u64>, idle: Duration, pending_since: Option<Instant> },
}

impl StoredBody {
    /// `length` bytes from `start` on.
    pub fn of(pieces: Arc<[Bytes]>, start: u64, length: u64, exchange: Exchange) -> Self {
        StoredBody { source: Source::Pieces { pieces, at: 0, skip: start, left: length }, exchange }
    }

    /// `length`: if it is known. `idle`: how long nothing may come.
    pub fn growing(reader: Reader, length: Option<u64>, idle: Duration, exchange: Exchange) -> Self {
        StoredBody { source: Source::Growing { reader, length, idle, pending_since: None }, exchange }
    }

    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub fn into_exchange(self) -> Exchange {
        self.exchange
    }

    pub fn ended(&self) -> bool {
        match &self.source {
            Source::Pieces { left, .. } => *left == 0,
            Source::Growing { reader, .. } => reader.ended(),
        }
    }

    pub fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Pieces { left, .. } => SizeHint::with_exact(*left),
            Source::Growing { length: Some(length), .. } => SizeHint::with_exact(*length),
            Source::Growing { length: None, .. } => SizeHint::default(),
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        match &mut self.source {
            Source::Pieces { pieces, at, skip, left } => {
                let data = next(pieces, at, skip, left);
                if *left == 0 {
                    self.exchange.complete();
                }
                self.send(data)
            }
            Source::Growing { .. } => self.poll_growing(cx),
        }
    }

    fn send(&self, data: Option<Bytes>) -> Polled {
        self.exchange.add_bytes_out(data.as_ref().map_or(0, |data| data.len() as u64));
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn poll_growing(&mut self, cx: &mut Context<'_>) -> Polled {
        let Source::Growing { reader, length, idle, pending_since } = &mut self.source else {
            return Poll::Ready(None);
        };
        let state = &self.exchange.state;
        let Poll::Ready(read) = reader.poll(cx) else {
            let cut = match state.timer.take_expired() {
                Some(Expired::Total) => Why::UpstreamTotalTimeout,
                Some(Expired::Wait(_)) => Why::UpstreamIdleTimeout,
                None => {
                    state.timer.ensure(Wait::ResponseBody, *idle);
                    pending_since.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            };
            return self.cut(cut);
        };
        if let Some(since) = pending_since.take() {
            state.body_waited.set(state.body_waited.get() + since.elapsed());
            state.timer.stop();
        }
        match read {
            Some(Ok(data)) => {
                if let Some(left) = length {
                    *left = left.saturating_sub(data.len() as u64);
                }
                if reader.ended() {
                    self.exchange.complete();
                }
                self.send(Some(data))
            }
            Some(Err(why)) => self.cut(why),
            None => {
                self.exchange.complete();
                Poll::Ready(None)
            }
        }
    }

    fn cut(&self, why: Why) -> Polled {
        self.exchange.cut(why);
        Poll::Ready(Some(Err(Cut(why))))
    }
}

fn next(pieces: &[Bytes], at: &mut usize, skip: &mut u64, left: &mut u64) -> Option<Bytes> {
    while *left > 0 {
        let piece = pieces.get(*at)?;
        *at += 1;
        let length = piece.len() as u64;
        if *skip >= length {
            *skip -= length;
            continue;
        }
        let end = (*skip + *left).min(length);
        // Both are within the piece.
        let data = piece.slice(*skip as usize..end as usize);
        *skip = 0;
        *left -= data.len() as u64;
        return Some(data);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_any_pieces_is_what_it_is_of_the_whole() {
        let whole = b"abcdefghij";
        let pieces: Vec<Bytes> =
            vec![whole[..3].to_vec().into(), whole[3..4].to_vec().into(), whole[4..].to_vec().into()];
        for start in 0..10u64 {
            for end in start..=10 {
                let (mut at, mut skip, mut left) = (0, start, end - start);
                let mut read = Vec::new();
                while let Some(data) = next(&pieces, &mut at, &mut skip, &mut left) {
                    read.extend_from_slice(&data);
                }
                assert_eq!(read, &whole[start as usize..end as usize]);
            }
        }
    }
}
