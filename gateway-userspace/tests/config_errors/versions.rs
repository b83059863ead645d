//! Versions of an API.

use super::says;

#[test]
fn keys_and_names_of_versions_say_what_is_wrong_with_them() {
    says(
        r##"[listener.web]
bind = ":80"
[upstream.u]
to = "10.0.0.1:1"
[route.a]
path = "/a/*"
[route.a.version]
from = ["path", "cookie:v", "header:x y", "path"]
default = "v4"
aliases = { latest = "v9", v2 = "v1", "a b" = "v1" }
on_conflict = "last"
strip = ["body"]
[route.a.version.v1]
deprecated = "yesterday"
sunset = { at = 2027-01-31T12:00:00, then = "serve", link = "docs" }
canary = { to = "v1" }
[route.a.version.v2]
to = "v"
deprecate = 2026-01-01
brownout = { at = 2026-12-01, for = "2h", every = "1h" }
canary = { to = "v7", share = "5%" }
[route.a.version.2]
to = "u"
[route.a.version.v3]
sunset = { at = 2027-01-31, then = "redirect" }
successor = "v3"
[route.a.version.1.5]
to = "u"
[route.a.version.header]
to = "u"
"##,
        r##"
gateway.toml:8:17: `route.a.version.from`: expected a place of a version such as "header:api-version", found "cookie:v"
  hint: it is "path", "host", "accept", "header:NAME" or "query:NAME"
gateway.toml:8:29: `route.a.version.from`: expected a place of a version such as "header:api-version", found "header:x y"
  hint: it is "path", "host", "accept", "header:NAME" or "query:NAME"
gateway.toml:8:43: "path" is there twice, first at gateway.toml:8:9
gateway.toml:10:13: "v9" is none of the versions of `route.a.version`
  hint: there are: "1", "2", "v3"
gateway.toml:10:28: the alias "v2" is the version 2 already
gateway.toml:10:39: `route.a.version.aliases`: "a b" cannot be the name of a version
  hint: a version is called "v1", "1.2", "2026-06-01" or by a word
gateway.toml:11:15: `route.a.version.on_conflict`: expected "refuse" or "first", found "last"
gateway.toml:12:10: `route.a.version.strip`: expected "path", "query" or "header", found "body"
gateway.toml:13:18: the versions "1" and "v1" are the same to clients
  hint: rename one of them
gateway.toml:14:14: `route.a.version.v1.deprecated`: expected a date such as "2027-01-31", found "yesterday"
gateway.toml:15:17: `route.a.version.v1.sunset.at`: expected a date such as "2027-01-31", found "2027-01-31T12:00:00"
  hint: a time of day needs its offset: 2027-01-31T12:00:00Z
gateway.toml:15:61: `route.a.version.v1.sunset.link`: expected a URL such as "https://docs.example.com/v2", found "docs"
gateway.toml:17:18: the versions "2" and "v2" are the same to clients
  hint: rename one of them
gateway.toml:19:1: unknown key `route.a.version.v2.deprecate`
  hint: did you mean `deprecated`?
gateway.toml:24:18: the version v3 leads nowhere: neither it nor its route has `to`
  hint: for example: to = "items-v1"
gateway.toml:26:13: the version v3 cannot follow itself
  hint: name a newer one
gateway.toml:27:20: unknown key `route.a.version.1.5`
  hint: a version's name with a dot in it stands in quotes: version."1.2"
gateway.toml:29:18: `route.a.version.header` is a key of the table, so nothing else can have its name
  hint: these names are taken: from, default, on_conflict, aliases, strip, header"##,
    );
}

#[test]
fn what_versions_name_is_there() {
    says(
        r##"[listener.web]
bind = ":80"
[upstream.u]
to = "10.0.0.1:1"
[route.a]
path = "/a/*"
to = "u"
[route.a.version]
from = ["path", "header:v", "path"]
default = "v4"
aliases = { latest = "v9", v2 = "v1" }
[route.a.version.v1]
canary = { to = "v1", share = "101%" }
[route.a.version.v2]
to = "v"
brownout = { at = 2026-12-01, for = "2h", every = "1h" }
canary = { to = "v7", share = "5%" }
[route.a.version.2]
[route.a.version.v3]
sunset = { at = 2027-01-31, then = "redirect" }
successor = "v3"
"##,
        r##"
gateway.toml:9:29: "path" is there twice, first at gateway.toml:9:9
gateway.toml:10:11: "v4" is none of the versions of `route.a.version`
  hint: there are: "v1", "2", "v3"
gateway.toml:11:13: "v9" is none of the versions of `route.a.version`
  hint: there are: "v1", "2", "v3"
gateway.toml:11:28: the alias "v2" is the version 2 already
gateway.toml:13:17: `canary.to`: the version v1 is where its requests go anyway
  hint: name another version
gateway.toml:13:31: `canary.share`: there is no more than 100%, found 101%
  hint: 100% is all of them
gateway.toml:14:18: the versions "2" and "v2" are the same to clients
  hint: rename one of them
gateway.toml:21:13: the version v3 cannot follow itself
  hint: name a newer one"##,
    );
}

#[test]
fn a_version_leads_somewhere_and_routes_with_versions_tie_as_others_do() {
    says(
        r##"[listener.web]
bind = ":80"
[route.a]
path = "/a/*"
to = ["10.0.0.1:1"]
[route.a.version]
from = "path"
[route.a.version.v1]
[route.b]
path = "/{version}/a/*"
to = ["10.0.0.1:1"]
[route.b.version]
from = "path"
[route.b.version.v1]
[route.c]
path = "/c"
[route.c.version]
from = "header:v"
[route.d]
path = "/d"
[route.d.version]
from = "header:v"
[route.d.version.v1]
[route.d.version.v2]
to = ["10.0.0.1:1"]
sunset = { at = 2027-01-31, then = "redirect" }
[route.d.version.v3]
redirect = "/there"
mirror = { to = "nowhere" }
"##,
        r##"
gateway.toml:9:8: route `b` takes the same requests (any host, path "/a/*") as route `a` at gateway.toml:3:8
  hint: the most specific route wins, so give one of them another host or path, or one more of `methods`, `headers` and `query`
gateway.toml:17:10: `route.c.version` has no version
  hint: add [route.c.version.v1]
gateway.toml:23:18: the version v1 leads nowhere: neither it nor its route has `to`
  hint: for example: to = "items-v1"
gateway.toml:26:1: the version v2 cannot be redirected after its sunset
  hint: that takes a newer version that is not deprecated (or `successor`), and `path` in `from`
gateway.toml:29:1: `mirror` copies what goes to an upstream, and this route has none
gateway.toml:29:17: upstream "nowhere" is not defined
  hint: add [upstream.nowhere], or write the targets here: to = ["127.0.0.1:3000"]"##,
    );
}
