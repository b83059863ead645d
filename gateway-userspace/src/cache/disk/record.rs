//! What is written of a response, of one that is no longer good, and of a purge.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    super::{
        entry::{Body, Entry, compact},
        freshness::Terms,
        key::Place,
        purge::{Noted, Purge},
        vary::Selected,
    },
    codec::{Reader, Writer},
};

/// Fields of one response; hyper takes no more.
const MOST_FIELDS: u32 = 1 << 14;

/// A line of a segment's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    Entry {
        hash: u128,
        at: Span,
        vary: Box<[Selected]>,
    },
    /// Those before it are no longer good; `None`: of any variant.
    Forget {
        hash: u128,
        vary: Option<Box<[Selected]>>,
    },
    Purge(Noted),
}

/// Where a record's parts are in its segment. `meta` and `body` are lengths, with tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    pub offset: u32,
    pub meta: u32,
    pub body: u32,
}

pub const ENTRY: u8 = 1;
pub const FORGET: u8 = 2;
pub const PURGE: u8 = 3;

impl Row {
    /// What a record of this kind says at its start.
    pub fn of_record(kind: u8, meta: &[u8], at: Span) -> Option<Row> {
        let mut reader = Reader(meta);
        let row = match kind {
            ENTRY => {
                let row = Row::Entry { hash: reader.u128()?, vary: reader.vary()?, at };
                reader = Reader(&[]);
                row
            }
            FORGET => forget(&mut reader)?,
            PURGE => Row::Purge(purge(&mut reader)?),
            _ => return None,
        };
        reader.0.is_empty().then_some(row)
    }

    pub fn write(&self, out: &mut Writer) {
        match self {
            Row::Entry { hash, at, vary } => {
                out.u8(ENTRY);
                [at.offset, at.meta, at.body].into_iter().for_each(|n| out.u32(n));
                out.u128(*hash);
                out.vary(vary);
            }
            Row::Forget { hash, vary } => {
                out.u8(FORGET);
                write_forget(*hash, vary.as_deref(), out);
            }
            Row::Purge(noted) => {
                out.u8(PURGE);
                write_purge(noted, out);
            }
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Row> {
        Some(match reader.u8()? {
            ENTRY => {
                let at = Span { offset: reader.u32()?, meta: reader.u32()?, body: reader.u32()? };
                Row::Entry { at, hash: reader.u128()?, vary: reader.vary()? }
            }
            FORGET => forget(reader)?,
            PURGE => Row::Purge(purge(reader)?),
            _ => return None,
        })
    }
}

fn forget(reader: &mut Reader<'_>) -> Option<Row> {
    let hash = reader.u128()?;
    let vary = if reader.bool()? { Some(reader.vary()?) } else { None };
    Some(Row::Forget { hash, vary })
}

pub fn write_forget(hash: u128, vary: Option<&[Selected]>, out: &mut Writer) {
    out.u128(hash);
    out.u8(u8::from(vary.is_some()));
    if let Some(vary) = vary {
        out.vary(vary);
    }
}

fn purge(reader: &mut Reader<'_>) -> Option<Noted> {
    let number = reader.u64()?;
    let soft = if reader.bool()? { Some(reader.i64()?) } else { None };
    let (kind, text) = (reader.u8()?, reader.bytes()?);
    let purge = match kind {
        0 if text.is_empty() => Purge::All,
        1 | 2 => Purge::At(Place::parse(std::str::from_utf8(text).ok()?, kind == 1)?),
        3 => Purge::Tag(text.into()),
        _ => return None,
    };
    Some(Noted { number, purge, soft })
}

pub fn write_purge(noted: &Noted, out: &mut Writer) {
    out.u64(noted.number);
    out.u8(u8::from(noted.soft.is_some()));
    if let Some(since) = noted.soft {
        out.i64(since);
    }
    match &noted.purge {
        Purge::All => {
            out.u8(0);
            out.bytes(b"");
        }
        Purge::At(place) => {
            out.u8(if place.is_whole() { 1 } else { 2 });
            out.bytes(place.text().as_bytes());
        }
        Purge::Tag(tag) => {
            out.u8(3);
            out.bytes(tag);
        }
    }
}

/// What stands in front of a response's body. `began`: which purges it is newer than.
pub fn write_entry(entry: &Entry, hash: u128, began: u64, out: &mut Writer) {
    out.u128(hash);
    out.vary(&entry.vary);
    out.bytes(&entry.key);
    out.u64(began);
    out.i64(entry.stale_since().unwrap_or_default());
    out.u32(u32::from(entry.status.as_u16()));
    let terms = &entry.terms;
    [terms.born, terms.lifetime, terms.while_revalidate, terms.if_error].into_iter().for_each(|n| out.i64(n));
    out.u8(u8::from(terms.no_cache));
    out.u8(u8::from(terms.must_revalidate));
    out.u32(entry.tags.len() as u32);
    entry.tags.iter().for_each(|tag| out.bytes(tag));
    out.u32(entry.headers.len() as u32);
    for (name, value) in &entry.headers {
        out.bytes(name.as_str().as_bytes());
        out.bytes(value.as_bytes());
    }
}

/// A response without its body.
#[derive(Debug)]
pub struct Kept {
    pub key: Box<[u8]>,
    pub began: u64,
    pub tags: Box<[Box<[u8]>]>,
    vary: Box<[Selected]>,
    stale_since: i64,
    status: StatusCode,
    terms: Terms,
    headers: HeaderMap,
}

impl Kept {
    pub fn read(meta: &[u8]) -> Option<Kept> {
        let mut reader = Reader(meta);
        let _hash = reader.u128()?;
        let vary = reader.vary()?;
        let key = reader.bytes()?.into();
        let (began, stale_since) = (reader.u64()?, reader.i64()?);
        let status = StatusCode::from_u16(u16::try_from(reader.u32()?).ok()?).ok()?;
        let terms = Terms {
            born: reader.i64()?,
            lifetime: reader.i64()?,
            while_revalidate: reader.i64()?,
            if_error: reader.i64()?,
            no_cache: reader.bool()?,
            must_revalidate: reader.bool()?,
        };
        let count = reader.u32()?;
        let tags = (0..count).map(|_| reader.bytes().map(Box::from)).collect::<Option<_>>()?;
        let headers = headers(&mut reader)?;
        let kept = Kept { key, began, tags, vary, stale_since, status, terms, headers };
        reader.0.is_empty().then_some(kept)
    }

    pub fn entry(self, body: Body) -> Entry {
        let entry = Entry::new(
            self.key.into(),
            self.vary,
            self.status,
            compact(self.headers),
            body,
            self.tags,
            self.terms,
        );
        entry.stale_from(self.stale_since);
        entry
    }

    /// It is stale beyond any use, and cannot be asked about.
    pub fn is_of_no_use(&self, now: SystemTime) -> bool {
        let asked_about =
            [header::ETAG, header::LAST_MODIFIED].iter().any(|name| self.headers.contains_key(name));
        self.terms.over(now) && !asked_about
    }

    /// It is stale since then, or longer.
    pub fn mark_stale(&mut self, since: i64) {
        if self.stale_since == 0 || self.stale_since > since {
            self.stale_since = since;
        }
    }
}

fn headers(reader: &mut Reader<'_>) -> Option<HeaderMap> {
    let count = reader.u32()?;
    if count > MOST_FIELDS {
        return None;
    }
    let mut headers = HeaderMap::new();
    for _ in 0..count {
        let name = HeaderName::from_bytes(reader.bytes()?).ok()?;
        let value = HeaderValue::from_bytes(reader.bytes()?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}
