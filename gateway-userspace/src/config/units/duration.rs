//! Durations: "250ms", "1s", "1m30s". Whole microseconds, at most ten years.

use std::{fmt, str::FromStr, time::Duration};

use super::{UnitError, quote};

/// Largest first, as they must be written. In microseconds.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
const MOST: Duration = Duration::from_secs(3650 * 86_400);

/// A [`Duration`] that reads and writes itself as people do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse_duration(text).map(HumanDuration)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, micros) in UNITS {
            if left >= micros {
                write!(f, "{}{name}", left / micros)?;
                left %= micros;
            }
        }
        Ok(())
    }
}

/// As it would be written in a config: "1m30s".
pub fn show_duration(duration: Duration) -> String {
    HumanDuration(duration).to_string()
}

/// Numbers with units, the largest unit first: "250ms", "1m30s".
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::new(format!("expected a duration such as \"250ms\", found {}", quote(text)));
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() && text.len() < 12 {
        return Err(wrong().hint(format!("give a unit: \"{text}s\" or \"{text}ms\"")));
    }
    let mut rest = text;
    let mut allowed = &UNITS[..];
    let mut micros: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if unit.contains('.') {
            return Err(wrong().hint("write whole numbers: \"1s500ms\" for one and a half seconds"));
        }
        let Some(index) = allowed.iter().position(|(name, _)| *name == unit) else {
            let known = UNITS.iter().any(|(name, _)| *name == unit);
            return Err(wrong().hint(match known {
                true => "write each unit once, the largest first: \"1h30m\"",
                false => "the units are d, h, m, s, ms and us: \"1m30s\"",
            }));
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let part = number.checked_mul(allowed[index].1).and_then(|part| micros.checked_add(part));
        micros = part.filter(|total| u128::from(*total) <= MOST.as_micros()).ok_or_else(|| {
            UnitError::new(format!("the duration {} is too long", quote(text))).hint("the most is \"3650d\"")
        })?;
        allowed = &allowed[index + 1..];
        rest = after;
    }
    match text.is_empty() {
        true => Err(wrong()),
        false => Ok(Duration::from_micros(micros)),
    }
}
