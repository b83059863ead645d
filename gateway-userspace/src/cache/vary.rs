//! Which of several stored responses a request selects: RFC 9111 section 4.1.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields that one response may name.
const MOST: usize = 16;

/// One field that a response depends on, as the request had it that it was an answer to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selected {
    name: HeaderName,
    /// As it came, if it came once: most requests that match are the same to the letter.
    raw: Option<HeaderValue>,
    /// `None`: it was not there.
    normal: Option<Box<[u8]>>,
}

impl Selected {
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// What it is made of, for keeping it elsewhere.
    pub fn parts(&self) -> (&HeaderName, Option<&[u8]>, Option<&[u8]>) {
        (&self.name, self.raw.as_ref().map(HeaderValue::as_bytes), self.normal.as_deref())
    }

    pub fn of_parts(name: &[u8], raw: Option<&[u8]>, normal: Option<&[u8]>) -> Option<Self> {
        let raw = match raw {
            Some(raw) => Some(HeaderValue::from_bytes(raw).ok()?),
            None => None,
        };
        Some(Selected { name: HeaderName::from_bytes(name).ok()?, raw, normal: normal.map(Box::from) })
    }
}

/// What a response depends on. `None`: on something that no cache can know, or on too much.
pub fn select(response: &HeaderMap, request: &HeaderMap) -> Option<Box<[Selected]>> {
    let mut fields: Vec<Selected> = Vec::new();
    for line in response.get_all(header::VARY) {
        for element in super::directives::elements(line.as_bytes()) {
            if element == b"*" {
                return None;
            }
            let name = HeaderName::from_bytes(element).ok()?;
            if fields.iter().any(|field| field.name == name) {
                continue;
            }
            if fields.len() == MOST {
                return None;
            }
            let raw = once(request, &name).and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
            let normal = normal(request, &name);
            fields.push(Selected { name, raw, normal });
        }
    }
    Some(fields.into())
}

/// Whether a request selects the response.
pub fn matches(fields: &[Selected], request: &HeaderMap) -> bool {
    fields.iter().all(|field| match (&field.raw, once(request, &field.name)) {
        (Some(raw), Some(value)) if raw == value => true,
        (None, None) if field.normal.is_none() && !request.contains_key(&field.name) => true,
        _ => field.normal == normal(request, &field.name),
    })
}

/// Whether two responses are for the same requests.
pub fn same(one: &[Selected], two: &[Selected]) -> bool {
    let like = |a: &Selected, b: &Selected| a.name == b.name && a.normal == b.normal;
    one.len() == two.len() && one.iter().all(|a| two.iter().any(|b| like(a, b)))
}

pub fn weight(fields: &[Selected]) -> usize {
    let one = |field: &Selected| {
        size_of::<Selected>()
            + field.raw.as_ref().map_or(0, HeaderValue::len)
            + field.normal.as_ref().map_or(0, |normal| normal.len())
    };
    fields.iter().map(one).sum()
}

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Lines joined, without the space around commas; and where neither order nor case says anything, without these.
fn normal(headers: &HeaderMap, name: &HeaderName) -> Option<Box<[u8]>> {
    if !headers.contains_key(name) {
        return None;
    }
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let joined = lines.join(&b',');
    let unordered =
        [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE, header::ACCEPT_CHARSET]
            .contains(name);
    let mut elements: Vec<Vec<u8>> = super::directives::elements(&joined)
        .map(|element| match unordered {
            true => element.iter().filter(|b| !b.is_ascii_whitespace()).map(u8::to_ascii_lowercase).collect(),
            false => element.to_vec(),
        })
        .collect();
    if unordered {
        elements.sort_unstable();
        elements.dedup();
    }
    Some(elements.join(&b',').into())
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

    fn selects(
        vary: &'static str,
        first: &[(&'static str, &'static str)],
        then: &[(&'static str, &'static str)],
    ) -> bool {
        let fields = select(&headers(&[("vary", vary)]), &headers(first)).expect("it can be stored");
        matches(&fields, &headers(then))
    }

    #[test]
    fn a_response_is_for_requests_that_are_the_same_in_all_that_it_names() {
        assert!(selects(
            "foo, Bar",
            &[("foo", "1"), ("bar", "a"), ("x", "1")],
            &[("bar", "a"), ("foo", "1")]
        ));
        assert!(!selects("foo", &[("foo", "1")], &[("foo", "2")]));
        assert!(!selects("foo", &[("foo", "1")], &[]) && !selects("foo", &[], &[("foo", "1")]));
        assert!(!selects("foo", &[], &[("foo", "")]) && selects("foo", &[], &[]));
    }

    #[test]
    fn what_says_the_same_is_the_same() {
        assert!(selects("foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]));
        assert!(selects("foo", &[("foo", "1,2")], &[("foo", "1 ,  2")]));
        assert!(!selects("foo", &[("foo", "1, 2")], &[("foo", "2, 1")]));
        assert!(!selects("foo", &[("foo", "a")], &[("foo", "A")]));
        assert!(selects(
            "accept-language",
            &[("accept-language", "en, de;q=0.5")],
            &[("accept-language", "DE; q=0.5,en")]
        ));
        assert!(selects(
            "accept-encoding",
            &[("accept-encoding", "gzip, br")],
            &[("accept-encoding", "br,gzip")]
        ));
    }

    #[test]
    fn what_depends_on_anything_is_never_used_again() {
        for vary in ["*", "*, *", ", *", "foo, *", "*, foo"] {
            assert!(select(&headers(&[("vary", vary)]), &HeaderMap::new()).is_none(), "{vary}");
        }
        let many: String = (0..=MOST).map(|n| format!("x-{n},")).collect();
        let mut response = HeaderMap::new();
        response.insert("vary", many.parse().unwrap());
        assert!(select(&response, &HeaderMap::new()).is_none());
    }
}
