//! Who may call.

use super::says;

/// A listener, an upstream, and a route up to its fifth line.
fn route(rest: &str) -> String {
    format!("[listener.web]\nbind = \":80\"\n[route.a]\nto = [\"10.0.0.1:1\"]\n{rest}")
}

#[test]
fn routes_name_ways_that_there_are_and_rights_that_can_be_had() {
    says(
        &route(
            r#"auth = ["all", "keys", "key", "key"]
allow = ["items:read", "tier:go ld", "claim:x", "items:read"]
[route.b]
path = "/b"
to = ["10.0.0.1:2"]
allow = { get = [] }
[route.c]
path = "/c"
to = ["10.0.0.1:3"]
auth = ["all"]
[auth.key]
type = "api-key"
"#,
        ),
        r#"
gateway.toml:5:16: auth "keys" is not defined
  hint: did you mean "key"?
gateway.toml:5:31: auth "key" is there twice, first at gateway.toml:5:24
gateway.toml:6:24: `route.a.allow`: expected a right such as "items:read", found "tier:go ld"
gateway.toml:6:38: `route.a.allow`: expected a right such as "items:read", found "claim:x"
  hint: a claim is written "claim:NAME=VALUE"
gateway.toml:6:49: "items:read" is there twice
gateway.toml:10:1: `allow` needs `auth`: without it nobody is known
  hint: add auth = ["…"], the name of an [auth.NAME]
gateway.toml:10:11: `route.b.allow`: expected a method such as "GET", found "get"
  hint: write it in upper case: "GET"
gateway.toml:14:8: `auth` has "all" of nothing"#,
    );
}

#[test]
fn a_key_is_told_by_its_hash_and_belongs_to_one() {
    says(
        &route(
            r#"[auth.key]
type = "api-key"
from = ["header:Authorization", "header:host", "body"]
realm = "a\"b"
[auth.other]
[consumer.acme]
grant = ["tier:gold", "a b", "x"]
keys = [{ id = "k1", hash = "secret" }, { id = "k2", hash = "blake3:12" }]
[consumer.b]
keys = [
  { id = "k1", hash = "blake3:7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069", until = "soon" },
  { id = "k1", hash = "blake3:7F83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069", until = 2027-01-01T10:00:00 },
]
"#,
        ),
        r#"
gateway.toml:7:9: `auth.key.from`: the header authorization has a scheme before the credential
  hint: write "bearer"
gateway.toml:7:33: `auth.key.from`: the header host means something else
gateway.toml:7:48: `auth.key.from`: expected a place such as "header:x-api-key", found "body"
  hint: "bearer", or "header:", "query:" or "cookie:" and a name
gateway.toml:8:9: `auth.key.realm`: expected a realm such as "gateway", found "a\"b"
  hint: visible ASCII characters and spaces, without `"` and `\`
gateway.toml:9:7: `auth.other.type` is missing
gateway.toml:11:10: `consumer.acme.grant`: "tier:gold" cannot be granted
  hint: in `allow` "tier:…" means something else
gateway.toml:11:23: `consumer.acme.grant`: expected a grant such as "items:read", found "a b"
  hint: visible ASCII characters but `"` and `\`, and not "all"
gateway.toml:12:29: `consumer.acme.keys[0].hash`: expected a hash: `blake3:` and 64 hexadecimal digits
  hint: never the key itself; `printf %s KEY | b3sum` prints its hash
gateway.toml:12:61: `consumer.acme.keys[1].hash`: expected a hash: `blake3:` and 64 hexadecimal digits
  hint: these are 2 characters
gateway.toml:15:106: `consumer.b.keys[0].until`: expected a date such as "2027-01-31", found "soon"
gateway.toml:16:10: this consumer has a key "k1" already
gateway.toml:16:23: this key is there twice, first at gateway.toml:15:23: it would not say who calls
gateway.toml:16:106: `consumer.b.keys[1].until`: expected a date such as "2027-01-31", found "2027-01-01T10:00:00"
  hint: a time of day needs its offset: 2027-01-31T12:00:00Z"#,
    );
}

#[test]
fn a_way_has_the_keys_of_its_type_and_a_token_is_for_somebody_by_somebody() {
    says(
        &route(
            r#"[auth.a]
type = "jwt"
jwks = "https://id.test/"
algorithms = ["ES256", "HS256"]
[auth.b]
type = "jwt"
issuer = "i"
audience = "a"
jwks = "http://id.test/"
[auth.c]
type = "jwt"
issuer = "i"
audience = "a"
secret = { env = "S" }
algorithms = "RS256"
ca = "x.pem"
[auth.d]
type = "jwt"
issuer = "i"
audience = "a"
[auth.e]
type = "mtls"
from = "bearer"
issuer = "i"
[consumer.a]
password = ["secret", "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$dGVzdHRlc3R0ZXN0dGVzdA"]
certs = ["cn:x", "sha256:12", "dns:a.test"]
[consumer.b]
certs = "dns:A.test"
"#,
        ),
        r#"
gateway.toml:5:7: `auth.a.audience` is missing: a token for anything would do
  hint: for example: audience = "api.example.com"
gateway.toml:5:7: `auth.a.issuer` is missing: a token for anything would do
  hint: for example: issuer = "https://id.example.com/"
gateway.toml:8:14: `auth.a.algorithms`: HS256 needs `secret`, and here is `jwks`
gateway.toml:13:8: `auth.b.jwks`: expected a URL or a file, found "http://id.test/"
  hint: keys in clear could be anybody's: https, or http from this host itself
gateway.toml:19:14: `auth.c.algorithms`: RS256 needs `jwks`, and here is `secret`
gateway.toml:21:7: `auth.d` must have exactly one of `jwks` and `secret`
  hint: for example: jwks = "https://id.example.com/jwks.json"
gateway.toml:27:8: `auth.e.from` is not for type = "mtls", but for api-key, jwt
gateway.toml:28:10: `auth.e.issuer` is not for type = "mtls", but for jwt
gateway.toml:30:13: `consumer.a.password`: expected a hash by argon2id: it is no PHC string
  hint: never the password itself; `argon2 SALT -id -e` prints its hash
gateway.toml:30:23: `consumer.a.password`: expected a hash by argon2id: it is by another algorithm
  hint: never the password itself; `argon2 SALT -id -e` prints its hash
gateway.toml:31:10: `consumer.a.certs`: expected something of a certificate such as "dns:app.example.com", found "cn:x"
  hint: it is subject, dns, uri, email or sha256
gateway.toml:31:18: `consumer.a.certs`: expected something of a certificate such as "dns:app.example.com", found "sha256:12"
  hint: after "sha256:" come 64 hexadecimal digits
gateway.toml:33:9: "dns:a.test" is of consumer "a" already: it would not say who calls"#,
    );
}

#[test]
fn who_is_asked_is_an_upstream_and_secrets_are_somewhere_else() {
    says(
        &route(
            r#"deny_from = "10.0.0.1/8"
max = { header = "1B" }
content_types = "json"
[auth.a]
type = "forward"
[auth.b]
type = "forward"
to = "nowhere"
consumer = "claim:sub"
keep = true
[auth.c]
type = "hmac"
window = "0s"
[consumer.a]
secrets = [{ id = "s", secret = { file = "a", env = "B" } }, { id = "t", secret = "inline" }]
"#,
        ),
        r#"
gateway.toml:5:13: `route.a.deny_from`: 10.0.0.1/8 has host bits set
  hint: write "10.0.0.0/8", or "10.0.0.1" for the one address
gateway.toml:6:18: `route.a.max.header`: must be from 256B to 1MiB, found "1B"
gateway.toml:7:17: `route.a.content_types`: expected a media type such as "text/html", found "json"
  hint: "text/*" is every text, "*+json" every type with that suffix
gateway.toml:8:7: `auth.a.to` is missing: who is asked
  hint: for example: to = "login", an upstream
gateway.toml:12:6: upstream "nowhere" is not defined
  hint: add [upstream.nowhere], or write the targets here: to = ["127.0.0.1:3000"]
gateway.toml:13:12: `auth.b.consumer`: expected "header:NAME", found "claim:sub"
gateway.toml:14:8: `auth.b.keep` is not for type = "forward", but for api-key, jwt, basic, hmac
gateway.toml:17:10: `auth.c.window`: must be from 1s to 1h, found "0s"
gateway.toml:19:24: `consumer.a.secrets[0].secret` must have exactly one of `file`, `env` and `credential`
  hint: for example: { file = "path/to/key.pem" }
gateway.toml:19:83: `consumer.a.secrets[1].secret`: expected a table { file, env, credential }, found "inline""#,
    );
}
