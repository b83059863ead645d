//! What HTTP/2's field compression (RFC 7541) had better not remember.
//!
//! Values that are others each time evict from an encoder's table what does come again, and it looks through all that it has
//! of a name before it adds one more: ids alone fill 4 KiB, and took a twentieth of all instructions of a request.

use http::{HeaderMap, HeaderName, header};

/// Of requests, and of answers.
const CHANGING: [HeaderName; 6] = [
    HeaderName::from_static("x-request-id"),
    header::DATE,
    HeaderName::from_static("cache-status"),
    HeaderName::from_static("ratelimit"),
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("traceparent"),
];

/// Has fields whose values are others each time, or each second, sent as literals that are not indexed (section 6.2.3).
pub fn spare_table(headers: &mut HeaderMap) {
    for name in &CHANGING {
        if let Some(value) = headers.get_mut(name) {
            value.set_sensitive(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_changes_is_not_indexed_and_the_rest_is() {
        let mut headers = HeaderMap::new();
        for name in ["date", "x-request-id", "cache-status", "content-type", "via"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("a"));
        }
        spare_table(&mut headers);
        let marked = |name: &str| headers[name].is_sensitive();
        assert!(["date", "x-request-id", "cache-status"].into_iter().all(marked));
        assert!(!["content-type", "via"].into_iter().any(marked));
        assert_eq!(headers.len(), 5);
    }
}
