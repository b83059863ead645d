//! `compress`: which answers are compressed, and how (RFC 9110 sections 8.4, 12.5.3 and 12.5.5).

mod encoder;

use std::{borrow::Cow, io::Read};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request};

pub use encoder::Encoder;

use crate::{
    config::model::{self, Coding},
    request::{is_of_type, media_type},
};

#[derive(Debug)]
pub struct Compress {
    config: model::Compress,
}

/// What one request takes.
#[derive(Debug)]
pub struct Accepted<'a> {
    compress: &'a Compress,
    /// `None`: as it is.
    coding: Option<Coding>,
    head: bool,
    no_transform: bool,
}

/// Sums of the content as it was (RFC 9530 and before), and ranges of it.
pub const OF_THE_BYTES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

impl Compress {
    pub fn new(config: &model::Compress) -> Self {
        Compress { config: config.clone() }
    }

    pub fn accepted(&self, head: &request::Parts) -> Accepted<'_> {
        Accepted {
            compress: self,
            coding: negotiate(&head.headers, &self.config.codings),
            head: head.method == Method::HEAD,
            no_transform: no_transform(&head.headers),
        }
    }

    fn takes_type(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let found = media_type(value);
        self.config.types.iter().any(|wanted| is_of_type(&found, wanted))
    }

    /// Whether an answer would be compressed for a client that takes it.
    fn fits(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let has_content = status.as_u16() >= 200
            && !matches!(
                status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::NOT_MODIFIED
            );
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        has_content
            && length.is_none_or(|length| length >= self.config.min)
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_RANGE)
            && !no_transform(headers)
            && self.takes_type(headers)
    }
}

impl Accepted<'_> {
    /// Makes an answer's head that of a compressed one, if it is to be. An encoder for its body; HEAD has none.
    pub fn apply(&self, status: StatusCode, headers: &mut HeaderMap, empty: bool) -> Option<Encoder> {
        if !self.compress.fits(status, headers) {
            return None;
        }
        add_vary(headers, "accept-encoding");
        let coding = self.coding.filter(|_| !self.no_transform && (self.head || !empty))?;
        let encoder = match self.head {
            true => None,
            // Without memory for an encoder it goes as it is.
            false => Some(Encoder::new(coding).ok()?),
        };
        for name in &OF_THE_BYTES {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.word()));
        weaken(headers);
        encoder
    }
}

/// The same resource in other bytes is another representation: a strong tag must not stand for both (RFC 9110 section
/// 8.8.1).
pub fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get_mut(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

/// A body without its coding, if it is no longer than `most` then. `None`: of a coding that is not known, or not what it
/// says.
pub fn decode<'a>(headers: &HeaderMap, body: &'a [u8], most: u64) -> Option<Cow<'a, [u8]>> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let coding = codings.next().map_or("", |coding| coding.to_str().unwrap_or("?"));
    if codings.next().is_some() {
        return None;
    }
    let mut out = Vec::new();
    let read = match coding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => return Some(Cow::Borrowed(body)).filter(|body| body.len() as u64 <= most),
        "gzip" | "x-gzip" => flate2::read::MultiGzDecoder::new(body).take(most + 1).read_to_end(&mut out),
        "br" => brotli::Decompressor::new(body, 4096).take(most + 1).read_to_end(&mut out),
        "zstd" => zstd::stream::read::Decoder::new(body)
            .and_then(|decoder| decoder.take(most + 1).read_to_end(&mut out)),
        _ => return None,
    };
    read.ok().filter(|read| *read as u64 <= most).map(|_| Cow::Owned(out))
}

fn no_transform(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Adds a field's name to `Vary`, unless it is there.
pub fn add_vary(headers: &mut HeaderMap, name: &'static str) {
    let lines = headers.get_all(header::VARY).iter();
    let mut names =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if !names.any(|has| has == b"*" || has.eq_ignore_ascii_case(name.as_bytes())) {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
}

/// The coding with the highest weight, of equals the first of `ours`. `None`: as it is.
fn negotiate(headers: &HeaderMap, ours: &[Coding]) -> Option<Coding> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let listed: Vec<(String, u16)> = lines.flat_map(|line| line.split(',')).map(weighted).collect();
    let weight = |name: &str| {
        let of = |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, weight)| *weight);
        of(name).or_else(|| of("*"))
    };
    let gzip_or = |coding: &Coding| match coding {
        // RFC 9110 section 8.4.1.3.
        Coding::Gzip => weight("gzip").max(weight("x-gzip")),
        other => weight(other.word()),
    };
    let best = ours
        .iter()
        .rev()
        .map(|coding| (gzip_or(coding).unwrap_or(0), *coding))
        .max_by_key(|(weight, _)| *weight);
    let as_it_is = listed.iter().find(|(name, _)| name == "identity").map_or(0, |(_, weight)| *weight);
    best.filter(|(weight, _)| *weight > 0 && *weight >= as_it_is).map(|(_, coding)| coding)
}

/// A coding and its weight in thousandths. One that cannot be read weighs nothing.
fn weighted(item: &str) -> (String, u16) {
    let mut parts = item.split(';');
    let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut weight = 1000;
    for parameter in parts {
        if let Some((key, value)) = parameter.trim().split_once('=')
            && key.trim().eq_ignore_ascii_case("q")
        {
            let value = value.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q));
            weight = value.map_or(0, |q| (q * 1000.0).round() as u16);
        }
    }
    (name, weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    #[test]
    fn the_highest_weight_wins_and_of_equals_ours_first() {
        let chosen = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).unwrap());
            negotiate(&headers, &ALL).map(Coding::word)
        };
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, br", Some("br")),
            ("gzip;q=1.0, br;q=0.5", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("GZIP ; Q=0.3", Some("gzip")),
            ("*", Some("zstd")),
            ("*;q=0.1, zstd;q=0, br;q=0", Some("gzip")),
            ("gzip;q=0", None),
            ("gzip;q=0.5, identity", None),
            ("gzip, identity;q=0.5", Some("gzip")),
            ("gzip;q=2, br;q=x", None),
            ("deflate", None),
            ("", None),
        ] {
            assert_eq!(chosen(accept), coding, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new(), &ALL), None);
    }

    fn compress() -> Compress {
        let types = ["text/*", "application/json", "*+json"].map(str::to_owned).to_vec();
        Compress::new(&model::Compress { codings: vec![Coding::Gzip], min: 1024, types })
    }

    fn answer(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(pair).collect()
    }

    #[test]
    fn only_what_gains_from_it_and_may_be_changed_is_compressed() {
        let compress = compress();
        let fits = |status: u16, fields: &[(&'static str, &'static str)]| {
            compress.fits(StatusCode::from_u16(status).unwrap(), &answer(fields))
        };
        let html = ("content-type", "text/html; charset=utf-8");
        assert!(fits(200, &[html]) && fits(404, &[html]) && fits(200, &[html, ("content-length", "1024")]));
        assert!(fits(200, &[("content-type", "Application/Problem+JSON")]));
        for (status, fields) in [
            (200, vec![html, ("content-length", "1023")]),
            (200, vec![html, ("content-encoding", "br")]),
            (200, vec![html, ("cache-control", "public, No-Transform")]),
            (200, vec![("content-type", "image/png")]),
            (200, vec![("content-type", "textual/html")]),
            (200, vec![]),
            (206, vec![html, ("content-range", "bytes 0-1/2")]),
            (204, vec![html]),
            (304, vec![html]),
            (101, vec![html]),
        ] {
            assert!(!fits(status, &fields), "{status} {fields:?}");
        }
    }

    #[test]
    fn a_compressed_answer_s_head_says_so_and_no_more_than_is_true() {
        let compress = compress();
        let accepted = |coding, head| Accepted { compress: &compress, coding, head, no_transform: false };
        let whole = answer(&[
            ("content-type", "text/plain"),
            ("content-length", "5000"),
            ("etag", "\"a\""),
            ("vary", "Origin"),
            ("accept-ranges", "bytes"),
        ]);
        let mut headers = whole.clone();
        assert!(accepted(Some(Coding::Gzip), false).apply(StatusCode::OK, &mut headers, false).is_some());
        assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
        assert_eq!(headers[header::ETAG], "W/\"a\"");
        assert!(
            !headers.contains_key(header::CONTENT_LENGTH) && !headers.contains_key(header::ACCEPT_RANGES)
        );
        let vary: Vec<_> = headers.get_all(header::VARY).iter().collect();
        assert_eq!(vary, ["Origin", "accept-encoding"]);
        // To HEAD the same head, to who takes no coding all but `Vary` as it was.
        let mut head = whole.clone();
        assert!(accepted(Some(Coding::Gzip), true).apply(StatusCode::OK, &mut head, true).is_none());
        assert_eq!(head, headers);
        let mut plain = whole.clone();
        assert!(accepted(None, false).apply(StatusCode::OK, &mut plain, false).is_none());
        plain.remove(header::VARY);
        let mut rest = whole;
        rest.remove(header::VARY);
        assert_eq!(plain, rest);
    }
}
