//! Sizes, rates and percentages.

use std::{fmt, str::FromStr};

use super::{UnitError, quote};

/// Bytes. Written "512MiB" (1024s), "10KB" (1000s), "64B", or as a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Largest first within each family; a size is shown in the first that divides it.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(format!("expected a size such as \"512MiB\", found {}", quote(text)));
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "" => 1,
            unit => {
                let found = SIZES.iter().find(|(name, _)| *name == unit);
                let meant = || SIZES.iter().find(|(name, _)| name.to_ascii_lowercase() == guess_unit(unit));
                found.map(|(_, factor)| *factor).ok_or_else(|| match meant() {
                    Some((name, _)) if !number.is_empty() => {
                        wrong().hint(format!("did you mean \"{number}{name}\"?"))
                    }
                    _ => wrong().hint("the units are B, KiB, MiB, GiB, TiB (1024) and KB, MB, GB, TB (1000)"),
                })?
            }
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok());
        bytes.map(ByteSize).ok_or_else(|| UnitError::new(format!("the size {} is too large", quote(text))))
    }
}

/// "512m", "512M", "512mb": people mean the binary unit when they leave the B out.
fn guess_unit(unit: &str) -> String {
    let unit = unit.trim().to_ascii_lowercase();
    match unit.as_str() {
        "k" | "m" | "g" | "t" => format!("{unit}ib"),
        _ => unit,
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, factor): &&(&str, u64)| self.0 >= *factor && self.0.is_multiple_of(*factor);
        let (name, factor) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// Events a second; never zero. Written "100/s", "20k/s", "5/m", "200k/h".
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_second: f64,
}

const PER: [(&str, f64); 4] = [("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];
const THOUSANDS: [(&str, f64); 3] = [("G", 1e9), ("M", 1e6), ("k", 1e3)];

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(format!("expected a rate such as \"100/s\", found {}", quote(text)));
        let Some((count, per)) = text.split_once('/') else {
            return Err(wrong().hint("write what it is per: \"100/s\", \"20k/s\", \"5/m\" or \"200k/h\""));
        };
        let seconds = PER.iter().find(|(name, _)| *name == per).map(|(_, seconds)| *seconds);
        let seconds = seconds.ok_or_else(|| wrong().hint("it is per s, m, h or d: \"100/s\""))?;
        let suffix = THOUSANDS.iter().find_map(|(name, factor)| Some((count.strip_suffix(name)?, *factor)));
        let (number, factor) = suffix.unwrap_or((count, 1.0));
        let count =
            plain_number(number).ok_or_else(|| wrong().hint("the multiples are k, M and G: \"20k/s\""))?;
        let per_second = count * factor / seconds;
        match per_second {
            0.0 => Err(UnitError::new("a rate is never zero").hint("leave the limit out to have none")),
            rate if !(1e-6..=1e12).contains(&rate) => {
                Err(UnitError::new(format!("the rate {} is out of range", quote(text))))
            }
            per_second => Ok(Rate { per_second }),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = PER.iter().find_map(|(per, seconds)| {
            let count = (self.per_second * seconds).round();
            (count >= 1.0 && count / seconds == self.per_second).then_some((count, per))
        });
        let Some((count, per)) = whole else {
            return write!(f, "{}/s", self.per_second);
        };
        match THOUSANDS.iter().find(|(_, factor)| count % factor == 0.0) {
            Some((name, factor)) => write!(f, "{}{name}/{per}", count / factor),
            None => write!(f, "{count}/{per}"),
        }
    }
}

/// Bytes a second: "10MiB/s", "125MB/s", "1GB/h".
///
/// # Errors
/// It is written otherwise, or zero.
pub fn parse_byte_rate(text: &str) -> Result<Rate, UnitError> {
    let wrong =
        || UnitError::new(format!("expected a rate of bytes such as \"10MiB/s\", found {}", quote(text)));
    let Some((size, per)) = text.split_once('/') else {
        return Err(wrong().hint("write what it is per: \"10MiB/s\" or \"1GB/h\""));
    };
    let seconds = PER.iter().find(|(name, _)| *name == per).map(|(_, seconds)| *seconds);
    let seconds = seconds.ok_or_else(|| wrong().hint("it is per s, m, h or d: \"10MiB/s\""))?;
    let size: ByteSize =
        size.parse().map_err(|error: UnitError| UnitError { hint: error.hint, ..wrong() })?;
    match size.0 {
        0 => Err(UnitError::new("a rate is never zero").hint("leave the limit out to have none")),
        // 1 TB/s; no network card is faster, and the arithmetic behind it stays exact.
        bytes if bytes as f64 / seconds > 1e12 => {
            Err(UnitError::new(format!("the rate {} is out of range", quote(text))))
        }
        bytes => Ok(Rate { per_second: bytes as f64 / seconds }),
    }
}

/// As [`parse_byte_rate`] reads it.
pub fn show_byte_rate(rate: Rate) -> String {
    let whole = PER.iter().find_map(|(per, seconds)| {
        let bytes = (rate.per_second * seconds).round();
        (bytes >= 1.0 && bytes / seconds == rate.per_second).then_some((bytes, per))
    });
    // One that was read is always whole in the unit it was written in.
    let (bytes, per) = whole.unwrap_or((rate.per_second.round().max(1.0), &"s"));
    format!("{}/{per}", ByteSize(bytes as u64))
}

/// A share, as a fraction: "5%" is 0.05.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(format!("expected a percentage such as \"5%\", found {}", quote(text)));
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let percent = plain_number(number).filter(|n| *n <= 1e6).ok_or_else(wrong)?;
        Ok(Percent(percent / 100.0))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 0.07 * 100 is 7.000000000000001: shown as the nearest number that reads back the same.
        let percent = self.0 * 100.0;
        let near = (percent * 1e6).round() / 1e6;
        write!(f, "{}%", if near / 100.0 == self.0 { near } else { percent })
    }
}

/// Digits with at most one point: no sign, exponent, "inf" or "nan", which `f64` would read.
fn plain_number(text: &str) -> Option<f64> {
    let plain = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}
