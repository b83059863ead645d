//! So much in so long: "100/s", "1000/15m", "10MiB/s", "50k/month".

use std::{fmt, str::FromStr, time::Duration};

use super::{ByteSize, UnitError, quote};

/// What a limit allows: an amount a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// At least 1.
    pub amount: u64,
    pub span: Span,
    /// It was written as a size.
    pub bytes: bool,
}

/// A number of units of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// At least 1.
    pub count: u32,
    pub unit: SpanUnit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanUnit {
    Second,
    Minute,
    Hour,
    Day,
    /// Of the calendar for windows, 30 days for everything else.
    Month,
}

const UNITS: [(&str, SpanUnit); 8] = [
    ("s", SpanUnit::Second),
    ("m", SpanUnit::Minute),
    ("h", SpanUnit::Hour),
    ("d", SpanUnit::Day),
    ("month", SpanUnit::Month),
    ("min", SpanUnit::Minute),
    ("hour", SpanUnit::Hour),
    ("day", SpanUnit::Day),
];

const THOUSANDS: [(&str, u64); 3] = [("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)];

/// No amount is larger: sums of it stay far from the end of a u64.
const MOST: u64 = 1_000_000_000_000_000;

impl Span {
    pub fn duration(self) -> Duration {
        let seconds = match self.unit {
            SpanUnit::Second => 1,
            SpanUnit::Minute => 60,
            SpanUnit::Hour => 3_600,
            SpanUnit::Day => 86_400,
            SpanUnit::Month => 30 * 86_400,
        };
        Duration::from_secs(u64::from(self.count) * seconds)
    }
}

impl Quota {
    pub fn per_second(self) -> f64 {
        self.amount as f64 / self.span.duration().as_secs_f64()
    }

    /// So many times the amount, at least 1.
    pub fn times(self, factor: f64) -> Quota {
        Quota { amount: (self.amount as f64 * factor).round().clamp(1.0, MOST as f64) as u64, ..self }
    }
}

impl FromStr for Quota {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::new(format!("expected a rate such as \"100/s\", found {}", quote(text)));
        let Some((amount, span)) = text.split_once('/') else {
            return Err(wrong().hint("write what it is per: \"100/s\", \"1000/15m\" or \"10MiB/s\""));
        };
        let bytes = amount.ends_with('B');
        let amount = match bytes {
            true => {
                let size: ByteSize =
                    amount.parse().map_err(|error: UnitError| UnitError { hint: error.hint, ..wrong() })?;
                size.0
            }
            false => number(amount).ok_or_else(|| {
                wrong().hint("it is a whole number, with k, M or G behind it for thousands: \"20k/s\"")
            })?,
        };
        let span = span_of(span).ok_or_else(|| {
            wrong().hint("it is per s, m, h, d or month, or several of them: \"100/s\", \"1000/15m\"")
        })?;
        match amount {
            0 => Err(UnitError::new("a rate is never zero").hint("leave the limit out to have none")),
            amount if amount > MOST || span.duration() > Duration::from_secs(400 * 86_400) => {
                Err(UnitError::new(format!("the rate {} is out of range", quote(text))))
            }
            amount => Ok(Quota { amount, span, bytes }),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let suffix = THOUSANDS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
    let (digits, factor) = suffix.unwrap_or((text, 1));
    digits_only(digits)?.checked_mul(factor)
}

fn digits_only(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn span_of(text: &str) -> Option<Span> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let count = if count.is_empty() { 1 } else { u32::try_from(digits_only(count)?).ok()? };
    let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    (count > 0).then_some(Span { count, unit })
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count != 1 {
            write!(f, "{}", self.count)?;
        }
        f.write_str(UNITS.iter().find(|(_, unit)| *unit == self.unit).map_or("s", |(name, _)| name))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes {
            return write!(f, "{}/{}", ByteSize(self.amount), self.span);
        }
        match THOUSANDS.iter().find(|(_, factor)| self.amount.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}/{}", self.amount / factor, self.span),
            None => write!(f, "{}/{}", self.amount, self.span),
        }
    }
}
