//! Listeners with TLS and their certificates.

use super::says;

#[test]
fn upstreams_name_certificates_that_are_there_and_speak_tls_to_all_targets_or_none() {
    says(
        r#"[listener.web]
bind = ":80"
[cert.own]
chain = "a.pem"
key = { file = "a.key" }
[upstream.a]
to = ["https://10.0.0.1", "10.0.0.2:80"]
[upstream.b]
to = ["10.0.0.1:443"]
tls = { cert = "owm", sni = "a b", ca = "ca.pem", verify = false }
[upstream.c]
to = ["10.0.0.1:443", "https://10.0.0.2:444", "h2c://10.0.0.3:1"]
tls = { min = "1.1" }
[upstream.d]
to = ["10.0.0.1:80"]
protocol = "auto"
proxy_protocol = "v2"
health = { grpc = "no name", path = "/", tcp = true }
[route.a]
to = "a"
[route.b]
path = "/b"
to = "b"
[route.c]
path = "/c"
to = "c"
[route.d]
path = "/d"
to = "d"
"#,
        r#"
gateway.toml:7:27: `upstream.a.to`: some targets have https:// and this one has not
  hint: write https:// before each, or make two upstreams
gateway.toml:10:16: `upstream.b.tls.cert`: there is no certificate "owm"
  hint: did you mean "own"?
gateway.toml:10:29: `upstream.b.tls.sni`: expected a host name such as "carts.internal", found "a b"
gateway.toml:10:41: `upstream.b.tls`: with verify = false nothing is checked against `ca`
  hint: drop one of them
gateway.toml:12:47: `upstream.c.to`: expected a target such as "10.0.0.1:8080", found "h2c://10.0.0.3:1"
  hint: write "10.0.0.1:8080", and protocol = "h2" beside it
gateway.toml:13:15: `upstream.c.tls.min`: expected "1.2" or "1.3", found "1.1"
  hint: did you mean "1.2"?
gateway.toml:16:12: `upstream.d.protocol` = "auto" needs TLS, where targets choose by ALPN
  hint: write "h1" or "h2", or add `tls`
gateway.toml:17:18: `upstream.d.proxy_protocol` tells of one client, and HTTP/2 connections are shared by many
  hint: drop it (upstreams get `Forwarded`), or write protocol = "h1"
gateway.toml:18:19: `upstream.d.health.grpc`: expected a service's name such as "shop.v1.Carts", found "no name""#,
    );
}

#[test]
fn certificates_are_named_and_have_one_key() {
    says(
        r#"[listener.web]
bind = ":443"
tls = { cert = ["main", "other"], client = "require" }
redirect = "https"
[listener.plain]
bind = ":80"
hsts = "365d"
[cert.mein]
chain = "a.pem"
key = { file = "a.key", env = "KEY" }
[cert.inline]
chain = "b.pem"
key = "-----BEGIN"
[cert.variable]
chain = "b.pem"
key = { env = "-----BEGIN" }
[route.all]
to = ["127.0.0.1:3000"]
"#,
        r#"
gateway.toml:3:17: `listener.web.tls.cert`: there is no certificate "main"
  hint: did you mean "mein"?
gateway.toml:3:25: `listener.web.tls.cert`: there is no certificate "other"
  hint: add [cert.other] with chain and key
gateway.toml:3:44: `listener.web.tls.client` needs `client_ca`
  hint: name the file of the authorities that clients' certificates come from
gateway.toml:4:12: `listener.web.redirect` would send clients of TLS back to TLS
  hint: take `redirect` out, or put it into another listener
gateway.toml:7:8: `listener.plain.hsts` counts only over TLS (RFC 6797 section 7.2)
  hint: take `hsts` out, or put it into another listener
gateway.toml:10:1: `cert.mein.key` must have exactly one of `file`, `env` and `credential`
  hint: for example: { file = "path/to/key.pem" }
gateway.toml:13:7: `cert.inline.key`: expected a table { file, env, credential }, found "-----BEGIN"
gateway.toml:16:15: `cert.variable.key.env`: expected an environment variable such as "TLS_KEY", found "-----BEGIN"
  hint: never the secret itself: the config is shown to whoever asks"#,
    );
}

#[test]
fn authorities_of_clients_by_host_are_of_listeners_and_named_by_hosts() {
    says(
        r#"[listener.web]
bind = ":443"
[listener.web.tls]
cert = "main"
clients = { "a.test" = { client = "require" }, "10.0.0.1" = { client_ca = "a.pem" }, "A.test" = { client_ca = "a.pem" } }
[service.db]
bind = ":5432"
path = "splice"
to = ["10.0.0.1:5432"]
tls = { cert = "main", clients = { "db.test" = { client_ca = "a.pem" } } }
[cert.main]
chain = "a.pem"
key = { file = "a.key" }
[route.all]
to = ["127.0.0.1:3000"]
"#,
        r#"
gateway.toml:5:13: `listener.web.tls.clients."a.test".client_ca` is missing
  hint: for example: client_ca = "path/to/file"
gateway.toml:5:13: `listener.web.tls.clients` has "a.test" twice, first at gateway.toml:5:86
gateway.toml:5:48: `listener.web.tls.clients`: expected a host name such as "*.example.com", found "10.0.0.1"
  hint: clients never ask for an address by name
gateway.toml:10:24: `service.db.tls.clients` is of listeners
  hint: write client_ca, client_crl and client"#,
    );
}

#[test]
fn certificates_by_acme_need_an_authority_names_and_a_place_for_the_challenge() {
    says(
        r#"[listener.web]
bind = ":443"
tls = { cert = "auto" }
[route.all]
host = "a.example.com"
to = ["127.0.0.1:3000"]
"#,
        r#"
gateway.toml:1:11: `listener.web.tls.cert` is "auto", but there is no [acme]
  hint: add [acme] with email = "…", or name a [cert.NAME]"#,
    );
    says(
        r#"[acme]
email = "nobody"
directory = "http://ca.example.com/"
challenge = "dns-01"
[listener.web]
bind = ":443"
tls = { cert = "auto" }
[route.all]
host = "a.example.com"
to = ["127.0.0.1:3000"]
"#,
        r#"
gateway.toml:2:9: `acme.email`: expected an e-mail address such as "ops@example.com", found "nobody"
gateway.toml:3:13: `acme.directory`: expected a URL that begins with https://, found "http://ca.example.com/"
  hint: ACME is spoken over TLS only (RFC 8555 section 6.1)
gateway.toml:4:13: `acme.challenge = "dns-01"` is not supported yet"#,
    );
    says(
        r#"[acme]
challenge = "http-01"
[listener.web]
bind = ":443"
tls = { cert = ["auto", "auto"] }
[route.all]
host = ["*.example.com", "localhost"]
to = ["127.0.0.1:3000"]
"#,
        r#"
gateway.toml:1:2: `acme.challenge` "http-01" needs a listener without tls
  hint: add [listener.http] with bind = ":80" and redirect = "https"
gateway.toml:3:11: `listener.web.tls.cert` is "auto", but no route has a host name
  hint: give routes a `host`, or list names in acme.names
gateway.toml:5:25: cert "auto" is there twice, first at gateway.toml:5:17"#,
    );
}
