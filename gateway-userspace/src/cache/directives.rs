//! Cache directives: `Cache-Control` (RFC 9111 section 5.2) and `CDN-Cache-Control` (RFC 9213).

use http::{HeaderMap, HeaderName, header};

pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The largest number of seconds that is told apart (RFC 9111 section 1.2.2).
pub const MOST_SECONDS: u32 = 1 << 31;

/// What a response asks of caches.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// A field with directives is there.
    pub present: bool,
    /// They come from `CDN-Cache-Control`, which stands above `Cache-Control` and `Expires`.
    pub targeted: bool,
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    /// Seconds. What cannot be read is 0: stale (RFC 9111 section 4.2.1).
    pub max_age: Option<u32>,
    pub s_maxage: Option<u32>,
    pub stale_while_revalidate: Option<u32>,
    pub stale_if_error: Option<u32>,
}

impl ResponseDirectives {
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(targeted) = ResponseDirectives::targeted(headers) {
            return targeted;
        }
        let mut found = ResponseDirectives::default();
        each(headers, |name, argument| {
            found.present = true;
            found.see(name, argument.map_or(Argument::None, Argument::Text));
        });
        found
    }

    /// RFC 9213 section 2.1: a dictionary that cannot be read, or is empty, is as if it were not there.
    fn targeted(headers: &HeaderMap) -> Option<Self> {
        let lines: Vec<&[u8]> =
            headers.get_all(CDN_CACHE_CONTROL).iter().map(|value| value.as_bytes()).collect();
        if lines.is_empty() {
            return None;
        }
        let members = super::dictionary::parse(&lines.join(&b", "[..]))?;
        let mut found = ResponseDirectives { present: true, targeted: true, ..Default::default() };
        for (name, value) in &members {
            use super::dictionary::Item;
            match value {
                Item::Integer(n) => {
                    let seconds = u32::try_from(*n).unwrap_or(if *n < 0 { 0 } else { MOST_SECONDS });
                    found.see(name, Argument::Seconds(seconds.min(MOST_SECONDS)));
                }
                Item::True => found.see(name, Argument::None),
                Item::Other => {}
            }
        }
        (!members.is_empty()).then_some(found)
    }

    fn see(&mut self, name: &str, argument: Argument<'_>) {
        let least = |slot: &mut Option<u32>| {
            // Told twice, the sooner end holds.
            let seconds = argument.seconds();
            *slot = Some(slot.map_or(seconds, |before| before.min(seconds)));
        };
        match name {
            "no-store" => self.no_store = true,
            // With or without a list of fields: the unlisted form asks for more, which is always right.
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => least(&mut self.max_age),
            "s-maxage" => least(&mut self.s_maxage),
            "stale-while-revalidate" => least(&mut self.stale_while_revalidate),
            "stale-if-error" => least(&mut self.stale_if_error),
            _ => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Argument<'a> {
    None,
    Text(&'a [u8]),
    Seconds(u32),
}

impl Argument<'_> {
    fn seconds(self) -> u32 {
        match self {
            Argument::None => 0,
            Argument::Text(text) => seconds(text).unwrap_or(0),
            Argument::Seconds(seconds) => seconds,
        }
    }
}

/// What a client asks of caches.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u32>,
    pub min_fresh: Option<u32>,
    /// The inner `None`: however stale.
    pub max_stale: Option<Option<u32>>,
}

impl RequestDirectives {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = RequestDirectives::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            // RFC 9111 section 5.4.
            let pragma = headers.get_all(header::PRAGMA);
            found.no_cache = pragma.iter().any(|value| {
                value.as_bytes().split(|b| *b == b',').any(|part| part.trim_ascii() == b"no-cache")
            });
            return found;
        }
        each(headers, |name, argument| {
            let number = argument.map(|text| seconds(text).unwrap_or(0));
            match name {
                "no-store" => found.no_store = true,
                "no-cache" => found.no_cache = true,
                "only-if-cached" => found.only_if_cached = true,
                "max-age" => found.max_age = Some(number.unwrap_or(0)),
                "min-fresh" => found.min_fresh = Some(number.unwrap_or(MOST_SECONDS)),
                "max-stale" => found.max_stale = Some(number),
                _ => {}
            }
        });
        found
    }
}

/// RFC 9111 section 1.2.2: digits; more than can be told apart is the most.
pub fn seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |n: u64, digit: &u8| (n * 10 + u64::from(digit - b'0')).min(u64::from(MOST_SECONDS));
    u32::try_from(text.iter().fold(0, add)).ok()
}

/// Every directive of `Cache-Control`, its name in lower case, its argument without quotes.
fn each(headers: &HeaderMap, mut see: impl FnMut(&str, Option<&[u8]>)) {
    for line in headers.get_all(header::CACHE_CONTROL) {
        for element in elements(line.as_bytes()) {
            let (name, argument) = match element.iter().position(|byte| *byte == b'=') {
                Some(at) => (&element[..at], Some(unquoted(&element[at + 1..]))),
                None => (element, None),
            };
            let Ok(name) = std::str::from_utf8(name) else { continue };
            see(&name.to_ascii_lowercase(), argument);
        }
    }
}

/// The elements of a list (RFC 9110 section 5.6.1); a comma in a quoted string is none.
pub fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = line.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' => return !quoted,
                _ => {}
            }
            false
        });
        rest = end.map(|end| &line[end + 1..]);
        Some(line[..end.unwrap_or(line.len())].trim_ascii())
    })
    .filter(|element| !element.is_empty())
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn response(lines: &[(&'static str, &'static str)]) -> ResponseDirectives {
        ResponseDirectives::of(&headers(lines))
    }

    #[test]
    fn names_are_read_without_regard_to_case_and_arguments_with_or_without_quotes() {
        let found = response(&[("cache-control", "Max-Age=60, S-MAXAGE=\"90\", nO-StOrE")]);
        assert_eq!((found.max_age, found.s_maxage, found.no_store), (Some(60), Some(90), true));
    }

    #[test]
    fn what_stands_in_a_quoted_string_is_no_directive() {
        let found = response(&[("cache-control", "ext=\"a, max-age=3600, \\\" no-store\", max-age=1")]);
        assert_eq!((found.max_age, found.no_store), (Some(1), false));
    }

    #[test]
    fn an_age_that_cannot_be_read_is_stale_and_one_too_large_is_the_largest() {
        let age = |text: &'static str| response(&[("cache-control", text)]).max_age;
        for text in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age='60'", "max-age= 60"] {
            assert_eq!(age(text), Some(0), "{text}");
        }
        assert_eq!(age("max-age=99999999999"), Some(MOST_SECONDS));
        assert_eq!(age("max-age=003600"), Some(3600));
        assert_eq!(age("max-age=60, max-age=10"), Some(10));
    }

    #[test]
    fn a_targeted_field_stands_above_cache_control_unless_it_cannot_be_read() {
        let both = |targeted| response(&[("cache-control", "no-store"), ("cdn-cache-control", targeted)]);
        let found = both("max-age=60, must-revalidate");
        assert_eq!(
            (found.max_age, found.must_revalidate, found.no_store, found.targeted),
            (Some(60), true, false, true)
        );
        for broken in ["", "max-age=60;;", "Max-Age=60", "max-age=", "a b"] {
            assert!(both(broken).no_store, "{broken:?}");
        }
        assert_eq!(both("max-age=\"60\", public").max_age, None);
    }

    #[test]
    fn requests_say_what_they_take() {
        let request = |lines| RequestDirectives::of(&headers(lines));
        let found = request(&[("cache-control", "max-stale, min-fresh=5, only-if-cached")]);
        assert_eq!((found.max_stale, found.min_fresh, found.only_if_cached), (Some(None), Some(5), true));
        assert!(request(&[("pragma", "no-cache")]).no_cache);
        assert!(!request(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]).no_cache);
    }
}
