//! Whether a body is JSON (RFC 8259) within limits, told byte by byte as it passes: nothing of it is kept but which
//! brackets are open. That strings are UTF-8 is not looked at.

use http::{header, request};

use crate::{
    config::model::JsonLimits,
    request::{is_of_type, media_type},
};

/// It is none, or beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    /// Behind `[`: a value, or the end.
    ValueOrEnd,
    /// Behind `{`: a name, or the end.
    NameOrEnd,
    Name,
    Colon,
    /// Of a name, or of a value.
    Text {
        name: bool,
    },
    Escape {
        name: bool,
    },
    /// So many hexadecimal digits are still to come.
    Unicode {
        name: bool,
        left: u8,
    },
    Number(Number),
    /// What is still to come of `true`, `false` or `null`.
    Literal(&'static [u8]),
    /// A value is whole.
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

#[derive(Debug)]
pub struct Checker {
    limits: JsonLimits,
    state: State,
    /// What is open, from without to within: whether it is an object.
    open: Vec<bool>,
    items: u64,
}

/// By its media type.
pub fn is_json(kind: &str) -> bool {
    ["application/json", "*+json"].iter().any(|json| is_of_type(kind, json))
}

impl Checker {
    /// `None`: the body is said to be something else.
    ///
    /// # Errors
    /// It is JSON in a coding that would have to be undone first.
    pub fn of(limits: JsonLimits, head: &request::Parts) -> Result<Option<Checker>, Refused> {
        let mut types = head.headers.get_all(header::CONTENT_TYPE).iter();
        let kind = types.next().map(|field| media_type(field.to_str().unwrap_or_default()));
        // What is not said to be anything may be taken for it.
        if kind.is_some_and(|kind| !is_json(&kind)) && types.next().is_none() {
            return Ok(None);
        }
        let plain = |coding: &http::HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
        match head.headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
            true => Ok(Some(Checker::new(limits))),
            false => Err(Refused),
        }
    }

    pub fn new(limits: JsonLimits) -> Checker {
        Checker { limits, state: State::Value, open: Vec::new(), items: 0 }
    }

    /// # Errors
    /// What has come so far can be the beginning of no JSON that is taken.
    pub fn read(&mut self, data: &[u8]) -> Result<(), Refused> {
        let mut rest = data;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if let State::Text { .. } = self.state {
                let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
                if plain(&byte) {
                    let end = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
                    rest = rest.get(end..).unwrap_or_default();
                    continue;
                }
            }
            self.byte(byte)?;
        }
        Ok(())
    }

    /// # Errors
    /// It is not whole.
    pub fn end(&self) -> Result<(), Refused> {
        let whole = match self.state {
            State::After => true,
            State::Number(number) => number.may_end(),
            _ => false,
        };
        if whole && self.open.is_empty() { Ok(()) } else { Err(Refused) }
    }

    fn byte(&mut self, byte: u8) -> Result<(), Refused> {
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (State::Number(number), _) => match number.next(byte) {
                Some(next) => State::Number(next),
                None if number.may_end() => {
                    self.state = State::After;
                    return self.byte(byte);
                }
                None => return Err(Refused),
            },
            (State::Text { name: true }, b'"') => State::Colon,
            (State::Text { name: false }, b'"') => State::After,
            (State::Text { name }, b'\\') => State::Escape { name },
            (State::Text { .. }, ..0x20) => return Err(Refused),
            (text @ State::Text { .. }, _) => text,
            (State::Escape { name }, b'u') => State::Unicode { name, left: 4 },
            (State::Escape { name }, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                State::Text { name }
            }
            (State::Unicode { name, left }, _) if byte.is_ascii_hexdigit() => match left {
                1 => State::Text { name },
                _ => State::Unicode { name, left: left - 1 },
            },
            (State::Literal([first, rest @ ..]), _) if *first == byte => match rest {
                [] => State::After,
                _ => State::Literal(rest),
            },
            (State::Escape { .. } | State::Unicode { .. } | State::Literal(_), _) => return Err(Refused),
            (same, _) if space => same,
            (State::ValueOrEnd, b']') | (State::NameOrEnd, b'}') => self.close(),
            (State::Value | State::ValueOrEnd, _) => self.value(byte)?,
            (State::NameOrEnd | State::Name, b'"') => State::Text { name: true },
            (State::Colon, b':') => State::Value,
            (State::After, b',') => match self.open.last() {
                Some(true) => State::Name,
                Some(false) => State::Value,
                None => return Err(Refused),
            },
            (State::After, b']') if self.open.last() == Some(&false) => self.close(),
            (State::After, b'}') if self.open.last() == Some(&true) => self.close(),
            _ => return Err(Refused),
        };
        Ok(())
    }

    fn value(&mut self, first: u8) -> Result<State, Refused> {
        self.items += 1;
        if self.limits.items.is_some_and(|most| self.items > most) {
            return Err(Refused);
        }
        Ok(match first {
            b'{' => self.open(true)?,
            b'[' => self.open(false)?,
            b'"' => State::Text { name: false },
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Whole),
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            _ => return Err(Refused),
        })
    }

    fn open(&mut self, object: bool) -> Result<State, Refused> {
        if self.open.len() >= usize::from(self.limits.depth) {
            return Err(Refused);
        }
        self.open.push(object);
        Ok(if object { State::NameOrEnd } else { State::ValueOrEnd })
    }

    fn close(&mut self) -> State {
        self.open.pop();
        State::After
    }
}

impl Number {
    fn next(self, byte: u8) -> Option<Number> {
        Some(match (self, byte) {
            (Number::Minus, b'0') => Number::Zero,
            (Number::Minus, b'1'..=b'9') | (Number::Whole, b'0'..=b'9') => Number::Whole,
            (Number::Zero | Number::Whole, b'.') => Number::Point,
            (Number::Point | Number::Fraction, b'0'..=b'9') => Number::Fraction,
            (Number::Zero | Number::Whole | Number::Fraction, b'e' | b'E') => Number::E,
            (Number::E, b'+' | b'-') => Number::Sign,
            (Number::E | Number::Sign | Number::Exponent, b'0'..=b'9') => Number::Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Number::Zero | Number::Whole | Number::Fraction | Number::Exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(depth: u16, items: u64) -> JsonLimits {
        JsonLimits { depth, items: Some(items) }
    }

    fn is_taken(text: &str, limits: JsonLimits) -> bool {
        let mut whole = Checker::new(limits);
        let taken = whole.read(text.as_bytes()).and_then(|()| whole.end()).is_ok();
        // However it is cut.
        let mut parts = Checker::new(limits);
        let bytewise = text.bytes().try_for_each(|byte| parts.read(&[byte])).and_then(|()| parts.end());
        assert_eq!(bytewise.is_ok(), taken, "{text}");
        taken
    }

    #[test]
    fn json_is_told_from_what_is_none() {
        for good in [
            "0",
            "-0",
            "1.5e-7",
            " true\n",
            "\"\"",
            "\"\\u00e9\\n\\\"\"",
            "[]",
            "{}",
            "[1,\"a\",null]",
            "{\"a\":{\"b\":[{},[]]},\"c\":-10E+2}",
            "\t[ 1 , 2 ]\r\n",
            "\"é\"",
        ] {
            assert!(is_taken(good, limits(8, 100)), "{good}");
        }
        for bad in [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "tru",
            "truee",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{]",
            "[}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "1 2",
            "{}{}",
            "[],",
            "NaN",
            "'a'",
            "// x\n1",
            "\u{feff}1",
        ] {
            assert!(!is_taken(bad, limits(8, 100)), "{bad}");
        }
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(is_taken(&nested(8), limits(8, 100)) && !is_taken(&nested(9), limits(8, 100)));
        let mixed = "{\"a\":[{\"b\":1}]}";
        assert!(is_taken(mixed, limits(3, 100)) && !is_taken(mixed, limits(2, 100)));
        let list = |n: usize| format!("[{}]", vec!["0"; n].join(","));
        assert!(is_taken(&list(99), limits(8, 100)) && !is_taken(&list(100), limits(8, 100)));
        assert!(is_taken("1", limits(0, 1)) && !is_taken("[]", limits(0, 1)));
        // A bomb is refused where it goes too far, not at its end.
        let mut checker = Checker::new(limits(32, 1000));
        assert!(checker.read(&b"[".repeat(32)).is_ok() && checker.read(b"[").is_err());
    }

    #[test]
    fn what_is_looked_at_is_what_may_be_taken_for_json() {
        let of = |fields: &[(&str, &str)]| {
            let mut head = http::Request::post("/");
            for (name, value) in fields {
                head = head.header(*name, *value);
            }
            Checker::of(limits(8, 8), &head.body(()).unwrap().into_parts().0).map(|checker| checker.is_some())
        };
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert_eq!(of(&[("content-type", json)]), Ok(true), "{json}");
            assert_eq!(of(&[("content-type", json), ("content-encoding", "gzip")]), Err(Refused));
            assert_eq!(of(&[("content-type", json), ("content-encoding", "identity")]), Ok(true));
        }
        assert_eq!((of(&[]), of(&[("content-type", "text/plain")])), (Ok(true), Ok(false)));
        assert_eq!(of(&[("content-type", "text/plain"), ("content-type", "application/json")]), Ok(true));
    }
}
