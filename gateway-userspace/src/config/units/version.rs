//! How versions of an API are called: by numbers, by dates or by words; and what a client may ask for instead of a name.

use std::{cmp::Ordering, fmt, str::FromStr};

use super::{UnitError, quote};

/// The name of a version as the config writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionName {
    text: String,
    pub form: VersionForm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionForm {
    /// `v1`, `1`, `1.2`, `1.2.3`
    Number(Number),
    /// `2026-06-01`
    Date(Date),
    /// Anything else: known by this name alone.
    Word,
}

/// Up to three numbers; what is not written is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    pub parts: [u32; 3],
    /// How many were written.
    pub written: usize,
}

/// A day, ordered as in the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u32);

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// That version; else the newest that begins with it.
    Number(Number),
    /// `^1.2`, `~1.2`, `1.x`: the newest from the first to below the second.
    Range([u32; 3], [u32; 3]),
    /// The newest that is not after it.
    Date(Date),
}

/// Most bytes of what a client calls a version; more is none.
const MOST: usize = 63;

impl Number {
    /// `v1.2`, or without the `v`.
    pub fn parse(text: &str) -> Option<Self> {
        Number::digits(without_v(text))
    }

    fn digits(text: &str) -> Option<Self> {
        let mut parts = [0; 3];
        let mut written = 0;
        for part in text.split('.') {
            *parts.get_mut(written)? = digits(part)?;
            written += 1;
        }
        Some(Number { parts, written })
    }

    /// Whether `other` begins with these numbers and has more.
    fn begins(self, other: Number) -> bool {
        self.written < other.written && self.parts[..self.written] == other.parts[..self.written]
    }
}

fn without_v(text: &str) -> &str {
    text.strip_prefix(['v', 'V']).unwrap_or(text)
}

/// At most nine, without a zero before them.
fn digits(text: &str) -> Option<u32> {
    let plain = (1..=9).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

impl Date {
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
        let number = |range: std::ops::Range<usize>| {
            bytes[range]
                .iter()
                .try_fold(0, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u32::from(byte - b'0')))
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(leap),
            1..=12 => 31,
            _ => return None,
        };
        let written = bytes[4] == b'-' && bytes[7] == b'-' && (1..=days).contains(&day);
        written.then_some(Date((year * 100 + month) * 100 + day))
    }
}

impl Wanted {
    /// `None`: it is neither a number nor a range nor a date.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MOST {
            return None;
        }
        if let Some(date) = Date::parse(text) {
            return Some(Wanted::Date(date));
        }
        if let Some(number) = Number::parse(text) {
            return Some(Wanted::Number(number));
        }
        let (compatible, from) = match (text.strip_prefix('^'), text.strip_prefix('~')) {
            (Some(from), _) => (true, from),
            (_, Some(from)) => (false, from),
            _ => (false, text.strip_suffix(".x").or_else(|| text.strip_suffix(".*"))?),
        };
        let from = Number::parse(from)?;
        Some(Wanted::Range(from.parts, if compatible { next_breaking(from) } else { next_near(from) }))
    }

    /// The newest of `names`, which are in order (the oldest first), that is what is asked for.
    pub fn newest<'a>(self, names: impl DoubleEndedIterator<Item = &'a VersionForm> + Clone) -> Option<usize>
    where
        VersionForm: 'a,
    {
        let mut exact = None;
        let mut within = None;
        let mut equal = None;
        for (index, form) in names.enumerate() {
            match (self, form) {
                (Wanted::Number(wanted), VersionForm::Number(number)) => {
                    if wanted == *number {
                        exact = Some(index);
                    } else if wanted.begins(*number) {
                        within = Some(index);
                    } else if wanted.parts == number.parts {
                        equal = Some(index);
                    }
                }
                (Wanted::Range(from, below), VersionForm::Number(number))
                    if from <= number.parts && number.parts < below =>
                {
                    within = Some(index);
                }
                (Wanted::Date(wanted), VersionForm::Date(date)) if *date <= wanted => within = Some(index),
                _ => {}
            }
        }
        exact.or(within).or(equal)
    }
}

/// What `^` ends before: the leftmost number that is not 0 goes up (<https://semver.org>, item 8; as npm and Cargo do).
fn next_breaking(from: Number) -> [u32; 3] {
    match (from.parts, from.written) {
        ([0, 0, patch], 3) => [0, 0, patch + 1],
        ([0, minor, _], 2..) => [0, minor + 1, 0],
        ([major, ..], _) => [major + 1, 0, 0],
    }
}

/// What `~` ends before: the second number goes up, or the first where there is no second.
fn next_near(from: Number) -> [u32; 3] {
    match (from.parts, from.written) {
        ([major, ..], 1) => [major + 1, 0, 0],
        ([major, minor, _], _) => [major, minor + 1, 0],
    }
}

impl FromStr for VersionName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !(1..=MOST).contains(&text.len()) || !text.bytes().all(plain) || text.starts_with(['.', '-']) {
            let error = UnitError::new(format!("{} cannot be the name of a version", quote(text)));
            return Err(error.hint("a version is called \"v1\", \"1.2\", \"2026-06-01\" or by a word"));
        }
        let form = match (Date::parse(text), Number::parse(text)) {
            (Some(date), _) => VersionForm::Date(date),
            (None, Some(number)) => VersionForm::Number(number),
            (None, None) => VersionForm::Word,
        };
        Ok(VersionName { text: text.into(), form })
    }
}

impl VersionName {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Words before dates before numbers; the older first.
    pub fn order(&self, other: &Self) -> Ordering {
        let kind = |form: VersionForm| match form {
            VersionForm::Word => (0, Date(0), [0; 3], 0),
            VersionForm::Date(date) => (1, date, [0; 3], 0),
            VersionForm::Number(number) => (2, Date(0), number.parts, number.written),
        };
        kind(self.form).cmp(&kind(other.form)).then_with(|| self.text.cmp(&other.text))
    }

    /// Whether clients could not tell the two apart.
    pub fn is_same(&self, other: &Self) -> bool {
        self.text.eq_ignore_ascii_case(&other.text)
            || self.form != VersionForm::Word && self.form == other.form
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(names: &[&str], wanted: &str) -> Option<String> {
        let mut names: Vec<VersionName> = names.iter().map(|name| name.parse().unwrap()).collect();
        names.sort_by(VersionName::order);
        let index = Wanted::parse(wanted)?.newest(names.iter().map(|name| &name.form))?;
        Some(names[index].to_string())
    }

    #[test]
    fn a_number_is_that_version_or_the_newest_that_begins_with_it() {
        let names = ["v1", "v2", "2.1", "3.0", "3.1", "3.1.4", "10.0"];
        for (wanted, found) in [
            ("1", "v1"),
            ("v1", "v1"),
            ("V1", "v1"),
            ("1.0", "v1"),
            ("1.0.0", "v1"),
            ("2", "v2"),
            ("2.1", "2.1"),
            ("2.1.0", "2.1"),
            ("3", "3.1.4"),
            ("3.0", "3.0"),
            ("3.1", "3.1"),
            ("10", "10.0"),
        ] {
            assert_eq!(pick(&names, wanted).as_deref(), Some(found), "{wanted}");
        }
        for unknown in
            ["4", "1.1", "3.2", "0", "01", "1.", ".1", "1.2.3.4", "v", "", "vv1", "1 ", "-1", "99999999999"]
        {
            assert_eq!(pick(&names, unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_range_is_the_newest_that_is_compatible() {
        let names = ["0.2", "0.2.5", "0.3.0", "1.2.0", "1.4.2", "2.0.0", "2.0.1"];
        for (wanted, found) in [
            ("^1.2", "1.4.2"),
            ("^1", "1.4.2"),
            ("^v1.0.0", "1.4.2"),
            ("~1.2", "1.2.0"),
            ("~1", "1.4.2"),
            ("1.x", "1.4.2"),
            ("2.0.x", "2.0.1"),
            ("2.*", "2.0.1"),
            ("^0.2", "0.2.5"),
            ("^0.2.1", "0.2.5"),
            ("^0.0.0", ""),
            ("^1.5", ""),
            ("^3", ""),
            ("^", ""),
            ("x", ""),
            ("^^1", ""),
        ] {
            assert_eq!(pick(&names, wanted).unwrap_or_default(), found, "{wanted}");
        }
    }

    #[test]
    fn a_date_is_the_newest_version_that_is_not_after_it() {
        let names = ["2025-01-15", "2026-06-01", "2026-12-31"];
        for (wanted, found) in [
            ("2026-06-01", "2026-06-01"),
            ("2026-05-31", "2025-01-15"),
            ("2026-12-30", "2026-06-01"),
            ("2999-01-01", "2026-12-31"),
            ("2025-01-14", ""),
            ("2026-02-29", ""),
            ("2026-13-01", ""),
            ("2026-6-1", ""),
            ("2026/06/01", ""),
        ] {
            assert_eq!(pick(&names, wanted).unwrap_or_default(), found, "{wanted}");
        }
        assert!(Date::parse("2024-02-29").is_some() && Date::parse("2100-02-29").is_none());
    }

    #[test]
    fn names_that_clients_could_not_tell_apart_are_the_same() {
        let same = |one: &str, two: &str| one.parse::<VersionName>().unwrap().is_same(&two.parse().unwrap());
        assert!(same("v1", "1") && same("beta", "Beta") && same("v1.2", "1.2"));
        assert!(!same("1", "1.0") && !same("beta", "alpha") && !same("2026-06-01", "2026-06-02"));
        assert!(
            "a b".parse::<VersionName>().is_err()
                && "".parse::<VersionName>().is_err()
                && "a/b".parse::<VersionName>().is_err()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_and_what_is_picked_is_one_of_them(text in ".{0,80}", numbers in "[~^v]?[0-9]{0,3}(\\.[0-9x]{1,2}){0,3}") {
            for wanted in [&text, &numbers] {
                let names = ["v1", "1.2", "2026-06-01", "beta"];
                if let Some(found) = pick(&names, wanted) {
                    proptest::prop_assert!(names.contains(&&*found));
                }
                let _ = wanted.parse::<VersionName>();
            }
        }
    }
}
