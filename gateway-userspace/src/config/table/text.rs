//! Texts with a form of their own: names, hosts, paths, files.

use std::net::{Ipv4Addr, SocketAddr};

use super::Text;
use crate::config::{
    error::did_you_mean,
    model::{Bind, HostPattern, PathPattern, Segment},
    node::Value,
    units::{Lookup, UnitError, is_https, normal_path, parse_byte_rate, parse_target, quote},
};

/// Names become label values and parts of URLs and commands (`gateway target drain NAME/ADDR`).
pub(crate) const NAME_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$";

pub(super) static NAME: Text = Text {
    what: "a name",
    example: "edge-1",
    pattern: Some(NAME_PATTERN),
    parse: |text| match is_name(text) {
        true => Ok(Value::Text(text.into())),
        false => Err(UnitError::new(format!("expected a name such as \"edge-1\", found {}", quote(text)))
            .hint("a name is 1 to 63 letters, digits, `-`, `_` or `.`")),
    },
};

pub(super) static UPSTREAM_NAME: Text = Text {
    what: "an upstream's name",
    example: "items",
    pattern: Some(NAME_PATTERN),
    parse: |text| match parse_target(text) {
        // `to = "127.0.0.1:3000"` is meant as a target, but could be a name.
        Ok(_) => Err(UnitError::new(format!("{} is an address, not an upstream's name", quote(text)))
            .hint(format!("write a list: to = [{}]", quote(text)))),
        Err(_) => Ok(Value::Text(text.into())),
    },
};

pub(super) static ADDRESS: Text = Text {
    what: "an address",
    example: ":80",
    pattern: Some("^(\\[[0-9A-Fa-f:.%]+\\]|[0-9.]+|localhost)?:[0-9]{1,5}$"),
    parse: |text| text.parse().map(Value::Bind),
};

pub(super) static TARGET: Text = Text {
    what: "a target",
    example: "10.0.0.1:8080",
    pattern: Some("^(https?://)?(\\[[0-9A-Fa-f:.%]+\\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?/?$"),
    parse: |text| match Lookup::of_target(text) {
        Some(name) if is_https(text) => Ok(Value::SecureLookup(name)),
        Some(name) => Ok(Value::Lookup(name)),
        None if Lookup::lacks_port(text) => {
            Err(UnitError::new(format!("expected a target such as \"10.0.0.1:8080\", found {}", quote(text)))
                .hint(format!("add the port: \"{text}:80\"")))
        }
        None => parse_target(text).map(if is_https(text) { Value::SecureTarget } else { Value::Target }),
    },
};

/// What `dns` looks up.
pub(super) static DNS: Text = Text {
    what: "a name",
    example: "carts.internal:8080",
    pattern: Some("^(srv:[0-9A-Za-z._-]+|[0-9A-Za-z._-]+:[0-9]{1,5})$"),
    parse: |text| text.parse().map(Value::Lookup),
};

pub(super) static NAME_SERVER: Text = Text {
    what: "a name server's address",
    example: "127.0.0.1:53",
    pattern: Some("^([0-9.]+(:[0-9]{1,5})?|[0-9A-Fa-f:.]+|\\[[0-9A-Fa-f:.]+\\]:[0-9]{1,5})$"),
    parse: |text| {
        let with_port = text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)));
        match with_port.filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified()) {
            Some(addr) => Ok(Value::Target(addr)),
            None => Err(UnitError::new(format!(
                "expected a name server's address such as \"127.0.0.1:53\", found {}",
                quote(text)
            ))),
        }
    },
};

/// A service as gRPC names it.
pub(super) static GRPC_SERVICE: Text = Text {
    what: "a service's name",
    example: "shop.v1.Carts",
    pattern: Some("^[0-9A-Za-z_.]{1,200}$"),
    parse: |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
        if (1..=200).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Value::Text(text.into()));
        }
        Err(UnitError::new(format!(
            "expected a service's name such as \"shop.v1.Carts\", found {}",
            quote(text)
        )))
    },
};

/// The name in a server's certificate.
pub(super) static SERVER_NAME: Text = Text {
    what: "a host name",
    example: "carts.internal",
    pattern: Some("^[0-9A-Za-z:._-]+$"),
    parse: |text| match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(Value::Text(text.to_ascii_lowercase())),
        Err(_) => Err(UnitError::new(format!(
            "expected a host name such as \"carts.internal\", found {}",
            quote(text)
        ))),
    },
};

/// A service's address: one that packets are sent to.
pub(super) static VIP: Text = Text {
    what: "an address",
    example: ":53",
    pattern: Some("^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+|localhost)?:[0-9]{1,5}$"),
    parse: |text| {
        let bind: Bind = match text.parse::<std::net::Ipv6Addr>() {
            Ok(v6) => {
                let error =
                    UnitError::new(format!("expected an address such as \":53\", found {}", quote(text)));
                return Err(error.hint(format!("add the port: \"[{v6}]:53\"")));
            }
            Err(_) => text.parse()?,
        };
        let port = bind.port();
        let wrong = |what: &str| Err(UnitError::new(format!("{} {what}", quote(text))));
        match bind {
            _ if port == 0 => {
                wrong("has port 0").map_err(|error| error.hint("give the port that clients use"))
            }
            Bind::Addr(addr) if addr.ip().is_unspecified() => {
                wrong("is no host's address").map_err(|error| {
                    error.hint(format!("for every address of kernel.interfaces write \":{port}\""))
                })
            }
            Bind::Addr(addr) if addr.ip().is_multicast() || addr.ip() == Ipv4Addr::BROADCAST => {
                wrong("is an address of many hosts")
            }
            Bind::Addr(SocketAddr::V6(v6)) if v6.scope_id() != 0 => wrong("names an interface"),
            bind => Ok(Value::Bind(bind)),
        }
    },
};

/// A service's target.
pub(super) static L4_TARGET: Text = Text {
    what: "a target",
    example: "10.0.0.1:5432",
    pattern: Some("^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+|localhost):[0-9]{1,5}$"),
    parse: |text| {
        let target = parse_target(text)?;
        let wrong =
            UnitError::new(format!("expected a target such as \"10.0.0.1:5432\", found {}", quote(text)));
        match target {
            _ if text.contains("://") => Err(wrong.hint(format!("leave the scheme out: \"{target}\""))),
            SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                Err(wrong.hint("link-local targets are not forwarded to"))
            }
            _ => Ok(Value::Target(target)),
        }
    },
};

/// The datagram of a UDP check.
pub(super) static PAYLOAD: Text = Text {
    what: "a datagram",
    example: "hex:0a0b",
    pattern: None,
    parse: |text| payload(text).map(|_| Value::Text(text.into())),
};

/// Text as it is, or "hex:" and pairs of hexadecimal digits; 1200 bytes at most.
pub(crate) fn payload(text: &str) -> Result<Vec<u8>, UnitError> {
    let bytes = match text.strip_prefix("hex:") {
        None => Some(text.as_bytes().to_vec()),
        Some(digits) => digits.as_bytes().chunks(2).map(byte).collect(),
    };
    let wrong = || UnitError::new(format!("expected a datagram such as \"hex:0a0b\", found {}", quote(text)));
    let bytes = bytes.ok_or_else(|| wrong().hint("after \"hex:\" come pairs of hexadecimal digits"))?;
    if bytes.len() > 1200 {
        return Err(UnitError::new(format!("a datagram has at most 1200 bytes, this one {}", bytes.len())));
    }
    Ok(bytes)
}

/// A pair of hexadecimal digits.
fn byte(pair: &[u8]) -> Option<u8> {
    let digit = |c: &u8| char::from(*c).to_digit(16);
    let [high, low] = pair else { return None };
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

pub(super) static PREFIX: Text = Text {
    what: "a prefix",
    example: "10.0.0.0/8",
    pattern: Some("^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"),
    parse: |text| text.parse().map(Value::Prefix),
};

pub(super) static RATE: Text = Text {
    what: "a rate",
    example: "20k/s",
    pattern: Some("^[0-9]+(\\.[0-9]+)?[kMG]?/[smhd]$"),
    parse: |text| text.parse().map(Value::Rate),
};

pub(super) static BYTE_RATE: Text = Text {
    what: "a rate of bytes",
    example: "10MiB/s",
    pattern: Some("^[0-9]+([KMGT]i?B|B)?/[smhd]$"),
    parse: |text| parse_byte_rate(text).map(Value::Rate),
};

pub(super) static PERCENT: Text = Text {
    what: "a percentage",
    example: "125%",
    pattern: Some("^[0-9]+(\\.[0-9]+)?%$"),
    parse: |text| text.parse().map(Value::Percent),
};

/// Files to include.
pub(super) static FILES: Text = Text { example: "conf.d/*.toml", ..FILE_TEXT };

pub(super) static FILE: Text = FILE_TEXT;

const FILE_TEXT: Text = Text {
    what: "a path",
    example: "path/to/file",
    pattern: Some("^[^\\u0000]+$"),
    parse: |text| match text.is_empty() || text.contains('\0') {
        true => Err(UnitError::new(format!("expected a path, found {}", quote(text)))),
        false => Ok(Value::Text(text.into())),
    },
};

pub(super) static VARIABLE: Text = Text {
    what: "an environment variable",
    example: "TLS_KEY",
    pattern: Some("^[A-Za-z_][A-Za-z0-9_]*$"),
    parse: |text| {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        match text.bytes().all(plain) && text.bytes().next().is_some_and(|c| !c.is_ascii_digit()) {
            true => Ok(Value::Text(text.into())),
            false => Err(UnitError::new(format!(
                "expected an environment variable such as \"TLS_KEY\", found {}",
                quote(text)
            ))
            .hint("never the secret itself: the config is shown to whoever asks")),
        }
    },
};

pub(super) static CREDENTIAL: Text = Text {
    what: "a credential's name",
    example: "tls-key",
    pattern: Some("^[^/\\u0000]+$"),
    parse: |text| match text.is_empty() || text.contains(['/', '\0']) || text == "." || text == ".." {
        true => {
            let message = format!("expected a credential's name such as \"tls-key\", found {}", quote(text));
            Err(UnitError::new(message).hint("for a file write { file = \"…\" }"))
        }
        false => Ok(Value::Text(text.into())),
    },
};

pub(super) static LOG_FILE: Text = Text {
    what: "a file's path",
    example: "/var/log/gateway/access.log",
    pattern: Some("[/.]"),
    parse: |text| {
        if let Some(server) = text.strip_prefix("syslog:") {
            let wrong = |_| {
                UnitError::new(format!(
                    "expected \"syslog:\" and an address such as \"syslog:192.0.2.1:514\", found {}",
                    quote(text)
                ))
            };
            return server.parse::<std::net::SocketAddr>().map(|_| Value::Text(text.into())).map_err(wrong);
        }
        if let Some(url) = text.strip_prefix("otlp:") {
            let wrong = |why| {
                UnitError::new(format!(
                    "expected \"otlp:\" and a URL such as \"otlp:http://127.0.0.1:4318\", found {}: {why}",
                    quote(text)
                ))
            };
            return crate::observe::post::check(url).map(|_| Value::Text(text.into())).map_err(wrong);
        }
        if text.starts_with("kafka:") {
            let wrong = |why| {
                UnitError::new(format!(
                    "expected brokers and a topic such as \"kafka://10.0.0.1:9092/access\", found {}: {why}",
                    quote(text)
                ))
            };
            return crate::observe::kafka::parse(text).map(|_| Value::Text(text.into())).map_err(wrong);
        }
        // A bare word is a slip in "stdout" rather than a file of that name in the current folder.
        if !text.contains(['/', '.']) || text.contains('\0') || text == "unix:" {
            let message =
                format!("expected \"stdout\", \"stderr\", \"off\" or a file's path, found {}", quote(text));
            let hint = did_you_mean(text, ["stdout", "stderr", "off", "journald", "syslog", "otlp"], quote);
            return Err(
                UnitError::new(message).hint(hint.unwrap_or_else(|| format!("write a file as \"./{text}\"")))
            );
        }
        Ok(Value::Text(text.into()))
    },
};

pub(super) static INTERFACE: Text = Text {
    what: "a network interface",
    example: "eth0",
    pattern: Some("^[^/:\\s\\u0000]{1,15}$"),
    parse: |text| match is_interface(text) {
        true => Ok(Value::Text(text.into())),
        false => Err(UnitError::new(format!(
            "expected a network interface such as \"eth0\", found {}",
            quote(text)
        ))
        .hint("`ip link` lists them; names have at most 15 bytes, without spaces, `/` or `:`")),
    },
};

/// What Linux takes as an interface's name (`dev_valid_name`).
fn is_interface(text: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
    (1..=15).contains(&text.len()) && text != "." && text != ".." && !text.contains(bad)
}

pub(super) static PROTOCOL: Text = Text {
    what: "a protocol",
    example: "websocket",
    pattern: Some("^[A-Za-z0-9!#$%&'*+.^_`|~/-]+$"),
    parse: |text| {
        // RFC 9110 section 7.8: protocol-name ["/" protocol-version], both tokens.
        let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
        let parts = text.split('/').all(|part| !part.is_empty() && part.bytes().all(token));
        match text.to_ascii_lowercase() {
            lower if lower == "h2c" || lower.starts_with("http/") => {
                Err(UnitError::not_supported(format!("an upgrade to {}", quote(text))))
            }
            lower if parts && text.matches('/').count() <= 1 => Ok(Value::Text(lower)),
            _ => Err(UnitError::new(format!(
                "expected a protocol such as \"websocket\", found {}",
                quote(text)
            ))),
        }
    },
};

pub(super) static HOST: Text = Text {
    what: "a host name",
    example: "api.example.com",
    pattern: Some("^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$|^\\[[0-9A-Fa-f:.]+\\]$"),
    parse: |text| parse_host(text).map(Value::Host),
};

/// A name that clients ask for by TLS: never an address (RFC 6066 section 3).
pub(super) static SNI_NAME: Text = Text {
    what: "a host name",
    example: "*.example.com",
    pattern: Some("^(\\*\\.)?[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$"),
    parse: |text| match parse_host(text)? {
        HostPattern::Exact(name) if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() => {
            let message = format!("expected a host name such as \"*.example.com\", found {}", quote(text));
            Err(UnitError::new(message).hint("clients never ask for an address by name"))
        }
        name => Ok(Value::Text(name.to_string())),
    },
};

fn parse_host(text: &str) -> Result<HostPattern, UnitError> {
    let wrong =
        || UnitError::new(format!("expected a host name such as \"api.example.com\", found {}", quote(text)));
    if text == "*" {
        return Err(wrong().hint("leave `host` out to match every host"));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let v6: std::net::Ipv6Addr = inner.parse().map_err(|_| wrong())?;
        return Ok(HostPattern::Exact(format!("[{v6}]")));
    }
    let (wildcard, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if let Some(rest) = name.split_once("://") {
        return Err(wrong().hint(format!("leave the scheme out: {}", quote(rest.1))));
    }
    if let Some((host, port)) = name.split_once(':')
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(wrong().hint(format!("leave the port out: {}", quote(host))));
    }
    if name.contains('*') {
        return Err(wrong().hint("`*` stands for whole labels, and only in front: \"*.example.com\""));
    }
    if let Some(name) = name.strip_suffix('.').filter(|name| !name.is_empty()) {
        return Err(wrong().hint(format!("leave the last dot out: {}", quote(name))));
    }
    if !name.is_ascii() {
        return Err(wrong().hint("write the name in its ASCII form, \"xn--…\" (IDNA)"));
    }
    // RFC 1123 section 2.1 and RFC 1035 section 2.3.4; `_` is in use.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(wrong().hint("labels of letters, digits and `-`, joined by dots"));
    }
    let name = name.to_ascii_lowercase();
    Ok(if wildcard { HostPattern::Wildcard(name) } else { HostPattern::Exact(name) })
}

pub(super) static PATH: Text = Text {
    what: "a path",
    example: "/items/*",
    pattern: Some("^/([^?#\\s*]*|([^?#\\s*]*/)?\\*)$"),
    parse: |text| parse_path(text).map(Value::Path),
};

fn parse_path(text: &str) -> Result<PathPattern, UnitError> {
    let wrong = || UnitError::new(format!("expected a path such as \"/items/*\", found {}", quote(text)));
    check_path(text)?;
    let normal =
        normal_path(text).ok_or_else(|| wrong().hint("a path has no `.` and `..` segments and no `%00`"))?;
    let text = &*normal;
    let mut pattern = PathPattern { segments: Vec::new(), rest: false };
    let segments: Vec<&str> = text[1..].split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            // "/" has no segments; "/items/" ends in an empty one.
            "" if last && index == 0 => {}
            "" if !last => return Err(wrong().hint("a segment between two slashes is never empty")),
            "*" if last => pattern.rest = true,
            name if name.contains('*') => {
                return Err(wrong().hint("`*` is a whole segment, and the last: \"/items/*\""));
            }
            name if name.contains(['{', '}']) => {
                let name = name.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).filter(|name| {
                    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                        && name.starts_with(|c: char| c.is_ascii_alphabetic())
                });
                let name =
                    name.ok_or_else(|| wrong().hint("a parameter is a whole segment: \"/items/{id}\""))?;
                let parameter = Segment::Parameter(name.into());
                if pattern.segments.contains(&parameter) {
                    return Err(wrong().hint(format!("the parameter `{name}` is there twice")));
                }
                pattern.segments.push(parameter);
            }
            literal => pattern.segments.push(Segment::Literal(literal.into())),
        }
    }
    Ok(pattern)
}

/// The path of a health check, query and all.
pub(super) static PROBE_PATH: Text = Text {
    what: "a path",
    example: "/healthz",
    pattern: Some("^/[!-~]*$"),
    parse: |text| {
        check_path(text.split('?').next().unwrap_or_default())?;
        match text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            true => Ok(Value::Text(text.into())),
            false => {
                Err(UnitError::new(format!("expected a path such as \"/healthz\", found {}", quote(text))))
            }
        }
    },
};

/// What holds of every path: RFC 3986 section 3.3, and no dot segments, which clients resolve before they ask.
fn check_path(text: &str) -> Result<(), UnitError> {
    let wrong = || UnitError::new(format!("expected a path such as \"/items/*\", found {}", quote(text)));
    if !text.starts_with('/') {
        return Err(wrong().hint(format!("a path starts with a slash: {}", quote(&format!("/{text}")))));
    }
    if text.contains(['?', '#']) {
        return Err(wrong().hint("a path has no query and no fragment"));
    }
    if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`|".contains(*c)) {
        return Err(wrong().hint(format!("percent-encode {odd:?} as it comes in requests")));
    }
    let encoded = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if !text.split('%').skip(1).all(encoded) {
        return Err(wrong().hint("`%` is followed by two hexadecimal digits"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(wrong().hint("a path has no `.` and `..` segments"));
    }
    Ok(())
}

/// Whether it can name a listener, upstream, route or service.
pub(crate) fn is_name(text: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=63).contains(&text.len()) && text.bytes().all(rest) && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<T>(result: Result<T, UnitError>) -> String {
        result.err().and_then(|error| error.hint).unwrap_or_default()
    }

    #[test]
    fn hosts_are_lower_cased_and_wildcards_only_in_front() {
        assert_eq!(parse_host("API.Example.com"), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!(parse_host("*.Example.com"), Ok(HostPattern::Wildcard("example.com".into())));
        assert_eq!(parse_host("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        assert!(hint(parse_host("example.com:80")).contains("\"example.com\""));
        assert!(hint(parse_host("http://example.com")).contains("leave the scheme out"));
        assert!(hint(parse_host("api.*.com")).contains("only in front"));
        assert!(hint(parse_host("*")).contains("leave `host` out"));
        assert!(hint(parse_host("bücher.example")).contains("xn--"));
        for text in ["", ".", "a..b", "-a.b", "a-.b", "a b", "*.", "**.a", "a."] {
            assert!(parse_host(text).is_err(), "{text}");
        }
        assert!(parse_host(&"a.".repeat(150)).is_err());
    }

    #[test]
    fn paths_are_segments_with_whole_parameters() {
        let literal = |text: &str| Segment::Literal(text.into());
        let parameter = |text: &str| Segment::Parameter(text.into());
        let table = [
            ("/", vec![], false),
            ("/*", vec![], true),
            ("/items", vec![literal("items")], false),
            ("/items/", vec![literal("items"), literal("")], false),
            ("/items/*", vec![literal("items")], true),
            ("/%7ea/*", vec![literal("~a")], true),
            ("/a%2fb/{id}/x", vec![literal("a%2Fb"), parameter("id"), literal("x")], false),
        ];
        for (text, segments, rest) in table {
            assert_eq!(parse_path(text), Ok(PathPattern { segments, rest }), "{text}");
        }
        assert!(hint(parse_path("items")).contains("\"/items\""));
        assert!(hint(parse_path("/a/{x}/{x}")).contains("`x` is there twice"));
        assert!(hint(parse_path("/a b")).contains("percent-encode ' '"));
        for text in [
            "",
            "//",
            "/a//b",
            "/a*",
            "/*/a",
            "/{}",
            "/{a}.json",
            "/{a",
            "/a?b",
            "/a#b",
            "/./a",
            "/a/..",
            "/%zz",
            "/ü",
        ] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
