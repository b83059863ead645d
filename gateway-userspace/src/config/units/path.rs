//! The one form of a path that routes are matched by and that goes upstream.

use std::borrow::Cow;

/// A path with what RFC 3986 section 6.2.2 makes equal written in one way: unreserved characters are not encoded, and
/// hexadecimal digits are upper case. Encoded delimiters (`%2F`) stay as they are: they mean something else.
///
/// `None` for what an upstream may read differently: dot segments (section 3.3) however they are written, also with
/// parameters (`/..;x/`) or between encoded delimiters (`..%2F`), which some servers decode first; `%` without two
/// hexadecimal digits, encoded control characters that end strings (`%00`), delimiters in overlong UTF-8.
pub fn normal_path(path: &str) -> Option<Cow<'_, str>> {
    if !path.bytes().any(|byte| byte == b'.' || byte == b'%' || byte == b'\\') {
        return Some(Cow::Borrowed(path));
    }
    let path = if path.contains('%') { decode_unreserved(path)? } else { Cow::Borrowed(path) };
    let overlong = OVERLONG.iter().any(|escapes| path.contains(escapes));
    (!overlong && !has_dot_segment(&path)).then_some(path)
}

/// `.`, `/` and `\\` in two bytes where UTF-8 has one (RFC 3629 section 10).
const OVERLONG: [&str; 3] = ["%C0%AE", "%C0%AF", "%C1%9C"];

fn has_dot_segment(path: &str) -> bool {
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    let mut segments = path.split(['/', '\\']);
    segments.any(|segment| match segment.contains('%') {
        // Escapes are in upper case here.
        true => segment.split("%2F").flat_map(|part| part.split("%5C")).any(is_dots),
        false => is_dots(segment),
    })
}

/// A normal path as the most lenient of servers read it: decoded twice, backslashes as slashes, without parameters of
/// segments, slashes in a row as one, dot segments gone. `None`: as it is written.
pub fn lenient_path(path: &str) -> Option<String> {
    let odd = |byte: u8| matches!(byte, b'%' | b';' | b'\\');
    if !path.bytes().any(odd) && !path.contains("//") {
        return None;
    }
    let decoded = decode(&decode(path.as_bytes()));
    let text = String::from_utf8_lossy(&decoded);
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let end = if text.ends_with(['/', '\\']) && !segments.is_empty() { "/" } else { "" };
    let lenient = format!("/{}{end}", segments.join("/"));
    (lenient != path).then_some(lenient)
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        match digit(at + 1).zip(digit(at + 2)).and_then(|(high, low)| u8::try_from(high << 4 | low).ok()) {
            Some(value) if byte == b'%' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn decode_unreserved(path: &str) -> Option<Cow<'_, str>> {
    let mut parts = path.split('%');
    let mut out = String::with_capacity(path.len());
    out.push_str(parts.next()?);
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let digit = |index: usize| char::from(digits.as_bytes()[index]).to_digit(16);
        let byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        match byte {
            0 => return None,
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
            }
        }
        out.push_str(rest);
    }
    Some(if out == path { Cow::Borrowed(path) } else { Cow::Owned(out) })
}

#[cfg(test)]
mod tests {
    use super::{lenient_path, normal_path};

    #[test]
    fn what_is_equal_is_written_in_one_way() {
        for (path, normal) in [
            ("/a.b", "/a.b"),
            ("/%7Euser/%41", "/~user/A"),
            ("/a%2fb%c3%bc", "/a%2Fb%C3%BC"),
            ("/a%2Fb", "/a%2Fb"),
            ("/%2e%2ea", "/..a"),
            ("/%252e", "/%252e"),
            ("/...", "/..."),
            ("/a;.", "/a;."),
            ("/a..%2F..b", "/a..%2F..b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/", "/"),
            ("*", "*"),
        ] {
            assert_eq!(normal_path(path).as_deref(), Some(normal), "{path}");
            assert_eq!(normal_path(normal).as_deref(), Some(normal), "{path} twice");
        }
    }

    #[test]
    fn what_lenient_servers_make_of_a_path_is_known() {
        for (path, lenient) in [
            ("/a/b", None),
            ("/a%20b", Some("/a b")),
            ("//a//b/", Some("/a/b/")),
            ("/a%2Fb", Some("/a/b")),
            ("/a%5Cb\\c", Some("/a/b/c")),
            ("/a;x=1/b;y", Some("/a/b")),
            ("/%2561dmin", Some("/admin")),
            ("/a/%252e%252e/b", Some("/b")),
            ("/;/..;x/a", Some("/a")),
            ("//", Some("/")),
            ("/%", None),
        ] {
            assert_eq!(lenient_path(path).as_deref(), lenient, "{path}");
        }
    }

    #[test]
    fn dot_segments_and_broken_escapes_are_refused_however_they_are_written() {
        for path in [
            "/a/../b",
            "/..",
            "/a/./b",
            "/%2e%2E/b",
            "/a/.%2e",
            "/a\\..\\b",
            "/a/..;/b",
            "/a/.;x=1/b",
            "/a/..%2fb",
            "/a%2F..",
            "/a%5c%2e%2e%5Cb",
            "/%",
            "/%4",
            "/%zz",
            "/a%00b",
            "/%c0%ae%c0%ae/a",
            "/a%c0%AFb",
            "/%é1",
            "/%+1",
        ] {
            assert_eq!(normal_path(path), None, "{path}");
        }
    }
}
