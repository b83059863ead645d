//! Names of upstreams' targets, to be looked up in DNS.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{UnitError, quote};

/// What is asked of DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lookup {
    /// A and AAAA: "carts.internal:8080".
    Host { name: String, port: u16 },
    /// SRV (RFC 2782): "srv:_http._tcp.carts.internal".
    Srv(String),
}

impl Lookup {
    /// A target that is a host's name with a port. `None`: it is something else.
    pub(crate) fn of_target(text: &str) -> Option<Lookup> {
        let scheme =
            [("http://", 80), ("https://", 443)].into_iter().find(|(scheme, _)| text.starts_with(scheme));
        let plain = scheme
            .map(|(scheme, _)| &text[scheme.len()..])
            .map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let (name, port) = match plain.unwrap_or(text).rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port.parse().ok()?),
            _ => (plain?, scheme?.1),
        };
        let named = is_name(name) && name != "localhost" && port != 0;
        named.then(|| Lookup::Host { name: name.to_ascii_lowercase(), port })
    }

    /// A host's name and nothing else.
    pub(crate) fn lacks_port(text: &str) -> bool {
        is_name(text) && text != "localhost"
    }
}

impl FromStr for Lookup {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || {
            UnitError::new(format!("expected a name such as \"carts.internal:8080\", found {}", quote(text)))
        };
        if let Some(name) = text.strip_prefix("srv:") {
            let service = name.starts_with('_') && name.contains("._") && is_name(name);
            let srv = service.then(|| Lookup::Srv(name.to_ascii_lowercase()));
            return srv.ok_or_else(|| wrong().hint("write \"srv:_http._tcp.carts.internal\""));
        }
        if is_name(text) {
            return Err(wrong().hint(format!("add the port: \"{text}:80\"")));
        }
        Lookup::of_target(text).filter(|_| !text.contains("://")).ok_or_else(|| {
            wrong()
                .hint("addresses belong to `to`; names are of letters, digits, \"-\" and \"_\", with a port")
        })
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lookup::Host { name, port } => write!(f, "{name}:{port}"),
            Lookup::Srv(name) => write!(f, "srv:{name}"),
        }
    }
}

/// RFC 1035 section 2.3.4, with the underscores of RFC 2782. Not what could be an address.
fn is_name(text: &str) -> bool {
    let whole = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = whole.rsplit('.').next().unwrap_or_default();
    whole.len() <= 253 && whole.split('.').all(label) && last.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_to_look_up_are_told_from_addresses() {
        for text in ["app:80", "carts.internal:8080", "a-b_c.example.:1", "srv:_http._tcp.carts.internal"] {
            assert_eq!(text.parse::<Lookup>().map(|lookup| lookup.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "app",
            "app:",
            "app:0",
            "app:70000",
            "10.0.0.1:80",
            "[::1]:80",
            "-a:80",
            "a..b:80",
            "a b:80",
            "http://app:80",
            "srv:http.tcp.a",
            "srv:_http._tcp.a b",
            "srv:",
            "x.1:80",
            "localhost:80",
        ] {
            assert!(text.parse::<Lookup>().is_err(), "{text}");
        }
        let host = |name: &str, port| Some(Lookup::Host { name: name.into(), port });
        assert_eq!(Lookup::of_target("http://App.internal/"), host("app.internal", 80));
        assert_eq!(Lookup::of_target("http://app:8080"), host("app", 8080));
        assert_eq!(Lookup::of_target("https://app.internal"), host("app.internal", 443));
        assert_eq!(Lookup::of_target("https://App:8443/"), host("app", 8443));
        for text in ["10.0.0.1:80", "localhost:80", "https://10.0.0.1", "http://app/x", "app"] {
            assert_eq!(Lookup::of_target(text), None, "{text}");
        }
    }
}
