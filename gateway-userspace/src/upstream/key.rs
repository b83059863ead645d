//! What of a request its target depends on: the key of `hash_on`, and the sticky cookie.

use std::net::IpAddr;

use gateway_common::{hash, source::Address};
use http::{HeaderMap, HeaderValue, request};

use crate::{
    balance::SEED,
    config::model::{HashOn, StickyCookie},
    request::{cookie, parameter},
};

/// Who asks.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub client: IpAddr,
    pub consumer: Option<&'a str>,
}

/// The hash of the first of `on` that the request has; else of the client's address.
pub fn key(on: &[HashOn], head: &request::Parts, asker: Asker<'_>) -> u64 {
    let of_client = || hash::of_address(SEED, Address::from(asker.client));
    on.iter().find_map(|on| one(on, head, asker.consumer, &of_client)).unwrap_or_else(of_client)
}

fn one(
    on: &HashOn,
    head: &request::Parts,
    consumer: Option<&str>,
    of_client: &dyn Fn() -> u64,
) -> Option<u64> {
    let bytes = match on {
        HashOn::Header(name) => head.headers.get(name.as_str())?.as_bytes(),
        HashOn::Cookie(name) => cookie(&head.headers, name)?,
        HashOn::Query(name) => parameter(head.uri.query()?, name)?.as_bytes(),
        HashOn::Path => head.uri.path().as_bytes(),
        HashOn::Consumer => consumer?.as_bytes(),
        HashOn::Ip => return Some(of_client()),
        HashOn::Random => return Some(fastrand::u64(..)),
    };
    // An empty value tells nobody apart.
    (!bytes.is_empty()).then(|| hash::of_bytes(SEED, bytes))
}

/// The target that the client's cookie names, as its identity.
pub fn stuck_to(sticky: &StickyCookie, headers: &HeaderMap) -> Option<u64> {
    let value = std::str::from_utf8(cookie(headers, &sticky.cookie)?).ok()?;
    // `from_str_radix` would take a sign.
    let fits = value.len() == 16 && value.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u64::from_str_radix(value, 16).ok()).flatten()
}

/// The cookie for a target.
pub fn set_cookie(sticky: &StickyCookie, identity: u64, over_tls: bool) -> Option<HeaderValue> {
    let StickyCookie { cookie, lasts, same_site, secure } = sticky;
    let same_site = match *same_site {
        "strict" => "Strict",
        "none" => "None",
        _ => "Lax",
    };
    let lasts = lasts.map(|lasts| format!("; Max-Age={}", lasts.as_secs())).unwrap_or_default();
    let secure = if *secure || over_tls { "; Secure" } else { "" };
    let text = format!("{cookie}={identity:016x}; Path=/{lasts}; HttpOnly; SameSite={same_site}{secure}");
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn key_of(on: &[&str], head: &request::Parts) -> u64 {
        let on: Vec<HashOn> = on.iter().map(|on| HashOn::parse(on).unwrap()).collect();
        key(&on, head, Asker { client: "192.0.2.1".parse().unwrap(), consumer: Some("acme") })
    }

    #[test]
    fn the_first_part_that_a_request_has_is_its_key() {
        let head = head("/a?u=7&v=8", &[("x-user", "ann"), ("cookie", "a=1; uid=u5;b=2")]);
        let of = |text: &str| hash::of_bytes(SEED, text.as_bytes());
        assert_eq!(key_of(&["header:X-User", "ip"], &head), of("ann"));
        assert_eq!(key_of(&["header:x-none", "consumer"], &head), of("acme"));
        assert_eq!(key_of(&["header:x-none", "cookie:uid"], &head), of("u5"));
        assert_eq!(key_of(&["query:v"], &head), of("8"));
        assert_eq!(key_of(&["path"], &head), of("/a"));
        assert_eq!(key_of(&["query:none", "cookie:id"], &head), key_of(&["ip"], &head));
        assert_ne!(key_of(&["header:x-none", "random"], &head), key_of(&["header:x-none", "random"], &head));
    }

    #[test]
    fn a_sticky_cookie_is_written_and_read() {
        let sticky = StickyCookie {
            cookie: "at".into(),
            lasts: Some(Duration::from_secs(60)),
            same_site: "strict",
            secure: true,
        };
        let set = set_cookie(&sticky, 0xab, false).unwrap();
        assert_eq!(set, "at=00000000000000ab; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure");
        let read = |value: &str| stuck_to(&sticky, &head("/", &[("cookie", value)]).headers);
        assert_eq!(read("x=1; at=00000000000000ab"), Some(0xab));
        for wrong in ["at=ab", "at=", "cat=00000000000000ab", "at=+00000000000000a"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
