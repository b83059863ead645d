//! `Cache-Status` (RFC 9211).

use http::HeaderValue;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Answered from the cache; seconds that it is still fresh, negative when it is stale.
    Hit { ttl: i64 },
    /// Asked the upstream, for this reason.
    Forwarded { why: Forward, stored: bool, collapsed: bool, detail: Option<&'static str> },
}

/// RFC 9211 section 2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    Bypass,
    Method,
    UriMiss,
    Request,
    Stale,
    Partial,
}

impl Forward {
    fn word(self) -> &'static str {
        match self {
            Forward::Bypass => "bypass",
            Forward::Method => "method",
            Forward::UriMiss => "miss",
            Forward::Request => "request",
            Forward::Stale => "stale",
            Forward::Partial => "partial",
        }
    }
}

impl Status {
    pub fn value(self) -> HeaderValue {
        let text = match self {
            Status::Hit { ttl } => format!("gateway; hit; ttl={ttl}"),
            Status::Forwarded { why, stored, collapsed, detail } => {
                let mut text = format!("gateway; fwd={}", why.word());
                if stored {
                    text.push_str("; stored");
                }
                if collapsed {
                    text.push_str("; collapsed");
                }
                if let Some(detail) = detail {
                    text.push_str("; detail=");
                    text.push_str(detail);
                }
                text
            }
        };
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("gateway"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_member_of_a_list_of_structured_fields() {
        assert_eq!(Status::Hit { ttl: -3 }.value(), "gateway; hit; ttl=-3");
        let status = |stored, collapsed, detail| {
            Status::Forwarded { why: Forward::UriMiss, stored, collapsed, detail }.value()
        };
        assert_eq!(status(true, true, None), "gateway; fwd=miss; stored; collapsed");
        assert_eq!(status(false, false, Some("private")), "gateway; fwd=miss; detail=private");
    }
}
