//! Dictionaries of structured fields (RFC 9651 section 3.2), as far as cache directives need them.

/// A member's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Integer(i64),
    True,
    /// Anything else that can be read.
    Other,
}

/// The members, each with what was said of it last. `None`: it is no dictionary.
pub fn parse(text: &[u8]) -> Option<Vec<(String, Item)>> {
    let mut rest = Reader(text.trim_ascii());
    let mut members: Vec<(String, Item)> = Vec::new();
    if rest.0.is_empty() {
        return Some(members);
    }
    loop {
        let name = rest.key()?;
        let value = if rest.take(b'=') { rest.value()? } else { Item::True };
        rest.parameters()?;
        members.retain(|(before, _)| *before != name);
        members.push((name, value));
        rest.spaces();
        if rest.0.is_empty() {
            return Some(members);
        }
        if !rest.take(b',') {
            return None;
        }
        rest.spaces();
        // A comma at the end is an error, but for what joining empty lines leaves.
        if rest.0.is_empty() {
            return None;
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn while_(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !fits(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn spaces(&mut self) {
        self.while_(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.0.first()?;
        if !(first.is_ascii_lowercase() || first == b'*') {
            return None;
        }
        let key =
            self.while_(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte));
        String::from_utf8(key.to_vec()).ok()
    }

    fn value(&mut self) -> Option<Item> {
        if !self.take(b'(') {
            return self.item();
        }
        loop {
            self.while_(|byte| byte == b' ');
            if self.take(b')') {
                return Some(Item::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<Item> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b':' => {
                self.take(b':');
                self.while_(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.take(b':').then_some(Item::Other)
            }
            b'?' => {
                self.take(b'?');
                if self.take(b'1') {
                    return Some(Item::True);
                }
                self.take(b'0').then_some(Item::Other)
            }
            b'@' => {
                self.take(b'@');
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.while_(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let negative = self.take(b'-');
        let digits = self.while_(|byte| byte.is_ascii_digit());
        if digits.is_empty() || digits.len() > 15 {
            return None;
        }
        if self.take(b'.') {
            let fraction = self.while_(|byte| byte.is_ascii_digit());
            return (digits.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Item::Other);
        }
        let number = digits.iter().fold(0i64, |n, digit| n * 10 + i64::from(digit - b'0'));
        Some(Item::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Item> {
        self.take(b'"');
        loop {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            match first {
                b'"' => return Some(Item::Other),
                b'\\' if self.take(b'"') || self.take(b'\\') => {}
                b' '..=b'[' | b']'..=b'~' => {}
                _ => return None,
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.while_(|byte| byte == b' ');
            self.key()?;
            if self.take(b'=') {
                self.item()?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_read_as_rfc_9651_has_it() {
        let read = |text: &str| parse(text.as_bytes());
        let one = |name: &str, item| Some(vec![(name.to_owned(), item)]);
        assert_eq!(read("max-age=60"), one("max-age", Item::Integer(60)));
        assert_eq!(read(" a=1;x;y=\"z\" ,\ta=?1"), one("a", Item::True));
        assert_eq!(read("a=(1 2;q=1 \"x\");p"), one("a", Item::Other));
        assert_eq!(read("a=1.5, a=:aGk=:, a=@12, a=tok/en, a=-5"), one("a", Item::Integer(-5)));
        assert_eq!(read(""), Some(vec![]));
        for broken in
            ["A=1", "a=", "a=1,", "a=1 b", "a=\"x", "a=1.", "a=(1", "a=?2", "=1", "a=1;", "a=\u{7f}"]
        {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }
}
