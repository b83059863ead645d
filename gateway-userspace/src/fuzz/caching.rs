//! What a cache reads of requests and responses.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{
    cache::{
        dictionary,
        directives::{RequestDirectives, ResponseDirectives},
        disk,
        freshness::{Asked, Rules, Use, storable},
        key::{self, KeyParts, Place},
        purge, range, validators, vary,
    },
    config::model::KeyPart,
};

/// What a segment's parts say when their sums are right: the first byte says which part it is.
pub fn segment(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    disk::fuzz(*kind, rest);
}

/// Lines of fields: a request's, and behind an empty line its response's.
pub fn messages(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\0');
    let (request, response) =
        (fields(parts.next().unwrap_or_default()), fields(parts.next().unwrap_or_default()));
    let directives = ResponseDirectives::of(&response);
    let rules = Rules {
        ttl: Some(Duration::from_secs(60)),
        override_ttl: false,
        negative: None,
        heuristic: true,
        while_revalidate: Duration::from_secs(60),
        if_error: Duration::ZERO,
        store_set_cookie: false,
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let asked = Asked::default();
    if let Ok(terms) = storable(&asked, StatusCode::OK, &response, &rules, now, now) {
        assert!(!directives.no_store || directives.must_understand);
        assert!(!directives.private && !response.contains_key(header::SET_COOKIE));
        let wants = RequestDirectives::of(&request);
        for seconds in [0, 1, 60, 1 << 40] {
            let at = now + Duration::from_secs(seconds);
            assert!(terms.age(at) >= 0);
            let used = terms.judge(Some(&wants), None, at);
            assert!(used == Use::Validated || !wants.no_cache && !terms.no_cache);
            assert!(used != Use::Fresh || terms.left(at) > 0);
            assert!(terms.judge(None, Some(0), at) != Use::Fresh);
        }
    }
    if let Some(selected) = vary::select(&response, &request) {
        assert!(vary::matches(&selected, &request) && vary::same(&selected, &selected));
    }
    for length in [0, 1, 1000] {
        for value in request.get_all(header::RANGE) {
            if let range::Part::Of(part) = range::part(value.as_bytes(), length) {
                assert!(part.start < part.end && part.end <= length);
            }
        }
    }
    let _ = (validators::condition(&request, &response), validators::if_range(&request, &response));
    let merged = validators::freshen(&response, &request);
    assert_eq!(merged.get(header::ETAG), response.get(header::ETAG));
    assert!(purge::tags(&response).iter().all(|tag| !tag.is_empty()));
    key_of(&request);
    let _ = dictionary::parse(input);
}

fn fields(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(halves.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(halves.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_append(name, value);
        }
    }
    headers
}

/// A key has its parts in their places, and a purge of the URL takes it.
fn key_of(headers: &HeaderMap) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(uri) = text(header::REFERER).and_then(|text| text.parse::<http::Uri>().ok()) else { return };
    let host = text(header::HOST).unwrap_or("a.test");
    let asked = key::Asked {
        scheme: "http",
        forwarded_host: None,
        host,
        path: uri.path(),
        query: uri.query(),
        headers,
        consumer: None,
        body: None,
    };
    for parts in [
        vec![KeyPart::Host, KeyPart::Path, KeyPart::Query, KeyPart::Cookie("a".into())],
        vec![KeyPart::Path, KeyPart::Parameter("a".into()), KeyPart::Header(header::ACCEPT)],
    ] {
        let others = 1;
        let parts = KeyParts::new(&parts);
        let mut key = Vec::new();
        parts.write(&asked, "r", &mut key);
        assert_eq!(key.iter().filter(|byte| **byte == 0).count(), 6 + others);
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Some(place) = Place::parse(&format!("{}{query}", uri.path()), true) {
            assert!(place.takes(&parts, &key));
        }
    }
}
