//! Certificates by ACME.

use super::{
    Key, Kind, Section, Text,
    text::{FILE, HOST},
};
use crate::config::{
    node::Value,
    units::{UnitError, quote},
};

static EMAIL: Text = Text {
    what: "an e-mail address",
    example: "ops@example.com",
    pattern: Some("^[^@\\s]+@[^@\\s]+$"),
    parse: |text| match text.split_once('@') {
        Some((name, host))
            if !name.is_empty()
                && !host.is_empty()
                && !host.contains('@')
                && !text.contains(char::is_whitespace) =>
        {
            Ok(Value::Text(text.into()))
        }
        _ => Err(UnitError::new(format!(
            "expected an e-mail address such as \"ops@example.com\", found {}",
            quote(text)
        ))),
    },
};

static DIRECTORY: Text = Text {
    what: "a URL",
    example: "https://acme-v02.api.letsencrypt.org/directory",
    pattern: Some("^https://.+$"),
    parse: |text| {
        let wrong =
            || UnitError::new(format!("expected a URL that begins with https://, found {}", quote(text)));
        let url: http::Uri = text.parse().map_err(|_| wrong())?;
        match url.scheme_str() == Some("https") && url.host().is_some_and(|host| !host.is_empty()) {
            true => Ok(Value::Text(text.into())),
            false => Err(wrong().hint("ACME is spoken over TLS only (RFC 8555 section 6.1)")),
        }
    },
};

pub(super) static ACME: Section = Section {
    doc: "Certificates by ACME (RFC 8555), for listeners with `tls = { cert = \"auto\" }`: one for each host name that a \
          route is for (`*.` names are left out: their challenge needs DNS), renewed when two thirds of its time are \
          over. To use it is to agree to the authority's terms of service.",
    keys: &[
        Key::new("email", Kind::Text(&EMAIL), "Whom the authority writes to."),
        Key::new("directory", Kind::Text(&DIRECTORY), "The authority.")
            .default("\"https://acme-v02.api.letsencrypt.org/directory\""),
        Key::new(
            "challenge",
            Kind::Choice {
                now: &[
                    ("tls-alpn-01", "at port 443, on the listeners that use the certificates (RFC 8737)"),
                    ("http-01", "at port 80, on every listener without TLS, before its routes and `redirect`"),
                ],
                later: &["dns-01"],
            },
            "How it is shown that the names are ours.",
        )
        .default("\"tls-alpn-01\""),
        Key::new(
            "names",
            Kind::List { of: &Kind::Text(&HOST), min: 0, one: true },
            "More names than those of routes.",
        )
        .default("[]"),
        Key::new(
            "storage",
            Kind::Text(&FILE),
            "Directory of the account and the certificates with their keys, made with mode 0700. Gateways that share it \
             share them.",
        )
        .default("\"/var/lib/gateway/acme\""),
        Key::new(
            "ca",
            Kind::Text(&FILE),
            "The authority that the directory's own certificate is from, PEM; relative to the config file. Default: \
             those that the system trusts.",
        ),
    ],
};
