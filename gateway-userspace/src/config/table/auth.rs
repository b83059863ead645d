//! Who may call.

use std::time::Duration;

use super::{
    Key, Kind, Section, Text,
    listener::SECRET,
    match_text::{FIELD_NAME, METHOD},
    seconds,
    text::{FILE, NAME, PROBE_PATH, UPSTREAM_NAME},
};
use crate::config::{
    model::{CertMark, KeyHash, Right, Whence},
    node::Value,
    units::{UnitError, quote},
};

pub(super) static AUTH: Section = Section {
    doc: "A way to tell who calls, for the routes that name it. See docs/auth.md.",
    keys: &[
        Key::new(
            "type",
            Kind::Choice {
                now: &[
                    ("api-key", "a key of a consumer's"),
                    ("jwt", "a token that an issuer has signed"),
                    ("basic", "a consumer's name and password (RFC 7617)"),
                    ("mtls", "the certificate of the client's connection"),
                    ("hmac", "a signature of the request (RFC 9421, hmac-sha256)"),
                    ("forward", "an upstream that is asked"),
                ],
                later: &[],
            },
            "How callers prove who they are.",
        )
        .required(),
        Key::new(
            "from",
            Kind::List { of: &Kind::Text(&WHENCE), min: 1, one: true },
            "api-key, jwt: where it is: \"header:NAME\", \"query:NAME\", \"cookie:NAME\", or \"bearer\" for `Authorization: \
             Bearer`. The first place that has one counts. Default: \"header:x-api-key\" for api-key, \"bearer\" for jwt.",
        ),
        Key::new(
            "keep",
            Kind::Bool,
            "Pass the credentials on to the upstream, in place of taking them out of the request.",
        )
        .default("false"),
        Key::new("realm", Kind::Text(&REALM), "What callers are told that they need credentials for.")
            .default("\"gateway\""),
        Key::new("issuer", Kind::Text(&EXACT), "jwt: who has made a token (`iss`), to the letter. Required."),
        Key::new(
            "audience",
            Kind::List { of: &Kind::Text(&EXACT), min: 1, one: true },
            "jwt: whom a token is for (`aud`), any one of these. Required.",
        ),
        Key::new(
            "jwks",
            Kind::Text(&JWKS),
            "jwt: the issuer's keys (RFC 7517), a URL or a file. A URL is fetched again every `refresh`, and when a token \
             names a key that is not known, every 10 s at most.",
        ),
        Key::new("ca", Kind::Text(&FILE), "jwt: authorities that the server of `jwks` is trusted by, PEM. Default: those of the system."),
        Key::new(
            "refresh",
            Kind::Duration { min: seconds(1), max: seconds(86_400) },
            "jwt: how often `jwks` is fetched. What was fetched last stays in use while it cannot be.",
        )
        .default("\"10m\""),
        Key::new("secret", Kind::Table(&SECRET), "jwt: in place of `jwks`, the secret of HS256, HS384 and HS512."),
        Key::new(
            "algorithms",
            Kind::List {
                of: &Kind::Choice {
                    now: &[
                        ("ES256", ""),
                        ("ES384", ""),
                        ("ES512", ""),
                        ("RS256", ""),
                        ("RS384", ""),
                        ("RS512", ""),
                        ("PS256", ""),
                        ("PS384", ""),
                        ("PS512", ""),
                        ("EdDSA", ""),
                        ("HS256", ""),
                        ("HS384", ""),
                        ("HS512", ""),
                    ],
                    later: &[],
                },
                min: 1,
                one: true,
            },
            "jwt: how tokens may be signed. Default: ES256, RS256 and EdDSA; with `secret` HS256.",
        ),
        Key::new(
            "consumer",
            Kind::Text(&CLAIM),
            "jwt, forward: what names the consumer: \"claim:NAME\" of a token (default \"claim:sub\"), \"header:NAME\" of the \
             answer (default \"header:x-auth-user\").",
        ),
        Key::new(
            "window",
            Kind::Duration { min: seconds(1), max: seconds(3600) },
            "hmac: how old a signature may be; as long it is remembered, and refused if it comes again.",
        )
        .default("\"5m\""),
        Key::new("to", Kind::Text(&UPSTREAM_NAME), "forward: the upstream that is asked. Required."),
        Key::new("path", Kind::Text(&PROBE_PATH), "forward: what is asked for there, by GET.").default("\"/\""),
        Key::new("send", FIELD_NAMES, "forward: fields of the client's request that are sent along.")
            .default("[\"authorization\", \"cookie\"]"),
        Key::new(
            "copy",
            FIELD_NAMES,
            "forward: fields of the answer that are passed on to the route's upstream, in place of what the client has sent in them.",
        )
        .default("[]"),
        Key::new("timeout", Kind::Duration { min: Duration::from_millis(1), max: seconds(60) }, "forward: how long it may take.")
            .default("\"2s\""),
        Key::new(
            "on_error",
            Kind::Choice { now: &[("refuse", "503"), ("pass", "the request goes on, as nobody's")], later: &[] },
            "forward: what to do without an answer, or with a 5xx.",
        )
        .default("\"refuse\""),
        Key::new(
            "known",
            Kind::Bool,
            "jwt: only consumers of the config may call. Otherwise whoever the issuer names is one, without tier and grants.",
        )
        .default("false"),
        Key::new(
            "skew",
            Kind::Duration { min: seconds(0), max: seconds(600) },
            "jwt: how far the issuer's clock may be from ours.",
        )
        .default("\"30s\""),
        Key::new("typ", Kind::Text(&EXACT), "jwt: what kind of token it has to say that it is, such as \"at+jwt\". Left out: any."),
    ],
};

pub(super) static CONSUMER: Section = Section {
    doc: "Who may call: a customer, an application, a partner.",
    keys: &[
        Key::new("tier", Kind::Text(&NAME), "What it pays for, for `allow` and limits."),
        Key::new(
            "grant",
            Kind::List { of: &Kind::Text(&GRANT), min: 0, one: true },
            "What it may do, in words of your own, for `allow`.",
        )
        .default("[]"),
        Key::new(
            "keys",
            Kind::List { of: &Kind::Table(&CONSUMER_KEY), min: 0, one: false },
            "Its API keys. Those that `gateway key new` makes are kept elsewhere.",
        )
        .default("[]"),
        Key::new(
            "password",
            Kind::List { of: &Kind::Text(&PASSWORD), min: 1, one: true },
            "Hashes of its passwords (argon2id in PHC form), any one of which will do; its user name is the consumer's.",
        ),
        Key::new(
            "certs",
            Kind::List { of: &Kind::Text(&CERT_MARK), min: 1, one: true },
            "Its certificates: \"dns:NAME\", \"uri:URI\" (also SPIFFE ids) or \"email:ADDRESS\" for an alternative name, \
             \"subject:CN=…\" for the whole subject, \"sha256:HEX\" for one certificate.",
        ),
        Key::new(
            "secrets",
            Kind::List { of: &Kind::Table(&CONSUMER_SECRET), min: 0, one: false },
            "What it signs requests with (hmac).",
        )
        .default("[]"),
    ],
};

static CONSUMER_SECRET: Section = Section {
    doc: "A secret that a consumer signs requests with.",
    keys: &[
        Key::new("id", Kind::Text(&NAME), "Which it is: `keyid` in signatures is \"CONSUMER/ID\".")
            .required(),
        Key::new("secret", Kind::Table(&SECRET), "Where it is; at least 32 bytes.").required(),
        Key::new("until", Kind::Date, "From then on it is no good. Left out: for ever."),
    ],
};

const FIELD_NAMES: Kind = Kind::List { of: &Kind::Text(&FIELD_NAME), min: 0, one: true };

static CONSUMER_KEY: Section = Section {
    doc: "An API key, of which the config knows no more than a hash.",
    keys: &[
        Key::new("id", Kind::Text(&NAME), "Which of the consumer's keys it is.").required(),
        Key::new("hash", Kind::Text(&KEY_HASH), "`blake3:` and BLAKE3 of the key, 64 hexadecimal digits.")
            .required(),
        Key::new("until", Kind::Date, "From then on the key is no good. Left out: for ever."),
    ],
};

/// `auth` of a route.
pub(super) const ROUTE_AUTH: Kind = Kind::List { of: &Kind::Text(&AUTH_NAME), min: 1, one: true };

/// `allow` of a route.
pub(super) const ALLOW: Kind = Kind::Either(&[RIGHTS, Kind::Map { key: &METHOD, of: &RIGHTS }]);

const RIGHTS: Kind = Kind::List { of: &Kind::Text(&RIGHT), min: 0, one: true };

static EXACT: Text = Text {
    what: "a text",
    example: "api.example.com",
    pattern: Some("^[ -~]{1,500}$"),
    parse: |text| match (1..=500).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
    {
        true => Ok(Value::Text(text.into())),
        false => {
            Err(UnitError::new(format!("expected a text such as \"api.example.com\", found {}", quote(text))))
        }
    },
};

static CLAIM: Text = Text {
    what: "a claim",
    example: "claim:sub",
    pattern: Some("^(claim|header):.+$"),
    parse: |text| match text.split_once(':') {
        Some(("claim", name)) if !name.is_empty() => Ok(Value::Text(text.into())),
        Some(("header", name)) => (FIELD_NAME.parse)(name).map(|_| Value::Text(text.to_ascii_lowercase())),
        _ => Err(UnitError::new(format!("expected a claim such as \"claim:sub\", found {}", quote(text)))),
    },
};

static JWKS: Text = Text {
    what: "a URL or a file",
    example: "https://id.example.com/jwks.json",
    pattern: None,
    parse: |text| {
        let Some((scheme, _)) = text.split_once("://") else { return (FILE.parse)(text) };
        let wrong = || UnitError::new(format!("expected a URL or a file, found {}", quote(text)));
        let url: http::Uri = text.parse().map_err(|_| wrong())?;
        let host = url.host().ok_or_else(wrong)?;
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        match scheme {
            "https" => Ok(Value::Text(text.into())),
            "http" if host == "localhost" || address.is_ok_and(|address| address.is_loopback()) => {
                Ok(Value::Text(text.into()))
            }
            "http" => {
                Err(wrong().hint("keys in clear could be anybody's: https, or http from this host itself"))
            }
            _ => Err(wrong()),
        }
    },
};

static PASSWORD: Text = Text {
    what: "a password's hash",
    example: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$3lwBtIO3SLSZQ3zqNFmpDIZKlXY7H3MPoGiqmXtkMSg",
    pattern: Some("^\\$argon2id\\$.+$"),
    // The text is not shown: somebody may have put the password itself here.
    parse: |text| match crate::auth::check_password_hash(text) {
        Ok(()) => Ok(Value::Text(text.into())),
        Err(why) => Err(UnitError::new(format!("expected a hash by argon2id: {why}"))
            .hint("never the password itself; `argon2 SALT -id -e` prints its hash")),
    },
};

static CERT_MARK: Text = Text {
    what: "something of a certificate",
    example: "uri:spiffe://example.com/app",
    pattern: Some("^(subject|dns|uri|email|sha256):.+$"),
    parse: |text| {
        let wrong = || {
            UnitError::new(format!(
                "expected something of a certificate such as \"dns:app.example.com\", found {}",
                quote(text)
            ))
        };
        let mark = match text.split_once(':') {
            Some((_, "")) | None => return Err(wrong()),
            Some(("subject", subject)) => CertMark::Subject(subject.into()),
            Some(("dns", name)) => CertMark::Dns(name.to_ascii_lowercase()),
            Some(("uri", uri)) => CertMark::Uri(uri.into()),
            Some(("email", email)) => CertMark::Email(email.into()),
            Some(("sha256", sum)) => {
                let digits = sum.replace(':', "").to_ascii_lowercase();
                if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return Err(wrong().hint("after \"sha256:\" come 64 hexadecimal digits"));
                }
                CertMark::Sha256(digits)
            }
            Some(_) => return Err(wrong().hint("it is subject, dns, uri, email or sha256")),
        };
        Ok(Value::CertMark(mark))
    },
};

static REALM: Text = Text {
    what: "a realm",
    example: "gateway",
    pattern: Some("^[ !#-\\[\\]-~]{1,100}$"),
    parse: |text| {
        let plain = |byte: u8| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\';
        match (1..=100).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(Value::Text(text.into())),
            false => {
                Err(UnitError::new(format!("expected a realm such as \"gateway\", found {}", quote(text)))
                    .hint("visible ASCII characters and spaces, without `\"` and `\\`"))
            }
        }
    },
};

static AUTH_NAME: Text = Text {
    what: "the name of an [auth.NAME]",
    example: "api-key",
    pattern: Some(super::NAME_PATTERN),
    parse: |text| match super::is_name(text) {
        true => Ok(Value::Text(text.into())),
        false => Err(UnitError::new(format!("expected the name of an [auth.NAME], found {}", quote(text)))),
    },
};

static WHENCE: Text = Text {
    what: "a place",
    example: "header:x-api-key",
    pattern: Some("^(bearer|(header|query|cookie):.+)$"),
    parse: |text| {
        let token = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c))
        };
        let whence = match text.split_once(':') {
            None if text == "bearer" => Whence::Bearer,
            Some(("header", name)) if token(name) => Whence::Header(name.to_ascii_lowercase()),
            Some(("cookie", name)) if token(name) => Whence::Cookie(name.into()),
            Some(("query", name)) if !name.is_empty() => Whence::Query(name.into()),
            _ => {
                let error = UnitError::new(format!(
                    "expected a place such as \"header:x-api-key\", found {}",
                    quote(text)
                ));
                return Err(error.hint("\"bearer\", or \"header:\", \"query:\" or \"cookie:\" and a name"));
            }
        };
        match &whence {
            Whence::Header(name) if name == "authorization" => {
                Err(UnitError::new("the header authorization has a scheme before the credential")
                    .hint("write \"bearer\""))
            }
            Whence::Header(name) if NEEDED.contains(&name.as_str()) => {
                Err(UnitError::new(format!("the header {name} means something else")))
            }
            _ => Ok(Value::Whence(whence)),
        }
    },
};

/// Fields that requests are read by.
const NEEDED: [&str; 5] = ["host", "content-length", "transfer-encoding", "connection", "cookie"];

/// RFC 6749 section 3.3 says what a scope may be made of.
fn is_scope(text: &str) -> bool {
    let scope = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    (1..=200).contains(&text.len()) && text.bytes().all(scope)
}

static GRANT: Text = Text {
    what: "a grant",
    example: "items:read",
    pattern: Some("^[!#-\\[\\]-~]{1,200}$"),
    parse: |text| match Right::PREFIXES.iter().find(|prefix| text.starts_with(*prefix)) {
        Some(prefix) => {
            let error = UnitError::new(format!("{} cannot be granted", quote(text)));
            Err(error.hint(format!("in `allow` \"{prefix}…\" means something else")))
        }
        None if is_scope(text) && text != "all" => Ok(Value::Text(text.into())),
        None => {
            let error =
                UnitError::new(format!("expected a grant such as \"items:read\", found {}", quote(text)));
            Err(error.hint("visible ASCII characters but `\"` and `\\`, and not \"all\""))
        }
    },
};

static RIGHT: Text = Text {
    what: "a right",
    example: "items:read",
    pattern: Some("^[ !#-\\[\\]-~]{1,400}$"),
    parse: |text| {
        let wrong =
            || UnitError::new(format!("expected a right such as \"items:read\", found {}", quote(text)));
        let right = match text.split_once(':') {
            Some(("tier", tier)) if super::is_name(tier) => Right::Tier(tier.into()),
            Some(("consumer", name)) if is_scope(name) => Right::Consumer(name.into()),
            Some(("scope", scope)) if is_scope(scope) => Right::Scope(scope.into()),
            Some(("claim", claim)) => match claim.split_once('=') {
                Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                    Right::Claim(name.into(), value.into())
                }
                _ => return Err(wrong().hint("a claim is written \"claim:NAME=VALUE\"")),
            },
            Some(("tier" | "consumer" | "scope", _)) => return Err(wrong()),
            _ if is_scope(text) => Right::Grant(text.into()),
            _ => return Err(wrong()),
        };
        Ok(Value::Right(right))
    },
};

static KEY_HASH: Text = Text {
    what: "a key's hash",
    example: "blake3:7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069",
    pattern: Some("^blake3:[0-9A-Fa-f]{64}$"),
    parse: |text| {
        // The text is not shown: somebody may have put the key itself here.
        let wrong = || UnitError::new("expected a hash: `blake3:` and 64 hexadecimal digits");
        let digits = text
            .strip_prefix("blake3:")
            .ok_or_else(|| wrong().hint("never the key itself; `printf %s KEY | b3sum` prints its hash"))?;
        let mut hash = [0; 32];
        let pairs = digits.as_bytes().chunks(2);
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong().hint(format!("these are {} characters", digits.chars().count())));
        }
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Value::KeyHash(KeyHash(hash)))
    },
};
