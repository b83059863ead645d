//! `csrf`: requests that a page of another site has a browser send are refused, where they may change something. Browsers
//! tell by `Sec-Fetch-Site` (Fetch Metadata), older ones by `Origin` (RFC 6454); what sends neither is no browser.

use http::{HeaderMap, HeaderName, Method, header, request};

use crate::config::model::Origin;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[derive(Debug)]
pub struct Csrf {
    /// Whose pages may.
    trusted: Vec<Origin>,
}

impl Csrf {
    pub fn new(trusted: Vec<Origin>) -> Self {
        Csrf { trusted }
    }

    pub fn allows(&self, head: &request::Parts) -> bool {
        // A WebSocket is opened by a GET, and with the user's cookies.
        let harmless = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method)
            && !head.headers.contains_key(header::UPGRADE);
        let (Ok(site), Ok(origin)) =
            (only(&head.headers, &SEC_FETCH_SITE), only(&head.headers, &header::ORIGIN))
        else {
            return harmless;
        };
        let trusted =
            || origin.is_some_and(|origin| self.trusted.iter().any(|one| one.takes(origin.as_bytes())));
        harmless
            || match (site, origin) {
                (Some("same-origin" | "none"), _) | (None, None) => true,
                (Some(_), _) => trusted(),
                (None, Some(origin)) => is_of_host(origin, &head.headers) || trusted(),
            }
    }
}

/// `Err`: it is there more than once, and could be read as either.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => field.to_str().map(Some).map_err(drop),
        _ => Err(()),
    }
}

/// Whether the page is of the host that is asked. Not its scheme: TLS may end before us.
fn is_of_host(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let of = origin.split_once("://").map(|(_, authority)| authority);
    of.zip(host).is_some_and(|(of, host)| of.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let csrf = Csrf::new(vec![Origin::Exact("https://app.test".into())]);
        let allows = |method: &str, fields: &[(&str, &str)]| {
            let mut head = http::Request::builder().method(method).uri("/").header("host", "shop.test");
            for (name, value) in fields {
                head = head.header(*name, *value);
            }
            csrf.allows(&head.body(()).unwrap().into_parts().0)
        };
        for allowed in [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://shop.test")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.test")],
            &[("origin", "https://shop.test")],
            &[("origin", "https://Shop.Test")],
            &[("origin", "https://app.test")],
        ] {
            assert!(allows("POST", allowed), "{allowed:?}");
        }
        for refused in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site"), ("origin", "https://other.shop.test")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://evil.test")],
            &[("sec-fetch-site", "cross-site"), ("origin", "https://app.test.evil.test")],
            &[("sec-fetch-site", "x")],
            &[("origin", "https://evil.test")],
            &[("origin", "null")],
            &[("origin", "https://shop.test:8443")],
            &[("origin", "https://shop.test"), ("origin", "https://evil.test")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
        ] {
            for method in ["POST", "PUT", "DELETE", "PATCH", "X-OWN"] {
                assert!(!allows(method, refused), "{method} {refused:?}");
            }
            assert!(allows("GET", refused) && allows("HEAD", refused), "{refused:?}");
        }
        let socket = [("upgrade", "websocket"), ("origin", "https://evil.test")];
        assert!(!allows("GET", &socket) && allows("GET", &[("upgrade", "websocket")]));
    }
}
