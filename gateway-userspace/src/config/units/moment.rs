//! Points in time, as people write dates.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{UnitError, quote};
use crate::observe::access_log::rfc3339_seconds;

/// A second of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Since 1970.
    pub seconds: u64,
}

impl Moment {
    pub fn of(time: SystemTime) -> Self {
        Moment { seconds: time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() }
    }

    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds)
    }
}

impl FromStr for Moment {
    type Err = UnitError;

    /// RFC 3339: a date is its first second in UTC; a time needs its offset.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong =
            || UnitError::new(format!("expected a date such as \"2027-01-31\", found {}", quote(text)));
        let parsed: toml::value::Datetime = text.parse().map_err(|_| wrong())?;
        let date = parsed.date.ok_or_else(wrong)?;
        let clock = match (parsed.time, parsed.offset) {
            (None, _) => 0,
            (Some(_), None) => {
                return Err(wrong().hint("a time of day needs its offset: 2027-01-31T12:00:00Z"));
            }
            (Some(time), Some(offset)) => {
                let minutes = match offset {
                    toml::value::Offset::Z => 0,
                    toml::value::Offset::Custom { minutes } => i64::from(minutes),
                };
                let (hour, minute) = (i64::from(time.hour), i64::from(time.minute));
                hour * 3600 + minute * 60 + i64::from(time.second.unwrap_or(0)) - minutes * 60
            }
        };
        let days = days(i64::from(date.year), i64::from(date.month), i64::from(date.day));
        let seconds = u64::try_from(days * 86_400 + clock).map_err(|_| wrong().hint("not before 1970"))?;
        Ok(Moment { seconds })
    }
}

/// Since 1970, of a date (proleptic Gregorian): what `rfc3339_seconds` undoes.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = rfc3339_seconds(self.seconds);
        match text.strip_suffix("T00:00:00") {
            Some(date) => f.write_str(date),
            None => write!(f, "{text}Z"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_they_are_read() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2027-01-01", 1_798_761_600),
            ("2027-01-01T12:30:05Z", 1_798_806_605),
        ] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!((moment.seconds, moment.to_string().as_str()), (seconds, text));
        }
        assert_eq!("2027-01-01T01:00:00+01:00".parse::<Moment>(), "2027-01-01".parse());
        for wrong in ["", "2027", "2027-13-01", "2027-02-30", "12:00:00", "2027-01-01T12:00:00", "1969-01-01"]
        {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }
}
