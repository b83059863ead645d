//! Listeners with TLS and their certificates.

use super::says;

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
