use proptest::prelude::*;

use super::*;
use crate::config::units::Prefixes;

fn config(header: RealIpHeader) -> RealIp {
    let from = ["10.0.0.0/8", "2001:db8:aa::/48"].map(|text| text.parse().unwrap());
    RealIp { from: Prefixes::new(from.to_vec()), header }
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
        (name.parse().unwrap(), value.parse().unwrap())
    };
    fields.iter().map(pair).collect()
}

fn of(header: RealIpHeader, fields: &[(&str, &str)]) -> (Node, Told) {
    read(&config(header), ("10.0.0.1".parse().unwrap(), 4711), &headers(fields))
}

fn client(header: RealIpHeader, fields: &[(&str, &str)]) -> String {
    let ((addr, port), _) = of(header, fields);
    format!("{addr} {port}")
}

#[test]
fn the_client_is_the_right_most_address_that_is_not_trusted() {
    for (chain, expected) in [
        ("192.0.2.1", "192.0.2.1 0"),
        ("192.0.2.1:80", "192.0.2.1 80"),
        ("203.0.113.9, 192.0.2.1, 10.0.0.2,10.3.4.5", "192.0.2.1 0"),
        ("spoofed, 192.0.2.1", "192.0.2.1 0"),
        ("2001:db8::1", "2001:db8::1 0"),
        ("[2001:db8::1]:443, 2001:db8:aa::7", "2001:db8::1 443"),
        ("::ffff:192.0.2.1, ::ffff:10.0.0.9", "192.0.2.1 0"),
        ("192.0.2.1, , 10.0.0.2 ,", "192.0.2.1 0"),
        // All are trusted: the first one.
        ("10.0.0.3, 10.0.0.2", "10.0.0.3 0"),
        // Nobody who is known says what stands before.
        ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2 0"),
        ("192.0.2.1, nonsense", "10.0.0.1 4711"),
        ("", "10.0.0.1 4711"),
    ] {
        let told = client(RealIpHeader::XForwardedFor, &[("x-forwarded-for", chain)]);
        assert_eq!(told, expected, "{chain}");
    }
    let lines = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "192.0.2.1, 10.0.0.2")];
    assert_eq!(client(RealIpHeader::XForwardedFor, &lines), "192.0.2.1 0");
    assert_eq!(client(RealIpHeader::XForwardedFor, &[("forwarded", "for=192.0.2.1")]), "10.0.0.1 4711");
}

#[test]
fn forwarded_is_read_with_its_quotes_and_ports() {
    for (value, expected) in [
        ("for=192.0.2.1", "192.0.2.1 0"),
        ("For=\"192.0.2.1:80\"; proto=https; by=10.0.0.1", "192.0.2.1 80"),
        ("for=\"[2001:db8::1]\"", "2001:db8::1 0"),
        ("for=\"[2001:db8::1]:4711\";host=\"a,b;c\\\"\"", "2001:db8::1 4711"),
        ("for=203.0.113.9, for=192.0.2.1;proto=http,for=10.0.0.2", "192.0.2.1 0"),
        ("for=203.0.113.9, for=_hidden, for=10.0.0.2", "10.0.0.2 0"),
        ("for=203.0.113.9, proto=http", "10.0.0.1 4711"),
        ("for=\"unknown\"", "10.0.0.1 4711"),
        ("for=192.0.2.1 x", "10.0.0.1 4711"),
        ("for=\"192.0.2.1", "10.0.0.1 4711"),
        ("for=192.0.2.1;for=192.0.2.2", "10.0.0.1 4711"),
        ("192.0.2.1", "10.0.0.1 4711"),
    ] {
        assert_eq!(client(RealIpHeader::Forwarded, &[("forwarded", value)]), expected, "{value}");
    }
}

#[test]
fn a_single_address_is_believed_when_it_is_one() {
    let header = || RealIpHeader::Single(HeaderName::from_static("cf-connecting-ip"));
    let name = "cf-connecting-ip";
    assert_eq!(client(header(), &[(name, "192.0.2.1")]), "192.0.2.1 0");
    assert_eq!(client(header(), &[(name, "10.9.9.9")]), "10.9.9.9 0");
    assert_eq!(client(header(), &[(name, "192.0.2.1, 192.0.2.2")]), "10.0.0.1 4711");
    assert_eq!(client(header(), &[(name, "192.0.2.1"), (name, "192.0.2.2")]), "10.0.0.1 4711");
    assert_eq!(client(header(), &[("x-forwarded-for", "192.0.2.1")]), "10.0.0.1 4711");
}

#[test]
fn scheme_and_host_are_kept_when_they_can_be_one() {
    let told = |fields: &[(&str, &str)]| {
        let (_, told) = of(RealIpHeader::XForwardedFor, fields);
        (told.scheme, told.host)
    };
    let good = [("x-forwarded-proto", "HTTPS"), ("x-forwarded-host", "shop.test:8443")];
    assert_eq!(told(&good), (Some("https"), Some("shop.test:8443".into())));
    let bad = [("x-forwarded-proto", "https,http"), ("x-forwarded-host", "a\"b")];
    assert_eq!(told(&bad), (None, None));
    let (_, told) = of(
        RealIpHeader::Forwarded,
        &[
            (
                "forwarded",
                "for=1.2.3.4;proto=http, for=192.0.2.1;proto=https;host=a.test, for=10.0.0.2;proto=http",
            ),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "b.test"),
        ],
    );
    assert_eq!((told.scheme, told.host.as_deref()), (Some("https"), Some("a.test")));
    assert!(told.forwarded.is_some_and(|chain| chain.starts_with("for=1.2.3.4")));
}

proptest! {
    #[test]
    fn any_header_is_read(text in "[ -~]{0,80}") {
        for header in [RealIpHeader::XForwardedFor, RealIpHeader::Forwarded] {
            let _ = of(header.clone(), &[(header.word(), &text)]);
        }
    }

    #[test]
    fn any_forwarded_is_read(text in "(for|proto|=|\"|,|;|\\\\|\\[|192.0.2.1| )*") {
        let _ = forwarded::elements(&text);
    }
}
