//! `gateway observe`

use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use super::{Global, Outcome, ban::text, client, exit};
use crate::{config::units::Prefix, observe::access_log};

/// Columns of a line.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
#[command(
    after_help = "A filter is an event's name (request, drop, ban, unban, ban_over, target, reload, alert, difference, lost) or \
                        a field, an operator (= != < <= > >=) and a value, which may be a prefix of addresses. `not` turns \
                        the next one round:\n  gateway observe -f drop reason=limit_packets\n  \
                        gateway observe -f drop source=192.0.2.0/24 --not reason=blocked\n  \
                        gateway observe -f route=items 'status>=500' not client=10.0.0.0/8\n\nRequests are shown when the \
                        filter has `request` or a field of the access log in it, as they end. Drops are samples: the \
                        first of a kind and CPU, then every 1024th. `-o json` prints an object a line."
)]
pub struct Observe {
    /// Only events that match all of these
    filter: Vec<String>,
    /// Not events that match this; may be given several times
    #[arg(long, value_name = "FILTER")]
    not: Vec<String>,
    /// Go on until Ctrl-C; without it what is remembered is shown
    #[arg(short, long)]
    follow: bool,
}

impl Observe {
    pub fn run(self, global: &Global) -> Outcome {
        let filters = Filters::parse(&self.filter, &self.not);
        let path = match (self.follow, filters.of_requests()) {
            (false, _) => "/v1/events?recent=1",
            (true, false) => "/v1/events",
            (true, true) => "/v1/events?requests=1",
        };
        let mut rest = Vec::new();
        client::stream(global, path, |bytes| {
            rest.extend_from_slice(bytes);
            while let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = rest.drain(..end + 2).collect();
                let Some(event) = event(&message) else { continue };
                // That something is missing is told whatever the filter.
                let wanted = event["event"] == "lost" || filters.match_all(&event);
                if wanted && !print(global, &event) {
                    return false;
                }
            }
            true
        })?;
        Ok(exit::OK)
    }
}

fn event(message: &[u8]) -> Option<Value> {
    serde_json::from_slice(message.trim_ascii().strip_prefix(b"data: ")?).ok()
}

/// False: nobody reads any more.
fn print(global: &Global, event: &Value) -> bool {
    let line = if global.json() { event.to_string() } else { describe(event) };
    writeln!(std::io::stdout(), "{line}").is_ok()
}

/// All of some, and none of the others.
struct Filters {
    all: Vec<Filter>,
    none: Vec<Filter>,
}

impl Filters {
    fn parse(all: &[String], none: &[String]) -> Filters {
        let mut filters =
            Filters { all: Vec::new(), none: none.iter().map(|text| Filter::parse(text)).collect() };
        let mut words = all.iter();
        while let Some(word) = words.next() {
            match (word.as_str(), words.as_slice().first()) {
                ("not", Some(next)) => {
                    filters.none.push(Filter::parse(next));
                    words.next();
                }
                _ => filters.all.push(Filter::parse(word)),
            }
        }
        filters
    }

    /// Whether they speak of requests.
    fn of_requests(&self) -> bool {
        self.all.iter().any(|filter| match filter {
            Filter::Name(name) => name == "request",
            // What other events have too says nothing.
            Filter::Field(field, ..) => {
                access_log::FIELDS.contains(&field.as_str())
                    && !["ts", "service", "target", "why"].contains(&field.as_str())
            }
        })
    }

    fn match_all(&self, event: &Value) -> bool {
        self.all.iter().all(|f| f.matches(event)) && !self.none.iter().any(|f| f.matches(event))
    }
}

#[derive(Debug)]
enum Filter {
    Name(String),
    Field(String, Operator, String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Is,
    IsNot,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Filter {
    fn parse(text: &str) -> Filter {
        let operators = [
            ("!=", Operator::IsNot),
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            ("=", Operator::Is),
            (">", Operator::More),
            ("<", Operator::Less),
        ];
        let Some(at) = text.find(['=', '!', '<', '>']) else { return Filter::Name(text.to_owned()) };
        let (field, rest) = text.split_at(at);
        match operators.iter().find_map(|(sign, operator)| Some((operator, rest.strip_prefix(sign)?))) {
            Some((operator, value)) => Filter::Field(field.to_owned(), *operator, value.to_owned()),
            None => Filter::Name(text.to_owned()),
        }
    }

    fn matches(&self, event: &Value) -> bool {
        match self {
            Filter::Name(name) => event["event"] == name.as_str(),
            Filter::Field(field, operator, wanted) => {
                let found = &event[field];
                let order = || found.as_f64()?.partial_cmp(&wanted.parse::<f64>().ok()?);
                match operator {
                    Operator::Is => is(found, wanted),
                    Operator::IsNot => !is(found, wanted),
                    Operator::Less => order().is_some_and(|order| order.is_lt()),
                    Operator::AtMost => order().is_some_and(|order| order.is_le()),
                    Operator::More => order().is_some_and(|order| order.is_gt()),
                    Operator::AtLeast => order().is_some_and(|order| order.is_ge()),
                }
            }
        }
    }
}

/// Whether it is that, or an address within it.
fn is(found: &Value, wanted: &str) -> bool {
    if found.is_null() {
        return false;
    }
    let found = text(found);
    let within = || -> Option<bool> {
        let (prefix, address): (Prefix, Prefix) = (wanted.parse().ok()?, found.parse().ok()?);
        Some(prefix.covers(&address))
    };
    found == *wanted || within() == Some(true)
}

/// One line for people.
fn describe(event: &Value) -> String {
    let of = |field: &str| text(&event[field]);
    let end = |address: &str, port: &str| match event[port].as_u64() {
        Some(port) if of(address).contains(':') => format!("[{}]:{port}", of(address)),
        Some(port) => format!("{}:{port}", of(address)),
        None => of(address),
    };
    let what = match event["event"].as_str().unwrap_or_default() {
        "drop" => format!(
            "{} {} > {} {} {} B on {}",
            of("reason"),
            end("source", "source_port"),
            end("destination", "destination_port"),
            protocol(event["protocol"].as_u64().unwrap_or(0)),
            of("length"),
            of("interface"),
        ),
        "ban" => match event["left_seconds"].as_u64() {
            Some(seconds) => {
                format!("{} for {} ({})", of("cidr"), super::output::seconds(seconds), of("why"))
            }
            None => format!("{} until lifted ({})", of("cidr"), of("why")),
        },
        "target" => {
            let owner = if event["service"].is_null() { of("upstream") } else { of("service") };
            format!("{} of {owner} is {}: {}", of("target"), of("state"), of("why"))
        }
        "reload" if event["ok"] == true => {
            format!("generation {}, {} changes", of("generation"), of("changes"))
        }
        "reload" => format!("failed: {}", of("error")),
        "request" => format!(
            "{} {} {} {}{}{} {}us {}",
            of("status"),
            of("client"),
            of("method"),
            of("host"),
            of("path"),
            if event["why"].is_null() { String::new() } else { format!(" {}", of("why")) },
            of("us"),
            of("route"),
        ),
        "alert" => format!("{} is {}: {}", of("alert"), of("state"), of("text")),
        "lost" => format!("{} events: too slow a reader", of("count")),
        _ => of("cidr"),
    };
    let line = format!("{} {:8} {what}", clock(event["ts"].as_f64().unwrap_or(0.0)), of("event"));
    // One line, and no control characters of others.
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= WIDTH {
        return line;
    }
    line.chars().take(WIDTH - 1).chain(['…']).collect()
}

fn protocol(number: u64) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        other => format!("protocol {other}"),
    }
}

/// Time of day, UTC.
fn clock(ts: f64) -> String {
    let millis = (ts * 1000.0) as u64;
    let seconds = millis / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, millis % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn drop_of(source: &str, destination: &str) -> Value {
        json!({ "ts": 3661.5, "event": "drop", "reason": "blocked", "source": source, "source_port": 5,
            "destination": destination, "destination_port": 80, "protocol": 6, "length": 60, "interface": "eth0" })
    }

    #[test]
    fn a_line_says_it_all_and_is_no_longer_than_a_hundred_columns() {
        assert_eq!(
            describe(&drop_of("192.0.2.1", "192.0.2.2")),
            "01:01:01.500 drop     blocked 192.0.2.1:5 > 192.0.2.2:80 tcp 60 B on eth0"
        );
        let long = "2001:db8:1111:2222:3333:4444:5555:6666";
        assert_eq!(describe(&drop_of(long, long)).chars().count(), WIDTH);
    }

    #[test]
    fn filters_know_names_fields_and_prefixes() {
        let event = drop_of("192.0.2.1", "2001:db8::1");
        for (text, matches) in [
            ("drop", true),
            ("ban", false),
            ("reason=blocked", true),
            ("reason=banned", false),
            ("source=192.0.2.0/24", true),
            ("source=198.51.100.0/24", false),
            ("destination=2001:db8::/32", true),
            ("nothing=at_all", false),
            ("length>=60", true),
            ("length>60", false),
            ("length<61", true),
            ("length<=59", false),
            ("reason!=blocked", false),
            ("reason>=1", false),
        ] {
            assert_eq!(Filter::parse(text).matches(&event), matches, "{text}");
        }
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let filters = Filters::parse(&words("route=items status>=500 not client=10.0.0.0/8"), &[]);
        let request = |client: &str, status: u16| json!({ "event": "request", "route": "items", "status": status, "client": client });
        assert!(filters.of_requests() && filters.match_all(&request("192.0.2.1", 503)));
        assert!(
            !filters.match_all(&request("10.1.2.3", 503)) && !filters.match_all(&request("192.0.2.1", 404))
        );
        assert!(!Filters::parse(&words("drop reason=blocked"), &[]).of_requests());
    }
}
