use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use proptest::prelude::*;

use super::*;
use crate::{checksum, flow::Words, packet, source::Address};

/// A SYN with these options, which are padded to whole words.
fn frame(v4: bool, options: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let header = 20 + options.len();
    let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if v4 {
        out.extend([8, 0, 0x45, 0, 0, 20 + header as u8, 0, 0, 0, 0, 64, 6, 0, 0]);
        out.extend([192, 0, 2, 1, 198, 51, 100, 2]);
    } else {
        out.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, header as u8, 6, 64]);
        out.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    }
    out.extend([
        0x30,
        0x39,
        0,
        80,
        1,
        2,
        3,
        4,
        0,
        0,
        0,
        0,
        (header as u8 / 4) << 4,
        2,
        0xff,
        0xff,
        0,
        0,
        0,
        0,
    ]);
    out.extend(options);
    out
}

fn parsed(frame: &Vec<u8>) -> Parsed {
    let mut parsed = Parsed::default();
    packet::parse(frame, false, &mut parsed).expect("a packet");
    parsed
}

/// As Linux sends them.
const LINUX: &[u8] = &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0x12, 0x34, 0, 0, 0, 0, 1, 3, 3, 7];

fn read(options: &[u8]) -> Options {
    let frame = frame(true, options);
    super::options(&frame, usize::from(parsed(&frame).l4))
}

/// The sum over a TCP segment and its pseudo-header: zero where its checksum is right.
fn tcp_sum(frame: &Vec<u8>) -> u16 {
    let parsed = parsed(frame);
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let addresses = if parsed.source.is_v4() { l3 + 12..l3 + 20 } else { l3 + 8..l3 + 40 };
    let mut summed = frame[addresses].to_vec();
    let segment = &frame[l4..l3 + parsed.length as usize];
    summed.extend([0, 6]);
    summed.extend((segment.len() as u16).to_be_bytes());
    summed.extend(segment);
    checksum::of_bytes(&summed, 0)
}

#[test]
fn options_are_read() {
    let options = read(LINUX);
    assert_eq!((options.mss(), options.scale(), options.sack()), (1460, 7, true));
    assert_eq!(options.timestamp(), Some(0x1234));
    let options = read(&[1, 1, 1, 3, 3, 200, 2, 4, 0, 9, 0, 4, 2]);
    assert_eq!((options.mss(), options.scale(), options.sack()), (9, 14, false));
    assert_eq!(read(&[]), Options::NONE);
    // Lengths that are too short, too long or not the option's own.
    for bad in [&[2, 0, 0, 0][..], &[2, 1, 0, 0], &[8, 40, 0, 0], &[3, 4, 7, 0], &[2, 3, 5, 0], &[1, 1, 1, 2]]
    {
        assert_eq!(read(bad), Options::NONE, "{bad:?}");
    }
}

#[test]
fn an_answer_has_all_that_the_client_offers() {
    for v4 in [true, false] {
        let mut frame = frame(v4, LINUX);
        let syn = parsed(&frame);
        let options = super::options(&frame, usize::from(syn.l4));
        let reply =
            Answer { sequence: 77, acknowledges: 0x0102_0305, mss: 1440, scale: 9, now_ms: 1_000_000 };
        assert!(answer(&mut frame, &syn, options, &reply));
        let back = parsed(&frame);
        assert_eq!((back.source, back.destination), (syn.destination, syn.source));
        assert_eq!((back.source_port, back.destination_port), (80, 12345));
        assert_eq!(back.bits & packet::bit::ACCEPT, packet::bit::ACCEPT);
        assert_eq!(&frame[..12], &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        let l4 = usize::from(back.l4);
        assert_eq!((sequence(&frame, l4), acknowledged(&frame, l4)), (77, 0x0102_0305));
        let answered = super::options(&frame, l4);
        assert_eq!((answered.mss(), answered.scale(), answered.sack()), (1440, 9, true));
        let stamp = answered.timestamp().expect("a timestamp");
        assert_eq!((stamp & 63, stamp <= 1_000_000, stamp > 1_000_000 - 128), (7 | 16, true, true));
        // What it echoes.
        assert_eq!(frame[l4 + 32..l4 + 36], [0, 0, 0x12, 0x34]);
        assert_eq!(tcp_sum(&frame), 0);
        if v4 {
            assert_eq!(checksum::of_bytes(&frame[14..34], 0), 0);
        }
    }
}

#[test]
fn an_answer_offers_nothing_that_the_client_did_not() {
    // No room, no timestamps, no scale, a listener without one.
    let cases: [(&[u8], u8, usize); 5] = [
        (&[], 7, 20),
        (&[2, 4, 5, 0xb4], 7, 24),
        (&[2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2], 7, 24),
        (&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], 7, 36),
        (LINUX, NO_SCALE, 36),
    ];
    for (offered, scale, header) in cases {
        let mut frame = frame(false, offered);
        let syn = parsed(&frame);
        let options = super::options(&frame, usize::from(syn.l4));
        assert!(answer(&mut frame, &syn, options, &Answer { mss: 1440, scale, ..Answer::default() }));
        let l4 = usize::from(parsed(&frame).l4);
        assert_eq!(header_length(&frame, l4), header, "{offered:?}");
        assert_eq!(super::options(&frame, l4).scale(), NO_SCALE);
        assert_eq!(tcp_sum(&frame), 0);
    }
}

#[test]
fn ip_options_are_not_answered() {
    let mut frame = frame(true, LINUX);
    let syn = Parsed { l4: parsed(&frame).l4 + 4, ..parsed(&frame) };
    assert!(!answer(&mut frame, &syn, Options::NONE, &Answer::default()));
}

struct Memory(Vec<[AtomicU64; 8]>);

struct Set<'a>(&'a [AtomicU64; 8]);

impl Words for Set<'_> {
    fn load(&self, at: usize) -> u64 {
        self.0[at].load(SeqCst)
    }
    fn store(&self, at: usize, value: u64) {
        self.0[at].store(value, SeqCst);
    }
    fn replace(&self, at: usize, old: u64, new: u64) -> bool {
        self.0[at].compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

impl<'a> Table for &'a Memory {
    type Set = Set<'a>;
    fn mask(&self) -> u64 {
        self.0.len() as u64 - 1
    }
    fn set(&self, index: u64) -> Option<Self::Set> {
        self.0.get(index as usize).map(Set)
    }
}

#[test]
fn the_verified_are_known_for_five_minutes_after_their_last_connection() {
    let table = Memory((0..64).map(|_| Default::default()).collect());
    let key = verified_key(5, Address::v4(9).key(u64::MAX));
    assert!(!is_verified(&&table, key, 1000));
    verify(&&table, key, 1000);
    // Another CPU may be a second behind.
    assert!([999, 1000, 1300].iter().all(|second| is_verified(&&table, key, *second)));
    assert!(!is_verified(&&table, key, 1301));
    verify(&&table, key, 1290);
    assert!(is_verified(&&table, key, 1590) && !is_verified(&&table, key, 1591));
}

#[test]
fn a_full_table_takes_the_latest() {
    let table = Memory((0..4).map(|_| Default::default()).collect());
    for n in 0..200 {
        let key = verified_key(5, n);
        verify(&&table, key, 1000 + n);
        assert!(is_verified(&&table, key, 1000 + n), "{n}");
    }
}

proptest! {
    #[test]
    fn the_timestamp_is_of_now_and_says_the_options(
        now_ms in 128u64..u64::from(u32::MAX),
        word in any::<u64>(),
        scale in 0u8..16,
    ) {
        let options = Options(word);
        let stamp = u64::from(timestamp_of(options, scale, now_ms));
        prop_assert!(stamp <= now_ms && stamp + 64 > now_ms);
        prop_assert_eq!(stamp & 16 != 0, options.sack());
        let expected = if scale == NO_SCALE { NO_SCALE } else { options.scale() };
        prop_assert_eq!(stamp as u8 & 0xf, expected);
    }

    #[test]
    fn any_options_are_read_within_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut frame = frame(true, &bytes);
        let syn = parsed(&frame);
        let options = super::options(&frame, usize::from(syn.l4));
        let before = frame.len();
        let reply = Answer { mss: 1440, scale: 7, ..Answer::default() };
        prop_assert!(answer(&mut frame, &syn, options, &reply));
        prop_assert!(frame.len() <= before);
        prop_assert_eq!(tcp_sum(&frame), 0);
    }
}
