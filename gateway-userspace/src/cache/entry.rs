//! A stored response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU8, Ordering::Relaxed},
    },
    time::SystemTime,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::net::pages;

use super::{
    freshness::{Terms, millis},
    vary::{self, Selected},
};

/// What an entry costs beside what it holds: itself, its place in the table and in the queues.
const OVERHEAD: usize = size_of::<Entry>() + 256;
/// Of a field, in a header map.
const FIELD: usize = 104;
/// Bodies up to this size are one piece, so that they are sent by one call, and in [`pages`] if they are not small.
const ONE_PIECE: usize = 1 << 20;

#[derive(Debug)]
pub struct Entry {
    pub key: Arc<[u8]>,
    pub vary: Box<[Selected]>,
    pub status: StatusCode,
    /// Ready to be sent, but for what each answer has of its own. The values share one buffer.
    pub headers: HeaderMap,
    pub body: Body,
    pub tags: Box<[Box<[u8]>]>,
    pub terms: Terms,
    /// All that it takes of the budget.
    pub size: usize,
    /// Since when it is stale, if somebody said so; milliseconds since 1970. 0: nobody did.
    stale_since: AtomicI64,
    /// How often it was used, up to 3: what eviction goes by.
    pub(super) uses: AtomicU8,
    /// Which queue it waits in.
    pub(super) place: AtomicU8,
}

/// A body, in pieces of its own.
#[derive(Debug, Clone, Default)]
pub struct Body {
    pub pieces: Arc<[Bytes]>,
    pub length: u64,
}

impl Body {
    pub fn new(pieces: Vec<Bytes>) -> Self {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length <= ONE_PIECE
            && let Some(whole) = pages::keep(&pieces)
        {
            return Body { pieces: [whole].into(), length: length as u64 };
        }
        if pieces.len() > 1 && length <= ONE_PIECE {
            let mut whole = BytesMut::with_capacity(length);
            pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
            return Body { pieces: [whole.freeze()].into(), length: length as u64 };
        }
        Body { pieces: pieces.into_iter().filter(|piece| !piece.is_empty()).collect(), length: length as u64 }
    }
}

impl Entry {
    pub fn new(
        key: Arc<[u8]>,
        vary: Box<[Selected]>,
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
        tags: Box<[Box<[u8]>]>,
        terms: Terms,
    ) -> Self {
        let fields: usize =
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum();
        let tags_size: usize = tags.iter().map(|tag| tag.len() + 32).sum();
        let pieces = body.pieces.len() * size_of::<Bytes>();
        let taken = |piece: &Bytes| match pages::find(piece) {
            Some(_) => pages::taken(piece.len()),
            None => piece.len(),
        };
        let body_size: usize = body.pieces.iter().map(taken).sum();
        let size = OVERHEAD + key.len() + vary::weight(&vary) + fields + tags_size + pieces + body_size;
        Entry {
            key,
            vary,
            status,
            headers,
            body,
            tags,
            terms,
            size,
            stale_since: AtomicI64::new(0),
            uses: AtomicU8::new(0),
            place: AtomicU8::new(0),
        }
    }

    /// As it is after the upstream said that it still holds.
    pub fn freshened(&self, headers: &HeaderMap, terms: Terms) -> Entry {
        let headers = compact(headers.clone());
        let body = self.body.clone();
        let (key, vary, tags) = (self.key.clone(), self.vary.clone(), self.tags.clone());
        Entry::new(key, vary, self.status, headers, body, tags, terms)
    }

    pub fn mark_stale(&self, now: SystemTime) {
        self.stale_since.store(millis(now), Relaxed);
    }

    /// As it was kept elsewhere; 0: it is not.
    pub(super) fn stale_from(&self, since: i64) {
        self.stale_since.store(since, Relaxed);
    }

    pub fn stale_since(&self) -> Option<i64> {
        Some(self.stale_since.load(Relaxed)).filter(|since| *since != 0)
    }

    /// It was used. Those that are used a lot are only read.
    pub fn used(&self) {
        let uses = self.uses.load(Relaxed);
        if uses < 3 {
            self.uses.store(uses + 1, Relaxed);
        }
    }
}

/// The same fields, their values in one buffer: as they came they would keep all of what was read with them.
pub fn compact(headers: HeaderMap) -> HeaderMap {
    let length: usize = headers.values().map(HeaderValue::len).sum();
    let mut buffer = BytesMut::with_capacity(length);
    headers.values().for_each(|value| buffer.extend_from_slice(value.as_bytes()));
    let mut buffer: Bytes = buffer.freeze();
    let mut compact = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in &headers {
        // It was a value, so it is one.
        if let Ok(value) = HeaderValue::from_maybe_shared(buffer.split_to(value.len())) {
            compact.append(name.clone(), value);
        }
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kept_as_they_are_in_a_buffer_of_their_own() {
        let mut headers = HeaderMap::new();
        let read = Bytes::from(vec![b'x'; 65536]);
        headers.append("a", HeaderValue::from_maybe_shared(read.slice(0..3)).unwrap());
        headers.append("a", HeaderValue::from_static("2"));
        headers.append("b", HeaderValue::from_static(""));
        assert_eq!(compact(headers.clone()), headers);
        drop(headers);
        assert!(read.is_unique());
    }

    #[test]
    fn small_bodies_are_one_piece_and_large_ones_are_not_copied() {
        let small = Body::new(vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")]);
        assert_eq!((&*small.pieces, small.length), (&[Bytes::from_static(b"abc")][..], 3));
        let large = Body::new(vec![Bytes::from(vec![0; ONE_PIECE]), Bytes::from_static(b"c")]);
        assert_eq!((large.pieces.len(), large.length), (2, ONE_PIECE as u64 + 1));
    }
}
