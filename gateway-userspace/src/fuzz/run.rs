//! A mutation fuzzer for stable Rust, the same for the same seed. `GATEWAY_FUZZ_SECONDS` is how long each target runs
//! (1 if not set), `GATEWAY_FUZZ_SEED` where it begins.

use std::{
    fmt::Write as _,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::TARGETS;
use crate::sync::lock;

/// Inputs do not become longer.
const MOST: usize = 4096;
/// A single input that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// What parsers look for: pieces that damage puts in.
const WORDS: [&[u8]; 40] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"/",
    b"/..",
    b"%2e",
    b"%2F",
    b"%00",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"0x",
    b"-1",
    b"+1",
    b"99999999999999999999",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Host: a\r\n",
    b"Connection: close, content-length\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"[",
    b"]",
    b"{",
    b"}",
    b"${path}",
    b"\xff\xff",
    b"\x00\x00",
    b"\x81\x00",
    b"\xc3\xa9",
];

fn corpus_of(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(target);
    let files =
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap_or_default())).collect()
}

fn damaged(corpus: &[(PathBuf, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let any = |random: &mut fastrand::Rng| corpus[random.usize(..corpus.len())].1.clone();
    let mut bytes = any(random);
    for _ in 0..=random.usize(..6) {
        let at = random.usize(..bytes.len() + 1);
        let end = (at + random.usize(..16)).min(bytes.len());
        match random.usize(..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.usize(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 | 5 => drop(bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
            6 => {
                let other = any(random);
                let from = random.usize(..other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes.truncate(MOST);
    bytes
}

/// As a byte string of Rust.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{}", std::ascii::escape_default(*byte));
        text
    })
}

/// What is being tried, and which one that is.
type Trying = Arc<Mutex<(u64, Vec<u8>)>>;

/// Ends the process, saying with what, when an input takes too long: looks are counted rather than the clock read, as a machine
/// may have stood still.
fn watch(name: &'static str, trying: &Trying) {
    const LOOK: Duration = Duration::from_millis(200);
    let trying = Arc::downgrade(trying);
    std::thread::spawn(move || {
        let (mut last, mut looks) = (0, 0);
        loop {
            // Not held while it waits.
            std::thread::sleep(LOOK);
            let Some(trying) = trying.upgrade() else { return };
            let (which, input) = &*lock(&trying);
            looks = if *which == last { looks + 1 } else { 0 };
            last = *which;
            if LOOK * looks > PATIENCE {
                eprintln!("{name} hangs on b\"{}\"", shown(input));
                std::process::abort();
            }
        }
    });
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Every file of the corpus as it is, then damaged ones until the time is over.
fn fuzz(name: &'static str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = corpus_of(name);
    assert!(!corpus.is_empty(), "no corpus");
    let trying: Trying = Arc::default();
    watch(name, &trying);
    let run = |input: Vec<u8>| {
        {
            let mut trying = lock(&trying);
            trying.0 += 1;
            trying.1.clone_from(&input);
        }
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| target(&input)));
        assert!(outcome.is_ok(), "{name} does not hold for b\"{}\"", shown(&input));
    };
    for (_, input) in &corpus {
        run(input.clone());
    }
    let mut random = fastrand::Rng::with_seed(number("GATEWAY_FUZZ_SEED", 0x9e37_79b9_7f4a_7c15));
    let end = Instant::now() + Duration::from_secs(number("GATEWAY_FUZZ_SECONDS", 1));
    let mut runs = 0u64;
    while Instant::now() < end {
        run(damaged(&corpus, &mut random));
        runs += 1;
    }
    println!("{name}: {runs} inputs");
    assert!(runs > 0);
}

macro_rules! fuzzed {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { fuzz($name); })*

        #[test]
        fn every_target_is_run() {
            let run = [$($name),*];
            assert!(TARGETS.iter().map(|(name, _)| *name).eq(run));
        }
    };
}

fuzzed! {
    answer_body_holds: "answer-body",
    answer_head_holds: "answer-head",
    cache_holds: "cache",
    cache_segment_holds: "cache-segment",
    certificate_holds: "certificate",
    config_holds: "config",
    config_formats_holds: "config-formats",
    cost_holds: "cost",
    cookies_holds: "cookies",
    credentials_holds: "credentials",
    forwarded_holds: "forwarded",
    host_holds: "host",
    json_holds: "json",
    json_map_holds: "json-map",
    jwt_holds: "jwt",
    kafka_holds: "kafka",
    news_holds: "news",
    packet_holds: "packet",
    path_holds: "path",
    proxy_protocol_holds: "proxy-protocol",
    request_head_holds: "request-head",
    sealed_holds: "sealed",
    signature_holds: "signature",
    template_holds: "template",
    trace_context_holds: "trace-context",
    version_holds: "version",
}
