//! `client_cache`: what clients may keep, and how they find out that it still holds.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request};

use crate::{
    cache::{directives::ResponseDirectives, validators},
    config::model,
};

#[derive(Debug)]
pub struct ClientCache {
    control: Option<HeaderValue>,
    over: bool,
    pub etag: bool,
    /// Bytes of a body that gets a tag.
    pub most: u64,
}

/// What one request has to do with it.
#[derive(Debug)]
pub struct Asked<'a> {
    pub policy: &'a ClientCache,
    /// Its `If-None-Match`.
    conditions: HeaderMap,
    /// Its answer has a body.
    get: bool,
}

impl ClientCache {
    pub fn new(config: &model::ClientCache) -> Self {
        ClientCache {
            control: config.control.as_deref().and_then(|control| HeaderValue::from_str(control).ok()),
            over: config.over,
            etag: config.etag,
            most: config.max,
        }
    }

    /// `None`: it is not about what can be kept.
    pub fn asked(&self, head: &request::Parts) -> Option<Asked<'_>> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }
        let mut conditions = HeaderMap::new();
        for value in head.headers.get_all(header::IF_NONE_MATCH) {
            // A copy: a clone would keep all of the buffer that the request was read into.
            conditions.extend(
                HeaderValue::from_bytes(value.as_bytes()).ok().map(|value| (header::IF_NONE_MATCH, value)),
            );
        }
        Some(Asked { policy: self, conditions, get: head.method == Method::GET })
    }
}

impl Asked<'_> {
    /// Says what clients may keep. What the upstream wants nobody to keep, or one client only, stays so.
    pub fn control(&self, status: StatusCode, headers: &mut HeaderMap) {
        let Some(control) = &self.policy.control else { return };
        if !status.is_success() && status != StatusCode::NOT_MODIFIED {
            return;
        }
        let said = ResponseDirectives::of(headers);
        let told = headers.contains_key(header::CACHE_CONTROL) || headers.contains_key(header::EXPIRES);
        let own = said.no_store || said.private || headers.contains_key(header::SET_COOKIE);
        if own || told && !self.policy.over {
            return;
        }
        headers.remove(header::EXPIRES);
        headers.remove(header::PRAGMA);
        headers.insert(header::CACHE_CONTROL, control.clone());
    }

    /// Whether the answer is to get a tag of its content.
    pub fn wants_tag(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.policy.etag && self.get && status == StatusCode::OK && !headers.contains_key(header::ETAG)
    }

    /// Whether the client has what has this tag.
    pub fn has(&self, headers: &HeaderMap) -> bool {
        validators::condition(&self.conditions, headers) == validators::Condition::NotModified
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(over: bool, status: u16, lines: &[(&'static str, &'static str)]) -> Option<String> {
        let config =
            model::ClientCache { control: Some("max-age=60".into()), over, etag: true, max: 1 << 20 };
        let policy = ClientCache::new(&config);
        let (head, ()) = http::Request::get("/").body(()).unwrap().into_parts();
        let mut headers: HeaderMap =
            lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        policy.asked(&head).unwrap().control(StatusCode::from_u16(status).unwrap(), &mut headers);
        headers.get("cache-control").map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn it_is_said_where_nothing_is_or_in_place_of_what_is_but_never_of_what_is_one_client_s() {
        let ours = Some("max-age=60".to_owned());
        assert_eq!(said(false, 200, &[]), ours);
        assert_eq!(said(false, 304, &[]), ours);
        assert_eq!(said(false, 200, &[("cache-control", "max-age=1")]), Some("max-age=1".into()));
        assert_eq!(said(false, 200, &[("expires", "0")]), None);
        assert_eq!(said(true, 200, &[("cache-control", "max-age=1"), ("expires", "0")]), ours);
        assert_eq!(said(true, 200, &[("cache-control", "no-store")]), Some("no-store".into()));
        assert_eq!(said(true, 200, &[("cache-control", "private")]), Some("private".into()));
        assert_eq!(said(true, 200, &[("set-cookie", "a=b")]), None);
        assert_eq!(said(true, 404, &[]), None);
    }
}
