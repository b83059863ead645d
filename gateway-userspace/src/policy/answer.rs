//! `respond` and `redirect`: answers without an upstream.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    rewrite::{Value, values},
    template::Context,
};
use crate::config::model;

#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, Value)>,
    body: Bytes,
    redirects: bool,
}

/// A route's own answer to one request.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn respond(config: &model::Respond) -> Self {
        let mut headers = values(&config.headers);
        if !config.body.is_empty() && !headers.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            headers.push((header::CONTENT_TYPE, Value::Fixed(plain)));
        }
        Answer { status: status(config.status), headers, body: config.body.clone().into(), redirects: false }
    }

    pub fn redirect(config: &model::Redirect) -> Self {
        let headers = vec![(header::LOCATION, Value::new(&config.to))];
        Answer { status: status(config.status), headers, body: Bytes::new(), redirects: true }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn answer(&self, context: &Context<'_>) -> Answered {
        let values = self.headers.iter();
        let mut headers: HeaderMap =
            values.filter_map(|(name, value)| Some((name.clone(), value.of(context)?))).collect();
        if self.redirects
            && let Some(location) = headers.get_mut(header::LOCATION)
        {
            keep_here(location);
        }
        Answered { status: self.status, headers, body: self.body.clone() }
    }
}

/// The config's reader let no other through.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// `//other.example` is another host to a browser, as is `/\other.example` (WHATWG URL): a path that begins so must not
/// lead there.
fn keep_here(location: &mut HeaderValue) {
    let bytes = location.as_bytes();
    let slashes = bytes.iter().take_while(|byte| matches!(**byte, b'/' | b'\\')).count();
    if slashes > 1
        && let Ok(one) = HeaderValue::from_bytes(&bytes[slashes - 1..])
    {
        *location = match one.as_bytes().first() {
            Some(b'/') => one,
            _ => HeaderValue::from_static("/"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_to_a_path_never_leads_to_another_host() {
        for (from, to) in [
            ("//evil.test/a", "/evil.test/a"),
            ("/\\evil", "/"),
            ("///a", "/a"),
            ("/a//b", "/a//b"),
            ("/", "/"),
        ] {
            let mut location = HeaderValue::from_static(from);
            keep_here(&mut location);
            assert_eq!(location, to, "{from}");
        }
    }
}
