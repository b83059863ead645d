//! `mirror = { …, compare = { … } }`: whether the shadow answers as the upstream does.
//!
//! Answers are handed to one thread of the process, which takes them apart: no worker and no client waits for it. What it
//! cannot keep up with is counted and not looked at. Everything kept is bounded.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::{compress::decode, json_map::pieces};
use crate::{config::model, observe::events};

/// Pairs that may wait for the thread.
const QUEUE: usize = 64;
/// Differences of one pair that are told.
const TOLD: usize = 5;
/// Differing pairs that are remembered.
const RECENT: usize = 10;
/// Events a second.
const EVENTS: u32 = 10;
/// A coded body is not taken apart beyond this many times its length.
const INFLATED: u64 = 16;

/// What to compare, and what came of it.
#[derive(Debug)]
pub struct Compare {
    ignore: Vec<Vec<String>>,
    headers: Vec<HeaderName>,
    /// Bytes of a body that are kept.
    pub body: usize,
    route: Arc<str>,
    version: Arc<str>,
    shadow: Arc<str>,
    counts: Arc<Compared>,
}

/// Of one route or version; it outlasts snapshots.
#[derive(Debug, Default)]
pub struct Compared {
    results: [AtomicU64; Found::ALL.len()],
    recent: Mutex<VecDeque<Difference>>,
}

/// What a comparison came to; of several differences the first one in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Same,
    Status,
    Header,
    Body,
    /// A body was too long, or the thread too busy.
    Skipped,
    /// One of the answers did not come, or not whole.
    Lost,
}

impl Found {
    pub const ALL: [(Found, &'static str); 6] = [
        (Found::Same, "same"),
        (Found::Status, "status"),
        (Found::Header, "header"),
        (Found::Body, "body"),
        (Found::Skipped, "skipped"),
        (Found::Lost, "lost"),
    ];
}

/// One pair that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub id: String,
    pub method: String,
    pub path: String,
    /// "status: 200, the shadow 404", "/items/0/price: 1, the shadow 2"
    pub differs: Vec<String>,
}

/// As much of an answer as is compared.
#[derive(Debug)]
pub struct Seen {
    pub status: StatusCode,
    /// Those that are compared, and what says how the body is coded.
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// There was more.
    pub cut: bool,
}

/// Which request it was.
#[derive(Debug, Clone)]
pub struct About {
    pub id: String,
    pub method: String,
    pub path: String,
}

struct Pair {
    compare: Arc<Compare>,
    about: About,
    answer: Seen,
    shadow: Seen,
}

static THREAD: LazyLock<SyncSender<Box<Pair>>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel(QUEUE);
    // Without it every pair is counted as skipped.
    let _ = std::thread::Builder::new().name("compare".into()).spawn(move || run(&receiver));
    sender
});

impl Compare {
    pub fn new(
        config: &model::Compare,
        (route, version, shadow): (&str, &str, &str),
        counts: Arc<Compared>,
    ) -> Arc<Self> {
        let name = |name: &String| HeaderName::from_bytes(name.as_bytes()).ok();
        Arc::new(Compare {
            ignore: config.ignore.iter().map(|pointer| pieces(pointer)).collect(),
            headers: config.headers.iter().filter_map(name).collect(),
            body: config.body,
            route: route.into(),
            version: version.into(),
            shadow: shadow.into(),
            counts,
        })
    }

    /// The part of a head that is compared.
    pub fn see(&self, status: StatusCode, headers: &HeaderMap) -> Seen {
        let mut seen = HeaderMap::new();
        for name in self.headers.iter().chain(&[header::CONTENT_ENCODING]) {
            if seen.contains_key(name) {
                continue;
            }
            seen.extend(headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        Seen { status, headers: seen, body: Vec::new(), cut: false }
    }

    /// Takes what came of a request: `None` of an answer that did not come whole.
    pub fn take(self: &Arc<Self>, about: About, answer: Option<Seen>, shadow: Option<Seen>) {
        let (Some(answer), Some(shadow)) = (answer, shadow) else { return self.counts.count(Found::Lost) };
        if answer.cut || shadow.cut {
            return self.counts.count(Found::Skipped);
        }
        let pair = Box::new(Pair { compare: self.clone(), about, answer, shadow });
        if THREAD.try_send(pair).is_err() {
            self.counts.count(Found::Skipped);
        }
    }

    fn compare(&self, answer: &Seen, shadow: &Seen) -> (Found, Vec<String>) {
        if answer.status != shadow.status {
            let differs =
                format!("status: {}, the shadow {}", answer.status.as_u16(), shadow.status.as_u16());
            return (Found::Status, vec![differs]);
        }
        let values = |seen: &Seen, name: &HeaderName| -> Vec<String> {
            seen.headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect()
        };
        for name in &self.headers {
            let (ours, theirs) = (values(answer, name), values(shadow, name));
            if ours != theirs {
                let [ours, theirs] = [ours, theirs].map(|values| short(&values.join(", ")));
                return (Found::Header, vec![format!("{name}: {ours}, the shadow {theirs}")]);
            }
        }
        let differs = self.bodies(answer, shadow);
        if differs.is_empty() { (Found::Same, differs) } else { (Found::Body, differs) }
    }

    fn bodies(&self, answer: &Seen, shadow: &Seen) -> Vec<String> {
        let (Some(ours), Some(theirs)) = (decoded(answer), decoded(shadow)) else {
            let same = answer.body == shadow.body;
            return if same { Vec::new() } else { vec!["body: one of them cannot be decoded".into()] };
        };
        if ours == theirs {
            return Vec::new();
        }
        match (serde_json::from_slice(&ours), serde_json::from_slice(&theirs)) {
            (Ok(ours), Ok(theirs)) => {
                let mut differs = Vec::new();
                let ignored: Vec<&[String]> = self.ignore.iter().map(Vec::as_slice).collect();
                differences(&mut String::new(), &ours, &theirs, &ignored, &mut differs);
                differs
            }
            _ => vec![format!("body: {} bytes, the shadow's {} are others", ours.len(), theirs.len())],
        }
    }
}

impl Compared {
    fn count(&self, found: Found) {
        self.results[found as usize].fetch_add(1, Relaxed);
    }

    pub fn of(&self, found: Found) -> u64 {
        self.results[found as usize].load(Relaxed)
    }

    /// The last pairs that differed, the newest first.
    pub fn recent(&self) -> Vec<Difference> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }

    fn remember(&self, difference: Difference) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(difference);
    }
}

fn run(pairs: &Receiver<Box<Pair>>) {
    let mut second = Instant::now();
    let mut told = 0;
    while let Ok(pair) = pairs.recv() {
        let Pair { compare, about, answer, shadow } = *pair;
        let (found, differs) = compare.compare(&answer, &shadow);
        compare.counts.count(found);
        if found == Found::Same {
            continue;
        }
        if second.elapsed() >= Duration::from_secs(1) {
            (second, told) = (Instant::now(), 0);
        }
        told += 1;
        let About { id, method, path } = about;
        let difference = Difference { id, method, path, differs };
        if told <= EVENTS {
            let mut event =
                json!({ "route": &*compare.route, "version": &*compare.version, "shadow": &*compare.shadow });
            if let (Some(event), Ok(Value::Object(facts))) =
                (event.as_object_mut(), serde_json::to_value(&difference))
            {
                event.retain(|_, value| value != "");
                event.extend(facts);
            }
            events::tell("difference", event);
        }
        compare.counts.remember(difference);
    }
}

/// `None`: of a coding that is not known, or not what it says.
fn decoded(seen: &Seen) -> Option<Cow<'_, [u8]>> {
    decode(&seen.headers, &seen.body, seen.body.len() as u64 * INFLATED)
}

/// `ignored`: what is left of the pointers that lead here.
fn differences(at: &mut String, ours: &Value, theirs: &Value, ignored: &[&[String]], out: &mut Vec<String>) {
    if out.len() >= TOLD || ignored.iter().any(|left| left.is_empty()) {
        return;
    }
    let mut inside = |name: &str, ours: Option<&Value>, theirs: Option<&Value>, out: &mut Vec<String>| {
        let left: Vec<&[String]> = ignored
            .iter()
            .filter_map(|pointer| pointer.split_first())
            .filter(|(first, _)| *first == name || *first == "*")
            .map(|(_, rest)| rest)
            .collect();
        let length = at.len();
        at.push('/');
        at.push_str(&name.replace('~', "~0").replace('/', "~1"));
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => differences(at, ours, theirs, &left, out),
            _ if left.iter().any(|left| left.is_empty()) => {}
            (ours, _) => {
                let which = if ours.is_some() { "only in the answer" } else { "only in the shadow's" };
                out.push(format!("{}: {which}", short(at)));
            }
        }
        at.truncate(length);
    };
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in ours {
                inside(name, Some(value), theirs.get(name), out);
            }
            for (name, value) in theirs.iter().filter(|(name, _)| !ours.contains_key(*name)) {
                inside(name, None, Some(value), out);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for index in 0..ours.len().max(theirs.len()) {
                inside(&index.to_string(), ours.get(index), theirs.get(index), out);
            }
        }
        (Value::Number(ours), Value::Number(theirs))
            if ours == theirs || ours.as_f64() == theirs.as_f64() => {}
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => {
            let place = if at.is_empty() { "body".into() } else { short(at) };
            out.push(format!(
                "{place}: {}, the shadow {}",
                short(&ours.to_string()),
                short(&theirs.to_string())
            ));
        }
    }
    out.truncate(TOLD);
}

/// Both may be anything that upstreams send.
fn short(text: &str) -> String {
    const MOST: usize = 60;
    let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
    match text.chars().nth(MOST) {
        None => clean.collect(),
        Some(_) => clean.take(MOST).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(ignore: &[&str], headers: &[&str]) -> Arc<Compare> {
        let strings = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
        let config = model::Compare { ignore: strings(ignore), headers: strings(headers), body: 1000 };
        Compare::new(&config, ("r", "v1", "v2"), Arc::default())
    }

    fn seen(status: u16, fields: &[(&'static str, &str)], body: &[u8]) -> Seen {
        let headers = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Seen { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_vec(), cut: false }
    }

    fn json(ignore: &[&str], ours: &str, theirs: &str) -> Vec<String> {
        compare(ignore, &[]).compare(&seen(200, &[], ours.as_bytes()), &seen(200, &[], theirs.as_bytes())).1
    }

    #[test]
    fn json_is_compared_by_what_it_says() {
        assert_eq!(json(&[], r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [1, 2.0], "a": 1 }"#), [""; 0]);
        assert_eq!(json(&[], r#"{"a":1}"#, r#"{"a":2}"#), ["/a: 1, the shadow 2"]);
        assert_eq!(
            json(&[], r#"{"a":{"x/y":1},"b":[1]}"#, r#"{"a":{},"b":[1,2],"c":null}"#),
            ["/a/x~1y: only in the answer", "/b/1: only in the shadow's", "/c: only in the shadow's"]
        );
        assert_eq!(json(&[], "[1]", "{}"), ["body: [1], the shadow {}"]);
        assert_eq!(json(&[], "[1,2,3,4,5,6,7]", "[]").len(), TOLD);
        assert_eq!(json(&[], "plain", "text"), ["body: 5 bytes, the shadow's 4 are others"]);
    }

    #[test]
    fn what_is_ignored_may_differ_or_be_missing() {
        let (ours, theirs) =
            (r#"{"t":1,"items":[{"id":1,"n":1},{"id":2,"n":2}]}"#, r#"{"items":[{"id":8,"n":1},{"n":3}]}"#);
        assert_eq!(json(&["/t", "/items/*/id"], ours, theirs), ["/items/1/n: 2, the shadow 3"]);
        assert_eq!(json(&["/t", "/items"], ours, theirs), [""; 0]);
        assert_eq!(json(&[""], ours, theirs), [""; 0]);
        assert_eq!(json(&["/a~1b"], r#"{"a/b":1}"#, r#"{"a/b":2}"#), [""; 0]);
    }

    #[test]
    fn status_goes_before_headers_and_headers_before_bodies() {
        let compare = compare(&[], &["content-type"]);
        let kind = [("content-type", "a/b")];
        let found = |one: &Seen, two: &Seen| compare.compare(one, two).0;
        assert_eq!(found(&seen(200, &kind, b"1"), &seen(404, &[], b"2")), Found::Status);
        assert_eq!(found(&seen(200, &kind, b"1"), &seen(200, &[], b"2")), Found::Header);
        assert_eq!(found(&seen(200, &kind, b"1"), &seen(200, &kind, b"2")), Found::Body);
        assert_eq!(found(&seen(200, &kind, b"1"), &seen(200, &kind, b"1")), Found::Same);
    }

    #[test]
    fn coded_bodies_are_compared_decoded_and_bombs_are_not_taken_apart() {
        use std::io::Write;
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let coded = |text: &[u8]| seen(200, &[("content-encoding", "gzip")], &gzip(text));
        let compare = compare(&["/t"], &[]);
        let differs = |one: &Seen, two: &Seen| compare.compare(one, two).1;
        assert_eq!(differs(&coded(br#"{"a":1,"t":1}"#), &seen(200, &[], br#"{"t":2,"a":1}"#)), [""; 0]);
        let bomb = coded(&[b' '; 1 << 20]);
        assert_eq!(differs(&bomb, &seen(200, &[], b"x")), ["body: one of them cannot be decoded"]);
        assert_eq!(
            differs(&seen(200, &[("content-encoding", "br")], b"junk"), &seen(200, &[], b"x")).len(),
            1
        );
    }
}
