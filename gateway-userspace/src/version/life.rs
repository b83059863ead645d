//! A version's end: when it answers no more, and when only for a while.

use crate::config::{
    model::{Afterwards, ApiVersion, Brownout},
    units::Moment,
};

#[derive(Debug)]
pub struct Life {
    pub deprecated: Option<Moment>,
    sunset: Option<(Moment, Afterwards)>,
    brownouts: Vec<Brownout>,
}

/// What a version does at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Serves,
    /// It answers again after so many seconds.
    BrownOut(u64),
    Gone,
    /// Its successor answers.
    Redirects,
}

impl Life {
    pub(super) fn new(config: &ApiVersion) -> Self {
        Life {
            deprecated: config.deprecated.as_ref().map(|deprecated| deprecated.at),
            sunset: config.sunset.as_ref().map(|sunset| (sunset.at, sunset.then)),
            brownouts: config.brownouts.clone(),
        }
    }

    /// Whether it has no end that the time would have to be known for.
    pub fn is_open(&self) -> bool {
        self.sunset.is_none() && self.brownouts.is_empty()
    }

    pub fn at(&self, now: Moment) -> Standing {
        match self.sunset {
            Some((at, Afterwards::Gone)) if now >= at => return Standing::Gone,
            Some((at, Afterwards::Redirect)) if now >= at => return Standing::Redirects,
            Some((at, Afterwards::Serve)) if now >= at => return Standing::Serves,
            _ => {}
        }
        let left = self.brownouts.iter().filter_map(|brownout| left_of(brownout, now)).max();
        left.map_or(Standing::Serves, Standing::BrownOut)
    }
}

/// The seconds that are left of a brown-out, if it is one.
fn left_of(brownout: &Brownout, now: Moment) -> Option<u64> {
    let since = now.seconds.checked_sub(brownout.at.seconds)?;
    let since = match brownout.every.map(|every| every.as_secs()) {
        Some(every) if every > 0 => since % every,
        _ => since,
    };
    brownout.lasts.as_secs().checked_sub(since).filter(|left| *left > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn moment(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn life(sunset: Option<(&str, Afterwards)>, brownouts: Vec<Brownout>) -> Life {
        Life { deprecated: None, sunset: sunset.map(|(at, then)| (moment(at), then)), brownouts }
    }

    #[test]
    fn the_sunset_is_at_midnight_utc() {
        for (then, after) in [
            (Afterwards::Gone, Standing::Gone),
            (Afterwards::Redirect, Standing::Redirects),
            (Afterwards::Serve, Standing::Serves),
        ] {
            let life = life(Some(("2027-01-31", then)), Vec::new());
            assert_eq!(life.at(moment("2027-01-30T23:59:59Z")), Standing::Serves);
            assert_eq!(life.at(moment("2027-01-31T00:00:00Z")), after);
            // The same second, told elsewhere.
            assert_eq!(life.at(moment("2027-01-31T01:00:00+01:00")), after);
            assert_eq!(life.at(moment("2027-01-30T23:59:59-01:00")), after);
        }
    }

    #[test]
    fn a_brownout_ends_and_comes_again_until_the_sunset() {
        let hour = Duration::from_secs(3600);
        let daily = Brownout { at: moment("2026-12-01T10:00:00Z"), lasts: hour, every: Some(24 * hour) };
        let once = Brownout { every: None, ..daily.clone() };
        let life = life(Some(("2026-12-03", Afterwards::Serve)), vec![daily]);
        for (now, standing) in [
            ("2026-11-30T10:30:00Z", Standing::Serves),
            ("2026-12-01T09:59:59Z", Standing::Serves),
            ("2026-12-01T10:00:00Z", Standing::BrownOut(3600)),
            ("2026-12-01T10:59:59Z", Standing::BrownOut(1)),
            ("2026-12-01T11:00:00Z", Standing::Serves),
            ("2026-12-02T10:30:00Z", Standing::BrownOut(1800)),
            ("2026-12-03T10:30:00Z", Standing::Serves),
        ] {
            assert_eq!(life.at(moment(now)), standing, "{now}");
        }
        let life = self::life(None, vec![once]);
        assert_eq!(life.at(moment("2026-12-01T10:30:00Z")), Standing::BrownOut(1800));
        assert_eq!(life.at(moment("2026-12-02T10:30:00Z")), Standing::Serves);
    }
}
