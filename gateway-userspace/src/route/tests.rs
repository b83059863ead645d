use super::*;
use crate::config::model::{Matcher, Pattern, Segment};

fn path(text: &str) -> PathPattern {
    let mut segments: Vec<&str> = text.trim_start_matches('/').split('/').collect();
    let rest = segments.last() == Some(&"*");
    if rest {
        segments.pop();
    }
    let segment = |s: &str| match s.strip_prefix('{') {
        Some(name) => Segment::Parameter(name.trim_end_matches('}').into()),
        None => Segment::Literal(s.into()),
    };
    PathPattern {
        segments: segments.into_iter().filter(|s| !s.is_empty() || !rest).map(segment).collect(),
        rest,
    }
}

fn router(routes: &[(&[&str], &str)]) -> Router<String> {
    let compiled: Vec<(Vec<HostPattern>, PathPattern, String)> = routes
        .iter()
        .map(|(hosts, pattern)| {
            let host = |h: &&str| match h.strip_prefix("*.") {
                Some(suffix) => HostPattern::Wildcard(suffix.into()),
                None => HostPattern::Exact((*h).into()),
            };
            (hosts.iter().map(host).collect(), path(pattern), format!("{}{pattern}", hosts.join(",")))
        })
        .collect();
    let when = Predicates::default();
    Router::new(
        compiled
            .iter()
            .map(|(hosts, path, name)| (Takes { hosts, path, when: &when, cors: false }, name.clone())),
    )
}

#[track_caller]
fn check(router: &Router<String>, host: &str, path: &str, expected: Option<&str>) {
    let headers = HeaderMap::new();
    let asked = Asked { host, path, method: &Method::GET, headers: &headers, query: None };
    assert_eq!(router.find(&asked).map(String::as_str), expected, "{host}{path}");
}

#[test]
fn literals_win_over_parameters_over_the_rest() {
    let router = router(&[(&[], "/*"), (&[], "/items/*"), (&[], "/items/{id}"), (&[], "/items/new")]);
    check(&router, "x", "/items/new", Some("/items/new"));
    check(&router, "x", "/items/7", Some("/items/{id}"));
    check(&router, "x", "/items/7/parts", Some("/items/*"));
    check(&router, "x", "/items", Some("/items/*"));
    check(&router, "x", "/items/", Some("/items/*"));
    check(&router, "x", "/itemsx", Some("/*"));
    check(&router, "x", "/", Some("/*"));
}

#[test]
fn a_literal_that_leads_nowhere_falls_back_to_the_parameter() {
    let router = router(&[(&[], "/a/b/c"), (&[], "/a/{x}/d")]);
    check(&router, "x", "/a/b/d", Some("/a/{x}/d"));
    check(&router, "x", "/a/b/c", Some("/a/b/c"));
    check(&router, "x", "/a/b", None);
}

#[test]
fn exact_hosts_win_over_longer_wildcards_over_shorter_over_none() {
    let router =
        router(&[(&["a.b.example"], "/*"), (&["*.b.example"], "/*"), (&["*.example"], "/*"), (&[], "/*")]);
    check(&router, "A.B.Example:8080", "/", Some("a.b.example/*"));
    check(&router, "x.b.example", "/", Some("*.b.example/*"));
    check(&router, "x.y.b.example.", "/", Some("*.b.example/*"));
    check(&router, "b.example", "/", Some("*.example/*"));
    check(&router, "example", "/", Some("/*"));
    check(&router, "[2001:db8::1]:80", "/", Some("/*"));
    check(&router, &"x".repeat(300), "/", Some("/*"));
}

#[test]
fn a_less_specific_host_serves_paths_that_the_specific_one_lacks() {
    let router = router(&[(&["a.example"], "/only"), (&[], "/*")]);
    check(&router, "a.example", "/only", Some("a.example/only"));
    check(&router, "a.example", "/else", Some("/*"));
}

#[test]
fn a_route_without_rest_takes_its_path_alone() {
    let router = router(&[(&[], "/exact")]);
    check(&router, "x", "/exact", Some("/exact"));
    check(&router, "x", "/exact/", None);
    check(&router, "x", "/", None);
}

fn is(value: &str) -> Matcher {
    Matcher::Is(value.into())
}

fn like(regex: &str) -> Matcher {
    Matcher::Like(Pattern { regex: regex::bytes::Regex::new(regex).unwrap() })
}

fn when(methods: &[&str], headers: &[(&str, Matcher)], query: &[(&str, Matcher)]) -> Predicates {
    let named =
        |all: &[(&str, Matcher)]| all.iter().map(|(name, m)| ((*name).to_owned(), m.clone())).collect();
    Predicates {
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        headers: named(headers),
        query: named(query),
    }
}

fn with_predicates(routes: &[(&str, Predicates, &'static str)]) -> Router<&'static str> {
    let paths: Vec<PathPattern> = routes.iter().map(|(pattern, ..)| path(pattern)).collect();
    Router::new(
        paths
            .iter()
            .zip(routes)
            .map(|(path, (_, when, name))| (Takes { hosts: &[], path, when, cors: false }, *name)),
    )
}

struct Request(http::request::Parts);

impl Request {
    fn new(method: &str, uri: &str, headers: &[(&str, &str)]) -> Self {
        let request = http::Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Request(request.body(()).unwrap().into_parts().0)
    }

    fn asked(&self) -> Asked<'_> {
        let Request(head) = self;
        let (path, query) = (head.uri.path(), head.uri.query());
        Asked { host: "x", path, method: &head.method, headers: &head.headers, query }
    }
}

#[test]
fn more_predicates_win_and_all_of_them_must_hold() {
    let router = with_predicates(&[
        ("/a", when(&[], &[], &[]), "plain"),
        ("/a", when(&["POST"], &[], &[]), "post"),
        ("/a", when(&[], &[("x-canary", is("1")), ("x-user", like("^[a-m]"))], &[]), "canary"),
        ("/a", when(&["POST"], &[("x-canary", is("1"))], &[("debug", Matcher::Present)]), "three"),
        ("/*", when(&[], &[("x-old", Matcher::Absent)], &[]), "rest"),
    ]);
    let find = |method: &str, uri: &str, headers: &[(&str, &str)]| {
        router.find(&Request::new(method, uri, headers).asked()).copied()
    };
    assert_eq!(find("GET", "/a", &[]), Some("plain"));
    assert_eq!(find("POST", "/a", &[]), Some("post"));
    assert_eq!(find("GET", "/a", &[("x-canary", "1")]), Some("plain"));
    assert_eq!(find("GET", "/a", &[("x-canary", "1"), ("x-user", "bob")]), Some("canary"));
    assert_eq!(find("GET", "/a", &[("x-canary", "1"), ("x-user", "zoe")]), Some("plain"));
    assert_eq!(find("GET", "/a", &[("x-canary", "0"), ("x-canary", "1"), ("x-user", "bob")]), Some("canary"));
    assert_eq!(find("POST", "/a?debug", &[("x-canary", "1")]), Some("three"));
    assert_eq!(find("POST", "/a?debugs=1", &[("x-canary", "1")]), Some("post"));
    assert_eq!(find("GET", "/b", &[]), Some("rest"));
    assert_eq!(find("GET", "/b", &[("x-old", "1")]), None);
}

#[test]
fn query_parameters_are_compared_decoded() {
    let router = with_predicates(&[("/*", when(&[], &[], &[("a b", is("c&d"))]), "it")]);
    let find = |uri: &str| router.find(&Request::new("GET", uri, &[]).asked()).is_some();
    assert!(find("/?a%20b=c%26d") && find("/?x&a+b=c%26d&y=1") && find("/?a+b=1&a+b=c%26d"));
    assert!(!find("/") && !find("/?a+b") && !find("/?a+b=c&d"));
}

#[test]
fn where_only_the_method_differs_the_allowed_ones_are_known() {
    let router = with_predicates(&[
        ("/items/{id}", when(&["GET", "PUT"], &[], &[]), "items"),
        ("/items/*", when(&["DELETE"], &[], &[]), "delete"),
        ("/items/*", when(&["PATCH"], &[("x-admin", Matcher::Present)], &[]), "patch"),
        ("/plain", when(&[], &[("x-admin", Matcher::Present)], &[]), "plain"),
    ]);
    let allowed = |method: &str, uri: &str, headers: &[(&str, &str)]| {
        let request = Request::new(method, uri, headers);
        assert_eq!(router.find(&request.asked()), None);
        router.allowed(&request.asked())
    };
    assert_eq!(router.find(&Request::new("HEAD", "/items/1", &[]).asked()), Some(&"items"));
    assert_eq!(allowed("POST", "/items/1", &[]).as_deref(), Some("DELETE, GET, HEAD, PUT"));
    assert_eq!(allowed("POST", "/items", &[("x-admin", "1")]).as_deref(), Some("DELETE, PATCH"));
    assert_eq!(allowed("GET", "/plain", &[]), None);
    assert_eq!(allowed("GET", "/else", &[]), None);
}

// T1
#[test]
fn a_look_up_takes_as_long_whether_there_are_ten_routes_or_ten_thousand() {
    let took = |routes: usize| {
        let paths: Vec<String> = (0..routes).map(|n| format!("/api/v{}/items{n}/{{id}}/*", n % 10)).collect();
        let takes: Vec<(&[&str], &str)> = paths.iter().map(|path| (&[][..], path.as_str())).collect();
        let router = router(&takes);
        let asked: Vec<(String, &str)> = (0..100)
            .map(|n| n * 7919 % routes)
            .map(|n| (format!("/api/v{}/items{n}/12345/parts/7", n % 10), &*paths[n]))
            .collect();
        let round = || {
            let began = std::time::Instant::now();
            asked.iter().for_each(|(path, route)| check(&router, "shop.test", path, Some(route)));
            began.elapsed() / asked.len() as u32
        };
        (0..50).map(|_| round()).min().unwrap()
    };
    let (few, many) = (took(10), took(10_000));
    // How long that is in a release: `cargo bench -p gateway-userspace --bench route`.
    assert!(many < few * 4, "{few:?} with 10, {many:?} with 10,000");
}
