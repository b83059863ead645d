//! What limits read: of answers what a request cost, and of a shared store what other gateways tell.

use http::{HeaderMap, HeaderValue, header};

use crate::{daemon::parse_news, proxy::metered::Reader};

const POINTERS: [&str; 4] = ["/usage/total_tokens", "/n", "", "/a~1b/0"];

/// However an answer comes in pieces, it cost the same.
pub fn cost(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let kind = if first & 1 == 0 { "application/json" } else { "text/event-stream" };
    let pointers: Vec<String> = POINTERS.map(str::to_owned).into();
    let headers: HeaderMap = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();
    let read = |size: usize| {
        let mut reader = Reader::new(pointers.clone(), &headers)?;
        let mut found: Vec<_> = body.chunks(size).flat_map(|piece| reader.read(piece)).collect();
        found.extend(reader.end());
        Some(found)
    };
    let whole = read(body.len().max(1));
    for size in [1, 2, 3, 7, usize::from(*first).max(1)] {
        assert_eq!(read(size), whole, "in pieces of {size}");
    }
    let told = |pointer: &str| whole.iter().flatten().any(|(of, _)| of == pointer);
    assert!(!told("/n") || memchr::memchr(b'n', body).is_some());
}

/// What is understood can be told on.
pub fn news(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    if let Ok(news) = parse_news(text) {
        let again = serde_json::to_string(&news).expect("news are JSON");
        assert_eq!(parse_news(&again).as_ref(), Ok(&news));
    }
}
