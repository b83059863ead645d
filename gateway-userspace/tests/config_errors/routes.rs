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

#[test]
fn a_rewrite_says_what_is_wrong_with_it_and_where() {
    says(
        &with_upstream(
            r#"[route.a]
path = "/a/{id}"
to = "u"
[route.a.rewrite]
path = "/b/*"
set = { connection = "close", x-a = "${param.ID}", x-b = "${hots}", x-c = "a\r\nb", x-d = "${1}" }
add = { host = "b.test", x-e = "${header.x" }
remove = ["content-length", "host"]
[route.b]
path = "/b"
to = "u"
rewrite = { path = { regex = "^/(b)", to = "/${2}" }, response = { set = { te = "x" } } }
[route.c]
path = "/c"
to = "u"
rewrite = { path = "c", set = { x-a = "ü", x-b = " a" } }
"#,
        ),
        r#"
gateway.toml:9:8: `rewrite.path`: the route's path "/a/{id}" has no `*`
  hint: `*` stands for what the route's own `*` took
gateway.toml:10:9: the field `connection` is the gateway's own business
  hint: it frames the message, belongs to one connection only or is how logs are found
gateway.toml:10:31: `set.x-a`: the route's path "/a/{id}" has no parameter "ID"
  hint: did you mean `${param.id}`?
gateway.toml:10:58: `route.a.rewrite.set.x-b`: "${hots}" is not a variable
  hint: did you mean `${host}`?
gateway.toml:10:75: `route.a.rewrite.set.x-c`: a field's value cannot have '\r' in it
  hint: only visible ASCII characters and spaces
gateway.toml:10:85: `set.x-d`: `${1}` is a group of a regular expression, and here is none
  hint: groups are counted from 1 by their opening parentheses; 0 is the whole match
gateway.toml:11:9: the field `host` is the gateway's own business
  hint: use `rewrite.set` for another host
gateway.toml:11:32: `route.a.rewrite.add.x-e`: "${header.x" has a `${` without a `}`
  hint: write `$${` for a `${` that is meant as it is
gateway.toml:12:11: the field `content-length` is the gateway's own business
  hint: it frames the message, belongs to one connection only or is how logs are found
gateway.toml:12:29: the field `host` is the gateway's own business
  hint: use `rewrite.set` for another host
gateway.toml:16:44: `rewrite.path.to`: the regular expression has no group 2
  hint: groups are counted from 1 by their opening parentheses; 0 is the whole match
gateway.toml:16:76: the field `te` is the gateway's own business
  hint: it frames the message, belongs to one connection only or is how logs are found
gateway.toml:20:20: `route.c.rewrite.path`: expected a path such as "/internal/*", found "c"
  hint: a path starts with a slash
gateway.toml:20:39: `route.c.rewrite.set.x-a`: a field's value cannot have 'ü' in it
  hint: only visible ASCII characters and spaces
gateway.toml:20:50: `route.c.rewrite.set.x-b`: the spaces around " a" would not be sent"#,
    );
}

#[test]
fn a_route_leads_to_one_place_only() {
    says(
        &with_upstream(
            r#"[route.a]
path = "/a"
to = "u"
respond = { status = 200 }
[route.b]
path = "/b"
redirect = { to = "example.com", status = 304 }
[route.c]
path = "/c"
redirect = { to = "/x", status = 305 }
rewrite = { path = "/y" }
[route.d]
path = "/d"
respond = { status = 204, body = "x" }
[route.e]
path = "/e"
redirect = "//evil.test"
"#,
        ),
        r#"
gateway.toml:8:1: `respond` and `to` (at gateway.toml:7:6) both answer this route's requests
  hint: leave one of them out
gateway.toml:11:19: `route.b.redirect.to`: expected a URL such as "https://www.example.com${uri}", found "example.com"
  hint: it starts with "https://", "http://", "${scheme}://" or "/"
gateway.toml:14:34: 305 is no redirect
  hint: use 301, 302, 303, 307 or 308
gateway.toml:15:20: `rewrite.path` is for requests to an upstream, and this route has none
gateway.toml:18:34: an answer with status 204 has no body
gateway.toml:21:12: `route.e.redirect`: expected a URL such as "https://www.example.com${uri}", found "//evil.test"
  hint: it starts with "https://", "http://", "${scheme}://" or "/""#,
    );
}

#[test]
fn shares_and_mirrors_lead_to_upstreams_that_are_there() {
    says(
        &with_upstream(
            r#"[upstream.users]
to = "10.0.0.2:1"
[route.a]
path = "/a"
to = { u = 95, user = 5 }
[route.b]
path = "/b"
to = { u = 0, users = 0 }
[route.c]
path = "/c"
to = { u = 1001, "10.0.0.1:80" = 1 }
sticky = "cookie"
[route.d]
path = "/d"
to = "u"
sticky = "ip"
mirror = { to = "nobody", share = "150%" }
[route.e]
path = "/e"
respond = { status = 200 }
mirror = { to = "u", body = "1GiB" }
"#,
        ),
        r#"
gateway.toml:9:16: upstream "user" is not defined
  hint: did you mean "users"?
gateway.toml:12:1: no upstream gets any request
  hint: give one of them a weight: { items-v2 = 95, items-v1 = 5 }
gateway.toml:15:12: `route.c.to.u`: must be from 0 to 1000, found 1001
gateway.toml:15:18: `route.c.to`: "10.0.0.1:80" is an address, not an upstream's name
  hint: write a list: to = ["10.0.0.1:80"]
gateway.toml:16:10: `route.c.sticky`: expected a key such as "cookie:uid", found "cookie"
  hint: it is "ip", or "cookie:" or "header:" and a name
gateway.toml:20:10: `sticky` is for several upstreams: to = { a = 95, b = 5 }
gateway.toml:21:17: upstream "nobody" is not defined
  hint: defined: "u", "users"
gateway.toml:21:35: `mirror.share`: there is no more than 100%, found 150%
gateway.toml:25:1: `mirror` copies what goes to an upstream, and this route has none
gateway.toml:25:29: `route.e.mirror.body`: must be from 0B to 16MiB, found "1GiB""#,
    );
}

#[test]
fn cross_origin_rules_and_compression_say_what_is_wrong_with_them() {
    says(
        &with_upstream(
            r#"[route.a]
path = "/a"
to = "u"
cors = { origins = ["*"], credentials = true }
[route.b]
path = "/b"
to = "u"
cors = { origins = ["a.test", "https://a.test/", "https://a.*.test", "https://A.test", "https://a.test"], methods = ["get"] }
[route.c]
path = "/c"
to = "u"
cors = { credentials = true }
compress = { codings = ["deflate", "gzip", "gzip"], types = ["text", "*/*"], min = "2GiB" }
[route.d]
path = "/d"
to = "u"
compress = "gzip"
"#,
        ),
        r#"
gateway.toml:8:20: with `credentials` every page anywhere could act as the user: `origins` must not have "*"
  hint: name the origins: origins = ["https://app.example.com"]
gateway.toml:12:21: `route.b.cors.origins`: expected an origin such as "https://app.example.com", found "a.test"
  hint: an origin has a scheme, a host and maybe a port
gateway.toml:12:31: `route.b.cors.origins`: expected an origin such as "https://app.example.com", found "https://a.test/"
  hint: leave the path out: "https://a.test"
gateway.toml:12:50: `route.b.cors.origins`: expected an origin such as "https://app.example.com", found "https://a.*.test"
  hint: `*` stands for whole labels, and only in front: "https://*.example.com"
gateway.toml:12:88: origin "https://a.test" is there twice, first at gateway.toml:12:70
gateway.toml:12:118: `route.b.cors.methods`: expected a method such as "GET", found "get"
  hint: write it in upper case: "GET"
gateway.toml:16:1: `route.c.cors.origins` is missing
  hint: for example: origins = ["https://app.example.com"]
gateway.toml:17:25: `route.c.compress.codings`: expected "zstd", "br" or "gzip", found "deflate"
gateway.toml:17:44: coding "gzip" is there twice, first at gateway.toml:17:36
gateway.toml:17:62: `route.c.compress.types`: expected a media type such as "text/html", found "text"
  hint: "text/*" is every text, "*+json" every type with that suffix
gateway.toml:17:70: `route.c.compress.types`: expected a media type such as "text/html", found "*/*"
  hint: "text/*" is every text, "*+json" every type with that suffix
gateway.toml:17:84: `route.c.compress.min`: must be from 0B to 1GiB, found "2GiB"
gateway.toml:21:12: `route.d.compress`: expected true or false or a table { codings, min, types }, found "gzip""#,
    );
}

#[test]
fn changes_to_json_that_cannot_be_meant_are_refused() {
    says(
        &with_upstream(
            r#"[route.a]
to = "u"
[route.a.rewrite.json]
remove = ["secret", "/a~2"]
rename = { "/items/*" = "/b", "/items/*/a" = "/items/b", "/x/*/a" = "/x/*/*", "/ok/*/a" = "/ok/*/b/c" }
set = { "/a" = "${nobody}", "/b" = -1, "/c" = { json = "{" }, "/d" = [1] }
[route.b]
path = "/b"
respond = { body = "hi" }
rewrite = { response = { json = { remove = "/a" } } }
"#,
        ),
        r#"
gateway.toml:8:11: `route.a.rewrite.json.remove`: expected a JSON pointer such as "/items/*/updated_at", found "secret"
gateway.toml:8:21: `route.a.rewrite.json.remove`: expected a JSON pointer such as "/items/*/updated_at", found "/a~2"
gateway.toml:9:12: `rename`: "/items/*" cannot become "/b"
  hint: up to its last `*` the pointer stays the same, and a name follows: "/items/*/a" = "/items/*/b"
gateway.toml:9:31: `rename`: "/items/*/a" cannot become "/items/b"
  hint: up to its last `*` the pointer stays the same, and a name follows: "/items/*/a" = "/items/*/b"
gateway.toml:9:58: `rename`: "/x/*/a" cannot become "/x/*/*"
  hint: up to its last `*` the pointer stays the same, and a name follows: "/items/*/a" = "/items/*/b"
gateway.toml:10:16: `route.a.rewrite.json.set."/a"`: "${nobody}" is not a variable
  hint: known: host, path, query, uri, method, scheme, client.ip, id, consumer.id, consumer.tier, claim.NAME, param.NAME, header.NAME, query.NAME
gateway.toml:10:36: `route.a.rewrite.json.set."/b"`: must be from 0 to 9223372036854775807, found -1
gateway.toml:10:56: `route.a.rewrite.json.set."/c".json`: "{" is no JSON: EOF while parsing an object at line 1 column 1
gateway.toml:10:70: `route.a.rewrite.json.set."/d"`: expected true or false or a whole number from 0 to 9223372036854775807 or a text such as "${consumer.id}" or a table { json }, found a list
gateway.toml:14:26: `rewrite.response.json` is for requests to an upstream, and this route has none"#,
    );
}
