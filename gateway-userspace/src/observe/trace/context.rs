//! What requests bring and take along of a trace: W3C Trace Context (level 2) and Zipkin's B3.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::hex;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

pub type TraceId = u128;
pub type SpanId = u64;

/// What somebody before us says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    pub trace: TraceId,
    pub span: SpanId,
    /// `None`: left to us (B3 only).
    pub sampled: Option<bool>,
}

/// In which way it was said, and so is said on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    W3c,
    B3Single,
    B3Multi,
}

/// Whether they say anything of traces. Most do not, and cost no more than this look at their names.
pub fn is_in(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        matches!(name, "traceparent" | "tracestate" | "b3") || name.starts_with("x-b3-")
    })
}

/// The parent of a request, if it has exactly one that is well-formed: W3C before B3.
pub fn parent(headers: &HeaderMap) -> (Option<Parent>, Manner) {
    if let Some(parent) = only(headers, &TRACEPARENT).and_then(traceparent) {
        return (Some(parent), Manner::W3c);
    }
    if let Some(value) = only(headers, &B3) {
        return (b3(value), Manner::B3Single);
    }
    if headers.contains_key(B3_TRACE) {
        return (b3_multi(headers), Manner::B3Multi);
    }
    (None, Manner::W3c)
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then(|| first.as_bytes())
}

/// `00-TRACE-SPAN-FLAGS`; a later version may have more behind.
pub fn traceparent(value: &[u8]) -> Option<Parent> {
    let dash = |at: usize| value.get(at) == Some(&b'-');
    if value.len() < 55 || !dash(2) || !dash(35) || !dash(52) {
        return None;
    }
    let version = unhex(&value[..2])?;
    let longer = value.len() > 55;
    if version == 0xff || version == 0 && longer || longer && !dash(55) {
        return None;
    }
    let (trace, span) = (unhex(&value[3..35])?, unhex(&value[36..52])? as u64);
    let flags = unhex(&value[53..55])?;
    (trace != 0 && span != 0).then_some(Parent { trace, span, sampled: Some(flags & 1 == 1) })
}

/// `TRACE-SPAN[-SAMPLED[-PARENT]]`; a lone "0" says nothing but that nobody samples, and has no trace to go on with.
pub fn b3(value: &[u8]) -> Option<Parent> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let sampled = match parts.next() {
        None => None,
        Some(b"1" | b"d") => Some(true),
        Some(b"0") => Some(false),
        Some(_) => return None,
    };
    if parts.next().is_some_and(|parent| parent.len() != 16 || unhex(parent).is_none())
        || parts.next().is_some()
    {
        return None;
    }
    ids(trace, span, sampled)
}

fn b3_multi(headers: &HeaderMap) -> Option<Parent> {
    let sampled = match (only(headers, &B3_FLAGS), only(headers, &B3_SAMPLED)) {
        (Some(b"1"), _) | (_, Some(b"1" | b"true")) => Some(true),
        (_, Some(b"0" | b"false")) => Some(false),
        _ => None,
    };
    ids(only(headers, &B3_TRACE)?, only(headers, &B3_SPAN)?, sampled)
}

fn ids(trace: &[u8], span: &[u8], sampled: Option<bool>) -> Option<Parent> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let (trace, span) = (unhex(trace)?, unhex(span)? as u64);
    (trace != 0 && span != 0).then_some(Parent { trace, span, sampled })
}

/// Lower case only, as W3C wants it.
fn unhex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |all, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(all << 4 | u128::from(value))
    })
}

/// Says who the parent of what comes next is, in W3C's way and in the way that was used before. `continued`: the trace is
/// the one that came; a new one takes no state along.
pub fn say(headers: &mut HeaderMap, now: Parent, manner: Manner, continued: bool) {
    let sampled = now.sampled.unwrap_or(false);
    now.put(headers);
    if !continued || manner != Manner::W3c {
        headers.remove(TRACESTATE);
    }
    for old in [B3, B3_TRACE, B3_SPAN, B3_PARENT, B3_SAMPLED, B3_FLAGS] {
        headers.remove(old);
    }
    match manner {
        Manner::W3c => {}
        Manner::B3Single => {
            set(headers, B3, &format!("{:032x}-{:016x}-{}", now.trace, now.span, u8::from(sampled)));
        }
        Manner::B3Multi => {
            set(headers, B3_TRACE, &format!("{:032x}", now.trace));
            set(headers, B3_SPAN, &format!("{:016x}", now.span));
            set(headers, B3_SAMPLED, if sampled { "1" } else { "0" });
        }
    }
}

impl Parent {
    /// Appends the value of its `traceparent`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"00-");
        hex::push(out, self.trace.to_be_bytes());
        out.push(b'-');
        hex::push(out, self.span.to_be_bytes());
        out.extend_from_slice(if self.sampled.unwrap_or(false) { b"-01" } else { b"-00" });
    }

    /// As `traceparent`.
    pub fn put(&self, headers: &mut HeaderMap) {
        let mut text = Vec::with_capacity(55);
        self.write(&mut text);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text)) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_traceparent_is_taken_as_w3c_says() {
        let parent = traceparent(GOOD.as_bytes()).unwrap();
        assert_eq!((parent.span, parent.sampled), (0x00f0_67aa_0ba9_02b7, Some(true)));
        assert_eq!(traceparent(GOOD.replace("-01", "-00").as_bytes()).unwrap().sampled, Some(false));
        // A later version with more behind.
        assert!(traceparent(format!("cc{}-what", &GOOD[2..]).as_bytes()).is_some());
        for wrong in [
            "".to_owned(),
            GOOD.to_uppercase(),
            format!("{GOOD}-more"),
            format!("ff{}", &GOOD[2..]),
            format!("cc{}.what", &GOOD[2..]),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("-00f", "_00f"),
            GOOD[..54].to_owned(),
        ] {
            assert_eq!(traceparent(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(parent_of(&[("traceparent", GOOD), ("traceparent", GOOD)]), None, "two of them");
    }

    fn parent_of(all: &[(&'static str, &str)]) -> Option<Parent> {
        parent(&headers(all)).0
    }

    #[test]
    fn b3_is_understood_in_both_forms() {
        let of = |text: &str| b3(text.as_bytes()).map(|parent| (parent.trace, parent.span, parent.sampled));
        assert_eq!(of("00000000000000ab-00000000000000cd"), Some((0xab, 0xcd, None)));
        assert_eq!(
            of("800000000000000000000000000000ab-00000000000000cd-d-0000000000000001"),
            Some((0x8000_0000_0000_0000_0000_0000_0000_00ab, 0xcd, Some(true)))
        );
        for wrong in
            ["0", "", "ab-cd", "00000000000000ab-00000000000000cd-x", "00000000000000ab-00000000000000cd-1-2"]
        {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        let multi = [
            ("x-b3-traceid", "00000000000000ab"),
            ("x-b3-spanid", "00000000000000cd"),
            ("x-b3-sampled", "0"),
        ];
        assert_eq!(parent_of(&multi), Some(Parent { trace: 0xab, span: 0xcd, sampled: Some(false) }));
    }

    #[test]
    fn what_is_said_on_is_understood_again() {
        let now = Parent { trace: 7, span: 9, sampled: Some(true) };
        for (manner, before) in [
            (Manner::W3c, vec![("traceparent", GOOD), ("tracestate", "a=b")]),
            (Manner::B3Single, vec![("b3", "00000000000000ab-00000000000000cd")]),
            (Manner::B3Multi, vec![("x-b3-traceid", "00000000000000ab"), ("x-b3-flags", "1")]),
        ] {
            let mut map = headers(&before);
            say(&mut map, now, manner, true);
            assert_eq!(parent(&map).0, Some(now), "{manner:?}");
            map.remove("traceparent");
            let again = parent(&map).0;
            assert_eq!(again, (manner != Manner::W3c).then_some(now), "{manner:?}");
            assert_eq!(map.contains_key("tracestate"), manner == Manner::W3c);
            assert!(!map.contains_key("x-b3-flags"));
        }
        let mut map = headers(&[("traceparent", GOOD), ("tracestate", "a=b")]);
        say(&mut map, now, Manner::W3c, false);
        assert!(!map.contains_key("tracestate"));
    }

    #[test]
    fn what_says_nothing_of_traces_gets_a_traceparent_and_no_more() {
        for about in ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-flags"] {
            assert!(is_in(&headers(&[("host", "a"), (about, "x")])), "{about}");
        }
        let mut map = headers(&[("host", "a"), ("x-b4", "x"), ("tracer", "x")]);
        assert!(!is_in(&map));
        Parent { trace: 0xa, span: u64::MAX, sampled: Some(true) }.put(&mut map);
        assert_eq!(map["traceparent"], "00-0000000000000000000000000000000a-ffffffffffffffff-01");
        Parent { trace: u128::MAX, span: 1, sampled: Some(false) }.put(&mut map);
        assert_eq!(map["traceparent"], "00-ffffffffffffffffffffffffffffffff-0000000000000001-00");
    }
}
