use std::sync::Arc;

use tempfile::TempDir;

use super::{
    super::record::{ENTRY, FORGET, PURGE, write_forget, write_purge},
    *,
};
use crate::{
    cache::purge::{Noted, Purge},
    config::model::{Secret, State},
};

fn sealer(dir: &Path, secret: &str) -> Sealer {
    let path = dir.join("secret");
    crate::seal::write(&path, secret.as_bytes()).unwrap();
    Sealer::new(&State { key: Some(Secret::File(path)), ..State::default() }).unwrap().unwrap()
}

const SECRET: &str = "a secret of more than sixteen bytes";

fn body(n: u8) -> Bytes {
    Bytes::from(vec![b'a' + n; 20 + usize::from(n) * 7])
}

/// A segment of three responses, one of which is no longer good, and a purge; with its rows.
fn made(dir: &TempDir, sealer: Option<&Sealer>) -> (Growing, Vec<Row>) {
    let segment = Arc::new(Segment::create(dir.path(), 7, sealer).unwrap());
    let mut growing = Growing::new(segment);
    let mut rows = Vec::new();
    for n in 0..3u8 {
        let mut meta = Writer::default();
        meta.u128(u128::from(n));
        meta.vary(&[]);
        meta.bytes(b"what else it says");
        let body = if n == 1 { Bytes::new() } else { body(n) };
        let at = growing.append(ENTRY, &meta.0, &[body]).unwrap();
        rows.push(Row::Entry { hash: u128::from(n), at, vary: Box::default() });
        growing.row(&rows[rows.len() - 1]);
    }
    let (mut forget, mut purge) = (Writer::default(), Writer::default());
    write_forget(1, None, &mut forget);
    growing.append(FORGET, &forget.0, &[]).unwrap();
    rows.push(Row::Forget { hash: 1, vary: None });
    let noted = Noted { number: 9, purge: Purge::Tag(b"t"[..].into()), soft: Some(3) };
    write_purge(&noted, &mut purge);
    growing.append(PURGE, &purge.0, &[]).unwrap();
    rows.push(Row::Purge(noted));
    rows[3..].iter().for_each(|row| growing.row(row));
    (growing, rows)
}

fn open(dir: &TempDir, sealer: Option<&Sealer>) -> Result<Segment, OpenError> {
    Segment::open(&dir.path().join(name(7)), 7, sealer)
}

fn spans(rows: &[Row]) -> Vec<Span> {
    let span = |row: &Row| match row {
        Row::Entry { at, .. } => Some(*at),
        _ => None,
    };
    rows.iter().filter_map(span).collect()
}

#[test]
fn what_was_written_is_found_by_the_index_and_without_it() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealed.then(|| sealer(dir.path(), SECRET));
        let (growing, rows) = made(&dir, sealer.as_ref());
        let found = open(&dir, sealer.as_ref()).unwrap().rows().unwrap();
        assert_eq!((&found.rows, found.damaged, found.scanned), (&rows, 0, true));
        growing.finish().unwrap();
        let segment = open(&dir, sealer.as_ref()).unwrap();
        let found = segment.rows().unwrap();
        assert_eq!((&found.rows, found.damaged, found.scanned), (&rows, 0, false));
        let bodies: Vec<_> = spans(&rows).iter().map(|at| segment.body(*at).unwrap().unwrap()).collect();
        assert_eq!(bodies, [body(0), Bytes::new(), body(2)]);
        let text = std::fs::read(&segment.path).unwrap();
        let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
        assert_eq!((has(b"what else it says"), has(b"aaaa")), (!sealed, !sealed));
    }
}

/// Whatever the file has become: each response in it is what it was, or is not there.
fn holds(segment: &Segment, rows: &[Row]) -> (usize, u64) {
    let found = segment.rows().unwrap();
    let mut good = 0;
    for row in &found.rows {
        assert!(rows.contains(row), "{row:?}");
        let Row::Entry { hash, at, .. } = row else { continue };
        let (meta, read) = (segment.meta(*at).unwrap(), segment.body(*at).unwrap());
        assert!(meta.is_none_or(|meta| meta.ends_with(b"what else it says")));
        if let Some(read) = read {
            assert_eq!(read, if *hash == 1 { Bytes::new() } else { body(*hash as u8) });
            good += 1;
        }
    }
    (good, found.damaged)
}

#[test]
fn no_flipped_bit_and_no_cut_anywhere_makes_another_response() {
    for sealed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let sealer = sealed.then(|| sealer(dir.path(), SECRET));
        let (growing, rows) = made(&dir, sealer.as_ref());
        let records = growing.end as usize;
        growing.finish().unwrap();
        let path = dir.path().join(name(7));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for cut in [false, true] {
                // Without an index too, as a crash leaves it.
                for length in [whole.len(), records] {
                    let mut changed = whole[..length].to_vec();
                    if at >= length {
                        continue;
                    }
                    match cut {
                        true => changed.truncate(at),
                        false => changed[at] ^= 1 << (at % 8),
                    }
                    std::fs::write(&path, changed).unwrap();
                    let segment = match open(&dir, sealer.as_ref()) {
                        Ok(segment) => segment,
                        Err(OpenError::Io(error)) => panic!("{error}"),
                        Err(_) => {
                            assert!(at < HEAD);
                            continue;
                        }
                    };
                    let (good, _) = holds(&segment, &rows);
                    // One place cannot take more than one with it.
                    assert!(cut || good >= 2, "byte {at}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_record_is_passed_over_and_counted_and_a_torn_end_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (growing, rows) = made(&dir, None);
    let path = dir.path().join(name(7));
    let second = spans(&rows)[1];
    drop(growing);
    let mut bytes = std::fs::read(&path).unwrap();
    let length = bytes.len() as u64;
    bytes[second.offset as usize + 9] ^= 1;
    // A record that did not come to its end.
    bytes.extend_from_slice(RECORD);
    bytes.extend_from_slice(&[ENTRY; 40]);
    std::fs::write(&path, &bytes).unwrap();
    let segment = open(&dir, None).unwrap();
    let found = segment.rows().unwrap();
    assert_eq!((found.rows.len(), found.damaged, found.end), (rows.len() - 1, 2, length));
    segment.finish(&written(&found.rows), found.end).unwrap();
    let again = open(&dir, None).unwrap().rows().unwrap();
    assert_eq!((again.rows, again.damaged, again.scanned), (found.rows, 0, false));
}

#[test]
fn a_segment_opens_with_its_key_only() {
    let dir = tempfile::tempdir().unwrap();
    let ours = sealer(dir.path(), SECRET);
    let (growing, _) = made(&dir, Some(&ours));
    growing.finish().unwrap();
    let other = sealer(dir.path(), "another secret, just as long");
    assert!(matches!(open(&dir, Some(&other)), Err(OpenError::Key(SealError::WrongKey { .. }))));
    assert!(matches!(open(&dir, None), Err(OpenError::NoKey)));
    made(&dir, None).0.finish().unwrap();
    assert!(matches!(open(&dir, Some(&ours)), Err(OpenError::NotSealed)));
    // Another's name.
    let elsewhere = dir.path().join(name(8));
    std::fs::copy(dir.path().join(name(7)), &elsewhere).unwrap();
    assert!(matches!(Segment::open(&elsewhere, 8, None), Err(OpenError::Damaged)));
}
