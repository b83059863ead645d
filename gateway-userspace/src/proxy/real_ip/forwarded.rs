//! `Forwarded` (RFC 7239 section 4).

/// What one proxy says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// `for`, without quotes: "192.0.2.1", "[2001:db8::1]:4711", "unknown", "_hidden".
    pub node: Option<String>,
    pub proto: Option<String>,
    pub host: Option<String>,
}

/// `None` when any of it is malformed: where an element ends cannot be told then.
pub fn elements(text: &str) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut element: Option<Element> = None;
    let mut rest = text.trim_start();
    loop {
        match rest.bytes().next() {
            None => {
                elements.extend(element);
                return Some(elements);
            }
            // Empty elements of a list are to be ignored (RFC 9110 section 5.6.1.2).
            Some(b',') => {
                elements.extend(element.take());
                rest = rest[1..].trim_start();
                continue;
            }
            Some(b';') => {
                element.get_or_insert_default();
                rest = rest[1..].trim_start();
                continue;
            }
            Some(_) => {}
        }
        let (name, value, behind) = pair(rest)?;
        let into = element.get_or_insert_default();
        let slot = match name.to_ascii_lowercase().as_str() {
            "for" => Some(&mut into.node),
            "proto" => Some(&mut into.proto),
            "host" => Some(&mut into.host),
            _ => None,
        };
        // A parameter must not be there twice.
        if let Some(slot) = slot
            && slot.replace(value).is_some()
        {
            return None;
        }
        rest = behind.trim_start();
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            return None;
        }
    }
}

/// `token "=" (token / quoted-string)`, and what is behind it.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.bytes().position(|byte| !in_value(byte)).unwrap_or(rest.len());
        return (end > 0).then(|| (name, rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name, value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Proxies are known that leave the quotes out where there is a port or an IPv6 address.
fn in_value(byte: u8) -> bool {
    is_token(byte) || b":[]".contains(&byte)
}
