//! `gateway observe`

use std::io::Write as _;

use clap::Args;
use serde_json::Value;

use super::{Global, Outcome, ban::text, client, exit};
use crate::config::units::Prefix;

/// Columns of a line.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
#[command(
    after_help = "A filter is an event's name (drop, ban, unban, ban_over, target, reload, lost) or FIELD=VALUE, \
                        where VALUE may be a prefix of addresses:\n  gateway observe -f drop reason=limit_packets\n  \
                        gateway observe -f drop source=192.0.2.0/24 --not reason=blocked\n\nDrops are samples: the \
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
        let parse = |all: &[String]| all.iter().map(|text| Filter::parse(text)).collect::<Vec<_>>();
        let (filter, not) = (parse(&self.filter), parse(&self.not));
        let path = if self.follow { "/v1/events" } else { "/v1/events?recent=1" };
        let mut rest = Vec::new();
        client::stream(global, path, |bytes| {
            rest.extend_from_slice(bytes);
            while let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
                let message: Vec<u8> = rest.drain(..end + 2).collect();
                let Some(event) = event(&message) else { continue };
                // That something is missing is told whatever the filter.
                let wanted = event["event"] == "lost"
                    || (filter.iter().all(|f| f.matches(&event)) && !not.iter().any(|f| f.matches(&event)));
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

#[derive(Debug)]
enum Filter {
    Name(String),
    Field(String, String),
}

impl Filter {
    fn parse(text: &str) -> Filter {
        match text.split_once('=') {
            Some((field, value)) => Filter::Field(field.to_owned(), value.to_owned()),
            None => Filter::Name(text.to_owned()),
        }
    }

    fn matches(&self, event: &Value) -> bool {
        match self {
            Filter::Name(name) => event["event"] == name.as_str(),
            Filter::Field(field, wanted) => {
                let found = text(&event[field]);
                let within = || {
                    let (prefix, address): (Prefix, Prefix) = (wanted.parse().ok()?, found.parse().ok()?);
                    Some(prefix.covers(&address))
                };
                found == *wanted || (!event[field].is_null() && within() == Some(true))
            }
        }
    }
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
        ] {
            assert_eq!(Filter::parse(text).matches(&event), matches, "{text}");
        }
    }
}
