//! Parts of a stored response: RFC 9110 section 14.

use std::ops::Range;

/// What becomes of a `Range`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Nothing that is known or that must be followed: the whole.
    Whole,
    Of(Range<u64>),
    /// 416
    Unsatisfiable,
}

/// `length`: of the whole. Several ranges are answered with the whole, as RFC 9110 section 14.2 allows.
pub fn part(range: &[u8], length: u64) -> Part {
    let Some(set) = range.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes=")) else {
        return Part::Whole;
    };
    let spec = set.1.trim_ascii();
    let Some(dash) = spec.iter().position(|byte| *byte == b'-') else { return Part::Whole };
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => from(first, last.saturating_add(1).min(length), length),
        (Some(first), None) if last.is_empty() => from(first, length, length),
        (None, Some(suffix)) if first.is_empty() => match suffix {
            0 => Part::Unsatisfiable,
            suffix => from(length.saturating_sub(suffix), length, length),
        },
        _ => Part::Whole,
    }
}

fn from(first: u64, end: u64, length: u64) -> Part {
    if first < length { Part::Of(first..end) } else { Part::Unsatisfiable }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().or(Some(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_rfc_9110_has_it() {
        let of = |range: &str| part(range.as_bytes(), 10);
        assert_eq!(of("bytes=0-1"), Part::Of(0..2));
        assert_eq!(of("Bytes=3-"), Part::Of(3..10));
        assert_eq!(of("bytes=-3"), Part::Of(7..10));
        assert_eq!(of("bytes=-30"), Part::Of(0..10));
        assert_eq!(of("bytes=5-99999999999999999999999"), Part::Of(5..10));
        assert_eq!(of("bytes=10-"), Part::Unsatisfiable);
        assert_eq!(of("bytes=-0"), Part::Unsatisfiable);
        for odd in ["bytes=2-1", "bytes=0-1,3-4", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b", "bytes=+1-2"]
        {
            assert_eq!(of(odd), Part::Whole, "{odd}");
        }
        assert_eq!(part(b"bytes=0-", 0), Part::Unsatisfiable);
    }
}
