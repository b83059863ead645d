//! A segment: a file that is written once from its start to its end, and later deleted as a whole.
//!
//! ```text
//! head    "GWCACHE" 1, sealed (1), 7 x 0, number (8), id of the key (8), salt (16), sum or tag (16)
//! record  "GWcr", kind (1), 3 x 0, length of meta (4), of body (4), sum (16); meta; body; zeros up to a multiple of 16
//! …
//! index   rows of all records; length (8), nonce (12), "GWCindex", 4 x 0
//! ```
//!
//! Meta, body and index each end in a sum or tag, see [`super::guard`], over where they stand too. The index is only there
//! when nothing more is to come, so that a start need not look at records; without it, or when it is damaged, the records
//! say what it would. A record is what it was, or it is nothing: what a crash leaves half written is not read as one.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;

use super::{
    codec::{Reader, Writer},
    guard::{Guard, Part, SALT, TAG, nonce},
    record::{ENTRY, Row, Span},
};
use crate::seal::{SealError, Sealer};

const MAGIC: &[u8; 8] = b"GWCACHE\x01";
const ID: usize = 8;
const HEAD: usize = 64;
const RECORD: &[u8; 4] = b"GWcr";
pub const PREFIX: usize = 32;
const ALIGN: u64 = 16;
const TRAILER: usize = 32;
const INDEX: &[u8; 8] = b"GWCindex";
/// Read at once where records are looked for.
const WINDOW: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no segment of a cache, or damaged")]
    Damaged,
    #[error("{0}")]
    Key(SealError),
    #[error("it is sealed, and `state` has no key")]
    NoKey,
    #[error("it is not sealed, and there is a key now")]
    NotSealed,
}

#[derive(Debug)]
pub struct Segment {
    pub number: u32,
    pub path: PathBuf,
    file: File,
    guard: Guard,
    pub length: AtomicU64,
}

/// What a segment has.
#[derive(Debug, Default)]
pub struct Found {
    pub rows: Vec<Row>,
    /// Places where there is something else than a record.
    pub damaged: u64,
    /// Where the last record ends.
    pub end: u64,
    /// It was not found in the index.
    pub scanned: bool,
}

pub fn name(number: u32) -> String {
    format!("{number:08x}.segment")
}

pub fn number(name: &str) -> Option<u32> {
    let hex = name.strip_suffix(".segment").filter(|hex| hex.len() == 8)?;
    u32::from_str_radix(hex, 16).ok()
}

impl Segment {
    /// A new one, for its owner only.
    pub fn create(directory: &Path, number: u32, sealer: Option<&Sealer>) -> io::Result<Segment> {
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no randomness is to be had"))?;
        let (guard, id) = match sealer {
            None => (Guard::plain(&salt), [0; ID]),
            Some(sealer) => Guard::sealed(sealer, None, &salt).map_err(io::Error::other)?,
        };
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(MAGIC);
        head.push(u8::from(sealer.is_some()));
        head.extend_from_slice(&[0; 7]);
        head.extend_from_slice(&u64::from(number).to_le_bytes());
        head.extend_from_slice(&id);
        head.extend_from_slice(&salt);
        let about = head.clone();
        let from = head.len();
        guard.close(nonce(Part::Head, 0), &about, &mut head, from)?;
        let path = directory.join(name(number));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all_at(&head, 0)?;
        Ok(Segment { number, path, file, guard, length: AtomicU64::new(HEAD as u64) })
    }

    pub fn open(path: &Path, number: u32, sealer: Option<&Sealer>) -> Result<Segment, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let mut head = [0; HEAD];
        match file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(OpenError::Damaged),
            read => read?,
        }
        let (about, tag) = head.split_at(HEAD - TAG);
        let mut reader = Reader(about);
        let magic = reader.take(MAGIC.len()).ok_or(OpenError::Damaged)?;
        let (sealed, _, told) = (reader.u8(), reader.take(7), reader.u64());
        let (id, salt) = (reader.take(ID).ok_or(OpenError::Damaged)?, reader.0);
        let salt: [u8; SALT] = salt.try_into().map_err(|_| OpenError::Damaged)?;
        if magic != MAGIC || told != Some(u64::from(number)) {
            return Err(OpenError::Damaged);
        }
        let guard = match (sealed, sealer) {
            (Some(0), None) => Guard::plain(&salt),
            (Some(0), Some(_)) => return Err(OpenError::NotSealed),
            (Some(1), None) => return Err(OpenError::NoKey),
            (Some(1), Some(sealer)) => Guard::sealed(sealer, Some(id), &salt).map_err(OpenError::Key)?.0,
            _ => return Err(OpenError::Damaged),
        };
        guard.open(nonce(Part::Head, 0), about, tag.to_vec()).ok_or(OpenError::Damaged)?;
        Ok(Segment { number, path: path.to_owned(), file, guard, length: AtomicU64::new(length) })
    }

    /// A record's meta. `None`: it is not what was written.
    pub fn meta(&self, at: Span) -> io::Result<Option<Vec<u8>>> {
        let mut prefix = [0; PREFIX];
        let mut meta = vec![0; at.meta as usize];
        if !self.read(u64::from(at.offset), &mut prefix)?
            || !self.read(u64::from(at.offset) + PREFIX as u64, &mut meta)?
        {
            return Ok(None);
        }
        let same = self.prefix(u64::from(at.offset), &prefix) == Some((ENTRY, at));
        Ok(same.then(|| self.open_part(Part::Meta, u64::from(at.offset), &prefix, meta)).flatten())
    }

    /// A record's body.
    pub fn body(&self, at: Span) -> io::Result<Option<Bytes>> {
        if at.body == 0 {
            return Ok(Some(Bytes::new()));
        }
        let mut prefix = [0; PREFIX];
        let mut body = vec![0; at.body as usize];
        let from = u64::from(at.offset) + PREFIX as u64 + u64::from(at.meta);
        if !self.read(u64::from(at.offset), &mut prefix)? || !self.read(from, &mut body)? {
            return Ok(None);
        }
        Ok(self.open_part(Part::Body, u64::from(at.offset), &prefix, body).map(Bytes::from))
    }

    fn open_part(&self, part: Part, offset: u64, prefix: &[u8; PREFIX], bytes: Vec<u8>) -> Option<Vec<u8>> {
        self.guard.open(nonce(part, offset), &prefix[..PREFIX - TAG], bytes)
    }

    /// False: it ends before.
    fn read(&self, from: u64, into: &mut [u8]) -> io::Result<bool> {
        match self.file.read_exact_at(into, from) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A record's kind and parts.
    fn prefix(&self, offset: u64, prefix: &[u8; PREFIX]) -> Option<(u8, Span)> {
        let (plain, sum) = prefix.split_at(PREFIX - TAG);
        if self.guard.sum(offset, plain) != sum {
            return None;
        }
        let mut reader = Reader(plain.strip_prefix(RECORD)?);
        let (kind, _) = (reader.u8()?, reader.take(3)?);
        let offset = u32::try_from(offset).ok()?;
        Some((kind, Span { offset, meta: reader.u32()?, body: reader.u32()? }))
    }

    /// All that it has.
    pub fn rows(&self) -> io::Result<Found> {
        match self.index()? {
            Some((rows, end)) => Ok(Found { rows, end, ..Found::default() }),
            None => self.scan(),
        }
    }

    fn index(&self) -> io::Result<Option<(Vec<Row>, u64)>> {
        let length = self.length.load(Relaxed);
        let Some(from) = length.checked_sub(TRAILER as u64).filter(|from| *from >= HEAD as u64) else {
            return Ok(None);
        };
        let mut trailer = [0; TRAILER];
        if !self.read(from, &mut trailer)? || trailer[20..28] != *INDEX {
            return Ok(None);
        }
        let mut reader = Reader(&trailer);
        let told = reader.u64().unwrap_or_default();
        let Some(end) = from.checked_sub(told).filter(|end| *end >= HEAD as u64) else { return Ok(None) };
        let mut rows = vec![0; told as usize];
        if !self.read(end, &mut rows)? {
            return Ok(None);
        }
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&trailer[8..20]);
        let Some(rows) = self.guard.open(nonce, &trailer, rows) else { return Ok(None) };
        let mut reader = Reader(&rows);
        let mut found = Vec::new();
        while !reader.0.is_empty() {
            let Some(row) = Row::read(&mut reader) else { return Ok(None) };
            found.push(row);
        }
        Ok(Some((found, end)))
    }

    /// Looks at every record's start. What is no record is passed over until there is one again.
    fn scan(&self) -> io::Result<Found> {
        let length = self.length.load(Relaxed);
        let mut window = Window::new(self, length);
        let mut found = Found { end: HEAD as u64, scanned: true, ..Found::default() };
        let (mut at, mut lost) = (HEAD as u64, false);
        while let Some(prefix) = window.read(at, PREFIX)? {
            let mut plain = [0; PREFIX];
            plain.copy_from_slice(prefix);
            let record = self.prefix(at, &plain);
            let Some((kind, span)) = record.filter(|(_, span)| at + padded(*span) <= length) else {
                found.damaged += u64::from(!lost);
                lost = true;
                at += ALIGN;
                continue;
            };
            lost = false;
            let meta = window.read(at + PREFIX as u64, span.meta as usize)?.map(<[u8]>::to_vec);
            let meta = meta.and_then(|meta| self.open_part(Part::Meta, at, &plain, meta));
            match meta.and_then(|meta| Row::of_record(kind, &meta, span)) {
                Some(row) => found.rows.push(row),
                None => found.damaged += 1,
            }
            at += padded(span);
            found.end = at;
        }
        Ok(found)
    }

    /// Nothing more comes: adds the index, and cuts what is behind `end`.
    pub fn finish(&self, rows: &[u8], end: u64) -> io::Result<()> {
        self.file.set_len(end)?;
        let mut random = [0; 12];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness is to be had"))?;
        // No record's, whose first byte is small.
        random[0] |= 0x80;
        let mut trailer = Writer::default();
        trailer.u64((rows.len() + TAG) as u64);
        trailer.0.extend_from_slice(&random);
        trailer.0.extend_from_slice(INDEX);
        trailer.u32(0);
        let mut index = rows.to_vec();
        self.guard.close(random, &trailer.0, &mut index, 0)?;
        index.extend_from_slice(&trailer.0);
        self.file.write_all_at(&index, end)?;
        self.length.store(end + index.len() as u64, Relaxed);
        self.sync()
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Takes its name away; who reads it still can.
    pub fn delete(&self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a cache's segment cannot be deleted");
        }
    }
}

fn padded(span: Span) -> u64 {
    (PREFIX as u64 + u64::from(span.meta) + u64::from(span.body)).next_multiple_of(ALIGN)
}

/// A part of a file.
struct Window<'a> {
    segment: &'a Segment,
    length: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment, length: u64) -> Self {
        Window { segment, length, from: 0, bytes: Vec::new() }
    }

    /// `None`: there is less.
    fn read(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if at + length as u64 > self.length {
            return Ok(None);
        }
        let end = self.from + self.bytes.len() as u64;
        if at < self.from || at + length as u64 > end {
            let wanted = (length.max(WINDOW) as u64).min(self.length - at) as usize;
            self.bytes.resize(wanted, 0);
            self.from = at;
            if !self.segment.read(at, &mut self.bytes)? {
                self.bytes.clear();
                return Ok(None);
            }
        }
        let start = (at - self.from) as usize;
        Ok(self.bytes.get(start..start + length))
    }
}

/// The segment that is being written.
#[derive(Debug)]
pub struct Growing {
    pub segment: std::sync::Arc<Segment>,
    pub end: u64,
    rows: Writer,
    record: Vec<u8>,
}

impl Growing {
    pub fn new(segment: std::sync::Arc<Segment>) -> Self {
        Growing { segment, end: HEAD as u64, rows: Writer::default(), record: Vec::new() }
    }

    /// Adds a record. After an error nothing more may be added: its place, and so its nonce, was used.
    pub fn append(&mut self, kind: u8, meta: &[u8], body: &[Bytes]) -> io::Result<Span> {
        let guard = &self.segment.guard;
        let (from, record) = (self.end, &mut self.record);
        let body_length: usize = body.iter().map(Bytes::len).sum();
        let length = |plain: usize| u32::try_from(plain + TAG).map_err(|_| io::Error::other("too large"));
        let span = Span {
            offset: u32::try_from(from).map_err(|_| io::Error::other("the segment is full"))?,
            meta: length(meta.len())?,
            body: if body_length == 0 { 0 } else { length(body_length)? },
        };
        record.clear();
        record.extend_from_slice(RECORD);
        record.extend_from_slice(&[kind, 0, 0, 0]);
        record.extend_from_slice(&span.meta.to_le_bytes());
        record.extend_from_slice(&span.body.to_le_bytes());
        let about: [u8; PREFIX - TAG] = record[..].try_into().map_err(|_| io::Error::other("no prefix"))?;
        record.extend_from_slice(&guard.sum(from, &about));
        let start = record.len();
        record.extend_from_slice(meta);
        guard.close(nonce(Part::Meta, from), &about, record, start)?;
        if body_length > 0 {
            let start = record.len();
            body.iter().for_each(|piece| record.extend_from_slice(piece));
            guard.close(nonce(Part::Body, from), &about, record, start)?;
        }
        record.resize(padded(span) as usize, 0);
        self.segment.file.write_all_at(record, from)?;
        self.end += record.len() as u64;
        self.segment.length.store(self.end, Relaxed);
        if record.capacity() > 8 << 20 {
            *record = Vec::new();
        }
        Ok(span)
    }

    /// What the index will say of it.
    pub fn row(&mut self, row: &Row) {
        row.write(&mut self.rows);
    }

    /// How much it has beside records when it is finished.
    pub fn size(&self) -> u64 {
        self.end + (self.rows.0.len() + TAG + TRAILER) as u64
    }

    pub fn finish(self) -> io::Result<()> {
        self.segment.finish(&self.rows.0, self.end)
    }
}

/// Rows as an index has them.
pub fn written(rows: &[Row]) -> Vec<u8> {
    let mut out = Writer::default();
    rows.iter().for_each(|row| row.write(&mut out));
    out.0
}

#[cfg(test)]
mod tests;
