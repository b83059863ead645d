//! Texts with a form of their own: names, addresses, files; hosts and paths in files of theirs.

mod host;
mod path;

use std::net::{Ipv4Addr, SocketAddr};

pub(super) use self::{
    host::{HOST, SNI_NAME},
    path::{PATH, PROBE_PATH},
};

use super::Text;
use crate::config::{
    error::did_you_mean,
    model::Bind,
    node::Value,
    units::{Lookup, UnitError, is_https, parse_byte_rate, parse_target, quote},
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
    // Without a port it is no target.
    parse: |text| match text.contains(':').then(|| parse_target(text)) {
        // `to = "127.0.0.1:3000"` is meant as a target, but could be a name.
        Some(Ok(_)) => Err(UnitError::new(format!("{} is an address, not an upstream's name", quote(text)))
            .hint(format!("write a list: to = [{}]", quote(text)))),
        _ => Ok(Value::Text(text.into())),
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

/// Whether it can name a listener, upstream, route or service.
pub(crate) fn is_name(text: &str) -> bool {
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    (1..=63).contains(&text.len()) && text.bytes().all(rest) && !text.starts_with(['.', '-'])
}
