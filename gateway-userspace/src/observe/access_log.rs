//! The access log: one line a request, or a connection of a service, written without ever stalling one.
//!
//! A worker formats lines (JSON, whatever the log's shape) into its own buffer and hands full buffers (or, every
//! [`FLUSH_EVERY`], started ones) to one writer thread through a bounded channel. When the writer cannot keep up the
//! batch is dropped and counted. What makes other lines of them, and writes them somewhere, is that thread's.

mod notable;
mod otlp;
mod rules;
mod shape;
mod sink;
mod writer;

pub use notable::Notable;
pub use rules::Rules;
pub use shape::{FIELDS, Shape};
pub use writer::{AccessLog, Buffer, FLUSH_EVERY, LineCounts, check};

use std::{
    net::{IpAddr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Why,
    json::{number, optional, text},
    stats::CacheResult,
};
use crate::{
    hex,
    net::{put_ip, put_socket},
};

/// The part of a line that is the same for all requests of a connection.
#[derive(Debug, Default)]
pub struct ConnectionText(Vec<u8>);

impl ConnectionText {
    pub fn new(listener: &str, client: IpAddr, peer: SocketAddr, proto: &str, tls: Option<&str>) -> Self {
        ConnectionText::of(b",\"listener\":", listener, client, peer, proto, tls)
    }

    pub fn of_service(
        service: &str,
        client: IpAddr,
        peer: SocketAddr,
        proto: &str,
        tls: Option<&str>,
    ) -> Self {
        ConnectionText::of(b",\"service\":", service, client, peer, proto, tls)
    }

    fn of(key: &[u8], name: &str, client: IpAddr, peer: SocketAddr, proto: &str, tls: Option<&str>) -> Self {
        let mut out = Vec::with_capacity(160);
        text(&mut out, key, name.as_bytes());
        out.extend_from_slice(b",\"client\":\"");
        put_ip(&mut out, client);
        out.extend_from_slice(b"\",\"peer\":\"");
        put_socket(&mut out, peer);
        out.push(b'"');
        text(&mut out, b",\"proto\":", proto.as_bytes());
        optional(&mut out, b",\"tls\":", tls.map(str::as_bytes));
        ConnectionText(out)
    }
}

/// What a request says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub host: Option<&'a [u8]>,
    pub method: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
}

/// The request's own part of a line, written when its head was read, since the head itself goes on to the upstream.
/// The buffers are used again for the next request.
#[derive(Debug, Default)]
pub struct RequestText {
    start: Vec<u8>,
    /// Where in it the query is.
    query_at: usize,
    end: Vec<u8>,
}

impl RequestText {
    /// Of a connection, of which no more than the name that is asked for is known.
    pub fn name(&mut self, host: Option<&str>) {
        optional(&mut self.start, b",\"host\":", host.map(str::as_bytes));
    }

    /// The query is logged as this, in place of what came.
    pub fn set_query(&mut self, query: Option<&str>, rules: &Rules) {
        // Of a head that could not be read, nothing is there.
        if self.query_at > 0 {
            self.start.truncate(self.query_at);
            let redacted =
                query.map(|query| rules.redact.as_ref().map_or(query.into(), |redact| redact.query(query)));
            optional(&mut self.start, b",\"query\":", redacted.as_deref().map(str::as_bytes));
        }
    }

    /// `None`: the head could not be read.
    pub fn fill(&mut self, request: Option<Request<'_>>, rules: &Rules) {
        self.clear();
        match (request, &rules.redact) {
            (None, _) => {}
            (Some(request), None) => self.put(&request),
            (Some(request), Some(redact)) => self.put_redacted(&request, redact),
        }
    }

    /// Of a request that nobody is to read of.
    pub fn clear(&mut self) {
        self.start.clear();
        self.query_at = 0;
        self.end.clear();
    }

    #[cold]
    fn put_redacted(&mut self, request: &Request<'_>, redact: &rules::Redactor) {
        let query = request.query.map(|query| redact.query(query));
        let referer = request.referer.map(|referer| redact.referer(referer));
        let mut shown = Request { query: query.as_deref(), referer: referer.as_deref(), ..*request };
        for (name, value) in [
            ("host", &mut shown.host),
            ("user-agent", &mut shown.user_agent),
            ("referer", &mut shown.referer),
        ] {
            if value.is_some() && redact.hides_header(name) {
                *value = Some(rules::HIDDEN.as_bytes());
            }
        }
        self.put(&shown);
    }

    fn put(&mut self, request: &Request<'_>) {
        optional(&mut self.start, b",\"host\":", request.host);
        // A token (RFC 9110 section 9.1): nothing to escape either.
        name(&mut self.start, b",\"method\":\"", Some(request.method));
        text(&mut self.start, b",\"path\":", request.path.as_bytes());
        self.query_at = self.start.len();
        optional(&mut self.start, b",\"query\":", request.query.map(str::as_bytes));
        optional(&mut self.end, b",\"ua\":", request.user_agent);
        optional(&mut self.end, b",\"ref\":", request.referer);
    }
}

/// What is known of a request when it ends. Absent values are left out of the line.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub at: SystemTime,
    pub id: &'a [u8],
    pub trace: Option<u128>,
    pub connection: &'a ConnectionText,
    pub request: &'a RequestText,
    /// `None`: it is no request's.
    pub status: Option<u16>,
    pub route: Option<&'a str>,
    /// Of the route's API.
    pub version: Option<&'a str>,
    pub consumer: Option<&'a str>,
    pub upstream: Option<&'a str>,
    pub target: Option<&'a str>,
    pub tries: u32,
    pub why: Option<Why>,
    /// What a cache did for it.
    pub cache: Option<CacheResult>,
    pub limit: Option<&'a str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub us: u64,
    pub us_self: Option<u64>,
    pub us_tls: Option<u64>,
    pub us_queue: Option<u64>,
    pub us_connect: Option<u64>,
    pub us_first_byte: Option<u64>,
}

impl Line<'_> {
    /// Appends the line and its newline. The order of the fields is part of the interface.
    pub fn write(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        // All but names in one go.
        out.reserve(512 + self.connection.0.len() + self.request.start.len() + self.request.end.len());
        out.extend_from_slice(b"{\"ts\":\"");
        stamp.write(out, self.at);
        out.extend_from_slice(b"\",\"id\":\"");
        out.extend_from_slice(self.id);
        out.push(b'"');
        if let Some(trace) = self.trace {
            out.extend_from_slice(b",\"trace\":\"");
            hex::push(out, trace.to_be_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(&self.connection.0);
        out.extend_from_slice(&self.request.start);
        if let Some(status) = self.status {
            number(out, b",\"status\":", u64::from(status));
        }
        name(out, b",\"route\":\"", self.route);
        name(out, b",\"version\":\"", self.version);
        optional(out, b",\"consumer\":", self.consumer.map(str::as_bytes));
        name(out, b",\"upstream\":\"", self.upstream);
        name(out, b",\"target\":\"", self.target);
        if self.tries > 0 {
            number(out, b",\"tries\":", u64::from(self.tries));
        }
        name(out, b",\"why\":\"", self.why.map(Why::name));
        name(out, b",\"cache\":\"", self.cache.map(CacheResult::word));
        name(out, b",\"limit\":\"", self.limit);
        number(out, b",\"bytes_in\":", self.bytes_in);
        number(out, b",\"bytes_out\":", self.bytes_out);
        number(out, b",\"us\":", self.us);
        if let Some(us) = self.us_self {
            number(out, b",\"us_self\":", us);
        }
        if let Some(us) = self.us_tls {
            number(out, b",\"us_tls\":", us);
        }
        if let Some(us) = self.us_queue {
            number(out, b",\"us_queue\":", us);
        }
        if let Some(us) = self.us_connect {
            number(out, b",\"us_connect\":", us);
        }
        if let Some(us) = self.us_first_byte {
            number(out, b",\"us_first_byte\":", us);
        }
        out.extend_from_slice(&self.request.end);
        out.extend_from_slice(b"}\n");
    }
}

/// A name from the config or a closed list: letters, digits and `-_.:[]`, nothing to escape.
fn name(out: &mut Vec<u8>, key: &[u8], value: Option<&str>) {
    if let Some(value) = value {
        out.extend_from_slice(key);
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    }
}

/// Formats times as RFC 3339 in UTC with milliseconds, remembering the last second.
#[derive(Debug, Default)]
pub struct Stamp {
    second: u64,
    text: Vec<u8>,
}

impl Stamp {
    fn write(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.text.is_empty() || self.second != since.as_secs() {
            self.second = since.as_secs();
            self.text = rfc3339_seconds(self.second).into_bytes();
        }
        out.extend_from_slice(&self.text);
        let ms = since.subsec_millis();
        out.extend_from_slice(&[
            b'.',
            b'0' + (ms / 100) as u8,
            b'0' + (ms / 10 % 10) as u8,
            b'0' + (ms % 10) as u8,
            b'Z',
        ]);
    }
}

/// `2026-11-23T20:15:00Z`
pub fn rfc3339(second: u64) -> String {
    format!("{}Z", rfc3339_seconds(second))
}

/// `2026-11-23T20:15:00`, from seconds since 1970 (proleptic Gregorian; days to date by 400-year eras of 146 097 days).
pub fn rfc3339_seconds(second: u64) -> String {
    let days = second / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PLAIN: Request<'static> = Request {
        host: Some(b"a.example"),
        method: "GET",
        path: "/",
        query: None,
        user_agent: None,
        referer: None,
    };

    fn written(request: Request<'_>) -> String {
        written_by(&Rules::default(), request)
    }

    fn written_by(rules: &Rules, request: Request<'_>) -> String {
        let peer = SocketAddr::from(([192, 0, 2, 1], 4000));
        let connection = ConnectionText::new("web", peer.ip(), peer, "h1", None);
        let mut text = RequestText::default();
        text.fill(Some(request), rules);
        let mut out = Vec::new();
        let line = Line {
            at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_007),
            id: b"id",
            trace: None,
            connection: &connection,
            request: &text,
            status: Some(200),
            route: None,
            version: None,
            consumer: None,
            upstream: None,
            target: None,
            tries: 0,
            why: None,
            cache: Some(CacheResult::Hit),
            limit: None,
            bytes_in: 0,
            bytes_out: 128,
            us: 250,
            us_self: Some(50),
            us_tls: Some(40),
            us_queue: None,
            us_connect: None,
            us_first_byte: Some(200),
        };
        line.write(&mut out, &mut Stamp::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_its_fields_in_order_and_leaves_out_what_is_absent() {
        assert_eq!(
            written(PLAIN),
            "{\"ts\":\"2023-11-14T22:13:20.007Z\",\"id\":\"id\",\"listener\":\"web\",\"client\":\"192.0.2.1\",\
             \"peer\":\"192.0.2.1:4000\",\"proto\":\"h1\",\"host\":\"a.example\",\"method\":\"GET\",\"path\":\"/\",\
             \"status\":200,\"cache\":\"hit\",\"bytes_in\":0,\"bytes_out\":128,\"us\":250,\"us_self\":50,\"us_tls\":40,\"us_first_byte\":200}\n"
        );
    }

    #[test]
    fn hostile_bytes_stay_inside_their_json_string() {
        let ua: &[u8] = b"\"},{\"x\":\"\\\n\xff\x00";
        let line = written(Request { user_agent: Some(ua), ..PLAIN });
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["ua"], "\"},{\"x\":\"\\\n\u{fffd}\u{0}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn dates_are_right_at_leap_days_and_year_ends() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339_seconds(second), text);
        }
    }

    #[test]
    fn what_is_redacted_is_in_no_line() {
        let rules = Rules::new(&crate::config::model::AccessLog {
            redact: crate::config::model::Redact {
                headers: vec!["user-agent".into()],
                query: vec!["token".into()],
            },
            ..Default::default()
        });
        let request = Request {
            query: Some("a=1&token=s3cret&%74oken=s3cret&token&b=token"),
            user_agent: Some(b"s3cret"),
            referer: Some(b"https://a.test/?token=s3cret&x=2#token=y"),
            ..PLAIN
        };
        let line = written_by(&rules, request);
        assert!(!line.contains("s3cret"), "{line}");
        assert!(line.contains("\"query\":\"a=1&token=***&%74oken=***&token&b=token\""), "{line}");
        assert!(line.contains("\"ua\":\"***\"") && line.contains("?token=***&x=2#token=y\""), "{line}");
    }
}
