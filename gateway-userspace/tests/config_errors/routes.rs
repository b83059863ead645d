//! Routes: what they take, and where they lead.

use super::says;

/// A listener and an upstream, seven lines, before `route`.
fn with_upstream(route: &str) -> String {
    format!("[listener.web]\nbind = \":80\"\n[upstream.u]\nto = \"10.0.0.1:1\"\n{route}")
}

#[test]
fn predicates_have_the_form_of_what_they_match() {
    says(
        &with_upstream(
            r#"[route.a]
to = "u"
methods = ["get", "CONNECT", "G T", "GET", "GET"]
headers = { "x y" = "1", x-a = 1, X-b = true, x-B = false, x-c = { regex = "(" } }
query = { "" = "1", v = { like = "x" } }
"#,
        ),
        r#"
gateway.toml:7:12: `route.a.methods`: expected a method such as "GET", found "get"
  hint: write it in upper case: "GET"
gateway.toml:7:19: `route.a.methods`: the method CONNECT is not supported yet
gateway.toml:7:30: `route.a.methods`: expected a method such as "GET", found "G T"
gateway.toml:7:44: method "GET" is there twice, first at gateway.toml:7:37
gateway.toml:8:13: `route.a.headers`: expected a header field's name such as "x-version", found "x y"
gateway.toml:8:32: `route.a.headers.x-a`: expected a value such as "v2" or true or false or a table { regex }, found 1
gateway.toml:8:47: `route.a.headers` has "x-B" twice, first at gateway.toml:8:35
gateway.toml:8:76: `route.a.headers.x-c.regex`: "(" is no regular expression: unclosed group
  hint: the syntax is that of https://docs.rs/regex#syntax
gateway.toml:9:11: `route.a.query`: expected a query parameter's name, found ""
gateway.toml:9:21: `route.a.query.v.regex` is missing
  hint: for example: regex = "^v[0-9]+$"
gateway.toml:9:27: unknown key `route.a.query.v.like`
  hint: known here: regex"#,
    );
}

#[test]
fn routes_tie_when_some_request_meets_the_predicates_of_both() {
    says(
        &with_upstream(
            r#"[route.a]
to = "u"
methods = ["GET"]
[route.b]
to = "u"
methods = ["POST", "PUT"]
[route.c]
to = "u"
headers = { x-canary = "1" }
[route.d]
to = "u"
headers = { x-canary = "2" }
methods = ["GET"]
"#,
        ),
        r#"
gateway.toml:11:8: route `c` takes the same requests (any host, path "/*") as route `a` at gateway.toml:5:8
  hint: the most specific route wins, so give one of them another host or path, or one more of `methods`, `headers` and `query`"#,
    );
}

#[test]
fn paths_that_are_equal_tie_however_they_are_written() {
    says(
        &with_upstream("[route.a]\npath = \"/~u\"\nto = \"u\"\n[route.b]\npath = \"/%7eu\"\nto = \"u\"\n"),
        r#"
gateway.toml:8:8: route `b` takes the same requests (any host, path "/~u") as route `a` at gateway.toml:5:8
  hint: the most specific route wins, so give one of them another host or path, or one more of `methods`, `headers` and `query`"#,
    );
}
